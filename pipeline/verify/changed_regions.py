"""Find boxes around the tiles in which two aligned images differ."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.regions import Box
from pipeline.verify.tile_grid import TILE_SIDE_PX
from pipeline.verify.verdict import round_box


def find_changed_regions(
    mask: NDArray[np.bool_], origin: tuple[int, int], size: tuple[int, int], min_tiles: int
) -> list[Box]:
    """Find boxes around connected tiles of a mask (rows, columns), corners included, from the top.

    A region has `min_tiles` or more. `origin` (x, y) is the upper left corner of the tiles, in
    pixels of the base, and `size` its width and height; boxes are in its normalized coordinates.
    """
    count, _, components, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    boxes = []
    for left, top, columns, rows, tile_count in components[1:count].tolist():
        if tile_count >= min_tiles:
            x, y = origin[0] + left * TILE_SIDE_PX, origin[1] + top * TILE_SIDE_PX
            right, bottom = x + columns * TILE_SIDE_PX, y + rows * TILE_SIDE_PX
            boxes.append(round_box(x / size[0], y / size[1], right / size[0], bottom / size[1]))
    return sorted(boxes, key=lambda box: (box[1], box[0]))
