"""Measure what the pixels of an image hold, whatever its format: colors, traces of compression.

An HEIC can hold a JPEG that was compressed strongly, a TIFF the two colors of a fax. Bands of rows,
evenly placed, tell that in 1 to 3 % of the time of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes.metadata import MAX_COUNTED_COLORS, Fidelity

GRID_PX = 8  # the side of a block of JPEG
BAND_ROWS = GRID_PX + 1  # whose differences reach across every phase of the grid
MIN_BAND_DISTANCE_ROWS = 160
MAX_BANDS = 16
MAX_BAND_COLUMNS = 4096
# Differences count up to this many gray levels: the steps between blocks are small, while an edge
# of a thing in the picture can be of 200 levels, in one phase of the grid alone.
MAX_STEP_LEVELS = 24
# Added to the mean step, in gray levels: on a white wall even the steps of the best JPEG are higher
# than all others.
MEAN_STEP_OFFSET_LEVELS = 4.0
# The share of equal neighbors from which an image is drawn, or has large pixels: its steps tell
# nothing. Of 50 photos compressed at quality 12, none has more than 0.83.
MAX_EQUAL_SHARE = 0.85
MIN_SIDE_PX = 128  # of an image whose blocks are measured; fewer steps are too noisy

Box = tuple[int, int, int, int]  # left, top, right, bottom


def measure_fidelity(
    image: Pillow.Image, small: NDArray[np.uint8], bit_depth: int | None, with_blocks: bool
) -> Fidelity:
    """Measure the fidelity of a decoded image of 8 bits a sample.

    `small` is a small version of it, RGB (height, width, 3), `bit_depth` that of its file.
    `with_blocks`: measure blockiness, too, which the image shows only at full size.
    """
    boxes = _place_bands(image.size)
    color_count, is_gray = _count_colors(image, boxes)
    green = np.ascontiguousarray(small[..., 1])  # nearly as the luma, in less time
    even_share = round(_measure_even_share(green), 3)
    blockiness = None
    if with_blocks and min(image.size) >= MIN_SIDE_PX:
        blockiness = _measure_blockiness(_stack_bands(image, boxes))
    return Fidelity(color_count, is_gray, even_share, bit_depth, blockiness)


def _place_bands(size: tuple[int, int]) -> list[Box]:
    """Place bands of BAND_ROWS rows evenly, each at the same phase of a grid of GRID_PX rows."""
    width, rows = min(size[0], MAX_BAND_COLUMNS), min(size[1], BAND_ROWS)
    count = min(MAX_BANDS, max(1, size[1] // MIN_BAND_DISTANCE_ROWS))
    left, last = (size[0] - width) // 2, (size[1] - rows) // GRID_PX
    tops = [last * (2 * band + 1) // (2 * count) * GRID_PX for band in range(count)]
    return [(left, top, left + width, top + rows) for top in tops]


def _count_colors(image: Pillow.Image, boxes: Sequence[Box]) -> tuple[int, bool]:
    """Count the distinct colors, up to one more than MAX_COUNTED_COLORS; tell if all are gray."""
    colors = set[object]()
    for box in boxes:
        band = image.crop(box)
        rgb = band if band.mode in ("L", "RGB") else band.convert("RGB")
        found = rgb.getcolors(MAX_COUNTED_COLORS)
        colors.update(color for _, color in found or ())
        if found is None or len(colors) > MAX_COUNTED_COLORS:
            return MAX_COUNTED_COLORS + 1, False
    is_gray = all(len(set(color)) == 1 for color in colors if isinstance(color, tuple))
    return len(colors), is_gray


def _measure_even_share(levels: NDArray[np.uint8]) -> float:
    """Measure the share of neighbors that are equal, along rows or columns, whichever is more.

    1 if there are none.
    """
    pairs = (levels[:, 1:], levels[:, :-1]), (levels[1:], levels[:-1])
    return max(
        float(np.count_nonzero(first == second) / first.size) if first.size else 1.0
        for first, second in pairs
    )


def _stack_bands(image: Pillow.Image, boxes: Sequence[Box]) -> NDArray[np.uint8]:
    """Stack bands of an image as gray levels (band, row, column)."""
    left, top, right, bottom = boxes[0]
    width, rows = right - left, bottom - top
    stacked = Pillow.new(image.mode, (width, rows * len(boxes)))
    for number, box in enumerate(boxes):
        stacked.paste(image.crop(box), (0, rows * number))
    return np.asarray(stacked.convert("L")).reshape(len(boxes), rows, width)


def _measure_blockiness(bands: NDArray[np.uint8]) -> float | None:
    """Measure how far the best grid of blocks stands out, in the direction in which it does less.

    `bands` are gray levels (band, row, column). Blocking is the mean step at the sides of blocks,
    as by Wang, Sheikh and Bovik (No-reference perceptual quality assessment of JPEG compressed
    images, ICIP 2002), here over the steps beside them, and at any offset, as a crop moves the
    grid. None if too many neighbors are equal.
    """
    across = _compute_steps(bands[..., :-1], bands[..., 1:])
    down = _compute_steps(bands[:, :-1], bands[:, 1:])
    if max(1 - np.count_nonzero(steps) / steps.size for steps in (across, down)) > MAX_EQUAL_SHARE:
        return None
    # uint16 holds the sums of MAX_BANDS bands, and takes a quarter of the time.
    of_columns = across.sum(axis=(0, 1), dtype=np.uint16)
    whole_blocks = of_columns[: len(of_columns) // GRID_PX * GRID_PX].reshape(-1, GRID_PX)
    along_rows = whole_blocks.sum(axis=0) * GRID_PX / across.size
    along_columns = down.sum(axis=2, dtype=np.uint32).sum(axis=0) * GRID_PX / down.size
    return round(min(_measure_lead(along_rows.tolist()), _measure_lead(along_columns.tolist())), 3)


def _compute_steps(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute the absolute differences of neighbors, at most MAX_STEP_LEVELS."""
    steps = np.maximum(first, second) - np.minimum(first, second)  # which never wraps around
    return np.asarray(np.minimum(steps, np.uint8(MAX_STEP_LEVELS)))


def _measure_lead(steps: list[float]) -> float:
    """Measure how far the best of GRID_PX mean steps, in a circle, leads its neighbors, from 0."""
    lead = max(
        step - (steps[phase - 1] + steps[(phase + 1) % GRID_PX]) / 2
        for phase, step in enumerate(steps)
    )
    return max(0.0, lead) / (sum(steps) / GRID_PX + MEAN_STEP_OFFSET_LEVELS)
