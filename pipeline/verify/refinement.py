"""Refine the alignment of two images on their pixels, tile by tile.

Lucas-Kanade for each tile. Image gradients give the step by which a tile would agree best (Lucas
and Kanade 1981), once the target has the mean and the contrast of the template there.

IRLS refinement. A homography is fitted to the steps of all tiles by iteratively reweighted least
squares, and the tiles are compared again until they stop moving. Where tiles still move, a
quadratic warp is added: lenses, and warps that are not projective.

Displacement. Finally each tile may move by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.homography import (
    Homography,
    apply_homography,
    compute_jacobian,
    fit_homography,
    solve_robust_lstsq,
)
from pipeline.verify.tile_grid import (
    TILE_SIDE_PX,
    GrayPixels,
    TileMap,
    compute_pixel_points,
    compute_tile_centers,
    find_overlapping_tiles,
    split_into_tiles,
)

MIN_TEXTURE = 4.0  # standard deviation in gray levels below which a tile cannot be compared
MIN_VARIANCE = 1.0  # lower bound of a variance in a ratio; below it rounding would decide
MAX_HOMOGRAPHY_ITERATIONS = 6
MAX_QUADRATIC_ITERATIONS = 8
MAX_DISPLACEMENT_ITERATIONS = 4
CONFIDENT_NCC = 0.97  # if all tiles reach it in place, none is moved
MAX_DISPLACEMENT_PX = 8.0  # of a tile along x and along y
# Refinement ends when this percentile of the tiles would move less than the first.
MIN_STEP_PX = 0.05
STEP_PERCENTILE = 80
# Damping of a Lucas-Kanade step: a share of the squared gradients, and a constant beside it.
RELATIVE_DAMPING = 0.02
ABSOLUTE_DAMPING = 1.0
# Contrast of the template over that of the target, as far as a step takes it into account.
MIN_GAIN = 0.2
MAX_GAIN = 5.0
# A homography is fitted to tiles with more than this NCC, if there are so many of them; one step
# moves a tile by no more than the last, along x and along y.
MIN_HOMOGRAPHY_NCC = 0.4
MIN_HOMOGRAPHY_TILES = 4
MAX_HOMOGRAPHY_STEP_PX = 4.0
# The same for a quadratic warp.
MIN_QUADRATIC_NCC = 0.5
MIN_QUADRATIC_TILES = 24
MAX_QUADRATIC_STEP_PX = 3.0
# A quadratic warp is tried if this share of the tiles would move by more than the second.
MIN_MOVING_SHARE = 0.1
MIN_MOVING_STEP_PX = 0.3


@dataclass(frozen=True, slots=True)
class TileStats:
    """The target under each tile: NCC with the template, mean, texture, and Lucas-Kanade step.

    `texture` is the standard deviation in gray levels; `steps` (rows, columns, 2) are in template
    pixels.
    """

    ncc: TileMap
    mean: TileMap
    texture: TileMap
    steps: NDArray[np.float32]


class Template:
    """The template image with the statistics that comparisons share.

    Pixels are stored by tiles, (rows, columns, TILE_SIDE_PX ** 2).
    """

    def __init__(self, pixels: GrayPixels) -> None:
        """Precompute means, textures and inverse Hessians of all tiles."""
        self.shape = pixels.shape
        # Pixels and gradients, (rows, columns, 3, TILE_SIDE_PX ** 2): one product with the target
        # gives all sums that a comparison needs.
        self._pixels_and_gradients = np.stack(
            [split_into_tiles(channel) for channel in (pixels, *compute_gradients(pixels))], axis=2
        )
        self.tiles: GrayPixels = self._pixels_and_gradients[:, :, 0]
        means, products = (
            self._pixels_and_gradients.mean(axis=3),
            np.matmul(self._pixels_and_gradients, np.swapaxes(self._pixels_and_gradients, 2, 3))
            / TILE_SIDE_PX**2,
        )
        self.mean, self._mean_gradient = means[..., 0], means[..., 1:]
        self._variance = np.maximum(products[..., 0, 0] - self.mean**2, 0.0)
        # The variance of an even slope is no texture.
        slope_variance = (self._mean_gradient**2).sum(axis=-1) * (TILE_SIDE_PX**2 - 1) / 12
        self.texture: TileMap = np.sqrt(np.maximum(self._variance - slope_variance, 0.0))
        self._mean_pixel_gradient = products[..., 0, 1:]
        xx, xy, yy = products[..., 1, 1], products[..., 1, 2], products[..., 2, 2]
        damping = RELATIVE_DAMPING * (xx + yy) + ABSOLUTE_DAMPING
        xx, yy = xx + damping, yy + damping
        self._inverse_hessian = (
            np.stack([np.stack([yy, -xy], -1), np.stack([-xy, xx], -1)], -2)
            / (xx * yy - xy * xy)[..., None, None]
        )

    def compare(self, target_tiles: GrayPixels) -> TileStats:
        """Compute NCC and Lucas-Kanade steps of all tiles against target pixels by tiles."""
        mean = target_tiles.mean(axis=2)
        variance = np.maximum(
            np.einsum("rcp,rcp->rc", target_tiles, target_tiles) / TILE_SIDE_PX**2 - mean**2, 0.0
        )
        products = (
            np.matmul(self._pixels_and_gradients, target_tiles[..., None])[..., 0] / TILE_SIDE_PX**2
        )
        covariance = products[..., 0] - self.mean * mean
        ncc = np.clip(
            covariance
            / np.sqrt(
                np.maximum(self._variance, MIN_VARIANCE) * np.maximum(variance, MIN_VARIANCE)
            ),
            -1.0,
            1.0,
        )
        gain = np.clip(covariance / np.maximum(variance, MIN_VARIANCE), MIN_GAIN, MAX_GAIN)
        gain = gain[..., None]
        error_gradient = (
            self._mean_pixel_gradient
            - self.mean[..., None] * self._mean_gradient
            - gain * (products[..., 1:] - mean[..., None] * self._mean_gradient)
        )
        steps = np.einsum("rcij,rcj->rci", self._inverse_hessian, error_gradient)
        return TileStats(ncc, mean, np.sqrt(variance), steps)


class Target:
    """The target image, sampled through a homography and an offset for each pixel.

    `points` (2, rows, columns, TILE_SIDE_PX ** 2): x and y on the target of each template pixel.
    """

    def __init__(
        self, pixels: GrayPixels, homography: Homography, grid_shape: tuple[int, ...]
    ) -> None:
        """Map the pixels of a grid of tiles (rows, columns) to the target."""
        x, y = compute_pixel_points(*grid_shape)
        mapped_x, mapped_y, w = (
            row[0] * x + row[1] * y + row[2] for row in homography.astype(np.float32)
        )
        self._pixels, self.points = pixels, np.stack([mapped_x / w, mapped_y / w])
        self._jacobians = compute_jacobian(homography, compute_tile_centers(*grid_shape)).astype(
            np.float32
        )

    def map_steps(self, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert steps of tiles (rows, columns, 2) from template to target pixels."""
        return np.asarray(np.einsum("rcij,rcj->rci", self._jacobians, steps))

    def sample(self, offsets: NDArray[np.float32]) -> GrayPixels:
        """Sample the target by tiles, at offsets in target pixels.

        `offsets` is (2, rows, columns, TILE_SIDE_PX ** 2), or 1 last for one offset a tile.
        """
        points = self.points + offsets
        x, y = points.reshape(2, -1, TILE_SIDE_PX**2)
        sampled = np.asarray(cv2.remap(self._pixels, x, y, cv2.INTER_LINEAR), np.float32)
        return sampled.reshape(points.shape[1:])


