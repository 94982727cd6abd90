"""What is to be known of a picture to verify it: its grey pixels, a few of its colours, and what stands out in it, to be found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.thumbnails import shown

MOST = 400  # keypoints of a picture, the strongest
DETECTED = 224  # pixels of the longer side that keypoints are looked for at: a third of the work of 448, and as many copies are found
PLENTY = 100  # keypoints; where there are fewer, they are looked for at full size too, and are more exact
SMALL = 32  # pixels of a side of a whole picture, for those that have no keypoints
COLOURS = 48  # pixels of a side of what colours are compared by
CONTRAST = 0.01  # a quarter of OpenCV's own: soft pictures have few that are stronger

# A descriptor is 4 x 4 cells of 8 directions, laid out along the keypoint's own. In a mirror the cells of one axis trade places, and
# directions turn the other way; so a picture need not be looked at twice to be recognised in its mirror.
_CELLS = np.arange(128).reshape(4, 4, 8)
MIRRORED = _CELLS[::-1, :, -np.arange(8) % 8].ravel()

# Lines on an even ground: of 24 pages, forms and drawings all such cells, of 1,400 photos and copies at most .86.
CELL, THIN, EVEN, LINES = 24, 9, 6.0, 0.9  # pixels of a cell's side, and of a line; grey levels, as a standard deviation; share of cells

FORM = b"\x01"  # what features begin with: a change in what they are needs a new one
_FINE = 64, 32, 256 / 360  # steps in which places and sizes, in pixels, and angles, in degrees, are kept
# A descriptor's numbers are whole, from 0 to 255; four bits of each one's root tell as much as is used of them.
_KEPT = np.dtype([("place", "<u2", 2), ("size", "<u2"), ("angle", "u1"), ("look", "u1", 64)])


@dataclass(frozen=True, slots=True)
class Keypoints:
    """n keypoints: `places` (n, 2) float32, in pixels (x, y) of a picture; `sizes` (n,) in pixels; `angles` (n,) in degrees, clockwise;
    `looks` (n, 128) float32, each of length 1. Strongest first.
    """

    places: NDArray[np.float32]
    sizes: NDArray[np.float32]
    angles: NDArray[np.float32]
    looks: NDArray[np.float32]


class Sketch:
    """A picture as it is verified; each part is worked out when it is first asked for. Strangers are told apart by features alone.

    `size`: the width and height that it has in full.
    """

    def __init__(self, view: Callable[[], NDArray[np.uint8]], features: bytes, size: tuple[int, int]) -> None:
        """`view` gives the picture, rgb (height, width, 3), at most 448 pixels a side; `features` are those of features()."""
        self._view, self._features, self.size = view, features, size

    def __le__(self, other: Sketch) -> bool:
        """Some order of pictures, for which strangers need not be unpacked: it is by features, and by pixels only where those are equal."""
        if (self._features, self.size) != (other._features, other.size):
            return (self._features, self.size) < (other._features, other.size)
        return (self.rgb.shape, self.rgb.tobytes()) <= (other.rgb.shape, other.rgb.tobytes())

    @cached_property
    def small(self) -> NDArray[np.uint8]:
        """All of it, grey (32, 32)."""
        return np.frombuffer(self._features, np.uint8, SMALL**2, len(FORM)).reshape(SMALL, SMALL)

    @cached_property
    def keypoints(self) -> Keypoints:
        """What stands out in it."""
        kept = np.frombuffer(self._features, _KEPT, offset=len(FORM) + SMALL**2)
        looks = np.stack([kept["look"] >> 4, kept["look"] & 15], axis=2).reshape(-1, 128).astype(np.float32)
        looks /= np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1.0)
        parts = zip(("place", "size", "angle"), _FINE, strict=True)
        places, sizes, angles = (kept[name].astype(np.float32) / np.float32(fine) for name, fine in parts)
        return Keypoints(places, sizes, angles, looks)

    @cached_property
    def rgb(self) -> NDArray[np.uint8]:
        """Its pixels (height, width, 3)."""
        return self._view()

    @cached_property
    def grey(self) -> NDArray[np.uint8]:
        """Its pixels in grey (height, width)."""
        return grey(self.rgb)

    @cached_property
    def colours(self) -> NDArray[np.uint8]:
        """All of it, rgb (48, 48, 3)."""
        return np.asarray(cv2.resize(self.rgb, (COLOURS, COLOURS), interpolation=cv2.INTER_AREA), np.uint8)

    @cached_property
    def is_lines(self) -> bool:
        """Whether it is lines on an even ground: text, a form, a drawing."""
        return is_lines(self.grey)

    @cached_property
    def noise(self) -> float:
        """The standard deviation of its noise, in grey levels."""
        return noise(self.grey)


def sketch(rgb: NDArray[np.uint8], size: tuple[int, int]) -> Sketch:
    """Of a picture (height, width, 3) as SIGHT shows it, whose width and height in full are `size`."""
    return Sketch(lambda: rgb, features(rgb), size)


def drawn(picture: bytes, features: bytes, size: tuple[int, int]) -> Sketch:
    """Of a thumb and its features."""
    return Sketch(lambda: shown(picture), features, size)


def grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (height, width, 3) in grey (height, width)."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def noise(grey: NDArray[np.uint8]) -> float:
    """The standard deviation of a picture's noise: of what neither planes nor edges have (Immerkaer 1996, equation 6)."""
    rough = cv2.filter2D(grey, cv2.CV_32F, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32))
    return float(np.sqrt(np.pi / 2) / 6 * cv2.mean(np.abs(rough))[0])


