"""Augmentation for training: random edits that people, apps and websites apply to a photo.

The code differs from the copies that benchmarks are measured on (synthetic_copies.py): other
frames, words and numbers, so that a network cannot memorise those. Images of one batch can be put
into the same Frame; then the network cannot match them by what they share, as in two photos on the
screen of one phone. Every function takes and returns an upright RGB image.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

# Words of captions, watermarks and app bars.
WORDS = (
    "sunday at last someone asked me so this is how it ends wait for it best day ever who did that"
    " miss you all for sale call now tag a friend posted by reply share like follow 12 3.4k 98 %"
    " 2021 07:45 monday draft proof copy do not print unless asked new hot deal"
).split()
TRANSPOSE_OPERATIONS = tuple(Image.Transpose)
BILINEAR = Image.Resampling.BILINEAR

# Edits do not shrink a side below this.
MIN_SIDE_PX = 48


def pick_color(rng: random.Random) -> tuple[int, int, int]:
    """Pick black, white or a gray in half of all cases, else any color."""
    kind = rng.random()
    if kind < 0.5:
        level = rng.choice((0, 255, rng.randrange(256)))
        return level, level, level
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def pick_words(rng: random.Random, max_count: int = 6) -> str:
    """Pick words, all in upper, lower or title case."""
    return rng.choice((str.upper, str.lower, str.title))(
        " ".join(rng.sample(WORDS, rng.randint(1, max_count)))
    )


def reencode(image: Image.Image, rng: random.Random) -> Image.Image:
    """Encode as JPEG or WebP of quality 12 to 90, and decode."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if rng.random() < 0.8 else "WEBP", quality=rng.randint(12, 90))
    return Image.open(buffer).convert("RGB")


def resample(image: Image.Image, rng: random.Random) -> Image.Image:
    """Shrink to .3 to .9 of each side and enlarge again, by random filters."""
    share = rng.uniform(0.3, 0.9)
    small = image.resize(
        (max(MIN_SIDE_PX, int(image.width * share)), max(MIN_SIDE_PX, int(image.height * share))),
        rng.choice((1, 2, 3, 4)),
    )
    return small.resize(image.size, rng.choice((0, 2, 3)))


def crop_randomly(image: Image.Image, rng: random.Random, min_share: float) -> Image.Image:
    """Crop a window of about `min_share` or more of each side."""
    share = rng.uniform(min_share, 1.0)
    lean = rng.uniform(0.85, 1.18)
    width, height = (
        min(side, max(MIN_SIDE_PX, round(side * part)))
        for side, part in zip(image.size, (share * lean, share / lean), strict=True)
    )
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def rotate(image: Image.Image, rng: random.Random) -> Image.Image:
    """Rotate by an angle of 14 degrees deviation, with filled corners or without them."""
    angle = rng.gauss(0, 14)
    if rng.random() < 0.6:
        return image.rotate(angle, BILINEAR, expand=True, fillcolor=pick_color(rng))
    turned = image.rotate(angle, BILINEAR)
    keep = 1 - min(0.45, abs(math.sin(math.radians(angle))) * 0.9)
    width, height = (
        max(MIN_SIDE_PX, int(image.width * keep)),
        max(MIN_SIDE_PX, int(image.height * keep)),
    )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return turned.crop((left, top, left + width, top + height))


def warp_perspective(image: Image.Image, rng: random.Random) -> Image.Image:
    """Warp the perspective: move each corner inward, or outward onto a plain background."""
    width, height = image.size
    reach = rng.uniform(0.03, 0.2)
    inward = rng.random() < 0.6

    def move(x: float, y: float) -> tuple[float, float]:
        dx, dy = rng.uniform(0, reach) * width, rng.uniform(0, reach) * height
        sign = 1 if inward else -1
        return x + sign * (dx if x == 0 else -dx), y + sign * (dy if y == 0 else -dy)

    corners = [move(0, 0), move(0, height), move(width, height), move(width, 0)]
    flat = tuple(coordinate for corner in corners for coordinate in corner)
    return image.transform(
        image.size, Image.Transform.QUAD, flat, BILINEAR, fillcolor=pick_color(rng)
    )


def adjust_tones(image: Image.Image, rng: random.Random) -> Image.Image:
    """Change brightness, contrast, saturation, gamma and color temperature."""
    for enhancer, reach in (
        (ImageEnhance.Brightness, 0.5),
        (ImageEnhance.Contrast, 0.6),
        (ImageEnhance.Color, 0.9),
    ):
        if rng.random() < 0.6:
            image = enhancer(image).enhance(math.exp(rng.uniform(-reach, reach)))
    if rng.random() < 0.3:
        gamma = math.exp(rng.uniform(-0.6, 0.6))
        tints = [rng.uniform(0.75, 1.15) if rng.random() < 0.5 else 1.0 for _ in range(3)]
        table = [
            min(255, round(255 * (level / 255) ** gamma * tint))
            for tint in tints
            for level in range(256)
        ]
        image = image.point(table)
    return image


