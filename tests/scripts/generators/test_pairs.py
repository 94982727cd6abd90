"""Pairs with truth: equal for equal seeds, and right about what they show."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.generators import neighbors, pairs, scrolled
from scripts.generators.layout import Layout
from scripts.generators.pairs import BROWSER_SOURCE, SOURCES, MadePair, list_sources, make_pairs
from scripts.generators.truth import MadeTruth
from tests.support.images import draw_textured_image, measure_difference, save_image

SIZE = (240, 180)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    return [
        save_image(folder / f"{seed}.jpg", draw_textured_image(seed, SIZE), quality=90)
        for seed in range(4)
    ]


def equal_pairs(first: MadePair, second: MadePair) -> bool:
    """Compare two pairs, pixel by pixel."""
    return (first.source, first.kind, first.truth) == (
        second.source,
        second.kind,
        second.truth,
    ) and (
        first.first.tobytes() == second.first.tobytes()
        and first.second.tobytes() == second.second.tobytes()
    )


@pytest.mark.parametrize("source", sorted(set(SOURCES) - {BROWSER_SOURCE}))
def test_source_makes_equal_pairs_from_equal_seeds(source: str, photos: list[Path]) -> None:
    count = len(SOURCES[source])
    pairs = list(make_pairs(photos, 1, count, [source]))
    assert sorted(pair.kind for pair in pairs) == sorted(SOURCES[source])
    again = make_pairs(photos, 1, count, [source])
    assert all(map(equal_pairs, pairs, again))
    others = make_pairs(photos, 2, count, [source])
    assert not any(map(equal_pairs, pairs, others))


def test_pairs_do_not_depend_on_their_count_and_sources_take_turns(photos: list[Path]) -> None:
    names = ["redaction", "photographic"]
    short = list(make_pairs(photos, 7, 3, names))
    long = list(islice(make_pairs(photos, 7, 100, names), 4))
    assert all(map(equal_pairs, short, long))
    assert [pair.source for pair in long] == names * 2


def test_source_that_is_unknown_raises(photos: list[Path]) -> None:
    with pytest.raises(KeyError):
        next(make_pairs(photos, 0, 1, ["nothing"]))


def test_copy_keeps_the_photo_as_its_first_picture(photos: list[Path]) -> None:
    originals = [Image.open(path).convert("RGB") for path in photos]
    for pair in make_pairs(photos, 3, 10, ["redaction"]):
        assert pair.truth is MadeTruth.COPY
        nearest = min(
            measure_difference(np.asarray(pair.first), np.asarray(original))
            for original in originals
        )
        assert nearest == 0
        assert min(pair.second.size) >= 96


def test_all_truths_are_made_without_a_browser(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "is_available", lambda: False)
    assert list_sources() == [name for name in SOURCES if name != BROWSER_SOURCE]
    made = list(make_pairs(photos, 0, 4 * len(list_sources())))
    assert {pair.source for pair in made} == set(list_sources())
    assert {pair.truth for pair in made} == set(MadeTruth)


def draw_coordinates(size: tuple[int, int]) -> Image.Image:
    """Draw an image whose pixels are their own x, y // 256 and y % 256."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x % 256, y // 256, y % 256], axis=-1).astype(np.uint8))


def read_row(image: Image.Image, x: int, y: int) -> int:
    """Read the row that a pixel of draw_coordinates() had."""
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return int(256 * pixel[1] + pixel[2])


def test_two_crops_show_between_30_and_80_percent_of_each_other() -> None:
    photo = draw_coordinates((250, 180))
    for seed in range(30):
        truth, first, second = neighbors.crop_twice(photo, photo, random.Random(seed))
        assert truth is MadeTruth.OVERLAP
        assert first.size == second.size
        shared = {tuple(pixel) for pixel in np.asarray(first).reshape(-1, 3).tolist()}
        others = np.asarray(second).reshape(-1, 3).tolist()
        share = sum(tuple(pixel) in shared for pixel in others) / len(others)
        assert 0.28 <= share <= 0.82, seed


def test_scrolled_screens_show_between_30_and_80_percent_of_each_other() -> None:
    def render(layout: Layout, photos: object) -> Image.Image:
        return draw_coordinates(layout.size)

    photo = draw_textured_image(1, SIZE)
    for kind, make in scrolled.make_makers(render).items():
        for seed in range(5):
            truth, first, second = make(photo, photo, random.Random(seed))
            assert truth is MadeTruth.OVERLAP
            rows = range(first.height)
            scrolled_rows = [row for row in rows if read_row(first, 5, row) != row]
            middle = first.height // 2
            step = read_row(second, 5, middle) - read_row(first, 5, middle)
            assert 0.19 <= step / len(scrolled_rows) <= 0.71, kind


def test_moved_thing_leaves_the_rest_of_the_scene() -> None:
    photo, other = draw_textured_image(1, SIZE), draw_textured_image(2, SIZE)
    for seed in range(10):
        truth, first, second = neighbors.move_thing(photo, other, random.Random(seed))
        assert truth is MadeTruth.OTHER
        steps = np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).max(axis=2)
        assert 0.01 < (steps > 32).mean() < 0.3
        assert (steps > 0).mean() > 0.7  # noise of its own in each


def test_two_memes_are_other_and_two_marks_are_copies() -> None:
    photo = draw_textured_image(1, SIZE)
    for kind, expected in (("two memes", MadeTruth.OTHER), ("two marks", MadeTruth.COPY)):
        truth, first, second = neighbors.MAKERS[kind](photo, photo, random.Random(1))
        assert truth is expected
        assert measure_difference(np.asarray(first), np.asarray(second)) > 0


def test_pairs_of_pages_agree_in_part_unless_they_are_one_page(photos: list[Path]) -> None:
    for source in ("drawn screens", "templates"):
        for kind, make in SOURCES[source].items():
            photo, other = (Image.open(path).convert("RGB") for path in photos[:2])
            truth, first, second = make(photo, other, random.Random(4))
            if kind.endswith("again"):
                assert truth is MadeTruth.COPY
                assert first.tobytes() == second.tobytes()
            elif kind.endswith("one word"):
                assert truth is MadeTruth.OTHER
                assert first.size == second.size
                steps = np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16))
                assert 0 < (steps.max(axis=2) > 24).mean() < 0.05, kind
            elif "two " in kind:
                assert truth is MadeTruth.OTHER
                height = min(first.height, second.height)
                one, two = (
                    np.asarray(image.crop((0, 0, first.width, height)), np.int16)
                    for image in (first, second)
                )
                changed = (np.abs(one - two).max(axis=2) > 24).mean()
                assert 0.002 < changed < 0.9, kind
            else:
                assert truth is MadeTruth.COPY
                assert first.tobytes() == photo.tobytes()


def test_pages_are_drawn_without_any_fonts(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.generators.drawing.list_fonts", dict)
    monkeypatch.setattr("scripts.generators.templates.list_fonts", dict)
    monkeypatch.setattr("scripts.generators.fonts.list_fonts", dict)
    sources = ["drawn screens", "templates", "neighbors"]
    assert len(list(make_pairs(photos, 0, 30, sources))) == 30
