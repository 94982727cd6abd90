"""Transforms of the plane: 3 x 3 matrices that take places (x, y, 1) of one picture to those of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
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
    lifted = np.column_stack([places, np.ones(len(places))]) @ matrix.T
    return np.asarray(lifted[:, :2] / lifted[:, 2:])
