"""Two screenshots of one page, scrolled: each shows a part that the other lacks."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from PIL import Image

from scripts.generators.app_parts import (
    NIGHT,
    PHONE_SIZES,
    WHITE,
    lay_out_head,
    lay_out_messages,
    pick_accent,
)
from scripts.generators.canvas import Color
from scripts.generators.fonts import pick_lettering
from scripts.generators.layout import Element, Layout, Panel, Photo, Render, Text
from scripts.generators.neighbors import MAX_OVERLAP, MIN_OVERLAP
from scripts.generators.truth import MadeImages, MadeTruth, MakeImages

# Lays out the content of a page of a size (width, height).
LayOutContent = Callable[[tuple[int, int], random.Random], Layout]


def lay_out_conversation(size: tuple[int, int], rng: random.Random) -> Layout:
    """Lay out the messages of a long chat."""
    ground: Color = rng.choice([(236, 229, 221), WHITE, (210, 225, 235)])
    elements = lay_out_messages((0, size[1]), size[0], rng.random(), rng)
    return Layout(size, ground, tuple(elements))


def lay_out_story_text(size: tuple[int, int], rng: random.Random) -> Layout:
    """Lay out a long article with a photo in every screen or so."""
    (width, height), unit = size, size[0] / 36
    lettering, top = pick_lettering(rng, latin_share=0.7), unit
    elements: list[Element] = []
    while top < height:
        lines = rng.randint(4, 9)
        place = (2 * unit, top, 32 * unit, lines * 2 * unit)
        text = lettering.wrap(rng, lines, 4)
        elements.append(Text(place, text, 1.5 * unit, (40, 40, 40), lettering=lettering))
        top += place[3] + unit
        if rng.random() < 0.5:
            photo = (0, top, width, rng.uniform(0.4, 0.7) * width)
            elements.append(Photo(photo, rng.randrange(2)))
            top += photo[3] + unit
    return Layout(size, WHITE, tuple(elements))


def scroll(
    photo: Image.Image,
    other: Image.Image,
    rng: random.Random,
    lay_out: LayOutContent,
    render: Render,
) -> MadeImages:
    """Pair two windows of a page below one head and above one bar of controls."""
    width, height = rng.choice(PHONE_SIZES)
    unit = width // 36
    head, foot = 7 * unit, rng.choice([0, 5 * unit])
    window = height - head - foot
    offset = round(window * (1 - rng.uniform(MIN_OVERLAP, MAX_OVERLAP)))
    content = render(lay_out((width, window + offset), rng), [photo, other])
    color: Color = rng.choice([pick_accent(rng), NIGHT])
    frame_elements = [
        *lay_out_head((width, height), (color, WHITE), rng),
        Panel((unit, height - 4 * unit, width - 2 * unit, 3 * unit), color, 1.5 * unit),
    ]
    frame = render(Layout((width, height), WHITE, tuple(frame_elements)), [photo, other])
    screens = []
    for top in (0, offset):
        screen = frame.copy()
        screen.paste(content.crop((0, top, width, top + window)), (0, head))
        screens.append(screen)
    return MadeTruth.OVERLAP, screens[0], screens[1]


def make_makers(render: Render) -> dict[str, MakeImages]:
    """Make the makers of scrolled pairs."""
    return {
        "scrolled chat": partial(scroll, lay_out=lay_out_conversation, render=render),
        "scrolled article": partial(scroll, lay_out=lay_out_story_text, render=render),
    }
