"""Stickers: faces, hearts, stars, speech bubbles and the like, with or without a white rim."""

from __future__ import annotations

import random
from math import cos, pi, sin

from PIL import Image

from scripts.generators import canvas
from scripts.generators.canvas import Pen, pick_color

# The longest side of a sticker is a share of the shorter side of the photo.
MIN_STICKER_SHARE = 0.1
MAX_STICKER_SHARE = 0.42


def draw_face(pen: Pen, side: int, rng: random.Random) -> None:
    """Draw an emoji-like face."""
    rim = max(1, side // rng.randint(20, 60))
    skin = rng.choice([(255, 205, 60), (250, 180, 90), (130, 210, 110), (255, 130, 120)])
    pen.ellipse((0, 0, side - 1, side - 1), fill=skin, outline=(120, 80, 20), width=rim)
    top, reach = side * rng.uniform(0.28, 0.38), side * rng.uniform(0.05, 0.11)
    for x in (side * 0.32, side * 0.68):
        pen.ellipse((x - reach, top - reach, x + reach, top + 1.5 * reach), fill=(60, 40, 10))
    mouth = (side * 0.25, side * 0.35, side * 0.75, side * rng.uniform(0.7, 0.85))
    shape = rng.randrange(3)
    if shape == 0:
        pen.arc(mouth, 20, 160, fill=(90, 30, 10), width=max(2, side // 18))
    elif shape == 1:
        pen.chord(mouth, 0, 180, fill=(140, 20, 30))
    else:
        pen.ellipse((side * 0.4, side * 0.58, side * 0.6, side * 0.82), fill=(110, 20, 20))
    if rng.random() < 0.4:
        pen.ellipse((side * 0.62, side * 0.5, side * 0.78, side * 0.75), fill=(90, 170, 250))


def draw_heart(pen: Pen, side: int, rng: random.Random) -> None:
    """Draw a heart."""
    points = [
        (
            side * (0.5 + 0.48 * sin(angle) ** 3),
            side * (0.46 - (13 * cos(angle) - 5 * cos(2 * angle) - 2 * cos(3 * angle)) / 36),
        )
        for angle in (2 * pi * step / 60 for step in range(60))
    ]
    pen.polygon(points, fill=rng.choice([(230, 30, 60), (250, 110, 160), pick_color(rng)]))


def draw_star(pen: Pen, side: int, rng: random.Random) -> None:
    """Draw a star or a burst with 5 to 16 points."""
    count, depth = rng.choice([5, 5, 6, 8, 12, 16]), rng.uniform(0.4, 0.8)
    points = [
        (
            side * (0.5 + 0.49 * (depth if step % 2 else 1) * sin(pi * step / count)),
            side * (0.5 - 0.49 * (depth if step % 2 else 1) * cos(pi * step / count)),
        )
        for step in range(2 * count)
    ]
    pen.polygon(points, fill=pick_color(rng), outline=pick_color(rng))


def draw_flower(pen: Pen, side: int, rng: random.Random) -> None:
    """Draw a flower with round petals."""
    color, count, reach = pick_color(rng), rng.randint(5, 8), side * 0.19
    for step in range(count):
        x = side * (0.5 + 0.3 * cos(2 * pi * step / count))
        y = side * (0.5 + 0.3 * sin(2 * pi * step / count))
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color)
    pen.ellipse((side * 0.34, side * 0.34, side * 0.66, side * 0.66), fill=pick_color(rng))


def draw_bubble(pen: Pen, side: int, rng: random.Random) -> None:
    """Draw a speech bubble with lines in it."""
    color = pick_color(rng)
    ink = canvas.pick_contrasting(color)
    box = (0, side * 0.1, side - 1, side * 0.7)
    pen.rounded_rectangle(box, side * 0.15, fill=color, outline=ink, width=max(1, side // 40))
    pen.polygon(
        [(side * 0.25, side * 0.68), (side * 0.5, side * 0.68), (side * 0.2, side * 0.95)], color
    )
    for line in range(rng.randint(1, 3)):
        y = side * (0.24 + 0.15 * line)
        pen.line(
            (side * 0.12, y, side * rng.uniform(0.5, 0.88), y), fill=ink, width=max(1, side // 22)
        )


def draw_glasses(pen: Pen, side: int, rng: random.Random) -> None:
    """Draw sunglasses."""
    color = rng.choice([(10, 10, 10), (10, 10, 10), pick_color(rng)])
    for left in (0.02, 0.54):
        box = (side * left, side * 0.35, side * (left + 0.44), side * 0.65)
        pen.rounded_rectangle(box, side * rng.uniform(0.04, 0.14), fill=color)
    pen.rectangle((0, side * 0.36, side - 1, side * 0.42), fill=color)
    pen.line(
        (side * 0.1, side * 0.58, side * 0.2, side * 0.42), fill="white", width=max(1, side // 30)
    )


STICKERS = (draw_face, draw_face, draw_heart, draw_star, draw_flower, draw_bubble, draw_glasses)


def add_stickers(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Add one to five stickers, turned, in half of all cases with a white rim."""
    soft, opacity = canvas.pick_soft(rng), canvas.pick_opacity(rng)
    count = rng.randint(1, 5)
    largest = MAX_STICKER_SHARE / count**0.4
    has_rim = rng.random() < 0.5
    for _ in range(count):
        side = max(8, round(min(image.size) * rng.uniform(MIN_STICKER_SHARE, largest)))
        patch = canvas.make_patch(side, rng.choice(STICKERS), rng, soft)
        if has_rim:
            patch = canvas.outline_patch(patch, (255, 255, 255), max(1, side // 20))
        resampling = Image.Resampling.BICUBIC if soft else Image.Resampling.NEAREST
        patch = patch.rotate(rng.uniform(-40, 40), resampling, expand=True)
        center = rng.uniform(0, 1) * image.width, rng.uniform(0, 1) * image.height
        image = canvas.paste_patch(image, patch, center, opacity)
    return image
