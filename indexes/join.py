"""Every pair of stored vectors at or above a threshold, exactly: block b is compared with the blocks up to b.

Most pairs are far below any useful threshold, and a few numbers show it. Rotate by V, whose columns are the principal axes of a sample,
keep k numbers of each unit vector x, and append the length of what was left out: x' = [V_k^T x ; sqrt(1 - |V_k^T x|^2)]. For orthonormal
V, x.y <= x'.y' (Cauchy-Schwarz on the part left out), whatever V was fitted on. So one product of k + 1 numbers proposes, and the float64
cosine of the stored vectors decides: the bound costs time when it is loose, never a pair.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from indexes.segments import MARGIN, Ids, Scored, Segment, cosines

BLOCK = 4096  # rows compared with one another at a time
TILE = 512  # rows of a block in one product: with BLOCK, the fastest of nine shapes measured, and 8 MB of scores in each thread
KEPT = 1 << 29  # bytes of prefixes that are kept; those of larger libraries are computed again for each block
PRODUCT_MARGIN = 1e-4  # float32 products of unit vectors differ between libraries and tile shapes by up to 9e-7 (measured)
DECIDED = 1 << 14  # proposed pairs that are decided at a time
REST_MARGIN = 4e-6  # see _rest
SAMPLE, AXES_SAMPLE = 1024, 8192  # rows that the choice of k, and V, are fitted on
# What a pair costs, in units of one multiplication in a product; measured on vectors of 512 numbers, two threads.
SCAN_COST, DECIDE_COST = 16, 130  # looking at its bound; deciding it, for each number of a vector


@dataclass(frozen=True)
class Prefix:
    """An upper bound of the cosine that takes `axes.shape[1]` + 1 numbers of each vector; None: all numbers, no bound."""

    axes: NDArray[np.float32] | None

    def of(self, vectors: NDArray[np.float16]) -> NDArray[np.float32]:
        """Rows whose products are at least the cosines of `vectors` (to PRODUCT_MARGIN): (n, k + 1), or (n, dim) without a bound."""
        rows = vectors.astype(np.float32)
        rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, np.newaxis]
        if self.axes is None:
            return rows
        made = np.empty((len(rows), self.axes.shape[1] + 1), np.float32)
        np.matmul(rows, self.axes, out=made[:, :-1])
        made[:, -1] = _rest(made[:, :-1])
        return made

    @property
    def name(self) -> str:
        """For people: what is multiplied."""
        return "all numbers" if self.axes is None else f"{self.axes.shape[1]} axes and the rest"


def choose_prefix(vectors: NDArray[np.float16], min_score: float) -> Prefix:
    """The prefix that takes the least time by what it lets through among a sample of `vectors`; no bound where none would pay."""
    dim = vectors.shape[1]
    # The axes fit the rows that they are made from better than others: what they let through is asked of other rows.
    asked = _spread(len(vectors), SAMPLE)
    others = np.setdiff1d(np.arange(len(vectors)), asked)
    rows = _unit(vectors[others[_spread(len(others), AXES_SAMPLE)]] if len(others) else vectors)
    _, axes = np.linalg.eigh(rows.T @ rows)  # about the origin: a strong common mean becomes the first axis
    axes = np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)
    turned = _unit(vectors[asked]) @ axes
    left, right = np.triu_indices(len(turned), 1)
    best, least = Prefix(None), dim + SCAN_COST + DECIDE_COST * dim * _share(turned, left, right, min_score)
    for kept in sorted({15, 31, 47, 63, 95, 127, 159, 191, 223, 255, 319, 383}):
        if kept + 1 >= dim:
            break
        head = turned[:, :kept]
        short = np.hstack([head, _rest(head)[:, np.newaxis]])
        cost = kept + 1 + SCAN_COST + DECIDE_COST * dim * _share(short, left, right, min_score)
        if cost < least:
            best, least = Prefix(np.ascontiguousarray(axes[:, :kept])), cost
    return best


def _rest(heads: NDArray[np.float32]) -> NDArray[np.float32]:
    """The length of what the heads of unit rows leave out, never too short.

    1 - |head|^2 is off by up to 1e-6 in float32, which next to 0 is 1e-3 of its root: without REST_MARGIN the bound would miss pairs.
    """
    rest: NDArray[np.float32] = np.sqrt(np.maximum(0.0, 1.0 - np.einsum("ij,ij->i", heads, heads)) + np.float32(REST_MARGIN))
    return rest


def _unit(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    return Prefix(None).of(vectors)


def _spread(rows: int, wanted: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, rows - 1, min(rows, wanted)).astype(np.int64))


def _share(rows: NDArray[np.float32], left: Ids, right: Ids, min_score: float) -> float:
    return float(((rows @ rows.T)[left, right] >= min_score - PRODUCT_MARGIN).mean()) if len(left) else 0.0


@dataclass(frozen=True)
class Block:
    """Up to BLOCK rows: the ids of their images and their vectors, still mapped where a whole stretch of a segment is wanted."""

    ids: Ids
    vectors: NDArray[np.float16]


def pairs(
    segments: Sequence[Segment], among: Ids, min_score: float, *, prefix: Prefix | None = None, threads: int | None = None
) -> Iterator[Scored]:
    """Every unordered pair of the images `among` (sorted ids) with score >= min_score, once, as ids, left < right, block by block.

    Exact and uncapped; the same to the last bit whatever the prefix, the threads, or the order in which vectors were added.
    """
    blocks = list(_blocks(segments, among))
    if not blocks:
        return
    if prefix is None:
        every = max(1, sum(len(block.ids) for block in blocks) // (AXES_SAMPLE + SAMPLE))
        prefix = choose_prefix(np.concatenate([block.vectors[::every] for block in blocks]), min_score)
    width = blocks[0].vectors.shape[1] if prefix.axes is None else prefix.axes.shape[1] + 1
    keep = sum(len(block.ids) for block in blocks) * width * 4 <= KEPT
    kept: dict[int, NDArray[np.float32]] = {}

    def rows(number: int) -> NDArray[np.float32]:
        made = kept.get(number)
        if made is None:
            made = prefix.of(blocks[number].vectors)
            if keep:
                kept[number] = made
        return made

    # Each thread multiplies alone: looking through a tile is as much work as making it, and no library does that in parallel.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="join") as pool:
        for later in range(len(blocks)):
            mine = rows(later)
            tiles = range(0, len(mine), TILE)
            compare = _comparer(blocks, later, mine, rows, min_score)
            # Prefixes that are not kept are made once for all tiles of a block.
            parts = (
                [(earlier, [tile]) for earlier in range(later + 1) for tile in tiles] if keep else [(e, tiles) for e in range(later + 1)]
            )
            for found in pool.map(compare, parts):
                yield from found


def _comparer(
    blocks: Sequence[Block],
    later: int,
    mine: NDArray[np.float32],
    rows: Callable[[int], NDArray[np.float32]],
    min_score: float,
) -> Callable[[tuple[int, Iterable[int]]], list[Scored]]:
    """Compares TILE rows of a block, from each of some starts, with an earlier block, or with the rows of its own up to them."""
    bound = np.float32(min_score - PRODUCT_MARGIN)
    space = threading.local()  # a fresh tile for each product would be zeroed by the system each time

    def compare(part: tuple[int, Iterable[int]]) -> list[Scored]:
        earlier, starts = part
        others = mine if earlier == later else rows(earlier)
        if not hasattr(space, "tile"):
            space.tile = np.empty(TILE * BLOCK, np.float32)
        found: list[Scored] = []
        for start in starts:
            some = mine[start : start + TILE]
            facing = others[: start + len(some)] if earlier == later else others
            tile = space.tile[: len(some) * len(facing)].reshape(len(some), len(facing))
            np.matmul(some, facing.T, out=tile)
            near = np.flatnonzero(tile.max(axis=1) >= bound)  # a row's best first: most rows have nothing
            flat = np.flatnonzero(tile[near].ravel() >= bound)
            left, right = near[flat // len(facing)] + start, flat % len(facing)
            if earlier == later:
                once = left > right
                left, right = left[once], right[once]
            found.extend(_decided(blocks[later], blocks[earlier], left, right, min_score))
        return found

    return compare


def _decided(one: Block, other: Block, left: Ids, right: Ids, min_score: float) -> Iterator[Scored]:
    """Those of the proposed pairs whose cosine is at or above the threshold; a float32 look first, where the bound let much through."""
    for start in range(0, len(left), DECIDED):
        some = slice(start, start + DECIDED)
        a, b = one.vectors[left[some]], other.vectors[right[some]]
        near = np.flatnonzero(np.einsum("ij,ij->i", a.astype(np.float32), b.astype(np.float32)) >= min_score - MARGIN)
        score = cosines(a[near], b[near])
        keep = score >= min_score
        ids, others = one.ids[left[some][near][keep]], other.ids[right[some][near][keep]]
        yield Scored(np.minimum(ids, others), np.maximum(ids, others), score[keep])


def _blocks(segments: Sequence[Segment], among: Ids) -> Iterator[Block]:
    """The wanted rows of all segments, small segments together."""
    ids: list[Ids] = []
    vectors: list[NDArray[np.float16]] = []
    gathered = 0
    for segment in segments:
        wanted = np.flatnonzero(np.isin(segment.ids, among))
        ends = [*range(0, len(wanted), BLOCK), len(wanted)]
        for start, end in pairwise(ends):
            if gathered + end - start > BLOCK:
                yield Block(np.concatenate(ids), _joined(vectors))
                ids, vectors, gathered = [], [], 0
            some = wanted[start:end]
            whole = some[-1] - some[0] + 1 == len(some)
            ids.append(segment.ids[some])
            vectors.append(segment.vectors[some[0] : some[-1] + 1] if whole else segment.vectors[some])
            gathered += len(some)
    if gathered:
        yield Block(np.concatenate(ids), _joined(vectors))


def _joined(parts: list[NDArray[np.float16]]) -> NDArray[np.float16]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
