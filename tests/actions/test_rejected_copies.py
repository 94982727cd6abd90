"""Copies of a rejected photo that are better than it stay; those at most as good go with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from pipeline.cli.console import EXIT_SKIPPED
from tests.actions.test_rejected import apply, get_reasons, list_victims, make_plan, reject
from tests.support.cli import Run
from tests.support.images import draw_scene, save_image
from tests.support.pair_verification import draw_sharp_image

SIZE = (640, 480)
SCENE = draw_scene(1, SIZE)


def make_exif() -> Image.Exif:
    """Make what a camera says of a shot."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Nikon", "E950"
    exif.get_ifd(0x8769)[0x9003] = "2020:03:04 05:06:07"
    return exif


def save_pair(kind: str, folder: Path) -> tuple[Path, Path]:
    """Save a photo and a worse version of it, of a kind; return the two, the worse one last."""
    photo, worse = folder / "photo.jpg", folder / "worse.jpg"
    if kind == "gray":
        save_image(photo, SCENE, quality=88)
        save_image(worse, SCENE.convert("L").convert("RGB"), quality=98)
    elif kind == "upscaled":
        sharp = draw_sharp_image(800, 600)
        save_image(photo, sharp, quality=95)
        save_image(worse, sharp.resize((1360, 1020), Image.Resampling.LANCZOS), quality=95)
    elif kind == "without metadata":
        save_image(photo, SCENE, quality=92, exif=make_exif())
        save_image(worse, SCENE, quality=92, subsampling=0)
    elif kind == "without film":
        save_image(photo, SCENE, quality=90)
        photo.with_suffix(".mov").write_bytes(b"a film of the photo")
        save_image(worse, SCENE, quality=93)
    elif kind == "smaller":
        save_image(photo, SCENE, quality=90)
        save_image(worse, SCENE.resize((600, 450)), quality=97)
    elif kind == "lossy":
        photo = save_image(folder / "photo.png", SCENE)
        save_image(worse, SCENE, quality=97, subsampling=0)
    return photo, worse


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gray", "has colors, and the rejected photo is gray"),
        ("upscaled", "the rejected photo is upscaled, and it is not"),
        ("without metadata", "has metadata that the rejected photo lacks: "),
        ("without film", "photo.mov' has no copy beside the rejected photo"),
        ("smaller", "has more pixels than the rejected photo"),
        ("lossy", "lossless, and the rejected photo is not"),
    ],
)
def test_better_copy_of_a_rejected_photo_is_left(
    run: Run, tmp_path: Path, kind: str, reason: str
) -> None:
    folder = tmp_path / "photos"
    photo, worse = save_pair(kind, folder)
    again = folder / "again.jpg"
    with Image.open(worse) as image:
        image.save(again, quality=60)
    shutil.copy2(worse, folder / "same.jpg")
    assert run("ingest", folder)[0] == 0
    reject(run, worse)
    plan = make_plan(run)
    victims = list_victims(plan, folder)
    assert sorted(victims) == ["again.jpg", "same.jpg", "worse.jpg"], plan["left"]
    assert reason in get_reasons(plan, folder)[photo.name]


def test_rejection_that_is_left_of_two_takes_no_better_copy(run: Run, tmp_path: Path) -> None:
    """The photo was rejected by itself, too, when the plan was made, and then no more."""
    folder, file = tmp_path / "photos", tmp_path / "plan.json"
    photo, worse = save_pair("gray", folder)
    assert run("ingest", folder)[0] == 0
    of_worse = reject(run, worse)
    (of_photo,) = {*reject(run, photo)} - {*of_worse}
    victims = list_victims(make_plan(run, "--output", file), folder)
    assert sorted(victims) == ["photo.jpg", "worse.jpg"]
    assert run("decide", "forget", of_photo)[0] == 0
    code, outcomes = apply(run, file, "--yes")
    assert code == EXIT_SKIPPED
    assert outcomes["worse.jpg"][0] == "done"
    assert "is not rejected by any decision now" in outcomes["photo.jpg"][1]
    assert photo.exists()
