"""Text overlays in several scripts: captions, subtitles, memes, watermarks, headlines.

From letters of a fiftieth of the height to some that cover half of the photo; with an outline, a
shadow, a box behind, or nothing, opaque or half transparent.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw, ImageFilter

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators import canvas
from scripts.generators.canvas import Color, Pen, pick_color
from scripts.generators.fonts import pick_lettering


def pick_ink(rng: random.Random) -> Color:
    """Pick white in half of all cases, else black, yellow or any color."""
    return rng.choice([(255, 255, 255)] * 3 + [(0, 0, 0), (255, 225, 40), pick_color(rng)])


def add_caption(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write a line near the upper or lower edge, plain or outlined."""
    lettering, width = pick_lettering(rng), image.width * rng.uniform(0.5, 0.95)
    text, ink = lettering.write(rng, 2, 6), pick_ink(rng)
    font = lettering.fit(text, width, image.height * rng.uniform(0.05, 0.14))
    y = image.height * rng.choice([rng.uniform(0.06, 0.15), rng.uniform(0.8, 0.93)])
    stroke = rng.choice([0, 0, max(1, image.height // 150)])
    edited = image.copy()
    ImageDraw.Draw(edited).text(
        (image.width / 2, y),
        text,
        ink,
        font,
        "mm",
        stroke_width=stroke,
        stroke_fill=canvas.pick_contrasting(ink),
    )
    return edited


def add_meme_captions(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write huge outlined lines at the upper edge, the lower one or both."""
    lettering, ink = pick_lettering(rng), pick_ink(rng)
    edited, share = image.copy(), rng.uniform(0.13, 0.28)
    pen = ImageDraw.Draw(edited)
    for place in rng.choice(["t", "b", "tb", "tb"]):
        text = lettering.wrap(rng, rng.randint(1, 2), rng.randint(2, 4)).upper()
        font = lettering.fit(text, image.width * 0.94, image.height * share)
        y = image.height * (share / 2 + 0.02 if place == "t" else 0.98 - share / 2)
        pen.multiline_text(
            (image.width / 2, y),
            text,
            ink,
            font,
            "mm",
            align="center",
            stroke_width=max(1, image.height // 100),
            stroke_fill=canvas.pick_contrasting(ink),
        )
    return edited


def add_boxed_caption(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write one to three lines on a box, opaque or half transparent, anywhere."""
    lettering, color = pick_lettering(rng), pick_color(rng)
    text = lettering.wrap(rng, rng.randint(1, 3), rng.randint(2, 4))
    width, height = image.width * rng.uniform(0.3, 0.9), image.height * rng.uniform(0.08, 0.3)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    font = lettering.fit(text, width * 0.92, height * 0.9)
    alpha, radius = rng.choice([255, 255, 150, 100]), rng.choice([0, height / 5])

    def draw(pen: Pen, unit: int) -> None:
        box = (left, top, left + width, top + height)
        pen.rounded_rectangle(box, radius, fill=(*color, alpha))
        middle = left + width / 2, top + height / 2
        ink = canvas.pick_contrasting(color)
        pen.multiline_text(middle, text, ink, font, "mm", align="center")

    return canvas.draw_over(image, draw, soft=False)


def add_shadowed_text(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write one or two lines with a soft shadow or a glow."""
    lettering, ink = pick_lettering(rng), pick_ink(rng)
    text = lettering.wrap(rng, rng.randint(1, 2), rng.randint(1, 4))
    font = lettering.fit(text, image.width * rng.uniform(0.3, 0.9), image.height * 0.3)
    x, y = image.width * rng.uniform(0.35, 0.65), image.height * rng.uniform(0.2, 0.8)
    offset = max(1, round(image.height * rng.choice([0, 0.006, 0.015])))
    mask = Image.new("L", image.size)
    pen = ImageDraw.Draw(mask)
    pen.multiline_text((x + offset, y + offset), text, 255, font, "mm", align="center")
    edited = image.copy()
    shadow = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))
    edited.paste(canvas.pick_contrasting(ink), (0, 0), shadow)
    ImageDraw.Draw(edited).multiline_text((x, y), text, ink, font, "mm", align="center")
    return edited


def add_subtitle(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write one or two small lines at the lower edge, white or yellow, as films have."""
    lettering = pick_lettering(rng)
    text = lettering.wrap(rng, rng.randint(1, 2), rng.randint(3, 6))
    font = lettering.fit(text, image.width * 0.8, image.height * rng.uniform(0.09, 0.16))
    edited = image.copy()
    ImageDraw.Draw(edited).multiline_text(
        (image.width / 2, image.height * 0.97),
        text,
        rng.choice([(255, 255, 255), (255, 235, 60)]),
        font,
        "md",
        align="center",
        stroke_width=max(1, image.height // 250),
        stroke_fill=(0, 0, 0),
    )
    return edited


def add_signature(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write a tiny half-transparent watermark into a corner."""
    lettering, ink = pick_lettering(rng, latin_share=0.8), pick_ink(rng)
    text = rng.choice(["\N{COPYRIGHT SIGN} ", "", "@"]) + lettering.write(rng, 1, 3)
    font = lettering.fit(text, image.width * rng.uniform(0.15, 0.4), image.height * 0.06)
    margin = image.height * 0.03
    x, y = rng.choice("lr"), rng.choice("td")
    corner = (
        margin if x == "l" else image.width - margin,
        margin if y == "t" else image.height - margin,
    )
    anchor = x + ("a" if y == "t" else "d")

    def draw(pen: Pen, unit: int) -> None:
        pen.text(corner, text, ink, font, anchor)

    return canvas.draw_over(image, draw, soft=False, opacity=rng.uniform(0.4, 1))


def turn_text(
    text: str, lettering_size: tuple[float, float], rng: random.Random, color: Color
) -> Image.Image:
    """Write a text on a patch of its own, RGBA, that fits a width and a height."""
    lettering = pick_lettering(rng)
    text = text or lettering.write(rng, 1, 3)
    font = lettering.fit(text, *lettering_size)
    left, top, right, bottom = font.getbbox(text)
    patch = Image.new("RGBA", (max(1, round(right - left)) + 4, max(1, round(bottom - top)) + 4))
    ImageDraw.Draw(patch).text((2 - left, 2 - top), text, color, font)
    return patch


def tile_watermark(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Repeat a half-transparent text over the whole photo, slanted."""
    size = (image.width * rng.uniform(0.15, 0.4), image.height * rng.uniform(0.05, 0.1))
    patch = turn_text("", size, rng, rng.choice([(255, 255, 255), (255, 255, 255), (0, 0, 0)]))
    patch = patch.rotate(rng.choice([0, 30, 45, -30]), Image.Resampling.BICUBIC, expand=True)
    layer = Image.new("RGBA", image.size)
    across, down = round(patch.width * rng.uniform(1.1, 1.8)), round(patch.height * 1.5)
    for row, top in enumerate(range(0, image.height, max(4, down))):
        for left in range(-(row % 2) * across // 2, image.width, max(4, across)):
            layer.paste(patch, (left, top), patch)
    layer = canvas.fade(layer, rng.uniform(0.2, 0.5))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def add_slanted_mark(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write one large half-transparent text across the photo."""
    text = rng.choice(["PREVIEW", "COPY", "", ""])
    size = (image.width * rng.uniform(0.6, 0.95), image.height * 0.5)
    patch = turn_text(text, size, rng, pick_ink(rng))
    patch = patch.rotate(rng.uniform(-45, 45), Image.Resampling.BICUBIC, expand=True)
    center = image.width / 2, image.height * rng.uniform(0.4, 0.6)
    return canvas.paste_patch(image, patch, center, rng.uniform(0.25, 0.6))


def add_side_text(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write a line along the left or right edge, turned by a quarter."""
    size = (image.height * rng.uniform(0.4, 0.9), image.width * rng.uniform(0.03, 0.1))
    patch = turn_text("", size, rng, pick_ink(rng))
    patch = patch.transpose(rng.choice([Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270]))
    x = rng.choice([patch.width, image.width - patch.width])
    return canvas.paste_patch(image, patch, (x, image.height / 2), rng.choice([1, 1, 0.6]))


def add_headline(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write a word or two in huge letters, opaque, sometimes turned slightly."""
    size = (image.width * rng.uniform(0.6, 0.98), image.height * rng.uniform(0.25, 0.5))
    patch = turn_text("", size, rng, pick_ink(rng))
    patch = patch.rotate(
        rng.choice([0, rng.uniform(-20, 20)]), Image.Resampling.BICUBIC, expand=True
    )
    center = image.width / 2, image.height * rng.uniform(0.2, 0.8)
    return canvas.paste_patch(image, patch, center)


def add_quote(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Write a paragraph of four to seven lines over the photo."""
    lettering, ink = pick_lettering(rng), pick_ink(rng)
    text = lettering.wrap(rng, rng.randint(4, 7), rng.randint(3, 5))
    font = lettering.fit(text, image.width * rng.uniform(0.5, 0.9), image.height * 0.7)
    edited = image.copy()
    middle = image.width / 2, image.height * rng.uniform(0.4, 0.6)
    ImageDraw.Draw(edited).multiline_text(middle, text, ink, font, "mm", align="center")
    return edited


EDITS: dict[str, Edit] = {
    "caption": add_caption,
    "meme captions": add_meme_captions,
    "boxed caption": add_boxed_caption,
    "shadowed text": add_shadowed_text,
    "subtitle": add_subtitle,
    "signature": add_signature,
    "tiled watermark": tile_watermark,
    "slanted mark": add_slanted_mark,
    "side text": add_side_text,
    "headline": add_headline,
    "quote": add_quote,
}
