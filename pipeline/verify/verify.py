"""A candidate pair is looked at again: two pictures, small, become what they are to each other, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.edits import changes, is_another_view
from pipeline.verify.features import Sketch
from pipeline.verify.homography import Matrix, in_pixels, inverse, scale_of
from pipeline.verify.matching import Alignment, alignments
from pipeline.verify.residual import TILE, Residual, residual
from pipeline.verify.verdict import DERIVED, FEWEST, SAME, SCENE, UNKNOWN, UNRELATED, Box, Evidence, numbers, onto, rounded

# Measured on copies of 40 kinds, and on look-alikes: scripts/results/verify.md.
AGREES = 0.8  # the correlation from which on a tile is the same
STEP, BETTER = 0.6, 0.03  # pixels that a tile moved, and by how much its correlation is better there, to be the same elsewhere
TILES = 4  # that must agree
CLEAR = 0.8  # the share of tiles that makes a copy
PART, CLEAN = 0.45, 0.95  # so does this share, where the median of those that agree is so clean: then something lies on the rest
SURE, APART, CLASHES = 10, 0.4, 3  # but so many must agree, and for each that shows other things, with less than that correlation, so many
MOVED = 0.1  # the share of those that agree or moved that may have moved in a copy
SCENERY = 0.5  # the share of tiles that agree or moved, from which on two pictures show one scene
# What every tile of two texts or drawings agrees by at least, and the most by which one cell differs beyond others: 4.3 in 695 copies of
# 72 pages. Of 224 pages in which one small digit is another 215 differ more, of 224 with two all.
EXACT, ODD = 0.98, 5.0
FEW = 8  # keypoints, with fewer of which a picture cannot be told from others


@dataclass(frozen=True, slots=True)
class Tiles:
    """What was seen of each tile: (rows, columns), True or False. They lie on the second picture where `swapped`, else on the first,
    beginning at `origin`, pixels (x, y) of its sketch.
    """

    told: NDArray[np.bool_]
    same: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    origin: tuple[int, int]
    swapped: bool


def verify(first: Sketch, second: Sketch) -> Evidence:
    """What two pictures are to each other. The same for the same two, whatever was asked before, and whichever comes first."""
    return looked(first, second)[0]


def looked(first: Sketch, second: Sketch) -> tuple[Evidence, Tiles | None]:
    """As verify(), with what it saw; None where no tile could be compared.

    One order is looked at, whichever was asked for: what is just enough for a copy in one would be just too little in the other. Where the
    numbers of two odd pictures lead to no transform that could be one, nothing is said of them.
    """
    try:
        if first <= second:
            return _looked(first, second)
        evidence, tiles = _looked(second, first)
        return evidence.turned_round(), replace(tiles, swapped=not tiles.swapped) if tiles else None
    except (np.linalg.LinAlgError, cv2.error):
        return Evidence(UNKNOWN), None


def _looked(first: Sketch, second: Sketch) -> tuple[Evidence, Tiles | None]:
    likeliest = None
    for way in alignments(first, second):
        found = _looked_through(way, first, second)
        if found[0].relation in (SAME, DERIVED):
            return found
        likeliest = likeliest or found
    if likeliest:
        return likeliest
    seen = min(len(first.keypoints.places), len(second.keypoints.places))
    return Evidence(UNRELATED if seen >= FEW else UNKNOWN), None


def _looked_through(found: Alignment, first: Sketch, second: Sketch) -> tuple[Evidence, Tiles | None]:
    swapped = scale_of(found.matrix) < 1.0  # the one that has fewer pixels for the same thing is gone over tile by tile
    one, other = (second, first) if swapped else (first, second)
    rest = residual(one.grey, other.grey, inverse(found.matrix) if swapped else found.matrix, max(one.noise, other.noise))
    if rest is None or not rest.told.any():
        return Evidence(UNKNOWN, found.agreeing), None
    moved_away = (
        rest.told & (rest.nearby >= AGREES) & (rest.nearby - rest.agrees > BETTER) & (np.hypot(*np.moveaxis(rest.moves, -1, 0)) > STEP)
    )
    same = rest.told & (rest.agrees >= AGREES) & ~moved_away
    told, agree, gone = (int(some.sum()) for some in (rest.told, same, moved_away))
    matrix = _in_shares(inverse(rest.matrix) if swapped else rest.matrix, first, second)
    clash = int((rest.both & (rest.agrees < APART) & ~moved_away).sum())
    relation, what = _relation(told, agree, gone, clash, float(np.median(rest.agrees[same])) if agree else 0.0), None
    if relation in (DERIVED, SCENE) and first.is_lines and second.is_lines and (rest.agrees[rest.told].min() < EXACT or rest.odd() > ODD):
        relation = UNKNOWN  # in text and drawings the ground agrees, whatever they say
    if relation == DERIVED:
        boxes = _boxes(rest.told & ~same & ~moved_away, rest, one)
        spoiled = tuple(onto(matrix, box) if swapped else box for box in boxes)
        what = changes(first, second, matrix, spoiled)
        relation = SAME if what.is_whole else DERIVED
        if is_another_view(what, matrix, (first.size, second.size)):
            relation, what = SCENE, None
    evidence = Evidence(relation, found.agreeing, told, round(agree / told, 4), round(gone / told, 4), numbers(matrix), what)
    return evidence, Tiles(rest.told, same, moved_away, rest.origin, swapped)


def _relation(told: int, agree: int, gone: int, clash: int, clean: float) -> str:
    """DERIVED for any copy, SCENE, UNRELATED, or UNKNOWN where there is too little to tell."""
    share = agree / told
    steady = gone <= MOVED * (agree + gone) + 1
    laid_over = share >= PART and clean >= CLEAN and agree >= max(SURE, CLASHES * clash)
    if agree >= TILES and steady and (share >= CLEAR or laid_over):
        return DERIVED
    if told < FEWEST:
        return UNKNOWN
    return SCENE if agree + gone >= SCENERY * told else UNRELATED


def _in_shares(matrix: Matrix, first: Sketch, second: Sketch) -> Matrix:
    """A transform of pixels as one of shares of the sides."""
    shares = np.linalg.inv(in_pixels(second.grey.shape)) @ matrix @ in_pixels(first.grey.shape)
    return np.asarray(shares / shares[2, 2])


def _boxes(spoiled: NDArray[np.bool_], rest: Residual, one: Sketch) -> list[Box]:
    """Boxes around tiles that differ side by side, two or more, as shares of the picture's sides, from the top."""
    count, _, found, _ = cv2.connectedComponentsWithStats(spoiled.astype(np.uint8), connectivity=8)
    height, width = one.grey.shape
    boxes = []
    for left, top, across, down, tiles in found[1:count].tolist():
        if tiles >= 2:
            x, y = rest.origin[0] + left * TILE, rest.origin[1] + top * TILE
            boxes.append((x / width, y / height, (x + across * TILE) / width, (y + down * TILE) / height))
    return sorted((rounded(*box) for box in boxes), key=lambda box: (box[1], box[0]))
