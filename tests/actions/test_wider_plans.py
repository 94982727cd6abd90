"""Plans of wider relations, of drawn files: what only a copy shows is not given up with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.actions.test_planner import get_reasons, list_victims, make_plan
from tests.support.cli import Run
from tests.support.images import draw_scene, draw_textured_image, save_image
from tests.support.pair_verification import draw_sharp_image

SIZE = (640, 480)
WIDE = ("--relations", "identical,same,derived", "--min-confidence", "0.9")


def write_lines(image: Image.Image, top: int, left: int, count: int) -> Image.Image:
    """Write lines of text below one another."""
    draw = ImageDraw.Draw(image)
    for number in range(count):
        words = f"{number} a line that stands in no other file of the library, at all"
        draw.text((left, top + 14 * number), words, fill="black", font_size=12)
    return image


def show_inside(kind: str, photo: Image.Image) -> Image.Image:
    """Show a photo inside another image, of a kind."""
    width, height = photo.size
    if kind == "diptych":
        both = Image.new("RGB", (2 * width, height))
        both.paste(photo, (0, 0))
        both.paste(draw_textured_image(7, SIZE), (width, 0))
        return both
    if kind == "page":
        page = Image.new("RGB", (width + 40, height + 520), "white")
        page.paste(photo, (20, 20))
        return write_lines(page, height + 30, 20, 34)
    chat = Image.new("RGB", (width + 80, height + 500), (230, 238, 230))
    chat.paste(photo, (40, 250))
    draw = ImageDraw.Draw(chat)
    for number in range(8):
        top = 10 + 58 * number + (number > 3) * (height + 20)
        draw.rounded_rectangle((20, top, 420, top + 48), 12, fill=(255, 255, 200))
        draw.text((30, top + 15), f"message {number} of this chat", fill="black", font_size=16)
    return chat


@pytest.mark.parametrize("kind", ["diptych", "page", "chat"])
def test_image_that_shows_a_photo_among_other_things_stays(
    run: Run, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "photos"
    photo = draw_sharp_image(*SIZE)
    save_image(folder / "photo.jpg", photo, quality=92)
    save_image(folder / "small.jpg", photo.resize((480, 360)), quality=85)
    save_image(folder / "inside.png", show_inside(kind, photo))
    assert run("ingest", folder)[0] == 0
    plan = make_plan(run, *WIDE)
    assert list(list_victims(plan, folder)) == ["small.jpg"]
    assert get_reasons(plan, folder) == {"inside.png": "shows more than its keeper"}


def test_plan_says_in_words_how_a_copy_was_edited(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    photo = draw_scene(1, SIZE)
    save_image(folder / "photo.jpg", photo, quality=92)
    save_image(folder / "gray.jpg", photo.convert("L").convert("RGB"), quality=80)
    assert run("ingest", folder)[0] == 0
    code, out, _ = run("plan", *WIDE)
    assert code == 0
    assert "same picture, in grayscale; probability of a copy" in out


def test_lossless_file_stays_beside_a_jpeg_of_its_size(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    photo = draw_sharp_image(640, 480)
    save_image(folder / "photo.jpg", photo, quality=95, subsampling=0)
    save_image(folder / "photo.png", photo)
    assert run("ingest", folder)[0] == 0
    plan = make_plan(run, "--relations", "same", "--min-confidence", "0.5")
    assert list_victims(plan, folder) == {}
    reason = "lossless, and its keeper is not; choose with `neardup decide keep`"
    assert get_reasons(plan, folder) == {"photo.png": reason}


def test_source_of_an_upscaled_keeper_stays(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    sharp = draw_sharp_image(800, 600)
    save_image(folder / "photo.jpg", sharp, quality=95)
    large = sharp.resize((1360, 1020), Image.Resampling.LANCZOS)
    save_image(folder / "large.jpg", large, quality=95)
    assert run("ingest", folder)[0] == 0
    assert run("decide", "keep", folder / "large.jpg")[0] == 0
    plan = make_plan(run, *WIDE)
    assert list_victims(plan, folder) == {}
    assert get_reasons(plan, folder) == {"photo.jpg": "its keeper is upscaled, and it is not"}
