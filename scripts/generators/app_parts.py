"""Parts that many screens share: bars, heads with names, bubbles, and their words."""

from __future__ import annotations

import random

from scripts.generators.canvas import PALETTE, Color
from scripts.generators.fonts import pick_lettering
from scripts.generators.layout import Element, Panel, Text, get_bottom

PHONE_SIZES = ((414, 896), (540, 1080), (450, 800), (390, 844))

WHITE: Color = (255, 255, 255)
NIGHT: Color = (18, 18, 20)
GRAY: Color = (140, 140, 145)


def pick_accent(page: random.Random) -> Color:
    """Pick the color of an app: none of black, white and gray."""
    return page.choice(PALETTE[2:-1])


def write_name(words: random.Random) -> str:
    """Write the name of an account."""
    first = words.choice(["lena", "tomas", "aiko", "priya", "jo", "samir", "nora", "pavel", "ines"])
    return first + words.choice(["", "_", "."]) + words.choice(["w", "88", "photo", "k", "on_tour"])


def write_time(words: random.Random) -> str:
    """Write a time of the day."""
    return f"{words.randint(0, 23)}:{words.randint(0, 59):02}"


def lay_out_status(size: tuple[int, int], ink: Color, words: random.Random) -> list[Element]:
    """Lay out the status bar of a phone."""
    width, unit = size[0], size[0] / 36
    battery = (width - 3 * unit, 0.5 * unit, 2 * unit, unit)
    return [
        Text((unit, 0.3 * unit, 6 * unit, 1.4 * unit), write_time(words), 1.1 * unit, ink, True),
        Panel(battery, ink, unit * 0.2),
        Panel((width - 5 * unit, 0.5 * unit, unit, unit), ink, unit / 2),
    ]


def lay_out_head(
    size: tuple[int, int], colors: tuple[Color, Color], words: random.Random
) -> list[Element]:
    """Lay out the head of an app: status bar, round picture of a person, name."""
    (ground, ink), width, unit = colors, size[0], size[0] / 36
    avatar = (2 * unit, 2.6 * unit, 3.6 * unit, 3.6 * unit)
    name = (7 * unit, 3.4 * unit, 20 * unit, 2 * unit)
    return [
        Panel((0, 0, width, 7 * unit), ground),
        *lay_out_status(size, ink, words),
        Panel(avatar, words.choice(PALETTE), 1.8 * unit),
        Text(name, write_name(words), 1.7 * unit, ink, True),
        Panel((width - 4 * unit, 4 * unit, 2 * unit, unit * 0.4), ink),
    ]


def lay_out_bubble(
    top: float, width: float, page: random.Random, words: random.Random
) -> list[Element]:
    """Lay out a bubble of a chat with one to four lines, left or right."""
    unit = width / 36
    is_own, line_count = words.random() < 0.5, words.randint(1, 4)
    lettering = pick_lettering(words, latin_share=0.8)
    text = lettering.wrap(words, line_count, 4)
    height = (line_count * 2 + 1) * unit
    left = 11 * unit if is_own else unit
    own, foreign = page.choice([((220, 248, 198), WHITE), ((0, 120, 250), (229, 229, 234))])
    color = own if is_own else foreign
    ink = WHITE if sum(color) < 400 else (20, 20, 20)
    place = (left + unit, top + unit / 2, 22 * unit, height - unit)
    return [
        Panel((left, top, 24 * unit, height), color, unit),
        Text(place, text, 1.4 * unit, ink, lettering=lettering),
    ]


def lay_out_messages(
    heights: tuple[float, float], width: float, style: float, words: random.Random
) -> list[Element]:
    """Lay out bubbles from one height down to another one or a little further."""
    elements: list[Element] = []
    top, bottom = heights
    while top < bottom:
        bubble = lay_out_bubble(top, width, random.Random(style), words)
        elements += bubble
        top = get_bottom(bubble[:1]) + width / 36
    return elements
