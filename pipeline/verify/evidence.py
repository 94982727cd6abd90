"""Measure what tells a copy from another shot or from other content in the same surroundings.

A copy can only lose something, or get an overlay. So where two aligned images differ, it
matters what each of them shows there (area_evidence), whether each has tones that the other lacks
(tones), and, where they agree, whether they share the noise of one exposure (noise).

All features are shares, correlations or logarithms. Of two numbers, one for each image, the smaller
comes first (`less`, `more`): they do not tell which image is the base.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.verify.area_evidence import AreaEvidence, measure_changed_areas
from pipeline.verify.cells import (
    CELL_SIDE_PX,
    CellMask,
    LocalStats,
    align,
    compute_local_stats,
)
from pipeline.verify.changed_areas import (
    MIN_CHANGED_TEXTURE,
    SideMaps,
    find_changed_areas,
    map_side,
)
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import compute_scale
from pipeline.verify.noise import correlate_noise
from pipeline.verify.order_statistics import compute_median, compute_percentile
from pipeline.verify.relation import Side
from pipeline.verify.tile_grid import TILE_SIDE_PX, average_tiles
from pipeline.verify.tiles import TileComparison
from pipeline.verify.tones import (
    ToneEvidence,
    compute_level_differences,
    find_clipped_side,
    measure_tones,
)

CLOSE_NCC = 0.95  # of a tile without visible change
LOW_NCC_PERCENTILE = 10
GAIN_PERCENTILE = 90
MIN_PHOTOGRAPHIC_TILE_SHARE = 0.5  # of the pixels of a tile with photographic texture
CELLS_PER_TILE_SIDE = TILE_SIDE_PX // CELL_SIDE_PX
NO_TILES = -0.1  # a share of no tiles: below any share
SHARPNESS_OFFSET = 0.3  # added to gradients in a ratio


class TileOutcomes(NamedTuple):
    """The tiles that agree in place, that are displaced, and that conflict, (rows, columns)."""

    agreeing: NDArray[np.bool_]
    displaced: NDArray[np.bool_]
    conflicting: NDArray[np.bool_]


class Geometry(NamedTuple):
    """The alignment of two images.

    `inliers`: keypoint matches that agree with the alignment. `overlap`: the share of each image
    that lies on the other. `skew`: shear or perspective that no crop, turn or stretch makes.
    """

    inliers: int
    overlap: tuple[float, float]
    skew: float


@dataclass(frozen=True, slots=True)
class TileEvidence:
    """The features of the tiles, and of the geometry."""

    inliers: float
    tiles: float
    agreeing: float
    closely_agreeing: float
    displaced: float
    conflicting: float
    median_ncc: float
    low_ncc: float
    ncc_gain: float
    overlap_less: float
    overlap_more: float
    scale: float
    skew: float


@dataclass(frozen=True, slots=True)
class TextureEvidence:
    """The features of what the images show; `less` and `more` are of the two sides.

    `surroundings`: share of photographic pixels that did not change. `flat`: share of flat ground
    in each whole image. `sharpness`: log ratio of the gradients that did not change.
    """

    surroundings_less: float
    surroundings_more: float
    sharpness: float
    flat_less: float
    flat_more: float
    line_art: float


@dataclass(frozen=True, slots=True)
class AgreementEvidence:
    """The features of how closely the images agree where they do.

    `photographic_tiles`: those that are photographic in both and agree; `photographic_agreeing`:
    their share of those that are photographic in one, `photographic_alike` in both. `noise_ncc`
    and `detail_ncc` are those of correlate_noise().
    """

    unchanged_ncc: float
    photographic_tiles: float
    photographic_agreeing: float
    photographic_alike: float
    noise_ncc: float
    detail_ncc: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All features of a pair that the judge decides on.

    The others are no features: `altered_side` is the image that was altered in places, and
    `clipped_side` that whose tones were clipped, where that shows; `detail_gain` is the log ratio
    of the gradients that did not change, the second over the first. The base is the first.
    """

    tiles: TileEvidence
    areas: AreaEvidence
    tones: ToneEvidence
    texture: TextureEvidence
    agreement: AgreementEvidence
    altered_side: Side | None
    clipped_side: Side | None
    detail_gain: float

    def swap_sides(self) -> Evidence:
        """Return the evidence on the pair in the other order; its features do not depend on it."""
        altered, clipped = (
            side.other if side else None for side in (self.altered_side, self.clipped_side)
        )
        return replace(
            self, altered_side=altered, clipped_side=clipped, detail_gain=-self.detail_gain
        )

    def to_vector(self) -> NDArray[np.float64]:
        """Return the features in the order of FEATURES."""
        return np.array(_read_features(self), np.float64)


