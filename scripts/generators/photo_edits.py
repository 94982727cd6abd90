"""Edits of photographers: frames, tones, dates, blurred and removed backgrounds, dust, red eyes."""

from __future__ import annotations

import io
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators import canvas
from scripts.generators.canvas import Color, Pen
from scripts.generators.fonts import pick_lettering
from scripts.generators.segments import draw_digits

PAPER: tuple[Color, ...] = ((255, 255, 255), (250, 248, 240), (0, 0, 0), (30, 30, 30))


def make_noise(size: tuple[int, int], rng: random.Random, deviation: float) -> NDArray[np.float32]:
    """Make gray Gaussian noise, float32 (height, width, 1)."""
    generator = np.random.default_rng(rng.getrandbits(64))
    return generator.normal(0, deviation, (size[1], size[0], 1)).astype(np.float32)


def add_grain(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Add the grain of a film, a standard deviation of 4 to 16 gray levels."""
    pixels = np.asarray(image, np.float32) + make_noise(image.size, rng, rng.uniform(4, 16))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def add_border(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put one or two borders around the photo."""
    side = min(image.size)
    edited = image
    for _ in range(rng.randint(1, 2)):
        color = rng.choice([*PAPER, canvas.pick_color(rng)])
        edited = ImageOps.expand(edited, max(1, round(side * rng.uniform(0.005, 0.08))), color)
    return edited


def add_vignette(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Darken or whiten the corners."""
    x, y = np.meshgrid(np.linspace(-1, 1, image.width), np.linspace(-1, 1, image.height))
    strength = rng.uniform(0.25, 0.7) * np.clip((x**2 + y**2) / 2, 0, 1)[..., None]
    corner = rng.choice([0, 0, 0, 255])
    pixels = np.asarray(image, np.float32) * (1 - strength) + corner * strength
    return Image.fromarray(pixels.astype(np.uint8))


def add_film_date(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Expose an orange date with a glow onto the photo, as film cameras did."""
    date = f"'{rng.randint(84, 99)} {rng.randint(1, 12):2} {rng.randint(1, 28):2}"
    height = max(8, image.height * rng.uniform(0.035, 0.07))
    glow = Image.new("RGB", image.size)
    corner = image.width - 0.62 * height * len(date) - 1.5 * height, image.height - 2.2 * height
    draw_digits(ImageDraw.Draw(glow), date, corner, height, (255, 120, 20))
    glow = glow.filter(ImageFilter.GaussianBlur(height * 0.06))
    pixels = np.asarray(image, np.uint16) + np.asarray(glow, np.uint16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def frame_as_polaroid(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put the photo on instant-film paper with a wide lower margin, often with a few words."""
    rim = round(min(image.size) * rng.uniform(0.05, 0.09))
    lower = round(rim * rng.uniform(3, 4.5))
    paper = rng.choice([(250, 250, 246), (240, 236, 224)])
    frame = Image.new("RGB", (image.width + 2 * rim, image.height + rim + lower), paper)
    frame.paste(image, (rim, rim))
    if rng.random() < 0.6:
        lettering = pick_lettering(rng)
        text = lettering.write(rng, 1, 4)
        font = lettering.fit(text, image.width * 0.8, lower * 0.5)
        middle = frame.width / 2, frame.height - lower / 2
        ImageDraw.Draw(frame).text(middle, text, (40, 40, 60), font, "mm")
    if rng.random() < 0.4:
        ground = canvas.pick_color(rng)
        angle = rng.uniform(-8, 8)
        frame = frame.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=ground)
    return frame


def apply_filter(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Apply the filter of an app: curves per channel, faded blacks, saturation, contrast."""
    image = ImageEnhance.Color(image).enhance(rng.choice([0, rng.uniform(0.3, 1.8)]))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.7, 1.4))
    fade, table = rng.uniform(0, 50), []
    for _ in range(3):
        gamma, top = rng.uniform(0.7, 1.4), rng.uniform(215, 255)
        table += [round(fade + (top - fade) * (level / 255) ** gamma) for level in range(256)]
    return image.point(table)


def apply_duotone(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Map black to one dark color and white to one light color."""
    dark = tuple(rng.randrange(0, 90) for _ in range(3))
    light = tuple(rng.randrange(170, 256) for _ in range(3))
    return ImageOps.colorize(ImageOps.grayscale(image), dark, light)


def sharpen_locally(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Raise local contrast with a wide unsharp mask, as HDR looks do."""
    radius = min(image.size) * rng.uniform(0.01, 0.05)
    return image.filter(ImageFilter.UnsharpMask(radius, rng.randint(60, 160), 0))


def draw_subject(image: Image.Image, rng: random.Random, softness: float) -> Image.Image:
    """Draw the mask of a subject: most of the photo, .86 to .99 of each side, with a soft edge."""
    width = round(image.width * rng.uniform(0.86, 0.99))
    height = round(image.height * rng.uniform(0.86, 0.99))
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    mask = Image.new("L", image.size)
    mask.paste(canvas.draw_blob((width, height), rng, min_radius=0.85), (left, top))
    return mask.filter(ImageFilter.GaussianBlur(softness * min(image.size)))


def blur_background(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Blur all but the subject, as the portrait mode of a phone does."""
    mask = draw_subject(image, rng, rng.uniform(0.005, 0.04))
    radius = min(image.size) * rng.uniform(0.012, 0.05)
    return Image.composite(image, image.filter(ImageFilter.GaussianBlur(radius)), mask)


def cut_background(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Replace all but the subject by one color; white, as cut-outs for shops have, most often."""
    color = rng.choice([(255, 255, 255)] * 3 + [(0, 0, 0), (235, 235, 235), canvas.pick_color(rng)])
    mask = draw_subject(image, rng, rng.choice([0.002, 0.01]))
    return Image.composite(image, Image.new("RGB", image.size, color), mask)


def swap_background(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Put the subject before another photo."""
    mask = draw_subject(image, rng, rng.choice([0.003, 0.015]))
    return Image.composite(image, ImageOps.fit(other, image.size), mask)


def tilt_shift(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Blur the photo above and below a band of .45 to .65 of its height."""
    band, center = rng.uniform(0.45, 0.65), rng.uniform(0.4, 0.6)
    rows = np.abs(np.linspace(0, 1, image.height) - center)
    sharpness = np.clip((band / 2 + 0.1 - rows) / 0.1, 0, 1) * 255
    mask = Image.fromarray(np.repeat(sharpness[:, None], image.width, 1).astype(np.uint8))
    blurred = image.filter(ImageFilter.GaussianBlur(min(image.size) * rng.uniform(0.01, 0.03)))
    return Image.composite(image, blurred, mask)


def add_dust(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Add the dust, hairs and scratches of a scanned print, and yellow it a little."""
    color = rng.choice([(250, 248, 240), (250, 248, 240), (20, 18, 15)])
    size = min(image.size)

    def draw(pen: Pen, unit: int) -> None:
        width, height = image.width * unit, image.height * unit
        for _ in range(rng.randint(20, 120)):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            reach = unit * size * abs(rng.gauss(0, 0.003))
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color)
        for _ in range(rng.randint(1, 8)):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            line = [(x, y)]
            for _ in range(rng.randint(1, 5)):
                x, y = x + rng.gauss(0, 0.04) * width, y + rng.gauss(0, 0.15) * height
                line.append((x, y))
            pen.line(line, fill=color, width=max(1, round(unit * size * 0.002)))

    scratched = canvas.draw_over(image, draw, opacity=rng.uniform(0.6, 1))
    return Image.blend(
        scratched, Image.new("RGB", image.size, (225, 190, 120)), rng.uniform(0, 0.2)
    )


def add_red_eyes(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Color two small discs side by side, as flashes do with eyes."""
    size = min(image.size)
    reach, gap = size * rng.uniform(0.01, 0.025), size * rng.uniform(0.08, 0.2)
    x = rng.uniform(gap, image.width - gap)
    y = rng.uniform(0.2, 0.6) * image.height
    color = rng.choice([(210, 30, 30), (235, 60, 50), (15, 15, 20)])

    def draw(pen: Pen, unit: int) -> None:
        for left in (x - gap / 2, x + gap / 2):
            box = [unit * value for value in (left - reach, y - reach, left + reach, y + reach)]
            pen.ellipse(box, fill=color)

    return canvas.draw_over(image, draw, opacity=0.9)


def leak_light(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Let an orange or red light leak in from one edge."""
    distance = np.linspace(0, 1, image.width)
    if rng.random() < 0.5:
        distance = distance[::-1]
    reach = np.clip(1 - distance / rng.uniform(0.2, 0.5), 0, 1)[None, :, None]
    light = reach * np.array(rng.choice([(255, 120, 30), (255, 60, 60), (255, 200, 120)]))
    pixels = np.asarray(image, np.float32) + light * rng.uniform(0.4, 1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def compress_strongly(image: Image.Image, other: Image.Image, rng: random.Random) -> Image.Image:
    """Encode the photo as a JPEG of quality 5 to 25, as old phones and mail programs did."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(5, 25))
    return Image.open(buffer).convert("RGB")


EDITS: dict[str, Edit] = {
    "strong compression": compress_strongly,
    "border": add_border,
    "vignette": add_vignette,
    "film date": add_film_date,
    "polaroid": frame_as_polaroid,
    "filter": apply_filter,
    "duotone": apply_duotone,
    "local contrast": sharpen_locally,
    "grain": add_grain,
    "background blurred": blur_background,
    "background removed": cut_background,
    "background replaced": swap_background,
    "tilt shift": tilt_shift,
    "dust and scratches": add_dust,
    "red eyes": add_red_eyes,
    "light leak": leak_light,
}
