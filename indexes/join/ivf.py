"""Almost every pair of a large library at or above a threshold, at a cost well below its square, and how many it finds.

k-means parts the space into lists. Each vector lives in the list of its nearest centre and visits the lists of the next few; two vectors
meet when one lives where the other lives or visits. Where a border runs is chance, so the space is parted several times over: what one
partition separates far, another does not. How many lists must be visited is asked of pairs that exact search finds for a sample of rows:
as many as the one that needs most. Of all pairs, at least 0.05 ** (1 / n) need no more than the largest of n independent draws, with 95 %
confidence and whatever their distribution is (Wilks, "Determination of sample sizes for setting tolerance limits", 1941).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from indexes.catalog.pairs import JoinWatermark
from indexes.catalog.vectors import Ids
from indexes.join.exact import (
    BLOCK_ROWS,
    TILE_ROWS,
    CosineBound,
    JoinStep,
    Recall,
    VectorRows,
    exact_scores,
    pairs_above_bound,
)
from indexes.vectors import segments
from indexes.vectors.segments import ScoredPairs, concat_pairs

# Measured on 200,000 isotropic vectors at .75, for a recall of .9995 with 2,048 lists: one partition needs 132 visits, two need 17 each,
# three 8, four 5; on CLIP-like ones at .90: 12, 8, 6, 4.
PARTITION_COUNT = 3
RECALL_SAMPLE_PAIRS = (
    3000  # pairs that choose how many lists are visited: 0.05 ** (1 / 3000) is .999
)
MAX_SAMPLE_ROW_SHARE = 0.25  # share of the rows that are asked for their pairs at most
SMALL_SAMPLE_PROBE_FACTOR = (
    1.5  # lists visited, beside what the sample needs, where it is too small to show that
)
TRAINING_ROWS_PER_CENTROID, KMEANS_ITERATIONS = (
    48,
    5,
)  # rows for each centre, and rounds, of k-means: its cost stays below that of placing the rows
SAMPLE_BLOCK_ROWS = 1 << 11  # rows that are asked for their pairs at a time
PROBE_BLOCK_LISTS = 64  # lists whose visitors are looked up at a time
MAX_PRECOMPUTED_PROJECTION_BYTES = (
    1 << 29
)  # bytes of prefixes that are made once; those of larger libraries are made for each list


def choose_list_count(rows: int) -> int:
    """How many lists are made: about 2 sqrt(rows), where placing a row costs about as much as comparing it."""
    return 1 << max(2, round(math.log2(2 * math.sqrt(max(rows, 1)))))


def find_pairs(
    vectors: VectorRows, watermark: JoinWatermark, bound: CosineBound, *, threads: int | None = None
) -> Iterator[JoinStep]:
    """Pairs of vectors with score >= frontier.floor of which one is beyond frontier.through, each once, as ids, left < right.

    The last step has the recall, and the frontier of a join that is done; one that is stopped before begins anew.
    """
    work = _ProjectedRows(vectors, watermark, bound)
    rng = np.random.default_rng(1)
    count = min(choose_list_count(len(vectors.ids)), len(vectors.ids))
    middles = [_train_centroids(vectors, count, rng) for _ in range(PARTITION_COUNT)]
    with ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="join") as pool:
        asking = _RecallSample(work, middles, rng, pool)
        for share in asking.draw_until(RECALL_SAMPLE_PAIRS):
            yield JoinStep(watermark, _empty_pairs(), int(500 * share), 1000)
        judges = len(asking.independent_probes)
        slack = 1.0 if judges >= RECALL_SAMPLE_PAIRS else SMALL_SAMPLE_PROBE_FACTOR
        visited = min(count, math.ceil(slack * int(asking.independent_probes.max(initial=1))))
        recall = Recall(judges, judges, count, visited)
        missed = asking.needed_probes > visited
        parts = [ScoredPairs(asking.left[missed], asking.right[missed], asking.score[missed])]
        yield JoinStep(watermark, concat_pairs(parts), 500, 1000)  # they are pairs all the same
        visits: list[Probes] = []
        for number, part in enumerate(middles):
            visits.append(work.assign_probes(part, visited))
            for done, found in _find_partition_pairs(work, visits, count, pool):
                yield JoinStep(
                    watermark,
                    found,
                    500 + 500 * (number * count + done) // (PARTITION_COUNT * count),
                    1000,
                )
    through = int(vectors.ids[-1])
    reached = replace(
        watermark,
        done=through,
        block_end=0,
        block_done=0,
        recall=min(watermark.recall, recall.lower_bound_95),
    )
    yield JoinStep(reached, _empty_pairs(), 1000, 1000, recall)


def _train_centroids(
    vectors: VectorRows, count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    rows = np.sort(rng.permutation(len(vectors.ids))[: TRAINING_ROWS_PER_CENTROID * count])
    return segments.train_centroids(
        CosineBound(None).project(vectors.gather(rows)), count, KMEANS_ITERATIONS
    )


def _empty_pairs() -> ScoredPairs:
    return concat_pairs([])


Probes = NDArray[np.integer[Any]]  # (rows, lists): where each row lives, then where it visits


class _ProjectedRows:
    """What is compared: the rows of a shelf by their prefixes, made once where memory allows."""

    def __init__(self, vectors: VectorRows, watermark: JoinWatermark, bound: CosineBound) -> None:
        self.vectors, self.floor, self.bound = vectors, watermark.floor, bound
        self.old_rows = vectors.count_up_to(watermark.done)
        rows = len(vectors.ids)
        width = bound.get_width(vectors.slice(0, 1).shape[1])
        self._projections: NDArray[np.float32] | None = None
        if rows * width * 4 <= MAX_PRECOMPUTED_PROJECTION_BYTES:
            self._projections = np.empty((rows, width), np.float32)
            for start in range(0, rows, BLOCK_ROWS):
                self._projections[start : start + BLOCK_ROWS] = bound.project(
                    vectors.slice(start, min(start + BLOCK_ROWS, rows))
                )
        self._thread_buffers = threading.local()

    def gather(self, rows: Ids) -> NDArray[np.float32]:
        """The prefixes of some rows."""
        return (
            self.bound.project(self.vectors.gather(rows))
            if self._projections is None
            else self._projections[rows]
        )

    def slice(self, start: int, stop: int) -> NDArray[np.float32]:
        """The prefixes of rows from `start` up to `stop`."""
        return (
            self.bound.project(self.vectors.slice(start, stop))
            if self._projections is None
            else self._projections[start:stop]
        )

    def find_candidates(
        self, left_rows: NDArray[np.float32], right_rows: NDArray[np.float32]
    ) -> tuple[Ids, Ids]:
        """Numbers of the rows of two prefixes that may be a pair."""
        if not hasattr(self._thread_buffers, "tile"):
            self._thread_buffers.tile = np.empty(TILE_ROWS * BLOCK_ROWS, np.float32)
        lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, len(left_rows), TILE_ROWS):
            for first in range(0, len(right_rows), BLOCK_ROWS):
                left, right = pairs_above_bound(
                    left_rows[start : start + TILE_ROWS],
                    right_rows[first : first + BLOCK_ROWS],
                    self._thread_buffers.tile,
                    self.floor,
                )
                lefts.append(left + start)
                rights.append(right + first)
        return np.concatenate(lefts), np.concatenate(rights)

    def assign_probes(self, centroids: NDArray[np.float32], count: int) -> Probes:
        """The lists that each row lives in and visits, nearest first: (rows, count)."""
        rows = len(self.vectors.ids)
        found = np.empty((rows, count), np.uint16 if len(centroids) <= 1 << 16 else np.int32)
        for start in range(0, rows, 4 * BLOCK_ROWS):
            stop = min(start + 4 * BLOCK_ROWS, rows)
            found[start:stop] = segments.nearest_lists(
                CosineBound(None).project(self.vectors.slice(start, stop)), centroids, count
            )
        return found


class _RecallSample:
    """Pairs that exact search finds for rows drawn at random, with how many lists must be visited for the two to meet.

    Of each row one pair, drawn at random, judges: pairs of one row are no independent draws, and a crowd of pictures that are all near each
    other would outvote everybody else.
    """

    def __init__(
        self,
        projected: _ProjectedRows,
        centroids: Sequence[NDArray[np.float32]],
        rng: np.random.Generator,
        pool: Executor,
    ) -> None:
        self._projected, self._centroids, self._pool = projected, centroids, pool
        rows = len(projected.vectors.ids)
        self._rng = rng
        self._order = projected.old_rows + rng.permutation(
            rows - projected.old_rows
        )  # at least one of a new pair is new
        self._block_rows = min(SAMPLE_BLOCK_ROWS, -(-len(self._order) // 16))
        self._max_rows = MAX_SAMPLE_ROW_SHARE * len(self._order)
        self._is_sampled = np.zeros(rows, dtype=bool)
        self._next = 0
        self.left, self.right, self.score = (
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            np.empty(0),
        )  # ids
        self.needed_probes = np.empty(0, np.int64)
        self.independent_probes = np.empty(0, np.int64)  # what the pairs that judge needed

    @property
    def is_exhausted(self) -> bool:
        """Whether so many rows were asked that more would cost as much as an exact join."""
        return self._next >= self._max_rows

    def draw_until(self, pair_count: int) -> Iterator[float]:
        """Ask more rows until there are so many pairs; the share that is there, or of the rows that may be asked, if that is more."""
        while len(self.independent_probes) < pair_count and not self.is_exhausted:
            some = self._order[self._next : self._next + self._block_rows]
            self._next += self._block_rows
            self._search_block(np.sort(some))
            yield min(
                1.0, max(len(self.independent_probes) / pair_count, self._next / self._max_rows)
            )

    def _search_block(self, block: Ids) -> None:
        rows = len(self._projected.vectors.ids)
        with threadpool_limits(1, user_api="blas"):
            mine = self._projected.gather(block)

            def search(start: int) -> ScoredPairs:
                left, right = self._projected.find_candidates(
                    mine, self._projected.slice(start, min(start + BLOCK_ROWS, rows))
                )
                left, right = block[left], right + start
                new = ~self._is_sampled[right] & (
                    (right > left) | ~np.isin(right, block)
                )  # each pair once
                new &= left != right
                return concat_pairs(
                    list(
                        exact_scores(
                            self._projected.vectors, left[new], right[new], self._projected.floor
                        )
                    )
                )

            found = concat_pairs(list(self._pool.map(search, range(0, rows, BLOCK_ROWS))))
        self._is_sampled[block] = True
        pairs = ((found.left, found.right), (found.right, found.left))
        needed = np.minimum.reduce(
            [
                self._count_needed_probes(*pair, middles)
                for pair in pairs
                for middles in self._centroids
            ]
        )
        self.needed_probes = np.concatenate([self.needed_probes, needed])
        left = self._projected.vectors.find_rows(found.left)
        drawn = self._rng.permutation(len(left))
        ends = np.where(np.isin(left, block), left, self._projected.vectors.find_rows(found.right))
        self.independent_probes = np.concatenate(
            [self.independent_probes, needed[drawn[np.unique(ends[drawn], return_index=True)[1]]]]
        )
        self.left, self.right = (
            np.concatenate([self.left, found.left]),
            np.concatenate([self.right, found.right]),
        )
        self.score = np.concatenate([self.score, found.score])

    def _count_needed_probes(
        self, probing_ids: Ids, listed_ids: Ids, centroids: NDArray[np.float32]
    ) -> Ids:
        """How many lists each visitor must visit to come to where its host lives."""
        ranks = np.empty(len(probing_ids), np.int64)
        for start in range(0, len(probing_ids), BLOCK_ROWS):
            some = slice(start, start + BLOCK_ROWS)
            near, far = (
                self._load_unit_rows(ids[some]) @ centroids.T for ids in (probing_ids, listed_ids)
            )
            home = far.argmax(axis=1)
            ranks[some] = (near > near[np.arange(len(near)), home][:, np.newaxis]).sum(axis=1) + 1
        return ranks

    def _load_unit_rows(self, ids: Ids) -> NDArray[np.float32]:
        return CosineBound(None).project(
            self._projected.vectors.gather(self._projected.vectors.find_rows(ids))
        )


def _has_shared_list(probes: Probes, left: Ids, right: Ids) -> NDArray[np.bool_]:
    """Whether one lives where the other lives or visits."""
    there = (probes[left] == probes[right, 0][:, np.newaxis]).any(axis=1)
    back = (probes[right] == probes[left, 0][:, np.newaxis]).any(axis=1)
    met: NDArray[np.bool_] = there | back
    return met


def _find_partition_pairs(
    projected: _ProjectedRows,
    probes_by_partition: Sequence[Probes],
    list_count: int,
    pool: Executor,
) -> Iterator[tuple[int, ScoredPairs]]:
    """Pairs that meet in the last of some partitions and in none before it, list by list, with the number of lists that are done."""
    *before, visits = probes_by_partition
    home = visits[:, 0]
    by_home = np.argsort(home, kind="stable")
    bounds = np.searchsorted(home[by_home], np.arange(list_count + 1))

    def meet(part: tuple[int, Ids]) -> ScoredPairs:
        number, visitors = part
        living = by_home[bounds[number] : bounds[number + 1]]
        mine, theirs = projected.gather(living), projected.gather(visitors)
        found: list[ScoredPairs] = []
        for start in range(
            0, len(living), TILE_ROWS
        ):  # a crowd proposes all its pairs: a few rows' at a time
            some = slice(start, start + TILE_ROWS)
            left, right = projected.find_candidates(mine[some], mine[: start + TILE_ROWS])
            left += start
            once = left > right
            left, right = living[left[once]], living[right[once]]
            hosts, guests = projected.find_candidates(mine[some], theirs)
            hosts, guests = living[hosts + start], visitors[guests]
            # Two that live where the other visits meet twice; the first list counts.
            again = (visits[hosts] == home[guests][:, np.newaxis]).any(axis=1) & (
                home[guests] < number
            )
            left, right = (
                np.concatenate([left, hosts[~again]]),
                np.concatenate([right, guests[~again]]),
            )
            new = (left >= projected.old_rows) | (right >= projected.old_rows)
            for earlier in before:
                new[new] = ~_has_shared_list(earlier, left[new], right[new])
            found.extend(exact_scores(projected.vectors, left[new], right[new], projected.floor))
        return concat_pairs(found)

    with threadpool_limits(1, user_api="blas"):
        for first in range(0, list_count, PROBE_BLOCK_LISTS):
            some, place = np.nonzero(
                (visits[:, 1:] >= first) & (visits[:, 1:] < first + PROBE_BLOCK_LISTS)
            )
            lists = visits[some, place + 1]
            order = np.argsort(lists, kind="stable")
            some, lists = some[order], lists[order]
            numbers = range(first, min(first + PROBE_BLOCK_LISTS, list_count))
            ends = np.searchsorted(lists, [*numbers, numbers.stop])
            parts = [(number, some[ends[at] : ends[at + 1]]) for at, number in enumerate(numbers)]
            yield numbers.stop, concat_pairs(list(pool.map(meet, parts)))
