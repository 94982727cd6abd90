"""Find the regions of an image: rectangles that are pictures of their own.

A screenshot, chat, story, meme, collage, polaroid or scan is a host with photos in it. The sides of
a pasted photo are seams: steps, or lines a pixel or two wide, that stand out from what lies beside
them at one column or row all along, while edges in nature bend. So rectangles are proposed between
the long seams and the border of the image, whether or not there is a gap or plain ground around.

Each rectangle is scored by its sides, the seams that cross it, and its area. Of rectangles that
contradict one another the best is chosen. What smaller ones make up, as the rows of a collage, is
left out. docs/benchmarks/verify.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]  # left, top, right, bottom, normalized
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SeamCounts = NDArray[np.int32]  # [y, x]: rows above y in which a seam is at the left of column x

# The largest regions are returned; each costs an embedding.
MAX_REGIONS = 12
# Larger images are reduced, which bounds the time. Thumbnails have 448 pixels.
MAX_SIDE_PX = 640
# A part of a smaller image says nothing.
MIN_SIDE_PX = 48
MIN_AREA_SHARE = 0.02
MAX_AREA_SHARE = 0.97
MAX_ASPECT_RATIO = 4.0
# How much a channel of ground varies in 3 x 3 pixels, by the noise of JPEG.
MAX_GROUND_LEVELS = 6
MAX_GROUND_SHARE = 0.8
# A seam has a step of this many levels, and this many times those around it. Then nine of ten sides
# of pasted photos are seams in .82 of their pixels or more; of the columns and rows of plain photos
# the best has .52 in half of the photos.
MIN_SEAM_LEVELS = 12
MIN_SEAM_TO_SURROUNDINGS_RATIO = 1.3
# Those around it are the first number of columns, centered on it, without the second in the middle.
SEAM_WINDOW_PX = 15
SEAM_WIDTH_PX = 5
# A line one or two pixels wide is compared with the mean of the columns at two pixels from it.
BESIDE_LINE_KERNEL = np.array([[0.5, 0, 0, 0, 0.5]], np.float32)
# The columns, and the rows, where rectangles may begin and end: those with the longest seams. 10,
# 14 and 18 find the same in hosts with one photo; a page of thumbnails needs many.
MAX_LINES = 18
MIN_LINE_LENGTH_SHARE = 0.12  # of the side of the image
MIN_SEAM_SHARE_OF_LINE = 0.6
LENGTH_STEP_PX = 4  # rows from one count of the seam of a column to the next
MIN_LINE_DISTANCE_PX = 4  # of two lines
MAX_BORDER_DISTANCE_PX = 2  # of a line that is the border of the image
# A side is compared with the columns farther from it than the first, up to the second.
MAX_SIDE_DISTANCE_PX = 3
MAX_SURROUNDINGS_DISTANCE_PX = 12
# The weights of the score, by a random search over 1,056 drawn hosts, 42 screenshots of a browser
# and 342 plain photos: most photos found in hosts at .4 regions for a plain photo.
SEAM_WEIGHT = 4.0
EXCESS_WEIGHT = 3.5
GROUND_WEIGHT = 2.0
CROSSING_WEIGHT = 2.7
# A seam that crosses a small rectangle says less, because short seams are frequent.
CROSSING_AREA_WEIGHT = 0.75
MIN_SCORE = 3.1
# Two rectangles contradict each other if they are about the same, or overlap and neither lies in
# the other.
MAX_IOU = 0.7
MIN_INSIDE_SHARE = 0.9
MAX_CROSSING_SHARE = 0.05
MAX_CHOSEN = 60  # bounds the time for an image full of rectangles
# The standard deviation of a grid of cells, as a share of that of pixels: below .38 for 95 % of
# blocks of text, which would match one another, and above .42 for 99 % of photos in hosts.
COARSE_GRID = (8, 8)
MIN_COARSE_CONTRAST_SHARE = 0.38
# Smaller regions make up one if they cover this share of it, and their sides are as good.
MIN_COVERED_SHARE = 0.8
MAX_PART_AREA_SHARE = 0.8
MAX_SEAM_SHARE_LOST = 0.02


@dataclass(frozen=True)
class _Maps:
    """The seams and the ground of an image of `size` (width, height), summed up."""

    size: tuple[int, int]
    seams: tuple[SeamCounts, SeamCounts]  # vertical; horizontal, of the transposed image
    ground: NDArray[np.int32]  # integral image


@dataclass(frozen=True)
class _Rectangles:
    """Rectangles (n, 4) in pixels, with the share of seams in their sides and their rank."""

    corners: Integers
    seam_shares: Floats
    ranks: Floats

    def select(self, indices: Integers) -> _Rectangles:
        return _Rectangles(self.corners[indices], self.seam_shares[indices], self.ranks[indices])


def find_regions(rgb: NDArray[np.uint8]) -> tuple[Box, ...]:
    """Find the rectangles of an image that are pictures of their own; a pure function of pixels.

    `rgb` is uint8 (height, width, 3), best a thumbnail. Returns at most MAX_REGIONS boxes, the
    largest if there are more, sorted. A region can lie within another one; the whole image is none.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width, 1))
    size = round(width * scale), round(height * scale)
    if min(size) < MIN_SIDE_PX:
        return ()
    if scale < 1:
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    rgb = np.ascontiguousarray(rgb)
    rectangles = _choose(_propose_rectangles(_measure_maps(rgb)))
    is_picture = [_has_coarse_contrast(rgb, *corners) for corners in rectangles.corners.tolist()]
    rectangles = rectangles.select(np.flatnonzero(is_picture))
    corners = rectangles.corners[list(_find_wholes(rectangles))]
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    largest = corners[np.argsort(-areas, kind="stable")[:MAX_REGIONS]]
    return tuple(
        sorted(
            (x / size[0], y / size[1], right / size[0], bottom / size[1])
            for x, y, right, bottom in largest.tolist()
        )
    )


