"""Find the areas in which two aligned images differ, and measure what each shows there.

An overlay lies on one image alone: all its edges are on that side, and the other side shows a
natural continuation of the photo. A thing that moved leaves edges on one side where it was, and on
the other side where it is. Other content in one template has edges on both sides. A blurred or
pixelated area still agrees at low frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.base_tiles import measure_gradient
from pipeline.verify.cells import (
    CELL_SIDE_PX,
    AlignedPair,
    CellMap,
    CellMask,
    LocalStats,
    average_cells,
    compute_ncc,
)
from pipeline.verify.relation import Side

MAX_CHANGED_NCC = 0.6  # below, a textured cell differs
MIN_CHANGED_TEXTURE = 3.5  # standard deviation in gray levels
MIN_CHANGED_LEVELS = 30.0  # a flat cell differs by more, once tones are matched
MIN_AREA_CELLS = 6
# Gradients in gray levels a pixel: below the first a pixel is flat, above the second it lies on a
# hard edge. Photographs have most of their texture in between, graphics have little there.
MIN_PHOTOGRAPHIC_GRADIENT = 1.5
MAX_PHOTOGRAPHIC_GRADIENT = 24.0
MIN_PHOTOGRAPHIC_SHARE = 0.45  # of the pixels of an area that is photographic
LOW_PASS_SIGMA_CELLS = 1.25
MIN_LOW_PASS_VARIANCE = 4.0  # lower bound in a ratio, in squared gray levels
MIN_LOW_PASS_NCC = 0.8  # of an area that is the other one smoothed
MAX_SMOOTHED_RATIO = 0.65  # its mean gradient over that of the other
MIN_SMOOTHED_SHARE = 0.5  # of the changed cells, from which one image is the other smoothed there
# An overlay adds detail by this log ratio. Of 517 copies whose second image was altered, 157 show
# it so, and 9 of the first image; a blur shows in 37, and wrongly in 11. Without the bound on
# palettes, 49 and 30.
MIN_ADDED_DETAIL = 0.4
MIN_BLURRED_PALETTE = 0.1  # share in the two most frequent tones that a blurred side has more
GRADIENT_OFFSET = 1.5  # added to gradients in a ratio, in gray levels a pixel
MIN_ONE_SIDED_LOG_RATIO = 0.3  # of the gradients of both sides, from which edges lie on one
MIN_OTHER_CONTENT_AREA = 0.25  # of all cells, in one area in which each shows its own photo
MIN_OTHER_CONTENT_SHARE = 0.6  # of the changed cells, photographic in both
MAX_OTHER_CONTENT_NCC = 0.5  # of the low frequencies there
PALETTE_BINS = 32
MIN_DIFFERING_LEVELS = 24.0  # of pixels whose tones are counted
MIN_WEIGHTY_SHARE = 0.02  # of the changed cells, below which an area proves nothing by itself


@dataclass(frozen=True, slots=True)
class SideMaps:
    """The content of one image in each cell: its mean gradient, and the shares of its pixels.

    `photographic`: share with a gradient between flat and hard; `hard`: share on hard edges.
    """

    gradient: CellMap
    photographic: CellMap
    hard: CellMap


@dataclass(frozen=True, slots=True)
class ChangedAreas:
    """Areas of adjacent cells that differ; `labels` (rows, columns) is 0 outside, else from 1.

    `cells` (areas,) counts the cells of each; `boxes` (areas, 4) are left, top, width and height.
    """

    labels: NDArray[np.int32]
    cells: NDArray[np.float64]
    boxes: NDArray[np.int32]

    @property
    def mask(self) -> CellMask:
        """The cells of all areas."""
        return np.asarray(self.labels > 0)

    def average(self, values: CellMap) -> NDArray[np.float64]:
        """Average a map over each area, (areas,)."""
        return _average_labels(self.labels, values, len(self.cells))


@dataclass(frozen=True, slots=True)
class AreaEvidence:
    """The features of changed areas; `less` and `more` are the smaller and the larger of two sides.

    Shares are of the changed cells, but `changed` and `largest_area` of all cells. `seams`: log
    ratio of the gradients along the outlines, summed over the areas with more on one side;
    `insides`: the same within the outlines. `both_hard`: the smaller of the two sides' shares of
    hard edges, in the area in which it is largest, as where two texts differ. `palette_more`: the
    share of the differing pixels of an area in its two most frequent tones, large for graphics and
    text, of the side with more.
    """

    changed: float
    areas: float
    largest_area: float
    area_fill: float
    at_border: float
    photographic_less: float
    photographic_more: float
    both_photographic: float
    both_graphic: float
    one_sided: float
    hard_less: float
    hard_more: float
    both_hard: float
    palette_more: float
    seam_less: float
    seam_more: float
    seams_less: float
    seams_more: float
    insides_less: float
    insides_more: float
    minority_areas: float
    minority_seam: float
    low_pass_ncc: float
    smoothed: float


NO_AREAS = AreaEvidence(
    **dict.fromkeys(AreaEvidence.__dataclass_fields__, 0.0)
    | {"area_fill": 1.0, "low_pass_ncc": 1.0}
)


def map_side(gray: NDArray[np.float32]) -> SideMaps:
    """Measure what an image (height, width) shows in each cell."""
    gradient = measure_gradient(gray)
    above_flat, hard = (
        average_cells(np.asarray(cv2.threshold(gradient, level, 1.0, cv2.THRESH_BINARY)[1]))
        for level in (MIN_PHOTOGRAPHIC_GRADIENT, MAX_PHOTOGRAPHIC_GRADIENT)
    )
    return SideMaps(average_cells(gradient), above_flat - hard, hard)


def find_changed_areas(
    local: LocalStats, level_differences: CellMap, inside: CellMask
) -> ChangedAreas:
    """Find areas of MIN_AREA_CELLS or more that differ in texture or, if flat, in level."""
    is_textured = np.maximum(*local.variances) > MIN_CHANGED_TEXTURE**2
    differs = (is_textured & (local.ncc < MAX_CHANGED_NCC)) | (
        level_differences > MIN_CHANGED_LEVELS
    )
    closed = cv2.morphologyEx(
        (inside & differs).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)
    )
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    is_large = stats[:, cv2.CC_STAT_AREA] >= MIN_AREA_CELLS
    is_large[0] = False
    new_labels = np.cumsum(is_large) * is_large
    return ChangedAreas(
        np.asarray(new_labels[labels], np.int32),
        stats[is_large, cv2.CC_STAT_AREA].astype(np.float64),
        stats[is_large, : cv2.CC_STAT_AREA],
    )


def measure_changed_areas(
    areas: ChangedAreas, pair: AlignedPair, sides: tuple[SideMaps, SideMaps]
) -> tuple[AreaEvidence, Side | None]:
    """Measure what each side shows in the changed areas; NO_AREAS if there are none.

    Also returns the side that was altered there, where that shows.
    """
    if not len(areas.cells):
        return NO_AREAS, None
    weights = areas.cells / areas.cells.sum()
    photographic = [areas.average(side.photographic) for side in sides]
    is_photographic = [shares > MIN_PHOTOGRAPHIC_SHARE for shares in photographic]
    photographic_shares = sorted(float(weights @ shares) for shares in photographic)
    hard = [areas.average(side.hard) for side in sides]
    hard_shares = sorted(float(weights @ shares) for shares in hard)
    outline, unchanged = _find_outline(areas, pair.inside), pair.inside & ~areas.mask
    seams = _compare_seams(areas, sides, outline)
    gradients = [areas.average(side.gradient) for side in sides]
    insides = _compute_log_ratio(*gradients)
    seam_sums, inside_sums = (_sum_by_side(values, weights) for values in (seams, insides))
    is_one_sided = [int((sign * seams > MIN_ONE_SIDED_LOG_RATIO).sum()) for sign in (1, -1)]
    weighty_seams = seams * (weights > MIN_WEIGHTY_SHARE)
    around = [float(side.gradient[unchanged].mean()) if unchanged.any() else None for side in sides]
    seam_contrasts = sorted(
        _measure_seam_contrast(side, outline, usual)
        for side, usual in zip(sides, around, strict=True)
    )
    low_pass_ncc, smoothed = _compare_low_frequencies(areas, pair, insides)
    palettes = _measure_palettes(areas, pair)
    box_cells = areas.boxes[:, cv2.CC_STAT_WIDTH] * areas.boxes[:, cv2.CC_STAT_HEIGHT]
    cell_count = max(int(pair.inside.sum()), 1)
    evidence = AreaEvidence(
        changed=float(areas.cells.sum() / cell_count),
        areas=float(np.log1p(len(areas.cells))),
        largest_area=float(areas.cells.max() / cell_count),
        area_fill=float(areas.cells.sum() / box_cells.sum()),
        at_border=float(weights @ _touches_border(areas)),
        photographic_less=photographic_shares[0],
        photographic_more=photographic_shares[1],
        both_photographic=float(weights @ (is_photographic[0] & is_photographic[1])),
        both_graphic=float(weights @ ~(is_photographic[0] | is_photographic[1])),
        one_sided=float(abs(weights @ (photographic[0] - photographic[1]))),
        hard_less=hard_shares[0],
        hard_more=hard_shares[1],
        both_hard=float(np.minimum(*hard).max()),
        palette_more=max(float(weights @ shares) for shares in palettes),
        seam_less=seam_contrasts[0],
        seam_more=seam_contrasts[1],
        seams_less=seam_sums[0],
        seams_more=seam_sums[1],
        insides_less=inside_sums[0],
        insides_more=inside_sums[1],
        minority_areas=min(is_one_sided) / max(sum(is_one_sided), 1),
        minority_seam=float(max(min(weighty_seams.max(), (-weighty_seams).max()), 0.0)),
        low_pass_ncc=low_pass_ncc,
        smoothed=float(weights @ smoothed),
    )
    # In geometric mean of the sides; without unchanged cells there is nothing to exceed.
    adds_detail = (
        None not in around
        and prod(
            (float(weights @ inside) + GRADIENT_OFFSET) / ((usual or 0.0) + GRADIENT_OFFSET)
            for inside, usual in zip(gradients, around, strict=True)
        )
        >= 1.0
    )
    return evidence, _find_altered_side(
        float(weights @ insides),
        float(weights @ (palettes[0] - palettes[1])),
        evidence.smoothed,
        adds_detail=adds_detail,
    )


def shows_other_content(areas: AreaEvidence) -> bool:
    """Tell if both images show a photo of their own in a large area, as collages of two photos do.

    Under an overlay one of two copies still shows the photo. Of 11,808 pairs of copies that the
    judge accepts 51 have such an area, most of them photos pasted on photos.
    """
    return (
        areas.largest_area >= MIN_OTHER_CONTENT_AREA
        and areas.both_photographic >= MIN_OTHER_CONTENT_SHARE
        and areas.low_pass_ncc < MAX_OTHER_CONTENT_NCC
    )


def _average_labels(
    labels: NDArray[np.int32], values: NDArray[np.floating], count: int
) -> NDArray[np.float64]:
    """Average values over the cells of each label from 1 to `count`; 0 for a label without any."""
    flat = labels.ravel()
    cells = np.bincount(flat, minlength=count + 1)[1:]
    sums = np.bincount(flat, weights=values.ravel(), minlength=count + 1)[1:]
    return np.asarray(sums / np.maximum(cells, 1))


def _compute_log_ratio(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(np.log((first + GRADIENT_OFFSET) / (second + GRADIENT_OFFSET)))


def _find_outline(areas: ChangedAreas, inside: CellMask) -> CellMask:
    """Find the cells along the outlines of all areas, within and without."""
    mask, kernel = areas.mask.astype(np.uint8), np.ones((3, 3), np.uint8)
    return np.asarray((cv2.dilate(mask, kernel) > cv2.erode(mask, kernel)) & inside)


def _compare_seams(
    areas: ChangedAreas, sides: tuple[SideMaps, SideMaps], outline: CellMask
) -> NDArray[np.float64]:
    """Compute the log ratio of the gradients of both sides along the outline of each area."""
    grown = cv2.dilate(areas.labels.astype(np.float32), np.ones((3, 3), np.uint8))
    outlines = np.where(outline, grown, 0).astype(np.int32)
    first, second = (_average_labels(outlines, side.gradient, len(areas.cells)) for side in sides)
    return _compute_log_ratio(first, second)


def _measure_seam_contrast(side: SideMaps, outline: CellMask, usual: float | None) -> float:
    """Measure the gradient along all outlines over the usual one, that of the unchanged cells."""
    if not outline.any():
        return 0.0
    return float(side.gradient[outline].mean()) / max(usual or 0.0, 1.0)


def _sum_by_side(
    log_ratios: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Sum the log ratios of the areas that lean to either side; the smaller sum comes first."""
    sums = sorted(float(weights @ np.maximum(sign * log_ratios, 0.0)) for sign in (1, -1))
    return sums[0], sums[1]


