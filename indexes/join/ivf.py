"""Find almost every pair of a large library, in much less than quadratic time, with a known recall.

k-means partitions the space into lists (IVF). Each vector belongs to the list of its nearest
centroid and probes the lists of the next nearest; two vectors meet if one belongs to a list that
the other belongs to or probes. Where a border runs is chance, so there are several partitions: what
one separates far, another does not.

The number of probes comes from a sample of pairs that exact search finds: as many as the pair that
needs most. Of all pairs, at least 0.05 ** (1 / n) need no more than the largest of n independent
draws, with 95 % confidence and whatever their distribution is (Wilks, "Determination of sample
sizes for setting tolerance limits", 1941).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from indexes.catalog.pairs import JoinWatermark
from indexes.catalog.vectors import Ids
from indexes.join.bound import CosineBound, compute_exact_scores, normalize
from indexes.join.exact import TILE_ROWS
from indexes.join.projected_rows import Probes, ProjectedRows
from indexes.join.recall import Recall
from indexes.join.recall_sample import RecallSample
from indexes.join.step import JoinStep
from indexes.vectors.centroids import train_centroids
from indexes.vectors.rows import VectorRows
from indexes.vectors.scores import ScoredPairs, concat_pairs

# Measured on 200,000 isotropic vectors at .75, for a recall of .9995 with 2,048 lists: one
# partition needs 132 probes, two need 17 each, three 8, four 5; on CLIP-like ones at .90: 12, 8,
# 6, 4.
PARTITION_COUNT = 3
# Pairs that choose the number of probes: 0.05 ** (1 / 3000) is .999.
RECALL_SAMPLE_PAIRS = 3000
# Probes beside those that the sample needs, where it is too small to show that.
SMALL_SAMPLE_PROBE_FACTOR = 1.5
# Rows for each centroid, and iterations, of k-means: it stays cheaper than assigning the rows.
TRAINING_ROWS_PER_CENTROID = 48
KMEANS_ITERATIONS = 5
# Lists whose probing rows are looked up at a time.
PROBE_BLOCK_LISTS = 64
# A step of the join: the sample is half of the work, all partitions are the other half.
SAMPLE_UNITS = 500
TOTAL_UNITS = 1000


def choose_list_count(rows: int) -> int:
    """Choose the number of lists of a partition: a power of 2 near 2 sqrt(rows), at least 4.

    There, assigning a row to a list costs about as much as comparing it.
    """
    return 1 << max(2, round(math.log2(2 * math.sqrt(max(rows, 1)))))


def find_pairs(
    vectors: VectorRows, watermark: JoinWatermark, bound: CosineBound, *, threads: int | None = None
) -> Iterator[JoinStep]:
    """Find pairs with score >= watermark.floor that have a vector beyond watermark.done.

    Pairs are ids, left < right, each once. The last step has the recall, and the watermark of a
    finished join; a join that is stopped earlier starts from the beginning.
    """
    projected = ProjectedRows(vectors, watermark, bound)
    rng = np.random.default_rng(1)
    list_count = min(choose_list_count(len(vectors.ids)), len(vectors.ids))
    partitions = [_train_centroids(vectors, list_count, rng) for _ in range(PARTITION_COUNT)]
    with ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="join") as pool:
        sample = RecallSample(projected, partitions, rng, pool)
        for share in sample.draw_until(RECALL_SAMPLE_PAIRS):
            done = int(SAMPLE_UNITS * share)
            yield JoinStep(watermark, concat_pairs([]), done, TOTAL_UNITS)
        recall = _choose_probes(sample, list_count)
        # Sampled pairs that the lists will miss are pairs all the same.
        missed_pairs = sample.pairs.select(sample.needed_probes > recall.probes)
        yield JoinStep(watermark, missed_pairs, SAMPLE_UNITS, TOTAL_UNITS)
        probes_by_partition: list[Probes] = []
        for number, centroids in enumerate(partitions):
            probes_by_partition.append(projected.assign_probes(centroids, recall.probes))
            for lists_done, pairs in _find_partition_pairs(
                projected, probes_by_partition, list_count, pool
            ):
                lists_done += number * list_count
                done = SAMPLE_UNITS + SAMPLE_UNITS * lists_done // (PARTITION_COUNT * list_count)
                yield JoinStep(watermark, pairs, done, TOTAL_UNITS)
    reached = replace(
        watermark,
        done=int(vectors.ids[-1]),
        block_end=0,
        block_done=0,
        recall=min(watermark.recall, recall.lower_bound_95),
    )
    yield JoinStep(reached, concat_pairs([]), TOTAL_UNITS, TOTAL_UNITS, recall)


def _train_centroids(
    vectors: VectorRows, count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    row_count = TRAINING_ROWS_PER_CENTROID * count
    rows = np.sort(rng.permutation(len(vectors.ids))[:row_count])
    return train_centroids(normalize(vectors.gather(rows)), count, KMEANS_ITERATIONS)


def _choose_probes(sample: RecallSample, list_count: int) -> Recall:
    """Choose as many probes as the sampled pair that needs most; so all of them are found."""
    sampled = len(sample.independent_probes)
    factor = 1.0 if sampled >= RECALL_SAMPLE_PAIRS else SMALL_SAMPLE_PROBE_FACTOR
    most_needed = int(sample.independent_probes.max(initial=1))
    return Recall(sampled, sampled, list_count, min(list_count, math.ceil(factor * most_needed)))


def _find_partition_pairs(
    projected: ProjectedRows,
    probes_by_partition: Sequence[Probes],
    list_count: int,
    pool: Executor,
) -> Iterator[tuple[int, ScoredPairs]]:
    """Find the pairs that meet in the last of these partitions and in none before it.

    Yields the number of lists that are done, and the pairs found since the last yield.
    """
    *_, probes = probes_by_partition
    partition = _Partition(projected, probes_by_partition, list_count)
    with threadpool_limits(1, user_api="blas"):
        for first in range(0, list_count, PROBE_BLOCK_LISTS):
            lists = range(first, min(first + PROBE_BLOCK_LISTS, list_count))
            probing = _find_probing_rows(probes, lists)
            yield lists.stop, concat_pairs(list(pool.map(partition.compare_list, lists, probing)))


def _find_probing_rows(probes: Probes, lists: range) -> list[Ids]:
    """Find, for each of these lists, the rows that probe it without belonging to it."""
    others = probes[:, 1:]
    rows, columns = np.nonzero((others >= lists.start) & (others < lists.stop))
    probed_lists = others[rows, columns]
    order = np.argsort(probed_lists, kind="stable")
    rows, probed_lists = rows[order], probed_lists[order]
    bounds = np.searchsorted(probed_lists, [*lists, lists.stop])
    return [rows[bounds[index] : bounds[index + 1]] for index in range(len(lists))]


class _Partition:
    """The lists of one partition, compared list by list."""

    def __init__(
        self, projected: ProjectedRows, probes_by_partition: Sequence[Probes], list_count: int
    ) -> None:
        """Sort the rows into the lists of the last partition."""
        *self._earlier_probes, self._probes = probes_by_partition
        self._projected = projected
        self._list_of_row = self._probes[:, 0]
        self._rows_by_list = np.argsort(self._list_of_row, kind="stable")
        sorted_lists = self._list_of_row[self._rows_by_list]
        self._bounds = np.searchsorted(sorted_lists, np.arange(list_count + 1))

    def compare_list(self, number: int, probing: Ids) -> ScoredPairs:
        """Find the pairs that meet in a list, of its members and the rows that probe it."""
        projected = self._projected
        members = self._rows_by_list[self._bounds[number] : self._bounds[number + 1]]
        member_rows, probing_rows = projected.gather(members), projected.gather(probing)
        pair_sets: list[ScoredPairs] = []
        # A few members at a time: a dense cluster of images proposes all its pairs.
        for start in range(0, len(members), TILE_ROWS):
            tile = member_rows[start : start + TILE_ROWS]
            first, second = projected.find_candidates(tile, member_rows[: start + TILE_ROWS])
            first += start
            is_below_diagonal = first > second
            first, second = members[first[is_below_diagonal]], members[second[is_below_diagonal]]
            near_members, near_probing = projected.find_candidates(tile, probing_rows)
            near_members, near_probing = members[near_members + start], probing[near_probing]
            is_known = self._meets_in_lower_list(near_members, near_probing, number)
            left = np.concatenate([first, near_members[~is_known]])
            right = np.concatenate([second, near_probing[~is_known]])
            is_new = self._is_new_pair(left, right)
            pair_sets += compute_exact_scores(
                projected.vectors, left[is_new], right[is_new], projected.floor
            )
        return concat_pairs(pair_sets)

    def _meets_in_lower_list(self, members: Ids, probing: Ids, number: int) -> NDArray[np.bool_]:
        """Select pairs that have met in a lower list: each row probes the list of the other."""
        lists = self._list_of_row[probing]
        probes_back = (self._probes[members] == lists[:, np.newaxis]).any(axis=1)
        is_lower: NDArray[np.bool_] = probes_back & (lists < number)
        return is_lower

    def _is_new_pair(self, left: Ids, right: Ids) -> NDArray[np.bool_]:
        """Select the pairs with a new row that meet in no earlier partition."""
        old_rows = self._projected.old_rows
        is_new: NDArray[np.bool_] = (left >= old_rows) | (right >= old_rows)
        for probes in self._earlier_probes:
            is_new[is_new] = ~_has_shared_list(probes, left[is_new], right[is_new])
        return is_new


def _has_shared_list(probes: Probes, left: Ids, right: Ids) -> NDArray[np.bool_]:
    """Select the pairs where a row belongs to a list that the other row belongs to or probes."""
    left_reaches = (probes[left] == probes[right, 0][:, np.newaxis]).any(axis=1)
    right_reaches = (probes[right] == probes[left, 0][:, np.newaxis]).any(axis=1)
    is_shared: NDArray[np.bool_] = left_reaches | right_reaches
    return is_shared
