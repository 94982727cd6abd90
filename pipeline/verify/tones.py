"""Compare the tones of two aligned images.

An edit maps the tones of a photo by one curve: it can clip tones and lose their detail, but it
cannot bring clipped tones back. Of two exposures each can have detail that the other lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.verify.cells import (
    AlignedPair,
    CellMap,
    CellMask,
    LocalStats,
    compute_local_stats,
)
from pipeline.verify.changed_areas import MIN_CHANGED_LEVELS
from pipeline.verify.order_statistics import compute_median, compute_percentile
from pipeline.verify.relation import Side
from pipeline.verify.tile_grid import GrayPixels, halve

TONE_BINS = 32
LEVELS_PER_BIN = 1024.0  # between the bins of a sort, more than levels lie apart
MIN_BIN_CELLS = 2
MIDDLE_LEVEL = 127.5
CLIPPED_LEVELS = 5.0  # distance from black or white
MAX_CLIPPED_TEXTURE = 1.5  # in gray levels, of a cell that lost its detail
MIN_DETAIL_TEXTURE = 5.0  # of a cell that has detail
MIN_AMPLIFICATION = 1.25  # texture over texture, from which one image shows more contrast
MIN_COMPARED_TEXTURE = 2.0  # in gray levels, of a cell whose contrast is compared
VARIANCE_OFFSET = 0.3  # added to variances in a ratio
MIN_COMPARED_CELLS = 12
TONE_TAIL = 20  # percentile of the darkest and of the brightest cells
LEVEL_SCALE, RESIDUAL_SCALE = 64.0, 16.0  # bring differences in gray levels to about 0 to 1


# Pixels that are clipped in one image count if they are so far from black and white in the other,
# and vary there by so many levels (standard deviation): an image that was darkened later has no
# detail in its bright spots, either.
MIN_UNCLIPPED_LEVELS = 12.0
MIN_LOST_VARIATION_LEVELS = 3.0
MIN_CLIPPED_SHARE = 0.002  # of the overlap, from which one image was clipped
MIN_CLIPPED_RATIO = 4.0  # of that share and the other image's


@dataclass(frozen=True, slots=True)
class ToneEvidence:
    """The features of the tones of unchanged cells; `less` and `more` are of the two directions.

    `lost`: share of cells that are clipped in one and have detail in the other. `amplified`: share
    of cells in which one has more contrast; `amplified_ncc`: their NCC. `dark_ncc`, `bright_ncc`:
    that of the darkest and of the brightest cells.
    """

    tone_change: float
    tone_residual: float
    level_difference: float
    lost_less: float
    lost_more: float
    amplified_less: float
    amplified_more: float
    amplified_ncc_less: float
    amplified_ncc_more: float
    dark_ncc: float
    bright_ncc: float


def compute_level_differences(local: LocalStats, inside: CellMask) -> CellMap:
    """Compute by how many gray levels each cell differs once tones are matched.

    The tones of the second image are mapped by the median of each of TONE_BINS bins.
    """
    first, second = local.means
    position = (second + 128.0) * (TONE_BINS / 256.0)
    bins = np.clip(position[inside], 0, TONE_BINS - 1).astype(np.int32)
    # One sort of both: the cells of each bin follow each other, by the level of the first image.
    ordered = np.sort(bins * np.float32(LEVELS_PER_BIN) + first[inside]).astype(np.float64)
    ends = np.cumsum(np.bincount(bins, minlength=TONE_BINS))
    counts = np.diff(ends, prepend=0)
    used = np.flatnonzero(counts >= MIN_BIN_CELLS)
    if not len(used):
        return np.asarray(np.abs(first - second), np.float32)
    middle, count = ends[used] - (counts[used] + 1) // 2, counts[used]
    medians = (ordered[middle] + ordered[middle - 1 + count % 2]) / 2 - used * LEVELS_PER_BIN
    return np.asarray(np.abs(first - np.interp(position, used + 0.5, medians)), np.float32)


def measure_tones(
    pair: AlignedPair, level_differences: CellMap, unchanged: CellMask
) -> ToneEvidence:
    """Measure how the tones of the unchanged cells differ.

    The images are compared at half their size: below lies the noise of codecs.
    """
    local = compute_local_stats(*pair.halves)
    ratio = (local.variances[0] + VARIANCE_OFFSET) / (local.variances[1] + VARIANCE_OFFSET)
    is_compared = unchanged & (np.maximum(*local.variances) > MIN_COMPARED_TEXTURE**2)
    cell_count = max(int(np.count_nonzero(pair.inside)), 1)
    amplified = [
        is_compared & (ratio > MIN_AMPLIFICATION**2),
        is_compared & (ratio < MIN_AMPLIFICATION**-2),
    ]
    shares = sorted(int(np.count_nonzero(mask)) / cell_count for mask in amplified)
    nccs = sorted(_compute_masked_median(local.ncc, mask) for mask in amplified)
    lost = sorted(count / cell_count for count in _count_lost_cells(local, pair.inside))
    brightness = local.means[0] + local.means[1]
    compared = brightness[is_compared]
    low, high = (
        (compute_percentile(compared, percentile) for percentile in (TONE_TAIL, 100 - TONE_TAIL))
        if len(compared)
        else (0.0, 0.0)
    )
    change = halve(np.abs(pair.halves[0] - pair.halves[1]))
    return ToneEvidence(
        tone_change=_compute_masked_median(change, unchanged, 0.0) / LEVEL_SCALE,
        tone_residual=float(level_differences[unchanged].mean()) / RESIDUAL_SCALE
        if unchanged.any()
        else 0.0,
        level_difference=int(
            np.count_nonzero((level_differences > MIN_CHANGED_LEVELS) & pair.inside)
        )
        / cell_count,
        lost_less=lost[0],
        lost_more=lost[1],
        amplified_less=shares[0],
        amplified_more=shares[1],
        amplified_ncc_less=nccs[0],
        amplified_ncc_more=nccs[1],
        dark_ncc=_compute_masked_median(local.ncc, is_compared & (brightness <= low)),
        bright_ncc=_compute_masked_median(local.ncc, is_compared & (brightness >= high)),
    )


def _compute_masked_median(values: CellMap, mask: CellMask, default: float = 1.0) -> float:
    """Compute the median within a mask; `default` for fewer than MIN_COMPARED_CELLS cells."""
    compared = values[mask]
    return compute_median(compared) if len(compared) >= MIN_COMPARED_CELLS else default


def _count_lost_cells(local: LocalStats, inside: CellMask) -> tuple[int, int]:
    """Count the cells that are clipped on the one side and have detail on the other, both ways."""
    clipped = [
        inside & (np.abs(level - MIDDLE_LEVEL) > MIDDLE_LEVEL - CLIPPED_LEVELS)
        for level in local.means
    ]
    first, second = (
        int(
            np.count_nonzero(
                clipped[side]
                & ~clipped[1 - side]
                & (local.variances[side] < MAX_CLIPPED_TEXTURE**2)
                & (local.variances[1 - side] > MIN_DETAIL_TEXTURE**2)
            )
        )
        for side in (0, 1)
    )
    return first, second


def find_clipped_side(pair: AlignedPair) -> Side | None:
    """Find the image whose darkest or brightest tones were clipped, by the detail of the other.

    The base is the first. None if neither has lost such detail, or both have.
    """
    inside = np.repeat(np.repeat(pair.inside, 2, axis=0), 2, axis=1)
    from_black = pair.halves
    from_white = tuple(255.0 - pixels for pixels in pair.halves)
    first, second = (
        sum(
            _measure_lost_share(ends[side], ends[1 - side], inside)
            for ends in (from_black, from_white)
        )
        for side in (0, 1)
    )
    least, most = sorted((first, second))
    if most < MIN_CLIPPED_SHARE or most < MIN_CLIPPED_RATIO * least:
        return None
    return Side.FIRST if first > second else Side.SECOND


def _measure_lost_share(clipped: GrayPixels, other: GrayPixels, inside: CellMask) -> float:
    """Measure the share of pixels that are 0 in one image, and have detail in the other."""
    mask = inside & (clipped <= CLIPPED_LEVELS) & (other >= MIN_UNCLIPPED_LEVELS)
    count = int(np.count_nonzero(mask))
    if not count or float(other[mask].std()) < MIN_LOST_VARIATION_LEVELS:
        return 0.0
    return count / max(int(np.count_nonzero(inside)), 1)
