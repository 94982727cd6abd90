"""Features of an image: noise, line art, and what is read of an image without its pixels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.verify.features import ImageFeatures, estimate_noise, extract_features
from pipeline.verify.relation import Relation
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image
from tests.support.pages import draw_form
from tests.support.verification import extract


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
            fail_to_load, extract_features(np.asarray(draw_textured_image(seed))), (640, 480)
        )
        for seed in (1, 2, 3)
    ]
    for first, second in combinations(unrelated, 2):
        assert (
            verify(first, second).relation == verify(second, first).relation == Relation.UNRELATED
        )


def test_order_of_images_with_equal_features_is_by_pixels() -> None:
    flat, dotted = Image.new("RGB", (448, 300), "gray"), Image.new("RGB", (448, 300), "gray")
    dotted.putpixel((200, 150), (129, 128, 128))
    first, second = extract(flat), extract(dotted)
    assert extract_features(first.rgb) == extract_features(second.rgb)
    assert (first <= second) != (second <= first)
    assert verify(first, second) == verify(second, first)
