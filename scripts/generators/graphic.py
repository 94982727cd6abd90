"""Graphic overlays: stickers, faces, arrows, badges, codes, dates and the controls of apps.

All are drawn on the photo where it is, opaque or half transparent, with hard or soft edges.
"""

from __future__ import annotations

import random
from functools import partial
from math import cos, pi, sin

from PIL import Image, ImageDraw

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators import canvas
from scripts.generators.canvas import Box, Color, Pen, pick_color
from scripts.generators.fonts import LATIN, Lettering, list_fonts
from scripts.generators.segments import draw_digits
from scripts.generators.stickers import add_stickers


def add_arrows(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Draw one to three arrows."""
    color, width = pick_color(rng), min(image.size) * rng.uniform(0.01, 0.05)

    def draw(pen: Pen, unit: int) -> None:
        for _ in range(rng.randint(1, 3)):
            x, y = rng.uniform(0.1, 0.9) * image.width, rng.uniform(0.1, 0.9) * image.height
            angle, length = rng.uniform(0, 2 * pi), min(image.size) * rng.uniform(0.2, 0.5)
            tip = x + length * cos(angle), y + length * sin(angle)
            shaft = [unit * value for value in (x, y, *tip)]
            pen.line(shaft, fill=color, width=max(1, round(width * unit)))
            head = [
                (
                    unit * (tip[0] + 3 * width * cos(angle + turn)),
                    unit * (tip[1] + 3 * width * sin(angle + turn)),
                )
                for turn in (0, 2.4, -2.4)
            ]
            pen.polygon(head, fill=color)

    return canvas.draw_over(image, draw, canvas.pick_soft(rng), canvas.pick_opacity(rng))


def add_outlines(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Mark one to four places with ellipses or rectangles that are not filled."""
    color, width = pick_color(rng), max(1.0, min(image.size) * rng.uniform(0.006, 0.03))
    shape = rng.choice(["ellipse", "rectangle"])
    boxes = canvas.pick_boxes(image, rng, 4, 0.3)

    def draw(pen: Pen, unit: int) -> None:
        for box in boxes:
            scaled = tuple(unit * value for value in box)
            getattr(pen, shape)(scaled, outline=color, width=max(1, round(width * unit)))

    return canvas.draw_over(image, draw, canvas.pick_soft(rng), canvas.pick_opacity(rng))


def add_badge(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put a logo into a corner: letters on a disc, a shield or a ribbon."""
    color = pick_color(rng)
    ink = canvas.pick_contrasting(color)
    fonts = list_fonts()
    lettering = Lettering(LATIN, fonts.get("URWGothic-Demi", fonts.get("DejaVuSans-Bold")))
    text = "".join(rng.choices("ABCDEFGHKLMNPRSTUVXYZ23456789&", k=rng.randint(1, 4)))
    is_disc = rng.random() < 0.5

    def draw(pen: Pen, side: int, rng: random.Random) -> None:
        if is_disc:
            pen.ellipse(
                (0, 0, side - 1, side - 1), fill=color, outline=ink, width=max(1, side // 25)
            )
        else:
            pen.rounded_rectangle((0, side * 0.25, side - 1, side * 0.75), side * 0.1, fill=color)
        font = lettering.fit(text, side * 0.7, side * 0.45)
        pen.text((side / 2, side / 2), text, fill=ink, font=font, anchor="mm")

    side = max(12, round(min(image.size) * rng.uniform(0.12, 0.35)))
    patch = canvas.make_patch(side, draw, rng, canvas.pick_soft(rng))
    margin = side * rng.uniform(0.55, 0.8)
    x = rng.choice([margin, image.width - margin])
    y = rng.choice([margin, image.height - margin])
    return canvas.paste_patch(image, patch, (x, y), canvas.pick_opacity(rng))


def draw_code(pen: Pen, box: Box, rng: random.Random) -> None:
    """Draw a square code of black and white modules with three finders, as a QR code has."""
    count = rng.choice([21, 25, 29])
    left, top, right, bottom = box
    step = min(right - left, bottom - top) / count
    pen.rectangle(
        (left - step, top - step, left + step * (count + 1), top + step * (count + 1)), "white"
    )

    def fill(column: float, row: float, size: float, color: str) -> None:
        x, y = left + column * step, top + row * step
        right, lower = (start + max(0.0, size * step - 1) for start in (x, y))
        pen.rectangle((x, y, right, lower), fill=color)

    for row in range(count):
        for column in range(count):
            if rng.random() < 0.5:
                fill(column, row, 1, "black")
    for column, row in ((0, 0), (count - 7, 0), (0, count - 7)):
        fill(column - 0.5, row - 0.5, 8, "white")
        fill(column, row, 7, "black")
        fill(column + 1, row + 1, 5, "white")
        fill(column + 2, row + 2, 3, "black")


def add_code(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put a square code onto the photo."""
    side = max(24, round(min(image.size) * rng.uniform(0.2, 0.5)))
    left = rng.randint(0, max(0, image.width - side))
    top = rng.randint(0, max(0, image.height - side))
    edited = image.copy()
    draw_code(ImageDraw.Draw(edited), (left, top, left + side, top + side), rng)
    return edited


def add_date(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Stamp a date in seven-segment digits near the lower edge, as cameras do."""
    date = rng.choice(["{2} {1} {0}", "{0}-{1}-{2}", "{1}.{2}.{0}", "'{3} {1} {2}"]).format(
        rng.randint(1996, 2016),
        f"{rng.randint(1, 12):02}",
        f"{rng.randint(1, 28):02}",
        f"{rng.randint(0, 16):02}",
    )
    height = max(9, round(image.height * rng.uniform(0.04, 0.09)))
    color: Color = rng.choice([(255, 140, 20), (255, 90, 40), (255, 230, 90), (240, 240, 240)])
    is_right = rng.random() < 0.7

    def draw(pen: Pen, unit: int) -> None:
        width = 0.62 * height * len(date)
        left = image.width - width - height if is_right else height
        top = image.height - 2.0 * height
        draw_digits(pen, date, (unit * left, unit * top), unit * height, color)

    return canvas.draw_over(image, draw, canvas.pick_soft(rng))


def add_bars(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Draw the bars of a camera or video app over the upper and lower edge, with controls."""
    color: Color = rng.choice([(0, 0, 0), (0, 0, 0), (255, 255, 255), (40, 44, 52)])
    ink = canvas.pick_contrasting(color)
    alpha = rng.choice([255, 160, 110])
    upper, lower = rng.uniform(0.05, 0.12), rng.uniform(0.1, 0.22)
    count, progress = rng.randint(3, 6), rng.uniform(0.1, 0.9)

    def draw(pen: Pen, unit: int) -> None:
        width, height = image.width * unit, image.height * unit
        pen.rectangle((0, 0, width, height * upper), fill=(*color, alpha))
        pen.rectangle((0, height * (1 - lower), width, height), fill=(*color, alpha))
        reach, y = height * lower / 4, height * (1 - lower / 2)
        for index in range(count):
            x = width * (index + 0.5) / count
            box = (x - reach, y - reach, x + reach, y + reach)
            if index == count // 2:
                pen.ellipse(box, fill=ink)
            else:
                pen.rounded_rectangle(box, reach / 3, outline=ink, width=max(1, round(reach / 5)))
        y = height * upper / 2
        pen.line((width * 0.05, y, width * 0.95, y), fill=(150, 150, 150), width=max(1, 2 * unit))
        pen.line((width * 0.05, y, width * progress, y), fill=(230, 40, 40), width=max(1, 3 * unit))

    return canvas.draw_over(image, draw, canvas.pick_soft(rng))


def add_panel(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put a half-transparent panel over a third of the photo or less."""
    box = canvas.pick_box(image, rng, rng.uniform(0.08, 0.33))
    color, radius = pick_color(rng), rng.choice([0.0, 0.1]) * min(image.size)

    def draw(pen: Pen, unit: int) -> None:
        scaled = [unit * value for value in box]
        pen.rounded_rectangle(scaled, radius * unit, fill=color)

    return canvas.draw_over(image, draw, canvas.pick_soft(rng), rng.uniform(0.4, 0.8))


def add_play_button(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put the button of a video player into the middle."""
    color, ink = rng.choice([((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (30, 30, 30))])
    reach, x, y = min(image.size) * rng.uniform(0.08, 0.2), image.width / 2, image.height / 2

    def draw(pen: Pen, unit: int) -> None:
        box = [unit * value for value in (x - reach, y - reach, x + reach, y + reach)]
        pen.ellipse(box, fill=(*color, rng.choice([150, 220])))
        corners = [
            (x - reach * 0.35, y - reach * 0.5),
            (x - reach * 0.35, y + reach * 0.5),
            (x + reach * 0.55, y),
        ]
        pen.polygon([(unit * left, unit * top) for left, top in corners], fill=ink)

    return canvas.draw_over(image, draw, canvas.pick_soft(rng))


def draw_frame(
    image: Image.Image, other: Image.Image, rng: random.Random, corners_only: bool
) -> Image.Image:
    """Draw the marks of a scanner around the middle: all of a rectangle, or its corners."""
    color, share = pick_color(rng), rng.uniform(0.1, 0.25)
    left, top = image.width * share, image.height * share
    right, bottom = image.width - left, image.height - top
    part = 0.2 if corners_only else 0.5

    def draw(pen: Pen, unit: int) -> None:
        width = max(1, round(min(image.size) * 0.02 * unit))
        across, down = (right - left) * part, (bottom - top) * part
        for x, dx in ((left, across), (right, -across)):
            for y, dy in ((top, down), (bottom, -down)):
                for end in ((x + dx, y), (x, y + dy)):
                    pen.line([unit * value for value in (x, y, *end)], fill=color, width=width)

    return canvas.draw_over(image, draw, canvas.pick_soft(rng))


EDITS: dict[str, Edit] = {
    "stickers": add_stickers,
    "arrows": add_arrows,
    "outlines": add_outlines,
    "badge": add_badge,
    "code": add_code,
    "date": add_date,
    "bars": add_bars,
    "panel": add_panel,
    "play button": add_play_button,
    "frame marks": partial(draw_frame, corners_only=False),
    "corner marks": partial(draw_frame, corners_only=True),
}
