"""Overlays and edits of a photo: most of it stays where it was."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators import (
    fonts,
    graphic,
    lettering,
    phone_copies,
    photo_edits,
    photographic,
    redaction,
)
from tests.support.images import draw_textured_image

SIZE = (240, 180)

# Edits that leave part of the photo as it is; the others change tones, or move and scale the photo.
LOCAL_EDITS: dict[str, Edit] = {
    **{f"graphic {kind}": edit for kind, edit in graphic.EDITS.items()},
    **{f"photographic {kind}": edit for kind, edit in photographic.OVERLAYS.items()},
    **{f"lettering {kind}": edit for kind, edit in lettering.EDITS.items()},
    **{f"redaction {kind}": edit for kind, edit in redaction.EDITS.items()},
    **{
        f"photo {kind}": photo_edits.EDITS[kind]
        for kind in (
            *("film date", "background blurred", "background removed", "background replaced"),
            *("tilt shift", "red eyes"),
        )
    },
}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return draw_textured_image(1, SIZE)


@pytest.fixture(scope="module")
def other() -> Image.Image:
    return draw_textured_image(2, (200, 200))


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "list_fonts", dict)
    monkeypatch.setattr(graphic, "list_fonts", dict)


def measure_unchanged(first: Image.Image, second: Image.Image) -> float:
    """Share of the pixels that differ by at most two gray levels in each channel."""
    steps = np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16))
    return float((steps.max(axis=2) <= 2).mean())


@pytest.mark.parametrize("name", LOCAL_EDITS)
def test_overlay_leaves_two_fifths_of_the_photo_where_they_were(
    name: str, photo: Image.Image, other: Image.Image
) -> None:
    for seed in range(6):
        edited = LOCAL_EDITS[name](photo, other, random.Random(seed))
        assert edited.mode == "RGB"
        assert edited.size == photo.size
        assert 0.4 <= measure_unchanged(photo, edited) < 1, seed


@pytest.mark.parametrize("name", LOCAL_EDITS)
def test_small_photo_is_edited(name: str) -> None:
    small = draw_textured_image(3, (120, 90))
    for seed in range(6):
        edited = LOCAL_EDITS[name](small, small, random.Random(seed))
        assert edited.size == small.size


def test_letters_are_written_without_any_fonts(
    no_fonts: None, photo: Image.Image, other: Image.Image
) -> None:
    for edit in lettering.EDITS.values():
        assert measure_unchanged(photo, edit(photo, other, random.Random(5))) < 1
    assert graphic.add_badge(photo, other, random.Random(5)) != photo


def test_only_scripts_with_an_installed_font_are_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("/fonts/NotoSansThai-Bold.ttf")
    monkeypatch.setattr(fonts, "list_fonts", lambda: {path.stem: path})
    picked = [fonts.pick_lettering(random.Random(seed)) for seed in range(20)]
    assert {lettering.path for lettering in picked} == {path, None}
    assert all((found.script is fonts.LATIN) == (found.path is None) for found in picked)


def test_straightened_photo_has_no_empty_corners_and_keeps_most() -> None:
    white = Image.new("RGB", SIZE, "white")
    for seed in range(10):
        copy = phone_copies.straighten(white, white, random.Random(seed))
        assert np.asarray(copy).min() > 250
        assert copy.width * copy.height > 0.6 * SIZE[0] * SIZE[1]


def test_sent_photo_is_no_larger_than_messengers_allow(other: Image.Image) -> None:
    large = other.resize((2400, 1800))
    for kind, largest in (("sent", 1600), ("forwarded", 1600), ("preview", 320)):
        copy = phone_copies.EDITS[kind](large, other, random.Random(3))
        assert max(copy.size) <= largest
        assert copy.width / copy.height == pytest.approx(4 / 3, abs=0.02)


def test_trimmed_screenshot_is_the_photo_but_for_its_edges(photo: Image.Image) -> None:
    copy = phone_copies.trim_screenshot(photo, photo, random.Random(1))
    assert copy.height / copy.width == pytest.approx(photo.height / photo.width, rel=0.07)
