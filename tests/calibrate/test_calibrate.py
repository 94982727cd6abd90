"""Calibration of a store on synthetic copies of its own photos, and saved thresholds."""

from __future__ import annotations

import json
import random
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from indexes import Root, Store
from indexes.records import SavedThresholds
from pipeline import IngestOptions, find_groups, find_matches, ingest_roots, load_embedder
from pipeline.calibrate import copy_scores
from pipeline.calibrate.calibrate import calibrate, sample_copyable_images
from pipeline.calibrate.measurement import Calibration
from pipeline.calibrate.synthetic_copies import EDITS, EVERYDAY_EDITS
from pipeline.report.calibration import format_calibration
from tests.support.cli import Run
from tests.support.images import draw_textured_image, save_image, save_whole_and_part


def save_dated_photos(folder: Path) -> Path:
    """Save four photos of three days, and three crops of photo 1; return the folder.

    1 and 2 are of one day. The crops are of the same day, of a later day, and without a date.
    """

    def save_dated(name: str, image: Image.Image, day: int | None, quality: int) -> None:
        exif = Image.Exif()
        if day:
            exif.get_ifd(0x8769)[0x9003] = f"2019:08:{day:02} 12:00:00"
        save_image(folder / name, image, quality=quality, exif=exif)

    for seed, day in ((1, 1), (2, 1), (3, 6), (4, 7)):
        save_dated(f"{seed}.jpg", draw_textured_image(seed), day, 92)
    copy = EVERYDAY_EDITS["crop 80 %"](
        draw_textured_image(1), draw_textured_image(9), random.Random(1)
    )
    for quality, (name, crop_day) in enumerate(
        {"cropped": 1, "wrong clock": 20, "from a friend": None}.items(), 80
    ):
        save_dated(f"1 {name}.jpg", copy, crop_day, quality)
    return folder


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("calibrated")
    with Store(folder / "store", write=True) as store:
        list(
            ingest_roots([Root(str(save_dated_photos(folder / "photos")))], store, load_embedder())
        )
        image_ids = sample_copyable_images(store, 3)
        assert len(image_ids) == 3
        return calibrate(store, load_embedder(), image_ids)


# Measurements


def test_calibrate_finds_most_synthetic_copies_at_the_floor(calibration: Calibration) -> None:
    assert (calibration.image_count, len(calibration.copies)) == (3, 3 * len(EDITS))
    lenient = calibration.evaluate(calibration.floor, 0.0)
    assert lenient.everyday.total == 3 * len(EVERYDAY_EDITS)
    assert lenient.everyday.value > 0.9
    assert lenient.hard.value > 0.5
    assert calibration.evaluate(0.999, 0.0).everyday.value < 0.5


def test_accepted_pairs_taken_days_apart_are_false_positives(calibration: Calibration) -> None:
    library = calibration.library
    names = [(Path(pair.first).name, Path(pair.second).name) for pair in library.false_positives]
    assert sorted(map(sorted, names)) == [
        ["1 cropped.jpg", "1 wrong clock.jpg"],
        ["1 wrong clock.jpg", "1.jpg"],
    ]
    # Each of the four versions of photo 1 with each other.
    assert calibration.evaluate(calibration.floor, 0.0).accepted_pairs == 6
    assert library.total_pairs == 21
    # Days 6 and 7 may be one shot.
    assert library.date_separated_pairs == sum(
        abs(first - second) >= 2 for first, second in combinations((1, 1, 1, 6, 7, 20), 2)
    )


def test_format_calibration_lists_settings_and_false_positives(calibration: Calibration) -> None:
    lines = list(format_calibration(calibration, calibration.choose_best(), is_saved=False))
    assert lines[0] == "3 images, 120 copies made; 11 pairs of images that were taken days apart"
    assert sum(line.endswith("<") for line in lines) == 1
    assert any("1 wrong clock.jpg" in line for line in lines)


