"""What a library finds at each setting, measured on copies of its own photos."""

from __future__ import annotations

import json
import random
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from indexes import Root, Store
from indexes.records import SavedThresholds
from pipeline import IngestOptions, find_groups, find_matches, ingest_roots, load_embedder
from pipeline.calibrate import calibrate as measuring
from pipeline.calibrate.calibrate import EDITS, calibrate, sample_copyable_images
from pipeline.calibrate.measurement import MIN_PRECISION, AcceptedPair, Calibration, Share
from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS
from pipeline.report.calibration import format_calibration
from tests.support.cli import Run
from tests.support.images import draw_textured_image, save_image, save_whole_and_part


def library(folder: Path) -> Path:
    """Four photos of three days, 1 and 2 of the first; a crop of 1 from its day, another that says it is of a day long after, and one
    without a date.
    """

    def dated(name: str, picture: Image.Image, day: int | None, quality: int) -> None:
        exif = Image.Exif()
        if day:
            exif.get_ifd(0x8769)[0x9003] = f"2019:08:{day:02} 12:00:00"
        save_image(folder / name, picture, quality=quality, exif=exif)

    for seed, day in ((1, 1), (2, 1), (3, 6), (4, 7)):
        dated(f"{seed}.jpg", draw_textured_image(seed), day, 92)
    copy = EVERYDAY_EDITS["crop 80 %"](
        draw_textured_image(1), draw_textured_image(9), random.Random(1)
    )
    for quality, (name, crop_day) in enumerate(
        {"cropped": 1, "wrong clock": 20, "from a friend": None}.items(), 80
    ):
        dated(f"1 {name}.jpg", copy, crop_day, quality)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("calibrated")
    with Store(folder / "store", write=True) as store:
        list(ingest_roots([Root(str(library(folder / "photos")))], store, load_embedder()))
        images = sample_copyable_images(store, 3)
        assert len(images) == 3
        return calibrate(store, load_embedder(), images)


# Measuring


def test_copies_of_photos_are_found(measured: Calibration) -> None:
    assert (measured.images, len(measured.kinds)) == (3, 3 * len(EDITS))
    first = measured.evaluate(measured.floor, 0.0)
    assert first.everyday.total == 3 * len(EVERYDAY_EDITS)
    assert first.everyday.value > 0.9
    assert first.hard.value > 0.5
    assert measured.evaluate(0.999, 0.0).everyday.value < 0.5


def test_what_is_taken_for_copies_though_it_was_taken_days_apart_is_named(
    measured: Calibration,
) -> None:
    names = [(Path(pair.first).name, Path(pair.second).name) for pair in measured.false_positives]
    assert sorted(map(sorted, names)) == [
        ["1 cropped.jpg", "1 wrong clock.jpg"],
        ["1 wrong clock.jpg", "1.jpg"],
    ]
    assert (
        measured.evaluate(measured.floor, 0.0).accepted_pairs == 6
    )  # each of four versions with each other
    assert measured.total_pairs == 21
    assert measured.date_separated_pairs == sum(
        abs(one - other) >= 2 for one, other in combinations((1, 1, 1, 6, 7, 20), 2)
    )  # 6 and 7 may be one shot


def test_a_page_of_text_is_printed(measured: Calibration) -> None:
    lines = list(format_calibration(measured, measured.choose_best(), is_saved=False))
    assert lines[0] == "3 photos, 120 copies made; 11 pairs of photos that were taken days apart"
    assert sum(line.endswith("<") for line in lines) == 1
    assert any("1 wrong clock.jpg" in line for line in lines)


def test_pictures_within_pictures_count_where_they_are_looked_for_and_at_the_floor_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_a_corner(picture: Image.Image, *rest: object) -> Image.Image:  # the cosine is .17
        made = draw_textured_image(9, (640, 480))
        made.paste(picture.resize((220, 165), Image.Resampling.LANCZOS), (10, 10))
        return made

    monkeypatch.setattr(
        measuring, "EDITS", {"grey": EVERYDAY_EDITS["grey"], "in a corner": in_a_corner}
    )
    save_whole_and_part(tmp_path / "photos")
    with Store(tmp_path / "store", write=True) as store:
        found = []
        for parts in (False, True):
            list(
                ingest_roots(
                    [Root(str(tmp_path / "photos"))],
                    store,
                    load_embedder(),
                    IngestOptions(with_crops=parts),
                )
            )
            known = store.catalog.files.get_by_path(str(tmp_path / "photos" / "part.jpg"))
            assert known and known.image_id
            found.append(calibrate(store, load_embedder(), [known.image_id]))
    without, inside = found
    floor = inside.floor
    assert [
        (
            one.evaluate(floor, 0.0).hard.count,
            one.evaluate(floor, 0.0).everyday.count,
            one.evaluate(floor, 0.0).accepted_pairs,
        )
        for one in found
    ] == [
        (0, 1, 0),
        (1, 1, 1),
    ]
    above = inside.evaluate(floor + 0.1, 0.0)
    assert above == without.evaluate(floor + 0.1, 0.0)
    said = [
        [line for line in format_calibration(inside, one, is_saved=False) if "within" in line]
        for one in (inside.evaluate(floor, 0.0), above)
    ]
    assert [len(lines) for lines in said] == [0, 1]


