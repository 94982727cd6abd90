"""Verify a candidate pair: align two thumbnails, compare their tiles, judge, and give a verdict.

What agrees in an alignment (alignment), what changed and what each image shows there is the
evidence that a fitted model judges (evidence, judge); the edits of a copy follow from the
homography and the pixels (edits).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.verify.alignment import (
    SINGULAR_ERRORS,
    AlignedImages,
    align_and_compare,
    evaluate_alignments,
)
from pipeline.verify.area_evidence import shows_other_content
from pipeline.verify.changed_regions import find_changed_regions
from pipeline.verify.edits import (
    detect_edits,
    is_viewpoint_change,
    mark_altered_side,
    measure_unique_content,
)
from pipeline.verify.evidence import Evidence
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import Homography, invert_homography
from pipeline.verify.judge import load_judge
from pipeline.verify.judgement import MIN_CLEAN_AGREEMENT, MIN_NAMED_PROBABILITY, Judgement
from pipeline.verify.matching import Alignment
from pipeline.verify.relation import Relation
from pipeline.verify.tiles import TileComparison
from pipeline.verify.verdict import (
    MIN_VALID_TILES,
    Edits,
    Verdict,
    flatten_homography,
    project_box_back,
)

# Measured on copies of 40 kinds, and on look-alikes: docs/benchmarks/verify.md.
MIN_SCENE_SHARE = 0.5  # share of agreeing or displaced tiles of a scene or a template
MIN_DOUBTFUL_PROBABILITY = 0.2  # of a copy that is reported as similar
# Share of each image, textured and beyond the outline of the other, from which the two overlap.
MIN_UNIQUE_CONTENT = 0.02
# Text and drawings are copies if every tile reaches the first, and no patch differs beyond others
# by more than the second: at most 4.3 times in 695 copies of 72 pages. Of 224 pages with one small
# digit changed 215 differ more, of 224 with two digits all.
MIN_LINE_ART_NCC = 0.98
MAX_PATCH_OUTLIER = 5.0
MIN_CHANGED_REGION_TILES = 2  # adjacent tiles that differ make a changed region
MIN_VERIFIABLE_KEYPOINTS = 8  # below, an image without an alignment is not verifiable


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
    except SINGULAR_ERRORS:
        return Verdict(Relation.NOT_VERIFIABLE), None


def _verify_ordered_pair(
    first: ImageFeatures, second: ImageFeatures
) -> tuple[Verdict, TileMasks | None]:
    """Return the verdict of the first alignment that shows a copy, else of the likeliest.

    A singular alignment is skipped; a pair that has no others is not verifiable.
    """
    likeliest, is_singular = None, False
    for result in evaluate_alignments(first, second, _verify_alignment):
        if result is None:
            is_singular = True
            continue
        if result[0].relation in (Relation.SAME_PICTURE, Relation.DERIVED):
            return result
        likeliest = likeliest or result
    if likeliest:
        return likeliest
    fewest_keypoints = min(len(first.keypoints.points), len(second.keypoints.points))
    is_unrelated = fewest_keypoints >= MIN_VERIFIABLE_KEYPOINTS and not is_singular
    return Verdict(Relation.UNRELATED if is_unrelated else Relation.NOT_VERIFIABLE), None


def _verify_alignment(
    alignment: Alignment, first: ImageFeatures, second: ImageFeatures
) -> tuple[Verdict, TileMasks | None]:
    aligned = align_and_compare(alignment, first, second)
    if aligned is None:
        return Verdict(Relation.NOT_VERIFIABLE, alignment.inliers), None
    comparison, outcomes = aligned.comparison, aligned.outcomes
    valid, agreeing, displaced = aligned.counts
    judgement, edits, altered_side = None, None, None
    relation = Relation.UNRELATED if valid >= MIN_VALID_TILES else Relation.NOT_VERIFIABLE
    if aligned.is_judged:
        evidence = aligned.measure_evidence()
        judgement = load_judge().judge(evidence)
        altered_side = evidence.altered_side
        if shows_other_content(evidence.areas):
            relation = _name_other(judgement, aligned)
        else:
            relation, edits = _decide(aligned, evidence, judgement, first, second)
    verdict = Verdict(
        relation,
        alignment.inliers,
        valid,
        round(agreeing / valid, 4),
        round(displaced / valid, 4),
        flatten_homography(aligned.homography),
        edits,
        aligned.overlap,
        judgement,
        altered_side,
    )
    masks = TileMasks(
        comparison.valid,
        outcomes.agreeing,
        outcomes.displaced,
        comparison.origin,
        aligned.is_swapped,
    )
    return verdict, masks


def _decide(
    aligned: AlignedImages,
    evidence: Evidence,
    judgement: Judgement,
    first: ImageFeatures,
    second: ImageFeatures,
) -> tuple[Relation, Edits | None]:
    """Decide the relation of two aligned images, and the edits if they are copies.

    A clean pair in which no area differs has no other content: it is a copy, unless another shot
    is likely.
    """
    comparison, outcomes, homography = aligned.comparison, aligned.outcomes, aligned.homography
    is_clean = aligned.counts.agreeing >= MIN_CLEAN_AGREEMENT * aligned.counts.valid
    if first.is_line_art and second.is_line_art and _is_altered_line_art(comparison):
        return Relation.NOT_VERIFIABLE, None
    agrees_everywhere = is_clean and not evidence.areas.changed and not judgement.names_shot
    if not (agrees_everywhere or load_judge().is_copy(judgement, is_clean=is_clean)):
        return _name_other(judgement, aligned), None
    boxes = find_changed_regions(
        comparison.valid & ~outcomes.agreeing & ~outcomes.displaced,
        comparison.origin,
        aligned.base.gray.shape[::-1],
        MIN_CHANGED_REGION_TILES,
    )
    if aligned.is_swapped:
        boxes = [project_box_back(homography, box) for box in boxes]
    edits = detect_edits(first, second, homography, aligned.overlap, tuple(boxes))
    if is_viewpoint_change(edits, aligned.geometry.skew):
        content = aligned.compare_content()
        return Relation.OVERLAPS if content and content.is_shared else Relation.ANOTHER_SHOT, None
    # An image that lies in another in part was cropped to fit there, but not a page in a page.
    are_pages = bool(first.regions and second.regions)
    if (edits.embedded_side is None or are_pages) and _have_unique_content(
        homography, first, second
    ):
        return Relation.OVERLAPS, None
    edits = replace(
        edits,
        changed_share=round(evidence.areas.changed, 4),
        detail_gain=round(evidence.detail_gain, 4),
    )
    if side := evidence.altered_side or evidence.clipped_side:
        edits = mark_altered_side(edits, side)
    return (Relation.SAME_PICTURE if edits.is_same_picture else Relation.DERIVED), edits


def _name_other(judgement: Judgement, aligned: AlignedImages) -> Relation:
    """Name what two images are that are not copies for certain; SIMILAR if that is in doubt."""
    if content := aligned.compare_content():
        if content.is_shared:
            return Relation.OVERLAPS
        if content.is_other:
            return Relation.SAME_TEMPLATE
    is_named = max(judgement.shot, judgement.template) >= MIN_NAMED_PROBABILITY
    if not is_named and judgement.copy >= MIN_DOUBTFUL_PROBABILITY:
        return Relation.SIMILAR
    valid, agreeing, displaced = aligned.counts
    is_scene = valid >= MIN_VALID_TILES and agreeing + displaced >= MIN_SCENE_SHARE * valid
    if is_named or is_scene:
        is_shot = judgement.shot >= judgement.template
        return Relation.ANOTHER_SHOT if is_shot else Relation.SAME_TEMPLATE
    return Relation.UNRELATED if valid >= MIN_VALID_TILES else Relation.NOT_VERIFIABLE


def _have_unique_content(
    homography: Homography, first: ImageFeatures, second: ImageFeatures
) -> bool:
    """Tell if each image has content beyond the outline of the other."""
    inverse = invert_homography(homography)
    # The second is measured only if the first has some, which most copies do not.
    return (
        measure_unique_content(first, homography) >= MIN_UNIQUE_CONTENT
        and measure_unique_content(second, inverse) >= MIN_UNIQUE_CONTENT
    )


def _is_altered_line_art(comparison: TileComparison) -> bool:
    """Tell if text or drawings differ in some detail.

    Their background agrees regardless of the content, so that one poor tile or patch counts.
    """
    return bool(
        comparison.ncc[comparison.valid].min() < MIN_LINE_ART_NCC
        or comparison.compute_patch_outlier_ratio() > MAX_PATCH_OUTLIER
    )
