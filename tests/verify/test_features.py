"""Features of an image: noise, line art, and what is read of an image without its pixels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from pipeline.thumbnails import decode_thumbnail, encode_thumbnail
from pipeline.verify.features import (
    ImageFeatures,
    build_features_from_thumbnail,
    convert_to_gray,
    decode_gray_thumbnail,
    estimate_noise,
    extract_features,
    has_current_format,
)
from pipeline.verify.keypoints import MAX_KEYPOINTS, MAX_REGION_KEYPOINTS
from pipeline.verify.relation import Relation
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image
from tests.support.pages import draw_form
from tests.support.verification import build_features_from_pixels, extract


@pytest.mark.parametrize("level", [0, 5, 20, 40])
def test_noise_of_known_level_is_estimated(level: int) -> None:
    small = draw_textured_image(8).resize((24, 16))
    smooth = np.asarray(small.resize((448, 300), Image.Resampling.BICUBIC).convert("L"), np.float64)
    noise = np.random.default_rng(0).normal(0, level, smooth.shape)
    noisy = (smooth * 0.3 + 90 + noise).clip(0, 255).astype(np.uint8)
    assert estimate_noise(noisy) == pytest.approx(level, abs=max(1, 0.1 * level))


def test_line_art_holds_for_pages_and_not_for_photos() -> None:
    assert extract(draw_form(1)).is_line_art
    assert extract(ImageOps.invert(draw_form(1))).is_line_art
    assert not any(extract(draw_textured_image(seed)).is_line_art for seed in range(20))
    assert not extract(Image.new("RGB", (400, 300), "gray")).is_line_art


def test_unrelated_images_are_verified_without_decoding_pixels() -> None:
    def fail_to_load() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        raise AssertionError("the pixels of an unrelated image were decoded")

    unrelated = [
        ImageFeatures(
            fail_to_load,
            fail_to_load,
            extract_features(np.asarray(draw_textured_image(seed))),
            (640, 480),
        )
        for seed in (1, 2, 3)
    ]
    for first, second in combinations(unrelated, 2):
        assert (
            verify(first, second).relation == verify(second, first).relation == Relation.UNRELATED
        )


def test_order_of_images_with_equal_features_is_by_pixels() -> None:
    # A line one level brighter is too faint to show in the stored features.
    flat = np.full((300, 448, 3), 128, np.uint8)
    lined = flat.copy()
    lined[:, 200] = 129
    assert extract_features(flat) == extract_features(lined)
    first, second = (build_features_from_pixels(pixels, (448, 300)) for pixels in (flat, lined))
    assert (first <= second) != (second <= first)
    assert verify(first, second) == verify(second, first)


def test_small_colors_are_those_of_the_image() -> None:
    photo = draw_textured_image(1)
    expected = np.asarray(photo.resize((48, 48), Image.Resampling.BOX), np.float64)
    assert np.abs(extract(photo).small_rgb - expected).mean() < 3


def test_gray_thumbnail_is_the_luma_of_its_pixels() -> None:
    pixels = np.asarray(draw_textured_image(1))
    gray = decode_gray_thumbnail(encode_thumbnail(pixels))
    assert np.abs(gray - np.float64(convert_to_gray(pixels))).mean() < 2


def test_small_colors_are_those_of_the_decoded_thumbnail() -> None:
    jpeg = encode_thumbnail(np.asarray(draw_textured_image(1)))
    pixels = decode_thumbnail(jpeg)
    stored = build_features_from_thumbnail(jpeg, extract_features(pixels), (480, 320))
    decoded = build_features_from_pixels(pixels, (480, 320))
    assert np.array_equal(stored.small_rgb, decoded.small_rgb)


def test_images_whose_colors_alone_differ_have_an_order() -> None:
    red, green = (np.full((300, 448, 3), color, np.uint8) for color in ((76, 0, 0), (0, 39, 0)))
    assert (convert_to_gray(red) == convert_to_gray(green)).all()
    assert extract_features(red) == extract_features(green)
    first, second = (build_features_from_pixels(pixels, (448, 300)) for pixels in (red, green))
    assert first <= first
    assert (first <= second) != (second <= first)


@pytest.mark.parametrize(
    "damage",
    [
        lambda jpeg: b"",
        lambda jpeg: b"no JPEG",
        lambda jpeg: bytes(len(jpeg)),
        lambda jpeg: jpeg[:300],
        lambda jpeg: jpeg[: len(jpeg) // 2],
        lambda jpeg: jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2),
        lambda jpeg: jpeg[: len(jpeg) // 2] + b"\xff" * 9 + jpeg[len(jpeg) // 2 :],
        lambda jpeg: jpeg[:20] + bytes(400) + jpeg[420:],
    ],
)
def test_damaged_thumbnail_is_not_decoded(damage: Callable[[bytes], bytes]) -> None:
    jpeg = encode_thumbnail(np.asarray(draw_textured_image(1)))
    with pytest.raises(OSError, match="damaged"):
        decode_gray_thumbnail(damage(jpeg))


def test_features_of_an_older_format_are_extracted_again() -> None:
    features = extract_features(np.asarray(draw_textured_image(1)))
    assert has_current_format(features)
    assert not has_current_format(b"\x03" + features[1:])


def test_hosts_store_their_regions_and_more_keypoints_in_them() -> None:
    page = Image.new("RGB", (448, 400), "white")
    page.paste(draw_textured_image(3).resize((210, 140)), (60, 200))
    draw = ImageDraw.Draw(page)
    for y in range(6, 190, 9):
        for x in range(6, 440, 11):
            draw.rectangle((x, y, x + (x * y) % 7, y + (x + y) % 5), fill="black")
    features = extract(page)
    assert features.regions
    box = min(features.regions, key=lambda box: abs(box[1] - 0.5))
    np.testing.assert_allclose(box, (60 / 448, 200 / 400, 270 / 448, 340 / 400), atol=0.01)
    x, y = features.keypoints.points.T
    is_inside = (x > 60) & (x < 270) & (y > 200) & (y < 340)
    assert MAX_KEYPOINTS < len(x) <= MAX_KEYPOINTS + MAX_REGION_KEYPOINTS
    assert is_inside.sum() > 40
