"""What is to be known of a picture to verify it: its grey pixels, a few of its colours, and what stands out in it, to be found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.thumbnails import decode_thumbnail

MAX_KEYPOINTS = 400  # keypoints of a picture, the strongest
DETECT_SIDE_PX = 224  # pixels of the longer side that keypoints are looked for at: a third of the work of 448, and as many copies are found
MIN_KEYPOINTS_BEFORE_FULL_SIZE = 100  # keypoints; where there are fewer, they are looked for at full size too, and are more exact
SMALL_GRAY_SIDE_PX = 32  # pixels of a side of a whole picture, for those that have no keypoints
SMALL_RGB_SIDE_PX = 48  # pixels of a side of what colours are compared by
SIFT_CONTRAST_THRESHOLD = (
    0.01  # a quarter of OpenCV's own: soft pictures have few that are stronger
)

# A descriptor is 4 x 4 cells of 8 directions, laid out along the keypoint's own. In a mirror the cells of one axis trade places, and
# directions turn the other way; so a picture need not be looked at twice to be recognised in its mirror.
_DESCRIPTOR_LAYOUT = np.arange(128).reshape(4, 4, 8)
MIRRORED_DESCRIPTOR_ORDER = _DESCRIPTOR_LAYOUT[::-1, :, -np.arange(8) % 8].ravel()

# Lines on an even ground: of 24 pages, forms and drawings all such cells, of 1,400 photos and copies at most .86.
LINE_ART_CELL_PX, MAX_LINE_WIDTH_PX, MAX_FLAT_STD_LEVELS, MIN_LINE_ART_SHARE = (
    24,
    9,
    6.0,
    0.9,
)  # pixels of a cell's side, and of a line; grey levels, as a standard deviation; share of cells

FORMAT_VERSION = b"\x01"  # what features begin with: a change in what they are needs a new one
_QUANTIZATION_STEPS = (
    64,
    32,
    256 / 360,
)  # steps in which places and sizes, in pixels, and angles, in degrees, are kept
# A descriptor's numbers are whole, from 0 to 255; four bits of each one's root tell as much as is used of them.
_KEYPOINT_DTYPE = np.dtype(
    [("place", "<u2", 2), ("size", "<u2"), ("angle", "u1"), ("look", "u1", 64)]
)


@dataclass(frozen=True, slots=True)
class Keypoints:
    """n keypoints: `places` (n, 2) float32, in pixels (x, y) of a picture; `sizes` (n,) in pixels; `angles` (n,) in degrees, clockwise;
    `looks` (n, 128) float32, each of length 1. Strongest first.
    """

    points: NDArray[np.float32]
    sizes: NDArray[np.float32]
    angles: NDArray[np.float32]
    descriptors: NDArray[np.float32]


class ImageFeatures:
    """A picture as it is verified; each part is worked out when it is first asked for. Strangers are told apart by features alone.

    `size`: the width and height that it has in full.
    """

    def __init__(
        self, load_rgb: Callable[[], NDArray[np.uint8]], features: bytes, size: tuple[int, int]
    ) -> None:
        """`view` gives the picture, rgb (height, width, 3), at most 448 pixels a side; `features` are those of features()."""
        self._load_rgb, self._features, self.size = load_rgb, features, size

    def __le__(self, other: ImageFeatures) -> bool:
        """Some order of pictures, for which strangers need not be unpacked: it is by features, and by pixels only where those are equal."""
        if (self._features, self.size) != (other._features, other.size):
            return (self._features, self.size) < (other._features, other.size)
        return (self.rgb.shape, self.rgb.tobytes()) <= (other.rgb.shape, other.rgb.tobytes())

    @cached_property
    def small_gray(self) -> NDArray[np.uint8]:
        """All of it, grey (32, 32)."""
        return np.frombuffer(
            self._features, np.uint8, SMALL_GRAY_SIDE_PX**2, len(FORMAT_VERSION)
        ).reshape(SMALL_GRAY_SIDE_PX, SMALL_GRAY_SIDE_PX)

    @cached_property
    def keypoints(self) -> Keypoints:
        """What stands out in it."""
        kept = np.frombuffer(
            self._features, _KEYPOINT_DTYPE, offset=len(FORMAT_VERSION) + SMALL_GRAY_SIDE_PX**2
        )
        looks = (
            np.stack([kept["look"] >> 4, kept["look"] & 15], axis=2)
            .reshape(-1, 128)
            .astype(np.float32)
        )
        looks /= np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1.0)
        parts = zip(("place", "size", "angle"), _QUANTIZATION_STEPS, strict=True)
        places, sizes, angles = (
            kept[name].astype(np.float32) / np.float32(fine) for name, fine in parts
        )
        return Keypoints(places, sizes, angles, looks)

    @cached_property
    def rgb(self) -> NDArray[np.uint8]:
        """Its pixels (height, width, 3)."""
        return self._load_rgb()

    @cached_property
    def gray(self) -> NDArray[np.uint8]:
        """Its pixels in grey (height, width)."""
        return convert_to_gray(self.rgb)

    @cached_property
    def small_rgb(self) -> NDArray[np.uint8]:
        """All of it, rgb (48, 48, 3)."""
        return np.asarray(
            cv2.resize(
                self.rgb, (SMALL_RGB_SIDE_PX, SMALL_RGB_SIDE_PX), interpolation=cv2.INTER_AREA
            ),
            np.uint8,
        )

    @cached_property
    def is_line_art(self) -> bool:
        """Whether it is lines on an even ground: text, a form, a drawing."""
        return is_line_art(self.gray)

    @cached_property
    def noise(self) -> float:
        """The standard deviation of its noise, in grey levels."""
        return estimate_noise(self.gray)


def features_from_pixels(rgb: NDArray[np.uint8], size: tuple[int, int]) -> ImageFeatures:
    """Of a picture (height, width, 3) as SIGHT shows it, whose width and height in full are `size`."""
    return ImageFeatures(lambda: rgb, extract_features(rgb), size)


def features_from_thumbnail(jpeg: bytes, features: bytes, size: tuple[int, int]) -> ImageFeatures:
    """Of a thumb and its features."""
    return ImageFeatures(lambda: decode_thumbnail(jpeg), features, size)


def convert_to_gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (height, width, 3) in grey (height, width)."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def estimate_noise(gray: NDArray[np.uint8]) -> float:
    """The standard deviation of a picture's noise: of what neither planes nor edges have (Immerkaer 1996, equation 6)."""
    rough = cv2.filter2D(
        gray, cv2.CV_32F, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    )
    return float(np.sqrt(np.pi / 2) / 6 * cv2.mean(np.abs(rough))[0])


