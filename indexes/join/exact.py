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

from indexes.catalog.pairs import JoinWatermark
from indexes.catalog.vectors import Ids
from indexes.errors import StoreDamaged
from indexes.vectors.segments import (
    STORED_PRODUCT_MARGIN,
    ScoredPairs,
    Segment,
    concat_pairs,
    cosines,
)

BLOCK_ROWS = 4096  # rows compared with one another at a time
TILE_ROWS = 512  # rows of a block in one product: with BLOCK, the fastest of nine shapes measured, and 8 MB of scores in each thread
MAX_CACHED_PROJECTION_BYTES = (
    1 << 29
)  # bytes of prefixes that are kept; those of larger libraries are computed again for each block
PRODUCT_MARGIN = 1e-4  # float32 products of unit vectors differ between libraries and tile shapes by up to 9e-7 (measured)
CANDIDATE_BLOCK_PAIRS = 1 << 14  # proposed pairs that are decided at a time
SQUARED_RESIDUAL_MARGIN = 4e-6  # see _rest
PAIR_SHARE_SAMPLE_ROWS = 4096  # rows whose pairs are counted: eight million
WIDTH_SAMPLE_ROWS, AXES_SAMPLE_ROWS = 1024, 8192  # rows that the choice of k, and V, are fitted on
# What a pair costs, in units of one multiplication in a product; measured on vectors of 512 numbers, two threads.
BOUND_CHECK_COST, SCORE_COST_PER_DIMENSION = (
    16,
    130,
)  # looking at its bound; deciding it, for each number of a vector


