"""A candidate pair is looked at again: two pictures, small, become what they are to each other, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.edits import detect_edits, is_viewpoint_change
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import Homography, compute_scale, invert_homography, unit_to_pixels
from pipeline.verify.matching import Alignment, propose_alignments
from pipeline.verify.relation import Relation
from pipeline.verify.residual import TILE_SIDE_PX, Residual, compute_residual
from pipeline.verify.verdict import (
    MIN_VALID_TILES,
    Box,
    Verdict,
    flatten_homography,
    project_box_back,
    round_box,
)

# Measured on copies of 40 kinds, and on look-alikes: scripts/results/verify.md.
MIN_TILE_NCC = 0.8  # the correlation from which on a tile is the same
MIN_DISPLACEMENT_PX, MIN_NCC_GAIN = (
    0.6,
    0.03,
)  # pixels that a tile moved, and by how much its correlation is better there, to be the same elsewhere
MIN_AGREEING_TILES = 4  # that must agree
MIN_COPY_SHARE = 0.8  # the share of tiles that makes a copy
MIN_OVERLAID_COPY_SHARE, MIN_OVERLAID_COPY_NCC = (
    0.45,
    0.95,
)  # so does this share, where the median of those that agree is so clean: then something lies on the rest
MIN_OVERLAID_COPY_TILES, MAX_CLASH_NCC, MIN_AGREEING_PER_CLASH = (
    10,
    0.4,
    3,
)  # but so many must agree, and for each that shows other things, with less than that correlation, so many
MAX_COPY_DISPLACED_SHARE = (
    0.1  # the share of those that agree or moved that may have moved in a copy
)
MIN_SCENE_SHARE = (
    0.5  # the share of tiles that agree or moved, from which on two pictures show one scene
)
# What every tile of two texts or drawings agrees by at least, and the most by which one cell differs beyond others: 4.3 in 695 copies of
# 72 pages. Of 224 pages in which one small digit is another 215 differ more, of 224 with two all.
MIN_LINE_ART_NCC, MAX_CELL_OUTLIER = 0.98, 5.0
MIN_KEYPOINTS = 8  # keypoints, with fewer of which a picture cannot be told from others


@dataclass(frozen=True, slots=True)
class TileMasks:
    """What was seen of each tile: (rows, columns), True or False. They lie on the second picture where `swapped`, else on the first,
    beginning at `origin`, pixels (x, y) of its sketch.
    """

    valid: NDArray[np.bool_]
    agreeing: NDArray[np.bool_]
    displaced: NDArray[np.bool_]
    origin: tuple[int, int]
    is_swapped: bool


def verify(first: ImageFeatures, second: ImageFeatures) -> Verdict:
    """What two pictures are to each other. The same for the same two, whatever was asked before, and whichever comes first."""
    return verify_tiles(first, second)[0]


def verify_tiles(first: ImageFeatures, second: ImageFeatures) -> tuple[Verdict, TileMasks | None]:
    """As verify(), with what it saw; None where no tile could be compared.

    One order is looked at, whichever was asked for: what is just enough for a copy in one would be just too little in the other. Where the
    numbers of two odd pictures lead to no transform that could be one, nothing is said of them.
    """
    try:
        if first <= second:
            return _verify_ordered_pair(first, second)
        evidence, tiles = _verify_ordered_pair(second, first)
        return evidence.swap_sides(), replace(
            tiles, is_swapped=not tiles.is_swapped
        ) if tiles else None
    except (np.linalg.LinAlgError, cv2.error):
        return Verdict(Relation.NOT_VERIFIABLE), None


def _verify_ordered_pair(
    first: ImageFeatures, second: ImageFeatures
) -> tuple[Verdict, TileMasks | None]:
    likeliest = None
    for way in propose_alignments(first, second):
        found = _verify_alignment(way, first, second)
        if found[0].relation in (Relation.SAME_PICTURE, Relation.DERIVED):
            return found
        likeliest = likeliest or found
    if likeliest:
        return likeliest
    seen = min(len(first.keypoints.points), len(second.keypoints.points))
    return Verdict(Relation.UNRELATED if seen >= MIN_KEYPOINTS else Relation.NOT_VERIFIABLE), None


def _verify_alignment(
    alignment: Alignment, first: ImageFeatures, second: ImageFeatures
) -> tuple[Verdict, TileMasks | None]:
    swapped = (
        compute_scale(alignment.homography) < 1.0
    )  # the one that has fewer pixels for the same thing is gone over tile by tile
    one, other = (second, first) if swapped else (first, second)
    rest = compute_residual(
        one.gray,
        other.gray,
        invert_homography(alignment.homography) if swapped else alignment.homography,
        max(one.noise, other.noise),
    )
    if rest is None or not rest.valid.any():
        return Verdict(Relation.NOT_VERIFIABLE, alignment.inliers), None
    moved_away = (
        rest.valid
        & (rest.best_ncc >= MIN_TILE_NCC)
        & (rest.best_ncc - rest.ncc > MIN_NCC_GAIN)
        & (np.hypot(*np.moveaxis(rest.displacement, -1, 0)) > MIN_DISPLACEMENT_PX)
    )
    same = rest.valid & (rest.ncc >= MIN_TILE_NCC) & ~moved_away
    told, agree, gone = (int(some.sum()) for some in (rest.valid, same, moved_away))
    matrix = _convert_to_unit_homography(
        invert_homography(rest.homography) if swapped else rest.homography, first, second
    )
    clash = int((rest.textured_in_both & (rest.ncc < MAX_CLASH_NCC) & ~moved_away).sum())
    relation, what = (
        _classify(told, agree, gone, clash, float(np.median(rest.ncc[same])) if agree else 0.0),
        None,
    )
    if (
        relation in (Relation.DERIVED, Relation.SAME_SCENE)
        and first.is_line_art
        and second.is_line_art
        and (
            rest.ncc[rest.valid].min() < MIN_LINE_ART_NCC
            or rest.cell_outlier_ratio() > MAX_CELL_OUTLIER
        )
    ):
        relation = (
            Relation.NOT_VERIFIABLE
        )  # in text and drawings the ground agrees, whatever they say
    if relation == Relation.DERIVED:
        boxes = _changed_regions(rest.valid & ~same & ~moved_away, rest, one)
        spoiled = tuple(project_box_back(matrix, box) if swapped else box for box in boxes)
        what = detect_edits(first, second, matrix, spoiled)
        relation = Relation.SAME_PICTURE if what.is_same_picture else Relation.DERIVED
        if is_viewpoint_change(what, matrix, (first.size, second.size)):
            relation, what = Relation.SAME_SCENE, None
    evidence = Verdict(
        relation,
        alignment.inliers,
        told,
        round(agree / told, 4),
        round(gone / told, 4),
        flatten_homography(matrix),
        what,
    )
    return evidence, TileMasks(rest.valid, same, moved_away, rest.origin, swapped)


def _classify(
    valid: int, agreeing: int, displaced: int, conflicting: int, median_ncc: float
) -> Relation:
    """DERIVED for any copy, SCENE, UNRELATED, or UNKNOWN where there is too little to tell."""
    share = agreeing / valid
    steady = displaced <= MAX_COPY_DISPLACED_SHARE * (agreeing + displaced) + 1
    laid_over = (
        share >= MIN_OVERLAID_COPY_SHARE
        and median_ncc >= MIN_OVERLAID_COPY_NCC
        and agreeing >= max(MIN_OVERLAID_COPY_TILES, MIN_AGREEING_PER_CLASH * conflicting)
    )
    if agreeing >= MIN_AGREEING_TILES and steady and (share >= MIN_COPY_SHARE or laid_over):
        return Relation.DERIVED
    if valid < MIN_VALID_TILES:
        return Relation.NOT_VERIFIABLE
    return (
        Relation.SAME_SCENE
        if agreeing + displaced >= MIN_SCENE_SHARE * valid
        else Relation.UNRELATED
    )


def _convert_to_unit_homography(
    homography: Homography, first: ImageFeatures, second: ImageFeatures
) -> Homography:
    """A transform of pixels as one of shares of the sides."""
    shares = (
        np.linalg.inv(unit_to_pixels(second.gray.shape))
        @ homography
        @ unit_to_pixels(first.gray.shape)
    )
    return np.asarray(shares / shares[2, 2])


def _changed_regions(
    mask: NDArray[np.bool_], residual: Residual, template: ImageFeatures
) -> list[Box]:
    """Boxes around tiles that differ side by side, two or more, as shares of the picture's sides, from the top."""
    count, _, found, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    height, width = template.gray.shape
    boxes = []
    for left, top, across, down, tiles in found[1:count].tolist():
        if tiles >= 2:
            x, y = residual.origin[0] + left * TILE_SIDE_PX, residual.origin[1] + top * TILE_SIDE_PX
            boxes.append(
                (
                    x / width,
                    y / height,
                    (x + across * TILE_SIDE_PX) / width,
                    (y + down * TILE_SIDE_PX) / height,
                )
            )
    return sorted((round_box(*box) for box in boxes), key=lambda box: (box[1], box[0]))
