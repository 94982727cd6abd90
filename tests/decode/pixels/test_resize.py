"""Fit images to an embedder's input, and find featureless ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.decode.preprocess import Preprocess
from tests.support.images import (
    decode_file,
    draw_scene,
    save_image,
)


def test_tiny_or_long_image_has_requested_size(tmp_path: Path) -> None:
    for size in ((1, 1), (1, 5000), (5000, 1), (2, 3)):
        decoded = decode_file(save_image(tmp_path / f"{size}.png", Image.new("RGB", size, "red")))
        assert decoded.pixels.shape == (64, 64, 3)
        assert decoded.image.is_featureless
        for fit in ("shortest", "longest"):
            assert decode_file(tmp_path / f"{size}.png", Preprocess(64, fit)).pixels.shape == (
                64,
                64,
                3,
            )


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((400, 200), (32, 64, 3)),
        ((30, 20), (20, 30, 3)),
        ((64, 64), (64, 64, 3)),
        ((1, 1), (1, 1, 3)),
    ],
)
def test_fit_within_keeps_shape_and_never_enlarges(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, ...]
) -> None:
    assert (
        decode_file(
            save_image(tmp_path / "a.png", draw_scene(1, size)), Preprocess(64, "within")
        ).pixels.shape
        == shape
    )


def test_featureless_images_are_flagged(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 300), np.linspace(0, 255, 200))
    noise = np.random.default_rng(0).normal(128, 12, (200, 300, 3)).clip(0, 255)
    for number, array in enumerate(
        [
            np.full((200, 300, 3), 255),
            np.stack([x, y, x], -1),
            np.stack([x * x / 255] * 3, -1),
            noise,
        ]
    ):
        assert decode_file(
            save_image(tmp_path / f"{number}.png", Image.fromarray(array.astype(np.uint8)))
        ).image.is_featureless
    for seed in range(30):
        assert not decode_file(
            save_image(tmp_path / "scene.png", draw_scene(seed))
        ).image.is_featureless
    faint = Image.blend(Image.new("RGB", (320, 240), (128, 128, 128)), draw_scene(1), 0.15)
    assert not decode_file(save_image(tmp_path / "faint.png", faint)).image.is_featureless


def test_padding_does_not_count_as_feature(tmp_path: Path) -> None:
    white = save_image(tmp_path / "white.png", Image.new("RGB", (400, 200), "white"))
    assert decode_file(white, Preprocess(64, "longest")).image.is_featureless


def test_white_drawing_on_a_transparent_ground_is_shown_on_black(tmp_path: Path) -> None:
    drawing = Image.new("RGBA", (320, 240), (255, 255, 255, 0))
    ImageDraw.Draw(drawing).ellipse((40, 30, 200, 180), outline="white", width=9)
    decoded = decode_file(save_image(tmp_path / "logo.png", drawing))
    assert not decoded.image.is_featureless
    assert decoded.pixels.min() == 0 and decoded.pixels.max() == 255

    black = Image.new("RGBA", (320, 240), (0, 0, 0, 0))
    ImageDraw.Draw(black).ellipse((40, 30, 200, 180), outline="black", width=9)
    decoded = decode_file(save_image(tmp_path / "black.png", black))
    assert decoded.pixels[0, 0].tolist() == [255, 255, 255]

    empty = save_image(tmp_path / "empty.png", Image.new("RGBA", (320, 240), (0, 0, 0, 0)))
    assert decode_file(empty).image.is_featureless


def test_stars_are_features_and_dust_and_hot_pixels_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for name, spots, side, is_featureless in (
        ("stars", 60, 4, False),
        ("dust", 4, 4, True),
        ("hot pixels", 40, 1, True),
    ):
        sky = rng.normal(9, 3, (800, 1200, 3))
        for y, x in rng.integers(0, 790, (spots, 2)):
            sky[y : y + side, x : x + side] += 200
        image = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
        path = save_image(tmp_path / f"{name}.png", image)
        assert decode_file(path, Preprocess(160)).image.is_featureless is is_featureless, name
