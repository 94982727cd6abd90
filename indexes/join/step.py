"""The steps of a join, exact or IVF."""

from __future__ import annotations

from dataclasses import dataclass

from indexes.catalog.pairs import JoinWatermark
from indexes.join.recall import Recall
from indexes.vectors.scores import ScoredPairs


@dataclass(frozen=True)
class JoinStep:
    """The pairs found since the last step, as ids, and how far the join has come.

    `done` and `total` are in units that take about the same time each. The last step of an IVF
    join has its recall; an exact join has none.
    """

    watermark: JoinWatermark
    new_pairs: ScoredPairs
    done: int
    total: int
    recall: Recall | None = None


def count_pairs(rows: int, old_rows: int = 0) -> int:
    """Count the pairs among `rows` rows, without those among the first `old_rows`."""
    return rows * (rows - 1) // 2 - old_rows * (old_rows - 1) // 2
