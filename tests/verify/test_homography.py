"""Homographies are applied, inverted, differentiated and fitted as OpenCV and exact ones say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.verify.homography import (
    Homography,
    apply_homography,
    build_unit_to_pixels,
    compute_jacobian,
    compute_principal_scales,
    compute_scale,
    invert_homography,
    solve_robust_lstsq,
)


def make_transform(seed: int, perspective: float = 0.0) -> Homography:
    """Make a transform of pixels: rotated by up to 60 degrees, scaled, sheared and moved."""
    rng = np.random.default_rng(seed)
    angle, scale = np.radians(rng.uniform(-60, 60)), rng.uniform(0.4, 2.5)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    H = np.eye(3)
    H[:2, :2] = scale * rotation @ np.array([[1.0, rng.uniform(-0.2, 0.2)], [0.0, 1.0]])
    H[:2, 2] = rng.uniform(-200, 200, 2)
    H[2, :2] = rng.uniform(-perspective, perspective, 2)
    return H


def draw_points(seed: int, count: int) -> NDArray[np.float64]:
    """Draw points on an image of 448 x 300 px."""
    return np.random.default_rng(seed).uniform((0, 0), (448, 300), (count, 2))


@pytest.mark.parametrize("seed", range(10))
def test_robust_fit_without_outliers_is_the_solution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    design, expected = rng.normal(size=(40, 6)), rng.normal(size=(6, 2))
    solution = solve_robust_lstsq(design, design @ expected, np.ones(40))
    np.testing.assert_allclose(solution, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_robust_fit_ignores_outliers_and_rows_of_weight_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    design, expected, weights = rng.normal(size=(60, 6)), rng.normal(size=(6, 2)), np.ones(60)
    target = design @ expected
    target[:5] += rng.uniform(20, 60, (5, 2))
    target[5:15] += 30
    weights[5:15] = 0
    np.testing.assert_allclose(solve_robust_lstsq(design, target, weights), expected, atol=0.1)


def test_damping_keeps_an_unknown_small_that_the_rows_do_not_determine() -> None:
    design = np.column_stack([np.arange(10.0), np.zeros(10)])
    solution = solve_robust_lstsq(design, design[:, :1] * 3, np.ones(10))
    np.testing.assert_allclose(solution[:, 0], [3.0, 0.0], atol=1e-6)


@given(st.integers(0, 10_000))
def test_apply_homography_equals_opencv(seed: int) -> None:
    H, points = make_transform(seed, perspective=3e-4), draw_points(seed, 20)
    expected = cv2.perspectiveTransform(points[:, None], H)[:, 0]
    np.testing.assert_allclose(apply_homography(H, points), expected, atol=1e-9)


@given(st.integers(0, 10_000))
def test_inverse_maps_points_back(seed: int) -> None:
    H, points = make_transform(seed, perspective=3e-4), draw_points(seed, 20)
    inverse = invert_homography(H)
    assert inverse[2, 2] == 1
    np.testing.assert_allclose(
        apply_homography(inverse, apply_homography(H, points)), points, atol=1e-6
    )


@given(st.integers(0, 10_000))
def test_jacobian_equals_central_differences(seed: int) -> None:
    H, points = make_transform(seed, perspective=3e-4), draw_points(seed, 20)
    step = 1e-3  # px
    columns = [
        (apply_homography(H, points + offset) - apply_homography(H, points - offset)) / (2 * step)
        for offset in step * np.eye(2)
    ]
    np.testing.assert_allclose(compute_jacobian(H, points), np.stack(columns, -1), atol=1e-5)


def test_unit_to_pixels_maps_the_corners_of_a_picture_between_pixel_centers() -> None:
    corners = apply_homography(
        build_unit_to_pixels((300, 448, 3)), np.array([[0.0, 0.0], [1.0, 1.0]])
    )
    assert corners.tolist() == [[-0.5, -0.5], [447.5, 299.5]]


def test_principal_scales_of_a_stretched_copy_are_its_two_factors() -> None:
    # Both images show all of each other, so the homography in shares is the identity.
    scales = compute_principal_scales(np.eye(3), ((400, 300), (600, 900)))
    assert scales == pytest.approx((3.0, 1.5))
    assert compute_scale(np.diag([3.0, 1.5, 1.0])) == pytest.approx(4.5**0.5)
