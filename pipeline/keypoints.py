"""What stands out in a picture: places with a size and a direction, and what each looks like, so that they are found again in a copy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.view import View

SIGHT = View(448, "within")  # how pictures are looked at to be verified
MOST = 400  # keypoints of a picture, the strongest
CONTRAST = 0.02  # half of OpenCV's own: soft pictures have few that are stronger

# A descriptor is 4 x 4 cells of 8 directions, laid out along the keypoint's own. In a mirror the cells of one axis trade places, and
# directions turn the other way; so a picture need not be looked at twice to be recognised in its mirror.
_CELLS = np.arange(128).reshape(4, 4, 8)
MIRRORED = _CELLS[::-1, :, -np.arange(8) % 8].ravel()


@dataclass(frozen=True, slots=True)
class Keypoints:
    """n keypoints: `places` (n, 2) float32, in pixels (x, y) of a picture; `sizes` (n,) in pixels; `angles` (n,) in degrees, clockwise;
    `looks` (n, 128) float32, each of length 1. Strongest first.
    """

    places: NDArray[np.float32]
    sizes: NDArray[np.float32]
    angles: NDArray[np.float32]
    looks: NDArray[np.float32]


def keypoints(grey: NDArray[np.uint8]) -> Keypoints:
    """The strongest keypoints of a picture (height, width): SIFT (Lowe 2004), root-normalised (Arandjelović and Zisserman 2012)."""
    found, looks = _sift().detectAndCompute(grey, None)
    strong = sorted(range(len(found)), key=lambda number: -found[number].response)[:MOST]
    told = np.array([(*found[number].pt, found[number].size, found[number].angle) for number in strong], np.float32).reshape(-1, 4)
    raw = looks[strong] if strong else np.zeros((0, 128), np.float32)
    rooted = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-6))
    return Keypoints(told[:, :2], told[:, 2], told[:, 3], rooted)


@cache
def _sift() -> Any:  # noqa: ANN401 - OpenCV has no types for it
    return cv2.SIFT_create(MOST, contrastThreshold=CONTRAST)