def apply_filter(image: Image.Image, rng: random.Random) -> Image.Image:
    """Apply a filter of an app: gray, sepia, equalise, posterise or stretch the histogram."""
    kind = rng.random()
    if kind < 0.55:
        return ImageOps.grayscale(image).convert("RGB")
    if kind < 0.66:
        return ImageOps.colorize(
            ImageOps.grayscale(image),
            (rng.randrange(60), rng.randrange(50), rng.randrange(60)),
            (255, 240, 210),
        )
    if kind < 0.82:
        return ImageOps.equalize(image)
    if kind < 0.92:
        return ImageOps.posterize(image, rng.randint(2, 4))
    return ImageOps.autocontrast(image, cutoff=rng.uniform(0, 8))


def degrade(image: Image.Image, rng: random.Random) -> Image.Image:
    """Blur, sharpen, add grain or pixelate."""
    kind = rng.random()
    if kind < 0.35:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.02 * min(image.size))))
    if kind < 0.5:
        return ImageEnhance.Sharpness(image).enhance(rng.uniform(1.5, 5))
    if kind < 0.85:
        grains = np.random.default_rng(rng.getrandbits(64)).normal(
            0, rng.uniform(6, 45), (image.height, image.width, rng.choice((1, 3)))
        )
        return Image.fromarray(
            (np.asarray(image, np.float32) + grains).clip(0, 255).astype(np.uint8)
        )
    small = image.resize(
        (max(32, image.width // rng.randint(2, 4)), max(32, image.height // rng.randint(2, 4))), 4
    )
    return small.resize(image.size, 0)


def add_caption(image: Image.Image, rng: random.Random) -> Image.Image:
    """Draw one or two lines of words, sometimes on a bar."""
    edited = image.copy()
    draw = ImageDraw.Draw(edited)
    size = max(8, int(image.height * rng.uniform(0.05, 0.16)))
    x, y = (
        rng.uniform(0, 0.5) * image.width,
        rng.choice((rng.uniform(0, 0.2), rng.uniform(0.65, 0.92))) * image.height,
    )
    for line in range(rng.randint(1, 2)):
        if rng.random() < 0.3:
            draw.rectangle(
                (0, y + line * size, image.width, y + (line + 1.15) * size), fill=pick_color(rng)
            )
        draw.text(
            (x, y + line * size),
            pick_words(rng),
            fill=pick_color(rng),
            font_size=size,
            stroke_width=rng.choice((0, 0, 1)),
            stroke_fill="black",
        )
    return edited


def add_watermark(image: Image.Image, rng: random.Random) -> Image.Image:
    """Draw translucent words over the image, in rows or once, straight or rotated."""
    side = 2 * max(image.size)
    layer = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(layer)
    size, mark = max(9, int(image.width * rng.uniform(0.06, 0.2))), pick_words(rng, 2)
    if rng.random() < 0.7:
        for top in range(0, side, int(size * rng.uniform(2, 4))):
            draw.text(
                (rng.randint(0, size), top), f"{mark}   {mark}   {mark}", fill=255, font_size=size
            )
    else:
        draw.text((side * 0.3, side * 0.45), mark, fill=255, font_size=2 * size)
    layer = layer.rotate(rng.choice((0, rng.uniform(-50, 50))), BILINEAR)
    left, top = (side - image.width) // 2, (side - image.height) // 2
    mask = layer.crop((left, top, left + image.width, top + image.height)).point(
        [int(level * 0.4) for level in range(256)]
    )
    return Image.composite(Image.new("RGB", image.size, pick_color(rng)), image, mask)


def add_shapes(image: Image.Image, rng: random.Random) -> Image.Image:
    """Draw a bar across the image, or shapes and faces on it."""
    edited = image.copy()
    draw = ImageDraw.Draw(edited)
    width, height = image.size
    if rng.random() < 0.4:
        thickness, offset = rng.uniform(0.05, 0.3), rng.uniform(0, 0.8)
        draw.rectangle(
            (0, offset * height, width, (offset + thickness) * height)
            if rng.random() < 0.7
            else (offset * width, 0, (offset + thickness) * width, height),
            fill=pick_color(rng),
        )
        return edited
    for _ in range(rng.randint(1, 7)):
        radius = rng.uniform(0.04, 0.16) * min(image.size)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        box = (x - radius, y - radius, x + radius, y + radius)
        skin, ink = rng.choice(((250, 205, 70), (255, 220, 120), pick_color(rng))), pick_color(rng)
        kind = rng.random()
        if kind < 0.55:
            draw.ellipse(box, fill=skin, outline=rng.choice((ink, None)))
            for eye in (-0.35, 0.35):
                draw.ellipse(
                    (
                        x + eye * radius - 2,
                        y - radius / 3 - 2,
                        x + eye * radius + 2,
                        y - radius / 3 + 2,
                    ),
                    fill=ink,
                )
            draw.arc(
                (x - radius / 2, y - radius / 3, x + radius / 2, y + radius / 2),
                rng.randint(0, 40),
                rng.randint(120, 180),
                fill=ink,
                width=2,
            )
        elif kind < 0.75:
            draw.rounded_rectangle(box, radius / 3, fill=ink)
        else:
            draw.regular_polygon((x, y, radius), rng.randint(3, 8), rng.uniform(0, 90), fill=ink)
    return edited


@dataclass(frozen=True)
class Frame:
    """A frame that images are put into; two images in the same frame share all of it."""

    kind: str  # "border", "screen", "meme", "page", "over" or "collage"
    seed: int


FRAME_WEIGHTS = (
    ("border", 3),
    ("screen", 7),
    ("meme", 3),
    ("page", 2),
    ("over", 8),
    ("collage", 8),
)


def pick_frame(rng: random.Random) -> Frame:
    """Pick a frame by the weights of its kinds."""
    return Frame(
        rng.choices([kind for kind, _ in FRAME_WEIGHTS], [weight for _, weight in FRAME_WEIGHTS])[
            0
        ],
        rng.getrandbits(32),
    )


def apply_frame(image: Image.Image, other_image: Image.Image, frame: Frame) -> Image.Image:
    """Put an image into a frame; `other_image` fills it where the frame needs another image."""
    return FRAME_FUNCTIONS[frame.kind](image, other_image, random.Random(frame.seed))


def _add_border(image: Image.Image, other_image: Image.Image, rng: random.Random) -> Image.Image:
    edges = [int(side * rng.uniform(0, 0.2)) for side in (image.width, image.height)] * 2
    if rng.random() < 0.4:
        edges = [edges[0]] * 4
    elif rng.random() < 0.4:
        edges[rng.randrange(2) :: 2] = [0, 0]
    return ImageOps.expand(image, tuple(edges), pick_color(rng))


def _draw_app_bars(
    draw: ImageDraw.ImageDraw,
    width: int,
    top: int,
    bottom: int,
    rng: random.Random,
    ink: tuple[int, int, int],
) -> None:
    """Draw rows of icons, lines and words, as apps show them above and below a photo."""
    y = top
    while y < bottom - 8:
        size = rng.randint(7, 16)
        kind, x = rng.random(), rng.randint(2, 20)
        if kind < 0.45:
            draw.text((x, y), pick_words(rng), fill=ink, font_size=size)
        elif kind < 0.75:
            step = rng.randint(2 * size, 5 * size)
            for place in range(x, width - size, step):
                draw.ellipse(
                    (place, y, place + size, y + size), fill=rng.choice((None, ink)), outline=ink
                )
        elif kind < 0.9:
            draw.line((x, y + size // 2, width - x, y + size // 2), fill=ink)
        y += size + rng.randint(2, 14)


def _put_on_screen(image: Image.Image, other_image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = rng.choice(((200, 420), (220, 400), (240, 400), (300, 225), (360, 210)))
    background = rng.choice(((255, 255, 255), (15, 15, 18), (0, 0, 0), pick_color(rng)))
    screen = Image.new("RGB", (width, height), background)
    ink = (240, 240, 240) if sum(background) < 380 else (25, 25, 25)
    inner = ImageOps.contain(
        image, (int(width * rng.uniform(0.6, 1)), int(height * rng.uniform(0.45, 0.85)))
    )
    top = rng.randint(0, height - inner.height)
    left = (width - inner.width) // 2 if rng.random() < 0.7 else rng.randint(0, width - inner.width)
    draw = ImageDraw.Draw(screen)
    _draw_app_bars(draw, width, 2, top, rng, ink)
    _draw_app_bars(draw, width, top + inner.height + 3, height, rng, ink)
    screen.paste(inner, (left, top))
    return screen


def _make_meme(image: Image.Image, other_image: Image.Image, rng: random.Random) -> Image.Image:
    above, below = (rng.choice((0, rng.uniform(0.12, 0.4))) for _ in range(2))
    background = rng.choice(((0, 0, 0), (255, 255, 255), pick_color(rng)))
    edited = Image.new("RGB", (image.width, int(image.height * (1 + above + below))), background)
    edited.paste(image, (0, int(image.height * above)))
    draw = ImageDraw.Draw(edited)
    for top in (0, edited.height - image.height * max(below, 0.2)):
        size = max(7, int(image.height * rng.uniform(0.08, 0.16)))
        ink = (255, 255, 255) if sum(background) < 380 else (0, 0, 0)
        draw.text(
            (rng.uniform(0, 0.2) * image.width, top + size * 0.2),
            pick_words(rng, 4).upper(),
            fill=ink,
            font_size=size,
            stroke_width=1,
            stroke_fill=background,
        )
    return edited


def _put_on_page(image: Image.Image, other_image: Image.Image, rng: random.Random) -> Image.Image:
    page = Image.new("RGB", rng.choice(((240, 320), (320, 240))), (255, 255, rng.randint(235, 255)))
    draw = ImageDraw.Draw(page)
    for top in range(8, page.height, rng.randint(8, 14)):
        draw.line(
            (12, top, page.width - rng.randint(12, 60), top),
            fill=(60, 60, 60),
            width=rng.randint(1, 3),
        )
    inner = ImageOps.contain(
        image,
        (int(page.width * rng.uniform(0.55, 0.95)), int(page.height * rng.uniform(0.45, 0.8))),
    )
    page.paste(
        inner,
        (rng.randint(0, page.width - inner.width), rng.randint(0, page.height - inner.height)),
    )
    return page


def _put_over_image(
    image: Image.Image, other_image: Image.Image, rng: random.Random
) -> Image.Image:
    share = rng.uniform(0.4, 0.9)
    background = other_image.resize(rng.choice(((240, 180), (240, 240), (180, 240))))
    inner = ImageOps.contain(
        image,
        (
            max(MIN_SIDE_PX, int(background.width * share)),
            max(MIN_SIDE_PX, int(background.height * share)),
        ),
    )
    background.paste(
        inner,
        (
            rng.randint(0, background.width - inner.width),
            rng.randint(0, background.height - inner.height),
        ),
    )
    return background


def _make_collage(image: Image.Image, other_image: Image.Image, rng: random.Random) -> Image.Image:
    across, down = rng.choice(((2, 1), (1, 2), (2, 2), (2, 2), (3, 1)))
    gap, tile = rng.choice((0, 2, 6)), (320 // across, 240 // down)
    edited = Image.new("RGB", (across * tile[0], down * tile[1]), pick_color(rng))
    tiles = [image] + [
        other_image.transpose(rng.choice(TRANSPOSE_OPERATIONS))
        if rng.random() < 0.6
        else crop_randomly(other_image, rng, 0.5)
        for _ in range(across * down - 1)
    ]
    rng.shuffle(tiles)
    for number, content in enumerate(tiles):
        size = (tile[0] - gap, tile[1] - gap)
        fitted = ImageOps.fit(content, size) if rng.random() < 0.5 else content.resize(size)
        edited.paste(
            fitted,
            (gap // 2 + tile[0] * (number % across), gap // 2 + tile[1] * (number // across)),
        )
    return edited


FRAME_FUNCTIONS: dict[str, Callable[[Image.Image, Image.Image, random.Random], Image.Image]] = {
    "border": _add_border,
    "screen": _put_on_screen,
    "meme": _make_meme,
    "page": _put_on_page,
    "over": _put_over_image,
    "collage": _make_collage,
}


def apply_light_edits(image: Image.Image, rng: random.Random) -> Image.Image:
    """Edit an image as little as its owner might: a narrow crop, tones, a re-encoding."""
    if rng.random() < 0.3:
        image = crop_randomly(image, rng, 0.92)
    if rng.random() < 0.2:
        image = adjust_tones(image, rng)
    return reencode(image, rng) if rng.random() < 0.2 else image


def apply_edits(
    image: Image.Image, other_image: Image.Image, rng: random.Random, frame: Frame | None
) -> Image.Image:
    """Apply one or more edits; with a frame, put the image into it as one of them."""
    has_many_edits = rng.random() < 0.4  # half of all copies have one edit or two

    def happens(chance: float) -> bool:
        return rng.random() < chance * (1.5 if has_many_edits else 0.8)

    if happens(0.45):
        image = crop_randomly(image, rng, 0.32 if rng.random() < 0.6 else 0.7)
    if happens(0.4):
        image = image.transpose(rng.choice(TRANSPOSE_OPERATIONS))
    if happens(0.14):
        image = rotate(image, rng)
    if happens(0.12):
        image = warp_perspective(image, rng)
    for chance, edit in (
        (0.35, adjust_tones),
        (0.22, apply_filter),
        (0.2, degrade),
        (0.12, add_caption),
        (0.07, add_watermark),
        (0.14, add_shapes),
    ):
        if happens(chance):
            image = edit(image, rng)
    if frame:
        image = apply_frame(image, other_image, frame)
        if happens(0.2):
            image = adjust_tones(image, rng)
    if happens(0.2):
        image = resample(image, rng)
    return reencode(image, rng) if happens(0.45) else image
