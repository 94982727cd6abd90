"""Transforms of the plane: 3 x 3 matrices that take places (x, y, 1) of one picture to those of another, and what fits places best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Homography = NDArray[np.float64]
IRLS_ITERATIONS = 3  # of fitting, each with less weight for what the one before left far off
MIN_SCALE = 0.01  # of a transform that still leads back
UNIT_CORNERS = np.array(
    [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
)  # a picture's corners, as shares of its sides


def compute_scale(H: Homography) -> float:
    """How much larger things become, near the origin."""
    return float(np.sqrt(abs(np.linalg.det(H[:2, :2]))))


def unit_to_pixels(shape: tuple[int, ...]) -> Homography:
    """What takes places as shares of the sides of a picture (height, width, ...) to its pixels, whose middles are half a pixel inside."""
    return np.array([[shape[1], 0.0, -0.5], [0.0, shape[0], -0.5], [0.0, 0.0, 1.0]])


def invert_homography(H: Homography) -> Homography:
    """The transform that leads back."""
    back = np.linalg.inv(H)
    return np.asarray(back / back[2, 2])


def apply_homography(H: Homography, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Places (n, 2) after a transform."""
    lifted = points @ H[:, :2].T + H[:, 2]
    return np.asarray(lifted[:, :2] / lifted[:, 2:])


def jacobian(H: Homography, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where small steps from places (..., 2) lead to: (..., 2, 2), for each place its first derivatives, a column for x and one for y."""
    lifted = points @ H[:, :2].T + H[:, 2]
    there = lifted[..., :2] / lifted[..., 2:]
    return np.asarray((H[:2, :2] - there[..., :, None] * H[2, :2]) / lifted[..., 2:, None])


def fit_homography(
    src: NDArray[np.float64], dst: NDArray[np.float64], weights: NDArray[np.float64]
) -> Homography | None:
    """The projective transform, affine for fewer than 14 places, that brings `start` (n, 2) nearest to `end` (n, 2), strays left aside;
    None where there is none.
    """
    one, other = _normalizing_transform(src), _normalizing_transform(dst)
    places, goal = apply_homography(one, src), apply_homography(other, dst)
    x, y = places.T
    if len(src) < 14:
        affine = robust_lstsq(
            np.column_stack([x, y, np.ones_like(x)]), goal, weights, 1.0 / other[0, 0]
        )
        matrix = np.vstack([affine.T, [0.0, 0.0, 1.0]])
    else:
        (u, v), zero, unit = goal.T, np.zeros_like(x), np.ones_like(x)
        rows = np.array(
            [
                [x, y, unit, zero, zero, zero, -u * x, -u * y],
                [zero, zero, zero, x, y, unit, -v * x, -v * y],
            ]
        )
        easing = np.diag([1e-9] * 6 + [4e-4] * 2) * len(
            x
        )  # no perspective where nothing speaks for it
        matrix, some = np.eye(3), weights
        for _ in range(IRLS_ITERATIONS):
            heavy = rows * some
            square = np.einsum("sin,sjn->ij", heavy, rows) + easing
            matrix = np.append(
                np.linalg.solve(square, np.einsum("sin,ns->i", heavy, goal)), 1.0
            ).reshape(3, 3)
            some = weights * _tukey_weights(
                np.linalg.norm(apply_homography(matrix, places) - goal, axis=1) / other[0, 0]
            )
    matrix = np.linalg.inv(other) @ matrix @ one
    if not np.isfinite(matrix).all() or abs(matrix[2, 2]) < 1e-9:
        return None
    matrix = matrix / matrix[2, 2]
    return matrix if MIN_SCALE < compute_scale(matrix) < 1 / MIN_SCALE else None


def robust_lstsq(
    design: NDArray[np.floating],
    target: NDArray[np.floating],
    weights: NDArray[np.floating],
    pixels_per_unit: float = 1.0,
) -> NDArray[np.float64]:
    """What takes `known` (n, k) nearest to `goal` (n, m), as (k, m): again and again with less weight for what is far off (Tukey's
    biweight). `unit`: pixels for 1 of the goal.
    """
    some = weights.astype(np.float64)
    for _ in range(IRLS_ITERATIONS):
        heavy = design.T * some
        found = np.linalg.solve(
            heavy @ design + 1e-9 * len(design) * np.eye(design.shape[1]), heavy @ target
        )
        some = weights * _tukey_weights(
            np.linalg.norm(design @ found - target, axis=1) * pixels_per_unit
        )
    return np.asarray(found)


def _tukey_weights(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of what is so many pixels off."""
    limit = max(0.5, 3 * float(np.partition(errors, len(errors) // 2)[len(errors) // 2]))
    return np.maximum(0.0, 1.0 - (errors / limit) ** 2) ** 2


def _normalizing_transform(points: NDArray[np.float64]) -> Homography:
    """What brings places around 0, about 1 away (Hartley 1997)."""
    middle, spread = points.mean(axis=0), float(points.std()) + 1e-6
    return np.array(
        [
            [1 / spread, 0.0, -middle[0] / spread],
            [0.0, 1 / spread, -middle[1] / spread],
            [0.0, 0.0, 1.0],
        ]
    )