class VectorRows:
    """The vectors of all segments as one array of rows in the order of their ids, still mapped."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Rows of `segments`, whose ids ascend from one to the next."""
        self._segments = segments
        self._starts = np.cumsum([0, *(len(segment.ids) for segment in segments)])
        self.ids: Ids = np.concatenate(
            [np.empty(0, np.int64), *(segment.ids for segment in segments)]
        )

    def slice(self, start: int, stop: int) -> NDArray[np.float16]:
        """Rows from `start` up to `stop`; a view where they are in one segment."""
        parts = []
        for segment, first in zip(self._segments, self._starts, strict=False):
            if first < stop and first + len(segment.ids) > start:
                parts.append(segment.vectors[max(0, start - first) : stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def gather(self, rows: Ids) -> NDArray[np.float16]:
        """Some rows, copied."""
        if len(self._segments) == 1:
            return self._segments[0].vectors[rows]
        taken = np.empty((len(rows), self._segments[0].vectors.shape[1]), np.float16)
        home = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(home):
            some = home == number
            taken[some] = self._segments[number].vectors[rows[some] - self._starts[number]]
        return taken

    def find_rows(self, ids: Sequence[int] | Ids) -> Ids:
        """The rows of ids. Raises StoreDamaged for one that is in no segment."""
        asked = np.asarray(ids, dtype=np.int64)
        rows = np.searchsorted(self.ids, asked)
        if len(asked) and (
            not len(self.ids) or (self.ids[np.minimum(rows, len(self.ids) - 1)] != asked).any()
        ):
            raise StoreDamaged(
                "a vector that the catalog names is in no segment; see `neardup check` and `neardup repair`"
            )
        return rows

    def count_up_to(self, last_id: int) -> int:
        """How many rows have an id up to this one."""
        return int(np.searchsorted(self.ids, last_id, side="right"))


@dataclass(frozen=True)
class Recall:
    """How many of the pairs that exact search found for a sample of rows a join by buckets finds, one pair of each row."""

    found: int
    sampled: int
    lists: int
    probes: int  # by each vector

    @property
    def lower_bound_95(self) -> float:
        """The share of all pairs that are found, with 95 % confidence: the exact binomial bound (Clopper and Pearson, 1934)."""
        low, high = 0.0, 1.0
        if not self.sampled:
            return 0.0
        missed = np.arange(self.sampled - self.found + 1)
        ways = np.cumsum(
            [0.0, *np.log((self.sampled - missed[:-1]) / (missed[:-1] + 1.0))]
        )  # log of the binomial coefficients
        for _ in range(50):
            share = (low + high) / 2
            chance = np.exp(
                ways + missed * np.log1p(-share) + (self.sampled - missed) * np.log(share)
            ).sum()
            low, high = (low, share) if chance > 0.05 else (share, high)
        return low


@dataclass(frozen=True)
class JoinStep:
    """What a join found since its last step, how far it is now, and how much of how much it has done, about in seconds' proportion.

    The last step of a join by buckets has its recall; an exact one has none.
    """

    watermark: JoinWatermark
    new_pairs: ScoredPairs
    done: int
    total: int
    recall: Recall | None = None


@dataclass(frozen=True)
class CosineBound:
    """An upper bound of the cosine that takes `axes.shape[1]` + 1 numbers of each vector; None: all numbers, no bound."""

    axes: NDArray[np.float32] | None

    def project(self, vectors: NDArray[np.float16]) -> NDArray[np.float32]:
        """Rows whose products are at least the cosines of `vectors` (to PRODUCT_MARGIN): (n, k + 1), or (n, dim) without a bound."""
        rows = vectors.astype(np.float32)
        rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, np.newaxis]
        if self.axes is None:
            return rows
        made = np.empty((len(rows), self.axes.shape[1] + 1), np.float32)
        np.matmul(rows, self.axes, out=made[:, :-1])
        made[:, -1] = _residual_norm(made[:, :-1])
        return made

    def get_width(self, dim: int) -> int:
        """Numbers in a row."""
        return dim if self.axes is None else self.axes.shape[1] + 1

    @property
    def name(self) -> str:
        """For people: what is multiplied."""
        return "all numbers" if self.axes is None else f"{self.axes.shape[1]} axes and the rest"


def sample_rows(vectors: VectorRows) -> NDArray[np.float16]:
    """Rows spread over the whole library, enough for choose_prefix()."""
    return vectors.gather(pick_evenly(len(vectors.ids), AXES_SAMPLE_ROWS + WIDTH_SAMPLE_ROWS))


def choose_bound(vectors: NDArray[np.float16], min_score: float) -> CosineBound:
    """The prefix that takes the least time by what it lets through among a sample of `vectors`; no bound where none would pay."""
    dim = vectors.shape[1]
    # The axes fit the rows that they are made from better than others: what they let through is asked of other rows.
    asked = pick_evenly(len(vectors), WIDTH_SAMPLE_ROWS)
    others = np.setdiff1d(np.arange(len(vectors)), asked)
    rows = _normalize(
        vectors[others[pick_evenly(len(others), AXES_SAMPLE_ROWS)]] if len(others) else vectors
    )
    _, axes = np.linalg.eigh(
        rows.T @ rows
    )  # about the origin: a strong common mean becomes the first axis
    axes = np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)
    turned = _normalize(vectors[asked]) @ axes
    left, right = np.triu_indices(len(turned), 1)
    best, least = (
        CosineBound(None),
        dim
        + BOUND_CHECK_COST
        + SCORE_COST_PER_DIMENSION * dim * _measure_candidate_share(turned, left, right, min_score),
    )
    for kept in sorted({15, 31, 47, 63, 95, 127, 159, 191, 223, 255, 319, 383}):
        if kept + 1 >= dim:
            break
        head = turned[:, :kept]
        short = np.hstack([head, _residual_norm(head)[:, np.newaxis]])
        cost = (
            kept
            + 1
            + BOUND_CHECK_COST
            + SCORE_COST_PER_DIMENSION
            * dim
            * _measure_candidate_share(short, left, right, min_score)
        )
        if cost < least:
            best, least = CosineBound(np.ascontiguousarray(axes[:, :kept])), cost
    return best


def estimate_pair_shares(vectors: NDArray[np.float16], min_scores: Sequence[float]) -> list[float]:
    """The share of all pairs of a sample of `vectors` that is at or above each of some scores."""
    rows = _normalize(vectors[pick_evenly(len(vectors), PAIR_SHARE_SAMPLE_ROWS)])
    products, others = rows @ rows.T, max(1, len(rows) * (len(rows) - 1))
    np.fill_diagonal(products, -np.inf)
    return [np.count_nonzero(products >= least - PRODUCT_MARGIN) / others for least in min_scores]


