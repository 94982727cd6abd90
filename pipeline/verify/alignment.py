"""Align two images by keypoints and pixels, and compare them tile by tile.

Alignments come from keypoints (matching). Each is refined and compared by pixels (tiles).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from pipeline.verify.content import Content, compare_content
from pipeline.verify.edits import compute_skew, measure_overlap
from pipeline.verify.evidence import Evidence, Geometry, TileOutcomes, measure_evidence
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import (
    Homography,
    build_unit_to_pixels,
    compute_scale,
    invert_homography,
    invert_matrix,
)
from pipeline.verify.matching import Alignment, propose_alignments
from pipeline.verify.tiles import TileComparison, compare_tiles

# Measured on copies of 40 kinds, and on look-alikes: docs/benchmarks/verify.md.
MIN_TILE_NCC = 0.8  # NCC from which a tile agrees
# A tile is displaced if it agrees at an offset beyond the first, and its NCC is better there by
# more than the second.
MIN_DISPLACEMENT_PX = 0.6
MIN_NCC_GAIN = 0.03
MAX_CONFLICTING_NCC = 0.4  # below, a tile with texture in both images shows different content
# Pairs with fewer tiles that agree, or with a smaller share that agrees or is displaced, are not
# aligned, and are not judged.
MIN_AGREEING_TILES = 4
MIN_JUDGED_SHARE = 0.2
SINGULAR_ERRORS = (np.linalg.LinAlgError, cv2.error)  # of numbers without a solution

Result = TypeVar("Result")


class TileCounts(NamedTuple):
    """The numbers of tiles that are compared, that agree in place, and that are displaced."""

    valid: int
    agreeing: int
    displaced: int


@dataclass(frozen=True)
class AlignedImages:
    """Two images with the comparison of their tiles.

    The first image is the target and the second the base if `is_swapped`. `homography` maps
    the first image to the second, both in normalized coordinates. `overlap` is the share of each
    that lies on the other, the first image first.
    """

    base: ImageFeatures
    target: ImageFeatures
    is_swapped: bool
    comparison: TileComparison
    outcomes: TileOutcomes
    homography: Homography
    inliers: int
    overlap: tuple[float, float]

    @cached_property
    def geometry(self) -> Geometry:
        """The alignment, with its skew; most pairs that are aligned by chance are not judged."""
        first, second = self.base.size, self.target.size
        sizes = (second, first) if self.is_swapped else (first, second)
        return Geometry(self.inliers, self.overlap, compute_skew(self.homography, sizes))

    @cached_property
    def counts(self) -> TileCounts:
        """The numbers of tiles by their outcome."""
        masks = self.comparison.valid, self.outcomes.agreeing, self.outcomes.displaced
        return TileCounts(*(int(np.count_nonzero(mask)) for mask in masks))

    @property
    def is_judged(self) -> bool:
        """True if enough tiles agree for the alignment to be right."""
        valid, agreeing, displaced = self.counts
        return agreeing >= MIN_AGREEING_TILES and agreeing + displaced >= MIN_JUDGED_SHARE * valid

    def measure_evidence(self) -> Evidence:
        """Measure what the judge decides on; its side and its gain are of the first and second."""
        evidence = measure_evidence(
            (self.base, self.target), self.comparison, self.outcomes, self.geometry
        )
        return evidence.swap_sides() if self.is_swapped else evidence

    def compare_content(self) -> Content | None:
        """Compare the photos in both images, if they are hosts."""
        return compare_content((self.base, self.target), self.comparison, self.outcomes)


def evaluate_alignments(
    first: ImageFeatures,
    second: ImageFeatures,
    evaluate: Callable[[Alignment, ImageFeatures, ImageFeatures], Result],
) -> Iterator[Result | None]:
    """Evaluate each alignment of two images, the likeliest first; None for a singular one."""
    for alignment in propose_alignments(first, second):
        try:
            result = evaluate(alignment, first, second)
        except SINGULAR_ERRORS:
            yield None
        else:
            yield result


def align_and_compare(
    alignment: Alignment, first: ImageFeatures, second: ImageFeatures
) -> AlignedImages | None:
    """Refine an alignment and compare the tiles of two images; None if none can be compared.

    Tiles lie on the image with fewer pixels for the same content.
    """
    is_swapped = compute_scale(alignment.homography) < 1.0
    base, target = (second, first) if is_swapped else (first, second)
    comparison = compare_tiles(
        base.gray,
        target.gray,
        invert_homography(alignment.homography) if is_swapped else alignment.homography,
        max(base.noise, target.noise),
    )
    if comparison is None or not comparison.valid.any():
        return None
    refined = comparison.homography
    homography = _convert_to_unit_homography(
        invert_homography(refined) if is_swapped else refined, first, second
    )
    return AlignedImages(
        base,
        target,
        is_swapped,
        comparison,
        _classify_tiles(comparison),
        homography,
        alignment.inliers,
        (measure_overlap(homography), measure_overlap(invert_homography(homography))),
    )


def _classify_tiles(comparison: TileComparison) -> TileOutcomes:
    """Find the tiles that agree in place, that are displaced, and that conflict."""
    is_displaced = (
        comparison.valid
        & (comparison.best_ncc >= MIN_TILE_NCC)
        & (comparison.best_ncc - comparison.ncc > MIN_NCC_GAIN)
        & (np.hypot(*np.moveaxis(comparison.displacement, -1, 0)) > MIN_DISPLACEMENT_PX)
    )
    is_agreeing = comparison.valid & (comparison.ncc >= MIN_TILE_NCC) & ~is_displaced
    is_conflicting = (
        comparison.textured_in_both & (comparison.ncc < MAX_CONFLICTING_NCC) & ~is_displaced
    )
    return TileOutcomes(is_agreeing, is_displaced, is_conflicting)


def _convert_to_unit_homography(
    homography: Homography, first: ImageFeatures, second: ImageFeatures
) -> Homography:
    """Convert a homography between thumbnail pixels to normalized coordinates."""
    unit_homography = (
        invert_matrix(build_unit_to_pixels(second.gray.shape))
        @ homography
        @ build_unit_to_pixels(first.gray.shape)
    )
    return np.asarray(unit_homography / unit_homography[2, 2])
