"""A dozen small pictures for histories of a library: photos, their copies, and other shots."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from pipeline.calibrate.synthetic_copies import (
    EDITS,
    add_caption,
    crop_randomly,
    make_collage,
    make_screenshot,
    rescale,
)
from scripts.bench_embedder import list_files, open_upright
from scripts.generators.neighbors import expose, move_thing

PHOTO_COUNT = 3
MAX_SIDE_PIXELS = 480
CELLS_ACROSS = (3, 6, 12, 24, 48, 96)  # of the noise that drawn photos consist of
GRAIN_EXPONENT = 0.55  # strength of noise over its number of cells, as in photos
CAMERA = "NX-1"
FRAME_MS = 200


def draw_photo(seed: int, size: tuple[int, int] = (480, 360)) -> Image.Image:
    """Draw noise at all scales, in gray and in color: texture at every size, as a photo has."""
    rng, (width, height) = np.random.default_rng(seed), size
    texture = np.zeros((height, width, 3))
    for across in CELLS_ACROSS:
        down = max(2, across * height // width)
        for channel_count, strength in ((3, 1.0), (1, 2.0)):
            cells = rng.normal(0, strength, (down, across, channel_count)) / across**GRAIN_EXPONENT
            for channel in range(3):
                layer = Image.fromarray(cells[..., channel % channel_count].astype(np.float32))
                texture[..., channel] += np.asarray(layer.resize(size, Image.Resampling.BICUBIC))
    low, high = texture.min(), texture.max()
    return Image.fromarray(((texture - low) / (high - low) * 255).astype(np.uint8))


def load_photos(folder: Path | None) -> list[Image.Image]:
    """Load the first photos of a folder, made small, or draw as many."""
    if folder is None:
        return [draw_photo(seed) for seed in range(PHOTO_COUNT)]
    size = MAX_SIDE_PIXELS, MAX_SIDE_PIXELS
    paths = [source.path for source in list_files(folder)[:PHOTO_COUNT]]
    return [ImageOps.contain(open_upright(path), size) for path in paths]


def make_exif(subseconds: str) -> Image.Exif:
    """Make the EXIF of a shot by one camera in one second, at its own part of it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = CAMERA
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {
            ExifTags.Base.DateTimeOriginal: "2021:05:30 15:56:01",
            ExifTags.Base.SubsecTimeOriginal: subseconds,
            ExifTags.Base.ExposureTime: 0.01,
            ExifTags.Base.ISOSpeedRatings: 200,
        }
    )
    return exif


def save_pictures(folder: Path, photos: Sequence[Image.Image]) -> list[Path]:
    """Save copies of three photos, of everyday and of hard kinds, with equal pixels and without.

    Also two shots of the first photo's scene, by EXIF and by what moved; a collage and a
    screenshot, which have regions; a blank image and an animation.
    """
    first, second, third = photos
    rng = random.Random(0)
    _, shot, other_shot = move_thing(first, third, rng)
    saved = list[Path]()

    def save(name: str, image: Image.Image, **options: Any) -> None:
        image.save(path := folder / name, **options)
        saved.append(path)

    def edit(kind: str, image: Image.Image) -> Image.Image:
        return EDITS[kind](image, third, rng)

    save("shot.jpg", shot, quality=92, exif=make_exif("10"))
    save("other shot.jpg", other_shot, quality=92, exif=make_exif("60"))
    save("shot, small.jpg", rescale(shot, 0.5), quality=80)
    save("shot, caption.jpg", add_caption(shot, rng), quality=85)
    save("shot, cropped.jpg", crop_randomly(shot, 0.8, rng), quality=90, exif=make_exif("10"))
    save("shot, gray.png", edit("gray", shot))
    save("shot, screenshot.png", make_screenshot(shot))
    save("other shot, again.jpg", expose(other_shot, rng), quality=60)
    save("photo.png", second)
    save("photo.bmp", second)
    save("photo, mirrored.jpg", edit("mirror", second), quality=85)
    save("photo, border.webp", edit("border", second), quality=80)
    save("photo, stickers.jpg", edit("stickers", second), quality=85)
    save("collage.jpg", make_collage(first, second, rng), quality=90)
    save("third.jpg", third, quality=85)
    save("third, turned.jpg", edit("rotated 10", third), quality=85)
    save("blank.png", Image.new("RGB", first.size, "white"))
    frames = [rescale(second, 0.6), rescale(third, 0.6).resize(rescale(second, 0.6).size)]
    save("animation.gif", frames[0], save_all=True, append_images=frames[1:], duration=FRAME_MS)
    return saved
