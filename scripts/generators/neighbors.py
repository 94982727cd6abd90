"""Neighbors: overlapping crops, a thing that moved, and versions of one photo with other words."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image

from scripts.generators import canvas, graphic, lettering
from scripts.generators.photo_edits import make_noise
from scripts.generators.photographic import cut_out
from scripts.generators.truth import MadeImages, MadeTruth, MakeImages

# Part of each of two crops that the other one shows.
MIN_OVERLAP = 0.3
MAX_OVERLAP = 0.8

# Two exposures have noise of their own, in gray levels.
MIN_NOISE_DEVIATION = 1.5
MAX_NOISE_DEVIATION = 5.0

# Part of the photo that a thing covers which moves.
MIN_THING_SHARE = 0.02
MAX_THING_SHARE = 0.12


def crop_twice(photo: Image.Image, other: Image.Image, rng: random.Random) -> MadeImages:
    """Crop two windows of equal size that overlap: side by side, one above the other, diagonal."""
    overlap = rng.uniform(MIN_OVERLAP, MAX_OVERLAP)
    across, down = rng.choice([(overlap, 1.0), (1.0, overlap), (overlap**0.5, overlap**0.5)])
    # A window and its neighbor together are 2 - overlap windows wide.
    width = round(photo.width / (2 - across) * rng.uniform(0.85, 1))
    height = round(photo.height / (2 - down) * rng.uniform(0.85, 1))
    step_x, step_y = round(width * (1 - across)), round(height * (1 - down))
    left = rng.randint(0, max(0, photo.width - width - step_x))
    top = rng.randint(0, max(0, photo.height - height - step_y))
    is_rising = rng.random() < 0.5
    tops = (top + step_y, top) if is_rising else (top, top + step_y)
    first = (left, tops[0], left + width, tops[0] + height)
    second = (left + step_x, tops[1], left + step_x + width, tops[1] + height)
    return MadeTruth.OVERLAP, photo.crop(first), photo.crop(second)


def expose(image: Image.Image, rng: random.Random) -> Image.Image:
    """Expose a scene: brightness within 3 %, noise of its own."""
    deviation = rng.uniform(MIN_NOISE_DEVIATION, MAX_NOISE_DEVIATION)
    pixels = np.asarray(image, np.float32) * rng.uniform(0.97, 1.03)
    noisy = pixels + make_noise(image.size, rng, deviation)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def move_thing(photo: Image.Image, other: Image.Image, rng: random.Random) -> MadeImages:
    """Expose a scene twice in which one thing is at two places, or there only once."""
    share = rng.uniform(MIN_THING_SHARE, MAX_THING_SHARE)
    first_box = canvas.pick_box(photo, rng, share)
    size = (first_box[2] - first_box[0], first_box[3] - first_box[1])
    thing = cut_out(other, size, rng)
    mask = canvas.feather(canvas.draw_blob(size, rng), max(1.0, 0.03 * min(size)))
    lefts = [left for left in range(photo.width - size[0] + 1)]
    far = [left for left in lefts if abs(left - first_box[0]) >= 0.7 * size[0]]
    corner = (rng.choice(far or lefts), rng.randint(0, photo.height - size[1]))
    first, second = photo.copy(), photo.copy()
    first.paste(thing, first_box[:2], mask)
    if far and rng.random() < 0.75:
        second.paste(thing, corner, mask)
    return MadeTruth.OTHER, expose(first, rng), expose(second, rng)


def caption_twice(photo: Image.Image, other: Image.Image, rng: random.Random) -> MadeImages:
    """Write two different memes over one photo."""
    first, second = (lettering.add_meme_captions(photo, other, rng) for _ in range(2))
    return MadeTruth.OTHER, first, second


def mark_twice(photo: Image.Image, other: Image.Image, rng: random.Random) -> MadeImages:
    """Put two different small marks on one photo, as its author does for two websites."""
    marks = [lettering.add_signature, lettering.add_side_text, graphic.add_badge, graphic.add_date]
    first, second = (rng.choice(marks)(photo, other, rng) for _ in range(2))
    return MadeTruth.COPY, first, second


MAKERS: dict[str, MakeImages] = {
    "two crops": crop_twice,
    "moved thing": move_thing,
    "two memes": caption_twice,
    "two marks": mark_twice,
}
