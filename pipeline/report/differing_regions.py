"""Find where two aligned images differ, also those that are no copies of each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.query.compare import Comparison
from pipeline.regions import Box
from pipeline.verify.relation import Relation
from pipeline.verify.tile_grid import TILE_SIDE_PX
from pipeline.verify.verdict import project_box_back

NEIGHBOR_STEPS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]


def find_differing_regions(comparison: Comparison) -> list[Box]:
    """Find boxes on the first file of a comparison where the second differs, from the top.

    Boxes are in normalized coordinates. Those of copies are the changed regions of the verdict.
    Other pairs have boxes around adjacent tiles that differ in place and displaced; none if they
    are unrelated, or if too little agrees to trust the alignment.
    """
    verdict = comparison.verdicts[0, 1]
    if verdict.edits:
        return list(verdict.edits.changed_regions)
    masks = comparison.tiles.get((0, 1))
    if masks is None or not verdict.judgement or verdict.relation == Relation.UNRELATED:
        return []
    height, width = comparison.thumbnail_pixels[int(masks.is_swapped)].shape[:2]
    left, top = masks.origin
    boxes = []
    for rows, columns in _find_regions(masks.valid & ~masks.agreeing & ~masks.displaced):
        box = (
            (left + columns.start * TILE_SIDE_PX) / width,
            (top + rows.start * TILE_SIDE_PX) / height,
            (left + columns.stop * TILE_SIDE_PX) / width,
            (top + rows.stop * TILE_SIDE_PX) / height,
        )
        on_first = project_box_back(verdict.homography_matrix, box) if masks.is_swapped else box
        boxes.append(on_first)
    return sorted(boxes, key=lambda box: (box[1], box[0]))


def _find_regions(mask: NDArray[np.bool_]) -> list[tuple[range, range]]:
    """Return the rows and columns that each connected part of a mask spans, corners included."""
    free = set(map(tuple, np.argwhere(mask).tolist()))
    regions = []
    while free:
        region, reached = [], [free.pop()]
        while reached:
            row, column = reached.pop()
            region.append((row, column))
            around = {(row + down, column + right) for down, right in NEIGHBOR_STEPS} & free
            free -= around
            reached += around
        rows, columns = zip(*region, strict=True)
        regions.append((range(min(rows), max(rows) + 1), range(min(columns), max(columns) + 1)))
    return regions
