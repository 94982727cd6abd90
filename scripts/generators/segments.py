"""Digits of seven segments, as cameras stamp them and displays show them."""

from __future__ import annotations

from scripts.generators.canvas import Color, Pen

# The ends of the segments a to g, in shares of the width and the height of a digit.
ENDS = (
    ((0, 0), (1, 0)),
    ((1, 0), (1, 0.5)),
    ((1, 0.5), (1, 1)),
    ((0, 1), (1, 1)),
    ((0, 0.5), (0, 1)),
    ((0, 0), (0, 0.5)),
    ((0, 0.5), (1, 0.5)),
)
SEGMENTS = {
    "0": "abcdef",
    "1": "bc",
    "2": "abdeg",
    "3": "abcdg",
    "4": "bcfg",
    "5": "acdfg",
    "6": "acdefg",
    "7": "abc",
    "8": "abcdefg",
    "9": "abcdfg",
    "-": "g",
}

# Width of a digit and distance of two, in shares of the height.
DIGIT_WIDTH = 0.42
DIGIT_STEP = 0.62


def draw_digits(
    pen: Pen, text: str, corner: tuple[float, float], height: float, color: Color
) -> None:
    """Draw digits, hyphens, dots and apostrophes from the upper left corner, in pixels."""
    width = max(1, round(height * 0.12))
    for number, letter in enumerate(text):
        left, top = corner[0] + number * DIGIT_STEP * height, corner[1]
        for segment in SEGMENTS.get(letter, ""):
            points = [
                (left + x * DIGIT_WIDTH * height, top + y * height)
                for x, y in ENDS["abcdefg".index(segment)]
            ]
            pen.line(points, fill=color, width=width)
        if letter in ".'":
            y = top + (height if letter == "." else 0)
            pen.rectangle((left, y - width, left + width, y + width), fill=color)
