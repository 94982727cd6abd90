"""The fidelity of decoded images: the number of colors, traces of JPEG's blocks."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from PIL import Image

from indexes.metadata import MAX_COUNTED_COLORS, Fidelity
from pipeline.decode.pixels.fidelity import measure_fidelity
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.readers.pillow import load_format_plugins
from pipeline.grouping.losses import MIN_STRONG_BLOCKINESS
from tests.support.images import (
    DATA_FOLDER,
    PREPROCESS,
    decode_file,
    draw_scene,
    draw_textured_image,
    encode_jpeg,
    needs_data,
    save_image,
)

MANY = MAX_COUNTED_COLORS + 1
load_format_plugins()


def draw_photo() -> Image.Image:
    """A photo by code: texture, with the noise of a sensor."""
    noise = np.random.default_rng(1).normal(0, 2, (400, 600, 1))
    levels = np.asarray(draw_textured_image(1, (600, 400)), np.float64) + noise
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def compress(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(encode_jpeg(image, quality))).convert("RGB")


def save_again(image: Image.Image, format_: str, **options: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return Image.open(buffer).convert("RGB")


PHOTO = draw_photo()
STRONG = compress(PHOTO, 8)


def measure(image: Image.Image) -> Fidelity:
    small = np.asarray(image.convert("RGB").resize((160, 160), Image.Resampling.BICUBIC))
    return measure_fidelity(image, small, 8, with_blocks=True)


def is_blocky(image: Image.Image) -> bool:
    blockiness = measure(image).blockiness
    return blockiness is not None and blockiness >= MIN_STRONG_BLOCKINESS


def read_stored(path: Path, preprocess: Preprocess = PREPROCESS) -> Fidelity:
    metadata = decode_file(path, preprocess).image.metadata
    assert metadata is not None and metadata.fidelity is not None
    return metadata.fidelity


SAVE_AGAIN: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "HEIC": lambda image: save_again(image, "HEIF", quality=60),
    "AVIF": lambda image: save_again(image, "AVIF", quality=60),
    "better JPEG": lambda image: compress(image, 90),
    "cropped": lambda image: compress(image.crop((3, 5, 580, 390)), 92),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "gray": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("way", SAVE_AGAIN)
def test_blocks_of_a_strongly_compressed_jpeg_outlast_another_format(way: str) -> None:
    assert is_blocky(SAVE_AGAIN[way](STRONG))
    assert not is_blocky(SAVE_AGAIN[way](PHOTO))


@settings(deadline=None)
@given(left=integers(0, 7), top=integers(0, 7))
def test_blocks_show_at_any_offset(left: int, top: int) -> None:
    image = STRONG.crop((left, top, 560 + left, 360 + top))
    assert is_blocky(image)


def test_edges_and_large_pixels_are_no_blocks() -> None:
    """A wall of bricks 8 rows high has steps in one direction; a drawing has pixels without any."""
    photo = np.asarray(PHOTO, np.int16)
    bricks = photo + 20 * (np.arange(400) // 8 % 2)[:, None, None]
    assert not is_blocky(Image.fromarray(bricks.clip(0, 255).astype(np.uint8)))
    large_pixels = PHOTO.resize((75, 50)).resize((600, 400), Image.Resampling.NEAREST)
    assert measure(large_pixels).blockiness is None


def test_white_wall_in_a_good_jpeg_has_no_strong_blocks() -> None:
    """All of its few steps are at the sides of blocks."""
    x, y = np.meshgrid(np.arange(600), np.arange(400))
    noise = np.random.default_rng(2).normal(0, 1, (400, 600))
    wall = (225 + x / 60 + y / 80 + noise).astype(np.uint8)
    blockiness = measure(compress(Image.fromarray(wall).convert("RGB"), 85)).blockiness
    assert blockiness is not None and blockiness < MIN_STRONG_BLOCKINESS


def test_blocks_are_measured_of_whole_pixels_alone(tmp_path: Path) -> None:
    """The tables of a JPEG tell its quality; small images have too few steps to tell anything."""
    heic = read_stored(save_image(tmp_path / "a.heic", STRONG, quality=70)).blockiness
    assert heic is not None and heic >= MIN_STRONG_BLOCKINESS
    jpeg = save_image(tmp_path / "a.jpg", STRONG, quality=90)
    assert read_stored(jpeg, Preprocess(448, "within")).blockiness is None  # at full size
    reduced = compress(PHOTO.resize((1200, 800)), 8)
    assert read_stored(save_image(tmp_path / "a.jp2", reduced)).blockiness is None
    assert measure(STRONG.resize((100, 120))).blockiness is None


@pytest.mark.parametrize("colors", [2, 16, 200])
@pytest.mark.parametrize("suffix", ["png", "tiff", "gif"])
def test_few_colors_are_counted(tmp_path: Path, colors: int, suffix: str) -> None:
    palette = PHOTO.quantize(colors)
    fidelity = read_stored(save_image(tmp_path / f"a.{suffix}", palette))
    assert 0.7 * colors <= fidelity.color_count <= colors  # in a sample of rows
    assert not fidelity.is_gray


def test_photo_has_many_colors_and_a_drawing_an_even_ground(tmp_path: Path) -> None:
    photo = read_stored(save_image(tmp_path / "a.jpg", PHOTO, quality=92))
    assert (photo.color_count, photo.is_gray) == (MANY, False)
    drawing = Image.new("RGB", (600, 400), "white")
    drawing.paste(draw_scene(1, (300, 200)).quantize(8).convert("RGB"), (150, 100))
    drawn = read_stored(save_image(tmp_path / "b.jpg", drawing, quality=92))
    assert photo.even_share < 0.2 < 0.6 < drawn.even_share


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_gray_is_told_in_any_mode(mode: str) -> None:
    gray = PHOTO.convert("L").point(lambda level: level // 16 * 17)
    fidelity = measure(gray.convert("RGB").convert(mode))
    assert fidelity.is_gray and fidelity.color_count <= 16
    palette = PHOTO.quantize(16).convert("RGB").convert(mode)
    assert measure(palette).is_gray is (mode == "L")


@settings(deadline=None)
@given(
    width=integers(1, 90),
    height=integers(1, 90),
    mode=sampled_from(["L", "RGB", "RGBA", "CMYK"]),
)
def test_image_of_any_size_has_a_fidelity(width: int, height: int, mode: str) -> None:
    fidelity = measure(Image.new(mode, (width, height), 77))
    assert (fidelity.color_count, fidelity.even_share, fidelity.blockiness) == (1, 1.0, None)


@needs_data
def test_real_photos_show_blocks_only_after_strong_compression() -> None:
    photos = [
        Image.open(path).convert("RGB") for path in sorted((DATA_FOLDER / "photos").iterdir())[::20]
    ]
    assert len(photos) == 30
    assert sum(is_blocky(photo) for photo in photos) == 0
    assert sum(is_blocky(compress(photo, 10)) for photo in photos) >= 20
