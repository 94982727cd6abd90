"""Find how tiles move beyond a homography: a quadratic warp of all, and the offset of each.

Lenses, and warps that are not projective, move all tiles by a smooth function of their place. What
is left moves by itself: depth and motion.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.base_tiles import BaseTiles, TileStats
from pipeline.verify.homography import Homography, compute_jacobian, solve_robust_lstsq
from pipeline.verify.tile_grid import (
    SAMPLE_PITCH_PX,
    TILE_SIDE_PX,
    GrayPixels,
    TileMap,
    get_unit_grid,
    split_into_tiles,
    warp_to_tiles,
)

MAX_QUADRATIC_ITERATIONS = 8
MIN_MEAN_NCC_GAIN = 0.001  # of the valid tiles by an iteration; with less it is the last
# A quadratic warp is fitted to tiles with more than this NCC, if there are so many of them; one
# step moves a tile by no more than the last, along x and along y.
MIN_QUADRATIC_NCC = 0.5
MIN_QUADRATIC_TILES = 24
MAX_QUADRATIC_STEP_SAMPLES = 1.5
# It is tried if this share of the tiles would move by more than the second.
MIN_MOVING_SHARE = 0.1
MIN_MOVING_STEP_SAMPLES = 0.15
MAX_DISPLACEMENT_ITERATIONS = 4
CONFIDENT_NCC = 0.97  # a tile that reaches it in place is not moved
MAX_DISPLACEMENT_SAMPLES = 4.0  # of a tile along x and y


class Target:
    """The target image, sampled through a homography and a quadratic warp."""

    def __init__(
        self, pixels: GrayPixels, homography: Homography, grid_shape: tuple[int, ...]
    ) -> None:
        """Place a grid of tiles (rows, columns); where its samples lie is computed on demand.

        `homography` maps samples to target pixels.
        """
        self.pixels, self._homography, self._grid_shape = pixels, homography, grid_shape
        self._coefficients = np.zeros((6, 2))

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """The point x, y on the target of each sample, (2, height, width)."""
        return self._locate(1.0)

    def _locate(self, pitch: float) -> NDArray[np.float32]:
        """Compute the points on the target of points `pitch` samples apart."""
        grid = get_unit_grid(*self._grid_shape)
        x, y, w = (
            grid.evaluate_quadratic(np.array([row[2], row[0], row[1], 0.0, 0.0, 0.0]), pitch)
            for row in self._homography @ grid.to_samples
        )
        points = np.empty((2, *x.shape), np.float32)
        np.divide(x, w, out=points[0])
        np.divide(y, w, out=points[1])
        if self._coefficients.any():
            points += self._evaluate_warp(self._coefficients, pitch)
        return points

    def _evaluate_warp(
        self, coefficients: NDArray[np.float64], pitch: float
    ) -> NDArray[np.float32]:
        grid = get_unit_grid(*self._grid_shape)
        return np.stack([grid.evaluate_quadratic(terms, pitch) for terms in coefficients.T])

    @cached_property
    def jacobians(self) -> NDArray[np.float32]:
        """The Jacobian at the center of each tile, (rows, columns, 2, 2)."""
        centers = get_unit_grid(*self._grid_shape).centers
        return compute_jacobian(self._homography, centers).astype(np.float32)

    def add_quadratic_warp(self, coefficients: NDArray[np.float64]) -> Target:
        """Return this target with one more quadratic warp, (6, 2) in unit coordinates."""
        warped = Target(self.pixels, self._homography, self._grid_shape)
        warped._coefficients = self._coefficients + coefficients
        warped.points = self.points + self._evaluate_warp(coefficients, 1.0)
        return warped

    def sample(self) -> GrayPixels:
        """Sample the target under all tiles, (rows, columns, p)."""
        return split_into_tiles(self.sample_grid())

    def sample_grid(self) -> GrayPixels:
        """Sample the target under all tiles, (height, width)."""
        if self._coefficients.any():
            return _sample(self.pixels, self.points)
        return warp_to_tiles(self.pixels, self._homography, self._grid_shape)

    def sample_pixels(self) -> GrayPixels:
        """Sample the target under all pixels, by tiles, (rows, columns, TILE_SIDE_PX ** 2)."""
        points = self._locate(1 / SAMPLE_PITCH_PX)
        return split_into_tiles(_sample(self.pixels, points), TILE_SIDE_PX)


def refine_quadratic(
    base: BaseTiles, target: Target, stats: TileStats, valid: NDArray[np.bool_]
) -> tuple[Target, TileStats]:
    """Add the best quadratic warp, if tiles still move and it raises the mean NCC.

    For lens distortion, and warps that are not projective.
    """
    is_aligned = valid & (stats.ncc > MIN_QUADRATIC_NCC)
    aligned_count = np.count_nonzero(is_aligned)
    is_moving = np.hypot(*stats.steps[is_aligned].T) > MIN_MOVING_STEP_SAMPLES
    if (
        aligned_count < MIN_QUADRATIC_TILES
        or np.count_nonzero(is_moving) < MIN_MOVING_SHARE * aligned_count
    ):
        return target, stats
    tile_terms = get_unit_grid(*valid.shape).quadratic_terms
    coefficients, warped_stats = np.zeros((6, 2)), stats
    best, best_mean_ncc = (target, stats), float(stats.ncc[valid].mean())
    for _ in range(MAX_QUADRATIC_ITERATIONS):
        is_reliable = valid & (warped_stats.ncc > MIN_QUADRATIC_NCC)
        if np.count_nonzero(is_reliable) < MIN_QUADRATIC_TILES:
            break
        terms = tile_terms[is_reliable]
        steps = warped_stats.steps[is_reliable]
        steps = steps.clip(-MAX_QUADRATIC_STEP_SAMPLES, MAX_QUADRATIC_STEP_SAMPLES)
        wanted = terms @ coefficients + _map_steps(target.jacobians[is_reliable], steps)
        coefficients = solve_robust_lstsq(terms, wanted, warped_stats.ncc[is_reliable] ** 2)
        warped = target.add_quadratic_warp(coefficients)
        warped_stats = base.compare(warped.sample())
        gain = float(warped_stats.ncc[valid].mean()) - best_mean_ncc
        if gain > 0:
            best, best_mean_ncc = (warped, warped_stats), best_mean_ncc + gain
        if gain < MIN_MEAN_NCC_GAIN:
            break
    return best


def search_displacement(
    base: BaseTiles, target: Target, stats: TileStats, valid: NDArray[np.bool_]
) -> tuple[TileMap, NDArray[np.float32]]:
    """Search the offset with the best NCC by Lucas-Kanade, of tiles below CONFIDENT_NCC in place.

    Returns the best NCC and the offset in base pixels (rows, columns, 2).
    """
    best_ncc, best_offsets = stats.ncc.copy(), np.zeros_like(stats.steps)
    is_moved = valid & (stats.ncc < CONFIDENT_NCC)
    if not is_moved.any():
        return best_ncc, best_offsets
    moved, jacobians = base.select(is_moved), target.jacobians[is_moved]
    points = np.stack([split_into_tiles(axis)[is_moved] for axis in target.points])
    ncc, steps = best_ncc[is_moved], stats.steps[is_moved]
    offsets = kept_offsets = np.zeros_like(steps)
    for _ in range(MAX_DISPLACEMENT_ITERATIONS):
        offsets = (offsets + steps).clip(-MAX_DISPLACEMENT_SAMPLES, MAX_DISPLACEMENT_SAMPLES)
        target_offsets = _map_steps(jacobians, offsets).T[..., None]
        moved_stats = moved.compare(_sample(target.pixels, points + target_offsets))
        steps, is_better = moved_stats.steps, moved_stats.ncc > ncc
        ncc = np.where(is_better, moved_stats.ncc, ncc)
        kept_offsets = np.where(is_better[:, None], offsets, kept_offsets)
    best_ncc[is_moved], best_offsets[is_moved] = ncc, kept_offsets * SAMPLE_PITCH_PX
    return best_ncc, best_offsets


def _map_steps(jacobians: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convert steps (n, 2) from samples to target pixels by Jacobians (n, 2, 2)."""
    return np.asarray(np.einsum("nij,nj->ni", jacobians, steps))


def _sample(pixels: GrayPixels, points: NDArray[np.float32]) -> GrayPixels:
    """Sample an image bilinearly at points (2, m, n): (m, n)."""
    return np.asarray(cv2.remap(pixels, points[0], points[1], cv2.INTER_LINEAR), np.float32)
