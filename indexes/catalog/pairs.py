"""Edges, the pairs of vectors with their scores, and how far the join has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.database import Database
from indexes.catalog.vectors import Ids


@dataclass(frozen=True, slots=True)
class JoinWatermark:
    """The progress of the join: which pairs with score >= `floor` are in the catalog.

    For a vector x <= `done`, every pair with a vector y < x is there. For a vector x of the block
    that the join is in, `done` < x <= `block_end`, every pair with a vector y <= `block_done` is.
    `recall` is 1 for an exact join. Otherwise it is the lowest recall that was measured for an IVF
    join among those that found the pairs.
    """

    floor: float
    done: int = 0
    block_end: int = 0
    block_done: int = 0
    recall: float = 1.0


class PairTable:
    """The edges of a store and its join watermark."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def get_watermark(self) -> JoinWatermark | None:
        """Return how far the join has come; None before the first join."""
        rows = self._database.fetch_rows(
            "SELECT floor, done, block_end, block_done, recall FROM join_watermark"
        )
        return JoinWatermark(*rows[0]) if rows else None

    def put(
        self, watermark: JoinWatermark, left: Ids, right: Ids, score: NDArray[np.float64]
    ) -> None:
        """Write edges and move the watermark; left < right in each edge.

        Where the watermark has a higher floor than before, the edges below it are deleted.
        """
        previous = self.get_watermark()
        if previous and previous.floor < watermark.floor:
            self._database.write("DELETE FROM edges WHERE score < ?", watermark.floor)
        self._database.write_many(
            "INSERT OR IGNORE INTO edges (left, right, score) VALUES (?, ?, ?)",
            zip(left.tolist(), right.tolist(), score.tolist(), strict=True),
        )
        self._database.write(
            "INSERT OR REPLACE INTO join_watermark VALUES (1, ?, ?, ?, ?, ?)", *astuple(watermark)
        )

    def stream(self, min_score: float) -> Iterator[tuple[int, int, float]]:
        """Yield (left, right, score) of each pair of vectors with score >= `min_score`."""
        return self._database.stream_rows(
            "SELECT left, right, score FROM edges WHERE score >= ?", min_score
        )

    def delete_all(self) -> None:
        """Delete all edges and the watermark; the next join finds the edges again."""
        self._database.write("DELETE FROM edges")
        self._database.write("DELETE FROM join_watermark")

    def count(self) -> int:
        """Return the number of edges."""
        return int(self._database.fetch_rows("SELECT count(*) FROM edges")[0][0])
