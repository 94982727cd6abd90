"""Why two photos are what they are to each other, in words and as a picture."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS
from tests.support.images import draw_textured_image, save_image

Run = Callable[..., tuple[int, str, str]]
KINDS = ["crop 60 %", "mirror", "screenshot", "stickers", "grey"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_explained_and_drawn(run: Run, tmp_path: Path, kind: str) -> None:
    one = save_image(tmp_path / "one.png", draw_textured_image(1))
    other = save_image(
        tmp_path / "other.png",
        (EVERYDAY_EDITS | HARD_EDITS)[kind](
            draw_textured_image(1), draw_textured_image(2), random.Random(1)
        ),
    )
    code, out, err = run("explain", one, other, "--image", tmp_path / "why.png")
    assert (code, err) == (0, "")
    lines = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert lines["relation"].startswith("same picture" if kind == "grey" else "derived")
    assert " % agree in place" in lines["tiles"]
    with Image.open(tmp_path / "why.png") as drawn:
        assert drawn.width > 600
        pixels = np.asarray(drawn)
    green = (pixels[..., 1].astype(int) - pixels[..., 0] > 40) & (
        pixels[..., 1].astype(int) - pixels[..., 2] > 10
    )
    assert green.mean() > 0.01  # tiles that agree
    found = json.loads(run("explain", one, other, "--json")[1])["pairs"][0]
    assert found["verdict"]["edits"]["overlap"]


def test_strangers_are_explained_too(run: Run, tmp_path: Path) -> None:
    one, other = (
        save_image(tmp_path / f"{seed}.png", draw_textured_image(seed)) for seed in (1, 2)
    )
    code, out, _ = run("explain", one, other, "--image", tmp_path / "why.jpg")
    assert code == 0
    assert "relation    unrelated" in out
    assert "none agree" in out
    assert (tmp_path / "why.jpg").exists()


def test_what_shows_nothing_is_not_guessed_at(run: Run, tmp_path: Path) -> None:
    one, other = (
        save_image(tmp_path / f"{grey}.png", Image.new("RGB", (300, 200), (grey,) * 3))
        for grey in (10, 200)
    )
    code, out, _ = run("explain", one, other)
    assert code == 0
    assert "relation    not verifiable" in out
    assert "too little stands out" in out


def test_a_photo_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    one = save_image(tmp_path / "one.png", draw_textured_image(1))
    code, out, err = run("explain", one, tmp_path / "gone.png", "--image", tmp_path / "why.png")
    assert (code, out) == (3, "")
    assert "gone.png: unreadable" in err
    assert not (tmp_path / "why.png").exists()


def test_a_picture_replaces_no_file(run: Run, tmp_path: Path) -> None:
    one, other = (
        save_image(tmp_path / f"{number}.png", draw_textured_image(number, (200, 150)))
        for number in (1, 2)
    )
    before = other.read_bytes()
    code, out, err = run("explain", one, one, "--image", other)
    assert (code, out) == (2, "")
    assert "is there already" in err
    assert other.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["no folder/why.png", "x" * 300 + "/why.png", "why.what", "why.psd", "why"]
)
def test_a_picture_that_cannot_be_written(run: Run, tmp_path: Path, name: str) -> None:
    one = save_image(tmp_path / "one.png", draw_textured_image(1, (200, 150)))
    code, out, err = run("explain", one, one, "--image", tmp_path / name)
    assert (code, out) == (2, "")
    assert "cannot be written" in err