def test_images_within_images_count_only_with_crops_and_only_at_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paste_in_corner(image: Image.Image, *rest: object) -> Image.Image:
        """Paste the image on a larger one; the cosine of the two is .17."""
        background = draw_textured_image(9, (640, 480))
        background.paste(image.resize((220, 165), Image.Resampling.LANCZOS), (10, 10))
        return background

    monkeypatch.setattr(
        copy_scores, "EDITS", {"gray": EVERYDAY_EDITS["gray"], "in a corner": paste_in_corner}
    )
    save_whole_and_part(tmp_path / "photos")
    with Store(tmp_path / "store", write=True) as store:
        calibrations = []
        for with_crops in (False, True):
            list(
                ingest_roots(
                    [Root(str(tmp_path / "photos"))],
                    store,
                    load_embedder(),
                    IngestOptions(with_crops=with_crops),
                )
            )
            file = store.catalog.files.get_by_path(str(tmp_path / "photos" / "part.jpg"))
            assert file and file.image_id
            calibrations.append(calibrate(store, load_embedder(), [file.image_id]))
    without_crops, with_crops_too = calibrations
    floor = with_crops_too.floor
    settings = [calibration.evaluate(floor, 0.0) for calibration in calibrations]
    assert [
        (setting.hard.count, setting.everyday.count, setting.accepted_pairs) for setting in settings
    ] == [(0, 1, 0), (1, 1, 1)]
    above_floor = with_crops_too.evaluate(floor + 0.1, 0.0)
    assert above_floor == without_crops.evaluate(floor + 0.1, 0.0)
    for setting, warning_count in ((settings[1], 0), (above_floor, 1)):
        lines = format_calibration(with_crops_too, setting, is_saved=False)
        assert sum("within" in line for line in lines) == warning_count


# Saved thresholds


def test_saved_thresholds_apply_unless_a_call_names_others(tmp_path: Path) -> None:
    with Store(tmp_path / "store", write=True) as store:
        list(
            ingest_roots(
                [Root(str(save_dated_photos(tmp_path / "photos")))], store, load_embedder()
            )
        )
        before = find_groups(store)
        assert [len(group.members) for group in before] == [3]
        lowest_share = min(
            member.verdict.agreeing_share for member in before[0].members if member.verdict
        )
        min_agreement = 1.0 if lowest_share < 1 else 0.0
        assert find_groups(store, min_agreement=min_agreement) != before or lowest_share == 1
        store.save_thresholds(SavedThresholds(0.9999, 1.0))
        assert find_groups(store) == []
        assert find_groups(store, 0.35, min_agreement=0.0) == before
        copy = str(tmp_path / "photos" / "1 cropped.jpg")
        assert [len(answer.matches) for answer in find_matches([copy], store, load_embedder())] == [
            0
        ]
        assert [
            len(answer.matches)
            for answer in find_matches([copy], store, load_embedder(), 0.35, min_agreement=0.0)
        ] == [3]
    with Store(tmp_path / "store") as reopened:
        assert reopened.catalog.settings.get_saved_thresholds() == SavedThresholds(0.9999, 1.0)


def test_calibrate_command_saves_and_resets_thresholds(run: Run, tmp_path: Path) -> None:
    assert run("calibrate")[0] == 10
    run("ingest", save_dated_photos(tmp_path / "photos"))
    code, out, err = run(
        "calibrate", "--sample", "1", "--threshold", "0.6", "--min-agreement", "0.9", "--save"
    )
    assert code == 0
    assert "making 40 copies of 1 image" in err
    assert out.endswith(
        "saved: groups, dedupe and query now use a threshold of 0.6 and an agreement of 0.9\n"
    )
    status: dict[str, Any] = json.loads(run("status", "--json")[1])
    assert status["saved_thresholds"] == {"threshold": 0.6, "min_agreement": 0.9}
    assert "saved       threshold 0.6, agreement 0.9, by `calibrate --save`" in run("status")[1]
    assert json.loads(run("groups", "--json")[1])["min_agreement"] == 0.9
    answer = json.loads(run("calibrate", "--sample", "1", "--json")[1])
    assert answer["copies"] == 40
    assert answer["saved"] is False
    assert answer["chosen"] in answer["settings"]
    assert run("calibrate", "--threshold", "0.1")[0] == 2
    assert run("calibrate", "--min-agreement", "1.5")[0] == 2
    assert run("groups", "--min-agreement", "nan")[0] == 2
    assert run("calibrate", "--reset", "--save")[0] == 2
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] == {
        "threshold": 0.6,
        "min_agreement": 0.9,
    }
    assert run("calibrate", "--reset") == (
        0,
        "forgot the saved threshold of 0.6 and agreement of 0.9\n",
        "",
    )
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is None
    assert run("calibrate", "--reset") == (0, "no thresholds were saved\n", "")
    assert json.loads(run("calibrate", "--reset", "--json")[1])["forgotten"] is None


