"""The rows of a library as an IVF join compares them: projected by a bound."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.pairs import JoinWatermark
from indexes.catalog.vectors import Ids
from indexes.join.bound import CosineBound, find_pairs_above_bound, normalize
from indexes.join.exact import BLOCK_ROWS, TILE_ROWS
from indexes.vectors.centroids import find_nearest_lists
from indexes.vectors.rows import VectorRows

# Projections that are computed once; those of larger libraries are computed for each list.
MAX_PRECOMPUTED_PROJECTION_BYTES = 1 << 29

# (rows, probes): the list of each row, then the other lists that it is compared with.
Probes = NDArray[np.integer[Any]]


class ProjectedRows:
    """All rows by their projections, computed once where memory allows.

    `floor` is the lowest score to find; rows from `old_rows` on are new.
    """

    def __init__(self, vectors: VectorRows, watermark: JoinWatermark, bound: CosineBound) -> None:
        """Project `vectors` for a join that starts at `watermark`."""
        self.vectors, self.floor, self.bound = vectors, watermark.floor, bound
        self.old_rows = vectors.count_up_to(watermark.done)
        row_count, width = len(vectors.ids), bound.get_width(vectors.dim)
        self._projections: NDArray[np.float32] | None = None
        if row_count * width * 4 <= MAX_PRECOMPUTED_PROJECTION_BYTES:
            self._projections = np.empty((row_count, width), np.float32)
            for start in range(0, row_count, BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, row_count)
                self._projections[start:stop] = bound.project(vectors.slice(start, stop))
        self._thread_buffers = threading.local()

    def gather(self, rows: Ids) -> NDArray[np.float32]:
        """Get the projections of the given rows."""
        if self._projections is None:
            return self.bound.project(self.vectors.gather(rows))
        return self._projections[rows]

    def slice(self, start: int, stop: int) -> NDArray[np.float32]:
        """Get the projections of rows from `start` up to `stop`."""
        if self._projections is None:
            return self.bound.project(self.vectors.slice(start, stop))
        return self._projections[start:stop]

    def find_candidates(
        self, left_rows: NDArray[np.float32], right_rows: NDArray[np.float32]
    ) -> tuple[Ids, Ids]:
        """Find the pairs of projected rows whose bound reaches the floor, as row numbers."""
        if not hasattr(self._thread_buffers, "tile"):
            self._thread_buffers.tile = np.empty(TILE_ROWS * BLOCK_ROWS, np.float32)
        left_parts, right_parts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for left_start in range(0, len(left_rows), TILE_ROWS):
            for right_start in range(0, len(right_rows), BLOCK_ROWS):
                left, right = find_pairs_above_bound(
                    left_rows[left_start : left_start + TILE_ROWS],
                    right_rows[right_start : right_start + BLOCK_ROWS],
                    self._thread_buffers.tile,
                    self.floor,
                )
                left_parts.append(left + left_start)
                right_parts.append(right + right_start)
        return np.concatenate(left_parts), np.concatenate(right_parts)

    def assign_probes(self, centroids: NDArray[np.float32], count: int) -> Probes:
        """Find the `count` nearest lists of each row, nearest first: (rows, count)."""
        row_count = len(self.vectors.ids)
        kind = np.uint16 if len(centroids) <= 1 << 16 else np.int32
        probes = np.empty((row_count, count), kind)
        for start in range(0, row_count, 4 * BLOCK_ROWS):
            stop = min(start + 4 * BLOCK_ROWS, row_count)
            unit_rows = normalize(self.vectors.slice(start, stop))
            probes[start:stop] = find_nearest_lists(unit_rows, centroids, count)
        return probes
