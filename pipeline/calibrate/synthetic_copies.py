"""Synthetic copies: the edits that people and apps make, for calibration and benchmarks.

Each edit takes an upright RGB image, a background image for the edits that need one, and a seeded
random generator; it returns a new image. The names of edits seed the generators, so renaming one
changes its copies.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Edit = Callable[[Image.Image, Image.Image, random.Random], Image.Image]
PILLOW_FORMATS = {"jpeg": "JPEG", "webp": "WEBP"}


def reencode(image: Image.Image, codec: str, quality: int) -> Image.Image:
    """Encode and decode an image with a lossy codec, "jpeg" or "webp"."""
    buffer = io.BytesIO()
    image.save(buffer, PILLOW_FORMATS[codec], quality=quality)
    return Image.open(buffer).convert("RGB")


def rescale(image: Image.Image, factor: float) -> Image.Image:
    """Scale width and height by `factor`, to at least one pixel each."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def crop_randomly(image: Image.Image, share: float, rng: random.Random) -> Image.Image:
    """Crop to a random window with `share` of the width and of the height."""
    width, height = round(image.width * share), round(image.height * share)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def add_caption(image: Image.Image, rng: random.Random) -> Image.Image:
    """Draw a line of white text near the lower edge."""
    edited = image.copy()
    draw = ImageDraw.Draw(edited)
    size = max(10, image.height // 12)
    position = (image.width * rng.uniform(0.02, 0.2), image.height - 1.5 * size)
    draw.text(
        position,
        rng.choice(["my holiday 2019", "(c) studio north", "look at this!"]),
        fill="white",
        font_size=size,
    )
    return edited


def add_watermark(image: Image.Image, rng: random.Random) -> Image.Image:
    """Draw rows of half-transparent text over the whole image."""
    layer = Image.new("RGBA", image.size, (255, 255, 255, 0))
    size = max(12, image.width // 8)
    draw = ImageDraw.Draw(layer)
    for top in range(size // 2, image.height, 3 * size):
        draw.text(
            (rng.randint(0, size), top), "SAMPLE SAMPLE", fill=(255, 255, 255, 96), font_size=size
        )
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def add_stripe(image: Image.Image, rng: random.Random) -> Image.Image:
    """Draw an opaque stripe across the image, a quarter of its height."""
    edited = image.copy()
    top = rng.uniform(0.1, 0.6) * image.height
    ImageDraw.Draw(edited).rectangle(
        (0, top, image.width, top + 0.25 * image.height), fill=(200, 30, 40)
    )
    return edited


def add_stickers(image: Image.Image, rng: random.Random) -> Image.Image:
    """Draw five round yellow faces at random places."""
    edited = image.copy()
    draw = ImageDraw.Draw(edited)
    for _ in range(5):
        radius = rng.uniform(0.06, 0.12) * min(image.size)
        x, y = rng.uniform(radius, image.width - radius), rng.uniform(radius, image.height - radius)
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=(250, 210, 60),
            outline="black",
            width=2,
        )
        draw.arc(
            (x - radius / 2, y - radius / 2, x + radius / 2, y + radius / 2),
            20,
            160,
            fill="black",
            width=3,
        )
    return edited


def warp_perspective(image: Image.Image, rng: random.Random) -> Image.Image:
    """Warp by a homography that moves each corner inwards by up to a sixth of the sides."""
    width, height = image.size
    corners = [
        (rng.uniform(0, width / 6), rng.uniform(0, height / 6)),
        (rng.uniform(0, width / 6), height - rng.uniform(0, height / 6)),
        (width - rng.uniform(0, width / 6), height - rng.uniform(0, height / 6)),
        (width - rng.uniform(0, width / 6), rng.uniform(0, height / 6)),
    ]
    coordinates = [coordinate for corner in corners for coordinate in corner]
    return image.transform(image.size, Image.Transform.QUAD, coordinates, Image.Resampling.BICUBIC)


def add_noise(image: Image.Image, rng: random.Random) -> Image.Image:
    """Blend in a quarter of Gaussian gray noise with mean 128 and standard deviation 90."""
    noise = np.random.default_rng(rng.getrandbits(64)).normal(128, 90, (image.height, image.width))
    grain = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")
    return Image.blend(image, grain, 0.25)


def paste_on(image: Image.Image, background: Image.Image, rng: random.Random) -> Image.Image:
    """Paste the image, within 400 x 300 px, at a random place of a 640 x 480 background."""
    edited = background.resize((640, 480))
    inner = ImageOps.contain(image, (400, 300))
    edited.paste(inner, (rng.randint(0, 640 - inner.width), rng.randint(0, 480 - inner.height)))
    return edited


def make_screenshot(image: Image.Image) -> Image.Image:
    """Show the image in a phone app: a screenshot with bars above and below it."""
    screen = Image.new("RGB", (540, 1080), (18, 18, 18))
    draw = ImageDraw.Draw(screen)
    draw.text((20, 12), "12:30", fill="white", font_size=22)
    draw.text((70, 70), "some_account", fill="white", font_size=26)
    draw.ellipse((16, 64, 56, 104), fill=(120, 120, 200))
    inner = ImageOps.contain(image, (540, 720))
    screen.paste(inner, (0, 130))
    for index in range(4):
        draw.rectangle((40 + 130 * index, 1000, 90 + 130 * index, 1040), outline="white", width=3)
    draw.text(
        (20, 140 + inner.height), "Liked by someone and 24 others", fill="white", font_size=20
    )
    return screen


def make_collage(image: Image.Image, filler: Image.Image, rng: random.Random) -> Image.Image:
    """Arrange the image and three versions of `filler` as 2 x 2 tiles in random order."""
    edited = Image.new("RGB", (640, 480), "white")
    tiles = [image, filler, ImageOps.mirror(filler), ImageOps.flip(filler)]
    rng.shuffle(tiles)
    for index, tile in enumerate(tiles):
        edited.paste(tile.resize((314, 234)), (2 + 320 * (index % 2), 2 + 240 * (index // 2)))
    return edited


def make_meme(image: Image.Image, rng: random.Random) -> Image.Image:
    """Put the image between black bars with large text above and below."""
    width, height = image.size
    edited = Image.new("RGB", (width, round(height * 1.5)), "black")
    edited.paste(image, (0, height // 4))
    draw = ImageDraw.Draw(edited)
    size = max(12, height // 7)
    draw.text(
        (width // 10, height // 20),
        rng.choice(["WHEN YOU SEE IT", "ONE DOES NOT"]),
        fill="white",
        font_size=size,
    )
    draw.text(
        (width // 10, height * 1.3),
        rng.choice(["EVERY TIME", "JUST WALK AWAY"]),
        fill="white",
        font_size=size,
    )
    return edited


EVERYDAY_EDITS: dict[str, Edit] = {
    "jpeg 60": lambda image, background, rng: reencode(image, "jpeg", 60),
    "jpeg 25": lambda image, background, rng: reencode(image, "jpeg", 25),
    "webp 50": lambda image, background, rng: reencode(image, "webp", 50),
    "half size": lambda image, background, rng: rescale(image, 0.5),
    "thumbnail 160": lambda image, background, rng: ImageOps.contain(image, (160, 160)),
    "enlarged": lambda image, background, rng: rescale(image, 1.7),
    "crop 90 %": lambda image, background, rng: crop_randomly(image, 0.9, rng),
    "crop 80 %": lambda image, background, rng: crop_randomly(image, 0.8, rng),
    "brighter": lambda image, background, rng: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image, background, rng: ImageEnhance.Brightness(image).enhance(0.7),
    "contrast": lambda image, background, rng: ImageEnhance.Contrast(image).enhance(1.5),
    "saturation": lambda image, background, rng: ImageEnhance.Color(image).enhance(1.7),
    "gray": lambda image, background, rng: ImageOps.grayscale(image).convert("RGB"),
    "sharpened": lambda image, background, rng: ImageEnhance.Sharpness(image).enhance(3),
    "soft": lambda image, background, rng: image.filter(ImageFilter.GaussianBlur(1.2)),
    "border": lambda image, background, rng: ImageOps.expand(
        image, max(4, image.width // 25), "white"
    ),
    "caption": lambda image, background, rng: add_caption(image, rng),
    "watermark": lambda image, background, rng: add_watermark(image, rng),
    "mirror": lambda image, background, rng: ImageOps.mirror(image),
    "flip": lambda image, background, rng: ImageOps.flip(image),
    "turn 90": lambda image, background, rng: image.transpose(Image.Transpose.ROTATE_90),
    "turn 180": lambda image, background, rng: image.transpose(Image.Transpose.ROTATE_180),
    "turn 270": lambda image, background, rng: image.transpose(Image.Transpose.ROTATE_270),
    "transpose": lambda image, background, rng: image.transpose(Image.Transpose.TRANSPOSE),
    "transverse": lambda image, background, rng: image.transpose(Image.Transpose.TRANSVERSE),
}

HARD_EDITS: dict[str, Edit] = {
    "crop 60 %": lambda image, background, rng: crop_randomly(image, 0.6, rng),
    "crop 40 %": lambda image, background, rng: crop_randomly(image, 0.4, rng),
    "rotated 10": lambda image, background, rng: image.rotate(
        10, Image.Resampling.BICUBIC, expand=True
    ),
    "rotated 30": lambda image, background, rng: image.rotate(
        30, Image.Resampling.BICUBIC, expand=True
    ),
    "perspective": lambda image, background, rng: warp_perspective(image, rng),
    "blur": lambda image, background, rng: image.filter(ImageFilter.GaussianBlur(4)),
    "noise": lambda image, background, rng: add_noise(image, rng),
    "posterised": lambda image, background, rng: ImageOps.posterize(image, 2),
    "equalised": lambda image, background, rng: ImageOps.equalize(image),
    "stripe": lambda image, background, rng: add_stripe(image, rng),
    "stickers": lambda image, background, rng: add_stickers(image, rng),
    "meme": lambda image, background, rng: make_meme(image, rng),
    "collage": lambda image, background, rng: make_collage(image, background, rng),
    "laid over another": paste_on,
    "screenshot": lambda image, background, rng: make_screenshot(image),
}

EDITS = EVERYDAY_EDITS | HARD_EDITS
