"""The grid of square tiles on which two aligned images are compared."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.homography import (
    UNIT_CORNERS,
    Homography,
    apply_homography,
    invert_homography,
)

GrayPixels = NDArray[np.float32]  # gray levels minus 128
TileMap = NDArray[np.float32]  # a number for each tile, (rows, columns)

TILE_SIDE_PX = 24
# The blur mixes in pixels from beyond an outline this far: a border in one image, none in the
# other.
BORDER_MARGIN_PX = 2.0
ROUNDING_MARGIN_PX = 1e-6  # rounding errors must not cost a row of tiles


def place_tile_grid(
    homography: Homography, template_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Center a grid of tiles on the part of the template that the target covers.

    Returns the upper left corner (x, y) in pixels, and the numbers of columns and rows.
    """
    size, target_corners = np.array(template_shape[1::-1]), UNIT_CORNERS * target_shape[1::-1] - 0.5
    inverse = invert_homography(homography)
    low, high = np.full(2, -0.5), size - 0.5
    if (target_corners @ inverse[2, :2] + inverse[2, 2] > 0).all():
        corners = apply_homography(inverse, target_corners)
        first, last = corners.min(axis=0), corners.max(axis=0)
        # A margin where the outlines differ: there one image continues where the other ends.
        low = np.where(
            np.abs(first - low) > BORDER_MARGIN_PX, np.maximum(low, first) + BORDER_MARGIN_PX, low
        )
        high = np.where(
            np.abs(last - high) > BORDER_MARGIN_PX, np.minimum(high, last) - BORDER_MARGIN_PX, high
        )
    count = np.maximum(0, (high - low + ROUNDING_MARGIN_PX) // TILE_SIDE_PX).astype(int)
    start = np.ceil(low + (high - low - count * TILE_SIDE_PX) / 2 - ROUNDING_MARGIN_PX).astype(int)
    start = np.clip(start, 0, np.maximum(0, size - count * TILE_SIDE_PX))
    return (int(start[0]), int(start[1])), (int(count[0]), int(count[1]))


def find_overlapping_tiles(
    homography: Homography,
    grid_shape: tuple[int, int],
    target_shape: tuple[int, ...],
    tile_side: int = TILE_SIDE_PX,
) -> NDArray[np.bool_]:
    """Find the tiles whose four corners all lie on the target, (rows, columns)."""
    x, y, w = np.tensordot(homography, _compute_tile_corners(*grid_shape, tile_side), 1)
    inside = (
        (x >= -w) & (y >= -w) & (x <= target_shape[1] * w) & (y <= target_shape[0] * w) & (w > 0)
    )
    return np.asarray(inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:])


def find_border_safe_tiles(
    homography: Homography,
    origin: tuple[int, int],
    grid_shape: tuple[int, ...],
    template_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
) -> NDArray[np.bool_]:
    """Find the tiles around which both images continue, or both end, (rows, columns).

    Where only one ends, the blur mixes pixels from beyond its outline into the tile.
    """
    y, x = np.mgrid[0 : grid_shape[0], 0 : grid_shape[1]] * float(TILE_SIDE_PX) - 0.5
    surrounding = (
        np.stack([x, y], axis=-1)[:, :, None]
        + UNIT_CORNERS * (TILE_SIDE_PX + 2 * BORDER_MARGIN_PX)
        - BORDER_MARGIN_PX
    ).reshape(-1, 2)
    is_safe = _is_inside(surrounding + origin, template_shape) == _is_inside(
        apply_homography(homography, surrounding), target_shape
    )
    return np.asarray(is_safe.reshape(*grid_shape, len(UNIT_CORNERS)).all(axis=-1))


def _is_inside(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which points (n, 2) lie on an image (height, width)."""
    return np.asarray(((points >= -0.5) & (points <= np.array(shape[::-1]) - 0.5)).all(axis=1))


@lru_cache(maxsize=64)
def compute_tile_centers(
    rows: int, columns: int, tile_side: int = TILE_SIDE_PX
) -> NDArray[np.float64]:
    """Compute x and y of the center of each tile, (rows, columns, 2)."""
    y, x = np.mgrid[0:rows, 0:columns] * float(tile_side) + (tile_side - 1) / 2
    return np.stack([x, y], axis=-1)


@lru_cache(maxsize=64)
def _compute_tile_corners(rows: int, columns: int, tile_side: int) -> NDArray[np.float64]:
    """Compute the corners (x, y, 1) of all tiles, (3, rows + 1, columns + 1)."""
    y, x = np.mgrid[0 : rows + 1, 0 : columns + 1] * float(tile_side) - 0.5
    return np.stack([x, y, np.ones_like(x)])


def split_into_tiles(gray: GrayPixels, tile_side: int = TILE_SIDE_PX) -> GrayPixels:
    """Arrange pixels by tiles, (rows, columns, tile_side ** 2)."""
    rows, columns = gray.shape[0] // tile_side, gray.shape[1] // tile_side
    return (
        gray.reshape(rows, tile_side, columns, tile_side)
        .swapaxes(1, 2)
        .reshape(rows, columns, tile_side**2)
    )


def average_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average along the last axis, by a matrix product, which is faster than mean()."""
    count = values.shape[-1]
    return np.asarray(values @ np.full(count, 1 / count, np.float32))


def average_tiles(gray: GrayPixels) -> TileMap:
    """Average each tile, (rows, columns)."""
    return np.asarray(
        cv2.resize(
            gray,
            (gray.shape[1] // TILE_SIDE_PX, gray.shape[0] // TILE_SIDE_PX),
            interpolation=cv2.INTER_AREA,
        ),
        np.float32,
    )
