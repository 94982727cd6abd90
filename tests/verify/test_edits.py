"""Edits of copies: geometry, cropping and embedding, colors and changed regions."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from pipeline.calibrate.synthetic_copies import Edit, paste_on
from pipeline.verify.relation import Relation, Side
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image
from tests.support.verification import (
    ALL_EDITS,
    OTHER_PHOTO,
    PHOTO,
    edit_photo,
    edits_of,
    extract,
    load_photos,
)


@pytest.mark.parametrize("transposition", list(Image.Transpose))
def test_transposed_copy_has_its_mirror_and_quarter_turn(transposition: Image.Transpose) -> None:
    edits = edits_of(PHOTO, PHOTO.transpose(transposition))
    upright = ImageOps.mirror(PHOTO) if edits.mirrored else PHOTO
    turned_clockwise = {
        0: upright,
        90: upright.transpose(Image.Transpose.ROTATE_270),
        180: upright.transpose(Image.Transpose.ROTATE_180),
        270: upright.transpose(Image.Transpose.ROTATE_90),
    }
    expected = PHOTO.transpose(transposition)
    assert turned_clockwise[edits.quarter_turn_deg].tobytes() == expected.tobytes()
    assert edits.overlap == (1.0, 1.0)


def test_rotated_copy_has_its_angle() -> None:
    edits = edits_of(PHOTO, PHOTO.rotate(-12, Image.Resampling.BICUBIC, expand=True))
    assert (edits.mirrored, edits.quarter_turn_deg) == (False, 0)
    assert edits.rotation_deg == pytest.approx(12, abs=0.3)


def test_cropped_copy_has_its_overlap_and_homography() -> None:
    first, second = extract(PHOTO), extract(PHOTO.crop((96, 40, 416, 280)))
    verdict = verify(first, second)
    assert verdict.relation == Relation.DERIVED
    assert verdict.edits is not None
    assert (verdict.edits.derived_side, verdict.edits.embedded_side) == (Side.SECOND, None)
    assert verdict.edits.overlap == pytest.approx((0.5, 1.0), abs=0.02)
    corner = np.array(verdict.homography).reshape(3, 3) @ [96 / 480, 40 / 320, 1.0]
    assert np.allclose(corner[:2] / corner[2], 0.0, atol=5e-3)
    swapped = verify(second, first)
    assert swapped.edits is not None
    assert (swapped.edits.derived_side, swapped.edits.overlap[0]) == (Side.FIRST, 1.0)


@pytest.mark.parametrize("kind", ["crop 40 %", "crop 80 %", "border", "screenshot"])
def test_cropped_or_framed_copy_is_not_recolored(kind: str) -> None:
    """Not even with a bright margin around it, and mostly small detail."""
    for seed in range(6):
        cells = np.random.default_rng(seed).integers(0, 256, (54, 80), np.uint8)
        detail = Image.fromarray(cells).resize((480, 320)).convert("RGB")
        blended = Image.blend(draw_textured_image(seed), detail, 0.6)
        image = ImageOps.expand(blended, 24, "white")
        assert not edits_of(image, edit_photo(image, kind, seed)).recolored
        darker = ImageEnhance.Brightness(image).enhance(0.75)
        assert edits_of(image, edit_photo(darker, kind, seed)).recolored


@pytest.mark.parametrize(
    ("edit", "plain"),
    [
        (ALL_EDITS["border"], True),
        (ALL_EDITS["meme"], True),
        (ALL_EDITS["screenshot"], True),
        (paste_on, False),
    ],
    ids=["border", "meme", "screenshot", "pasted on another"],
)
def test_embedded_copy_is_distinguished_from_a_cropped_one(edit: Edit, plain: bool) -> None:
    embedding = edit(PHOTO, OTHER_PHOTO, random.Random(1))
    edits = edits_of(PHOTO, embedding)
    assert (edits.embedded_side, edits.plain_background, edits.derived_side) == (
        Side.FIRST,
        plain,
        Side.SECOND,
    )
    swapped = edits_of(embedding, PHOTO)
    assert (swapped.embedded_side, swapped.derived_side) == (Side.SECOND, Side.FIRST)


def draw_night_photo(size: tuple[int, int]) -> Image.Image:
    """Draw an image that is black all along its edges."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (60, 60, size[0] - 60, size[1] - 60))
    black = Image.new("RGB", size)
    return Image.composite(
        draw_textured_image(7, size), black, mask.filter(ImageFilter.GaussianBlur(12))
    )


