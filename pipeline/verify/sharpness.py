"""Bring two aligned images to the same sharpness."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.homography import Homography
from pipeline.verify.refinement import warp
from pipeline.verify.template import Template, compute_gradients
from pipeline.verify.tile_grid import TILE_SIDE_PX, GrayPixels, average_tiles

# An image with less than this share of the other's sharpness is the softer one, and the other is
# blurred to match.
MIN_SHARPNESS_RATIO = 0.7
BLUR_SIGMAS_PX = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # the first that suffices is taken
# It suffices at this multiple of the softer image's sharpness.
MAX_MATCHED_SHARPNESS_RATIO = 1.05
MIN_DIVISOR = 1e-3  # of a variance in a ratio


def match_sharpness(
    template_pixels: GrayPixels,
    target_pixels: GrayPixels,
    homography: Homography,
    mask: NDArray[np.bool_],
    scale: float,
) -> tuple[Template, GrayPixels]:
    """Blur the sharper image to the sharpness of the other, so that a blurred copy agrees."""
    template = Template.from_pixels(template_pixels, TILE_SIDE_PX)
    template_sharpness = template.gradient_energy[mask].sum() / max(
        template.variance[mask].sum(), MIN_DIVISOR
    )

    def blur_template(sigma: float) -> GrayPixels:
        return np.asarray(cv2.GaussianBlur(template_pixels, (0, 0), sigma), np.float32)

    def blur_target(sigma: float) -> GrayPixels:
        return np.asarray(cv2.GaussianBlur(target_pixels, (0, 0), sigma * scale), np.float32)

    def measure_target(pixels: GrayPixels) -> float:
        return _measure_sharpness(warp(pixels, homography, template_pixels.shape), mask)

    target_sharpness = measure_target(target_pixels)
    if target_sharpness < MIN_SHARPNESS_RATIO * template_sharpness:
        limit = MAX_MATCHED_SHARPNESS_RATIO * target_sharpness
        sigma = _find_sigma(lambda sigma: _measure_sharpness(blur_template(sigma), mask) <= limit)
        return Template.from_pixels(blur_template(sigma), TILE_SIDE_PX), target_pixels
    if template_sharpness < MIN_SHARPNESS_RATIO * target_sharpness:
        limit = MAX_MATCHED_SHARPNESS_RATIO * template_sharpness
        sigma = _find_sigma(lambda sigma: measure_target(blur_target(sigma)) <= limit)
        return template, blur_target(sigma)
    return template, target_pixels


def _find_sigma(is_soft_enough: Callable[[float], bool]) -> float:
    """Find the first of BLUR_SIGMAS_PX that is soft enough; the last if none is."""
    index = bisect_left(BLUR_SIGMAS_PX, True, key=is_soft_enough)
    return BLUR_SIGMAS_PX[min(index, len(BLUR_SIGMAS_PX) - 1)]


def _measure_sharpness(gray: GrayPixels, mask: NDArray[np.bool_]) -> float:
    """Measure the energy of gradients over the variance, which is independent of contrast."""
    dx, dy = compute_gradients(gray)
    variance = (average_tiles(gray * gray) - average_tiles(gray) ** 2)[mask].sum()
    return float(average_tiles(dx * dx + dy * dy)[mask].sum() / max(variance, MIN_DIVISOR))
