"""Regions: the photos in screenshots, chats, stories, memes, collages and on other photos."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from pipeline.regions import MAX_REGIONS, Box, find_regions
from pipeline.thumbnails import decode_thumbnail, encode_thumbnail
from tests.support.images import draw_textured_image

MIN_IOU = 0.8  # as in the benchmarks

Host = tuple[Image.Image, list[Box]]


def draw_photo(seed: int, size: tuple[int, int]) -> Image.Image:
    return ImageOps.fit(draw_textured_image(seed), size)


def paste(host: Image.Image, photo: Image.Image, left: int, top: int) -> Box:
    host.paste(photo, (left, top))
    right, bottom = left + photo.width, top + photo.height
    return left / host.width, top / host.height, right / host.width, bottom / host.height


def draw_text_lines(host: Image.Image, left: int, top: int, count: int, fill: str) -> None:
    draw = ImageDraw.Draw(host)
    for line in range(count):
        draw.text((left, top + 24 * line), "a line of plain words", fill=fill, font_size=16)


def draw_page() -> Host:
    host = Image.new("RGB", (1280, 800), "white")
    ImageDraw.Draw(host).rectangle((0, 0, 1280, 60), fill="#3b5998")
    draw_text_lines(host, 30, 90, 28, "#222222")
    draw_text_lines(host, 300, 560, 8, "#222222")
    return host, [paste(host, draw_photo(1, (560, 420)), 300, 100)]


def draw_chat() -> Host:
    host = Image.new("RGB", (540, 1170), "#e5ddd5")
    draw = ImageDraw.Draw(host)
    draw.rectangle((0, 0, 540, 90), fill="#075e54")
    draw.rounded_rectangle((20, 120, 300, 180), 14, fill="white")
    draw_text_lines(host, 40, 135, 1, "black")
    boxes = [paste(host, draw_photo(seed, (340, 255)), 180, 200 + 300 * seed) for seed in (0, 1)]
    return host, boxes


def draw_story_on_its_blurred_self() -> Host:
    photo = draw_photo(3, (480, 360))
    host = ImageOps.fit(photo, (540, 960)).filter(ImageFilter.GaussianBlur(20))
    return host, [paste(host, photo, 30, 300)]


def draw_meme() -> Host:
    host = Image.new("RGB", (480, 480), "black")
    draw_text_lines(host, 40, 30, 1, "white")
    draw_text_lines(host, 40, 430, 1, "white")
    return host, [paste(host, draw_photo(4, (480, 320)), 0, 80)]


def draw_collage(gap: int) -> Host:
    host = Image.new("RGB", (800 + gap, 800 + gap), "white")
    places = [(0, 0), (400 + gap, 0), (0, 400 + gap), (400 + gap, 400 + gap)]
    photos = [draw_photo(seed, (400, 400)) for seed in (10, 11, 12, 13)]
    return host, [paste(host, photo, *place) for photo, place in zip(photos, places, strict=True)]


def draw_polaroid() -> Host:
    host = Image.new("RGB", (500, 620), "#fdfdfa")
    return host, [paste(host, draw_photo(5, (420, 420)), 40, 40)]


def draw_photo_over_photo() -> Host:
    host = draw_photo(6, (800, 600))
    return host, [paste(host, draw_photo(7, (400, 300)), 350, 250)]


def shrink(host: Image.Image) -> NDArray[np.uint8]:
    """Make the thumbnail of a host, as a store keeps it."""
    return decode_thumbnail(encode_thumbnail(np.asarray(ImageOps.contain(host, (448, 448)))))


def compute_iou(first: Box, second: Box) -> float:
    def compute_area(left: float, top: float, right: float, bottom: float) -> float:
        return max(0, right - left) * max(0, bottom - top)

    low = max(first[0], second[0]), max(first[1], second[1])
    high = min(first[2], second[2]), min(first[3], second[3])
    common = compute_area(*low, *high)
    return common / (compute_area(*first) + compute_area(*second) - common)


@pytest.mark.parametrize(
    "draw_host",
    [
        draw_page,
        draw_chat,
        draw_story_on_its_blurred_self,
        draw_meme,
        draw_polaroid,
        draw_photo_over_photo,
        lambda: draw_collage(0),
        lambda: draw_collage(2),
        lambda: draw_collage(8),
    ],
    ids=[
        "page",
        "chat",
        "story",
        "meme",
        "polaroid",
        "photo over photo",
        "gap 0",
        "gap 2",
        "gap 8",
    ],
)
def test_photos_in_a_host_are_found(draw_host: Callable[[], Host]) -> None:
    host, photos = draw_host()
    regions = find_regions(shrink(host))
    for photo in photos:
        assert max(compute_iou(photo, region) for region in regions) >= MIN_IOU
    assert len(regions) <= len(photos) + 5  # the area between two photos, for instance


def test_plain_photos_have_no_regions() -> None:
    photos = [draw_textured_image(seed, (640, 480)) for seed in range(12)]
    assert [find_regions(shrink(photo)) for photo in photos] == [()] * len(photos)


def test_regions_are_a_pure_function_of_pixels() -> None:
    pixels = shrink(draw_collage(2)[0])
    before = pixels.copy()
    assert find_regions(pixels) == find_regions(pixels.copy(order="F"))
    assert (pixels == before).all()


def test_regions_lie_at_the_same_place_in_an_image_of_another_size() -> None:
    host, (photo,) = draw_polaroid()
    for side in (300, 448, 640, 2000):
        regions = find_regions(np.asarray(ImageOps.contain(host, (side, side))))
        assert max(compute_iou(photo, region) for region in regions) >= MIN_IOU


def test_screenshot_of_forty_photos_gives_as_many_regions_as_are_allowed() -> None:
    host = Image.new("RGB", (640, 1024), "white")
    for number in range(40):
        paste(host, draw_photo(number, (126, 126)), 128 * (number % 5), 128 * (number // 5))
    assert len(find_regions(shrink(host))) == MAX_REGIONS


def test_cards_full_of_text_are_no_regions() -> None:
    host = Image.new("RGB", (1280, 800), "#1e1e1e")
    draw = ImageDraw.Draw(host)
    for left in (40, 680):
        draw.rectangle((left, 60, left + 560, 760), fill="white")
        for top in range(64, 742, 25):
            draw.text((left + 6, top), "a line of plain words " * 4, fill="#222222", font_size=18)
        draw.rectangle((left + 560, 60, left + 640, 760), fill="#1e1e1e")
    assert find_regions(shrink(host)) == ()


def draw_nested_rectangles() -> NDArray[np.uint8]:
    page = Image.new("RGB", (448, 448), "white")
    draw, rng = ImageDraw.Draw(page), np.random.default_rng(0)
    for left, top, width, height in rng.integers(0, 300, (300, 4)).tolist():
        draw.rectangle((left, top, left + width, top + height), outline="black")
    return np.asarray(page)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((1, 5000, 3), np.uint8),
        np.zeros((5000, 1, 3), np.uint8),
        np.zeros((60, 20_000, 3), np.uint8),
        np.full((448, 336, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (448, 448, 3), np.uint8),
        np.kron(np.indices((56, 56)).sum(axis=0) % 2, np.full((8, 8), 255)).astype(np.uint8)[
            ..., None
        ].repeat(3, axis=2),
        np.kron(np.indices((7, 7)).sum(axis=0) % 2, np.full((64, 64), 255)).astype(np.uint8)[
            ..., None
        ].repeat(3, axis=2),
        draw_nested_rectangles(),
    ],
    ids=[
        "empty", "row", "column", "strip", "white", "noise", "checkerboard",
        "coarse checkerboard", "page of rectangles",
    ],
)  # fmt: skip
def test_pixels_without_pictures_have_no_regions(pixels: NDArray[np.uint8]) -> None:
    assert find_regions(pixels) == ()


@given(
    pixels=st.tuples(st.integers(0, 90), st.integers(0, 90)).flatmap(
        lambda size: arrays(np.uint8, (*size, 3), elements=st.sampled_from([0, 9, 128, 255]))
    ),
    scale=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_any_pixels_give_sorted_boxes_within_the_image(
    pixels: NDArray[np.uint8], scale: int
) -> None:
    regions = find_regions(pixels.repeat(scale, axis=0).repeat(scale, axis=1))
    assert len(regions) <= MAX_REGIONS
    assert list(regions) == sorted(set(regions))
    for left, top, right, bottom in regions:
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
