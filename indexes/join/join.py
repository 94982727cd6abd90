"""Find the pairs of new vectors and commit them, a few seconds of work at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from indexes.catalog.catalog import Catalog
from indexes.catalog.pairs import JoinWatermark
from indexes.durable.failpoints import failpoint
from indexes.join.planner import JoinMethod, JoinPlan, choose_floor, plan_join
from indexes.join.recall import Recall
from indexes.join.step import JoinStep
from indexes.records import Space
from indexes.vectors.mapped import MappedSegments
from indexes.vectors.scores import ScoredPairs, concat_pairs

# What a kill may lose: pairs are committed after this time, or when this many are waiting.
MAX_UNCOMMITTED_SECONDS = 5.0
MAX_UNCOMMITTED_PAIRS = 1 << 20


@dataclass(frozen=True)
class JoinProgress:
    """The progress of a join: `done` of `total` in its own units, and the pairs found so far.

    The last step of an IVF join has its recall.
    """

    plan: JoinPlan
    done: int
    total: int
    pair_count: int
    recall: Recall | None = None


def join_new_vectors(
    catalog: Catalog, mapped: MappedSegments, space: Space, method: JoinMethod | None = None
) -> Iterator[JoinProgress]:
    """Find the pairs of new vectors and store those at or above a floor.

    It may be stopped at any yield; the next call continues. Nothing is yielded if no vector is new.
    `method` overrides the planner; an exact join after an IVF one starts from the beginning.
    """
    watermark = catalog.pairs.get_watermark() or JoinWatermark(space.floor)
    if method is JoinMethod.EXACT and watermark.recall < 1:
        watermark = JoinWatermark(watermark.floor)
    segment_rows = catalog.vectors.list_segments()
    if not segment_rows or segment_rows[-1].last_id <= watermark.done:
        return
    vectors = mapped.get_rows()
    max_floor = max(space.threshold, watermark.floor)
    watermark = choose_floor(vectors, watermark, space.floor, max_floor)
    plan = plan_join(vectors, watermark, method)
    uncommitted = _UncommittedPairs(catalog)
    pair_count = 0
    yield JoinProgress(plan, 0, 1, pair_count)
    for step in plan.execute(vectors):
        uncommitted.add(step.new_pairs)
        pair_count += len(step.new_pairs.left)
        is_last = step.watermark.done >= vectors.ids[-1]
        if is_last or uncommitted.is_due():
            uncommitted.commit(step)
        yield JoinProgress(plan, step.done, step.total, pair_count, step.recall)


class _UncommittedPairs:
    """Pairs that wait for the next commit."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._pair_sets: list[ScoredPairs] = []
        self._committed_at = time.monotonic()

    def add(self, pairs: ScoredPairs) -> None:
        self._pair_sets.append(pairs)

    def is_due(self) -> bool:
        pair_count = sum(len(pairs.left) for pairs in self._pair_sets)
        seconds = time.monotonic() - self._committed_at
        return seconds > MAX_UNCOMMITTED_SECONDS or pair_count > MAX_UNCOMMITTED_PAIRS

    def commit(self, step: JoinStep) -> None:
        """Commit all waiting pairs, and the watermark that they reach."""
        failpoint("join pairs found")
        pairs = concat_pairs(self._pair_sets)
        with self._catalog.transaction():
            self._catalog.pairs.put(step.watermark, pairs.left, pairs.right, pairs.score)
        self._pair_sets, self._committed_at = [], time.monotonic()
