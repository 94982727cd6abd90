"""Refine the homography of two images on their pixels, tile by tile.

A homography is fitted to the Lucas-Kanade steps of all tiles by iteratively reweighted least
squares (IRLS), and the tiles are compared again until they stop moving.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.homography import Homography, solve_robust_lstsq
from pipeline.verify.template import Template, TileStats
from pipeline.verify.tile_grid import (
    TILE_SIDE_PX,
    GrayPixels,
    TileMap,
    compute_tile_centers,
    find_overlapping_tiles,
    split_into_tiles,
)

MIN_TEXTURE = 4.0  # standard deviation in gray levels below which a tile cannot be compared
# From pixels of an image at half its size to its own; pixel centers have integer coordinates.
DOUBLING = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
MIN_HALF_STEP_PX = 0.15  # in pixels of half the size; the rest is refined at full size
MAX_HOMOGRAPHY_ITERATIONS = 6
# Refinement ends when this share of the tiles would move less than the first.
MIN_STEP_PX = 0.05
MIN_RESTING_SHARE = 0.8
# A homography is fitted to tiles with more than this NCC, if there are so many of them; one step
# moves a tile by no more than the last, along x and along y.
MIN_HOMOGRAPHY_NCC = 0.4
MIN_HOMOGRAPHY_TILES = 4
MAX_HOMOGRAPHY_STEP_PX = 4.0
MIN_PERSPECTIVE_TILES = 14  # with fewer, the step is affine
AFFINE_UNKNOWNS = 6
# Damping of the unknowns of a step. Perspective gets more, so that it stays as it is without
# evidence.
STEP_DAMPING = np.array([1e-9] * AFFINE_UNKNOWNS + [2e-4] * 2)


def refine_homography(
    template: Template,
    target_pixels: GrayPixels,
    homography: Homography,
    tile_side: int = TILE_SIDE_PX,
    min_step: float = MIN_STEP_PX,
) -> tuple[Homography, TileStats]:
    """Refine a homography by IRLS on the Lucas-Kanade steps of the tiles.

    Ends when most tiles would move less than `min_step` pixels. Returns the homography with the
    largest sum of NCC over all iterations, and its tile stats.
    """
    rows, columns = template.texture.shape
    shape, best_ncc_sum = (rows * tile_side, columns * tile_side), -1.0
    for _ in range(MAX_HOMOGRAPHY_ITERATIONS):
        warped = warp(target_pixels, homography, shape)
        stats = template.compare(split_into_tiles(warped, tile_side))
        is_textured = find_overlapping_tiles(
            homography, (rows, columns), target_pixels.shape, tile_side
        ) & (template.texture > MIN_TEXTURE)
        ncc_sum = float(np.maximum(stats.ncc[is_textured], 0.0).sum())
        if ncc_sum > best_ncc_sum:
            best, best_ncc_sum = (homography, stats), ncc_sum
        is_reliable = is_textured & (stats.ncc > MIN_HOMOGRAPHY_NCC)
        steps = stats.steps[is_reliable].clip(-MAX_HOMOGRAPHY_STEP_PX, MAX_HOMOGRAPHY_STEP_PX)
        resting_count = np.count_nonzero(np.hypot(*steps.T) < min_step)
        if len(steps) < MIN_HOMOGRAPHY_TILES or resting_count >= MIN_RESTING_SHARE * len(steps):
            break
        step = _fit_step(steps, stats.ncc[is_reliable] ** 2, is_reliable, tile_side)
        homography = homography @ step
        homography /= homography[2, 2]
    return best


def refine_at_half_size(
    template_pixels: GrayPixels, target_pixels: GrayPixels, homography: Homography
) -> Homography:
    """Refine a homography on both images at half their size, where steps reach twice as far."""
    halved = [
        np.asarray(
            cv2.resize(
                pixels[: height * 2, : width * 2], (width, height), interpolation=cv2.INTER_AREA
            ),
            np.float32,
        )
        for pixels in (template_pixels, target_pixels)
        for height, width in [(pixels.shape[0] // 2, pixels.shape[1] // 2)]
    ]
    tile_side = TILE_SIDE_PX // 2
    template = Template.from_pixels(halved[0], tile_side)
    refined, _ = refine_homography(
        template,
        halved[1],
        np.linalg.inv(DOUBLING) @ homography @ DOUBLING,
        tile_side,
        MIN_HALF_STEP_PX,
    )
    return np.asarray(DOUBLING @ refined @ np.linalg.inv(DOUBLING))


def _fit_step(
    steps: NDArray[np.float32], weights: TileMap, mask: NDArray[np.bool_], tile_side: int
) -> Homography:
    """Fit a homography near the identity to steps (n, 2) of the tiles in a mask (rows, columns)."""
    to_pixels, terms = compute_step_terms(*mask.shape, tile_side)
    unknowns = AFFINE_UNKNOWNS if len(steps) < MIN_PERSPECTIVE_TILES else len(STEP_DAMPING)
    solution = solve_robust_lstsq(
        terms[mask].reshape(-1, len(STEP_DAMPING))[:, :unknowns],
        steps.reshape(-1, 1) / to_pixels[0, 0],
        np.repeat(weights, 2),
        to_pixels[0, 0],
        STEP_DAMPING[:unknowns],
    )
    step = np.eye(3)
    step.ravel()[:unknowns] += solution[:, 0]
    return np.asarray(to_pixels @ step @ np.linalg.inv(to_pixels))


@lru_cache(maxsize=64)
def compute_step_terms(
    rows: int, columns: int, tile_side: int
) -> tuple[Homography, NDArray[np.float64]]:
    """Compute how a homography near the identity moves the centers of tiles.

    Returns the transform to pixels from coordinates of about -1 to 1, and the terms of those
    (rows, columns, 2, 8): their product with the first eight numbers of a matrix, less the
    identity, is to first order the step of each center.
    """
    center = (tile_side * np.array([columns, rows]) - 1) / 2
    half = tile_side * max(rows, columns) / 2
    x, y = np.moveaxis((compute_tile_centers(rows, columns, tile_side) - center) / half, -1, 0)
    one, zero = np.ones_like(x), np.zeros_like(x)
    along_x = np.stack([x, y, one, zero, zero, zero, -x * x, -x * y], axis=-1)
    along_y = np.stack([zero, zero, zero, x, y, one, -x * y, -y * y], axis=-1)
    to_pixels = np.array([[half, 0.0, center[0]], [0.0, half, center[1]], [0.0, 0.0, 1.0]])
    return to_pixels, np.stack([along_x, along_y], axis=2)


def warp(target_pixels: GrayPixels, homography: Homography, shape: tuple[int, ...]) -> GrayPixels:
    """Sample the target at each pixel of a template (height, width) through a homography."""
    return np.asarray(
        cv2.warpPerspective(
            target_pixels,
            homography,
            (shape[1], shape[0]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        ),
        np.float32,
    )