_PATHS = tuple(
    f"{name}.{field.name}"
    for name, part in (
        ("tiles", TileEvidence),
        ("areas", AreaEvidence),
        ("tones", ToneEvidence),
        ("texture", TextureEvidence),
        ("agreement", AgreementEvidence),
    )
    for field in fields(part)
)
_read_features = attrgetter(*_PATHS)  # a tenth of the time of astuple(), which copies
FEATURES = tuple(path.split(".")[1] for path in _PATHS)


def measure_evidence(
    images: tuple[ImageFeatures, ImageFeatures],
    comparison: TileComparison,
    outcomes: TileOutcomes,
    geometry: Geometry,
) -> Evidence:
    """Measure the features of a pair, the base first, with at least one valid tile."""
    pair = align(*images, comparison)
    sides = map_side(pair.gray[0]), map_side(pair.gray[1])
    local = compute_local_stats(*pair.matched)
    level_differences = compute_level_differences(local, pair.inside)
    areas = find_changed_areas(local, level_differences, pair.inside)
    unchanged = pair.inside & ~areas.mask
    area_evidence, altered_side = measure_changed_areas(areas, pair, sides)
    texture, detail_gain = _measure_texture(images, sides, unchanged)
    return Evidence(
        _measure_tiles(comparison, outcomes, geometry),
        area_evidence,
        measure_tones(pair, level_differences, unchanged),
        texture,
        AgreementEvidence(
            _measure_unchanged_ncc(local, unchanged),
            *_compare_photographic_tiles(sides, comparison.valid, outcomes.agreeing),
            *correlate_noise(pair, unchanged),
        ),
        altered_side,
        find_clipped_side(pair),
        detail_gain,
    )


def _measure_tiles(
    comparison: TileComparison, outcomes: TileOutcomes, geometry: Geometry
) -> TileEvidence:
    valid = comparison.valid
    count, ncc = np.count_nonzero(valid), comparison.ncc[valid]
    gain = (comparison.best_ncc - comparison.ncc)[valid]
    agreeing, displaced, conflicting = (np.count_nonzero(mask) / count for mask in outcomes)
    return TileEvidence(
        inliers=math.log1p(geometry.inliers),
        tiles=math.log1p(count),
        agreeing=agreeing,
        closely_agreeing=np.count_nonzero(ncc >= CLOSE_NCC) / count,
        displaced=displaced,
        conflicting=conflicting,
        median_ncc=compute_median(ncc),
        low_ncc=compute_percentile(ncc, LOW_NCC_PERCENTILE),
        ncc_gain=compute_percentile(gain, GAIN_PERCENTILE),
        overlap_less=min(geometry.overlap),
        overlap_more=max(geometry.overlap),
        scale=abs(math.log(compute_scale(comparison.homography))),
        skew=min(geometry.skew, 1.0),
    )


def _measure_texture(
    images: tuple[ImageFeatures, ImageFeatures],
    sides: tuple[SideMaps, SideMaps],
    unchanged: CellMask,
) -> tuple[TextureEvidence, float]:
    """Also returns the log ratio of the gradients that did not change, second over first."""
    photographic, gradients = [0.0, 0.0], [1.0, 1.0]
    if unchanged.any():
        photographic = sorted(float(side.photographic[unchanged].mean()) for side in sides)
        gradients = [float(side.gradient[unchanged].mean()) + SHARPNESS_OFFSET for side in sides]
    flat = sorted(image.flat_share for image in images)
    detail_gain = math.log(gradients[1] / gradients[0])
    texture = TextureEvidence(
        surroundings_less=photographic[0],
        surroundings_more=photographic[1],
        sharpness=abs(detail_gain),
        flat_less=flat[0],
        flat_more=flat[1],
        line_art=float(images[0].is_line_art) + float(images[1].is_line_art),
    )
    return texture, detail_gain


def _measure_unchanged_ncc(local: LocalStats, unchanged: CellMask) -> float:
    """Measure the median NCC of the textured cells that did not change; 1 without any."""
    ncc = local.ncc[unchanged & (np.maximum(*local.variances) > MIN_CHANGED_TEXTURE**2)]
    return compute_median(ncc) if len(ncc) else 1.0


def _compare_photographic_tiles(
    sides: tuple[SideMaps, SideMaps], valid: NDArray[np.bool_], agreeing: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Count the tiles that are photographic in both images and agree; see AgreementEvidence."""
    first, second = (
        average_tiles(side.photographic, CELLS_PER_TILE_SIDE) > MIN_PHOTOGRAPHIC_TILE_SHARE
        for side in sides
    )
    in_one, in_both = (first | second) & valid, first & second & valid
    return (
        math.log1p(np.count_nonzero(in_both & agreeing)),
        _compute_share(agreeing, in_one),
        _compute_share(agreeing, in_both),
    )


def _compute_share(mask: NDArray[np.bool_], within: NDArray[np.bool_]) -> float:
    count = np.count_nonzero(within)
    return np.count_nonzero(mask & within) / count if count else NO_TILES
