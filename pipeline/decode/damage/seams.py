"""Seams in a decoded JPEG: where an MCU on, all is brighter, darker or of another tint.

A JPEG codes the mean of a block as the difference to the block before it. A wrong difference
shifts the color of all MCUs that follow, to the right and in all rows below. The seam that this
leaves is a staircase: below the row on its left side, above it on its right side.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.decode.damage.jpeg_layout import JpegLayout

Levels = NDArray[np.float32]

MIN_ROWS = 4  # of MCUs
MIN_COLUMNS = 6
MAX_COLUMNS = 64
COLUMN_SAMPLES = 8  # pixels of a row that stand for its column
# How near to the sides of an image, in columns, a stair looks like a horizontal edge.
SIDE_COLUMNS = 2
MAX_STEP_LEVELS = 60.0  # of 255; larger steps count as that
# What a seam needs. At 2.5, none of 2,428 sound JPEGs has one (the highest strength is 1.9). Of
# 98 scans with flipped bytes that keep their length, though more than 1 % of the pixels change, 43
# do.
MIN_STRENGTH = 2.5
MIN_SHIFT_LEVELS = 3.0
# The correlation of texture on both sides of the seam, which an edge of an object does not keep,
# and how much texture, in levels from an MCU to the next, is enough to measure it.
MIN_TEXTURE_CORRELATION = 0.7
MIN_TEXTURE_LEVELS = 1.0
MAX_STAIRS = 24  # measured, the likeliest first
# By means instead of medians: 1 % of sound images exceed 0.95, 95 % of certain seams 1.5.
MIN_MEAN_STRENGTH = 1.2
# Added to the spread of steps, which is 0 in flat images.
NOISE_FLOOR_LEVELS = 0.7


class Seam(NamedTuple):
    """The most likely seam: the MCU row in which it starts.

    `strength` is the shift of the color along the staircase, less that beside it, in spreads.
    `is_certain`: no sound image has such a seam.
    """

    row: int
    strength: float
    is_certain: bool


def find_seam(image: Pillow.Image, layout: JpegLayout, is_expected: bool = False) -> Seam | None:
    """Find the most likely seam of a decoded JPEG; None if there is none.

    If one `is_expected`, also look for faint ones, which takes longer, and return the first.
    """
    if image.mode not in ("L", "RGB"):
        return None
    sampled = _sample_boundaries(image, layout)
    if sampled is None:
        return None
    above, below = sampled
    steps = (below - above).clip(-MAX_STEP_LEVELS, MAX_STEP_LEVELS)
    channels = steps
    if len(steps) == 3:
        red, green, blue = steps
        channels = np.stack([(red + green + blue) / 3, blue - green, red - green])
    stairs = _find_stairs(channels, -inf if is_expected else MIN_MEAN_STRENGTH)
    if not stairs:
        return None
    strong = [stair for stair in stairs if stair.strength >= MIN_STRENGTH]
    if is_expected and strong:
        best = min(strong, key=lambda stair: stair.row)
    else:
        best = max(stairs, key=lambda stair: stair.strength)
    is_certain = (
        best.strength >= MIN_STRENGTH
        and abs(best.shift) >= MIN_SHIFT_LEVELS
        and _has_same_texture(above.mean(axis=0), below.mean(axis=0), best)
    )
    return Seam(best.row, best.strength, is_certain)


class _Stair(NamedTuple):
    """A staircase that starts in an MCU `row`, whose first `columns` MCUs are above it."""

    strength: float
    row: int
    columns: int
    shift: float


def _sample_boundaries(image: Pillow.Image, layout: JpegLayout) -> tuple[Levels, Levels] | None:
    """Return the last pixel row of each MCU row and the first one of the next.

    Both are (channels, rows - 1, columns). None if the image
    is too small.
    """
    scale = max(1, round(layout.height / image.height))
    mcu_width = max(1, layout.mcu_width // scale)
    mcu_height = max(1, layout.mcu_height // scale)
    rows, columns = image.height // mcu_height, image.width // mcu_width
    if rows < MIN_ROWS or columns < MIN_COLUMNS:
        return None

    # Columns are MCUs, or in large images several.
    column_mcus = -(-columns // MAX_COLUMNS)
    columns //= column_mcus
    width = columns * column_mcus * mcu_width

    def sample(first_row: int) -> Levels:
        # Pillow takes the pixel in the middle of those that it shrinks to one.
        top = first_row - mcu_height // 2
        box = (0, top, width, top + (rows - 1) * mcu_height)
        size = (columns * COLUMN_SAMPLES, rows - 1)
        samples = image.resize(size, Pillow.Resampling.NEAREST, box)
        means = samples.resize((columns, rows - 1), Pillow.Resampling.BOX)
        levels = np.asarray(means).reshape(rows - 1, columns, -1)
        return np.ascontiguousarray(levels.transpose(2, 0, 1), np.float32)

    return sample(mcu_height - 1), sample(mcu_height)


def _find_stairs(steps: Levels, min_strength: float) -> list[_Stair]:
    """Measure the likeliest staircases in steps (channels, rows, columns).

    `min_strength` is the least by means, which take less time than the medians that count.
    """
    previous, current = steps[:, :-1], steps[:, 1:]
    count = steps.shape[2]
    # The stair after column c: `current` up to c, `previous` from there on; the rest is beside it.
    gains = np.cumsum(current - previous, axis=2)
    contrast = np.abs(2 * gains - gains[..., -1:])[..., SIDE_COLUMNS - 1 : count - SIDE_COLUMNS]
    columns = contrast.argmax(axis=2) + SIDE_COLUMNS
    is_left = np.arange(count) < columns[..., None]
    along = np.where(is_left, current, previous)
    beside = np.where(is_left, previous, current)
    left = np.stack([along, beside]).sum(axis=3, where=is_left) / columns
    right = np.stack([along, beside]).sum(axis=3, where=~is_left) / (count - columns)
    shift, opposite = np.minimum(left[0], right[0]), np.maximum(left[0], right[0])
    excess = np.maximum(shift, -opposite) - np.maximum(np.abs(left[1]), np.abs(right[1]))
    spread = np.abs(along - along.mean(axis=2, keepdims=True)).mean(axis=2) + NOISE_FLOOR_LEVELS
    strength = excess / spread
    stairs = []
    for index in np.argsort(-strength, axis=None)[:MAX_STAIRS]:
        channel, row = np.unravel_index(index, strength.shape)
        if strength[channel, row] < min_strength:
            break
        stair_steps = previous[channel, row], current[channel, row]
        stairs.append(_measure_stair(*stair_steps, int(row), int(columns[channel, row])))
    return stairs


def _measure_stair(previous: Levels, current: Levels, row: int, columns: int) -> _Stair:
    """Measure a staircase of `columns` MCUs on its left side, from the steps above and below."""
    left, right = current[:columns], previous[columns:]
    along = np.concatenate([left, right])
    beside = np.concatenate([previous[:columns], current[columns:]])
    shift = np.median(along)
    spread = np.median(np.abs(along - shift)) + NOISE_FLOOR_LEVELS
    spread = max(spread, np.median(np.abs(beside - np.median(beside))))
    shifts = np.median(left), np.median(right)
    others = np.median(beside[:columns]), np.median(beside[columns:])
    excess = min(map(abs, shifts)) - max(map(abs, others))
    strength = float(excess / spread) if shifts[0] * shifts[1] > 0 else 0.0
    return _Stair(strength, row + 1, columns, float(shift))


def _has_same_texture(above: Levels, below: Levels, stair: _Stair) -> bool:
    """Tell if the luma (rows, columns) on both sides of a staircase rises and falls together."""
    first, second = (
        np.diff(
            np.concatenate([side[stair.row, : stair.columns], side[stair.row - 1, stair.columns :]])
        )
        for side in (above, below)
    )
    norm = float(np.sqrt((first @ first) * (second @ second)))
    if norm == 0 or np.median(np.abs(first)) < MIN_TEXTURE_LEVELS:
        return False
    return float(first @ second) / norm >= MIN_TEXTURE_CORRELATION
