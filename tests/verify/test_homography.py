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
    fit_homography,
    invert_homography,
)

CORNERS_PX = np.array([[0.0, 0.0], [448.0, 0.0], [448.0, 300.0], [0.0, 300.0]])
AFFINE_PARAMETERS = 3  # points that an affine transform needs
HOMOGRAPHY_POINTS = 14  # from which a homography with perspective is fitted


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


def measure_error_px(fitted: Homography | None, true: Homography) -> float:
    """Measure how far a fitted homography moves the corners of the image off, at most."""
    assert fitted is not None
    distances = np.linalg.norm(
        apply_homography(fitted, CORNERS_PX) - apply_homography(true, CORNERS_PX), axis=1
    )
    return float(distances.max())


@given(st.integers(0, 10_000), st.integers(AFFINE_PARAMETERS + 1, 60))
def test_fit_of_exact_affine_points_is_the_transform(seed: int, count: int) -> None:
    true, src = make_transform(seed), draw_points(seed, count)
    fitted = fit_homography(src, apply_homography(true, src), np.ones(count))
    assert measure_error_px(fitted, true) < 0.01


@pytest.mark.parametrize("seed", range(10))
def test_fit_of_exact_perspective_points_agrees_with_opencv(seed: int) -> None:
    true, src = make_transform(seed, perspective=3e-4), draw_points(seed, 100)
    dst = apply_homography(true, src)
    expected, _ = cv2.findHomography(src, dst, 0)
    assert measure_error_px(expected, true) < 1e-3  # the oracle itself
    # The damping of the perspective terms costs a fraction of a pixel.
    assert measure_error_px(fit_homography(src, dst, np.ones(100)), expected) < 0.5


@pytest.mark.parametrize("count", [13, 100])
@pytest.mark.parametrize("seed", range(5))
def test_fit_of_noisy_points_with_outliers_is_as_near_as_that_of_opencv(
    seed: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    true, src = make_transform(seed), draw_points(seed, count)
    dst = apply_homography(true, src) + rng.normal(0, 0.3, (count, 2))
    outliers = slice(0, count // 8)
    dst[outliers] += rng.uniform(20, 60, dst[outliers].shape)
    expected, _ = cv2.findHomography(src, dst, cv2.RANSAC, 2.0)
    error = measure_error_px(fit_homography(src, dst, np.ones(count)), true)
    assert error < max(1.0, measure_error_px(expected, true))


def test_points_of_weight_zero_do_not_move_the_fit() -> None:
    true, src = make_transform(1), draw_points(1, 40)
    dst, weights = apply_homography(true, src), np.ones(40)
    dst[:15] += 30
    weights[:15] = 0
    assert measure_error_px(fit_homography(src, dst, weights), true) < 0.01


def test_fit_of_points_that_collapse_is_none() -> None:
    src = draw_points(1, 20)
    assert fit_homography(src, np.full_like(src, 7.0), np.ones(20)) is None


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
