"""Reduce images to small versions, and compare the colors of two copies on those."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.regions import Box
from pipeline.verify.homography import (
    Homography,
    apply_homography,
    compute_local_jacobian,
    compute_scale,
    compute_unit_grid,
)
from pipeline.verify.order_statistics import compute_median, compute_percentile
from pipeline.verify.outlines import sample
from pipeline.verify.relation import Side

SMALL_RGB_SIDE_PX = 48  # of the small version that colors are compared by
SMALL_CHROMA_SIDE_PX = 24  # its tints are reduced to half its size

# Mean over pixels of the strongest channel minus the weakest, in levels: below the first an image
# is grayscale, and above the second it has colors.
MAX_GRAYSCALE_CHROMA_LEVELS = 4.0
MIN_COLOR_CHROMA_LEVELS = 10.0
# Cells of a small image that blurring mixes colors across; and the share of a side that is left
# out near an outline, at most.
COLOR_MARGIN_CELLS = 2.5
MAX_COLOR_MARGIN = 0.2
CONTRAST_PERCENTILES = (90, 10)  # of brightness; their difference is the contrast
# Beyond any of these a copy is recolored: contrast over contrast, shift of the median brightness
# in levels, and chroma over chroma.
MAX_CONTRAST_RATIO = 1.15
MAX_BRIGHTNESS_SHIFT_LEVELS = 12.0
MIN_CHROMA_RATIO = 0.75
# Added to a contrast or a chroma, in levels, so that the ratio of two small ones says little.
CONTRAST_OFFSET_LEVELS = 1.0
CHROMA_OFFSET_LEVELS = 2.0


def reduce_colors(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Reduce a thumbnail (height, width, 3) to luma (48, 48) and chroma (24, 24, 2)."""
    # Halving an even number of pixels is fast, and then less than half of the work is left.
    height, width = (max(1, side // 2) for side in rgb.shape[:2])
    halved = reduce_pixels(rgb[: 2 * height, : 2 * width], (width, height))
    small = reduce_pixels(halved, (SMALL_RGB_SIDE_PX, SMALL_RGB_SIDE_PX))
    ycrcb = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb), np.uint8)
    chroma_size = (SMALL_CHROMA_SIDE_PX, SMALL_CHROMA_SIDE_PX)
    return ycrcb[..., 0], reduce_pixels(ycrcb[..., 1:], chroma_size)


def restore_rgb(luma: NDArray[np.uint8], chroma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert what reduce_colors() returned to RGB (48, 48, 3)."""
    enlarged = cv2.resize(chroma, luma.shape, interpolation=cv2.INTER_LINEAR)
    ycrcb = cv2.merge([luma, *cv2.split(enlarged)])
    return np.asarray(cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB), np.uint8)


def reduce_pixels(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize pixels to (width, height) by averages of areas."""
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def compare_colors(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    homography: Homography,
    changed_regions: tuple[Box, ...],
) -> tuple[Side | None, bool]:
    """Compare colors where the images overlap and neither is covered.

    Returns the side that is grayscale while the other has colors, and whether colors differ.
    `first` and `second` are (48, 48, 3).
    """
    points = compute_unit_grid(SMALL_RGB_SIDE_PX)[:2].T
    mapped = apply_homography(homography, points)
    scale = compute_scale(compute_local_jacobian(homography, ((1, 1), (1, 1)))[1])
    cell_ratios = 1.0 / scale, scale  # own cells that a cell of the other covers, along a side
    # Near an outline, blurring mixes in pixels from beyond.
    margins = [
        min(COLOR_MARGIN_CELLS * max(1.0, ratio) / SMALL_RGB_SIDE_PX, MAX_COLOR_MARGIN)
        for ratio in cell_ratios
    ]
    is_compared = _is_inside_margin(points, margins[0]) & _is_inside_margin(mapped, margins[1])
    for box in changed_regions:
        is_compared &= ~((points >= box[:2]) & (points <= box[2:])).all(axis=1)
    if not is_compared.any():
        return None, False
    first_colors, second_colors = (
        sample(_coarsen(rgb, ratio), where[is_compared] * len(rgb) - 0.5)
        for rgb, ratio, where in zip((first, second), cell_ratios, (points, mapped), strict=True)
    )
    # By channel: along an axis of three numbers NumPy takes ten times as long.
    colors = [np.ascontiguousarray(rows.T) for rows in (first_colors, second_colors)]
    chroma = [
        float(
            (
                np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
            ).mean()
        )
        for red, green, blue in colors
    ]
    grayscale_side = None
    if chroma[0] < MAX_GRAYSCALE_CHROMA_LEVELS and chroma[1] > MIN_COLOR_CHROMA_LEVELS:
        grayscale_side = Side.FIRST
    elif chroma[1] < MAX_GRAYSCALE_CHROMA_LEVELS and chroma[0] > MIN_COLOR_CHROMA_LEVELS:
        grayscale_side = Side.SECOND
    brightness = [(red + green + blue) / 3 for red, green, blue in colors]
    contrast = [_measure_contrast(rows) for rows in brightness]
    shift = abs(compute_median(brightness[0] - brightness[1]))
    lower_chroma, higher_chroma = (level + CHROMA_OFFSET_LEVELS for level in sorted(chroma))
    is_paler = lower_chroma < MIN_CHROMA_RATIO * higher_chroma
    is_recolored = (
        grayscale_side is not None
        or max(contrast) > MAX_CONTRAST_RATIO * min(contrast)
        or shift > MAX_BRIGHTNESS_SHIFT_LEVELS
        or is_paler
    )
    return grayscale_side, is_recolored


def _is_inside_margin(points: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Return which unit points (n, 2) lie inside by more than `margin`, a share of a side."""
    return np.asarray(((points > margin) & (points < 1.0 - margin)).all(axis=1))


def _coarsen(rgb: NDArray[np.uint8], cells: float) -> NDArray[np.float32]:
    """Blur a small RGB image to the resolution of another one.

    `cells`: how many of its cells, along a side, a cell of the other covers. A coarser image has
    less contrast. Both images are blurred by a cell of the coarser one, so that the position of
    the cells does not matter.
    """
    cells = max(1.0, cells)
    return np.asarray(
        cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), np.sqrt(1.25 * cells**2 - 0.25)),
        np.float32,
    )


def _measure_contrast(brightness: NDArray[np.float32]) -> float:
    high, low = (compute_percentile(brightness, percentile) for percentile in CONTRAST_PERCENTILES)
    return high - low + CONTRAST_OFFSET_LEVELS
