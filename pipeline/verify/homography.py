"""Transforms of the plane: 3 x 3 matrices that take places (x, y, 1) of one picture to those of another, and what fits places best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
ROUNDS = 3  # of fitting, each with less weight for what the one before left far off
LEAST_SCALE = 0.01  # of a transform that still leads back
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])  # a picture's corners, as shares of its sides


def scale_of(matrix: Matrix) -> float:
    """How much larger things become, near the origin."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def in_pixels(shape: tuple[int, ...]) -> Matrix:
    """What takes places as shares of the sides of a picture (height, width, ...) to its pixels, whose middles are half a pixel inside."""
    return np.array([[shape[1], 0.0, -0.5], [0.0, shape[0], -0.5], [0.0, 0.0, 1.0]])


def inverse(matrix: Matrix) -> Matrix:
    """The transform that leads back."""
    back = np.linalg.inv(matrix)
    return np.asarray(back / back[2, 2])


def moved(matrix: Matrix, places: NDArray[np.floating]) -> NDArray[np.float64]:
    """Places (n, 2) after a transform."""
    lifted = places @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(lifted[:, :2] / lifted[:, 2:])


def slopes_of(matrix: Matrix, places: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where small steps from places (..., 2) lead to: (..., 2, 2), for each place its first derivatives, a column for x and one for y."""
    lifted = places @ matrix[:, :2].T + matrix[:, 2]
    there = lifted[..., :2] / lifted[..., 2:]
    return np.asarray((matrix[:2, :2] - there[..., :, None] * matrix[2, :2]) / lifted[..., 2:, None])


def fit(start: NDArray[np.float64], end: NDArray[np.float64], weights: NDArray[np.float64]) -> Matrix | None:
    """The projective transform, affine for fewer than 14 places, that brings `start` (n, 2) nearest to `end` (n, 2), strays left aside;
    None where there is none.
    """
    one, other = _normal(start), _normal(end)
    places, goal = moved(one, start), moved(other, end)
    x, y = places.T
    if len(start) < 14:
        affine = least_squares(np.column_stack([x, y, np.ones_like(x)]), goal, weights, 1.0 / other[0, 0])
        matrix = np.vstack([affine.T, [0.0, 0.0, 1.0]])
    else:
        (u, v), zero, unit = goal.T, np.zeros_like(x), np.ones_like(x)
        rows = np.array([[x, y, unit, zero, zero, zero, -u * x, -u * y], [zero, zero, zero, x, y, unit, -v * x, -v * y]])
        easing = np.diag([1e-9] * 6 + [4e-4] * 2) * len(x)  # no perspective where nothing speaks for it
        matrix, some = np.eye(3), weights
        for _ in range(ROUNDS):
            heavy = rows * some
            square = np.einsum("sin,sjn->ij", heavy, rows) + easing
            matrix = np.append(np.linalg.solve(square, np.einsum("sin,ns->i", heavy, goal)), 1.0).reshape(3, 3)
            some = weights * _trust(np.linalg.norm(moved(matrix, places) - goal, axis=1) / other[0, 0])
    matrix = np.linalg.inv(other) @ matrix @ one
    if not np.isfinite(matrix).all() or abs(matrix[2, 2]) < 1e-9:
        return None
    matrix = matrix / matrix[2, 2]
    return matrix if LEAST_SCALE < scale_of(matrix) < 1 / LEAST_SCALE else None


def least_squares(
    known: NDArray[np.floating], goal: NDArray[np.floating], weights: NDArray[np.floating], unit: float = 1.0
) -> NDArray[np.float64]:
    """What takes `known` (n, k) nearest to `goal` (n, m), as (k, m): again and again with less weight for what is far off (Tukey's
    biweight). `unit`: pixels for 1 of the goal.
    """
    some = weights.astype(np.float64)
    for _ in range(ROUNDS):
        heavy = known.T * some
        found = np.linalg.solve(heavy @ known + 1e-9 * len(known) * np.eye(known.shape[1]), heavy @ goal)
        some = weights * _trust(np.linalg.norm(known @ found - goal, axis=1) * unit)
    return np.asarray(found)


def _trust(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of what is so many pixels off."""
    limit = max(0.5, 3 * float(np.partition(errors, len(errors) // 2)[len(errors) // 2]))
    return np.maximum(0.0, 1.0 - (errors / limit) ** 2) ** 2


def _normal(places: NDArray[np.float64]) -> Matrix:
    """What brings places around 0, about 1 away (Hartley 1997)."""
    middle, spread = places.mean(axis=0), float(places.std()) + 1e-6
    return np.array([[1 / spread, 0.0, -middle[0] / spread], [0.0, 1 / spread, -middle[1] / spread], [0.0, 0.0, 1.0]])
