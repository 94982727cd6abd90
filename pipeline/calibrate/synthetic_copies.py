"""What people and apps do to a photo: the edits that the benchmarks and calibrations make copies with.

Each edit takes an upright RGB picture, a picture to lay it over where one is needed, and a seeded generator, and returns a new picture.
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
    """The picture after one trip through a lossy format, "jpeg" or "webp"."""
    buffer = io.BytesIO()
    image.save(buffer, PILLOW_FORMATS[codec], quality=quality)
    return Image.open(buffer).convert("RGB")


def rescale(image: Image.Image, factor: float) -> Image.Image:
    """The picture at `factor` times its width and height, at least one pixel each."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def crop_randomly(image: Image.Image, share: float, rng: random.Random) -> Image.Image:
    """A random window that keeps `share` of the width and of the height."""
    width, height = round(image.width * share), round(image.height * share)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def add_caption(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with a line of white text near its lower edge."""
    done = image.copy()
    draw = ImageDraw.Draw(done)
    size = max(10, image.height // 12)
    place = (image.width * rng.uniform(0.02, 0.2), image.height - 1.5 * size)
    draw.text(
        place,
        rng.choice(["my holiday 2019", "(c) studio north", "look at this!"]),
        fill="white",
        font_size=size,
    )
    return done


def add_watermark(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture under half-transparent diagonal text."""
    layer = Image.new("RGBA", image.size, (255, 255, 255, 0))
    size = max(12, image.width // 8)
    draw = ImageDraw.Draw(layer)
    for top in range(size // 2, image.height, 3 * size):
        draw.text(
            (rng.randint(0, size), top), "SAMPLE SAMPLE", fill=(255, 255, 255, 96), font_size=size
        )
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def add_stripe(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with a broad opaque stripe across it."""
    done = image.copy()
    top = rng.uniform(0.1, 0.6) * image.height
    ImageDraw.Draw(done).rectangle(
        (0, top, image.width, top + 0.25 * image.height), fill=(200, 30, 40)
    )
    return done


def add_stickers(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with five round yellow faces on it."""
    done = image.copy()
    draw = ImageDraw.Draw(done)
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
    return done


def warp_perspective(image: Image.Image, rng: random.Random) -> Image.Image:
    """A perspective view: the corners moved in by up to a sixth of the picture."""
    width, height = image.size
    corners = [
        (rng.uniform(0, width / 6), rng.uniform(0, height / 6)),
        (rng.uniform(0, width / 6), height - rng.uniform(0, height / 6)),
        (width - rng.uniform(0, width / 6), height - rng.uniform(0, height / 6)),
        (width - rng.uniform(0, width / 6), rng.uniform(0, height / 6)),
    ]
    flat = [number for corner in corners for number in corner]
    return image.transform(image.size, Image.Transform.QUAD, flat, Image.Resampling.BICUBIC)


def add_noise(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with Gaussian grey noise around the middle, of 90 levels, blended in at a quarter."""
    noise = np.random.default_rng(rng.getrandbits(64)).normal(128, 90, (image.height, image.width))
    grain = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")
    return Image.blend(image, grain, 0.25)


def paste_on(image: Image.Image, background: Image.Image, rng: random.Random) -> Image.Image:
    """The picture, smaller, on top of another picture: half of each side, anywhere."""
    done = background.resize((640, 480))
    inner = ImageOps.contain(image, (400, 300))
    done.paste(inner, (rng.randint(0, 640 - inner.width), rng.randint(0, 480 - inner.height)))
    return done


def make_screenshot(image: Image.Image) -> Image.Image:
    """The picture in the middle of a phone's screen, with bars above and below."""
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
    """Two by two tiles: the picture in one, parts of another in the rest."""
    done = Image.new("RGB", (640, 480), "white")
    tiles = [image, filler, ImageOps.mirror(filler), ImageOps.flip(filler)]
    rng.shuffle(tiles)
    for index, tile in enumerate(tiles):
        done.paste(tile.resize((314, 234)), (2 + 320 * (index % 2), 2 + 240 * (index // 2)))
    return done


def make_meme(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture in a black frame with large words above and below."""
    width, height = image.size
    done = Image.new("RGB", (width, round(height * 1.5)), "black")
    done.paste(image, (0, height // 4))
    draw = ImageDraw.Draw(done)
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
    return done


EVERYDAY_EDITS: dict[str, Edit] = {
    "jpeg 60": lambda p, o, r: reencode(p, "jpeg", 60),
    "jpeg 25": lambda p, o, r: reencode(p, "jpeg", 25),
    "webp 50": lambda p, o, r: reencode(p, "webp", 50),
    "half size": lambda p, o, r: rescale(p, 0.5),
    "thumbnail 160": lambda p, o, r: ImageOps.contain(p, (160, 160)),
    "enlarged": lambda p, o, r: rescale(p, 1.7),
    "crop 90 %": lambda p, o, r: crop_randomly(p, 0.9, r),
    "crop 80 %": lambda p, o, r: crop_randomly(p, 0.8, r),
    "brighter": lambda p, o, r: ImageEnhance.Brightness(p).enhance(1.3),
    "darker": lambda p, o, r: ImageEnhance.Brightness(p).enhance(0.7),
    "contrast": lambda p, o, r: ImageEnhance.Contrast(p).enhance(1.5),
    "saturation": lambda p, o, r: ImageEnhance.Color(p).enhance(1.7),
    "grey": lambda p, o, r: ImageOps.grayscale(p).convert("RGB"),
    "sharpened": lambda p, o, r: ImageEnhance.Sharpness(p).enhance(3),
    "soft": lambda p, o, r: p.filter(ImageFilter.GaussianBlur(1.2)),
    "border": lambda p, o, r: ImageOps.expand(p, max(4, p.width // 25), "white"),
    "caption": lambda p, o, r: add_caption(p, r),
    "watermark": lambda p, o, r: add_watermark(p, r),
    "mirror": lambda p, o, r: ImageOps.mirror(p),
    "flip": lambda p, o, r: ImageOps.flip(p),
    "turn 90": lambda p, o, r: p.transpose(Image.Transpose.ROTATE_90),
    "turn 180": lambda p, o, r: p.transpose(Image.Transpose.ROTATE_180),
    "turn 270": lambda p, o, r: p.transpose(Image.Transpose.ROTATE_270),
    "transpose": lambda p, o, r: p.transpose(Image.Transpose.TRANSPOSE),
    "transverse": lambda p, o, r: p.transpose(Image.Transpose.TRANSVERSE),
}

HARD_EDITS: dict[str, Edit] = {
    "crop 60 %": lambda p, o, r: crop_randomly(p, 0.6, r),
    "crop 40 %": lambda p, o, r: crop_randomly(p, 0.4, r),
    "rotated 10": lambda p, o, r: p.rotate(10, Image.Resampling.BICUBIC, expand=True),
    "rotated 30": lambda p, o, r: p.rotate(30, Image.Resampling.BICUBIC, expand=True),
    "perspective": lambda p, o, r: warp_perspective(p, r),
    "blur": lambda p, o, r: p.filter(ImageFilter.GaussianBlur(4)),
    "noise": lambda p, o, r: add_noise(p, r),
    "posterised": lambda p, o, r: ImageOps.posterize(p, 2),
    "equalised": lambda p, o, r: ImageOps.equalize(p),
    "stripe": lambda p, o, r: add_stripe(p, r),
    "stickers": lambda p, o, r: add_stickers(p, r),
    "meme": lambda p, o, r: make_meme(p, r),
    "collage": lambda p, o, r: make_collage(p, o, r),
    "laid over another": paste_on,
    "screenshot": lambda p, o, r: make_screenshot(p),
}