def refine_homography(
    template: Template, target_pixels: GrayPixels, homography: Homography
) -> tuple[Homography, TileStats]:
    """Refine a homography by IRLS on the Lucas-Kanade steps of the tiles.

    Returns the homography with the largest sum of NCC over all iterations, and its tile stats.
    """
    centers, best_ncc_sum = compute_tile_centers(*template.texture.shape), -1.0
    for _ in range(MAX_HOMOGRAPHY_ITERATIONS):
        target_tiles = split_into_tiles(warp(target_pixels, homography, template.shape))
        stats = template.compare(target_tiles)
        is_textured = find_overlapping_tiles(homography, template.shape, target_pixels.shape) & (
            template.texture > MIN_TEXTURE
        )
        ncc_sum = float(np.maximum(stats.ncc[is_textured], 0.0).sum())
        if ncc_sum > best_ncc_sum:
            best, best_ncc_sum = (homography, stats), ncc_sum
        is_reliable = is_textured & (stats.ncc > MIN_HOMOGRAPHY_NCC)
        if np.count_nonzero(is_reliable) < MIN_HOMOGRAPHY_TILES:
            break
        points, steps = centers[is_reliable], stats.steps[is_reliable]
        steps = np.clip(steps, -MAX_HOMOGRAPHY_STEP_PX, MAX_HOMOGRAPHY_STEP_PX)
        if np.percentile(np.hypot(*steps.T), STEP_PERCENTILE) < MIN_STEP_PX:
            break
        refined = fit_homography(
            points,
            apply_homography(homography, points + steps),
            stats.ncc[is_reliable].astype(np.float64) ** 2,
        )
        if refined is None:
            break
        homography = refined
    return best


