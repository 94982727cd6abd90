"""Drawn pages of text."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw


def draw_form(seed: int) -> Image.Image:
    """Draw a page of ten boxes; another seed has the same labels and other entries."""
    page, rng = Image.new("RGB", (1000, 1400), "white"), random.Random(seed)
    draw = ImageDraw.Draw(page)
    draw.text((100, 80), "ACME INSURANCE COMPANY", fill="black", font_size=48)
    labels = (
        "Name",
        "Street",
        "Town",
        "Born",
        "Policy",
        "Since",
        "Amount",
        "Bank",
        "Phone",
        "Date",
    )
    for number, label in enumerate(labels):
        top = 220 + 110 * number
        draw.rectangle((100, top, 900, top + 80), outline="black", width=2)
        draw.text((112, top + 22), label, fill="black", font_size=28)
        entry = "".join(rng.choice("abcdefghkmnorstuvwxz0123456789 ") for _ in range(24))
        draw.text((350, top + 18), entry, fill=(20, 20, 120), font_size=32)
    return page


def draw_letter(total: str) -> Image.Image:
    """Draw a page full of small words, with a total in one line."""
    page, rng = Image.new("RGB", (1000, 1400), "white"), random.Random(1)
    draw = ImageDraw.Draw(page)
    for top in range(60, 1340, 28):
        words = (
            "".join(rng.choice("abcdefghilmnoprstu") for _ in range(rng.randint(2, 9)))
            for _ in range(12)
        )
        line = " ".join(words)[:72] + (f"   {total}" if top == 284 else "")
        draw.text((60, top), line, fill="black", font_size=18)
    return page
