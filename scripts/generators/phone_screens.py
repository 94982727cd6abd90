"""Screens of phones that show a photo: chats, posts, stories, the photo app."""

from __future__ import annotations

import random

from scripts.generators.app_parts import (
    GRAY,
    NIGHT,
    PHONE_SIZES,
    WHITE,
    lay_out_head,
    lay_out_messages,
    lay_out_status,
    pick_accent,
    write_name,
    write_time,
)
from scripts.generators.canvas import PALETTE, Color
from scripts.generators.fonts import pick_lettering
from scripts.generators.layout import Element, Layout, Panel, Photo, Text, get_bottom


def lay_out_chat(page: random.Random, words: random.Random, aspect: float) -> Layout:
    """Lay out a chat with the photo in a bubble between texts."""
    size = page.choice(PHONE_SIZES)
    width, height, unit = size[0], size[1], size[0] / 36
    dark = page.random() < 0.3
    accent: Color = NIGHT if dark else pick_accent(page)
    ground: Color = (
        page.choice([(236, 229, 221), WHITE, (210, 225, 235)]) if not dark else (30, 32, 36)
    )
    share = page.uniform(0.55, 0.75)
    photo_width = share * width
    photo_height = min(photo_width / aspect, 0.5 * height)
    is_own, style = page.random() < 0.5, page.random()
    left = width - photo_width - unit if is_own else unit
    start = 8 * unit
    before = (start, start + page.choice([0, 0.1, 0.25]) * height)
    elements = lay_out_messages(before, width, style, words)
    top = max(start, get_bottom(elements) + unit)
    rim = unit * 0.4
    frame = (left - rim, top - rim, photo_width + 2 * rim, photo_height + 2 * rim)
    elements += [
        Panel(frame, (220, 248, 198) if is_own else WHITE, unit),
        Photo((left, top, photo_width, photo_height), radius=unit * 0.8),
    ]
    after = (top + photo_height + 2 * unit, height - 8 * unit)
    elements += lay_out_messages(after, width, style, words)
    head = lay_out_head(size, (accent, WHITE), words)
    foot: list[Element] = [
        Panel((0, height - 5 * unit, width, 5 * unit), ground),
        Panel((unit, height - 4 * unit, 28 * unit, 3 * unit), WHITE, 1.5 * unit, (200, 200, 200)),
        Panel((31 * unit, height - 4 * unit, 3 * unit, 3 * unit), accent, 1.5 * unit),
    ]
    return Layout(size, ground, (*elements, *head, *foot))


def lay_out_post(page: random.Random, words: random.Random, aspect: float, dark: bool) -> Layout:
    """Lay out a post of a feed: the photo over the whole width, names and a text around it."""
    size = page.choice(PHONE_SIZES)
    width, height, unit = size[0], size[1], size[0] / 36
    ground, ink = (NIGHT, WHITE) if dark else (WHITE, (25, 25, 28))
    photo_height = min(width / page.choice([aspect, aspect, 1.0, 0.8]), 0.6 * height)
    lettering = pick_lettering(words, latin_share=0.7)
    below = 8 * unit + photo_height
    elements: list[Element] = [
        *lay_out_head(size, (ground, ink), words),
        Photo((0, 7 * unit, width, photo_height)),
    ]
    for index in range(3):
        place = ((2 + 5 * index) * unit, below + unit, 2.4 * unit, 2.4 * unit)
        elements.append(Panel(place, ground, 1.2 * unit, ink))
    likes = f"{words.randint(2, 9999)} likes"
    caption = lettering.wrap(words, words.randint(1, 3), 5)
    texts: list[Element] = [
        Text((2 * unit, below + 4.2 * unit, 30 * unit, 2 * unit), likes, 1.4 * unit, ink, True),
        Text(
            (2 * unit, below + 6.4 * unit, 32 * unit, 7 * unit),
            caption,
            1.4 * unit,
            ink,
            lettering=lettering,
        ),
        Text(
            (2 * unit, below + 13 * unit, 30 * unit, 2 * unit),
            f"{words.randint(2, 23)} hours ago",
            1.1 * unit,
            GRAY,
        ),
    ]
    tabs: list[Element] = [Panel((0, height - 5 * unit, width, 5 * unit), ground, 0, GRAY)]
    for index in range(5):
        left = (3 + 7 * index) * unit
        tabs.append(Panel((left, height - 3.6 * unit, 2.2 * unit, 2.2 * unit), GRAY, unit * 0.5))
    return Layout(size, ground, (*elements, *texts, *tabs))


