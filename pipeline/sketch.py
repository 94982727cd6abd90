"""What is to be known of a picture to verify it: its grey pixels, a few of its colours, and what stands out in it, to be found again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MOST = 400  # keypoints of a picture, the strongest
SMALL = 32  # pixels of a side of a whole picture, for those that have no keypoints
COLOURS = 48  # pixels of a side of what colours are compared by
CONTRAST = 0.02  # half of OpenCV's own: soft pictures have few that are stronger

# A descriptor is 4 x 4 cells of 8 directions, laid out along the keypoint's own. In a mirror the cells of one axis trade places, and
# directions turn the other way; so a picture need not be looked at twice to be recognised in its mirror.
_CELLS = np.arange(128).reshape(4, 4, 8)
MIRRORED = _CELLS[::-1, :, -np.arange(8) % 8].ravel()


@dataclass(frozen=True, slots=True)
class Keypoints:
    """n keypoints: `places` (n, 2) float32, in pixels (x, y) of a picture; `sizes` (n,) in pixels; `angles` (n,) in degrees, clockwise;
    `looks` (n, 128) float16, each of length 1. Strongest first.
    """

    places: NDArray[np.float32]
    sizes: NDArray[np.float32]
    angles: NDArray[np.float32]
    looks: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Sketch:
    """A picture as it is verified: `grey` (height, width) uint8, at most 448 pixels a side; its keypoints; all of it as `small` (32, 32)
    and its `colours` (48, 48, 3), rgb, uint8; the standard deviation of its `noise`, in grey levels; and the width and height that it has
    in full. A quarter of a megabyte.
    """

    grey: NDArray[np.uint8]
    keypoints: Keypoints
    small: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    noise: float
    size: tuple[int, int]


def sketch(rgb: NDArray[np.uint8], size: tuple[int, int]) -> Sketch:
    """Of a picture (height, width, 3) as SIGHT shows it, whose width and height in full are `size`."""
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    colours = np.asarray(cv2.resize(rgb, (COLOURS, COLOURS), interpolation=cv2.INTER_AREA), np.uint8)
    small = np.asarray(cv2.resize(grey, (SMALL, SMALL), interpolation=cv2.INTER_AREA), np.uint8)
    return Sketch(grey, keypoints(grey), small, colours, noise(grey), size)


def noise(grey: NDArray[np.uint8]) -> float:
    """The standard deviation of a picture's noise: of what neither planes nor edges have (Immerkaer 1996, equation 6)."""
    rough = cv2.filter2D(grey, cv2.CV_32F, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32))
    return float(np.sqrt(np.pi / 2) / 6 * cv2.mean(np.abs(rough))[0])


def keypoints(grey: NDArray[np.uint8]) -> Keypoints:
    """The strongest keypoints of a picture (height, width): SIFT (Lowe 2004), root-normalised (Arandjelović and Zisserman 2012)."""
    found, looks = _sift().detectAndCompute(grey, None)
    strong = sorted(range(len(found)), key=lambda number: -found[number].response)[:MOST]
    told = np.array([(*found[number].pt, found[number].size, found[number].angle) for number in strong], np.float32).reshape(-1, 4)
    raw = looks[strong] if strong else np.zeros((0, 128), np.float32)
    rooted = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-6))
    return Keypoints(told[:, :2], told[:, 2], told[:, 3], rooted.astype(np.float16))


@cache
def _sift() -> Any:  # noqa: ANN401 - OpenCV has no types for it
    return cv2.SIFT_create(MOST, contrastThreshold=CONTRAST)
