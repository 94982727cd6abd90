"""Find what a copy has that the file which it would go for lacks: then it is not given up.

What a caption or a logo covers, what a crop cut off, colors, and detail are lost with the file that
had them, and so is what stands around a photo on a page. A turned or recolored copy still shows all
of its photo, so it may be kept.
"""

from __future__ import annotations

from indexes.metadata import NO_METADATA, ImageMetadata
from indexes.records import Image
from pipeline.actions.folders import Refused
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.losses import LOSSY_FORMATS, is_compressed_less, is_untouched_by_jpeg
from pipeline.grouping.match import Match
from pipeline.verify.relation import EXACT_RELATIONS, Relation, Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Edits, Verdict

CHOOSE = "choose with `neardup decide keep`"
KEEPER = "its keeper"


def require_no_better(
    match: Match,
    keeper: LibraryFile,
    *,
    is_decided: bool,
    metadata: ImageMetadata | None = NO_METADATA,
) -> None:
    """Raise Refused if a copy is, or may be, the better file than its keeper.

    The first image of the verdict is the keeper. `is_decided`: a person decided to keep it, which
    decides where nothing shows which of the two is the better one. `metadata` is that of the copy.
    """
    if match.relation in EXACT_RELATIONS:
        return
    verdict, image, kept = match.verdict, match.file.image, keeper.image
    if reason := find_loss(verdict, KEEPER, is_decided=is_decided):
        raise Refused(reason)
    if image.pixel_count == kept.pixel_count and is_compressed_less(image, kept):
        raise Refused(
            f"has as many pixels as {KEEPER} in many more bytes, so it may be the better one;"
            f" {CHOOSE}"
        )
    if (
        match.relation is Relation.SAME_PICTURE
        and not is_decided
        and is_lossless_beside(image, metadata, kept)
    ):
        raise Refused(f"lossless, and {KEEPER} is not; {CHOOSE}")


def is_lossless_beside(image: Image, metadata: ImageMetadata | None, kept: Image) -> bool:
    """Tell if a lossless image has at least the pixels of a lossy one and no traces of a JPEG."""
    return (
        kept.format in LOSSY_FORMATS
        and image.pixel_count >= kept.pixel_count
        and is_untouched_by_jpeg(image, metadata or NO_METADATA)
    )


def find_loss(verdict: Verdict | None, name: str, *, is_decided: bool = False) -> str:
    """Return in words what the first image of a verdict lacks of the second; empty for nothing.

    `name` names the first one. `is_decided`: a person decided to keep it.
    """
    edits = verdict.edits if verdict else None
    if verdict is None or edits is None:
        return ""
    if edits.is_covered and verdict.altered_side is Side.FIRST:
        return f"{name} is covered in places, as by a caption or a logo, and it is not"
    if loss := _find_loss_of_content(edits, name):
        return loss
    if edits.upscaled_side is Side.FIRST:
        return f"{name} is upscaled, and it is not"
    if is_decided:
        return ""
    if edits.is_covered and verdict.altered_side is None:
        return (
            f"it or {name} is covered in places, as by a caption or a logo, and pixels do not"
            f" show which; {CHOOSE}"
        )
    if edits.derived_side is Side.FIRST:
        return f"{name} was made from it, as far as pixels show; {CHOOSE}"
    return ""


def _find_loss_of_content(edits: Edits, name: str) -> str:
    """Return what the first image, by its edits, lacks or was made of; empty for nothing."""
    if edits.grayscale_side is Side.FIRST:
        return f"has colors, and {name} is gray"
    own, other = edits.overlap
    # Nearly all around the smaller image has one tone. Beside an embedded one that is only known of
    # its outline: farther out there may be text, messages, or another photo.
    has_bare_margin = edits.plain_background and edits.embedded_side is None
    if edits.embedded_side is Side.SECOND or (has_bare_margin and own < MIN_FULL_OVERLAP):
        return f"{name} is this picture inside another one, or with a border"
    shows_more = other < MIN_FULL_OVERLAP and not has_bare_margin
    return f"shows more than {name}" if shows_more else ""
