"""Copies that phones and messengers make: sent on, straightened, trimmed, cut to a square."""

from __future__ import annotations

import io
import random
from math import cos, radians, sin

from PIL import Image, ImageEnhance, ImageOps

from pipeline.calibrate.synthetic_copies import Edit

# Messengers shrink photos to this long side, for a preview to less.
SENT_SIDES_PX = (1600, 1280, 960)
PREVIEW_SIDES_PX = (160, 240, 320)


def send(image: Image.Image, side: int, quality: int) -> Image.Image:
    """Shrink to a long side and encode as a messenger does: JPEG with halved chroma."""
    sent = image.copy()
    sent.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    sent.save(buffer, "JPEG", quality=quality, subsampling=2)
    return Image.open(buffer).convert("RGB")


def send_once(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Send a photo by a messenger."""
    return send(image, rng.choice(SENT_SIDES_PX), rng.randint(60, 80))


def forward(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Forward a photo two to four times by messengers with settings of their own."""
    for _ in range(rng.randint(2, 4)):
        side = min(rng.choice(SENT_SIDES_PX), round(max(image.size) * rng.uniform(0.75, 1)))
        image = send(image, side, rng.randint(45, 75))
    return image


def show_preview(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Shrink to the preview of a message."""
    return send(image, rng.choice(PREVIEW_SIDES_PX), rng.randint(40, 70))


def cut_square(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Cut the largest square, anywhere along the longer side, as for a profile."""
    side = rng.choice([320, 640, 1080])
    middle = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS, centering=middle)


def straighten(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Turn by up to 6 degrees, and crop what has no corner missing."""
    angle = rng.choice([-1, 1]) * rng.uniform(0.5, 6)
    width, height = image.size
    turn = radians(abs(angle))
    # The largest crop of equal aspect: both of its diagonals fit into the turned photo.
    scale = min(
        width / (width * cos(turn) + height * sin(turn)),
        height / (width * sin(turn) + height * cos(turn)),
    )
    across, down = round((1 - scale) * width / 2), round((1 - scale) * height / 2)
    turned = image.rotate(angle, Image.Resampling.BICUBIC)
    return turned.crop((across, down, width - across, height - down))


def enhance(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Improve a photo by one touch: contrast, color, sharpness and a little cropping."""
    image = ImageOps.autocontrast(image, cutoff=rng.uniform(0, 2))
    image = ImageEnhance.Color(image).enhance(rng.uniform(1.05, 1.5))
    image = ImageEnhance.Sharpness(image).enhance(rng.uniform(1.2, 2.5))
    trim = [rng.uniform(0, 0.06) for _ in range(4)]
    width, height = image.size
    left, top = round(width * trim[0]), round(height * trim[1])
    return image.crop((left, top, round(width * (1 - trim[2])), round(height * (1 - trim[3]))))


def trim_screenshot(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Show a photo over the width of a phone, and trim the screenshot to it by hand.

    The hand leaves a few rows of the app, or cuts off a few of the photo.
    """
    width = rng.choice([1080, 1170, 720])
    height = round(image.height * width / image.width)
    color = rng.choice([(0, 0, 0), (255, 255, 255)])
    screen = Image.new("RGB", (width, height + 200), color)
    screen.paste(image.resize((width, height), Image.Resampling.BILINEAR), (0, 100))
    upper, lower = (round(rng.uniform(-0.03, 0.03) * height) for _ in range(2))
    return screen.crop((0, max(0, 100 + upper), width, min(screen.height, 100 + height + lower)))


EDITS: dict[str, Edit] = {
    "sent": send_once,
    "forwarded": forward,
    "preview": show_preview,
    "square": cut_square,
    "straightened": straighten,
    "enhanced": enhance,
    "trimmed screenshot": trim_screenshot,
}