def is_lines(grey: NDArray[np.uint8]) -> bool:
    """Whether nearly all cells of a picture (height, width) that show something are even once thin lines, dark or bright, are away."""
    rows, columns = (side // CELL for side in grey.shape)
    if not rows or not columns:
        return False

    def spread(some: NDArray[np.uint8]) -> NDArray[np.float32]:
        cells = some[: rows * CELL, : columns * CELL].astype(np.float32).reshape(rows, CELL, columns, CELL)
        return np.asarray(cells.std(axis=(1, 3)), np.float32)

    before = spread(grey)
    shows, even = before > EVEN, np.maximum(EVEN, before / 4)
    around = np.ones((THIN, THIN), np.uint8)
    after = [spread(np.asarray(cv2.morphologyEx(grey, way, around), np.uint8)) for way in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN)]
    return bool(shows.any()) and max(float((rest <= even)[shows].mean()) for rest in after) >= LINES


def features(rgb: NDArray[np.uint8]) -> bytes:
    """What tells a picture (height, width, 3) from strangers, as it is kept, in at most 30 kB: all of it, small, and its strongest
    keypoints: SIFT (Lowe 2004), root-normalised (Arandjelović and Zisserman 2012).
    """
    whole = grey(rgb)
    share = min(1.0, DETECTED / max(whole.shape))
    width, height = (max(1, round(share * side)) for side in whole.shape[::-1])
    found, looks = _sift().detectAndCompute(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), None)
    if len(found) < PLENTY and share < 1.0:
        share, width, height = 1.0, whole.shape[1], whole.shape[0]
        found, looks = _sift().detectAndCompute(whole, None)
    strong = sorted(range(len(found)), key=lambda number: -found[number].response)[:MOST]
    kept = np.zeros(len(strong), _KEPT)
    if strong:
        grown = np.array([whole.shape[1] / width, whole.shape[0] / height])
        told = np.array([(*found[number].pt, found[number].size, found[number].angle) for number in strong])
        kept["place"] = (((told[:, :2] + 0.5) * grown - 0.5) * _FINE[0]).round().clip(0, 65535)
        kept["size"] = (told[:, 2] / share * _FINE[1]).round().clip(1, 65535)
        kept["angle"] = (told[:, 3] * _FINE[2]).round().astype(np.int64) % 256
        roots = np.sqrt(looks[strong]).round().clip(0, 15).astype(np.uint8)
        kept["look"] = roots[:, ::2] << 4 | roots[:, 1::2]
    small = np.asarray(cv2.resize(whole, (SMALL, SMALL), interpolation=cv2.INTER_AREA), np.uint8)
    return FORM + small.tobytes() + kept.tobytes()


def are_features(kept: bytes) -> bool:
    """Whether these are features as this version makes them."""
    rest = len(kept) - len(FORM) - SMALL**2
    return kept.startswith(FORM) and 0 <= rest <= MOST * _KEPT.itemsize and rest % _KEPT.itemsize == 0


@cache
def _sift() -> Any:  # noqa: ANN401 - OpenCV has no types for it
    return cv2.SIFT_create(MOST, contrastThreshold=CONTRAST)
