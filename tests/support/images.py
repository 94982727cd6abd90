"""Images drawn by code, and real ones where they are at hand."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import Failure
from pipeline.scan import SourceFile

DATA_FOLDER = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "data"


needs_data = pytest.mark.skipif(
    not DATA_FOLDER.is_dir(), reason="the folder of real pictures is not here"
)


PREPROCESS = Preprocess(64)


def draw_scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Draw shapes on a gradient; another seed is another scene."""
    rng = random.Random(seed)
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    low, high = (np.array([rng.randrange(40, 220) for _ in range(3)]) for _ in range(2))
    slope = (x * rng.random() + y * rng.random())[..., None] / 2
    image = Image.fromarray((low + (high - low) * slope).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randrange(6, 14)):
        color = tuple(rng.randrange(256) for _ in range(3))
        left, top = rng.uniform(-0.1, 0.9) * width, rng.uniform(-0.1, 0.9) * height
        box = (
            left,
            top,
            left + rng.uniform(0.05, 0.5) * width,
            top + rng.uniform(0.05, 0.5) * height,
        )
        rng.choice([draw.ellipse, draw.rectangle])(box, fill=color)
        draw.line(
            [
                rng.uniform(0, width),
                rng.uniform(0, height),
                rng.uniform(0, width),
                rng.uniform(0, height),
            ],
            fill=color,
            width=3,
        )
    return image


def draw_textured_image(seed: int, size: tuple[int, int] = (480, 320)) -> Image.Image:
    """Draw noise at all scales, so that it has texture at every size, as a photo has."""
    rng, (width, height) = np.random.default_rng(seed), size
    texture = np.zeros((height, width, 3))
    for across in (3, 6, 12, 24, 48, 96):
        down = max(2, across * height // width)
        for channels in (3, 1):
            grain = (
                rng.normal(0, 1 if channels == 3 else 2, (down, across, channels)) / across**0.55
            )
            for channel in range(3):
                texture[..., channel] += np.asarray(
                    Image.fromarray(grain[..., channel % channels].astype(np.float32)).resize(
                        size, Image.Resampling.BICUBIC
                    )
                )
    low, high = texture.min(), texture.max()
    return Image.fromarray(((texture - low) / (high - low) * 255).astype(np.uint8))


def encode_jpeg(image: Image.Image, quality: int = 90, **options: Any) -> bytes:
    """Encode an image as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def save_image(path: Path, image: Image.Image, **options: Any) -> Path:
    """Save an image, create its folders, and return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def make_source_file(path: Path) -> SourceFile:
    """Make the source file of a path, without a stat."""
    return SourceFile(str(path))


def decode_file(path: Path, preprocess: Preprocess = PREPROCESS) -> Decoded:
    """Decode a file; fail the test if that fails."""
    decoded = decode_source(make_source_file(path), preprocess)
    assert isinstance(decoded, Decoded), decoded
    return decoded


def decode_failure(path: Path, preprocess: Preprocess = PREPROCESS) -> Failure:
    """Decode a file that must fail."""
    failure = decode_source(make_source_file(path), preprocess)
    assert isinstance(failure, Failure), failure
    return failure


def measure_difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean difference in gray levels."""
    return float(np.abs(first.astype(np.float64) - second).mean())


def resize_with_pillow(
    image: Image.Image, preprocess: Preprocess = PREPROCESS
) -> NDArray[np.uint8]:
    """The picture at a view, by Pillow alone."""
    return np.asarray(
        image.convert("RGB").resize((preprocess.size, preprocess.size), Image.Resampling.BICUBIC)
    )


def measure_decoding_error(path: Path, scene: Image.Image) -> float:
    """Decode a file at PREPROCESS; return how far it is from `scene` resized, in gray levels."""
    return measure_difference(decode_file(path).pixels, resize_with_pillow(scene))


def save_scenes(folder: Path, count: int) -> None:
    """Save small scenes that all differ: 00.png, 01.png and so on."""
    for number in range(count):
        save_image(folder / f"{number:02}.png", draw_scene(number, (64, 48)))


def make_six_files(folder: Path) -> Path:
    """Save six files: a scene, three copies of it, and two other scenes."""
    original = draw_scene(1, (640, 480))
    save_image(folder / "a.png", original)
    save_image(folder / "a small.jpg", original.resize((400, 300)), quality=85)
    save_image(folder / "sub" / "a.jpg", original, quality=70)
    (folder / "sub" / "a copy.png").write_bytes((folder / "a.png").read_bytes())
    save_image(folder / "b.jpg", draw_scene(2, (640, 480)))
    save_image(folder / "c.webp", draw_scene(3, (640, 480)))
    return folder


LARGE_SIZE = (640, 480)


def save_whole_and_part(folder: Path) -> tuple[Path, Path]:
    """Save a photo, and another one with it in a corner; the cosine of the two is only .17."""
    part, whole = draw_scene(1, LARGE_SIZE), draw_textured_image(9, LARGE_SIZE)
    whole.paste(part.resize((220, 165), Image.Resampling.LANCZOS), (10, 10))
    return save_image(folder / "whole.jpg", whole, quality=92), save_image(
        folder / "part.jpg", part, quality=92
    )
