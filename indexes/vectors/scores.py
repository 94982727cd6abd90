"""Scores of stored vectors.

A score is a cosine: larger is closer, and a threshold means >=. Float32 products only propose
pairs, down to a margin below the threshold; the float64 cosine of the stored vectors decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.vectors import Ids
from indexes.errors import InvalidVector

# How far the length of a vector may be from 1.
MAX_NORM_ERROR = 1e-3
# How far a float32 product of stored vectors may be from their cosine. A length may be off by
# MAX_NORM_ERROR, and float16 rounds each number by up to 2^-11 of itself: together up to 3e-3.
# Float32 products also differ between libraries and tile shapes, by up to 9e-7 (measured).
STORED_PRODUCT_MARGIN = 3.1e-3
# Rows on each side of one product, widened from float16 to float32 at a time.
PRODUCT_BLOCK_ROWS = 4096
# Pairs scored in float64 at a time.
COSINE_BLOCK_PAIRS = 1 << 15

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of a left and a right row or id, with their scores.

    Three arrays of the same length: int64, int64, float64.
    """

    left: Ids
    right: Ids
    score: NDArray[np.float64]

    @classmethod
    def from_edges(cls, edges: Iterable[tuple[int, int, float]]) -> ScoredPairs:
        """Collect (left, right, score) tuples."""
        kind = np.dtype([("left", np.int64), ("right", np.int64), ("score", np.float64)])
        columns = np.fromiter(edges, kind)
        return cls(columns["left"], columns["right"], columns["score"])

    def select(self, selection: NDArray[Any]) -> ScoredPairs:
        """Select pairs by a boolean mask, or reorder them by an array of positions."""
        return ScoredPairs(self.left[selection], self.right[selection], self.score[selection])

    def to_dict(self) -> dict[tuple[int, int], float]:
        """Map each (left, right) to its score."""
        pairs = zip(self.left.tolist(), self.right.tolist(), strict=True)
        return dict(zip(pairs, self.score.tolist(), strict=True))


def concat_pairs(pair_sets: Sequence[ScoredPairs]) -> ScoredPairs:
    """Concatenate sets of pairs; an empty sequence gives an empty set."""
    if not pair_sets:
        return ScoredPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    return ScoredPairs(
        np.concatenate([pairs.left for pairs in pair_sets]),
        np.concatenate([pairs.right for pairs in pair_sets]),
        np.concatenate([pairs.score for pairs in pair_sets]),
    )


def convert_to_stored_vectors(vectors: NDArray[np.floating[Any]], dim: int) -> NDArray[np.float16]:
    """Round unit rows (n, dim) to float16, as they are stored; a score moves by at most 3.3e-4.

    Raises InvalidVector for another shape and for rows that are not finite or not of length 1.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidVector(
            f"vectors of shape {vectors.shape}, the store holds {dim} dimensions;"
            " embed with the store's own model"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
        is_unit = np.abs(norms - 1.0) < MAX_NORM_ERROR  # False for NaN too
    invalid_count = int((~is_unit).sum())
    if invalid_count:
        raise InvalidVector(
            f"{invalid_count} of {len(vectors)} vectors are not of length 1;"
            " pass them through embed() first"
        )
    return vectors.astype(np.float16)


def compute_cosines(
    left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Compute the cosine of each row of `left` with the same row of `right`, in float64.

    The result is the same to the last bit however rows are batched. It is rounded to 12 decimals,
    so that a vector's score with itself is 1 and not the number next to it.
    """
    scores = np.empty(len(left))
    for start in range(0, len(left), COSINE_BLOCK_PAIRS):
        block = slice(start, start + COSINE_BLOCK_PAIRS)
        a, b = left[block].astype(np.float64), right[block].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        scores[block] = np.einsum("ij,ij->i", a, b) / lengths
    np.clip(scores, -1.0, 1.0, out=scores)
    return np.round(scores, 12, out=scores)


def find_pairs_above(
    left: NDArray[np.float16], right: NDArray[np.float16], min_score: float
) -> ScoredPairs:
    """Find every pair of a row of `left` and a row of `right` with score >= min_score.

    Both sides are stored vectors. The result holds row numbers, in no particular order.
    """
    left_rows, right_rows = _find_products_above(left, right, compute_min_product(min_score))
    return score_candidates(left, right, (left_rows, right_rows), min_score)


def compute_min_product(min_score: float) -> np.float32:
    """Compute the float32 product that every pair of stored vectors at `min_score` reaches."""
    return np.float32(min_score - STORED_PRODUCT_MARGIN)


def score_candidates(
    left: NDArray[np.float16],
    right: NDArray[np.float16],
    candidates: tuple[Ids, Ids],
    min_score: float,
) -> ScoredPairs:
    """Score candidates, given as rows of both sides, and keep those with score >= min_score."""
    left_rows, right_rows = candidates
    scores = compute_cosines(left[left_rows], right[right_rows])
    return ScoredPairs(left_rows, right_rows, scores).select(scores >= min_score)


def _find_products_above(
    left: NDArray[np.float16], right: NDArray[np.float16], min_product: np.float32
) -> tuple[Ids, Ids]:
    widened_left = left.astype(np.float32)
    left_blocks, right_blocks = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for right_start in range(0, len(right), PRODUCT_BLOCK_ROWS):
        block = right[right_start : right_start + PRODUCT_BLOCK_ROWS].astype(np.float32)
        for left_start in range(0, len(left), PRODUCT_BLOCK_ROWS):
            products = widened_left[left_start : left_start + PRODUCT_BLOCK_ROWS] @ block.T
            positions = np.flatnonzero(products.ravel() >= min_product)
            left_blocks.append(positions // len(block) + left_start)
            right_blocks.append(positions % len(block) + right_start)
    return np.concatenate(left_blocks), np.concatenate(right_blocks)
