"""Find where two aligned images differ, also those that are no copies of each other."""

from __future__ import annotations

from pipeline.query.compare import Comparison
from pipeline.regions import Box
from pipeline.verify.changed_regions import find_changed_regions
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import project_box_back


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
    boxes = find_changed_regions(
        masks.valid & ~masks.agreeing & ~masks.displaced, masks.origin, (width, height), 1
    )
    if masks.is_swapped:
        boxes = [project_box_back(verdict.homography_matrix, box) for box in boxes]
        boxes.sort(key=lambda box: (box[1], box[0]))
    return boxes
