"""A candidate pair is looked at again: two pictures, small, become what they are to each other, and the evidence for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.align import Matrix, align, inverse, moved, scale_of, whole
from pipeline.changes import SQUARE, Box, Changes, changes
from pipeline.keypoints import Keypoints, keypoints
from pipeline.residual import TILE, Residual, residual

VERSION = 1  # of what evidence means: a change here or in what this imports that moves a relation needs a new number

SAME, DERIVED, SCENE, UNRELATED, UNKNOWN = "same picture", "derived", "same scene", "unrelated", "not verifiable"

# Measured on copies of 40 kinds, and on look-alikes: scripts/results/verify.md.
AGREES = 0.8  # the correlation from which on a tile is the same
STEP, BETTER = 0.6, 0.03  # pixels that a tile moved, and by how much its correlation is better there, to be the same elsewhere
TILES = 4  # that must agree
CLEAR = 0.8  # the share of tiles that makes a copy
PART, CLEAN = 0.5, 0.95  # so does this share, where the median of those that agree is so clean: then something lies on the rest
MOVED = 0.1  # the share of those that agree or moved that may have moved in a copy
SCENERY = 0.5  # the share of tiles that agree or moved, from which on two pictures show one scene
FEW = 8  # keypoints, with fewer of which a picture cannot be told from others


@dataclass(frozen=True, slots=True)
class Sketch:
    """A picture as it is verified: `rgb` (height, width, 3) and `grey` (height, width) uint8, at most 448 pixels a side; its keypoints; and
    the width and height that it has in full.
    """

    rgb: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    keypoints: Keypoints
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What two pictures are to each other, and why. Places are shares of a picture's sides, from its upper left corner.

    So many `keypoints` agree that `matrix`, nine numbers by rows, takes places (x, y, 1) of the first picture to those of the second; it is
    empty where nothing does. Of `tiles` that show enough to be compared, the share `agree` is the same in place, and the share `moved` when
    each may move a little. `changes`: what a copy is beside the other, None for what is none.
    """

    relation: str
    keypoints: int = 0
    tiles: int = 0
    agree: float = 0.0
    moved: float = 0.0
    matrix: tuple[float, ...] = ()
    changes: Changes | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def sketch(rgb: NDArray[np.uint8], size: tuple[int, int]) -> Sketch:
    """What is to be known of a picture once: `rgb` as keypoints.SIGHT shows it, `size` its width and height in full."""
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    return Sketch(rgb, grey, keypoints(grey), size)


def verify(first: Sketch, second: Sketch) -> Evidence:
    """What two pictures are to each other. The same for the same two, whatever was asked before."""
    found = align(first.keypoints, second.keypoints) or whole(first.grey, second.grey)
    if found is None:
        seen = min(len(first.keypoints.places), len(second.keypoints.places))
        return Evidence(UNRELATED if seen >= FEW else UNKNOWN)
    swapped = scale_of(found.matrix) < 1.0  # the one that has fewer pixels for the same thing is gone over tile by tile
    one, other = (second, first) if swapped else (first, second)
    rest = residual(one.grey, other.grey, inverse(found.matrix) if swapped else found.matrix)
    if rest is None or not rest.told.any():
        return Evidence(UNKNOWN, found.agreeing)
    moved_away = (
        rest.told & (rest.nearby >= AGREES) & (rest.nearby - rest.agrees > BETTER) & (np.hypot(*np.moveaxis(rest.moves, -1, 0)) > STEP)
    )
    same = rest.told & (rest.agrees >= AGREES) & ~moved_away
    told, agree, gone = (int(some.sum()) for some in (rest.told, same, moved_away))
    matrix = _in_shares(inverse(rest.matrix) if swapped else rest.matrix, first, second)
    relation, what = _relation(told, agree, gone, float(np.median(rest.agrees[same])) if agree else 0.0), None
    if relation == DERIVED:
        boxes = _boxes(rest.told & ~same & ~moved_away, rest, one)
        what = changes(
            first.rgb, second.rgb, (first.size, second.size), matrix, tuple(_onto(matrix, box) if swapped else box for box in boxes)
        )
        relation = SAME if what.is_whole else DERIVED
    numbers = tuple(np.round(matrix, 6).ravel().tolist())
    return Evidence(relation, found.agreeing, told, round(agree / told, 4), round(gone / told, 4), numbers, what)


def _relation(told: int, agree: int, gone: int, clean: float) -> str:
    """DERIVED for any copy, SCENE, UNRELATED, or UNKNOWN where there is too little to tell."""
    share = agree / told
    steady = gone <= MOVED * (agree + gone) + 1
    if agree >= TILES and steady and (share >= CLEAR or (share >= PART and clean >= CLEAN)):
        return DERIVED
    if told < 2 * TILES:
        return UNKNOWN
    return SCENE if agree + gone >= SCENERY * told else UNRELATED


def _in_shares(matrix: Matrix, first: Sketch, second: Sketch) -> Matrix:
    """A transform of pixels as one of shares of the sides; the middle of the first pixel is half a pixel from the edge."""

    def pixels(picture: Sketch) -> Matrix:
        height, width = picture.grey.shape
        return np.array([[width, 0.0, -0.5], [0.0, height, -0.5], [0.0, 0.0, 1.0]])

    shares = np.linalg.inv(pixels(second)) @ matrix @ pixels(first)
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
    return sorted((_rounded(*box) for box in boxes), key=lambda box: (box[1], box[0]))


def _onto(matrix: Matrix, box: Box) -> Box:
    """The box on the first picture around a box of the second."""
    left, top, right, bottom = box
    corners = moved(inverse(matrix), SQUARE * [right - left, bottom - top] + [left, top]).clip(0.0, 1.0)
    return _rounded(*corners.min(axis=0), *corners.max(axis=0))


def _rounded(left: float, top: float, right: float, bottom: float) -> Box:
    return round(float(left), 4), round(float(top), 4), round(float(right), 4), round(float(bottom), 4)
