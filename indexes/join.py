"""Every pair of stored vectors at or above a threshold: a chain of adds, each block against itself and all before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from indexes.segments import STORED_BLOCK, Ids, Scored, Segment, range_search


def pairs(segments: Sequence[Segment], among: Ids, min_score: float) -> Iterator[Scored]:
    """Every unordered pair of the images `among` (sorted ids) with score >= min_score, once, as ids, block by block; left < right.

    Exact and uncapped. A block holds at most STORED_BLOCK rows, so memory is bounded by two blocks and the pairs of one step.
    """
    blocks = list(_blocks(segments, among))
    for later, (ids, vectors) in enumerate(blocks):
        for earlier, (other_ids, other_vectors) in enumerate(blocks[: later + 1]):
            found = range_search(vectors, other_vectors, min_score)
            left, right = ids[found.left], other_ids[found.right]
            if earlier == later:  # each pair was met twice, and each row met itself
                once = left < right
                left, right, score = left[once], right[once], found.score[once]
            else:
                score = found.score
            yield Scored(np.minimum(left, right), np.maximum(left, right), score)


def _blocks(segments: Sequence[Segment], among: Ids) -> Iterator[tuple[Ids, NDArray[np.float16]]]:
    """The wanted rows of all segments, small segments together, as (ids, vectors) of at most STORED_BLOCK rows."""
    ids: list[Ids] = []
    vectors: list[NDArray[np.float16]] = []
    gathered = 0
    for segment in segments:
        wanted = np.flatnonzero(np.isin(segment.ids, among, assume_unique=False))
        for start in range(0, len(wanted), STORED_BLOCK):
            some = wanted[start : start + STORED_BLOCK]
            if gathered + len(some) > STORED_BLOCK:
                yield np.concatenate(ids), np.concatenate(vectors)
                ids, vectors, gathered = [], [], 0
            ids.append(segment.ids[some])
            vectors.append(segment.vectors[some])
            gathered += len(some)
    if gathered:
        yield np.concatenate(ids), np.concatenate(vectors)
