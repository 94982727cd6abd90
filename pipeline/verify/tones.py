"""Compare the tones of two aligned images.

An edit maps the tones of a photo by one curve: it can clip tones and lose their detail, but it
cannot bring clipped tones back. Of two exposures each can have detail that the other lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.verify.aligned import (
    AlignedPair,
    CellMap,
    CellMask,
    LocalStats,
    compute_local_stats,
    halve,
)
from pipeline.verify.changed_areas import MIN_CHANGED_LEVELS
from pipeline.verify.order_statistics import compute_median, compute_percentile

TONE_BINS = 32
LEVELS_PER_BIN = 1024.0  # between the bins of a sort, more than levels lie apart
MIN_BIN_CELLS = 2
CLIPPED_LEVELS = 5.0  # distance from black or white
MAX_CLIPPED_TEXTURE = 1.5  # in gray levels, of a cell that lost its detail
MIN_DETAIL_TEXTURE = 5.0  # of a cell that has detail
MIN_AMPLIFICATION = 1.25  # texture over texture, from which one image shows more contrast
MIN_TEXTURE = 2.0  # of cells whose contrast is compared
VARIANCE_OFFSET = 0.3  # added to variances in a ratio
MIN_COMPARED_CELLS = 12
TONE_TAIL = 20  # percentile of the darkest and of the brightest cells
LEVEL_SCALE, RESIDUAL_SCALE = 64.0, 16.0  # bring differences in gray levels to about 0 to 1


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
    bins = np.clip(position[inside], 0, TONE_BINS - 1).astype(np.int64)
    # One sort of both: the cells of each bin follow each other, by the level of the first image.
    ordered = np.sort(bins * LEVELS_PER_BIN + first[inside].astype(np.float64))
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
    ratio = np.sqrt(
        (local.textures[0] ** 2 + VARIANCE_OFFSET) / (local.textures[1] ** 2 + VARIANCE_OFFSET)
    )
    is_compared = unchanged & (np.maximum(*local.textures) > MIN_TEXTURE)
    cell_count = max(int(pair.inside.sum()), 1)
    amplified = [
        is_compared & (ratio > MIN_AMPLIFICATION),
        is_compared & (ratio < 1.0 / MIN_AMPLIFICATION),
    ]
    shares = sorted(float(mask.sum() / cell_count) for mask in amplified)
    nccs = sorted(_compute_masked_median(local.ncc, mask) for mask in amplified)
    lost = sorted(_measure_lost_share(local, side, pair.inside) for side in (0, 1))
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
        level_difference=float(
            (level_differences[pair.inside] > MIN_CHANGED_LEVELS).sum() / cell_count
        ),
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


def _measure_lost_share(local: LocalStats, side: int, inside: CellMask) -> float:
    """Measure the share of cells that are clipped on a side and have detail on the other."""
    level, texture = local.means[side], local.textures[side]
    is_clipped = (level < CLIPPED_LEVELS) | (level > 255.0 - CLIPPED_LEVELS)
    other = local.means[1 - side]
    is_other_clipped = (other < CLIPPED_LEVELS) | (other > 255.0 - CLIPPED_LEVELS)
    has_lost = is_clipped & (texture < MAX_CLIPPED_TEXTURE) & ~is_other_clipped
    has_lost &= local.textures[1 - side] > MIN_DETAIL_TEXTURE
    return float((has_lost & inside).sum() / max(int(inside.sum()), 1))
