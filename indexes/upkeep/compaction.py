"""Which segments are merged, and when: few files, no dead weight, and no vector copied more than log2(n) times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from indexes.catalog.vectors import SegmentRow
from indexes.vectors.segments import MAX_COMPACTED_SEGMENT_BYTES

MIN_TOMBSTONES_TO_REWRITE = 4096  # dead vectors that a segment may carry: should their photos come back, they need no embedding
MIN_SEGMENTS_PER_MERGE = 8  # segments of one tier that are merged; each tier holds segments eight times as large as the one below


@dataclass(frozen=True)
class CompactionReport:
    """What a compaction did: segments before and after, vectors that were dropped because no file needs them, and bytes written."""

    segments_before: int
    segments_after: int
    vectors_dropped: int
    bytes_written: int


def compute_tier(row: SegmentRow) -> int:
    """0 for up to 7 vectors, 1 for up to 63, and so on."""
    return (row.vector_count.bit_length() - 1) // 3


def plan_merges(
    rows: Sequence[SegmentRow],
    tombstone_counts: Mapping[str, int],
    max_vector_id: int,
    dim: int,
    *,
    full: bool = False,
) -> list[Sequence[SegmentRow]]:
    """Runs of neighbouring segments that should become one each; `dead` says how many of a segment's vectors no file needs.

    By itself: FAN segments of a tier with none of a higher tier between them, and a large segment that is half dead. With `full`: all, and
    every dead vector goes. Each vector in a merge of FAN comes to a higher tier, so that is done at most log8(n) times to it; whatever the
    reason, none is copied more often than log2 of `vectors`, the number of all that ever were, and none into more than LARGEST bytes. What
    is all dead goes without being copied.
    """
    most = math.log2(max(max_vector_id, 1))
    movable = [row.rewrites + 1 <= most for row in rows]
    runs: list[range] = []
    if full:
        runs = [range(len(rows))]
    else:
        for level in range(max((compute_tier(row) for row in rows), default=-1), -1, -1):
            runs += _find_tier_spans(rows, level, runs)
        taken = {number for run in runs for number in run}
        runs += [
            range(at, at + 1)
            for at, row in enumerate(rows)
            if at not in taken
            and tombstone_counts[row.blake3] >= max(MIN_TOMBSTONES_TO_REWRITE, row.vector_count / 2)
        ]
    movable = [
        may or tombstone_counts[row.blake3] == row.vector_count
        for may, row in zip(movable, rows, strict=True)
    ]
    pieces = [
        piece
        for run in sorted(runs, key=lambda run: run.start)
        for piece in _split_span(rows, run, movable, dim)
    ]
    return [
        piece
        for piece in pieces
        if len(piece) > 1 or any(tombstone_counts[row.blake3] for row in piece)
    ]


def _find_tier_spans(
    rows: Sequence[SegmentRow], level: int, claimed: Sequence[range]
) -> list[range]:
    """From the first to the last segment of a tier, in each stretch without a higher one that has FAN of them."""
    runs, start = [], 0
    inside = {number for run in claimed for number in run}
    for at in range(len(rows) + 1):
        if at == len(rows) or compute_tier(rows[at]) > level or at in inside:
            own = [number for number in range(start, at) if compute_tier(rows[number]) == level]
            if len(own) >= MIN_SEGMENTS_PER_MERGE:
                runs.append(range(own[0], own[-1] + 1))
            start = at + 1
    return runs


def _split_span(
    rows: Sequence[SegmentRow], span: range, can_rewrite: Sequence[bool], dim: int
) -> list[Sequence[SegmentRow]]:
    """Parts of a run that may be copied and that fit into one segment."""
    pieces: list[list[SegmentRow]] = [[]]
    for at in span:
        if not can_rewrite[at]:
            pieces.append([])
            continue
        if (
            sum(row.vector_count for row in [*pieces[-1], rows[at]]) * 2 * dim
            > MAX_COMPACTED_SEGMENT_BYTES
        ):
            pieces.append([])
        pieces[-1].append(rows[at])
    return [piece for piece in pieces if piece]
