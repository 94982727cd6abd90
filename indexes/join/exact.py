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
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from indexes.catalog.pairs import Frontier, Ids
from indexes.errors import StoreDamaged
from indexes.vectors.segments import MARGIN, Scored, Segment, cosines, joined

BLOCK = 4096  # rows compared with one another at a time
TILE = 512  # rows of a block in one product: with BLOCK, the fastest of nine shapes measured, and 8 MB of scores in each thread
KEPT = 1 << 29  # bytes of prefixes that are kept; those of larger libraries are computed again for each block
PRODUCT_MARGIN = 1e-4  # float32 products of unit vectors differ between libraries and tile shapes by up to 9e-7 (measured)
DECIDED = 1 << 14  # proposed pairs that are decided at a time
REST_MARGIN = 4e-6  # see _rest
PAIRED = 4096  # rows whose pairs are counted: eight million
SAMPLE, AXES_SAMPLE = 1024, 8192  # rows that the choice of k, and V, are fitted on
# What a pair costs, in units of one multiplication in a product; measured on vectors of 512 numbers, two threads.
SCAN_COST, DECIDE_COST = 16, 130  # looking at its bound; deciding it, for each number of a vector


class Shelf:
    """The vectors of all segments as one array of rows in the order of their ids, still mapped."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Rows of `segments`, whose ids ascend from one to the next."""
        self._segments = segments
        self._starts = np.cumsum([0, *(len(segment.ids) for segment in segments)])
        self.ids: Ids = np.concatenate([np.empty(0, np.int64), *(segment.ids for segment in segments)])

    def stretch(self, start: int, stop: int) -> NDArray[np.float16]:
        """Rows from `start` up to `stop`; a view where they are in one segment."""
        parts = []
        for segment, first in zip(self._segments, self._starts, strict=False):
            if first < stop and first + len(segment.ids) > start:
                parts.append(segment.vectors[max(0, start - first) : stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, rows: Ids) -> NDArray[np.float16]:
        """Some rows, copied."""
        if len(self._segments) == 1:
            return self._segments[0].vectors[rows]
        taken = np.empty((len(rows), self._segments[0].vectors.shape[1]), np.float16)
        home = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(home):
            some = home == number
            taken[some] = self._segments[number].vectors[rows[some] - self._starts[number]]
        return taken

    def rows(self, ids: Sequence[int] | Ids) -> Ids:
        """The rows of ids. Raises StoreDamaged for one that is in no segment."""
        asked = np.asarray(ids, dtype=np.int64)
        rows = np.searchsorted(self.ids, asked)
        if len(asked) and (not len(self.ids) or (self.ids[np.minimum(rows, len(self.ids) - 1)] != asked).any()):
            raise StoreDamaged("a vector that the catalog names is in no segment; see `neardup check` and `neardup repair`")
        return rows

    def up_to(self, id_: int) -> int:
        """How many rows have an id up to this one."""
        return int(np.searchsorted(self.ids, id_, side="right"))


@dataclass(frozen=True)
class Recall:
    """How many of the pairs that exact search found for a sample of rows a join by buckets finds, one pair of each row."""

    found: int
    sampled: int
    lists: int
    visited: int  # by each vector

    @property
    def at_least(self) -> float:
        """The share of all pairs that are found, with 95 % confidence: the exact binomial bound (Clopper and Pearson, 1934)."""
        low, high = 0.0, 1.0
        if not self.sampled:
            return 0.0
        missed = np.arange(self.sampled - self.found + 1)
        ways = np.cumsum([0.0, *np.log((self.sampled - missed[:-1]) / (missed[:-1] + 1.0))])  # log of the binomial coefficients
        for _ in range(50):
            share = (low + high) / 2
            chance = np.exp(ways + missed * np.log1p(-share) + (self.sampled - missed) * np.log(share)).sum()
            low, high = (low, share) if chance > 0.05 else (share, high)
        return low


@dataclass(frozen=True)
class Step:
    """What a join found since its last step, how far it is now, and how much of how much it has done, about in seconds' proportion.

    The last step of a join by buckets has its recall; an exact one has none.
    """

    frontier: Frontier
    found: Scored
    done: int
    total: int
    recall: Recall | None = None


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

    def width(self, dim: int) -> int:
        """Numbers in a row."""
        return dim if self.axes is None else self.axes.shape[1] + 1

    @property
    def name(self) -> str:
        """For people: what is multiplied."""
        return "all numbers" if self.axes is None else f"{self.axes.shape[1]} axes and the rest"


def sample(shelf: Shelf) -> NDArray[np.float16]:
    """Rows spread over the whole library, enough for choose_prefix()."""
    return shelf.take(spread(len(shelf.ids), AXES_SAMPLE + SAMPLE))


def choose_prefix(vectors: NDArray[np.float16], min_score: float) -> Prefix:
    """The prefix that takes the least time by what it lets through among a sample of `vectors`; no bound where none would pay."""
    dim = vectors.shape[1]
    # The axes fit the rows that they are made from better than others: what they let through is asked of other rows.
    asked = spread(len(vectors), SAMPLE)
    others = np.setdiff1d(np.arange(len(vectors)), asked)
    rows = _unit(vectors[others[spread(len(others), AXES_SAMPLE)]] if len(others) else vectors)
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


def share_of_pairs(vectors: NDArray[np.float16], min_scores: Sequence[float]) -> list[float]:
    """The share of all pairs of a sample of `vectors` that is at or above each of some scores."""
    rows = _unit(vectors[spread(len(vectors), PAIRED)])
    products, others = rows @ rows.T, max(1, len(rows) * (len(rows) - 1))
    np.fill_diagonal(products, -np.inf)
    return [np.count_nonzero(products >= least - PRODUCT_MARGIN) / others for least in min_scores]


def _rest(heads: NDArray[np.float32]) -> NDArray[np.float32]:
    """The length of what the heads of unit rows leave out, never too short.

    1 - |head|^2 is off by up to 1e-6 in float32, which next to 0 is 1e-3 of its root: without REST_MARGIN the bound would miss pairs.
    """
    rest: NDArray[np.float32] = np.sqrt(np.maximum(0.0, 1.0 - np.einsum("ij,ij->i", heads, heads)) + np.float32(REST_MARGIN))
    return rest


def _unit(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    return Prefix(None).of(vectors)


def spread(rows: int, wanted: int) -> Ids:
    """Up to `wanted` numbers below `rows`, evenly spread."""
    return np.unique(np.linspace(0, rows - 1, min(rows, wanted)).astype(np.int64))


def _share(rows: NDArray[np.float32], left: Ids, right: Ids, min_score: float) -> float:
    return float(((rows @ rows.T)[left, right] >= min_score - PRODUCT_MARGIN).mean()) if len(left) else 0.0


def pairs(shelf: Shelf, frontier: Frontier, prefix: Prefix, *, threads: int | None = None) -> Iterator[Step]:
    """Every pair of vectors with score >= frontier.floor that is not within `frontier` yet, once, as ids, left < right.

    Exact and uncapped; the same to the last bit whatever the prefix, the threads, or the order in which vectors were added. A step for
    each pair of blocks; a join that goes on from the frontier of any step finds what is left.
    """
    if not len(shelf.ids):
        return
    rows_of = _Rows(shelf, prefix)
    old = shelf.up_to(frontier.through)
    total = count_pairs(len(shelf.ids), old)
    done = 0
    # Each thread multiplies alone: looking through a tile is as much work as making it, and no library does that in parallel.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="join") as pool:
        begun_until = shelf.up_to(frontier.until) if frontier.until else 0
        for later in _new_blocks(shelf, old, begun_until):
            begun = later.stop <= begun_until  # of a block that was begun and is gone since, nothing is left to go on with
            skipped = min(shelf.up_to(frontier.earlier), later.start) if begun else 0
            done += skipped * len(later)
            until = int(shelf.ids[later.stop - 1])
            spans = [*_blocks(skipped, later.start), later]
            tiles = range(0, len(later), TILE)
            compare = _comparer(shelf, later, rows_of, frontier.floor)
            # Prefixes that are not kept are made once for all tiles of a block.
            shares = [[tile] for tile in tiles] if rows_of.kept else [list(tiles)]
            with closing(pool.map(compare, [(span, some) for span in spans for some in shares])) as results:  # type: ignore[type-var]
                for span in spans:
                    found = joined([part for _ in shares for part in next(results)])
                    own = span is later
                    done += len(span) * (len(span) - 1) // 2 if own else len(span) * len(later)
                    reached = replace(frontier, through=until, until=0, earlier=0) if own else _within(frontier, later, span, shelf)
                    yield Step(reached, found, done, total)


def count_pairs(rows: int, old: int = 0) -> int:
    """Pairs among `rows` of which at least one is not among the first `old`."""
    return rows * (rows - 1) // 2 - old * (old - 1) // 2


def _within(frontier: Frontier, later: range, span: range, shelf: Shelf) -> Frontier:
    through = int(shelf.ids[later.start - 1]) if later.start else frontier.through
    return replace(
        frontier, through=max(through, frontier.through), until=int(shelf.ids[later.stop - 1]), earlier=int(shelf.ids[span.stop - 1])
    )


def _new_blocks(shelf: Shelf, old: int, begun_until: int) -> Iterator[range]:
    if begun_until > old:
        yield range(old, begun_until)
    yield from _blocks(max(begun_until, old), len(shelf.ids))


def _blocks(start: int, stop: int) -> Iterator[range]:
    return (range(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK))


class _Rows:
    """The prefixes of stretches of a shelf, kept where memory allows."""

    def __init__(self, shelf: Shelf, prefix: Prefix) -> None:
        self._shelf, self._prefix = shelf, prefix
        self.kept = len(shelf.ids) * prefix.width(shelf.stretch(0, 1).shape[1]) * 4 <= KEPT
        self._made: dict[tuple[int, int], NDArray[np.float32]] = {}

    def __call__(self, span: range) -> NDArray[np.float32]:
        made = self._made.get((span.start, span.stop))
        if made is None:
            made = self._prefix.of(self._shelf.stretch(span.start, span.stop))
            if self.kept:
                self._made[span.start, span.stop] = made
        return made


def _comparer(
    shelf: Shelf, later: range, rows_of: Callable[[range], NDArray[np.float32]], min_score: float
) -> Callable[[tuple[range, Iterable[int]]], list[Scored]]:
    """Compares TILE rows of a block, from each of some starts, with an earlier block, or with the rows of its own up to them."""
    mine = rows_of(later)
    space = threading.local()  # a fresh tile for each product would be zeroed by the system each time

    def compare(part: tuple[range, Iterable[int]]) -> list[Scored]:
        earlier, starts = part
        own = earlier is later
        others = mine if own else rows_of(earlier)
        if not hasattr(space, "tile"):
            space.tile = np.empty(TILE * BLOCK, np.float32)
        found: list[Scored] = []
        for start in starts:
            some = mine[start : start + TILE]
            facing = others[: start + len(some)] if own else others
            left, right = proposed(some, facing, space.tile, min_score)
            left += start
            if own:
                once = left > right
                left, right = left[once], right[once]
            found.extend(decided(shelf, left + later.start, right + earlier.start, min_score))
        return found

    return compare


def proposed(some: NDArray[np.float32], facing: NDArray[np.float32], space: NDArray[np.float32], min_score: float) -> tuple[Ids, Ids]:
    """Numbers of the rows of two prefixes whose product does not show that they are below the threshold; the products lie in `space`."""
    bound = np.float32(min_score - PRODUCT_MARGIN)
    tile = space[: len(some) * len(facing)].reshape(len(some), len(facing))
    np.matmul(some, facing.T, out=tile)
    near = np.flatnonzero(tile.max(axis=1) >= bound)  # a row's best first: most rows have nothing
    flat = np.flatnonzero(tile[near].ravel() >= bound)
    return near[flat // len(facing)], flat % len(facing)


def decided(shelf: Shelf, left: Ids, right: Ids, min_score: float) -> Iterator[Scored]:
    """Those of the proposed pairs of rows whose cosine is at or above the threshold, as ids.

    A float32 look first, where the bound let much through.
    """
    for start in range(0, len(left), DECIDED):
        some = slice(start, start + DECIDED)
        a, b = shelf.take(left[some]), shelf.take(right[some])
        near = np.flatnonzero(np.einsum("ij,ij->i", a.astype(np.float32), b.astype(np.float32)) >= min_score - MARGIN)
        score = cosines(a[near], b[near])
        keep = score >= min_score
        ids, others = shelf.ids[left[some][near][keep]], shelf.ids[right[some][near][keep]]
        yield Scored(np.minimum(ids, others), np.maximum(ids, others), score[keep])
