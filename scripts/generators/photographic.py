"""Photographic overlays: parts of another photo, pasted with hard or soft edges or as insets.

The last two, collages and photos that lie on another one, are hosts: the photo is moved and scaled.
"""

from __future__ import annotations

import random
from functools import partial

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators import canvas

# Part of the photo that is covered.
MIN_COVERED_SHARE = 0.04
MAX_COVERED_SHARE = 0.35


def cut_out(other: Image.Image, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Crop a window of the other photo to a size; it shows from .35 of each side to all."""
    share = rng.uniform(0.35, 1)
    width, height = max(1, int(other.width * share)), max(1, int(other.height * share))
    left, top = rng.randint(0, other.width - width), rng.randint(0, other.height - height)
    window = other.crop((left, top, left + width, top + height))
    return ImageOps.fit(window, size, Image.Resampling.LANCZOS)


def paste_cut_out(
    image: Image.Image, other: Image.Image, rng: random.Random, softness: float
) -> Image.Image:
    """Paste an irregular part of another photo; `softness` is a share of its shorter side."""
    box = canvas.pick_box(image, rng, rng.uniform(MIN_COVERED_SHARE, MAX_COVERED_SHARE))
    size = (box[2] - box[0], box[3] - box[1])
    mask = canvas.draw_blob(size, rng)
    if softness:
        mask = canvas.feather(mask, max(1.0, softness * min(size)))
    else:
        mask = mask.point([0] * 128 + [255] * 128)
    edited = image.copy()
    edited.paste(cut_out(other, size, rng), box[:2], mask)
    return edited


def paste_inset(
    image: Image.Image, other: Image.Image, rng: random.Random, share: float = MAX_COVERED_SHARE
) -> Image.Image:
    """Paste a rectangle of another photo anywhere, without a border."""
    box = canvas.pick_box(image, rng, rng.uniform(MIN_COVERED_SHARE, share))
    edited = image.copy()
    edited.paste(cut_out(other, (box[2] - box[0], box[3] - box[1]), rng), box[:2])
    return edited


def add_picture_in_picture(
    image: Image.Image, other: Image.Image, rng: random.Random
) -> Image.Image:
    """Put a small framed photo into a corner: square, rounded or round, sometimes with a shadow."""
    side = round(min(image.size) * rng.uniform(0.22, 0.5))
    size = (side, round(side * rng.choice([1, 1, 0.75, 1.33])))
    shape = Image.new("L", size)
    radius = rng.choice([0, side / 8, min(size) / 2])
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius, fill=255)
    margin = round(min(image.size) * rng.uniform(0.02, 0.08))
    left = rng.choice([margin, image.width - size[0] - margin])
    top = rng.choice([margin, image.height - size[1] - margin])
    edited = image.copy()
    rim = max(1, side // rng.randint(20, 60))
    if rng.random() < 0.5:
        shadow = ImageOps.expand(shape, 2 * rim).filter(ImageFilter.GaussianBlur(2 * rim))
        faint = shadow.point([level // 2 for level in range(256)])
        edited.paste((0, 0, 0), (left - rim, top - rim), faint)
    if rng.random() < 0.6:
        frame = shape.resize((size[0] + 2 * rim, size[1] + 2 * rim))
        edited.paste(rng.choice([(255, 255, 255), (20, 20, 20)]), (left - rim, top - rim), frame)
    edited.paste(cut_out(other, size, rng), (left, top), shape)
    return edited


def blend_ghost(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Let another photo shine through in one area."""
    box = canvas.pick_box(image, rng, rng.uniform(0.1, MAX_COVERED_SHARE))
    size = (box[2] - box[0], box[3] - box[1])
    mask = canvas.feather(canvas.draw_blob(size, rng), 0.1 * min(size))
    opacity = rng.uniform(0.3, 0.7)
    edited = image.copy()
    mask = mask.point([round(level * opacity) for level in range(256)])
    edited.paste(cut_out(other, size, rng), box[:2], mask)
    return edited


def add_film_strip(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put a row of three to five small photos over the upper or lower edge."""
    count, height = rng.randint(3, 5), round(image.height * rng.uniform(0.12, 0.25))
    gap = max(1, height // 15)
    width = max(2, (image.width - gap) // count - gap)
    top = rng.choice([gap, image.height - height - gap])
    edited = image.copy()
    for index in range(count):
        tile = cut_out(other, (width, height), rng)
        edited.paste(tile, (gap + index * (width + gap), top))
    return edited


def make_collage(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Arrange the photo and one to five parts of another one in rows, with gaps of 0 to 3 %."""
    columns, rows = rng.choice([(2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2)])
    lean = image.width / image.height
    width = rng.randint(280, 520)
    height = max(120, round(width / lean))
    gap = round(width * rng.choice([0, 0.008, 0.03]))
    size = (columns * (width + gap) + gap, rows * (height + gap) + gap)
    host = Image.new("RGB", size, rng.choice([(255, 255, 255), (0, 0, 0), (230, 220, 205)]))
    place = rng.randrange(columns * rows)
    for index in range(columns * rows):
        row, column = divmod(index, columns)
        tile = (
            ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
            if index == place
            else cut_out(other, (width, height), rng)
        )
        host.paste(tile, (gap + column * (width + gap), gap + row * (height + gap)))
    return host


def lay_on_other(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put the whole photo on another one, at .45 to .8 of its sides, sometimes turned slightly."""
    width = 640
    host = ImageOps.fit(other, (width, round(width * rng.uniform(0.6, 1.3))))
    share = rng.uniform(0.45, 0.8)
    inner = ImageOps.contain(image, (round(width * share), round(host.height * share)))
    patch = inner.convert("RGBA")
    if rng.random() < 0.4:
        patch = ImageOps.expand(patch, rng.randint(3, 14), (255, 255, 255, 255))
    if rng.random() < 0.4:
        patch = patch.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    x = rng.uniform(min(patch.width / 2, width / 2), max(width - patch.width / 2, width / 2))
    half = host.height / 2
    y = rng.uniform(min(patch.height / 2, half), max(host.height - patch.height / 2, half))
    return canvas.paste_patch(host, patch, (x, y))


HOSTS: dict[str, Edit] = {"collage": make_collage, "on another photo": lay_on_other}

OVERLAYS: dict[str, Edit] = {
    "cut-out, hard edge": partial(paste_cut_out, softness=0.0),
    "cut-out, soft edge": partial(paste_cut_out, softness=0.06),
    "cut-out, feathered": partial(paste_cut_out, softness=0.18),
    "inset": paste_inset,
    "picture in picture": add_picture_in_picture,
    "ghost": blend_ghost,
    "film strip": add_film_strip,
}

EDITS = OVERLAYS | HOSTS
