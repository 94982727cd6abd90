"""Which segments are merged, and when: few files, no dead weight, and no vector copied more than log2(n) times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from indexes.catalog.pairs import SegmentRow
from indexes.vectors.segments import LARGEST

DEAD_WEIGHT = 4096  # dead vectors that a segment may carry: should their photos come back, they need no embedding
FAN = 8  # segments of one tier that are merged; each tier holds segments eight times as large as the one below


@dataclass(frozen=True)
class Compaction:
    """What a compaction did: segments before and after, vectors that were dropped because no file needs them, and bytes written."""

    before: int
    after: int
    dropped: int
    written: int


def tier(row: SegmentRow) -> int:
    """0 for up to 7 vectors, 1 for up to 63, and so on."""
    return (row.rows.bit_length() - 1) // 3


def due(rows: Sequence[SegmentRow], dead: Mapping[str, int], vectors: int, dim: int, *, full: bool = False) -> list[Sequence[SegmentRow]]:
    """Runs of neighbouring segments that should become one each; `dead` says how many of a segment's vectors no file needs.

    By itself: FAN segments of a tier with none of a higher tier between them, and a large segment that is half dead. With `full`: all, and
    every dead vector goes. Each vector in a merge of FAN comes to a higher tier, so that is done at most log8(n) times to it; whatever the
    reason, none is copied more often than log2 of `vectors`, the number of all that ever were, and none into more than LARGEST bytes. What
    is all dead goes without being copied.
    """
    most = math.log2(max(vectors, 1))
    movable = [row.rewrites + 1 <= most for row in rows]
    runs: list[range] = []
    if full:
        runs = [range(len(rows))]
    else:
        for level in range(max((tier(row) for row in rows), default=-1), -1, -1):
            runs += _tier_runs(rows, level, runs)
        taken = {number for run in runs for number in run}
        runs += [range(at, at + 1) for at, row in enumerate(rows) if at not in taken and dead[row.blake3] >= max(DEAD_WEIGHT, row.rows / 2)]
    movable = [may or dead[row.blake3] == row.rows for may, row in zip(movable, rows, strict=True)]
    pieces = [piece for run in sorted(runs, key=lambda run: run.start) for piece in _pieces(rows, run, movable, dim)]
    return [piece for piece in pieces if len(piece) > 1 or any(dead[row.blake3] for row in piece)]


def _tier_runs(rows: Sequence[SegmentRow], level: int, taken: Sequence[range]) -> list[range]:
    """From the first to the last segment of a tier, in each stretch without a higher one that has FAN of them."""
    runs, start = [], 0
    inside = {number for run in taken for number in run}
    for at in range(len(rows) + 1):
        if at == len(rows) or tier(rows[at]) > level or at in inside:
            own = [number for number in range(start, at) if tier(rows[number]) == level]
            if len(own) >= FAN:
                runs.append(range(own[0], own[-1] + 1))
            start = at + 1
    return runs


def _pieces(rows: Sequence[SegmentRow], run: range, movable: Sequence[bool], dim: int) -> list[Sequence[SegmentRow]]:
    """Parts of a run that may be copied and that fit into one segment."""
    pieces: list[list[SegmentRow]] = [[]]
    for at in run:
        if not movable[at]:
            pieces.append([])
            continue
        if sum(row.rows for row in [*pieces[-1], rows[at]]) * 2 * dim > LARGEST:
            pieces.append([])
        pieces[-1].append(rows[at])
    return [piece for piece in pieces if piece]
