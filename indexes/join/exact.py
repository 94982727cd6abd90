"""Find every pair of stored vectors at or above a threshold, exactly.

Rows are cut into blocks, and block b is compared with the blocks up to b. A bound (see bound.py)
proposes pairs, the float64 cosine decides.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from indexes.catalog.pairs import JoinWatermark
from indexes.join.bound import CosineBound, compute_exact_scores, find_pairs_above_bound
from indexes.join.step import JoinStep, count_pairs
from indexes.vectors.rows import VectorRows
from indexes.vectors.scores import ScoredPairs, concat_pairs

# Rows of a block.
BLOCK_ROWS = 4096
# Rows of a block in one product: with BLOCK_ROWS, the fastest of nine shapes measured, and 8 MB of
# products in each thread.
TILE_ROWS = 512
# Projections that are kept; those of larger libraries are computed again for each block.
MAX_CACHED_PROJECTION_BYTES = 1 << 29


def find_pairs(
    vectors: VectorRows, watermark: JoinWatermark, bound: CosineBound, *, threads: int | None = None
) -> Iterator[JoinStep]:
    """Find every pair with score >= watermark.floor that `watermark` does not cover yet.

    Pairs are ids, left < right, each once; nothing is capped. The result is the same to the last
    bit whatever the bound, the number of threads, or the order in which vectors were added. There
    is a step for each pair of blocks, and a join that starts from the watermark of any step finds
    the rest.
    """
    if not len(vectors.ids):
        return
    old_rows = vectors.count_up_to(watermark.done)
    total = count_pairs(len(vectors.ids), old_rows)
    done = 0
    # Each product runs on one thread: to scan a tile is as much work as to compute it, and no
    # library scans in parallel.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="join") as pool,
    ):
        comparer = _BlockComparer(vectors, bound, watermark.floor, pool)
        started_stop = vectors.count_up_to(watermark.block_end) if watermark.block_end else 0
        for block in _split_new_rows(old_rows, started_stop, len(vectors.ids)):
            # If the block that was started has lost all its rows since, there is nothing to resume.
            is_started = block.stop <= started_stop
            covered_rows = vectors.count_up_to(watermark.block_done) if is_started else 0
            covered_rows = min(covered_rows, block.start)
            done += covered_rows * len(block)
            earlier_blocks = list(_split_into_blocks(covered_rows, block.start))
            with closing(comparer.compare(block, [*earlier_blocks, block])) as compared:
                for earlier, pairs in compared:
                    is_own = earlier is block
                    done += count_pairs(len(block)) if is_own else len(earlier) * len(block)
                    reached = _advance(watermark, block, earlier, vectors)
                    yield JoinStep(reached, pairs, done, total)


def _advance(
    watermark: JoinWatermark, block: range, compared: range, vectors: VectorRows
) -> JoinWatermark:
    """Move the watermark past a pair of blocks; the block with itself comes last."""
    if compared is block:
        last_id = int(vectors.ids[block.stop - 1])
        return replace(watermark, done=last_id, block_end=0, block_done=0)
    last_id_before = int(vectors.ids[block.start - 1]) if block.start else watermark.done
    return replace(
        watermark,
        done=max(last_id_before, watermark.done),
        block_end=int(vectors.ids[block.stop - 1]),
        block_done=int(vectors.ids[compared.stop - 1]),
    )


def _split_new_rows(old_rows: int, started_stop: int, row_count: int) -> Iterator[range]:
    """Split the new rows into blocks; the block that was started before keeps its end."""
    if started_stop > old_rows:
        yield range(old_rows, started_stop)
    yield from _split_into_blocks(max(started_stop, old_rows), row_count)


def _split_into_blocks(start: int, stop: int) -> Iterator[range]:
    return (range(first, min(first + BLOCK_ROWS, stop)) for first in range(start, stop, BLOCK_ROWS))


class _BlockComparer:
    """Compares a block of rows with earlier blocks and with itself, on the threads of a pool."""

    def __init__(
        self, vectors: VectorRows, bound: CosineBound, min_score: float, pool: Executor
    ) -> None:
        self._vectors, self._min_score, self._pool = vectors, min_score, pool
        self._projections = _ProjectionCache(vectors, bound)
        # A new tile for each product would be zeroed by the system each time.
        self._thread_buffers = threading.local()

    def compare(self, block: range, others: list[range]) -> Generator[tuple[range, ScoredPairs]]:
        """Yield each of `others` with the pairs that `block` has with it."""
        block_rows = self._projections.get(block)
        starts = range(0, len(block), TILE_ROWS)
        # Projections that are not cached are computed once for all tiles of a block.
        shares = [[start] for start in starts] if self._projections.is_caching else [list(starts)]
        tasks = [(other, share) for other in others for share in shares]

        def run(task: tuple[range, list[int]]) -> list[ScoredPairs]:
            other, tile_starts = task
            other_rows = block_rows if other is block else self._projections.get(other)
            pair_sets: list[ScoredPairs] = []
            for start in tile_starts:
                pair_sets += self._compare_tile(block, block_rows, start, (other, other_rows))
            return pair_sets

        with closing(self._pool.map(run, tasks)) as results:  # type: ignore[type-var] # a generator
            for other in others:
                pair_sets = [pairs for _ in shares for pairs in next(results)]
                yield other, concat_pairs(pair_sets)

    def _compare_tile(
        self,
        block: range,
        block_rows: NDArray[np.float32],
        start: int,
        other: tuple[range, NDArray[np.float32]],
    ) -> Iterator[ScoredPairs]:
        """Compare TILE_ROWS rows of the block with another block, or with the rows up to them."""
        other_block, other_rows = other
        is_own = other_block is block
        tile_rows = block_rows[start : start + TILE_ROWS]
        if is_own:
            other_rows = other_rows[: start + len(tile_rows)]
        if not hasattr(self._thread_buffers, "tile"):
            self._thread_buffers.tile = np.empty(TILE_ROWS * BLOCK_ROWS, np.float32)
        left, right = find_pairs_above_bound(
            tile_rows, other_rows, self._thread_buffers.tile, self._min_score
        )
        left += start
        if is_own:
            is_below_diagonal = left > right
            left, right = left[is_below_diagonal], right[is_below_diagonal]
        return compute_exact_scores(
            self._vectors, left + block.start, right + other_block.start, self._min_score
        )


class _ProjectionCache:
    """The projections of blocks, kept if those of all rows fit into memory."""

    def __init__(self, vectors: VectorRows, bound: CosineBound) -> None:
        self._vectors, self._bound = vectors, bound
        total_bytes = len(vectors.ids) * bound.get_width(vectors.dim) * 4
        self.is_caching = total_bytes <= MAX_CACHED_PROJECTION_BYTES
        self._projections: dict[tuple[int, int], NDArray[np.float32]] = {}

    def get(self, block: range) -> NDArray[np.float32]:
        """Get the projected rows of a block."""
        projected = self._projections.get((block.start, block.stop))
        if projected is None:
            projected = self._bound.project(self._vectors.slice(block.start, block.stop))
            if self.is_caching:
                self._projections[block.start, block.stop] = projected
        return projected
