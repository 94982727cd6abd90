"""Measure what two aligned images show in the areas in which they differ.

An overlay lies on one image alone: all its edges are on that side, and the other side shows a
natural continuation of the photo. A thing that moved leaves edges on one side where it was, and on
the other side where it is. Other content in one template has edges on both sides. A blurred or
pixelated area still agrees at low frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.altered_side import adds_detail, find_altered_side
from pipeline.verify.cells import CELL_SIDE_PX, AlignedPair, CellMask, compute_ncc
from pipeline.verify.changed_areas import GRADIENT_OFFSET, ChangedAreas, SideMaps, average_labels
from pipeline.verify.relation import Side

MIN_PHOTOGRAPHIC_SHARE = 0.45  # of the pixels of an area that is photographic
LOW_PASS_SIGMA_CELLS = 1.25
MIN_LOW_PASS_VARIANCE = 4.0  # lower bound in a ratio, in squared gray levels
MIN_LOW_PASS_NCC = 0.8  # of an area that is the other one smoothed
MAX_SMOOTHED_RATIO = 0.65  # its mean gradient over that of the other
MIN_ONE_SIDED_LOG_RATIO = 0.3  # of the gradients of both sides, from which edges lie on one
MIN_OTHER_CONTENT_AREA = 0.25  # of all cells, in one area in which each shows its own photo
MIN_OTHER_CONTENT_SHARE = 0.6  # of the changed cells, photographic in both
MAX_OTHER_CONTENT_NCC = 0.5  # of the low frequencies there
PALETTE_BINS = 32
MIN_DIFFERING_LEVELS = 24.0  # of pixels whose tones are counted
MIN_WEIGHTY_SHARE = 0.02  # of the changed cells, below which an area proves nothing by itself


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
    return evidence, find_altered_side(
        float(weights @ insides),
        float(weights @ (palettes[0] - palettes[1])),
        evidence.smoothed,
        adds_detail=adds_detail([float(weights @ inside) for inside in gradients], around),
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
    first, second = (average_labels(outlines, side.gradient, len(areas.cells)) for side in sides)
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
