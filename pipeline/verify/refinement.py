"""Refine the homography of two images on their pixels, tile by tile.

A homography is fitted to the Lucas-Kanade steps of all tiles by iteratively reweighted least
squares (IRLS), and the tiles are compared again until they stop moving.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.verify.base_tiles import BaseTiles, TileStats
from pipeline.verify.homography import Homography, invert_matrix, solve_robust_lstsq
from pipeline.verify.tile_grid import (
    SAMPLE_PITCH_PX,
    SAMPLING,
    GrayPixels,
    TileMap,
    find_overlapping_tiles,
    get_unit_grid,
    halve,
    split_into_tiles,
    warp_to_tiles,
)

MIN_TEXTURE = 4.0  # standard deviation in gray levels below which a tile cannot be compared
MAX_HOMOGRAPHY_ITERATIONS = 6
# Refinement ends when this share of the tiles would move less than the first.
MIN_STEP_SAMPLES = 0.05
MIN_RESTING_SHARE = 0.8
# A homography is fitted to tiles with more than this NCC, if there are so many of them; one step
# moves a tile by no more than the last, along x and along y.
MIN_HOMOGRAPHY_NCC = 0.4
MIN_HOMOGRAPHY_TILES = 4
MAX_HOMOGRAPHY_STEP_SAMPLES = 4.0
# An alignment is near if this share of the tiles would move less than the second.
MIN_NEAR_SHARE = 0.5
MAX_NEAR_STEP_SAMPLES = 0.7
MIN_PERSPECTIVE_TILES = 14  # with fewer, the step is affine
AFFINE_UNKNOWNS = 6
# Damping of the unknowns of a step. Perspective gets more, so that it stays as it is without
# evidence.
STEP_DAMPING = np.array([1e-9] * AFFINE_UNKNOWNS + [2e-4] * 2)
UNSAMPLING = invert_matrix(SAMPLING)  # from pixels of the base to samples
# From pixels of an image at half its size to its own; pixel centers have integer coordinates.
DOUBLING = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])


def refine_homography(
    base: BaseTiles,
    target_pixels: GrayPixels,
    homography: Homography,
    stats: TileStats | None = None,
) -> tuple[Homography, TileStats]:
    """Refine a homography by IRLS on the Lucas-Kanade steps of the tiles.

    It maps samples of the base to target pixels; `stats` are those of its tiles, if they are
    known. Returns the homography with the largest sum of NCC over all iterations, and its stats.
    """
    best_ncc_sum, is_textured = -1.0, base.texture > MIN_TEXTURE
    for _ in range(MAX_HOMOGRAPHY_ITERATIONS):
        if stats is None:
            stats = base.compare(
                split_into_tiles(warp_to_tiles(target_pixels, homography, is_textured.shape))
            )
        is_compared = is_textured & find_overlapping_tiles(
            homography @ UNSAMPLING, is_textured.shape, target_pixels.shape
        )
        ncc_sum = float(np.maximum(stats.ncc[is_compared], 0.0).sum())
        if ncc_sum > best_ncc_sum:
            best, best_ncc_sum = (homography, stats), ncc_sum
        is_reliable = is_compared & (stats.ncc > MIN_HOMOGRAPHY_NCC)
        steps = stats.steps[is_reliable]
        resting_count = np.count_nonzero(np.hypot(*steps.T) < MIN_STEP_SAMPLES)
        if len(steps) < MIN_HOMOGRAPHY_TILES or resting_count >= MIN_RESTING_SHARE * len(steps):
            break
        homography = homography @ _fit_step(steps, stats.ncc[is_reliable] ** 2, is_reliable)
        homography /= homography[2, 2]
        stats = None
    return best


def measure_reliable_share(stats: TileStats, mask: NDArray[np.bool_]) -> float:
    """Measure the share of the tiles in a mask that a homography could be fitted to."""
    reliable_count = int(np.count_nonzero(mask & (stats.ncc > MIN_HOMOGRAPHY_NCC)))
    return reliable_count / max(1, int(np.count_nonzero(mask)))


def is_near(stats: TileStats, mask: NDArray[np.bool_]) -> bool:
    """Return True if half of the tiles in a mask agree, or would after a small step."""
    steps = stats.steps[mask & (stats.ncc > MIN_HOMOGRAPHY_NCC)]
    near_count = np.count_nonzero(np.hypot(*steps.T) < MAX_NEAR_STEP_SAMPLES)
    return bool(near_count >= MIN_NEAR_SHARE * np.count_nonzero(mask))


def refine_at_half_size(
    base_pixels: GrayPixels, target_pixels: GrayPixels, homography: Homography
) -> Homography:
    """Refine a homography on both images at half their size, where steps reach farther."""
    base, target = halve(base_pixels), halve(target_pixels)
    half_homography = invert_matrix(DOUBLING) @ homography @ DOUBLING
    refined, _ = refine_homography(BaseTiles.from_pixels(base, 1), target, half_homography)
    return np.asarray(DOUBLING @ refined @ invert_matrix(DOUBLING))


def _fit_step(steps: NDArray[np.float32], weights: TileMap, mask: NDArray[np.bool_]) -> Homography:
    """Fit a homography near the identity to steps (n, 2) of the tiles in a mask (rows, columns)."""
    grid = get_unit_grid(*mask.shape)
    unknowns = AFFINE_UNKNOWNS if len(steps) < MIN_PERSPECTIVE_TILES else len(STEP_DAMPING)
    steps = steps.clip(-MAX_HOMOGRAPHY_STEP_SAMPLES, MAX_HOMOGRAPHY_STEP_SAMPLES)
    solution = solve_robust_lstsq(
        grid.step_terms[mask].reshape(-1, len(STEP_DAMPING))[:, :unknowns],
        steps.reshape(-1, 1) / grid.half_side,
        np.repeat(weights, 2),
        grid.half_side * SAMPLE_PITCH_PX,
        STEP_DAMPING[:unknowns],
    )
    step = np.eye(3)
    step.ravel()[:unknowns] += solution[:, 0]
    return np.asarray(grid.to_samples @ step @ invert_matrix(grid.to_samples))