def _measure_maps(rgb: NDArray[np.uint8]) -> _Maps:
    ranges = cv2.morphologyEx(
        rgb, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE
    )
    is_ground = _find_maximum(ranges) <= MAX_GROUND_LEVELS
    seams = _count_seams(rgb), _count_seams(cv2.transpose(rgb))
    return _Maps((rgb.shape[1], rgb.shape[0]), seams, cv2.integral(is_ground.view(np.uint8)))


def _find_maximum(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Find the maximum of the channels of each pixel, in a fifth of the time that numpy takes."""
    red, green, blue = cv2.split(image)
    return np.asarray(cv2.max(cv2.max(red, green), blue))


def _count_seams(rgb: NDArray[np.uint8]) -> SeamCounts:
    """Count the vertical seams above each pixel, (height + 1, width).

    The strength of a seam is the step between two pairs of columns, or between a column and those
    two columns beside it.
    """
    border = cv2.BORDER_REPLICATE
    pairs = cv2.blur(rgb, (2, 1), anchor=(1, 0), borderType=border)  # of the columns x - 1 and x
    steps = cv2.absdiff(pairs[:, 3:], pairs[:, 1:-2])
    steps = cv2.copyMakeBorder(steps, 0, 0, 2, 1, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    beside = cv2.filter2D(rgb, -1, BESIDE_LINE_KERNEL, borderType=border)
    strength = _find_maximum(cv2.max(steps, cv2.absdiff(rgb, beside)))
    wide = cv2.blur(strength, (SEAM_WINDOW_PX, 1), borderType=border)
    narrow = cv2.blur(strength, (SEAM_WIDTH_PX, 1), borderType=border)
    # The mean of the wide window without the narrow one, times the ratio.
    ratio, around_px = MIN_SEAM_TO_SURROUNDINGS_RATIO, SEAM_WINDOW_PX - SEAM_WIDTH_PX
    weights = SEAM_WINDOW_PX / around_px * ratio, -SEAM_WIDTH_PX / around_px * ratio
    surroundings = cv2.addWeighted(wide, weights[0], narrow, weights[1], 0)
    is_seam = (strength >= MIN_SEAM_LEVELS) & (strength >= surroundings)
    is_seam[:, 1:] |= is_seam[:, :-1].copy()  # a seam between two columns shows in either
    counts: SeamCounts = np.diff(cv2.integral(is_seam.view(np.uint8)), axis=1)
    return counts


def _propose_rectangles(maps: _Maps) -> _Rectangles:
    """Score the rectangles between any two columns and two rows; keep those with MIN_SCORE."""
    xs, ys = _find_lines(maps.seams[0]), _find_lines(maps.seams[1])
    lefts, rights = np.triu_indices(len(xs), 1)
    tops, bottoms = np.triu_indices(len(ys), 1)
    columns = _measure_lines(maps.seams[0], xs, ys[tops], ys[bottoms])
    rows = _measure_lines(maps.seams[1], ys, xs[lefts], xs[rights])
    sides = np.stack(
        [columns[..., lefts], columns[..., rights], rows.mT[:, tops], rows.mT[:, bottoms]]
    )
    is_inside = ~np.isnan(sides)
    seam_shares, excess = np.where(is_inside, sides, 0).sum(axis=0) / np.maximum(
        1, is_inside.sum(axis=0)
    )
    crossing = np.maximum(
        _find_crossing(columns[0], lefts, rights), _find_crossing(rows[0], tops, bottoms).T
    )
    widths, heights = xs[rights] - xs[lefts], (ys[bottoms] - ys[tops])[:, None]
    areas = widths * heights / (maps.size[0] * maps.size[1])
    sums = maps.ground[np.ix_(ys, xs)].astype(np.int64)
    sums = sums[:, rights] - sums[:, lefts]
    ground = (sums[bottoms] - sums[tops]) / (widths * heights)
    ranks = SEAM_WEIGHT * seam_shares + EXCESS_WEIGHT * excess - GROUND_WEIGHT * ground
    scores = (
        ranks - CROSSING_WEIGHT * crossing + (1 - CROSSING_AREA_WEIGHT * crossing) * np.log(areas)
    )
    is_possible = (
        (MIN_AREA_SHARE <= areas) & (areas <= MAX_AREA_SHARE) & (ground < MAX_GROUND_SHARE)
    )
    is_possible &= np.maximum(widths, heights) <= MAX_ASPECT_RATIO * np.minimum(widths, heights)
    y, x = np.nonzero(is_possible & (scores >= MIN_SCORE))
    corners = np.stack([xs[lefts[x]], ys[tops[y]], xs[rights[x]], ys[bottoms[y]]], axis=1)
    return _Rectangles(corners, seam_shares[y, x], ranks[y, x])


def _find_lines(seams: SeamCounts) -> Integers:
    """Find the columns with the longest vertical seams, sorted, with both borders of the image."""
    counts = seams[::LENGTH_STEP_PX]
    rows = np.arange(0, len(seams), LENGTH_STEP_PX, dtype=np.float32)
    surplus = counts - np.float32(MIN_SEAM_SHARE_OF_LINE) * rows[:, None]
    longest = (surplus - np.minimum.accumulate(surplus, axis=0)).max(axis=0)
    longest[: MAX_BORDER_DISTANCE_PX + 1] = longest[-MAX_BORDER_DISTANCE_PX:] = 0
    min_surplus = (1 - MIN_SEAM_SHARE_OF_LINE) * MIN_LINE_LENGTH_SHARE * (len(seams) - 1)
    lines = [0, seams.shape[1]]
    while len(lines) < MAX_LINES + 2 and longest.max() >= min_surplus:
        column = int(longest.argmax())
        lines.append(column)
        longest[max(0, column - MIN_LINE_DISTANCE_PX + 1) : column + MIN_LINE_DISTANCE_PX] = 0
    return np.array(sorted(lines))


def _measure_lines(seams: SeamCounts, xs: Integers, starts: Integers, ends: Integers) -> Floats:
    """Measure the share of seams in columns `xs` between rows, and its excess over that around.

    Returns (2, rows, columns); NaN for the first and the last column, the borders of the image.
    """
    lengths = (ends - starts)[:, None]
    counts = seams[ends] - seams[starts]
    width = counts.shape[1]
    near = np.clip(xs[:, None] + np.arange(-1, 2), 0, width - 1)
    shares = counts[:, near].max(axis=-1) / lengths
    sums = np.zeros((len(counts), width + 1))
    np.cumsum(counts, axis=1, out=sums[:, 1:])

    def sum_columns(distance: int) -> tuple[Floats, Integers]:
        first, last = np.maximum(0, xs - distance), np.minimum(width, xs + distance + 1)
        return sums[:, last] - sums[:, first], last - first

    outer, outer_count = sum_columns(MAX_SURROUNDINGS_DISTANCE_PX)
    inner, inner_count = sum_columns(MAX_SIDE_DISTANCE_PX)
    around = (outer - inner) / (outer_count - inner_count) / lengths
    measured = np.stack([shares, shares - around])
    measured[..., [0, -1]] = np.nan
    return measured


def _find_crossing(shares: Floats, starts: Integers, ends: Integers) -> Floats:
    """Find the largest of `shares` (n, lines) between each two lines, (n, pairs); 0 if none is."""
    crossing = np.zeros((len(shares), len(starts)))
    for pair, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end > start + 1:
            crossing[:, pair] = shares[:, start + 1 : end].max(axis=1)
    return crossing


def _choose(rectangles: _Rectangles) -> _Rectangles:
    """Choose rectangles by rank, without those that contradict one of a higher rank."""
    waiting, chosen = np.argsort(-rectangles.ranks, kind="stable"), list[int]()
    areas = _measure_areas(rectangles.corners)
    while len(waiting) and len(chosen) < MAX_CHOSEN:
        best = int(waiting[0])
        chosen.append(best)
        common = _measure_overlaps(rectangles.corners[waiting], rectangles.corners[best])
        iou = common / (areas[waiting] + areas[best] - common)
        share = common / np.minimum(areas[waiting], areas[best])
        is_crossing = (share > MAX_CROSSING_SHARE) & (share < MIN_INSIDE_SHARE)
        waiting = waiting[(iou < MAX_IOU) & ~is_crossing]
    return rectangles.select(np.array(chosen, np.int64))


def _has_coarse_contrast(
    rgb: NDArray[np.uint8], left: int, top: int, right: int, bottom: int
) -> bool:
    """Tell a rectangle that shows something at a coarse scale from one full of text or noise."""
    pixels = rgb[top:bottom, left:right].astype(np.float32)
    grid = cv2.resize(pixels, COARSE_GRID, interpolation=cv2.INTER_AREA)
    contrast, coarse_contrast = (image.var(axis=(0, 1)).sum() for image in (pixels, grid))
    return bool(coarse_contrast >= MIN_COARSE_CONTRAST_SHARE**2 * contrast)


def _measure_areas(corners: Integers) -> Integers:
    areas: Integers = np.prod(np.maximum(0, corners[:, 2:] - corners[:, :2]), axis=1)
    return areas


def _measure_overlaps(corners: Integers, other: Integers) -> Integers:
    """Measure the area that each rectangle has in common with another one."""
    low, high = np.maximum(corners, other), np.minimum(corners, other)
    return _measure_areas(np.concatenate([low[:, :2], high[:, 2:]], axis=1))


def _find_wholes(rectangles: _Rectangles) -> Iterator[int]:
    """Yield the rectangles that no smaller ones with sides as good make up."""
    areas = _measure_areas(rectangles.corners)
    for index, corners in enumerate(rectangles.corners):
        overlaps = _measure_overlaps(rectangles.corners, corners)
        is_part = (areas < MAX_PART_AREA_SHARE * areas[index]) & (
            overlaps >= MIN_INSIDE_SHARE * areas
        )
        is_part &= rectangles.seam_shares >= rectangles.seam_shares[index] - MAX_SEAM_SHARE_LOST
        left, top, right, bottom = corners
        is_covered = np.zeros((bottom - top, right - left), np.bool_)
        for part in np.maximum(0, rectangles.corners[is_part] - [left, top, left, top]):
            is_covered[part[1] : part[3], part[0] : part[2]] = True
        if is_covered.mean() < MIN_COVERED_SHARE:
            yield index