def refine_quadratic(
    template: Template, target: Target, stats: TileStats, valid: NDArray[np.bool_]
) -> TileStats:
    """Add the best quadratic warp, if tiles still move and it raises the mean NCC.

    For lens distortion, and warps that are not projective. The target keeps the warp.
    """
    is_aligned = valid & (stats.ncc > MIN_QUADRATIC_NCC)
    if (
        np.count_nonzero(is_aligned) < MIN_QUADRATIC_TILES
        or (np.hypot(*stats.steps[is_aligned].T) > MIN_MOVING_STEP_PX).mean() < MIN_MOVING_SHARE
    ):
        return stats
    tile_terms, pixel_terms = _compute_quadratic_terms(*valid.shape)
    coefficients, warped_stats, offsets = np.zeros((6, 2)), stats, np.zeros_like(target.points)
    for _ in range(MAX_QUADRATIC_ITERATIONS):
        is_reliable = valid & (warped_stats.ncc > MIN_QUADRATIC_NCC)
        if np.count_nonzero(is_reliable) < MIN_QUADRATIC_TILES:
            return stats
        terms, previous = tile_terms[is_reliable], coefficients
        steps = np.clip(warped_stats.steps, -MAX_QUADRATIC_STEP_PX, MAX_QUADRATIC_STEP_PX)
        wanted = terms @ coefficients + target.map_steps(steps)[is_reliable]
        coefficients = solve_robust_lstsq(terms, wanted, warped_stats.ncc[is_reliable] ** 2)
        offsets = np.tensordot(coefficients.T.astype(np.float32), pixel_terms, 1)
        warped_stats = template.compare(target.sample(offsets))
        if np.abs(terms @ (coefficients - previous)).max() < MIN_STEP_PX:
            break
    if warped_stats.ncc[valid].mean() <= stats.ncc[valid].mean():
        return stats
    target.points = target.points + offsets
    return warped_stats


@lru_cache(maxsize=16)
def _compute_quadratic_terms(
    rows: int, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Compute the six terms of a quadratic polynomial in x and y, scaled to about -1 to 1.

    At the center of each tile (rows, columns, 6), and at each pixel (6, rows, columns,
    TILE_SIDE_PX ** 2).
    """
    half = TILE_SIDE_PX * max(rows, columns) / 2

    def evaluate_terms(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
        x, y = (x - TILE_SIDE_PX * columns / 2) / half, (y - TILE_SIDE_PX * rows / 2) / half
        return np.stack([np.ones_like(x), x, y, x * y, x * x, y * y])

    tile_terms = evaluate_terms(*np.moveaxis(compute_tile_centers(rows, columns), -1, 0))
    pixel_terms = evaluate_terms(*compute_pixel_points(rows, columns))
    return np.moveaxis(tile_terms, 0, -1).astype(np.float64), pixel_terms.astype(np.float32)


def search_displacement(
    template: Template, target: Target, stats: TileStats, valid: NDArray[np.bool_]
) -> tuple[TileMap, NDArray[np.float32]]:
    """Search the offset of each tile with the best NCC by Lucas-Kanade.

    Returns the best NCC and the offset in template pixels (rows, columns, 2). If all tiles reach
    CONFIDENT_NCC in place, none is moved.
    """
    best_ncc, best_offsets = stats.ncc.copy(), np.zeros_like(stats.steps)
    offsets, moved_stats = np.zeros_like(stats.steps), stats
    is_search_needed = (stats.ncc[valid] < CONFIDENT_NCC).any()
    for _ in range(MAX_DISPLACEMENT_ITERATIONS if is_search_needed else 0):
        offsets = np.clip(offsets + moved_stats.steps, -MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX)
        target_offsets = np.moveaxis(target.map_steps(offsets), -1, 0)[..., None]
        moved_stats = template.compare(target.sample(target_offsets))
        is_better = moved_stats.ncc > best_ncc
        best_ncc[is_better] = moved_stats.ncc[is_better]
        best_offsets[is_better] = offsets[is_better]
    return best_ncc, best_offsets


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


def compute_gradients(gray: GrayPixels) -> tuple[GrayPixels, GrayPixels]:
    """Compute the derivatives along x and y by Sobel filters, in gray levels a pixel."""
    dx, dy = (
        cv2.Sobel(gray, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(gray, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    return np.asarray(dx, np.float32), np.asarray(dy, np.float32)
