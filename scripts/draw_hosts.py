"""Draw hosts: images that show photos, as apps, browsers, scanners and people make them.

Each kind of host takes a list of photos and a seeded random generator; it shows the first photo,
and others where it has room, and returns the image with the box of each photo.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from pipeline.regions import Box

Host = tuple[Image.Image, list[Box]]
DrawHost = Callable[[Sequence[Image.Image], random.Random], Host]

WORDS = "a line of plain words that says nothing about the photo above or beside it".split()
MAX_TILT_DEGREES = 0.7  # of a photo on a scanner


def write_lines(
    host: Image.Image, box: tuple[int, int, int, int], size: int, color: str, rng: random.Random
) -> None:
    """Write lines of random words into a box in pixels, `size` pixels high."""
    draw, (left, top, right, bottom) = ImageDraw.Draw(host), box
    word_count = max(1, (right - left) // (3 * size))
    for y in range(top, bottom - size, round(1.4 * size)):
        words = " ".join(rng.choice(WORDS) for _ in range(word_count))
        draw.text((left, y), words, fill=color, font_size=size)


def paste(host: Image.Image, photo: Image.Image, left: int, top: int) -> Box:
    """Paste a photo and return its normalized box."""
    host.paste(photo, (left, top))
    width, height = host.size
    return left / width, top / height, (left + photo.width) / width, (top + photo.height) / height


def draw_page(photos: Sequence[Image.Image], rng: random.Random) -> Host:
    """Draw a page in a browser, with a photo on 8 to 30 % of it."""
    color, ink = rng.choice([("white", "#222222"), ("#f0f2f5", "#222222"), ("#1e1e1e", "#dddddd")])
    host = Image.new("RGB", (1280, 800), color)
    ImageDraw.Draw(host).rectangle((0, 0, 1280, 70), fill=rng.choice(["#3b5998", "#dee1e6"]))
    write_lines(host, (20, 100, 200, 780), 16, ink, rng)
    write_lines(host, (240, 90, 1240, 790), 18, ink, rng)
    area = rng.uniform(0.08, 0.3) * host.width * host.height
    side = round((area * photos[0].width / photos[0].height) ** 0.5)
    photo = ImageOps.contain(photos[0], (min(side, 900), 640))
    left, top = rng.randint(240, 1260 - photo.width), rng.randint(90, 780 - photo.height)
    frame = (left - 16, top - 16, left + photo.width + 16, top + photo.height + 16)
    ImageDraw.Draw(host).rectangle(frame, fill=color)
    return host, [paste(host, photo, left, top)]


def draw_chat(photos: Sequence[Image.Image], rng: random.Random) -> Host:
    """Draw a chat on a phone, a photo in one of its bubbles."""
    host = Image.new("RGB", (540, 1170), rng.choice(["#e5ddd5", "#0b141a", "white"]))
    draw, boxes, top = ImageDraw.Draw(host), list[Box](), 120
    draw.rectangle((0, 0, 540, 90), fill=rng.choice(["#075e54", "#202c33"]))
    place = rng.randrange(4)
    for number in range(8):
        color = rng.choice(["#dcf8c6", "#005c4b", "#ffffff", "#0084ff"])
        photo = ImageOps.contain(photos[0], (rng.randint(250, 400), 420))
        width, height = photo.size if number == place else (rng.randint(120, 380), 44)
        left, margin = rng.choice([20, 520 - width]), rng.choice([4, 8])
        bubble = (left - margin, top - margin, left + width + margin, top + height + margin)
        draw.rounded_rectangle(bubble, 14, fill=color)
        if number == place:
            boxes.append(paste(host, photo, left, top))
        else:
            write_lines(host, (left + 10, top + 10, left + width, top + 34), 18, "#888888", rng)
        top += height + 30
    return host, boxes


def draw_post(photos: Sequence[Image.Image], rng: random.Random) -> Host:
    """Draw a post on a phone, its photo as wide as the screen."""
    color, ink = rng.choice([("#121212", "white"), ("white", "#222222")])
    host = Image.new("RGB", (540, 1080), color)
    ImageDraw.Draw(host).ellipse((16, 64, 56, 104), fill=(120, 120, 200))
    write_lines(host, (70, 70, 300, 100), 24, ink, rng)
    photo = ImageOps.contain(photos[0], (540 - 2 * rng.choice([0, 10]), 700))
    write_lines(host, (20, 150 + photo.height, 500, 1000), 20, ink, rng)
    return host, [paste(host, photo, (540 - photo.width) // 2, 120)]


def draw_album(photos: Sequence[Image.Image], rng: random.Random) -> Host:
    """Draw an album: square photos with gaps of 1 to 8 pixels."""
    host = Image.new("RGB", (540, 1080), rng.choice(["white", "#121212"]))
    write_lines(host, (20, 30, 300, 70), 30, "#888888", rng)
    columns, gap = rng.choice([2, 3]), rng.choice([1, 2, 4, 8])
    side = (540 - gap * (columns - 1)) // columns
    places = [(column, row) for row in range(900 // side) for column in range(columns)]
    chosen = [photos[0], *(rng.choice(photos) for _ in places[1:])]
    return host, [
        paste(host, ImageOps.fit(photo, (side, side)), x * (side + gap), 100 + y * (side + gap))
        for photo, (x, y) in zip(chosen, places, strict=True)
    ]


def draw_story(photos: Sequence[Image.Image], rng: random.Random, *, is_blurred: bool) -> Host:
    """Draw a story: a photo on a gradient, or on itself, blurred."""
    size = (540, 960)
    if is_blurred:
        host = ImageOps.fit(photos[0], size).filter(ImageFilter.GaussianBlur(rng.choice([8, 20])))
    else:
        first, second = (
            Image.new("RGB", size, (rng.randrange(256), rng.randrange(256), rng.randrange(256)))
            for _ in range(2)
        )
        host = Image.composite(first, second, Image.linear_gradient("L").resize(size))
        write_lines(host, (60, 40, 400, 90), 30, "white", rng)
    photo = ImageOps.contain(photos[0], (rng.choice([430, 480, 540]), 800))
    return host, [paste(host, photo, (540 - photo.width) // 2, (960 - photo.height) // 2)]


def draw_polaroid(photos: Sequence[Image.Image], rng: random.Random) -> Host:
    """Draw a square photo on white paper, with a line below it."""
    host = Image.new("RGB", (500, 620), rng.choice(["#fdfdfa", "#f4f0e6", "white"]))
    write_lines(host, (80, 520, 400, 570), 40, "#333333", rng)
    return host, [paste(host, ImageOps.fit(photos[0], (420, 420)), 40, 40)]


def draw_scan(photos: Sequence[Image.Image], rng: random.Random) -> Host:
    """Draw a scan of a photo on paper, tilted by up to 0.7 degrees, with noise."""
    host = Image.new("RGB", (800, 1100), rng.choice(["#f2f0ea", "#fbfbfb", "#dcdad2"]))
    photo = ImageOps.contain(photos[0], (rng.randint(320, 600), 800))
    box = paste(host, photo, rng.randint(40, 160), rng.randint(60, 160))
    angle = rng.uniform(-MAX_TILT_DEGREES, MAX_TILT_DEGREES)
    host = host.rotate(angle, Image.Resampling.BICUBIC, fillcolor=host.getpixel((1, 1)))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 2, (1100, 800, 3))
    return Image.fromarray((np.asarray(host) + noise).clip(0, 255).astype(np.uint8)), [box]


def draw_collage(
    photos: Sequence[Image.Image], rng: random.Random, *, count: int, gap: int
) -> Host:
    """Draw a collage of two to four photos with gaps of `gap` pixels."""
    size = rng.choice([(800, 800), (900, 600), (640, 480)])
    host, half = Image.new("RGB", size, rng.choice(["white", "black"])), gap // 2
    lefts = [0.0, 0.5] if count > 2 else [0.0, 0.5][: 1 + rng.randrange(2)]
    cells = {
        2: [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
        if len(lefts) == 2
        else [(0, 0, 1, 0.5), (0, 0.5, 1, 1)],
        3: [(0, 0, 0.6, 1), (0.6, 0, 1, 0.5), (0.6, 0.5, 1, 1)],
        4: [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)],
    }[count]
    boxes = []
    chosen = [photos[0], *rng.sample(list(photos[1:]), count - 1)]
    for photo, (left, top, right, bottom) in zip(chosen, cells, strict=True):
        x, y = round(left * size[0]) + half * (left > 0), round(top * size[1]) + half * (top > 0)
        end_x = round(right * size[0]) - (gap - half) * (right < 1)
        end_y = round(bottom * size[1]) - (gap - half) * (bottom < 1)
        boxes.append(paste(host, ImageOps.fit(photo, (end_x - x, end_y - y)), x, y))
    return host, boxes


def draw_photo_on_photo(photos: Sequence[Image.Image], rng: random.Random) -> Host:
    """Draw a photo at a random place of another one."""
    host = ImageOps.fit(photos[1], (800, 600))
    photo = ImageOps.contain(photos[0], (rng.randint(280, 520), 560))
    left, top = rng.randint(0, 800 - photo.width), rng.randint(0, 600 - photo.height)
    return host, [paste(host, photo, left, top)]


def draw_meme(photos: Sequence[Image.Image], rng: random.Random) -> Host:
    """Draw a photo between two bars with words."""
    color, ink = rng.choice([("black", "white"), ("white", "black")])
    photo, bar = photos[0], photos[0].height // rng.randint(4, 7)
    host = Image.new("RGB", (photo.width, photo.height + 2 * bar), color)
    for top in (bar // 5, photo.height + bar + bar // 5):
        write_lines(host, (20, top, photo.width - 20, top + bar), bar // 2, ink, rng)
    return host, [paste(host, photo, 0, bar)]


HOSTS: dict[str, DrawHost] = {
    "page": draw_page,
    "chat": draw_chat,
    "post": draw_post,
    "album": draw_album,
    "story on a gradient": partial(draw_story, is_blurred=False),
    "story on its blurred self": partial(draw_story, is_blurred=True),
    "polaroid": draw_polaroid,
    "scan": draw_scan,
    "meme": draw_meme,
    "photo on another": draw_photo_on_photo,
    "collage of 2, no gap": partial(draw_collage, count=2, gap=0),
    "collage of 3, gap 2 px": partial(draw_collage, count=3, gap=2),
    "collage of 4, gap 8 px": partial(draw_collage, count=4, gap=8),
}
