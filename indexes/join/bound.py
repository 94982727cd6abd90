"""An upper bound of the cosine that takes a few numbers of each vector.

Most pairs are far below any useful threshold, and a few numbers show it. Rotate by V, whose columns
are the principal axes of a sample, keep k numbers of each unit vector x, and append the length of
the residual: x' = [V_k^T x ; sqrt(1 - |V_k^T x|^2)]. For orthonormal V, x.y <= x'.y'
(Cauchy-Schwarz on the residual), whatever V was fitted on. So a product of k + 1 numbers proposes,
and the float64 cosine of the stored vectors decides: a loose bound costs time, never a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.vectors import Ids
from indexes.vectors.rows import VectorRows, pick_evenly
from indexes.vectors.scores import STORED_PRODUCT_MARGIN, ScoredPairs, compute_cosines

# How far a float32 product of unit vectors may be below the exact one. Products differ between
# libraries and tile shapes by up to 9e-7 (measured).
PRODUCT_MARGIN = 1e-4
# Added to the squared length of a residual, see _compute_residual_norms.
SQUARED_RESIDUAL_MARGIN = 4e-6
# Candidates scored at a time.
CANDIDATE_BLOCK_PAIRS = 1 << 14
# Rows whose pairs measure how much each width lets through.
WIDTH_SAMPLE_ROWS = 1024
# Rows that the principal axes are fitted on.
AXES_SAMPLE_ROWS = 8192
# Numbers of axes to choose from.
AXIS_COUNTS = (15, 31, 47, 63, 95, 127, 159, 191, 223, 255, 319, 383)
# The cost of a pair in units of one multiplication in a product, measured on vectors of 512
# dimensions with two threads: to compare its bound with the threshold, ...
BOUND_CHECK_COST = 16
# ... and, for a pair that the bound lets through, to score it, for each dimension.
SCORE_COST_PER_DIMENSION = 130


@dataclass(frozen=True)
class CosineBound:
    """An upper bound of the cosine, from the projections on `axes` (dim, k), orthonormal.

    It takes k + 1 numbers of each vector. With `axes` None it takes all numbers, and is the cosine.
    """

    axes: NDArray[np.float32] | None

    def project(self, vectors: NDArray[np.float16]) -> NDArray[np.float32]:
        """Project vectors (n, dim) to (n, k + 1), or normalize them if there are no axes.

        The products of two projected rows are at least the cosine, to PRODUCT_MARGIN.
        """
        unit_rows = vectors.astype(np.float32)
        unit_rows /= np.sqrt(np.einsum("ij,ij->i", unit_rows, unit_rows))[:, np.newaxis]
        if self.axes is None:
            return unit_rows
        projected = np.empty((len(unit_rows), self.axes.shape[1] + 1), np.float32)
        np.matmul(unit_rows, self.axes, out=projected[:, :-1])
        projected[:, -1] = _compute_residual_norms(projected[:, :-1])
        return projected

    def get_width(self, dim: int) -> int:
        """Get the length of a projected row."""
        return dim if self.axes is None else self.axes.shape[1] + 1

    @property
    def name(self) -> str:
        """The bound in a few words, for tables."""
        if self.axes is None:
            return "all numbers"
        return f"{self.axes.shape[1]} axes and the residual"


def _compute_residual_norms(projections: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the length of what projections (n, k) of unit rows leave out, never too short.

    1 - |projection|^2 is off by up to 1e-6 in float32, which next to 0 is 1e-3 of its root: without
    SQUARED_RESIDUAL_MARGIN the bound would miss pairs.
    """
    squared_lengths = np.einsum("ij,ij->i", projections, projections)
    norms: NDArray[np.float32] = np.sqrt(
        np.maximum(0.0, 1.0 - squared_lengths) + np.float32(SQUARED_RESIDUAL_MARGIN)
    )
    return norms


