"""Homographies of the plane: apply, invert and differentiate 3 x 3 matrices, robust fits."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

Homography = NDArray[np.float64]  # (3, 3), maps (x, y, 1) of one image to the other
IRLS_ITERATIONS = 3  # each weights points by the residuals of the fit before
DAMPING = 1e-9  # of least squares, for each row
# Beyond this multiple of the median residual, and beyond the second, a point is an outlier.
OUTLIER_RATIO = 3
MIN_OUTLIER_PX = 0.5
# The corners of an image in normalized coordinates, clockwise from the upper left.
UNIT_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])

MAX_ISOTROPIC_RATIO = 1.03  # scale along one direction over the other; beyond, it is stretched
ImageSizes = tuple[tuple[int, int], tuple[int, int]]  # (width, height) of the first and the second


def compute_scale(H: Homography) -> float:
    """Compute the scale of the affine part: the root of the absolute determinant."""
    (a, b), (c, d) = H[:2, :2].tolist()
    return math.sqrt(abs(a * d - b * c))


def build_unit_to_pixels(shape: tuple[int, ...]) -> Homography:
    """Build the matrix from normalized coordinates to pixels of an image (height, width, ...).

    Pixel centers have integer coordinates, so the upper left corner is (-0.5, -0.5).
    """
    return np.array([[shape[1], 0.0, -0.5], [0.0, shape[0], -0.5], [0.0, 0.0, 1.0]])


def invert_homography(H: Homography) -> Homography:
    """Invert a homography, scaled so that its last element is 1.

    Raises LinAlgError if there is none.
    """
    inverse = invert_matrix(H)
    if not inverse[2, 2]:
        raise np.linalg.LinAlgError("singular affine part")
    return np.asarray(inverse / inverse[2, 2])


def invert_matrix(matrix: Homography) -> Homography:
    """Invert a matrix (3, 3) by its cofactors.

    Raises LinAlgError if its determinant is 0 or not finite. It takes half of the time of
    np.linalg.inv(), and only NumPy: callers do without OpenCV.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    cofactors = (e * i - f * h, f * g - d * i, d * h - e * g)
    determinant = a * cofactors[0] + b * cofactors[1] + c * cofactors[2]
    if not determinant or not math.isfinite(determinant):
        raise np.linalg.LinAlgError("singular matrix")
    adjugate = [
        [cofactors[0], c * h - b * i, b * f - c * e],
        [cofactors[1], a * i - c * g, c * d - a * f],
        [cofactors[2], b * g - a * h, a * e - b * d],
    ]
    return np.asarray(np.array(adjugate) / determinant)


def apply_homography(H: Homography, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map points (n, 2)."""
    homogeneous = points @ H[:, :2].T + H[:, 2]
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def compute_jacobian(H: Homography, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute the Jacobian at points (..., 2): (..., 2, 2), columns for the steps in x and y."""
    homogeneous = points @ H[:, :2].T + H[:, 2]
    mapped = homogeneous[..., :2] / homogeneous[..., 2:]
    return np.asarray((H[:2, :2] - mapped[..., :, None] * H[2, :2]) / homogeneous[..., 2:, None])


def solve_robust_lstsq(
    design: NDArray[np.floating],
    target: NDArray[np.floating],
    weights: NDArray[np.floating],
    pixels_per_unit: float = 1.0,
    damping: float | NDArray[np.float64] = DAMPING,
) -> NDArray[np.float64]:
    """Solve design @ X = target by IRLS with Tukey's biweight; returns X (k, m).

    `design` is (n, k), `target` (n, m) with m = 1 or 2, `weights` (n,). `pixels_per_unit` converts
    residuals to pixels, the unit of the outlier limit. `damping` (k,), for each row, keeps unknowns
    small.
    """
    irls_weights = weights.astype(np.float64)
    ridge = np.diag(np.broadcast_to(damping, design.shape[1])) * len(design)
    transposed = np.ascontiguousarray(design.T)
    for iteration in range(IRLS_ITERATIONS):
        weighted = transposed * irls_weights
        solution = np.linalg.solve(weighted @ design + ridge, weighted @ target)
        if iteration + 1 < IRLS_ITERATIONS:
            errors = design @ solution - target
            residuals = np.abs(errors[:, 0]) if errors.shape[1] == 1 else np.hypot(*errors.T)
            irls_weights = weights * _compute_tukey_weights(residuals * pixels_per_unit)
    return np.asarray(solution)


def _compute_tukey_weights(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight residuals, in pixels, by Tukey's biweight; 0 for outliers."""
    middle = len(residuals) // 2
    limit = max(MIN_OUTLIER_PX, OUTLIER_RATIO * float(np.partition(residuals, middle)[middle]))
    return np.maximum(0.0, 1.0 - (residuals / limit) ** 2) ** 2


def compute_principal_scales(homography: Homography, sizes: ImageSizes) -> tuple[float, float]:
    """Compute the largest and smallest scale in pixels at the center of the second image.

    They are the singular values of the Jacobian: the growth along two orthogonal directions.
    """
    largest, smallest = np.linalg.svd(compute_local_jacobian(homography, sizes)[2])[1]
    return float(largest), float(smallest)


def compute_local_jacobian(
    homography: Homography, sizes: ImageSizes
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute the Jacobian at the center of the second image, mapped back onto the first.

    Returns that point (2,) on the first image in normalized coordinates, clipped to the image, and
    the Jacobian (2, 2) in normalized coordinates and in pixels.
    """
    second_center = np.array([[0.5, 0.5]])
    center = apply_homography(invert_homography(homography), second_center)[0].clip(0.0, 1.0)
    unit_jacobian = compute_jacobian(homography, center)
    pixel_jacobian = unit_jacobian * np.array(sizes[1])[:, None] / np.array(sizes[0])[None, :]
    return center, unit_jacobian, pixel_jacobian


@cache
def compute_unit_grid(side: int) -> NDArray[np.float64]:
    """Compute cell centers (x, y, 1) of a grid over the unit square, (3, side * side), by rows."""
    y, x = (np.mgrid[0:side, 0:side].reshape(2, -1) + 0.5) / side
    return np.stack([x, y, np.ones_like(x)])
