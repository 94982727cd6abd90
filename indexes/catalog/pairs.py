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
    """How far the pairs of the store are in its edges, down to the score `floor`.

    For a vector x up to `through`, every pair with a y < x is there; up to `until`, every pair with a y <= `earlier`. Where a join by
    buckets had a part in it, `recall` is the least share that one of them was measured to find; 1 is exact.
    """

    floor: float
    done: int = 0
    block_end: int = 0
    block_done: int = 0
    recall: float = 1.0


class PairTable:
    """Edges, the pairs of vectors with their scores, and how far the join has come."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def get_watermark(self) -> JoinWatermark | None:
        """How far the pairs are found; None before the first join."""
        rows = self._database.fetch_rows(
            "SELECT floor, done, block_end, block_done, recall FROM join_watermark"
        )
        return JoinWatermark(*rows[0]) if rows else None

    def put(
        self, watermark: JoinWatermark, left: Ids, right: Ids, score: NDArray[np.float64]
    ) -> None:
        """Write pairs, and how far they reach; those below a floor that was raised go."""
        before = self.get_watermark()
        if before and before.floor < watermark.floor:
            self._database.write("DELETE FROM edges WHERE score < ?", watermark.floor)
        self._database.write_many(
            "INSERT OR IGNORE INTO edges (left, right, score) VALUES (?, ?, ?)",
            zip(left.tolist(), right.tolist(), score.tolist(), strict=True),
        )
        self._database.write(
            "INSERT OR REPLACE INTO join_watermark VALUES (1, ?, ?, ?, ?, ?)", *astuple(watermark)
        )

    def stream(self, min_score: float) -> Iterator[tuple[int, int, float]]:
        """(left, right, score) of each pair of vectors with score >= least."""
        return self._database.stream_rows(
            "SELECT left, right, score FROM edges WHERE score >= ?", min_score
        )

    def delete_all(self) -> None:
        """Forget all pairs; the next join finds them again."""
        self._database.write("DELETE FROM edges")
        self._database.write("DELETE FROM join_watermark")

    def count(self) -> int:
        """How many pairs are kept."""
        return int(self._database.fetch_rows("SELECT count(*) FROM edges")[0][0])