# Counting


def test_the_interval_is_wilsons() -> None:
    assert Share(81, 263).bounds == pytest.approx(
        (0.2553, 0.3662), abs=1e-4
    )  # Newcombe 1998, table I
    assert Share(15, 148).bounds == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert Share(0, 20).bounds == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert Share(0, 0).bounds == (0.0, 1.0)


@given(some=st.integers(0, 500), more=st.integers(0, 500))
def test_a_share_lies_within_its_bounds(some: int, more: int) -> None:
    share = Share(some, some + more)
    low, high = share.bounds
    assert 0 <= low <= high <= 1
    assert share.total == 0 or low - 1e-12 <= share.value <= high + 1e-12
    wider = Share(some * 10, (some + more) * 10).bounds
    assert wider[1] - wider[0] <= high - low


COPY = st.tuples(
    st.sampled_from(list(EDITS)), st.floats(-1, 1), st.sampled_from([-1.0, 0.5, 0.85, 1.0])
)


def made(
    copies: list[tuple[str, float, float]],
    found: list[tuple[float, float]],
    far: int,
    wrong: list[tuple[float, float]],
) -> Calibration:
    scores, agree = (
        np.array([score for _, score, _ in copies]),
        np.array([share for _, _, share in copies]),
    )
    pairs = tuple(AcceptedPair("/a", "/b", *one) for one in wrong)
    return Calibration(
        1,
        0.35,
        tuple(kind for kind, _, _ in copies),
        scores,
        agree,
        np.array(found).reshape(-1, 2),
        2 * far,
        far,
        pairs,
    )


@given(
    copies=st.lists(COPY, max_size=20),
    threshold=st.floats(0, 1),
    strictness=st.sampled_from([0.0, 0.5, 0.86]),
)
def test_a_setting_counts_what_reaches_it(
    copies: list[tuple[str, float, float]], threshold: float, strictness: float
) -> None:
    setting = made(copies, [(0.5, 0.7), (0.9, 0.9)], 100, [(0.5, 0.7)]).evaluate(
        threshold, strictness
    )
    reached = [
        kind
        for kind, score, agree in copies
        if score >= threshold and agree >= strictness and agree >= 0
    ]
    assert (setting.everyday.count, setting.hard.count) == (
        sum(kind in EVERYDAY_EDITS for kind in reached),
        sum(kind not in EVERYDAY_EDITS for kind in reached),
    )
    assert setting.everyday.total + setting.hard.total == len(copies)
    assert setting.accepted_pairs == (threshold <= 0.5 and strictness <= 0.7) + (
        threshold <= 0.9 and strictness <= 0.9
    )
    assert setting.false_positives.count == (threshold <= 0.5 and strictness <= 0.7)


def test_the_best_is_the_most_lenient_that_is_sure_to_be_precise() -> None:
    copies = [("grey", 0.9, 1.0), ("grey", 0.5, 0.9), ("blur", 0.4, 0.85)]
    sure = made(copies, [(0.9, 1.0)] * 10_000, 10**9, [])
    assert (
        sure.choose_best().threshold,
        sure.choose_best().min_agreement,
        sure.choose_best().everyday.count,
    ) == (0.35, 0.0, 2)
    # Twenty in a thousand million make 40 wrong ones of the 10,000 that are found.
    doubtful = made(copies, [(0.9, 1.0)] * 10_000, 10**9, [(0.42, 0.79)] * 20)
    best = doubtful.choose_best()
    assert (best.threshold, best.min_agreement, best.everyday.count, best.hard.count) == (
        0.35,
        0.8,
        2,
        1,
    )
    assert (best.precision_lower_bound_95 or 0) >= MIN_PRECISION
    assert best.false_positives.count == 0
    few, wrong = (
        "too few pairs are known to be no copies",
        "less than 99.9% of what it finds is to be expected to be right",
    )
    small = made(copies, [(0.9, 1.0)] * 10, 10, [])
    bad = made(copies, [(0.9, 1.0)] * 100, 10**6, [(0.9, 1.0)] * 40)
    undated = made(copies, [(0.9, 1.0)] * 100, 0, [])
    for found, says in ((sure, set()), (small, {few}), (bad, {wrong}), (undated, set())):
        lines = "\n".join(format_calibration(found, found.choose_best(), is_saved=False))
        assert {line for line in (few, wrong) if line in lines} == says
    nothing = made([], [], 0, [])
    assert nothing.choose_best().expected_precision is None
    assert "nothing was measured" in "".join(
        format_calibration(nothing, nothing.choose_best(), is_saved=False)
    )