def normalize(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Scale stored vectors to unit length in float32."""
    return CosineBound(None).project(vectors)


def sample_rows(vectors: VectorRows) -> NDArray[np.float16]:
    """Sample rows evenly across the library, enough for choose_bound."""
    return vectors.gather(pick_evenly(len(vectors.ids), AXES_SAMPLE_ROWS + WIDTH_SAMPLE_ROWS))


def choose_bound(vectors: NDArray[np.float16], min_score: float) -> CosineBound:
    """Choose the bound that takes the least time on a sample of vectors (n, dim).

    The cost of a width is its products, plus the scoring of the pairs it lets through. The result
    has no axes if no bound pays.
    """
    dim = vectors.shape[1]
    # The axes fit the rows they are made from better than others, so the widths are compared on
    # other rows.
    width_rows = pick_evenly(len(vectors), WIDTH_SAMPLE_ROWS)
    axes = _fit_axes(vectors, np.setdiff1d(np.arange(len(vectors)), width_rows))
    rotated = normalize(vectors[width_rows]) @ axes
    best_bound, min_cost = CosineBound(None), _estimate_pair_cost(rotated, dim, min_score)
    for axis_count in AXIS_COUNTS:
        if axis_count + 1 >= dim:
            break
        projections = rotated[:, :axis_count]
        projected = np.hstack([projections, _compute_residual_norms(projections)[:, np.newaxis]])
        cost = _estimate_pair_cost(projected, dim, min_score)
        if cost < min_cost:
            best_bound = CosineBound(np.ascontiguousarray(axes[:, :axis_count]))
            min_cost = cost
    return best_bound


def _fit_axes(vectors: NDArray[np.float16], training_rows: Ids) -> NDArray[np.float32]:
    """Fit principal axes (dim, dim), strongest first, on up to AXES_SAMPLE_ROWS of these rows.

    They are axes about the origin: a strong common mean becomes the first one.
    """
    if len(training_rows):
        vectors = vectors[training_rows[pick_evenly(len(training_rows), AXES_SAMPLE_ROWS)]]
    unit_rows = normalize(vectors)
    _, ascending_axes = np.linalg.eigh(unit_rows.T @ unit_rows)
    return np.ascontiguousarray(ascending_axes[:, ::-1], dtype=np.float32)


def _estimate_pair_cost(projected: NDArray[np.float32], dim: int, min_score: float) -> float:
    """Estimate the cost of a pair, in multiplications, from all pairs of projected rows."""
    left, right = np.triu_indices(len(projected), 1)
    candidate_share = 0.0
    if len(left):
        products = (projected @ projected.T)[left, right]
        candidate_share = float((products >= min_score - PRODUCT_MARGIN).mean())
    score_cost = SCORE_COST_PER_DIMENSION * dim * candidate_share
    return float(projected.shape[1] + BOUND_CHECK_COST + score_cost)


def find_pairs_above_bound(
    left_rows: NDArray[np.float32],
    right_rows: NDArray[np.float32],
    buffer: NDArray[np.float32],
    min_score: float,
) -> tuple[Ids, Ids]:
    """Find the pairs of projected rows whose bound reaches the threshold, as row numbers.

    `buffer` (at least left x right numbers) takes the products.
    """
    min_product = np.float32(min_score - PRODUCT_MARGIN)
    tile = buffer[: len(left_rows) * len(right_rows)].reshape(len(left_rows), len(right_rows))
    np.matmul(left_rows, right_rows.T, out=tile)
    # The maximum of each row first: most rows have no candidate at all.
    rows_with_candidates = np.flatnonzero(tile.max(axis=1) >= min_product)
    positions = np.flatnonzero(tile[rows_with_candidates].ravel() >= min_product)
    return rows_with_candidates[positions // len(right_rows)], positions % len(right_rows)


def compute_exact_scores(
    vectors: VectorRows, left: Ids, right: Ids, min_score: float
) -> Iterator[ScoredPairs]:
    """Score candidates, given as rows, and yield the pairs with score >= min_score.

    Pairs are ids, left < right. A float32 product first rejects most of the candidates where the
    bound let many through.
    """
    for start in range(0, len(left), CANDIDATE_BLOCK_PAIRS):
        block = slice(start, start + CANDIDATE_BLOCK_PAIRS)
        a, b = vectors.gather(left[block]), vectors.gather(right[block])
        products = np.einsum("ij,ij->i", a.astype(np.float32), b.astype(np.float32))
        near = np.flatnonzero(products >= min_score - STORED_PRODUCT_MARGIN)
        scores = compute_cosines(a[near], b[near])
        left_ids, right_ids = vectors.ids[left[block][near]], vectors.ids[right[block][near]]
        pairs = ScoredPairs(
            np.minimum(left_ids, right_ids), np.maximum(left_ids, right_ids), scores
        )
        yield pairs.select(scores >= min_score)
