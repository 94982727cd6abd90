"""Templates that are filled in again and again: tickets, forms, receipts, slides, cards, boards.

`page` decides the template, `words` the entries. Two fillings of one template agree nearly
everywhere, also in a photo on it, and are not copies.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from scripts.generators.app_parts import GRAY, WHITE, pick_accent, write_name, write_time
from scripts.generators.canvas import Color
from scripts.generators.drawing import CHESS_FONTS, CHESS_PIECES
from scripts.generators.fonts import LATIN, Lettering, list_fonts, pick_lettering
from scripts.generators.layout import Code, Element, Layout, Panel, Photo, Text

LayOutTemplate = Callable[[random.Random, random.Random], Layout]

INK: Color = (25, 25, 28)
HANDWRITING = ("Z003-MediumItalic", "URWBookman-DemiItalic", "DejaVuSerif-Italic")


def write_amount(words: random.Random) -> str:
    """Write an amount of money."""
    return f"{words.randint(0, 299)}.{words.randint(0, 99):02}"


def write_number(words: random.Random, digit_count: int) -> str:
    """Write a number with leading zeros."""
    return f"{words.randrange(10**digit_count):0{digit_count}}"


def lay_out_ticket(page: random.Random, words: random.Random) -> Layout:
    """Lay out a ticket: a colored head, a photo, other dates, seats, numbers and code."""
    width, height = page.choice([(360, 640), (420, 700), (640, 320)])
    accent, is_wide = pick_accent(page), width > height
    title = Lettering(LATIN, None).write(page, 2, 3).upper()
    photo = (
        0,
        height * 0.15,
        width * (0.45 if is_wide else 1),
        height * (0.85 if is_wide else 0.26),
    )
    left, top = (width * 0.5, height * 0.2) if is_wide else (16, height * 0.44)
    size = height * (0.06 if is_wide else 0.03)
    lines = [
        f"{words.randint(1, 28)} {page.choice(['May', 'Dec', 'Oct'])}  {write_time(words)}",
        f"Row {words.choice('ABCDEFGHK')}  Seat {words.randint(1, 48)}",
        f"No {write_number(words, 6)}",
    ]
    elements: list[Element] = [
        Panel((0, 0, width, height * 0.15), accent),
        Text((16, height * 0.03, width - 32, height * 0.1), title, height * 0.055, WHITE, True),
        Photo(photo),
    ]
    for index, line in enumerate(lines):
        place = (left, top + index * 1.7 * size, width - left - 10, 1.5 * size)
        elements.append(Text(place, line, size, INK))
    side = height * (0.34 if is_wide else 0.26)
    place = (left, top + 5.4 * size, side, side)
    elements.append(Code(place, words.getrandbits(32)))
    return Layout((width, height), WHITE, tuple(elements))


def lay_out_form(page: random.Random, words: random.Random) -> Layout:
    """Lay out a form with 6 to 10 fields that are filled in by hand; often a photo above."""
    width, height = page.choice([(480, 680), (600, 800)])
    top = height * page.choice([0.03, 0.17])
    lettering = pick_lettering(page, latin_share=0.8)
    fonts = list_fonts()
    names = [name for name in HANDWRITING if name in fonts]
    hand = Lettering(LATIN, fonts[page.choice(names)] if names else None)
    elements: list[Element] = [Photo((0, 0, width, height * 0.15))] if top > height * 0.1 else []
    title = Text(
        (20, top, width - 40, 30), lettering.write(page, 2, 4), 22, INK, True, lettering=lettering
    )
    elements.append(title)
    count = page.randint(6, 10)
    step = (height - top - 60) / count
    box_left, ink = width * 0.33, page.choice([(30, 40, 150), (20, 20, 20)])
    for index in range(count):
        y = top + 50 + index * step
        label = lettering.write(page, 1, 1)
        elements += [
            Text((20, y + 4, box_left - 30, step), label, 14, INK, lettering=lettering),
            Panel((box_left, y, width * 0.62, step * 0.7), WHITE, 0, INK),
            Text(
                (box_left + 10, y + step * 0.1, width * 0.58, step * 0.6),
                hand.write(words, 1, 3),
                min(18, step * 0.4),
                ink,
                lettering=hand,
            ),
        ]
    return Layout((width, height), (252, 251, 248), tuple(elements))


def lay_out_receipt(page: random.Random, words: random.Random) -> Layout:
    """Lay out the receipt of a shop: other articles and amounts each time."""
    width, count = 380, words.randint(6, 14)
    lettering = pick_lettering(page, latin_share=0.8)
    elements: list[Element] = [
        Text(
            (0, 20, width, 34),
            lettering.write(page, 1, 2).upper(),
            26,
            INK,
            True,
            "center",
            lettering,
        ),
        Text(
            (0, 60, width, 18),
            lettering.write(page, 3, 4),
            13,
            INK,
            align="center",
            lettering=lettering,
        ),
        Text(
            (24, 92, width, 18),
            f"2023-{words.randint(1, 12):02}-{words.randint(1, 28):02} {write_time(words)}",
            13,
            INK,
        ),
    ]
    for index in range(count):
        y = 124 + 24 * index
        elements += [
            Text((24, y, 220, 20), lettering.write(words, 1, 2), 14, INK, lettering=lettering),
            Text((250, y, 106, 20), write_amount(words), 14, INK, align="right"),
        ]
    y = 136 + 24 * count
    elements += [
        Panel((24, y, width - 48, 2), INK),
        Text((24, y + 12, 200, 30), "TOTAL", 22, INK, True),
        Text((200, y + 12, 156, 30), write_amount(words), 22, INK, True, "right"),
        Text(
            (0, y + 60, width, 20),
            lettering.write(page, 2, 4),
            13,
            INK,
            align="center",
            lettering=lettering,
        ),
    ]
    return Layout((width, y + 110), (250, 250, 247), tuple(elements))


def lay_out_invoice(page: random.Random, words: random.Random) -> Layout:
    """Lay out a page of text with a table: all as before but names, numbers and amounts."""
    width, height = 620, 860
    lettering = pick_lettering(page, latin_share=0.75)
    body = lettering.write(page, 70, 110)
    elements: list[Element] = [
        Panel((40, 40, 120, 40), pick_accent(page)),
        Text((380, 44, 200, 20), f"{write_name(words)}", 14, INK),
        Text((380, 66, 200, 20), f"No. {write_number(words, 8)}", 14, INK),
        Text((40, 120, 540, 34), lettering.write(page, 2, 4), 24, INK, True, lettering=lettering),
        Text((40, 170, 540, 300), body, 13, INK, lettering=lettering),
    ]
    for index in range(page.randint(4, 8)):
        y = 500 + 34 * index
        elements += [
            Panel((40, y, 540, 34), WHITE if index % 2 else (240, 240, 240), 0, (200, 200, 200)),
            Text((50, y + 8, 300, 20), lettering.write(page, 2, 3), 13, INK, lettering=lettering),
            Text((400, y + 8, 170, 20), write_amount(words), 13, INK, align="right"),
        ]
    return Layout((width, height), WHITE, tuple(elements))


def lay_out_slide(page: random.Random, words: random.Random) -> Layout:
    """Lay out a slide: one photo behind all of them, a title and points that change."""
    width, height = page.choice([(960, 540), (800, 600)])
    lettering = pick_lettering(words, latin_share=0.8)
    ink, top = page.choice([WHITE, WHITE, INK]), height * page.uniform(0.12, 0.3)
    left, size = width * page.uniform(0.05, 0.15), height * 0.045
    elements: list[Element] = [Photo((0, 0, width, height))]
    if page.random() < 0.4:
        elements.append(Panel((0, 0, width, height * 0.08), pick_accent(page)))
    if page.random() < 0.4:
        panel = (left - 20, top - 20, width * 0.75, height * 0.65)
        elements.append(Panel(panel, INK if ink == WHITE else WHITE))
    title = lettering.write(words, 2, 4)
    elements.append(
        Text((left, top, width * 0.7, size * 2), title, size * 1.4, ink, True, lettering=lettering)
    )
    for index in range(words.randint(1, 5)):
        place = (left, top + size * (3 + 1.8 * index), width * 0.7, size * 1.5)
        text = f"- {lettering.write(words, 2, 5)}"
        elements.append(Text(place, text, size, ink, lettering=lettering))
    return Layout((width, height), INK, tuple(elements))


def lay_out_card(page: random.Random, words: random.Random) -> Layout:
    """Lay out a card of a member or an employee with a portrait of another person each time."""
    width, height = page.choice([(640, 400), (400, 620)])
    accent, wide = pick_accent(page), width > height
    lettering = pick_lettering(page, latin_share=0.8)
    photo = (30, 90, 180, 230) if wide else (110, 90, 180, 220)
    left, top = (240, 100) if wide else (40, 340)
    fields = [
        write_name(words).title(),
        f"ID {write_number(words, 7)}",
        f"{words.randint(1, 28):02}.{words.randint(1, 12):02}.{words.randint(1950, 2005)}",
    ]
    elements: list[Element] = [
        Panel((0, 0, width, 70), accent),
        Text(
            (30, 18, width - 60, 40),
            lettering.write(page, 2, 3),
            26,
            WHITE,
            True,
            lettering=lettering,
        ),
        Photo(photo, radius=page.choice([0, 10])),
    ]
    for index, field in enumerate(fields):
        elements += [
            Text(
                (left, top + 64 * index, 300, 16),
                lettering.write(page, 1, 1),
                12,
                GRAY,
                lettering=lettering,
            ),
            Text((left, top + 20 + 64 * index, 320, 30), field, 22, INK, True),
        ]
    elements.append(Panel((0, height - 24, width, 24), accent))
    return Layout((width, height), (246, 247, 249), tuple(elements))


def lay_out_meme(page: random.Random, words: random.Random) -> Layout:
    """Lay out a meme: one photo between bars with captions that change."""
    width, height = 600, page.choice([560, 700])
    ground, ink = page.choice([((0, 0, 0), WHITE), (WHITE, INK)])
    bar = height * page.uniform(0.14, 0.2)
    lettering = pick_lettering(words, latin_share=0.7)
    elements: list[Element] = [Photo((0, bar, width, height - 2 * bar))]
    for top in (bar * 0.15, height - bar * 0.85):
        text = lettering.wrap(words, 1, 5).upper()
        elements.append(
            Text((16, top, width - 32, bar * 0.8), text, bar * 0.28, ink, True, "center", lettering)
        )
    return Layout((width, height), ground, tuple(elements))


def lay_out_board(page: random.Random, words: random.Random) -> Layout:
    """Lay out a board of chess or draughts with another position each time."""
    size, count = page.choice([480, 640]), page.choice([8, 8, 10])
    step = size / count
    light, dark = page.choice(
        [((240, 217, 181), (181, 136, 99)), ((238, 238, 210), (118, 150, 86))]
    )
    is_chess = CHESS_FONTS[0] in list_fonts() and page.random() < 0.6
    elements: list[Element] = [
        Panel((column * step, row * step, step, step), dark)
        for row in range(count)
        for column in range(count)
        if (row + column) % 2
    ]
    for place in words.sample(range(count * count), words.randint(10, 24)):
        row, column = divmod(place, count)
        color: Color = words.choice([(250, 250, 250), (20, 20, 20)])
        left, top = column * step, row * step
        if is_chess:
            piece = words.choice(CHESS_PIECES)
            elements.append(
                Text(
                    (left, top - step * 0.05, step, step), piece, step * 0.8, color, align="center"
                )
            )
        else:
            place_of_piece = (left + step * 0.1, top + step * 0.1, step * 0.8, step * 0.8)
            elements.append(Panel(place_of_piece, color, step * 0.4, (90, 60, 40)))
    return Layout((size, size), light, tuple(elements))


TEMPLATES: dict[str, LayOutTemplate] = {
    "ticket": lay_out_ticket,
    "form": lay_out_form,
    "receipt": lay_out_receipt,
    "invoice": lay_out_invoice,
    "slide": lay_out_slide,
    "card": lay_out_card,
    "meme": lay_out_meme,
    "board": lay_out_board,
}

# Templates whose photo belongs to the content, not to the template.
TEMPLATES_WITH_PORTRAIT = {"card"}

# Templates without letters, where a machine lacks the fonts of its pieces.
TEMPLATES_WITHOUT_WORDS = {"board"}
