"""The vectors of all segments as one array of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.vectors import Ids
from indexes.errors import StoreDamaged
from indexes.vectors.segments import Segment


class VectorRows:
    """The vectors of all segments as rows in the order of their ids; they stay mapped."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Number the rows of `segments`, whose ids ascend from one segment to the next."""
        self._segments = segments
        self._starts = np.cumsum([0, *(len(segment.ids) for segment in segments)])
        self.ids: Ids = np.concatenate(
            [np.empty(0, np.int64), *(segment.ids for segment in segments)]
        )

    @property
    def dim(self) -> int:
        """The number of dimensions. There must be a segment."""
        return int(self._segments[0].vectors.shape[1])

    def slice(self, start: int, stop: int) -> NDArray[np.float16]:
        """Get rows from `start` up to `stop`: a view if one segment holds them, else a copy."""
        blocks = []
        for segment, first in zip(self._segments, self._starts, strict=False):
            if first < stop and first + len(segment.ids) > start:
                blocks.append(segment.vectors[max(0, start - first) : stop - first])
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def gather(self, rows: Ids) -> NDArray[np.float16]:
        """Copy the given rows, in the given order."""
        if len(self._segments) == 1:
            return self._segments[0].vectors[rows]
        gathered = np.empty((len(rows), self.dim), np.float16)
        segment_numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(segment_numbers):
            is_here = segment_numbers == number
            local_rows = rows[is_here] - self._starts[number]
            gathered[is_here] = self._segments[number].vectors[local_rows]
        return gathered

    def find_rows(self, ids: Sequence[int] | Ids) -> Ids:
        """Find the row of each id. Raises StoreDamaged for an id that is in no segment."""
        wanted = np.asarray(ids, dtype=np.int64)
        rows = np.searchsorted(self.ids, wanted)
        if len(wanted) and (
            not len(self.ids) or (self.ids[np.minimum(rows, len(self.ids) - 1)] != wanted).any()
        ):
            raise StoreDamaged(
                "a vector that the catalog names is in no segment;"
                " see `neardup check` and `neardup repair`"
            )
        return rows

    def count_up_to(self, last_id: int) -> int:
        """Count the rows with an id <= last_id."""
        return int(np.searchsorted(self.ids, last_id, side="right"))


def pick_evenly(row_count: int, max_count: int) -> Ids:
    """Pick up to `max_count` of the rows 0 to row_count - 1, evenly spread, ascending."""
    return np.unique(np.linspace(0, row_count - 1, min(row_count, max_count)).astype(np.int64))
