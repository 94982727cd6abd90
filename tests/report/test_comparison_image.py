"""Explanations of pairs, as text and as an image."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS
from pipeline.report.comparison_image import (
    CAPTION_FONT_PX,
    CAPTION_GAP_PX,
    CAPTION_LINE_PX,
    CAPTIONS,
    MARGIN_PX,
    Panel,
)
from tests.support.cli import Run
from tests.support.images import draw_textured_image, save_image

KINDS = ["crop 60 %", "mirror", "screenshot", "stickers", "gray"]


@pytest.mark.parametrize("kind", KINDS)
def test_explain_copy_prints_and_draws_it(run: Run, tmp_path: Path, kind: str) -> None:
    first = save_image(tmp_path / "one.png", draw_textured_image(1))
    second = save_image(
        tmp_path / "other.png",
        (EVERYDAY_EDITS | HARD_EDITS)[kind](
            draw_textured_image(1), draw_textured_image(2), random.Random(1)
        ),
    )
    code, out, err = run("explain", first, second, "--image", tmp_path / "why.png")
    assert (code, err) == (0, f"image written to {tmp_path}/why.png\n")
    lines = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert lines["relation"].startswith("same picture" if kind == "gray" else "derived")
    assert " % agree in place" in lines["tiles"]
    with Image.open(tmp_path / "why.png") as drawn:
        assert drawn.width > 600
        pixels = np.asarray(drawn)
    green = (pixels[..., 1].astype(int) - pixels[..., 0] > 40) & (
        pixels[..., 1].astype(int) - pixels[..., 2] > 10
    )
    assert green.mean() > 0.01  # tiles that agree
    found = json.loads(run("explain", first, second, "--json")[1])["pairs"][0]
    assert found["verdict"]["edits"]["overlap"]


def cut_panel(path: Path, number: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """Cut a panel, counted from 0, out of a picture with panels of one size."""
    left, top = MARGIN_PX, MARGIN_PX + CAPTION_LINE_PX + CAPTION_GAP_PX
    if number % 2:
        left += size[0] + MARGIN_PX
    row_height = size[1] + CAPTION_LINE_PX + CAPTION_GAP_PX + MARGIN_PX
    top += number // 2 * row_height + (CAPTION_LINE_PX if number == 4 else 0)  # two lines
    with Image.open(path) as sheet:
        return np.asarray(sheet.crop((left, top, left + size[0], top + size[1]))).astype(int)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_picture_shows_differences_where_they_are_on_the_first(
    run: Run, tmp_path: Path, is_reversed: bool
) -> None:
    """Half of one image is white, so that mean and contrast of all its pixels mislead."""
    size = (448, 336)
    image = draw_textured_image(1, size)
    covered = image.copy()
    covered.paste("white", (0, 0, 224, 336))
    files = [
        save_image(tmp_path / "one.png", image.resize((640, 480))),
        save_image(tmp_path / "other.png", covered),
    ]
    run("explain", *files[:: -1 if is_reversed else 1], "--image", tmp_path / "why.png")
    difference = cut_panel(tmp_path / "why.png", 3, size)
    assert (difference[24:-24, 248:-24] > 235).mean() > 0.99
    assert difference[24:-24, 24:200].mean() < 128
    tiles = cut_panel(tmp_path / "why.png", 4, size) - cut_panel(tmp_path / "why.png", 0, size)
    is_red = tiles[..., 0] - tiles[..., 1] > 20
    assert is_red[24:-24, 24:200].mean() > 0.5
    assert is_red[24:-24, 248:-24].mean() < 0.05


def test_captions_fit_into_the_picture_of_narrow_photos(run: Run, tmp_path: Path) -> None:
    image = draw_textured_image(1, (200, 600))
    files = [
        save_image(tmp_path / f"{quality}.jpg", image, quality=quality) for quality in (95, 60)
    ]
    run("explain", *files, "--image", tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as sheet:
        longest = ImageDraw.Draw(sheet).textlength(
            max(CAPTIONS[Panel.TILES].splitlines(), key=len), font_size=CAPTION_FONT_PX
        )
        assert sheet.width >= 2 * longest


def test_explain_unrelated_photos_names_no_alignment(run: Run, tmp_path: Path) -> None:
    first, second = (
        save_image(tmp_path / f"{seed}.png", draw_textured_image(seed)) for seed in (1, 2)
    )
    code, out, _ = run("explain", first, second, "--image", tmp_path / "why.jpg")
    assert code == 0
    assert "relation    unrelated" in out
    assert "too few matching keypoints" in out
    assert (tmp_path / "why.jpg").exists()


def test_explain_overlapping_crops_gives_the_reason(run: Run, tmp_path: Path) -> None:
    whole = draw_textured_image(6, (960, 640))
    first = save_image(tmp_path / "left.png", whole.crop((0, 0, 640, 640)))
    second = save_image(tmp_path / "right.png", whole.crop((320, 0, 960, 640)))
    _, out, _ = run("explain", first, second)
    assert "relation    overlaps\nreason      each shows something that the other lacks\n" in out


@pytest.mark.parametrize("suffix", ["png", "JPEG", "webp", "tiff", "gif", "avif"])
def test_picture_of_explain_is_passed_over_wherever_it_goes(
    run: Run, photos: Path, suffix: str
) -> None:
    drawn, moved = photos / f"why.{suffix}", photos / "sub" / f"other-{suffix}"
    run("explain", photos / "a.png", photos / "b.jpg", "--image", drawn)
    shutil.copy(drawn, moved)
    code, out, _ = run("ingest", photos, "--json")
    assert code == 0
    assert json.loads(out)["skipped"] == {"made by neardup": 2}
    assert "2 made by neardup" in run("status")[1]
    with Image.open(drawn) as image:
        assert image.width > 100


def test_featureless_photos_are_too_plain_to_compare(run: Run, tmp_path: Path) -> None:
    first, second = (
        save_image(tmp_path / f"{gray}.png", Image.new("RGB", (300, 200), (gray,) * 3))
        for gray in (10, 200)
    )
    code, out, _ = run("explain", first, second)
    assert code == 0
    assert out.count("too plain to compare\n") == 3
    assert "relation    not verifiable: too plain to compare\n" in out
    assert "keypoints" not in out
    assert run("compare", first, second)[1].endswith("  not verifiable: too plain to compare\n")
    assert f"{first} (too plain to compare)\n" in run("compare", first, second, first)[1]


def test_explain_unreadable_photo_writes_no_image(run: Run, tmp_path: Path) -> None:
    first = save_image(tmp_path / "one.png", draw_textured_image(1))
    code, out, err = run("explain", first, tmp_path / "gone.png", "--image", tmp_path / "why.png")
    assert (code, out) == (3, "")
    assert "gone.png: unreadable" in err
    assert "written" not in err
    assert not (tmp_path / "why.png").exists()


def test_image_option_replaces_no_file(run: Run, tmp_path: Path) -> None:
    first, second = (
        save_image(tmp_path / f"{number}.png", draw_textured_image(number, (200, 150)))
        for number in (1, 2)
    )
    before = second.read_bytes()
    code, out, err = run("explain", first, first, "--image", second)
    assert (code, out) == (2, "")
    assert "already exists" in err
    assert second.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["no folder/why.png", "x" * 300 + "/why.png", "why.what", "why.psd", "why"]
)
def test_image_option_that_cannot_be_written_is_refused(
    run: Run, tmp_path: Path, name: str
) -> None:
    first = save_image(tmp_path / "one.png", draw_textured_image(1, (200, 150)))
    code, out, err = run("explain", first, first, "--image", tmp_path / name)
    assert (code, out) == (2, "")
    assert "cannot be written" in err