# What is chosen is gone by


def test_what_was_chosen_holds_until_something_else_is_said(tmp_path: Path) -> None:
    with Store(tmp_path / "store", write=True) as store:
        list(ingest_roots([Root(str(library(tmp_path / "photos")))], store, load_embedder()))
        before = find_groups(store)
        assert [len(group.members) for group in before] == [3]
        least = min(member.verdict.agreeing_share for member in before[0].members if member.verdict)
        assert find_groups(store, min_agreement=1.0 if least < 1 else 0.0) != before or least == 1
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
    with Store(tmp_path / "store") as again:
        assert again.catalog.settings.get_saved_thresholds() == SavedThresholds(0.9999, 1.0)


def test_the_command(run: Run, tmp_path: Path) -> None:
    assert run("calibrate")[0] == 10
    run("ingest", library(tmp_path / "photos"))
    code, out, err = run(
        "calibrate", "--sample", "1", "--threshold", "0.6", "--min-agreement", "0.9", "--save"
    )
    assert code == 0
    assert "making 40 copies of 1 photo" in err
    assert out.endswith(
        "groups, dedupe and query go by a threshold of 0.6 and an agreement of 0.9 from now on\n"
    )
    told: dict[str, Any] = json.loads(run("status", "--json")[1])
    assert told["saved_thresholds"] == {"threshold": 0.6, "min_agreement": 0.9}
    assert (
        "saved       threshold 0.6, agreement 0.9, by `calibrate --save`"
        in run("status")[1]
    )
    assert json.loads(run("groups", "--json")[1])["min_agreement"] == 0.9
    told = json.loads(run("calibrate", "--sample", "1", "--json")[1])
    assert told["copies"] == 40
    assert told["saved"] is False
    assert told["chosen"] in told["settings"]
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


def test_a_choice_at_the_floor_makes_nothing_similar(tmp_path: Path) -> None:
    """What pixels cannot tell is similar from the space's threshold on, however low pairs are looked at."""
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


def test_a_store_without_photos_has_nothing_to_choose(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    run("ingest", tmp_path / "photos")
    assert run("calibrate", "--save")[0] == 0
    assert run("calibrate", "--threshold", "-0.5", "--save")[0] == 2
    assert run("status")[0] == 0
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is None


def test_nothing_is_chosen_where_nobody_knows_what_is_right(run: Run, tmp_path: Path) -> None:
    """No photo has a date, so no pair is known to be wrong. What a person names is saved all the same."""
    for seed in range(3):
        save_image(tmp_path / "photos" / f"{seed}.jpg", draw_textured_image(seed))
    run("ingest", tmp_path / "photos")
    code, out, _ = run("calibrate", "--sample", "1", "--save")
    assert code == 0
    assert "not known, so nothing is chosen for you" in out
    assert "from now on" not in out
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is None
    (words,) = re.findall(r"`neardup (calibrate --threshold .*)`", out)
    assert "from now on" in run(*words.split(), "--sample", "1")[1]
    assert json.loads(run("status", "--json")[1])["saved_thresholds"] is not None


def test_files_with_the_same_pixels_are_one_picture(tmp_path: Path) -> None:
    """A stripped twin of each dated version, which sorts later, takes no date away."""
    folder = library(tmp_path / "photos")
    for path in list(folder.iterdir()):
        with Image.open(path) as opened:
            data = path.read_bytes()
        start = data.index(b"\xff\xe1")  # the segment that EXIF is in
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        assert opened.format == "JPEG"
        (folder / f"z {path.name}").write_bytes(data[:start] + data[end:])
    with Store(tmp_path / "store", write=True) as store:
        list(ingest_roots([Root(str(folder))], store, load_embedder()))
        found = calibrate(store, load_embedder(), [])
    assert (found.total_pairs, found.date_separated_pairs, len(found.false_positives)) == (
        21,
        11,
        2,
    )
    assert found.evaluate(found.floor, 0.0).accepted_pairs == 6


def test_a_library_that_is_away_or_bare_is_told_of(run: Run, tmp_path: Path) -> None:
    for seed in (1, 2):
        save_image(tmp_path / "photos" / f"{seed}.jpg", draw_textured_image(seed, (60, 50)))
    run("ingest", tmp_path / "photos")
    code, out, _ = run("calibrate")
    assert code == 0
    assert out.startswith("no photo could be copied")
    assert run("calibrate", "--json")[0] == 0