def lay_out_feed_post(page: random.Random, words: random.Random, aspect: float) -> Layout:
    """Lay out a post on white."""
    return lay_out_post(page, words, aspect, dark=False)


def lay_out_dark_post(page: random.Random, words: random.Random, aspect: float) -> Layout:
    """Lay out a post on black."""
    return lay_out_post(page, words, aspect, dark=True)


def lay_out_story(page: random.Random, words: random.Random, aspect: float) -> Layout:
    """Lay out a story: the photo on a gradient or on its own blurred self, with a text."""
    size = page.choice(PHONE_SIZES)
    width, height, unit = size[0], size[1], size[0] / 36
    ground: Element
    if page.random() < 0.5:
        ground = Photo((0, 0, width, height), blur=width / 18)
    else:
        colors = page.sample(PALETTE, 2)
        ground = Panel((0, 0, width, height), colors[0], lower_color=colors[1])
    photo_width = width * page.uniform(0.72, 1)
    photo_height = min(photo_width / aspect, 0.7 * height)
    top = (height - photo_height) * page.uniform(0.35, 0.6)
    lettering = pick_lettering(words, latin_share=0.6)
    place = ((width - photo_width) / 2, top, photo_width, photo_height)
    caption_top = page.choice([top - 4.5 * unit, top + photo_height + 1.5 * unit])
    text = lettering.write(words, 1, 4)
    progress: list[Element] = [
        Panel((unit + 8.6 * unit * index, unit, 8 * unit, unit * 0.3), (240, 240, 240), unit * 0.1)
        for index in range(4)
    ]
    elements: list[Element] = [
        ground,
        Photo(place, radius=page.choice([0, unit])),
        *progress,
        Panel((2 * unit, 2.4 * unit, 3 * unit, 3 * unit), words.choice(PALETTE), 1.5 * unit),
        Text(
            (6 * unit, 2.9 * unit, 20 * unit, 2 * unit), write_name(words), 1.5 * unit, WHITE, True
        ),
        Text((0, caption_top, width, 4 * unit), text, 2.4 * unit, WHITE, True, "center", lettering),
        Panel((unit, height - 5 * unit, 28 * unit, 3.4 * unit), (90, 90, 90), 1.7 * unit, WHITE),
    ]
    return Layout(size, (40, 40, 40), tuple(elements))


def lay_out_viewer(page: random.Random, words: random.Random, aspect: float) -> Layout:
    """Lay out the photo app of a phone: the photo over the whole width, bars around it."""
    size = page.choice(PHONE_SIZES)
    width, height, unit = size[0], size[1], size[0] / 36
    ground, ink = page.choice([((0, 0, 0), WHITE), (WHITE, (40, 40, 40))])
    elements: list[Element] = [
        *lay_out_status(size, ink, words),
        Text(
            (0, 3 * unit, width, 2 * unit),
            f"{words.randint(1, 28)} May, {write_time(words)}",
            1.6 * unit,
            ink,
            True,
            "center",
        ),
        Photo((0, 6 * unit, width, height - 12 * unit), fit="contain"),
    ]
    for index in range(4):
        place = ((4 + 8 * index) * unit, height - 4 * unit, 2.4 * unit, 2.4 * unit)
        elements.append(Panel(place, ground, unit * 0.5, ink))
    return Layout(size, ground, tuple(elements))
