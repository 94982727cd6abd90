"""Screens of browsers that show a photo: albums, articles, the viewer of a website."""

from __future__ import annotations

import random

from scripts.generators.app_parts import GRAY, NIGHT, PHONE_SIZES, WHITE, pick_accent, write_name
from scripts.generators.canvas import PALETTE, Color
from scripts.generators.fonts import pick_lettering
from scripts.generators.layout import Element, Layout, Panel, Photo, Text

DESKTOP_SIZES = ((1280, 800), (1366, 768), (1200, 900))

# Part of its page that the photo of an article has.
ARTICLE_PHOTO_SHARE = 0.14


def lay_out_album(page: random.Random, words: random.Random, aspect: float) -> Layout:
    """Lay out an album: the photo in one cell of a grid, other cells with another photo."""
    is_phone = page.random() < 0.5
    size = page.choice(PHONE_SIZES if is_phone else DESKTOP_SIZES)
    width, height = size
    columns = page.randint(2, 3) if is_phone else page.randint(3, 4)
    gap = page.choice([2, 6, 14])
    ground, ink = page.choice([(WHITE, (30, 30, 30)), (NIGHT, WHITE)])
    top = height * 0.1
    side = (width - gap * (columns + 1)) / columns
    rows = max(1, int((height - top) // (side + gap)))
    chosen = page.randrange(columns * rows)
    elements: list[Element] = [
        Text((16, top * 0.35, width * 0.6, top * 0.5), write_name(words), top * 0.32, ink, True)
    ]
    for index in range(columns * rows):
        row, column = divmod(index, columns)
        place = (gap + column * (side + gap), top + row * (side + gap), side, side)
        if index == chosen or page.random() < 0.4:
            elements.append(Photo(place, int(index != chosen)))
        else:
            elements.append(Panel(place, page.choice(PALETTE), lower_color=page.choice(PALETTE)))
    return Layout(size, ground, tuple(elements))


def lay_out_article(page: random.Random, words: random.Random, aspect: float) -> Layout:
    """Lay out a page in a desktop browser with the photo on 14 % of its area."""
    size = page.choice(DESKTOP_SIZES)
    width, height = size
    accent = pick_accent(page)
    photo_height = (ARTICLE_PHOTO_SHARE * width * height / aspect) ** 0.5
    photo_width = min(photo_height * aspect, 0.5 * width)
    photo_height = min(ARTICLE_PHOTO_SHARE * width * height / photo_width, 0.6 * height)
    left = page.choice([40.0, width - photo_width - 40])
    column = width - photo_width - 120
    text_left = 40 if left > 40 else photo_width + 80
    lettering = pick_lettering(words, latin_share=0.7)
    title, body = lettering.write(words, 4, 7), lettering.write(words, 60, 120)
    elements: list[Element] = [
        Panel((0, 0, width, 38), (222, 225, 230)),
        Panel((120, 7, width * 0.6, 24), WHITE, 12),
        Text(
            (136, 9, width * 0.5, 20),
            f"www.{write_name(words)}.example/{words.randint(1, 999)}",
            13,
            GRAY,
        ),
        Panel((0, 38, width, 56), accent),
        Text((40, 50, 400, 34), write_name(words), 24, WHITE, True),
        Text((text_left, 120, column, 90), title, 30, (20, 20, 20), True, lettering=lettering),
        Text((text_left, 220, column, height - 260), body, 16, (60, 60, 60), lettering=lettering),
        Photo((left, 120, photo_width, photo_height)),
        Text(
            (left, 128 + photo_height, photo_width, 20),
            lettering.write(words, 3, 5),
            12,
            GRAY,
            lettering=lettering,
        ),
    ]
    if page.random() < 0.5:
        elements.append(Panel((left, 170 + photo_height, photo_width, 90), page.choice(PALETTE)))
    return Layout(size, WHITE, tuple(elements))


def lay_out_lightbox(page: random.Random, words: random.Random, aspect: float) -> Layout:
    """Lay out the viewer of a website: the photo on black, controls, a row of small photos."""
    size = page.choice(DESKTOP_SIZES)
    width, height = size
    ground: Color = page.choice([NIGHT, (0, 0, 0), (45, 45, 48)])
    strip = page.choice([0.0, 0.13])
    elements: list[Element] = [
        Text((20, 12, 400, 22), f"{words.randint(1, 40)} / {words.randint(41, 99)}", 16, WHITE),
        Text((width - 40, 8, 30, 30), "x", 24, WHITE),
        Text((14, height * 0.45, 30, 40), "<", 36, WHITE),
        Text((width - 36, height * 0.45, 30, 40), ">", 36, WHITE),
        Photo((60, 50, width - 120, height * (0.9 - strip) - 50), fit="contain"),
    ]
    if strip:
        for index in range(7):
            place = (width * (0.15 + 0.1 * index), height * 0.88, width * 0.09, height * 0.1)
            elements.append(Photo(place, int(index != 3)))
    return Layout(size, ground, tuple(elements))
