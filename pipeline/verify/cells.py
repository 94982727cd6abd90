"""Two aligned images on one grid of cells, and how they agree from cell to cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.base_tiles import MIN_VARIANCE
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import Homography, compute_scale
from pipeline.verify.tile_grid import TILE_SIDE_PX, GrayPixels, covers_rectangle, halve, warp
from pipeline.verify.tiles import TileComparison

CELL_SIDE_PX = 4  # a tile has 6 x 6 cells
WINDOW_CELLS = 3  # side of the window of a local NCC
MAX_UNBLURRED_SCALE = 1.3  # a target that is shown smaller than this is blurred before
BLUR_PER_SCALE = 0.45  # sigma of that blur in target pixels, for each target pixel a base pixel
EDGE_MARGIN_PX = 4  # from the outline of an image, where a blur mixes in what lies beyond

CellMap = NDArray[np.float32]  # a number for each cell, (rows, columns)
CellMask = NDArray[np.bool_]
Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class AlignedPair:
    """Two images on the pixels that the compared tiles cover, float32.

    `gray` are the gray levels as they are, 0 to 255, (height, width); `halves` and `cells` are
    their averages over 2 x 2 pixels and over cells. `matched` (height / 2, width / 2) have one
    sharpness, and 128 subtracted. `inside` masks the cells that lie on both images.
    """

    gray: tuple[GrayPixels, GrayPixels]
    halves: tuple[GrayPixels, GrayPixels]
    cells: tuple[CellMap, CellMap]
    matched: tuple[GrayPixels, GrayPixels]
    inside: CellMask


@dataclass(frozen=True, slots=True)
class LocalStats:
    """The NCC around each cell, and the mean and the variance of both images there.

    Textures, in gray levels, are compared with variances by their squares.
    """

    ncc: CellMap
    means: tuple[CellMap, CellMap]
    variances: tuple[CellMap, CellMap]


def align(base: ImageFeatures, target: ImageFeatures, comparison: TileComparison) -> AlignedPair:
    """Bring the target onto the grid of tiles of the base."""
    rows, columns = comparison.valid.shape
    left, top = comparison.origin
    size = (columns * TILE_SIDE_PX, rows * TILE_SIDE_PX)
    to_base = np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])
    to_target: Homography = comparison.homography @ to_base
    scale, target_gray = compute_scale(to_target), target.gray.astype(np.float32)
    if scale > MAX_UNBLURRED_SCALE:
        blurred = cv2.GaussianBlur(target_gray, (0, 0), BLUR_PER_SCALE * scale)
        target_gray = np.asarray(blurred, np.float32)
    warped = warp(target_gray, to_target, size)
    np.rint(warped, out=warped)  # as the gray levels of the base are: rounding is noise, too
    crop = base.gray[top : top + size[1], left : left + size[0]].astype(np.float32)
    gray = crop, warped
    halves = halve(gray[0]), halve(gray[1])
    return AlignedPair(
        gray,
        halves,
        (halve(halves[0]), halve(halves[1])),
        comparison.get_matched_samples(),
        _find_inside(to_target, size, target_gray.shape),
    )


def _find_inside(
    to_target: Homography, size: tuple[int, int], target_shape: tuple[int, ...]
) -> CellMask:
    """Find the cells of a grid of `size` (width, height) that lie on the target."""
    width, height = size
    if covers_rectangle(to_target, size, target_shape, 0.0):  # as most do
        return np.ones((height // CELL_SIDE_PX, width // CELL_SIDE_PX), bool)
    ones = np.ones(target_shape, np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    inside = cv2.warpPerspective(ones, to_target, size, flags=flags)
    kernel = np.ones((2 * EDGE_MARGIN_PX + 1, 2 * EDGE_MARGIN_PX + 1), np.uint8)
    inside = cv2.erode(inside, kernel, borderValue=1)
    return average_cells(np.asarray(inside, np.float32)) > 1.0 - 1e-6


def average_cells(pixels: GrayPixels) -> CellMap:
    """Average pixels (height, width), whose sides are multiples of CELL_SIDE_PX, over cells.

    Halving twice takes a third of the time of one reduction to a quarter.
    """
    return halve(halve(pixels))


def compute_local_stats(first: GrayPixels, second: GrayPixels) -> LocalStats:
    """Compute the NCC, means and variances of two images in a window around each cell.

    The images are at half their size, so that a cell has 2 x 2 pixels.
    """
    first_mean, second_mean, first_square, second_square, product = (
        np.asarray(cv2.blur(halve(pixels), (WINDOW_CELLS, WINDOW_CELLS)), np.float32)
        for pixels in (first, second, first * first, second * second, first * second)
    )
    means = first_mean, second_mean
    variances = (
        np.maximum(first_square - first_mean**2, 0.0),
        np.maximum(second_square - second_mean**2, 0.0),
    )
    return LocalStats(compute_ncc(means, variances, product, MIN_VARIANCE), means, variances)


def compute_ncc(
    means: tuple[NDArray[Float], NDArray[Float]],
    variances: tuple[NDArray[Float], NDArray[Float]],
    product: NDArray[Float],
    min_variance: float,
) -> NDArray[Float]:
    """Compute NCC from the means and variances of two images, and the mean of their product.

    A variance counts as at least `min_variance`.
    """
    first, second = (np.maximum(variance, min_variance) for variance in variances)
    return np.asarray((product - means[0] * means[1]) / np.sqrt(first * second))
