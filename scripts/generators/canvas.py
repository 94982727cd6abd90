"""Layers, patches and masks: how overlays get onto an image, with hard or with soft edges."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import cos, pi, sin

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Box = tuple[int, int, int, int]
Color = tuple[int, int, int]
Pen = ImageDraw.ImageDraw

# Draws on a layer whose unit is that many pixels.
DrawLayer = Callable[[Pen, int], None]

# Draws on a square patch with that many pixels a side.
DrawPatch = Callable[[Pen, int, random.Random], None]

# Soft edges are drawn at this many times the size and averaged.
SOFT_SCALE = 3

# Larger images are drawn on at their own size: nine times a layer of 8 megapixels is 300 MB.
MAX_SOFT_PIXELS = 2_000_000

# Part of the overlays that have no antialiasing, as old editors and screenshots of pixels have.
HARD_EDGE_SHARE = 0.3

# Points of a blob's outline between two of its radii.
BLOB_STEPS = 16

# Colors of stickers, pens and app controls: saturated, with black and white among them.
PALETTE: tuple[Color, ...] = (
    (255, 255, 255),
    (0, 0, 0),
    (235, 30, 45),
    (250, 210, 40),
    (40, 160, 70),
    (30, 110, 230),
    (240, 120, 30),
    (160, 60, 200),
    (250, 120, 170),
    (20, 190, 200),
    (120, 80, 40),
    (150, 150, 150),
)


def pick_color(rng: random.Random) -> Color:
    """Pick a color of the palette, slightly changed."""
    red, green, blue = (
        min(255, max(0, level + rng.randint(-15, 15))) for level in rng.choice(PALETTE)
    )
    return red, green, blue


def pick_contrasting(color: Color) -> Color:
    """Pick black for light colors and white for dark ones."""
    return (0, 0, 0) if sum(color) > 380 else (255, 255, 255)


def pick_soft(rng: random.Random) -> bool:
    """Pick soft edges or, less often, hard ones."""
    return rng.random() >= HARD_EDGE_SHARE


def pick_opacity(rng: random.Random) -> float:
    """Pick opaque in two of three cases, else half transparent."""
    return 1.0 if rng.random() < 2 / 3 else rng.uniform(0.35, 0.8)


def pick_box(image: Image.Image, rng: random.Random, share: float) -> Box:
    """Pick a box with `share` of the area, up to 2.2 times as wide as high or as high as wide."""
    lean = rng.uniform(1 / 2.2, 2.2) ** 0.5
    width = min(image.width, max(2, round(image.width * share**0.5 * lean)))
    height = min(image.height, max(2, round(image.height * share**0.5 / lean)))
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return left, top, left + width, top + height


def pick_boxes(
    image: Image.Image, rng: random.Random, max_count: int, max_share: float
) -> list[Box]:
    """Pick 1 to `max_count` boxes that together have .1 to 1 times `max_share` of the area."""
    count = rng.randint(1, max_count)
    share = rng.uniform(0.1, 1) * max_share
    return [pick_box(image, rng, share / count) for _ in range(count)]


def fade(layer: Image.Image, opacity: float) -> Image.Image:
    """Multiply the opacity of an RGBA layer by `opacity`."""
    if opacity == 1:
        return layer
    faded = layer.copy()
    faded.putalpha(layer.getchannel("A").point([round(level * opacity) for level in range(256)]))
    return faded


def draw_over(
    image: Image.Image, draw_layer: DrawLayer, soft: bool = True, opacity: float = 1
) -> Image.Image:
    """Draw on a transparent layer and composite it over the image, RGB.

    With soft edges the layer is larger, and `draw_layer` gets the pixels of its unit.
    """
    scale = SOFT_SCALE if soft and image.width * image.height <= MAX_SOFT_PIXELS else 1
    layer = Image.new("RGBA", (image.width * scale, image.height * scale))
    draw_layer(ImageDraw.Draw(layer), scale)
    if scale > 1:
        layer = layer.reduce(scale)
    return Image.alpha_composite(image.convert("RGBA"), fade(layer, opacity)).convert("RGB")


def make_patch(side: int, draw_patch: DrawPatch, rng: random.Random, soft: bool) -> Image.Image:
    """Draw a square RGBA patch; hard edges are those of a drawing without antialiasing."""
    scale = SOFT_SCALE if soft else 1
    patch = Image.new("RGBA", (side * scale, side * scale))
    draw_patch(ImageDraw.Draw(patch), side * scale, rng)
    return patch.reduce(scale) if soft else patch


def outline_patch(patch: Image.Image, color: Color, width: int) -> Image.Image:
    """Put a rim of `color` around what a patch shows, as sticker apps do."""
    padded = Image.new("RGBA", (patch.width + 2 * width, patch.height + 2 * width))
    padded.paste(patch, (width, width))
    rim = Image.new("RGBA", padded.size, (*color, 255))
    rim.putalpha(padded.getchannel("A").filter(ImageFilter.MaxFilter(2 * width + 1)))
    return Image.alpha_composite(rim, padded)


def paste_patch(
    image: Image.Image, patch: Image.Image, center: tuple[float, float], opacity: float = 1
) -> Image.Image:
    """Composite an RGBA patch over an RGB image, around `center` in pixels."""
    left, top = round(center[0] - patch.width / 2), round(center[1] - patch.height / 2)
    edited = image.copy()
    edited.paste(patch.convert("RGB"), (left, top), fade(patch, opacity).getchannel("A"))
    return edited


def draw_blob(size: tuple[int, int], rng: random.Random, min_radius: float = 0.55) -> Image.Image:
    """Draw the mask, L, of an irregular shape that fills `size`; radii from `min_radius` to 1."""
    count = rng.randint(7, 14)
    radii = [rng.uniform(min_radius, 1) for _ in range(count)]
    width, height = size
    shape = Image.new("L", (width * 2, height * 2))
    points: list[tuple[float, float]] = []
    for index in range(count * BLOB_STEPS):
        turn, part = divmod(index, BLOB_STEPS)
        blend = (1 - cos(pi * part / BLOB_STEPS)) / 2
        radius = radii[turn] * (1 - blend) + radii[(turn + 1) % count] * blend
        angle = 2 * pi * index / (count * BLOB_STEPS)
        points.append((width * (1 + radius * cos(angle)), height * (1 + radius * sin(angle))))
    ImageDraw.Draw(shape).polygon(points, fill=255)
    return shape.reduce(2)


def feather(mask: Image.Image, radius: float) -> Image.Image:
    """Soften the edge of a mask inwards, so that its border stays empty."""
    framed = Image.new("L", mask.size)
    inset = max(1, round(radius))
    inner = mask.crop((inset, inset, mask.width - inset, mask.height - inset))
    framed.paste(inner, (inset, inset))
    return ImageChops.darker(mask, framed.filter(ImageFilter.GaussianBlur(radius)))
