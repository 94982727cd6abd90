"""A sample of exact pairs, and the number of probes that an IVF join needs to find each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from indexes.catalog.vectors import Ids
from indexes.join.bound import compute_exact_scores, normalize
from indexes.join.exact import BLOCK_ROWS
from indexes.join.projected_rows import ProjectedRows
from indexes.vectors.scores import ScoredPairs, concat_pairs

# The most rows that are sampled, as a share of the new rows.
MAX_SAMPLE_ROW_SHARE = 0.25
# Rows whose pairs are searched at a time, ...
MAX_SAMPLE_BLOCK_ROWS = 1 << 11
# ... and the least number of blocks that the new rows are cut into.
MIN_SAMPLE_BLOCKS = 16


class RecallSample:
    """Pairs that exact search finds for random rows, with the probes each needs to be found.

    `pairs` are all of them, as ids, and `needed_probes` (n,) their probes. `independent_probes` are
    those of one pair of each sampled row, drawn at random: only these are independent. All pairs of
    a row are not, and a dense cluster of images would outvote all others.
    """

    def __init__(
        self,
        projected: ProjectedRows,
        centroids: Sequence[NDArray[np.float32]],
        rng: np.random.Generator,
        pool: Executor,
    ) -> None:
        """Prepare a sample for an IVF join with these centroids, a set (lists, dim) a partition."""
        self._projected, self._centroids, self._pool = projected, centroids, pool
        self._rng = rng
        row_count = len(projected.vectors.ids)
        new_row_count = row_count - projected.old_rows
        # One row of a new pair, at least, is new.
        self._order = projected.old_rows + rng.permutation(new_row_count)
        self._block_rows = min(MAX_SAMPLE_BLOCK_ROWS, -(-new_row_count // MIN_SAMPLE_BLOCKS))
        self._max_rows = MAX_SAMPLE_ROW_SHARE * new_row_count
        self._is_sampled = np.zeros(row_count, dtype=bool)
        self._sampled_rows = 0
        self.pairs = concat_pairs([])
        self.needed_probes = np.empty(0, np.int64)
        self.independent_probes = np.empty(0, np.int64)

    @property
    def is_exhausted(self) -> bool:
        """True if a larger sample would cost as much as an exact join."""
        return self._sampled_rows >= self._max_rows

    def draw_until(self, pair_count: int) -> Iterator[float]:
        """Sample rows until there are `pair_count` independent pairs or the sample is exhausted.

        Yields the share that is done, by pairs or by rows, whichever is larger.
        """
        while len(self.independent_probes) < pair_count and not self.is_exhausted:
            block = self._order[self._sampled_rows : self._sampled_rows + self._block_rows]
            self._sampled_rows += self._block_rows
            self._sample_block(np.sort(block))
            pair_share = len(self.independent_probes) / pair_count
            row_share = self._sampled_rows / self._max_rows
            yield min(1.0, max(pair_share, row_share))

    def _sample_block(self, block: Ids) -> None:
        pairs = self._search_block(block)
        self._is_sampled[block] = True
        needed = np.minimum.reduce(
            [
                self._count_needed_probes(probing, listed, centroids)
                for probing, listed in ((pairs.left, pairs.right), (pairs.right, pairs.left))
                for centroids in self._centroids
            ]
        )
        independent = self._draw_one_pair_a_row(pairs, block)
        self.needed_probes = np.concatenate([self.needed_probes, needed])
        self.independent_probes = np.concatenate([self.independent_probes, needed[independent]])
        self.pairs = concat_pairs([self.pairs, pairs])

    def _search_block(self, block: Ids) -> ScoredPairs:
        """Find all pairs that rows of the block have with rows that were not sampled before."""
        projected = self._projected
        row_count = len(projected.vectors.ids)
        block_rows = projected.gather(block)

        def search(start: int) -> ScoredPairs:
            other_rows = projected.slice(start, min(start + BLOCK_ROWS, row_count))
            left, right = projected.find_candidates(block_rows, other_rows)
            left, right = block[left], right + start
            # A pair within the block comes up from both sides; it counts from the lower row.
            is_counted = (right > left) | ~np.isin(right, block)
            is_new = ~self._is_sampled[right] & is_counted & (left != right)
            scored = compute_exact_scores(
                projected.vectors, left[is_new], right[is_new], projected.floor
            )
            return concat_pairs(list(scored))

        with threadpool_limits(1, user_api="blas"):
            return concat_pairs(list(self._pool.map(search, range(0, row_count, BLOCK_ROWS))))

    def _draw_one_pair_a_row(self, pairs: ScoredPairs, block: Ids) -> Ids:
        """Draw one pair of each row of the block that has a pair, as positions in `pairs`."""
        left = self._projected.vectors.find_rows(pairs.left)
        right = self._projected.vectors.find_rows(pairs.right)
        shuffled = self._rng.permutation(len(left))
        sampled_rows = np.where(np.isin(left, block), left, right)
        _, first_positions = np.unique(sampled_rows[shuffled], return_index=True)
        return shuffled[first_positions]

    def _count_needed_probes(
        self, probing_ids: Ids, listed_ids: Ids, centroids: NDArray[np.float32]
    ) -> Ids:
        """Count the lists that each probing vector must probe to reach the list of the other."""
        needed = np.empty(len(probing_ids), np.int64)
        for start in range(0, len(probing_ids), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            probing_scores = self._load_unit_rows(probing_ids[block]) @ centroids.T
            listed_scores = self._load_unit_rows(listed_ids[block]) @ centroids.T
            lists = listed_scores.argmax(axis=1)
            scores_of_lists = probing_scores[np.arange(len(lists)), lists]
            nearer_lists = (probing_scores > scores_of_lists[:, np.newaxis]).sum(axis=1)
            needed[block] = nearer_lists + 1
        return needed

    def _load_unit_rows(self, ids: Ids) -> NDArray[np.float32]:
        vectors = self._projected.vectors
        return normalize(vectors.gather(vectors.find_rows(ids)))
