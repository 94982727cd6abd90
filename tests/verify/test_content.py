"""The content of hosts: one photo in two surroundings, two photos in one."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.verify.alignment import align_and_compare
from pipeline.verify.content import Content, compare_content
from pipeline.verify.matching import propose_alignments
from pipeline.verify.relation import Relation
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image
from tests.support.verification import OTHER_PHOTO, PHOTO, extract

CHAT_SIZE, STORY_SIZE = (420, 700), (640, 480)


def draw_words(draw: ImageDraw.ImageDraw, size: tuple[int, int], seed: int) -> None:
    """Draw rows of bars of different lengths, as words look from afar."""
    rng = np.random.default_rng(seed)
    for y in range(8, size[1] - 12, 26):
        x = 10
        while x < size[0] - 60:
            width = int(rng.integers(14, 60))
            draw.rectangle((x, y, x + width, y + 10), fill=tuple(rng.integers(0, 90, 3).tolist()))
            x += width + int(rng.integers(8, 20))


def show_in(
    photo: Image.Image, size: tuple[int, int], corner: tuple[int, int], width: int, seed: int
) -> Image.Image:
    """Show a photo on a page of words."""
    page = Image.new("RGB", size, (238, 240, 244))
    draw_words(ImageDraw.Draw(page), size, seed)
    paste_photo(page, photo, corner, width)
    return page


def paste_photo(page: Image.Image, photo: Image.Image, corner: tuple[int, int], width: int) -> None:
    """Paste a photo of a width onto a page."""
    height = round(width * photo.height / photo.width)
    page.paste(photo.resize((width, height), Image.Resampling.LANCZOS), corner)


def compare_hosts(first: Image.Image, second: Image.Image) -> Content | None:
    images = extract(first), extract(second)
    aligned = align_and_compare(next(iter(propose_alignments(*images))), *images)
    assert aligned is not None
    assert aligned.is_judged
    return compare_content((aligned.base, aligned.target), aligned.comparison, aligned.outcomes)


def test_one_photo_in_other_surroundings_is_shared() -> None:
    chat = show_in(PHOTO, CHAT_SIZE, (30, 180), 360, 1)
    story = show_in(PHOTO, STORY_SIZE, (150, 90), 400, 2)
    content = compare_hosts(chat, story)
    assert content is not None
    assert content.most >= 0.95
    assert content.is_shared
    assert not content.is_other
    verdict = verify(extract(chat), extract(story))
    assert verdict.relation is Relation.OVERLAPS
    assert verdict.overlap is not None
    assert all(0.2 < share < 0.95 for share in verdict.overlap)


def test_two_photos_in_the_same_surroundings_are_other_content() -> None:
    other = draw_textured_image(9)
    pages = [show_in(photo, STORY_SIZE, (180, 120), 300, 1) for photo in (PHOTO, other)]
    content = compare_hosts(*pages)
    assert content is not None
    assert content.surroundings > 0.9
    assert content.is_other
    assert not content.is_shared
    assert verify(*map(extract, pages)).relation is Relation.SAME_TEMPLATE


def test_photo_by_itself_is_no_host() -> None:
    assert compare_hosts(PHOTO, PHOTO.resize((400, 267))) is None


@pytest.mark.parametrize(
    ("size", "place", "seed", "relation"),
    [
        (CHAT_SIZE, (30, 80, 360), 1, Relation.SAME_TEMPLATE),
        ((640, 700), (120, 50, 400), 2, Relation.OVERLAPS),
    ],
    ids=["same surroundings", "other surroundings"],
)
def test_content_does_not_depend_on_the_order(
    size: tuple[int, int], place: tuple[int, int, int], seed: int, relation: Relation
) -> None:
    """Each host shows two photos; they have the first in common."""
    left, top, width = place
    hosts = [
        show_in(PHOTO, CHAT_SIZE, (30, 80), 360, 1),
        show_in(PHOTO, size, (left, top), width, seed),
    ]
    paste_photo(hosts[0], OTHER_PHOTO, (30, 400), 360)
    paste_photo(hosts[1], draw_textured_image(9), (left, top + 320), width)
    first, second = map(extract, hosts)
    assert len(first.regions) >= 2
    assert len(second.regions) >= 2
    forward, backward = verify(first, second), verify(second, first)
    assert forward.relation is relation
    assert forward == backward.swap_sides() or backward == forward.swap_sides()
    contents = compare_hosts(*hosts), compare_hosts(*reversed(hosts))
    assert contents[0] is not None
    assert contents[1] is not None
    # A tile at a threshold may agree in one order alone.
    assert astuple(contents[0]) == pytest.approx(astuple(contents[1]), abs=0.05)
    assert contents[0].least < 0.5 < contents[0].most


@pytest.mark.parametrize(("columns", "rows", "shift"), [(4, 3, 3), (3, 3, 2), (8, 5, 8)])
def test_pages_of_photos_that_go_on_overlap(columns: int, rows: int, shift: int) -> None:
    """Each shows photos that the other lacks, although photos end where the other page does."""
    count = columns * rows
    photos = [draw_textured_image(seed).resize((180, 140)) for seed in range(count + shift)]

    def draw_page(first: int) -> Image.Image:
        page = Image.new("RGB", (200 * columns, 250 * rows), "white")
        for number, photo in enumerate(photos[first : first + count]):
            page.paste(photo, (10 + number % columns * 198, 10 + number // columns * 250))
        return page

    verdict = verify(*map(extract, (draw_page(0), draw_page(shift))))
    assert verdict.relation is Relation.OVERLAPS
