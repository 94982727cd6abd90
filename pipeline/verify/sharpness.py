"""Bring two aligned images to the same sharpness."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.base_tiles import compute_gradients
from pipeline.verify.homography import Homography, compute_scale
from pipeline.verify.tile_grid import GrayPixels, average_tiles, warp

# An image with less than this share of the other's sharpness is the softer one, and the other is
# blurred to match.
MIN_SHARPNESS_RATIO = 0.7
BLUR_SIGMAS_PX = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # the first that suffices is taken
# It suffices at this multiple of the softer image's sharpness.
MAX_MATCHED_SHARPNESS_RATIO = 1.05
MIN_DIVISOR = 1e-3  # of a variance in a ratio


def match_sharpness(
    base_pixels: GrayPixels,
    target_pixels: GrayPixels,
    homography: Homography,
    mask: NDArray[np.bool_],
) -> tuple[GrayPixels, GrayPixels] | None:
    """Blur the sharper image to the sharpness of the other, so that a blurred copy agrees.

    Sharpness is that of the tiles in `mask`. None if it is alike.
    """

    def measure_target(pixels: GrayPixels) -> float:
        height, width = base_pixels.shape
        return _measure_sharpness(warp(pixels, homography, (width, height)), mask)

    base_sharpness = _measure_sharpness(base_pixels, mask)
    target_sharpness = measure_target(target_pixels)
    if target_sharpness < MIN_SHARPNESS_RATIO * base_sharpness:
        limit = MAX_MATCHED_SHARPNESS_RATIO * target_sharpness
        softened = _soften(base_pixels, 1.0, lambda it: _measure_sharpness(it, mask) <= limit)
        return softened, target_pixels
    if base_sharpness < MIN_SHARPNESS_RATIO * target_sharpness:
        limit = MAX_MATCHED_SHARPNESS_RATIO * base_sharpness
        scale = max(1.0, compute_scale(homography))
        softened = _soften(target_pixels, scale, lambda it: measure_target(it) <= limit)
        return base_pixels, softened
    return None


def _soften(
    pixels: GrayPixels, scale: float, is_soft_enough: Callable[[GrayPixels], bool]
) -> GrayPixels:
    """Blur by the first of BLUR_SIGMAS_PX, times `scale`, that is enough, else by the last."""

    @cache
    def blur(sigma: float) -> GrayPixels:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma * scale), np.float32)

    index = bisect_left(BLUR_SIGMAS_PX, True, key=lambda sigma: is_soft_enough(blur(sigma)))
    return blur(BLUR_SIGMAS_PX[min(index, len(BLUR_SIGMAS_PX) - 1)])


def _measure_sharpness(gray: GrayPixels, mask: NDArray[np.bool_]) -> float:
    """Measure the energy of gradients over the variance, which is independent of contrast."""
    dx, dy = compute_gradients(gray)
    # In place: these are the largest arrays of a pair, and new memory takes as long as the product.
    np.multiply(dx, dx, out=dx)
    np.multiply(dy, dy, out=dy)
    np.add(dx, dy, out=dx)
    variance = (average_tiles(gray * gray) - average_tiles(gray) ** 2)[mask].sum()
    return float(average_tiles(dx)[mask].sum() / max(variance, MIN_DIVISOR))
