"""Correlate the noise of two aligned images.

Copies of one exposure share its noise, two shots do not. Between several shots of a scene this
tells to which of them a copy belongs; for a lone pair it says little, because heavy compression
destroys noise, and fine texture that does not move looks like it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.aligned import CELL_SIDE_PX, AlignedPair, CellMask
from pipeline.verify.judgement import UNKNOWN_NOISE
from pipeline.verify.order_statistics import compute_median
from pipeline.verify.tile_grid import GrayPixels

BLOCK_SIDE_PX = 16
HIGH_PASS_SIGMA_PX = 1.0
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
    blocks = [_split_into_blocks(gray) for gray in pair.gray]
    shape = (pair.gray[0].shape[0] // BLOCK_SIDE_PX, pair.gray[0].shape[1] // BLOCK_SIDE_PX)
    is_usable = _find_covered_blocks(mask, shape)
    for levels in blocks:
        mean = levels.mean(axis=1)
        is_usable &= (mean > MIN_LEVEL) & (mean < MAX_LEVEL)
    residuals = [_split_into_blocks(_high_pass(gray))[is_usable] for gray in pair.gray]
    residuals = [values - values.mean(axis=1, keepdims=True) for values in residuals]
    first, second = (np.einsum("bp,bp->b", values, values) for values in residuals)
    product = np.einsum("bp,bp->b", *residuals)
    has_noise = np.minimum(first, second) > MIN_RESIDUAL_VARIANCE * BLOCK_SIDE_PX**2
    first, second, product = first[has_noise], second[has_noise], product[has_noise]
    if len(product) < MIN_BLOCKS:
        return UNKNOWN_NOISE, UNKNOWN_NOISE
    count = max(MIN_BLOCKS, int(SMOOTH_SHARE * len(product)))
    smooth = np.argsort(np.maximum(first, second), kind="stable")[:count]
    pooled = product[smooth].sum() / np.sqrt(first[smooth].sum() * second[smooth].sum())
    return float(pooled), compute_median(product / np.sqrt(first * second))


def _high_pass(gray: GrayPixels) -> GrayPixels:
    return np.asarray(gray - cv2.GaussianBlur(gray, (0, 0), HIGH_PASS_SIGMA_PX), np.float32)


def _split_into_blocks(pixels: GrayPixels) -> NDArray[np.float32]:
    """Split pixels into blocks by rows, (blocks, BLOCK_SIDE_PX ** 2); the rest is left out."""
    rows, columns = (side // BLOCK_SIDE_PX for side in pixels.shape)
    blocks = pixels[: rows * BLOCK_SIDE_PX, : columns * BLOCK_SIDE_PX]
    blocks = blocks.reshape(rows, BLOCK_SIDE_PX, columns, BLOCK_SIDE_PX).swapaxes(1, 2)
    return blocks.reshape(rows * columns, BLOCK_SIDE_PX**2)


def _find_covered_blocks(mask: CellMask, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the blocks, by rows, all of whose cells are in a mask."""
    cells = BLOCK_SIDE_PX // CELL_SIDE_PX
    rows, columns = shape
    covered = mask[: rows * cells, : columns * cells].reshape(rows, cells, columns, cells)
    return np.asarray(covered.all(axis=(1, 3)).ravel())
