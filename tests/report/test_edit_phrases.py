"""The phrases for the edits of a copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image, ImageFilter

from pipeline.report.edit_phrases import describe_edits
from pipeline.verify.relation import Relation, Side
from pipeline.verify.verdict import Edits, Verdict
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image, encode_jpeg
from tests.support.verification import PLAIN_COPY, extract, load_photos


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (PLAIN_COPY, []),
        (replace(PLAIN_COPY, mirrored=True, quarter_turn_deg=90), ["mirrored", "rotated by 90°"]),
        (replace(PLAIN_COPY, rotation_deg=-2.5), ["rotated by 2.5°"]),
        (replace(PLAIN_COPY, quarter_turn_deg=90, rotation_deg=5.0), ["rotated by 95°"]),
        (replace(PLAIN_COPY, quarter_turn_deg=270, rotation_deg=-2.5), ["rotated by 267.5°"]),
        (replace(PLAIN_COPY, overlap=(0.8, 1.0)), ["cropped to 80 %"]),
        (replace(PLAIN_COPY, overlap=(1.0, 0.8)), ["shows more around it"]),
        (replace(PLAIN_COPY, overlap=(0.8, 0.8)), ["shows another part"]),
        (
            replace(PLAIN_COPY, overlap=(1.0, 0.2), embedded_side=Side.FIRST),
            ["inside another image"],
        ),
        (
            replace(PLAIN_COPY, overlap=(0.8, 0.2), embedded_side=Side.FIRST),
            ["partly inside another image"],
        ),
        (replace(PLAIN_COPY, overlap=(0.2, 1.0), embedded_side=Side.SECOND), ["cut out of it"]),
        (replace(PLAIN_COPY, upscaled_side=Side.SECOND), ["the second is upscaled"]),
        (replace(PLAIN_COPY, upscaled_side=Side.FIRST), ["the first is upscaled"]),
        (replace(PLAIN_COPY, grayscale_side=Side.FIRST, recolored=True), ["in color"]),
        (replace(PLAIN_COPY, recolored=True, anisotropic=True), ["stretched", "recolored"]),
        (
            replace(PLAIN_COPY, changed_regions=((0.0, 0.0, 0.1, 0.1),) * 2),
            ["differs in 2 places"],
        ),
        (replace(PLAIN_COPY, changed_share=0.001), ["differs in small places"]),
        (replace(PLAIN_COPY, changed_share=0.0009), []),
        (replace(PLAIN_COPY, changed_share=0.01, recolored=True), ["recolored"]),
        (replace(PLAIN_COPY, changed_share=0.01, detail_gain=0.3), ["sharper"]),
        (replace(PLAIN_COPY, detail_gain=-0.3), ["softer"]),
        (replace(PLAIN_COPY, detail_gain=-0.25), []),
        (replace(PLAIN_COPY, detail_gain=0.3, recolored=True), ["recolored"]),
        (
            replace(PLAIN_COPY, detail_gain=-0.3, upscaled_side=Side.FIRST),
            ["the first is upscaled"],
        ),
    ],
)
def test_edits_are_described_in_words(edits: Edits, words: list[str]) -> None:
    verdict = Verdict(Relation.DERIVED, edits=edits)
    assert describe_edits(verdict, "the first", "the second") == words


def test_only_copies_have_edits() -> None:
    assert describe_edits(None, "the first") == []
    assert describe_edits(Verdict(Relation.SIMILAR), "the first") == []


def test_second_image_needs_no_name_beside_its_file() -> None:
    verdict = Verdict(Relation.DERIVED, edits=replace(PLAIN_COPY, upscaled_side=Side.SECOND))
    assert describe_edits(verdict, "the keeper") == ["upscaled"]


def test_corners_of_a_turned_photo_are_no_other_image() -> None:
    """A rotation in the same frame cuts four corners off, and adds four plain ones."""
    image = draw_textured_image(3, (500, 375))
    photo, turned = extract(image), extract(image.rotate(6, Image.Resampling.BICUBIC))
    verdict = verify(photo, turned)
    assert describe_edits(verdict, "the first") == ["rotated by 6°", "with added corners"]
    swapped = describe_edits(verify(turned, photo), "the first")
    assert swapped == ["rotated by 6°", "without the added corners"]


def clone_patch(photo: Image.Image) -> Image.Image:
    """Cover a place with a patch from elsewhere in the photo, as retouching does."""
    retouched = photo.copy()
    retouched.paste(photo.crop((150, 330, 176, 356)), (430, 250))
    return retouched


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda photo: photo.resize((480, 320), Image.Resampling.LANCZOS), []),
        (clone_patch, ["differs in small places"]),
        (lambda photo: photo.filter(ImageFilter.UnsharpMask(3, 150)), ["sharper"]),
        (lambda photo: photo.filter(ImageFilter.GaussianBlur(2)), ["softer"]),
        (lambda photo: photo.convert("L"), ["in grayscale"]),
    ],
)
def test_edit_by_a_person_is_described(
    edit: Callable[[Image.Image], Image.Image], words: list[str]
) -> None:
    """So that it is not given up for a copy that was only encoded again."""
    photo, _ = load_photos()
    edited = Image.open(BytesIO(encode_jpeg(edit(photo), 92)))
    assert describe_edits(verify(extract(photo), extract(edited)), "the first") == words
