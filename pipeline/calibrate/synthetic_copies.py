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
FORMATS = {"jpeg": "JPEG", "webp": "WEBP"}


def recoded(picture: Image.Image, kind: str, quality: int) -> Image.Image:
    """The picture after one trip through a lossy format, "jpeg" or "webp"."""
    buffer = io.BytesIO()
    picture.save(buffer, FORMATS[kind], quality=quality)
    return Image.open(buffer).convert("RGB")


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    """The picture at `factor` times its width and height, at least one pixel each."""
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def cropped(picture: Image.Image, share: float, rng: random.Random) -> Image.Image:
    """A random window that keeps `share` of the width and of the height."""
    width, height = round(picture.width * share), round(picture.height * share)
    left, top = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


def captioned(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with a line of white text near its lower edge."""
    done = picture.copy()
    draw = ImageDraw.Draw(done)
    size = max(10, picture.height // 12)
    place = (picture.width * rng.uniform(0.02, 0.2), picture.height - 1.5 * size)
    draw.text(place, rng.choice(["my holiday 2019", "(c) studio north", "look at this!"]), fill="white", font_size=size)
    return done


def watermarked(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture under half-transparent diagonal text."""
    layer = Image.new("RGBA", picture.size, (255, 255, 255, 0))
    size = max(12, picture.width // 8)
    draw = ImageDraw.Draw(layer)
    for top in range(size // 2, picture.height, 3 * size):
        draw.text((rng.randint(0, size), top), "SAMPLE SAMPLE", fill=(255, 255, 255, 96), font_size=size)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def striped(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with a broad opaque stripe across it."""
    done = picture.copy()
    top = rng.uniform(0.1, 0.6) * picture.height
    ImageDraw.Draw(done).rectangle((0, top, picture.width, top + 0.25 * picture.height), fill=(200, 30, 40))
    return done


def stickered(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with five round yellow faces on it."""
    done = picture.copy()
    draw = ImageDraw.Draw(done)
    for _ in range(5):
        radius = rng.uniform(0.06, 0.12) * min(picture.size)
        x, y = rng.uniform(radius, picture.width - radius), rng.uniform(radius, picture.height - radius)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(250, 210, 60), outline="black", width=2)
        draw.arc((x - radius / 2, y - radius / 2, x + radius / 2, y + radius / 2), 20, 160, fill="black", width=3)
    return done


def leaning(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A perspective view: the corners moved in by up to a sixth of the picture."""
    width, height = picture.size
    corners = [
        (rng.uniform(0, width / 6), rng.uniform(0, height / 6)),
        (rng.uniform(0, width / 6), height - rng.uniform(0, height / 6)),
        (width - rng.uniform(0, width / 6), height - rng.uniform(0, height / 6)),
        (width - rng.uniform(0, width / 6), rng.uniform(0, height / 6)),
    ]
    flat = [number for corner in corners for number in corner]
    return picture.transform(picture.size, Image.Transform.QUAD, flat, Image.Resampling.BICUBIC)


def noisy(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with Gaussian grey noise around the middle, of 90 levels, blended in at a quarter."""
    noise = np.random.default_rng(rng.getrandbits(64)).normal(128, 90, (picture.height, picture.width))
    grain = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")
    return Image.blend(picture, grain, 0.25)


def laid_over(picture: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """The picture, smaller, on top of another picture: half of each side, anywhere."""
    done = other.resize((640, 480))
    inner = ImageOps.contain(picture, (400, 300))
    done.paste(inner, (rng.randint(0, 640 - inner.width), rng.randint(0, 480 - inner.height)))
    return done


def screenshot(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a phone's screen, with bars above and below."""
    screen = Image.new("RGB", (540, 1080), (18, 18, 18))
    draw = ImageDraw.Draw(screen)
    draw.text((20, 12), "12:30", fill="white", font_size=22)
    draw.text((70, 70), "some_account", fill="white", font_size=26)
    draw.ellipse((16, 64, 56, 104), fill=(120, 120, 200))
    inner = ImageOps.contain(picture, (540, 720))
    screen.paste(inner, (0, 130))
    for index in range(4):
        draw.rectangle((40 + 130 * index, 1000, 90 + 130 * index, 1040), outline="white", width=3)
    draw.text((20, 140 + inner.height), "Liked by someone and 24 others", fill="white", font_size=20)
    return screen


def collage(picture: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Two by two tiles: the picture in one, parts of another in the rest."""
    done = Image.new("RGB", (640, 480), "white")
    tiles = [picture, other, ImageOps.mirror(other), ImageOps.flip(other)]
    rng.shuffle(tiles)
    for index, tile in enumerate(tiles):
        done.paste(tile.resize((314, 234)), (2 + 320 * (index % 2), 2 + 240 * (index // 2)))
    return done


def meme(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture in a black frame with large words above and below."""
    width, height = picture.size
    done = Image.new("RGB", (width, round(height * 1.5)), "black")
    done.paste(picture, (0, height // 4))
    draw = ImageDraw.Draw(done)
    size = max(12, height // 7)
    draw.text((width // 10, height // 20), rng.choice(["WHEN YOU SEE IT", "ONE DOES NOT"]), fill="white", font_size=size)
    draw.text((width // 10, height * 1.3), rng.choice(["EVERY TIME", "JUST WALK AWAY"]), fill="white", font_size=size)
    return done


EVERYDAY: dict[str, Edit] = {
    "jpeg 60": lambda p, o, r: recoded(p, "jpeg", 60),
    "jpeg 25": lambda p, o, r: recoded(p, "jpeg", 25),
    "webp 50": lambda p, o, r: recoded(p, "webp", 50),
    "half size": lambda p, o, r: scaled(p, 0.5),
    "thumbnail 160": lambda p, o, r: ImageOps.contain(p, (160, 160)),
    "enlarged": lambda p, o, r: scaled(p, 1.7),
    "crop 90 %": lambda p, o, r: cropped(p, 0.9, r),
    "crop 80 %": lambda p, o, r: cropped(p, 0.8, r),
    "brighter": lambda p, o, r: ImageEnhance.Brightness(p).enhance(1.3),
    "darker": lambda p, o, r: ImageEnhance.Brightness(p).enhance(0.7),
    "contrast": lambda p, o, r: ImageEnhance.Contrast(p).enhance(1.5),
    "saturation": lambda p, o, r: ImageEnhance.Color(p).enhance(1.7),
    "grey": lambda p, o, r: ImageOps.grayscale(p).convert("RGB"),
    "sharpened": lambda p, o, r: ImageEnhance.Sharpness(p).enhance(3),
    "soft": lambda p, o, r: p.filter(ImageFilter.GaussianBlur(1.2)),
    "border": lambda p, o, r: ImageOps.expand(p, max(4, p.width // 25), "white"),
    "caption": lambda p, o, r: captioned(p, r),
    "watermark": lambda p, o, r: watermarked(p, r),
    "mirror": lambda p, o, r: ImageOps.mirror(p),
    "flip": lambda p, o, r: ImageOps.flip(p),
    "turn 90": lambda p, o, r: p.transpose(Image.Transpose.ROTATE_90),
    "turn 180": lambda p, o, r: p.transpose(Image.Transpose.ROTATE_180),
    "turn 270": lambda p, o, r: p.transpose(Image.Transpose.ROTATE_270),
    "transpose": lambda p, o, r: p.transpose(Image.Transpose.TRANSPOSE),
    "transverse": lambda p, o, r: p.transpose(Image.Transpose.TRANSVERSE),
}

HARD: dict[str, Edit] = {
    "crop 60 %": lambda p, o, r: cropped(p, 0.6, r),
    "crop 40 %": lambda p, o, r: cropped(p, 0.4, r),
    "rotated 10": lambda p, o, r: p.rotate(10, Image.Resampling.BICUBIC, expand=True),
    "rotated 30": lambda p, o, r: p.rotate(30, Image.Resampling.BICUBIC, expand=True),
    "perspective": lambda p, o, r: leaning(p, r),
    "blur": lambda p, o, r: p.filter(ImageFilter.GaussianBlur(4)),
    "noise": lambda p, o, r: noisy(p, r),
    "posterised": lambda p, o, r: ImageOps.posterize(p, 2),
    "equalised": lambda p, o, r: ImageOps.equalize(p),
    "stripe": lambda p, o, r: striped(p, r),
    "stickers": lambda p, o, r: stickered(p, r),
    "meme": lambda p, o, r: meme(p, r),
    "collage": lambda p, o, r: collage(p, o, r),
    "laid over another": laid_over,
    "screenshot": lambda p, o, r: screenshot(p),
}