def is_line_art(gray: NDArray[np.uint8]) -> bool:
    """Whether nearly all cells of a picture (height, width) that show something are even once thin lines, dark or bright, are away."""
    rows, columns = (side // LINE_ART_CELL_PX for side in gray.shape)
    if not rows or not columns:
        return False

    def compute_cell_std(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        cells = (
            pixels[: rows * LINE_ART_CELL_PX, : columns * LINE_ART_CELL_PX]
            .astype(np.float32)
            .reshape(rows, LINE_ART_CELL_PX, columns, LINE_ART_CELL_PX)
        )
        return np.asarray(cells.std(axis=(1, 3)), np.float32)

    before = compute_cell_std(gray)
    shows, even = before > MAX_FLAT_STD_LEVELS, np.maximum(MAX_FLAT_STD_LEVELS, before / 4)
    around = np.ones((MAX_LINE_WIDTH_PX, MAX_LINE_WIDTH_PX), np.uint8)
    after = [
        compute_cell_std(np.asarray(cv2.morphologyEx(gray, way, around), np.uint8))
        for way in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN)
    ]
    return (
        bool(shows.any())
        and max(float((rest <= even)[shows].mean()) for rest in after) >= MIN_LINE_ART_SHARE
    )


def extract_features(rgb: NDArray[np.uint8]) -> bytes:
    """What tells a picture (height, width, 3) from strangers, as it is kept, in at most 30 kB: all of it, small, and its strongest
    keypoints: SIFT (Lowe 2004), root-normalised (Arandjelović and Zisserman 2012).
    """
    whole = convert_to_gray(rgb)
    share = min(1.0, DETECT_SIDE_PX / max(whole.shape))
    width, height = (max(1, round(share * side)) for side in whole.shape[::-1])
    found, looks = _get_sift().detectAndCompute(
        cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), None
    )
    if len(found) < MIN_KEYPOINTS_BEFORE_FULL_SIZE and share < 1.0:
        share, width, height = 1.0, whole.shape[1], whole.shape[0]
        found, looks = _get_sift().detectAndCompute(whole, None)
    strong = sorted(range(len(found)), key=lambda number: -found[number].response)[:MAX_KEYPOINTS]
    kept = np.zeros(len(strong), _KEYPOINT_DTYPE)
    if strong:
        grown = np.array([whole.shape[1] / width, whole.shape[0] / height])
        told = np.array(
            [(*found[number].pt, found[number].size, found[number].angle) for number in strong]
        )
        kept["place"] = (
            (((told[:, :2] + 0.5) * grown - 0.5) * _QUANTIZATION_STEPS[0]).round().clip(0, 65535)
        )
        kept["size"] = (told[:, 2] / share * _QUANTIZATION_STEPS[1]).round().clip(1, 65535)
        kept["angle"] = (told[:, 3] * _QUANTIZATION_STEPS[2]).round().astype(np.int64) % 256
        roots = np.sqrt(looks[strong]).round().clip(0, 15).astype(np.uint8)
        kept["look"] = roots[:, ::2] << 4 | roots[:, 1::2]
    small = np.asarray(
        cv2.resize(whole, (SMALL_GRAY_SIDE_PX, SMALL_GRAY_SIDE_PX), interpolation=cv2.INTER_AREA),
        np.uint8,
    )
    return FORMAT_VERSION + small.tobytes() + kept.tobytes()


def has_current_format(features: bytes) -> bool:
    """Whether these are features as this version makes them."""
    rest = len(features) - len(FORMAT_VERSION) - SMALL_GRAY_SIDE_PX**2
    return (
        features.startswith(FORMAT_VERSION)
        and 0 <= rest <= MAX_KEYPOINTS * _KEYPOINT_DTYPE.itemsize
        and rest % _KEYPOINT_DTYPE.itemsize == 0
    )


@cache
def _get_sift() -> Any:  # noqa: ANN401 - OpenCV has no types for it
    return cv2.SIFT_create(MAX_KEYPOINTS, contrastThreshold=SIFT_CONTRAST_THRESHOLD)