def test_margin_that_an_image_blends_into_is_plain_unless_it_shows_more() -> None:
    """The margin may have been added or cropped off: pixels cannot decide."""
    image = draw_night_photo((480, 320))
    screen = Image.new("RGB", (480, 800))
    screen.paste(image, (0, 200))
    ImageDraw.Draw(screen).text((20, 20), "12:30", fill="white", font_size=20)
    edits = edits_of(image, screen)
    assert (edits.embedded_side, edits.derived_side, edits.plain_background) == (None, None, True)
    # Another image on the same background, which a crop would lose.
    screen.paste(draw_night_photo((480, 320)).resize((300, 200)), (90, 560))
    assert not edits_of(image, screen).plain_background


def test_changed_colors_are_detected() -> None:
    assert edits_of(PHOTO, ImageOps.grayscale(PHOTO)).grayscale_side == Side.SECOND
    assert edits_of(ImageOps.grayscale(PHOTO), PHOTO).derived_side == Side.FIRST
    assert edits_of(PHOTO, ImageEnhance.Brightness(PHOTO).enhance(0.7)).recolored
    assert not edits_of(PHOTO, PHOTO.resize((240, 160))).recolored


def test_overlay_is_a_changed_region_at_its_place() -> None:
    covered = PHOTO.copy()
    ImageDraw.Draw(covered).ellipse((300, 60, 420, 180), fill=(250, 210, 60))
    (box,) = edits_of(PHOTO, covered).changed_regions
    assert np.allclose(box, (300 / 480, 60 / 320, 420 / 480, 180 / 320), atol=0.08)


def paste_side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Paste two images side by side, each cropped to fill its half."""
    collage = Image.new("RGB", (1000, 340), "white")
    for number, image in enumerate((left, right)):
        collage.paste(ImageOps.fit(image, (470, 340)), (530 * number, 0))
    return collage


def test_image_cropped_to_fit_into_a_collage_is_embedded_in_it() -> None:
    """Even though neither shows all of the other."""
    left, right = draw_textured_image(3, (470, 400)), draw_textured_image(4, (470, 400))
    collage = paste_side_by_side(left, right)
    for image in (left, right):
        edits = edits_of(image, collage)
        assert max(edits.overlap) < 0.97
        assert (edits.embedded_side, edits.derived_side) == (Side.FIRST, Side.SECOND)
    whole = draw_textured_image(6, (960, 640))
    left_crop, right_crop = whole.crop((0, 0, 640, 640)), whole.crop((320, 0, 960, 640))
    verdict = verify(extract(left_crop), extract(right_crop))
    assert (verdict.relation, verdict.edits) == (Relation.OVERLAPS, None)


@pytest.mark.parametrize("swapped", [False, True])
def test_photo_with_a_blurred_background_was_made_from_the_sharp_one(swapped: bool) -> None:
    photo = load_photos()[0]
    blurred = photo.filter(ImageFilter.GaussianBlur(6))
    box = (200, 100, 460, 380)
    blurred.paste(photo.crop(box), box[:2])
    pair = (blurred, photo) if swapped else (photo, blurred)
    verdict = verify(*map(extract, pair))
    assert verdict.relation is Relation.DERIVED
    assert verdict.edits is not None
    assert verdict.edits.derived_side is (Side.FIRST if swapped else Side.SECOND)


@pytest.mark.parametrize(
    ("edit", "derived_side"),
    [
        (lambda photo: ImageEnhance.Contrast(photo).enhance(1.8), Side.SECOND),
        (lambda photo: ImageEnhance.Brightness(photo).enhance(1.8), Side.SECOND),
        (lambda photo: ImageEnhance.Contrast(photo).enhance(0.7), None),
        (lambda photo: ImageEnhance.Brightness(photo).enhance(0.6), None),
    ],
)
def test_copy_whose_tones_were_clipped_was_made_from_the_other(
    edit: Callable[[Image.Image], Image.Image], derived_side: Side | None
) -> None:
    """Darkened or pale copies have lost nothing that shows."""
    copy = edit(PHOTO)
    assert edits_of(PHOTO, copy).derived_side is derived_side
    assert edits_of(copy, PHOTO).derived_side is (derived_side and derived_side.other)
