"""Refuse to give up a copy that may hold more of its photo than the keeper does."""

from __future__ import annotations

from pipeline.actions.folders import Refused
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.losses import is_compressed_less
from pipeline.grouping.match import Match
from pipeline.verify.relation import EXACT_RELATIONS


def require_no_more(match: Match, keeper: LibraryFile) -> None:
    """Raise Refused if a copy may be the better file: as many pixels in many more bytes."""
    image, kept = match.file.image, keeper.image
    if (
        match.relation not in EXACT_RELATIONS
        and image.pixel_count == kept.pixel_count
        and is_compressed_less(image, kept)
    ):
        raise Refused(
            "has as many pixels as its keeper in many more bytes, so it may be the better one;"
            " choose with `neardup decide keep`"
        )
