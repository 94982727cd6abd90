"""Redaction: bars, pixelated and blurred areas, and scribbles of a pen over parts of a photo."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw, ImageFilter

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators import canvas
from scripts.generators.canvas import Box, Pen, pick_color

# Part of the photo that is redacted at most.
MAX_REDACTED_SHARE = 0.3


def add_bars(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Cover one to six places with bars, mostly black, of text height or larger."""
    edited, color = (
        image.copy(),
        rng.choice([(0, 0, 0), (0, 0, 0), (255, 255, 255), pick_color(rng)]),
    )
    pen = ImageDraw.Draw(edited)
    for _ in range(rng.randint(1, 6)):
        width = image.width * rng.uniform(0.15, 0.6)
        height = image.height * rng.uniform(0.03, 0.13)
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        pen.rectangle((left, top, left + width, top + height), fill=color)
    return edited


def cover_turned(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Cover a place with a turned bar, as over the eyes of a person."""
    width = max(4, round(image.width * rng.uniform(0.2, 0.6)))
    height = max(4, round(width * rng.uniform(0.15, 0.5)))
    patch = Image.new("RGBA", (width, height), (*rng.choice([(0, 0, 0), pick_color(rng)]), 255))
    patch = patch.rotate(rng.uniform(-35, 35), Image.Resampling.BICUBIC, expand=True)
    center = image.width * rng.uniform(0.2, 0.8), image.height * rng.uniform(0.2, 0.8)
    return canvas.paste_patch(image, patch, center)


def replace_boxes(
    image: Image.Image, replaced: Image.Image, boxes: list[Box], rng: random.Random
) -> Image.Image:
    """Take boxes, or the ellipses in them, with hard or soft edges, from a changed version."""
    mask, is_round = Image.new("L", image.size), rng.random() < 0.5
    pen = ImageDraw.Draw(mask)
    for box in boxes:
        if is_round:
            pen.ellipse(box, fill=255)
        else:
            pen.rectangle(box, fill=255)
    if rng.random() < 0.4:
        mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(1, 5)))
    return Image.composite(replaced, image, mask)


def pixelate(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Pixelate one to three places with blocks of a fortieth to a tenth of the shorter side."""
    block = max(3, round(min(image.size) * rng.uniform(0.025, 0.1)))
    small = image.resize(
        (max(1, image.width // block), max(1, image.height // block)), Image.Resampling.BOX
    )
    blocks = small.resize(image.size, Image.Resampling.NEAREST)
    boxes = canvas.pick_boxes(image, rng, 3, MAX_REDACTED_SHARE)
    return replace_boxes(image, blocks, boxes, rng)


def blur(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Blur one to three places."""
    radius = min(image.size) * rng.uniform(0.015, 0.07)
    boxes = canvas.pick_boxes(image, rng, 3, MAX_REDACTED_SHARE)
    return replace_boxes(image, image.filter(ImageFilter.GaussianBlur(radius)), boxes, rng)


def smear(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Fill one to three places with the mean color around them, as erasers do."""
    edited = image.copy()
    for box in canvas.pick_boxes(image, rng, 3, 0.2):
        around = image.crop(box).resize((2, 2), Image.Resampling.BOX)
        edited.paste(
            around.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR), box
        )
    return edited


def walk(image: Image.Image, rng: random.Random, step_count: int) -> list[tuple[float, float]]:
    """Walk the hand of a scribbler: to and fro in a box, with a drift."""
    left, top, right, bottom = canvas.pick_box(image, rng, rng.uniform(0.04, 0.3))
    return [
        (
            rng.gauss(left if step % 2 else right, (right - left) * 0.08),
            top + (bottom - top) * step / step_count + rng.gauss(0, (bottom - top) * 0.04),
        )
        for step in range(step_count)
    ]


def scribble(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Scribble over one or two places with a pen or a marker."""
    color, opacity = pick_color(rng), rng.choice([1.0, 1.0, 0.5])
    strokes = [walk(image, rng, rng.randint(6, 24)) for _ in range(rng.randint(1, 2))]
    width = min(image.size) * rng.uniform(0.008, 0.04)

    def draw(pen: Pen, unit: int) -> None:
        for points in strokes:
            scaled = [(unit * x, unit * y) for x, y in points]
            pen.line(scaled, fill=color, width=max(1, round(width * unit)), joint="curve")

    return canvas.draw_over(image, draw, canvas.pick_soft(rng), opacity)


def highlight(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Draw one to four strokes of a bright half-transparent marker."""
    color = rng.choice([(255, 240, 40), (120, 255, 90), (255, 120, 200), (80, 220, 255)])
    height = image.height * rng.uniform(0.03, 0.1)

    def draw(pen: Pen, unit: int) -> None:
        for _ in range(rng.randint(1, 4)):
            left = rng.uniform(0, 0.6) * image.width
            right = left + rng.uniform(0.2, 0.5) * image.width
            y = rng.uniform(0, image.height)
            line = [unit * value for value in (left, y, right, y + rng.uniform(-6, 6))]
            pen.line(line, fill=color, width=max(1, round(height * unit)))

    return canvas.draw_over(image, draw, canvas.pick_soft(rng), rng.uniform(0.3, 0.6))


EDITS: dict[str, Edit] = {
    "bars": add_bars,
    "turned bar": cover_turned,
    "pixelated": pixelate,
    "blurred": blur,
    "erased": smear,
    "scribble": scribble,
    "marker": highlight,
}
