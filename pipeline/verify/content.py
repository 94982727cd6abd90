"""Compare the content of two hosts: the photos in them, apart from their surroundings.

Two screenshots of one photo agree in the photo alone; two tickets of one kind agree everywhere
else. The regions of both images, brought onto each other by the alignment, tell which it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.regions import Box
from pipeline.verify.evidence import TileOutcomes
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import apply_homography
from pipeline.verify.tile_grid import TILE_SIDE_PX
from pipeline.verify.tiles import TileComparison

TileFlags = NDArray[np.bool_]  # of each tile, (tiles,)

MIN_SHARED_TILES = 6  # compared tiles in a region of both images
# The share of the smaller of two regions, by tiles, that lies on the other one.
MIN_SHARED_SHARE = 0.5
MIN_SHARED_AGREEMENT = 0.95  # of the tiles in regions that show one photo
MAX_OTHER_AGREEMENT = 0.5  # of the tiles in regions that show different photos
# Of the tiles around the regions: where these show one photo, and where they show different ones.
MAX_AROUND_SHARED = 0.3
MIN_AROUND_OTHER = 0.5


@dataclass(frozen=True, slots=True)
class Content:
    """The agreement of the photos in two hosts, and that of what surrounds these.

    `most` and `least` are shares of the compared tiles in a region of both that agree in place, of
    the regions that agree best and worst; `surroundings` is that of the tiles that lie in no region
    of either, or only in part.
    """

    most: float
    least: float
    surroundings: float

    @property
    def is_shared(self) -> bool:
        """True if both hosts show one photo, each in surroundings of its own."""
        return self.most >= MIN_SHARED_AGREEMENT and self.surroundings < MAX_AROUND_SHARED

    @property
    def is_other(self) -> bool:
        """True if both hosts have the same surroundings, and different photos in them."""
        return self.least < MAX_OTHER_AGREEMENT and self.surroundings >= MIN_AROUND_OTHER


def compare_content(
    images: tuple[ImageFeatures, ImageFeatures], comparison: TileComparison, outcomes: TileOutcomes
) -> Content | None:
    """Compare the regions of two hosts, the base first.

    None unless a region of one lies on a region of the other, with compared tiles around them.
    """
    if not all(image.regions for image in images):
        return None
    corners = _locate_corners(comparison)
    points = corners, apply_homography(comparison.homography, corners)
    valid, agreeing = comparison.valid.ravel(), outcomes.agreeing.ravel()
    inside = [
        [valid & _lie_in(box, where, image.gray.shape) for box in image.regions]
        for image, where in zip(images, points, strict=True)
    ]
    shared = [
        first & second
        for first in inside[0]
        for second in inside[1]
        if _lie_on_each_other(first, second)
    ]
    surroundings = valid & ~np.any([*inside[0], *inside[1]], axis=0)
    if not shared or not surroundings.any():
        return None
    shares = [float(agreeing[mask].mean()) for mask in shared]
    return Content(max(shares), min(shares), float(agreeing[surroundings].mean()))


def _locate_corners(comparison: TileComparison) -> NDArray[np.float64]:
    """Locate the four corners of all tiles on the base, (4 * tiles, 2) in pixels."""
    rows, columns = np.indices(comparison.valid.shape).reshape(2, -1)
    first = np.column_stack([columns, rows]) * TILE_SIDE_PX + comparison.origin - 0.5
    steps = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * TILE_SIDE_PX
    return np.asarray((first[:, None] + steps).reshape(-1, 2), np.float64)


def _lie_in(box: Box, corners: NDArray[np.float64], shape: tuple[int, ...]) -> TileFlags:
    """Tell which tiles lie in a box of an image of a shape (height, width) with all corners."""
    unit = (corners + 0.5) / shape[1::-1]
    is_inside = ((unit >= box[:2]) & (unit <= box[2:])).all(axis=1)
    return np.asarray(is_inside.reshape(-1, 4).all(axis=1))


def _lie_on_each_other(first: TileFlags, second: TileFlags) -> bool:
    """Tell if enough tiles of two regions lie in both."""
    shared = int((first & second).sum())
    smaller = min(int(first.sum()), int(second.sum()))
    return shared >= max(MIN_SHARED_TILES, MIN_SHARED_SHARE * smaller)
