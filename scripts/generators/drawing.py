"""Draw layouts with Pillow: works everywhere, and is a source of its own beside the browser."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from scripts.generators.canvas import Color, Pen
from scripts.generators.fonts import MIN_SIZE_PX, Font, list_fonts, load_font
from scripts.generators.graphic import draw_code
from scripts.generators.layout import Code, Layout, Panel, Photo, Place, Text

LINE_HEIGHT = 1.3
REGULAR_FONTS = ("NotoSans-Regular", "DejaVuSans", "NimbusSans-Regular")
BOLD_FONTS = ("NotoSans-Bold", "DejaVuSans-Bold", "NimbusSans-Bold")

# King, queen, rook, bishop, knight and pawn, outlined and filled; few fonts have them.
CHESS_PIECES = tuple("\u2654\u2655\u2656\u2657\u2658\u2659\u265a\u265b\u265c\u265d\u265e\u265f")
CHESS_FONTS = ("DejaVuSans",)


def pick_font(text: Text) -> Font:
    """Pick the font of a text: that of its script, or one for the words of apps."""
    size = max(MIN_SIZE_PX, round(text.size))
    if text.lettering:
        return load_font(text.lettering.path, size)
    names: tuple[str, ...] = BOLD_FONTS if text.bold else REGULAR_FONTS
    if text.text in CHESS_PIECES:
        names = CHESS_FONTS
    fonts = list_fonts()
    return load_font(next((fonts[name] for name in names if name in fonts), None), size)


def wrap(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Break a text into lines of at most `width` pixels, at spaces; a long word is cut."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if measure(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            line = word
            while measure(line) > width and len(line) > 1:
                cut = max(1, int(len(line) * width / measure(line)))
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line)
    return lines


def draw_text(pen: Pen, text: Text) -> None:
    """Draw the lines of a text that fit into its place; the first always."""
    left, top, width, height = text.place
    font = pick_font(text)
    step = text.size * LINE_HEIGHT
    x = left + {"left": 0.0, "center": width / 2, "right": width}[text.align]
    anchor = {"left": "l", "center": "m", "right": "r"}[text.align] + "m"
    lines = wrap(text.text, width, font.getlength)
    for number, line in enumerate(lines[: max(1, int(height / step + 0.5))]):
        pen.text((x, top + step * (number + 0.5)), line, text.color, font, anchor)


def get_box(place: Place) -> tuple[int, int, int, int]:
    """Round a place to the box of whole pixels, at least one a side."""
    left, top = round(place[0]), round(place[1])
    right, bottom = round(place[0] + place[2]), round(place[1] + place[3])
    return left, top, max(left + 1, right), max(top + 1, bottom)


def make_gradient(size: tuple[int, int], upper: Color, lower: Color) -> Image.Image:
    """Make a gradient from top to bottom."""
    ramp = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, lower), Image.new("RGB", size, upper), ramp)


def draw_shape(size: tuple[int, int], radius: float) -> Image.Image:
    """Draw the mask of a rectangle with round corners, antialiased."""
    mask = Image.new("L", (2 * size[0], 2 * size[1]))
    box = (0, 0, mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, 2 * radius, fill=255)
    return mask.reduce(2)


def draw_panel(page: Image.Image, panel: Panel) -> None:
    """Draw a panel."""
    box = get_box(panel.place)
    size = (box[2] - box[0], box[3] - box[1])
    fill = make_gradient(size, panel.color, panel.lower_color or panel.color)
    page.paste(fill, box[:2], draw_shape(size, panel.radius))
    if panel.outline:
        edge = (box[0], box[1], box[2] - 1, box[3] - 1)
        ImageDraw.Draw(page).rounded_rectangle(edge, panel.radius, outline=panel.outline, width=2)


def fit_photo(image: Image.Image, photo: Photo, size: tuple[int, int]) -> Image.Image:
    """Scale, crop and blur a photo as an element shows it."""
    if photo.fit == "contain":
        return ImageOps.contain(image, size, Image.Resampling.BILINEAR)
    fitted = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return fitted.filter(ImageFilter.GaussianBlur(photo.blur)) if photo.blur else fitted


def draw_photo(page: Image.Image, photo: Photo, image: Image.Image) -> None:
    """Draw a photo into its place, in the middle if it does not cover it."""
    box = get_box(photo.place)
    size = (box[2] - box[0], box[3] - box[1])
    fitted = fit_photo(image, photo, size)
    left = box[0] + (size[0] - fitted.width) // 2
    top = box[1] + (size[1] - fitted.height) // 2
    page.paste(fitted, (left, top), draw_shape(fitted.size, photo.radius))


def make_code(code: Code) -> Image.Image:
    """Draw a square code with its quiet zone, at two pixels a module or more."""
    side = max(62, round(code.place[2]))
    image = Image.new("RGB", (side, side), "white")
    margin = side // 12
    draw_code(
        ImageDraw.Draw(image),
        (margin, margin, side - margin, side - margin),
        random.Random(code.seed),
    )
    return image


def draw_layout(layout: Layout, photos: Sequence[Image.Image]) -> Image.Image:
    """Draw a layout with its photos; an RGB image."""
    page = Image.new("RGB", layout.size, layout.ground)
    pen = ImageDraw.Draw(page)
    for element in layout.elements:
        match element:
            case Panel():
                draw_panel(page, element)
            case Text():
                draw_text(pen, element)
            case Photo():
                draw_photo(page, element, photos[element.number])
            case Code():
                box = get_box(element.place)
                page.paste(make_code(element).resize((box[2] - box[0], box[3] - box[1])), box[:2])
    return page
