"""Correlate the noise of two aligned images.

Copies of one exposure share its noise, two shots do not. Between several shots of a scene this
tells to which of them a copy belongs; for a lone pair it says little, because heavy compression
destroys noise, and fine texture that does not move looks like it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.cells import CELL_SIDE_PX, AlignedPair, CellMap, CellMask
from pipeline.verify.judgement import UNKNOWN_NOISE
from pipeline.verify.order_statistics import compute_median
from pipeline.verify.tile_grid import GrayPixels, average_rows, split_into_tiles

BLOCK_SIDE_PX = 16
HIGH_PASS_SIGMA_PX = 1.0
HIGH_PASS_SIDE_PX = 5  # of the kernel; a wider one takes twice the time and differs by 1 %
# Levels near black and white are clipped, and so is their noise.
MIN_LEVEL = 15.0
MAX_LEVEL = 240.0
MIN_RESIDUAL_VARIANCE = 0.05  # in squared gray levels, below which rounding decides
SMOOTH_SHARE = 1 / 3  # of the blocks, those with the weakest residual: noise without texture
MIN_BLOCKS = 4


def correlate_noise(pair: AlignedPair, mask: CellMask) -> tuple[float, float]:
    """Correlate what a high-pass filter leaves of two images, in blocks within a mask.

    Returns the pooled correlation of the smoothest blocks, and the median of all blocks; both are
    UNKNOWN_NOISE where fewer than MIN_BLOCKS can be compared.
    """
    shape = (pair.gray[0].shape[0] // BLOCK_SIDE_PX, pair.gray[0].shape[1] // BLOCK_SIDE_PX)
    is_usable = _find_covered_blocks(mask, shape)
    for cells in pair.cells:
        means = _average_blocks(cells, shape)
        is_usable &= (means > MIN_LEVEL) & (means < MAX_LEVEL)
    first_blocks, second_blocks = (
        _split_into_blocks(_high_pass(gray), shape)[is_usable] for gray in pair.gray
    )
    first_means, second_means = average_rows(first_blocks), average_rows(second_blocks)
    first, second, product = (
        np.vecdot(blocks, others) - BLOCK_SIDE_PX**2 * means * other_means
        for blocks, others, means, other_means in (
            (first_blocks, first_blocks, first_means, first_means),
            (second_blocks, second_blocks, second_means, second_means),
            (first_blocks, second_blocks, first_means, second_means),
        )
    )
    has_noise = np.minimum(first, second) > MIN_RESIDUAL_VARIANCE * BLOCK_SIDE_PX**2
    first, second, product = first[has_noise], second[has_noise], product[has_noise]
    if len(product) < MIN_BLOCKS:
        return UNKNOWN_NOISE, UNKNOWN_NOISE
    count = max(MIN_BLOCKS, int(SMOOTH_SHARE * len(product)))
    smooth = np.argsort(np.maximum(first, second), kind="stable")[:count]
    pooled = product[smooth].sum() / np.sqrt(first[smooth].sum() * second[smooth].sum())
    return float(pooled), compute_median(product / np.sqrt(first * second))


def _high_pass(gray: GrayPixels) -> GrayPixels:
    size = (HIGH_PASS_SIDE_PX, HIGH_PASS_SIDE_PX)
    blurred = np.asarray(cv2.GaussianBlur(gray, size, HIGH_PASS_SIGMA_PX), np.float32)
    return np.subtract(gray, blurred, out=blurred)


def _average_blocks(cells: CellMap, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Average the cells of each block, by rows, (blocks,)."""
    cells_per_side = BLOCK_SIDE_PX // CELL_SIDE_PX
    covered = cells[: shape[0] * cells_per_side, : shape[1] * cells_per_side]
    means = cv2.resize(covered, shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32).ravel()


def _split_into_blocks(pixels: GrayPixels, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Split pixels into blocks by rows, (blocks, BLOCK_SIDE_PX ** 2); the rest is left out."""
    rows, columns = shape
    blocks = pixels[: rows * BLOCK_SIDE_PX, : columns * BLOCK_SIDE_PX]
    return split_into_tiles(blocks, BLOCK_SIDE_PX).reshape(rows * columns, BLOCK_SIDE_PX**2)


def _find_covered_blocks(mask: CellMask, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the blocks, by rows, all of whose cells are in a mask."""
    cells = BLOCK_SIDE_PX // CELL_SIDE_PX
    rows, columns = shape
    covered = mask[: rows * cells, : columns * cells].reshape(rows, cells, columns, cells)
    return np.asarray(covered.all(axis=(1, 3)).ravel())