def _residual_norm(projections: NDArray[np.float32]) -> NDArray[np.float32]:
    """The length of what the heads of unit rows leave out, never too short.

    1 - |head|^2 is off by up to 1e-6 in float32, which next to 0 is 1e-3 of its root: without REST_MARGIN the bound would miss pairs.
    """
    rest: NDArray[np.float32] = np.sqrt(
        np.maximum(0.0, 1.0 - np.einsum("ij,ij->i", projections, projections))
        + np.float32(SQUARED_RESIDUAL_MARGIN)
    )
    return rest


def _normalize(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    return CosineBound(None).project(vectors)


def pick_evenly(row_count: int, max_count: int) -> Ids:
    """Up to `wanted` numbers below `rows`, evenly spread."""
    return np.unique(np.linspace(0, row_count - 1, min(row_count, max_count)).astype(np.int64))


def _measure_candidate_share(
    rows: NDArray[np.float32], left: Ids, right: Ids, min_score: float
) -> float:
    return (
        float(((rows @ rows.T)[left, right] >= min_score - PRODUCT_MARGIN).mean())
        if len(left)
        else 0.0
    )


def find_pairs(
    vectors: VectorRows, watermark: JoinWatermark, bound: CosineBound, *, threads: int | None = None
) -> Iterator[JoinStep]:
    """Every pair of vectors with score >= frontier.floor that is not within `frontier` yet, once, as ids, left < right.

    Exact and uncapped; the same to the last bit whatever the prefix, the threads, or the order in which vectors were added. A step for
    each pair of blocks; a join that goes on from the frontier of any step finds what is left.
    """
    if not len(vectors.ids):
        return
    rows_of = _ProjectionCache(vectors, bound)
    old = vectors.count_up_to(watermark.done)
    total = count_pairs(len(vectors.ids), old)
    done = 0
    # Each thread multiplies alone: looking through a tile is as much work as making it, and no library does that in parallel.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="join") as pool,
    ):
        begun_until = vectors.count_up_to(watermark.block_end) if watermark.block_end else 0
        for later in _split_new_rows(vectors, old, begun_until):
            begun = (
                later.stop <= begun_until
            )  # of a block that was begun and is gone since, nothing is left to go on with
            skipped = min(vectors.count_up_to(watermark.block_done), later.start) if begun else 0
            done += skipped * len(later)
            until = int(vectors.ids[later.stop - 1])
            spans = [*_split_into_blocks(skipped, later.start), later]
            tiles = range(0, len(later), TILE_ROWS)
            compare = _make_comparer(vectors, later, rows_of, watermark.floor)
            # Prefixes that are not kept are made once for all tiles of a block.
            shares = [[tile] for tile in tiles] if rows_of.is_caching else [list(tiles)]
            with closing(
                pool.map(compare, [(span, some) for span in spans for some in shares])
            ) as results:  # type: ignore[type-var]
                for span in spans:
                    found = concat_pairs([part for _ in shares for part in next(results)])
                    own = span is later
                    done += len(span) * (len(span) - 1) // 2 if own else len(span) * len(later)
                    reached = (
                        replace(watermark, done=until, block_end=0, block_done=0)
                        if own
                        else _advance_within_block(watermark, later, span, vectors)
                    )
                    yield JoinStep(reached, found, done, total)


def count_pairs(rows: int, old_rows: int = 0) -> int:
    """Pairs among `rows` of which at least one is not among the first `old`."""
    return rows * (rows - 1) // 2 - old_rows * (old_rows - 1) // 2


def _advance_within_block(
    watermark: JoinWatermark, block: range, earlier_block: range, vectors: VectorRows
) -> JoinWatermark:
    through = int(vectors.ids[block.start - 1]) if block.start else watermark.done
    return replace(
        watermark,
        done=max(through, watermark.done),
        block_end=int(vectors.ids[block.stop - 1]),
        block_done=int(vectors.ids[earlier_block.stop - 1]),
    )


