"""Verify a candidate pair: align two thumbnails, compare them tile by tile, and give a verdict.

Alignments come from keypoints (matching). Each is refined and compared by pixels (tiles). The
counts of agreeing, displaced and conflicting tiles decide the relation; the edits of a copy follow
from the homography and the pixels (edits).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.edits import detect_edits, is_viewpoint_change
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import (
    Homography,
    build_unit_to_pixels,
    compute_scale,
    invert_homography,
)
from pipeline.verify.matching import Alignment, propose_alignments
from pipeline.verify.relation import Relation
from pipeline.verify.tile_grid import TILE_SIDE_PX
from pipeline.verify.tiles import TileComparison, compare_tiles
from pipeline.verify.verdict import (
    MIN_VALID_TILES,
    Box,
    Verdict,
    flatten_homography,
    project_box_back,
    round_box,
)

# Measured on copies of 40 kinds, and on look-alikes: docs/benchmarks/verify.md.
MIN_TILE_NCC = 0.8  # NCC from which a tile agrees
# A tile is displaced if it agrees at an offset beyond the first, and its NCC is better there by
# more than the second.
MIN_DISPLACEMENT_PX = 0.6
MIN_NCC_GAIN = 0.03
MIN_AGREEING_TILES = 4  # of a copy
MIN_COPY_SHARE = 0.8  # share of agreeing tiles that makes a copy
# An overlay may cover more: this share is enough if the median NCC of the agreeing tiles is at
# least the second, and if tiles agree in these numbers, in all and for each conflicting tile.
MIN_OVERLAID_COPY_SHARE = 0.45
MIN_OVERLAID_COPY_NCC = 0.95
MIN_OVERLAID_COPY_TILES = 10
MIN_AGREEING_PER_CONFLICT = 3
MAX_CONFLICTING_NCC = 0.4  # below, a tile with texture in both images shows different content
MAX_COPY_DISPLACED_SHARE = 0.1  # of the agreeing and displaced tiles of a copy
MIN_SCENE_SHARE = 0.5  # share of agreeing or displaced tiles that makes a scene
# Text and drawings are copies if every tile reaches the first, and no cell differs beyond others
# by more than the second: at most 4.3 times in 695 copies of 72 pages. Of 224 pages with one small
# digit changed 215 differ more, of 224 with two digits all.
MIN_LINE_ART_NCC = 0.98
MAX_CELL_OUTLIER = 5.0
MIN_REGION_TILES = 2  # adjacent tiles that differ make a changed region
MIN_KEYPOINTS = 8  # below, an image without an alignment is not verifiable


@dataclass(frozen=True, slots=True)
class TileMasks:
    """The outcome of each tile as masks (rows, columns).

    Tiles lie on the second image if `is_swapped`, else on the first. `origin` is the corner of the
    first tile, (x, y) in thumbnail pixels.
    """

    valid: NDArray[np.bool_]
    agreeing: NDArray[np.bool_]
    displaced: NDArray[np.bool_]
    origin: tuple[int, int]
    is_swapped: bool


def verify(first: ImageFeatures, second: ImageFeatures) -> Verdict:
    """Verify a pair. The verdict depends on the two images alone, and not on their order."""
    return verify_tiles(first, second)[0]


def verify_tiles(first: ImageFeatures, second: ImageFeatures) -> tuple[Verdict, TileMasks | None]:
    """Verify a pair; also return the tiles, None if none could be compared.

    The pair is always compared in one order, because a copy that just reaches a threshold in one
    order may miss it in the other. A pair whose numbers are singular is not verifiable.
    """
    try:
        if first <= second:
            return _verify_ordered_pair(first, second)
        verdict, tiles = _verify_ordered_pair(second, first)
        if tiles:
            tiles = replace(tiles, is_swapped=not tiles.is_swapped)
        return verdict.swap_sides(), tiles
    except (np.linalg.LinAlgError, cv2.error):
        return Verdict(Relation.NOT_VERIFIABLE), None


def _verify_ordered_pair(
    first: ImageFeatures, second: ImageFeatures
) -> tuple[Verdict, TileMasks | None]:
    """Return the verdict of the first alignment that shows a copy, else of the likeliest."""
    likeliest = None
    for alignment in propose_alignments(first, second):
        result = _verify_alignment(alignment, first, second)
        if result[0].relation in (Relation.SAME_PICTURE, Relation.DERIVED):
            return result
        likeliest = likeliest or result
    if likeliest:
        return likeliest
    fewest_keypoints = min(len(first.keypoints.points), len(second.keypoints.points))
    relation = Relation.UNRELATED if fewest_keypoints >= MIN_KEYPOINTS else Relation.NOT_VERIFIABLE
    return Verdict(relation), None


def _verify_alignment(
    alignment: Alignment, first: ImageFeatures, second: ImageFeatures
) -> tuple[Verdict, TileMasks | None]:
    # Tiles lie on the image with fewer pixels for the same content.
    is_swapped = compute_scale(alignment.homography) < 1.0
    template, target = (second, first) if is_swapped else (first, second)
    comparison = compare_tiles(
        template.gray,
        target.gray,
        invert_homography(alignment.homography) if is_swapped else alignment.homography,
        max(template.noise, target.noise),
    )
    if comparison is None or not comparison.valid.any():
        return Verdict(Relation.NOT_VERIFIABLE, alignment.inliers), None
    is_agreeing, is_displaced, is_conflicting = _judge_tiles(comparison)
    valid, agreeing, displaced, conflicting = (
        int(mask.sum()) for mask in (comparison.valid, is_agreeing, is_displaced, is_conflicting)
    )
    homography = _convert_to_unit_homography(
        invert_homography(comparison.homography) if is_swapped else comparison.homography,
        first,
        second,
    )
    median_ncc = float(np.median(comparison.ncc[is_agreeing])) if agreeing else 0.0
    relation, edits = _classify(valid, agreeing, displaced, conflicting, median_ncc), None
    if relation in (Relation.DERIVED, Relation.SAME_SCENE) and _is_altered_line_art(
        comparison, first, second
    ):
        relation = Relation.NOT_VERIFIABLE
    if relation == Relation.DERIVED:
        boxes = _find_changed_regions(
            comparison.valid & ~is_agreeing & ~is_displaced, comparison, template
        )
        if is_swapped:
            boxes = [project_box_back(homography, box) for box in boxes]
        edits = detect_edits(first, second, homography, tuple(boxes))
        relation = Relation.SAME_PICTURE if edits.is_same_picture else Relation.DERIVED
        if is_viewpoint_change(edits, homography, (first.size, second.size)):
            relation, edits = Relation.SAME_SCENE, None
    verdict = Verdict(
        relation,
        alignment.inliers,
        valid,
        round(agreeing / valid, 4),
        round(displaced / valid, 4),
        flatten_homography(homography),
        edits,
    )
    masks = TileMasks(comparison.valid, is_agreeing, is_displaced, comparison.origin, is_swapped)
    return verdict, masks


def _judge_tiles(
    comparison: TileComparison,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
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
    return is_agreeing, is_displaced, is_conflicting


def _is_altered_line_art(
    comparison: TileComparison, first: ImageFeatures, second: ImageFeatures
) -> bool:
    """Tell if text or drawings differ in some detail.

    Their background agrees regardless of the content, so that one poor tile or cell counts.
    """
    return (
        first.is_line_art
        and second.is_line_art
        and bool(
            comparison.ncc[comparison.valid].min() < MIN_LINE_ART_NCC
            or comparison.compute_cell_outlier_ratio() > MAX_CELL_OUTLIER
        )
    )


def _classify(
    valid: int, agreeing: int, displaced: int, conflicting: int, median_ncc: float
) -> Relation:
    """Classify a pair by its tile counts.

    Returns DERIVED for any copy, SAME_SCENE, UNRELATED, or NOT_VERIFIABLE below MIN_VALID_TILES.
    """
    share = agreeing / valid
    has_little_parallax = displaced <= MAX_COPY_DISPLACED_SHARE * (agreeing + displaced) + 1
    is_overlaid_copy = (
        share >= MIN_OVERLAID_COPY_SHARE
        and median_ncc >= MIN_OVERLAID_COPY_NCC
        and agreeing >= max(MIN_OVERLAID_COPY_TILES, MIN_AGREEING_PER_CONFLICT * conflicting)
    )
    is_copy = share >= MIN_COPY_SHARE or is_overlaid_copy
    if agreeing >= MIN_AGREEING_TILES and has_little_parallax and is_copy:
        return Relation.DERIVED
    if valid < MIN_VALID_TILES:
        return Relation.NOT_VERIFIABLE
    is_scene = agreeing + displaced >= MIN_SCENE_SHARE * valid
    return Relation.SAME_SCENE if is_scene else Relation.UNRELATED


def _convert_to_unit_homography(
    homography: Homography, first: ImageFeatures, second: ImageFeatures
) -> Homography:
    """Convert a homography between thumbnail pixels to normalized coordinates."""
    unit_homography = (
        np.linalg.inv(build_unit_to_pixels(second.gray.shape))
        @ homography
        @ build_unit_to_pixels(first.gray.shape)
    )
    return np.asarray(unit_homography / unit_homography[2, 2])


def _find_changed_regions(
    mask: NDArray[np.bool_], comparison: TileComparison, template: ImageFeatures
) -> list[Box]:
    """Find boxes around connected components of MIN_REGION_TILES or more, from the top.

    Boxes are in the normalized coordinates of the template image.
    """
    count, _, components, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    height, width = template.gray.shape
    boxes = []
    for left, top, columns, rows, tile_count in components[1:count].tolist():
        if tile_count >= MIN_REGION_TILES:
            x, y = (
                comparison.origin[0] + left * TILE_SIDE_PX,
                comparison.origin[1] + top * TILE_SIDE_PX,
            )
            boxes.append(
                (
                    x / width,
                    y / height,
                    (x + columns * TILE_SIDE_PX) / width,
                    (y + rows * TILE_SIDE_PX) / height,
                )
            )
    return sorted((round_box(*box) for box in boxes), key=lambda box: (box[1], box[0]))
