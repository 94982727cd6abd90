"""Two aligned images on one grid of cells, and how they agree from cell to cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import Homography, compute_scale
from pipeline.verify.tile_grid import TILE_SIDE_PX, GrayPixels
from pipeline.verify.tiles import TileComparison

CELL_SIDE_PX = 4  # a tile has 6 x 6 cells
WINDOW_CELLS = 3  # side of the window of a local NCC
MIN_VARIANCE = 1.0  # lower bound of a variance in a ratio
MAX_UNBLURRED_SCALE = 1.3  # a target that is shown smaller than this is blurred before
BLUR_PER_SCALE = 0.45  # sigma of that blur in target pixels, for each target pixel a template pixel
EDGE_MARGIN_PX = 4  # from the outline of an image, where a blur mixes in what lies beyond

CellMap = NDArray[np.float32]  # a number for each cell, (rows, columns)
CellMask = NDArray[np.bool_]
Averages = TypeVar("Averages", CellMap, NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class AlignedPair:
    """Two images on the pixels that the compared tiles cover, (height, width) float32.

    `gray` are the gray levels as they are, 0 to 255; `matched` have one sharpness, and 128
    subtracted. `inside` masks the cells that lie on both images.
    """

    gray: tuple[GrayPixels, GrayPixels]
    matched: tuple[GrayPixels, GrayPixels]
    inside: CellMask


@dataclass(frozen=True, slots=True)
class LocalStats:
    """The NCC around each cell, and the mean and the standard deviation of both images there."""

    ncc: CellMap
    means: tuple[CellMap, CellMap]
    textures: tuple[CellMap, CellMap]


def align(
    template: ImageFeatures, target: ImageFeatures, comparison: TileComparison
) -> AlignedPair:
    """Bring the target onto the grid of tiles of the template."""
    rows, columns = comparison.valid.shape
    left, top = comparison.origin
    size = (columns * TILE_SIDE_PX, rows * TILE_SIDE_PX)
    to_template = np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])
    to_target: Homography = comparison.homography @ to_template
    scale, target_gray = compute_scale(to_target), target.gray
    if scale > MAX_UNBLURRED_SCALE:
        blurred = cv2.GaussianBlur(target_gray, (0, 0), BLUR_PER_SCALE * scale)
        target_gray = np.asarray(blurred, np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(target_gray, to_target, size, flags=flags)
    inside = cv2.warpPerspective(np.ones(target.gray.shape, np.uint8), to_target, size, flags=flags)
    kernel = np.ones((2 * EDGE_MARGIN_PX + 1, 2 * EDGE_MARGIN_PX + 1), np.uint8)
    inside = cv2.erode(inside, kernel, borderValue=1)
    crop = template.gray[top : top + size[1], left : left + size[0]]
    return AlignedPair(
        (crop.astype(np.float32), np.asarray(warped, np.float32)),
        comparison.get_matched_pixels(),
        average_cells(np.asarray(inside, np.float32)) > 1.0 - 1e-6,
    )


def average_cells(pixels: GrayPixels) -> CellMap:
    """Average pixels (height, width), whose sides are multiples of CELL_SIDE_PX, over cells."""
    size = (pixels.shape[1] // CELL_SIDE_PX, pixels.shape[0] // CELL_SIDE_PX)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)


def compute_local_stats(first: GrayPixels, second: GrayPixels) -> LocalStats:
    """Compute the NCC, means and textures of two images in a window around each cell."""
    first_mean, second_mean, first_square, second_square, product = (
        np.asarray(cv2.blur(average_cells(pixels), (WINDOW_CELLS, WINDOW_CELLS)), np.float32)
        for pixels in (first, second, first * first, second * second, first * second)
    )
    ncc = compute_ncc(MIN_VARIANCE, first_mean, second_mean, first_square, second_square, product)
    first_texture, second_texture = (
        np.sqrt(np.maximum(square - mean**2, 0.0))
        for mean, square in ((first_mean, first_square), (second_mean, second_square))
    )
    return LocalStats(ncc, (first_mean, second_mean), (first_texture, second_texture))


def compute_ncc(
    min_variance: float,
    first: Averages,
    second: Averages,
    first_square: Averages,
    second_square: Averages,
    product: Averages,
) -> Averages:
    """Compute NCC from the averages of two images, of their squares and of their product.

    A variance counts as at least `min_variance`, in squared gray levels.
    """
    first_variance = np.maximum(first_square - first**2, min_variance)
    second_variance = np.maximum(second_square - second**2, min_variance)
    ncc: Averages = (product - first * second) / np.sqrt(first_variance * second_variance)
    return ncc
