"""Pages as lists of elements with places in pixels: what a browser renders, or Pillow draws.

A page is described once. Its photos are numbered: 0 is the photo of a pair, 1 another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from scripts.generators.canvas import Color
from scripts.generators.fonts import Lettering

# Left, top, width, height.
Place = tuple[float, float, float, float]


@dataclass(frozen=True)
class Panel:
    """A filled rectangle; `lower_color` makes a gradient from top to bottom."""

    place: Place
    color: Color
    radius: float = 0
    outline: Color | None = None
    lower_color: Color | None = None


@dataclass(frozen=True)
class Text:
    """A text that is wrapped at the width of its place; `size` is that of the letters."""

    place: Place
    text: str
    size: float
    color: Color
    bold: bool = False
    align: Literal["left", "center", "right"] = "left"
    lettering: Lettering | None = None


@dataclass(frozen=True)
class Photo:
    """A photo that covers its place, cropped, or is contained in it."""

    place: Place
    number: int = 0
    fit: Literal["cover", "contain"] = "cover"
    radius: float = 0
    blur: float = 0


@dataclass(frozen=True)
class Code:
    """A square code as tickets have it; the seed is what it says."""

    place: Place
    seed: int


Element = Panel | Text | Photo | Code


@dataclass(frozen=True)
class Layout:
    """A page: its size (width, height), its ground and its elements from back to front."""

    size: tuple[int, int]
    ground: Color
    elements: tuple[Element, ...]


# Renders a layout with its photos as an RGB image of the size of the layout.
Render = Callable[[Layout, Sequence[Image.Image]], Image.Image]


def move(elements: Sequence[Element], down: float) -> list[Element]:
    """Move elements down by pixels."""
    return [
        replace(element, place=(element.place[0], element.place[1] + down, *element.place[2:]))
        for element in elements
    ]


def get_bottom(elements: Sequence[Element]) -> float:
    """Get the lower edge of the lowest element."""
    return max((element.place[1] + element.place[3] for element in elements), default=0)
