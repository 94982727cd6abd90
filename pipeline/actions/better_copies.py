"""Refuse to give up a copy that may hold more of its photo than the keeper does.

What a caption or a logo covers, what a crop cut off, and colors are lost with the file that had
them. A turned or recolored copy still shows all of its photo, so it may be the keeper.
"""

from __future__ import annotations

from pipeline.actions.folders import Refused
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.losses import is_compressed_less
from pipeline.grouping.match import Match
from pipeline.verify.relation import EXACT_RELATIONS, Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Edits

CHOOSE = "choose with `neardup decide keep`"


def require_no_better(match: Match, keeper: LibraryFile, *, is_decided: bool) -> None:
    """Raise Refused if a copy is, or may be, the better file than its keeper.

    The first image of the verdict is the keeper. `is_decided`: a person decided to keep it, which
    decides where nothing shows which of the two is the better one.
    """
    if match.relation in EXACT_RELATIONS:
        return
    edits, altered_side = None, None
    if match.verdict:
        edits, altered_side = match.verdict.edits, match.verdict.altered_side
    if edits and edits.is_covered and altered_side is Side.FIRST:
        raise Refused("its keeper is covered in places, as by a caption or a logo, and it is not")
    if edits and (loss := _find_loss(edits)):
        raise Refused(loss)
    if edits and edits.is_covered and altered_side is None and not is_decided:
        raise Refused(
            "it or its keeper is covered in places, as by a caption or a logo, and pixels do not"
            f" show which; {CHOOSE}"
        )
    image, kept = match.file.image, keeper.image
    if image.pixel_count == kept.pixel_count and is_compressed_less(image, kept):
        raise Refused(
            "has as many pixels as its keeper in many more bytes, so it may be the better one;"
            f" {CHOOSE}"
        )


def _find_loss(edits: Edits) -> str:
    """Return what the first image, by its edits, lacks or was made of; empty for nothing."""
    if edits.grayscale_side is Side.FIRST:
        return "has colors, and its keeper is gray"
    own, other = edits.overlap
    is_framed = edits.plain_background and edits.embedded_side is None
    if edits.embedded_side is Side.SECOND or (is_framed and own < MIN_FULL_OVERLAP):
        return "its keeper is this picture inside another one, or with a border"
    is_cut = other < MIN_FULL_OVERLAP and edits.embedded_side is None and not is_framed
    return "shows more of the picture than its keeper" if is_cut else ""
