"""The content of hosts: one photo in two frames, two photos in one frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.verify.content import Content, compare_content
from pipeline.verify.matching import propose_alignments
from pipeline.verify.relation import Relation
from pipeline.verify.verify import align_and_compare, verify
from tests.support.images import draw_textured_image
from tests.support.verification import PHOTO, extract

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
    height = round(width * photo.height / photo.width)
    page.paste(photo.resize((width, height), Image.Resampling.LANCZOS), corner)
    return page


def compare_hosts(first: Image.Image, second: Image.Image) -> Content | None:
    images = extract(first), extract(second)
    aligned = align_and_compare(next(iter(propose_alignments(*images))), *images)
    assert aligned is not None
    assert aligned.is_judged
    return compare_content((aligned.template, aligned.target), aligned.comparison, aligned.outcomes)


def test_one_photo_in_two_frames_is_shared() -> None:
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


def test_two_photos_in_one_frame_are_other_content() -> None:
    other = draw_textured_image(9)
    pages = [show_in(photo, STORY_SIZE, (180, 120), 300, 1) for photo in (PHOTO, other)]
    content = compare_hosts(*pages)
    assert content is not None
    assert content.frame > 0.9
    assert content.is_other
    assert not content.is_shared
    assert verify(*map(extract, pages)).relation is Relation.SAME_TEMPLATE


def test_photo_by_itself_is_no_host() -> None:
    assert compare_hosts(PHOTO, PHOTO.resize((400, 267))) is None


@pytest.mark.parametrize("swapped", [False, True])
def test_content_does_not_depend_on_the_order(swapped: bool) -> None:
    chat = show_in(PHOTO, CHAT_SIZE, (30, 180), 360, 1)
    story = show_in(PHOTO, STORY_SIZE, (150, 90), 400, 2)
    pair = (story, chat) if swapped else (chat, story)
    assert verify(*map(extract, pair)).relation is Relation.OVERLAPS