def _split_new_rows(vectors: VectorRows, old_rows: int, block_end: int) -> Iterator[range]:
    if block_end > old_rows:
        yield range(old_rows, block_end)
    yield from _split_into_blocks(max(block_end, old_rows), len(vectors.ids))


def _split_into_blocks(start: int, stop: int) -> Iterator[range]:
    return (range(first, min(first + BLOCK_ROWS, stop)) for first in range(start, stop, BLOCK_ROWS))


class _ProjectionCache:
    """The prefixes of stretches of a shelf, kept where memory allows."""

    def __init__(self, vectors: VectorRows, bound: CosineBound) -> None:
        self._vectors, self._bound = vectors, bound
        self.is_caching = (
            len(vectors.ids) * bound.get_width(vectors.slice(0, 1).shape[1]) * 4
            <= MAX_CACHED_PROJECTION_BYTES
        )
        self._projections: dict[tuple[int, int], NDArray[np.float32]] = {}

    def __call__(self, span: range) -> NDArray[np.float32]:
        made = self._projections.get((span.start, span.stop))
        if made is None:
            made = self._bound.project(self._vectors.slice(span.start, span.stop))
            if self.is_caching:
                self._projections[span.start, span.stop] = made
        return made


def _make_comparer(
    vectors: VectorRows,
    block: range,
    project: Callable[[range], NDArray[np.float32]],
    min_score: float,
) -> Callable[[tuple[range, Iterable[int]]], list[ScoredPairs]]:
    """Compares TILE rows of a block, from each of some starts, with an earlier block, or with the rows of its own up to them."""
    mine = project(block)
    space = (
        threading.local()
    )  # a fresh tile for each product would be zeroed by the system each time

    def compare(part: tuple[range, Iterable[int]]) -> list[ScoredPairs]:
        earlier, starts = part
        own = earlier is block
        others = mine if own else project(earlier)
        if not hasattr(space, "tile"):
            space.tile = np.empty(TILE_ROWS * BLOCK_ROWS, np.float32)
        found: list[ScoredPairs] = []
        for start in starts:
            some = mine[start : start + TILE_ROWS]
            facing = others[: start + len(some)] if own else others
            left, right = pairs_above_bound(some, facing, space.tile, min_score)
            left += start
            if own:
                once = left > right
                left, right = left[once], right[once]
            found.extend(
                exact_scores(vectors, left + block.start, right + earlier.start, min_score)
            )
        return found

    return compare


def pairs_above_bound(
    left_rows: NDArray[np.float32],
    right_rows: NDArray[np.float32],
    buffer: NDArray[np.float32],
    min_score: float,
) -> tuple[Ids, Ids]:
    """Numbers of the rows of two prefixes whose product does not show that they are below the threshold; the products lie in `space`."""
    bound = np.float32(min_score - PRODUCT_MARGIN)
    tile = buffer[: len(left_rows) * len(right_rows)].reshape(len(left_rows), len(right_rows))
    np.matmul(left_rows, right_rows.T, out=tile)
    near = np.flatnonzero(tile.max(axis=1) >= bound)  # a row's best first: most rows have nothing
    flat = np.flatnonzero(tile[near].ravel() >= bound)
    return near[flat // len(right_rows)], flat % len(right_rows)


def exact_scores(
    vectors: VectorRows, left: Ids, right: Ids, min_score: float
) -> Iterator[ScoredPairs]:
    """Those of the proposed pairs of rows whose cosine is at or above the threshold, as ids.

    A float32 look first, where the bound let much through.
    """
    for start in range(0, len(left), CANDIDATE_BLOCK_PAIRS):
        some = slice(start, start + CANDIDATE_BLOCK_PAIRS)
        a, b = vectors.gather(left[some]), vectors.gather(right[some])
        near = np.flatnonzero(
            np.einsum("ij,ij->i", a.astype(np.float32), b.astype(np.float32))
            >= min_score - STORED_PRODUCT_MARGIN
        )
        score = cosines(a[near], b[near])
        keep = score >= min_score
        ids, others = vectors.ids[left[some][near][keep]], vectors.ids[right[some][near][keep]]
        yield ScoredPairs(np.minimum(ids, others), np.maximum(ids, others), score[keep])