def test_saved_threshold_at_the_floor_adds_no_similar_matches(tmp_path: Path) -> None:
    """Pairs that are not verifiable need the space's threshold, whatever threshold is saved."""
    for seed in range(6):
        save_image(
            tmp_path / "photos" / f"{seed}.jpg",
            draw_textured_image(seed, (60, 40)).resize((24, 16)).resize((60, 40)),
        )
    with Store(tmp_path / "store", write=True) as store:
        list(ingest_roots([Root(str(tmp_path / "photos"))], store, load_embedder()))
        files = [str(path) for path in sorted((tmp_path / "photos").iterdir())]
        before = [len(answer.matches) for answer in find_matches(files, store, load_embedder())]
        store.save_thresholds(SavedThresholds(0.35, 0.0))
        assert [
            len(answer.matches) for answer in find_matches(files, store, load_embedder())
        ] == before
        assert sum(
            len(answer.matches) for answer in find_matches(files, store, load_embedder(), 0.35)
        ) >= sum(before)


def test_calibrate_of_an_empty_store_saves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    run("ingest", tmp_path / "photos")
    assert run("calibrate", "--save")[0] == 0
    assert run("calibrate", "--threshold", "-0.5", "--save")[0] == 2
    assert run("status")[0] == 0
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is None


def test_calibrate_without_dates_saves_only_named_thresholds(run: Run, tmp_path: Path) -> None:
    """Without dates the precision is unknown. Thresholds that the user names are saved anyway."""
    for seed in range(3):
        save_image(tmp_path / "photos" / f"{seed}.jpg", draw_textured_image(seed))
    run("ingest", tmp_path / "photos")
    code, out, _ = run("calibrate", "--sample", "1", "--save")
    assert code == 0
    assert "the precision is unknown, so no setting is chosen for you" in out
    assert "saved:" not in out
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is None
    (arguments,) = re.findall(r"`neardup (calibrate --threshold .*)`", out)
    assert "saved:" in run(*arguments.split(), "--sample", "1")[1]
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is not None


def test_files_with_equal_pixels_count_as_one_dated_image(tmp_path: Path) -> None:
    """Adds a twin without EXIF to each photo; the dates stay."""
    folder = save_dated_photos(tmp_path / "photos")
    for path in list(folder.iterdir()):
        with Image.open(path) as opened:
            data = path.read_bytes()
        start = data.index(b"\xff\xe1")  # the segment with EXIF
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        assert opened.format == "JPEG"
        (folder / f"z {path.name}").write_bytes(data[:start] + data[end:])
    with Store(tmp_path / "store", write=True) as store:
        list(ingest_roots([Root(str(folder))], store, load_embedder()))
        calibration = calibrate(store, load_embedder(), [])
    library = calibration.library
    assert (library.total_pairs, library.date_separated_pairs) == (21, 11)
    assert len(library.false_positives) == 2
    assert calibration.evaluate(calibration.floor, 0.0).accepted_pairs == 6


def test_calibrate_of_photos_that_are_too_small_measures_nothing(run: Run, tmp_path: Path) -> None:
    for seed in (1, 2):
        save_image(tmp_path / "photos" / f"{seed}.jpg", draw_textured_image(seed, (60, 50)))
    run("ingest", tmp_path / "photos")
    code, out, _ = run("calibrate")
    assert code == 0
    assert out.startswith("no image could be copied")
    assert run("calibrate", "--json")[0] == 0
