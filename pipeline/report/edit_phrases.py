"""Phrases for the edits of a copy."""

from __future__ import annotations

import numpy as np

from pipeline.grouping.alterations import MIN_FILTERED_GAIN
from pipeline.verify.homography import UNIT_CORNERS, apply_homography, invert_homography
from pipeline.verify.relation import Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, MIN_NAMED_CHANGED_SHARE, Edits, Verdict

EDGE_CENTERS = np.array([[0.5, 0.0], [1.0, 0.5], [0.5, 1.0], [0.0, 0.5]])  # of a unit square


def describe_edits(verdict: Verdict | None, first: str, second: str = "") -> list[str]:
    """Describe the second image relative to the first, in a few words an edit.

    `first` and `second` name the two where a phrase is about one of them; a phrase about the second
    needs no name beside its file. Empty unless the two are copies.
    """
    if verdict is None or verdict.edits is None:
        return []
    edits = verdict.edits
    phrases = [
        "mirrored" if edits.mirrored else "",
        _describe_turn(edits),
        "stretched" if edits.anisotropic else "",
        _describe_upscaling(edits, first, second),
        _describe_overlap(edits, verdict),
        _describe_colors(edits),
        _describe_detail(edits),
        _describe_places(edits),
    ]
    return [phrase for phrase in phrases if phrase]


def _describe_turn(edits: Edits) -> str:
    """Describe both rotations as one, clockwise from a quarter turn on."""
    if edits.quarter_turn_deg:
        return f"rotated by {(edits.quarter_turn_deg + edits.rotation_deg) % 360:g}°"
    return f"rotated by {abs(edits.rotation_deg):g}°" if edits.rotation_deg else ""


def _describe_upscaling(edits: Edits, first: str, second: str) -> str:
    if edits.upscaled_side is None:
        return ""
    name = first if edits.upscaled_side == Side.FIRST else second
    return f"{name} is upscaled" if name else "upscaled"


def _describe_overlap(edits: Edits, verdict: Verdict) -> str:
    shows_all_of_first, shows_all_of_second = (share >= MIN_FULL_OVERLAP for share in edits.overlap)
    if shows_all_of_first and shows_all_of_second:
        return ""
    if shows_all_of_first:
        if edits.plain_background:
            return "on a plain background"
        embedded = edits.embedded_side == Side.FIRST
        return "inside another image" if embedded else "shows more around it"
    if shows_all_of_second:
        cut_out = edits.embedded_side == Side.SECOND
        return "cut out of it" if cut_out else f"cropped to {100 * edits.overlap[0]:.0f} %"
    has_other_corners = _has_other_corners(verdict)
    if edits.embedded_side is None:
        return "with other corners" if has_other_corners else "shows another part"
    if edits.embedded_side == Side.FIRST:
        return "with added corners" if has_other_corners else "partly inside another image"
    return "without the added corners" if has_other_corners else "partly cut out of it"


def _has_other_corners(verdict: Verdict) -> bool:
    """Tell if each image lacks just the corners of the other, as after a rotation in its frame."""
    if not verdict.homography:
        return False
    homography = verdict.homography_matrix
    for mapping in (homography, invert_homography(homography)):
        corners, edges = (
            ((points > 0) & (points < 1)).all(axis=1)
            for points in (
                apply_homography(mapping, UNIT_CORNERS),
                apply_homography(mapping, EDGE_CENTERS),
            )
        )
        if corners.any() or not edges.all():
            return False
    return True


def _describe_colors(edits: Edits) -> str:
    if edits.grayscale_side is None:
        return "recolored" if edits.recolored else ""
    return "in grayscale" if edits.grayscale_side == Side.SECOND else "in color"


def _describe_detail(edits: Edits) -> str:
    """Describe what a filter did; other colors and an enlargement change the detail too.

    Of 368 sharpened and blurred copies 325 are described so, of 811 that were not, 2.
    """
    if edits.recolored or edits.upscaled_side or abs(edits.detail_gain) <= MIN_FILTERED_GAIN:
        return ""
    return "sharper" if edits.detail_gain > 0 else "softer"


def _describe_places(edits: Edits) -> str:
    """Describe where they differ; small places count unless colors or a filter explain them."""
    if count := len(edits.changed_regions):
        return f"differs in {count} place{'s' * (count > 1)}"
    is_small = edits.changed_share >= MIN_NAMED_CHANGED_SHARE
    is_explained = edits.recolored or bool(_describe_detail(edits))
    return "differs in small places" if is_small and not is_explained else ""