def _measure_palettes(
    areas: ChangedAreas, pair: AlignedPair
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure the share of the two most frequent tones in each area, (areas,), on both sides.

    Only pixels that differ count; 0 for an area without any.
    """
    first, second = pair.gray
    labels = np.repeat(np.repeat(areas.labels, CELL_SIDE_PX, axis=0), CELL_SIDE_PX, axis=1)
    labels = np.where(np.abs(first - second) > MIN_DIFFERING_LEVELS, labels, 0)
    differing = np.flatnonzero(labels)
    numbers = (labels.ravel()[differing] - 1) * PALETTE_BINS
    shares = []
    for gray in (first, second):
        bins = (gray.ravel()[differing] * (PALETTE_BINS / 256.0)).astype(np.int32)
        counts = np.bincount(numbers + bins, minlength=len(areas.cells) * PALETTE_BINS)
        counts = counts.reshape(-1, PALETTE_BINS)
        total, frequent = np.maximum(counts.sum(axis=1), 1), np.zeros(len(counts))
        for _ in range(2):
            # A tone of noise lies in two adjacent bins.
            tones = counts[:, :-1] + counts[:, 1:]
            best = tones.argmax(axis=1)
            frequent += tones[np.arange(len(tones)), best]
            for offset in (0, 1):
                counts[np.arange(len(tones)), best + offset] = 0
        shares.append(frequent / total)
    return shares[0], shares[1]


def _touches_border(areas: ChangedAreas) -> NDArray[np.bool_]:
    left, top, width, height = areas.boxes.T
    rows, columns = areas.labels.shape
    touches = (left == 0) | (top == 0) | (left + width >= columns) | (top + height >= rows)
    return np.asarray(touches)


def _compare_low_frequencies(
    areas: ChangedAreas, pair: AlignedPair, insides: NDArray[np.float64]
) -> tuple[float, NDArray[np.bool_]]:
    """Compare both sides without their details.

    Returns the NCC over all areas, and which areas are the other side smoothed (areas,).
    """
    first, second = (
        cv2.GaussianBlur(cells, (0, 0), LOW_PASS_SIGMA_CELLS).astype(np.float64)
        for cells in pair.cells
    )
    products = [first, second, first * first, second * second, first * second]
    averages = [areas.average(np.asarray(values)) for values in products]
    weights = areas.cells / areas.cells.sum()
    pooled = [np.array([weights @ values]) for values in averages]
    is_smoother = np.exp(-np.abs(insides)) < MAX_SMOOTHED_RATIO
    return (
        float(_compute_low_pass_ncc(*pooled)[0]),
        (_compute_low_pass_ncc(*averages) > MIN_LOW_PASS_NCC) & is_smoother,
    )


def _find_altered_side(
    detail: float, palette: float, smoothed_share: float, *, adds_detail: bool
) -> Side | None:
    """Find the side on which the changed areas were altered; None where that does not show.

    `detail` is the log ratio of the gradients there, the first side over the second; `palette` the
    difference of the shares of the two most frequent tones. Lettering and stickers add detail to
    one side, so that the two have more there, in geometric mean, than around it (`adds_detail`). A
    blur takes it away, and leaves fewer tones.
    """
    sharper = Side.FIRST if detail > 0 else Side.SECOND
    if adds_detail:
        return sharper if abs(detail) > MIN_ADDED_DETAIL else None
    sign = 1 if sharper is Side.FIRST else -1
    # Where no pixel differs by much, as lettering does, neither side has a palette.
    is_blur = smoothed_share >= MIN_SMOOTHED_SHARE and (
        palette == 0.0 or sign * palette <= -MIN_BLURRED_PALETTE
    )
    return sharper.other if is_blur else None


def _compute_low_pass_ncc(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    first_square: NDArray[np.float64],
    second_square: NDArray[np.float64],
    product: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Compute NCC from the averages of two images, of their squares and of their product."""
    variances = first_square - first**2, second_square - second**2
    return compute_ncc((first, second), variances, product, MIN_LOW_PASS_VARIANCE)
