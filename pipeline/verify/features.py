"""Features of an image for verification: pixels, small versions, keypoints, regions.

What one image alone determines is measured once and stored with its thumbnail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.regions import MAX_REGIONS, Box, find_regions
from pipeline.verify.base_tiles import measure_gradient
from pipeline.verify.colors import reduce_colors, reduce_pixels, restore_rgb
from pipeline.verify.keypoints import (
    Keypoints,
    decode_keypoints,
    encode_keypoints,
    is_keypoint_count,
)

SMALL_GRAY_SIDE_PX = 32  # of the small version that aligns images without keypoints
MIN_SMALL_GRAY_NORM = 1.0  # of its deviations from the mean; below, an image is too even to compare

# Line art is thin lines on a uniform background. Of 24 pages, forms and drawings all textured
# cells are line art; of 1,400 photographs and copies at most 0.86 of the cells are.
LINE_ART_CELL_PX = 24  # side of a cell
MAX_LINE_WIDTH_PX = 9  # wider marks are not lines
MAX_FLAT_STD_LEVELS = 6.0  # standard deviation in gray levels of an even cell
MAX_REMAINING_STD_SHARE = 0.25  # of a line art cell, without its lines
MIN_LINE_ART_SHARE = 0.9  # of the textured cells

START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"  # markers of a JPEG

MAX_FLAT_GRADIENT = 1.0  # in gray levels a pixel, of flat ground

FORMAT_VERSION = b"\x04"  # first byte of stored features; raise it if their content changes
REGION_STEPS = 65535  # of a normalized coordinate in stored features
# What precedes the keypoints in stored features.
_HEADER_DTYPE = np.dtype(
    [
        ("version", "S1"),
        ("small_gray", "u1", (SMALL_GRAY_SIDE_PX, SMALL_GRAY_SIDE_PX)),
        ("noise", "<f4"),
        ("flat_share", "<f4"),
        ("is_line_art", "u1"),
        ("region_count", "u1"),
        ("regions", "<u2", (MAX_REGIONS, 4)),
    ]
)
# The pixels of a small gray version in eight orientations, (8, 1024): number 2 k + m is mirrored if
# m, then turned k quarters counterclockwise.
_PIXEL_NUMBERS = np.arange(SMALL_GRAY_SIDE_PX**2).reshape(SMALL_GRAY_SIDE_PX, -1)
_ORIENTED_PIXELS = np.array(
    [
        np.rot90(pixels, quarter_turns).ravel()
        for quarter_turns in range(4)
        for pixels in (_PIXEL_NUMBERS, _PIXEL_NUMBERS[:, ::-1])
    ]
)


class ImageFeatures:
    """The features of one image, each computed on first use.

    Unrelated images are distinguished by their stored features alone, without decoding pixels.
    """

    def __init__(
        self,
        load_gray: Callable[[], NDArray[np.uint8]],
        load_rgb: Callable[[], NDArray[np.uint8]],
        features: bytes,
        size: tuple[int, int],
    ) -> None:
        """Wrap stored features, as extract_features() returns them.

        `load_gray` returns the thumbnail in gray (height, width), `load_rgb` in RGB (height, width,
        3), at most 448 pixels a side; `size` is the full (width, height) of the image.
        """
        self._load_gray, self._load_rgb = load_gray, load_rgb
        self._features, self.size = features, size

    def __le__(self, other: ImageFeatures) -> bool:
        """Order images in an arbitrary but fixed way.

        By their small gray versions first, so that unrelated images need no pixels.
        """
        keys = zip(self._build_order_keys(), other._build_order_keys(), strict=True)
        return next((bool(own < others) for own, others in keys if own != others), True)

    def _build_order_keys(self) -> Iterator[Any]:
        """Yield what images are ordered by; of two images only as far as it is equal."""
        yield self.small_gray.tobytes()
        yield [part.tobytes() for part in self._small_ycrcb]
        yield self._features
        yield self.size
        yield self.gray.shape
        yield self.gray.tobytes()

    @cached_property
    def _header(self) -> np.void:
        header: np.void = np.frombuffer(self._features, _HEADER_DTYPE, 1)[0]
        return header

    @property
    def small_gray(self) -> NDArray[np.uint8]:
        """The whole image in gray (32, 32)."""
        return np.asarray(self._header["small_gray"], np.uint8)

    @cached_property
    def oriented_small_gray(self) -> NDArray[np.float32]:
        """The small gray version in eight orientations, (8, 1024) unit vectors with mean 0.

        Number 2 k + m is mirrored if m, then turned k quarters counterclockwise. All are 0 if the
        image is too even to compare.
        """
        deviations = self.small_gray.ravel() - np.float32(self.small_gray.mean())
        norm = float(np.linalg.norm(deviations))
        if norm < MIN_SMALL_GRAY_NORM:
            deviations[:] = 0.0
        return np.asarray(deviations[_ORIENTED_PIXELS] / max(norm, MIN_SMALL_GRAY_NORM))

    @cached_property
    def keypoints(self) -> Keypoints:
        """The keypoints, decoded from the stored features."""
        return decode_keypoints(self._features[_HEADER_DTYPE.itemsize :])

    @cached_property
    def gray(self) -> NDArray[np.uint8]:
        """The thumbnail in gray (height, width)."""
        return self._load_gray()

    @cached_property
    def _small_ycrcb(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The whole image in luma (48, 48) and chroma (24, 24, 2).

        It is not stored: only copies are compared by color, and their pixels are decoded anyway.
        """
        return reduce_colors(self._load_rgb())

    @cached_property
    def small_rgb(self) -> NDArray[np.uint8]:
        """The whole image in RGB (48, 48, 3)."""
        return restore_rgb(*self._small_ycrcb)

    @property
    def is_line_art(self) -> bool:
        """True for thin lines on a uniform background: text, a form, a drawing."""
        return bool(self._header["is_line_art"])

    @property
    def flat_share(self) -> float:
        """The share of the image that is flat ground, without any texture."""
        return float(self._header["flat_share"])

    @property
    def regions(self) -> tuple[Box, ...]:
        """The rectangles that are pictures of their own, in normalized coordinates."""
        steps = self._header["regions"][: self._header["region_count"]].tolist()
        return tuple(
            (left / REGION_STEPS, top / REGION_STEPS, right / REGION_STEPS, bottom / REGION_STEPS)
            for left, top, right, bottom in steps
        )

    @property
    def noise(self) -> float:
        """The standard deviation of the noise, in gray levels."""
        return float(self._header["noise"])


def build_features_from_thumbnail(
    jpeg: bytes, features: bytes, size: tuple[int, int]
) -> ImageFeatures:
    """Combine a thumbnail with its stored features; `size` is the full (width, height)."""
    return ImageFeatures(
        lambda: decode_gray_thumbnail(jpeg),
        lambda: _decode_thumbnail(jpeg, cv2.IMREAD_COLOR_RGB),
        features,
        size,
    )


def decode_gray_thumbnail(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode the luma of a thumbnail, uint8 (height, width), in half of the time of its colors.

    Raises OSError for a damaged JPEG, because OpenCV decodes most of those without an error.
    """
    return _decode_thumbnail(jpeg, cv2.IMREAD_GRAYSCALE)


def _decode_thumbnail(jpeg: bytes, mode: int) -> NDArray[np.uint8]:
    """Decode a thumbnail by a mode of OpenCV; raises OSError for a damaged one."""
    scan, end = jpeg.find(START_OF_SCAN), len(jpeg) - len(END_OF_IMAGE)
    is_whole = (
        scan >= 0
        and jpeg.endswith(END_OF_IMAGE)
        # The scan of a thumbnail has no marker but the last: it is a baseline JPEG.
        and jpeg.count(b"\xff", scan + 2, end) == jpeg.count(b"\xff\x00", scan + 2, end)
    )
    flags = mode | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags) if is_whole else None
    if pixels is None:
        raise OSError("the thumbnail is damaged")
    return np.asarray(pixels, np.uint8)


def convert_to_gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert RGB (height, width, 3) to gray (height, width)."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def estimate_noise(gray: NDArray[np.uint8]) -> float:
    """Estimate the standard deviation of the noise in gray levels (Immerkaer 1996, equation 6).

    The filter answers neither to planes nor to straight edges.
    """
    kernel = np.array([1, -2, 1], np.float32)
    filtered = cv2.sepFilter2D(gray, cv2.CV_16S, kernel, kernel)
    return float(np.sqrt(np.pi / 2) / 6 * cv2.norm(filtered, cv2.NORM_L1) / gray.size)


def measure_flat_share(gray: NDArray[np.uint8]) -> float:
    """Measure the share of pixels (height, width) whose gradient is below MAX_FLAT_GRADIENT."""
    return float((measure_gradient(gray.astype(np.float32)) < MAX_FLAT_GRADIENT).mean())


def is_line_art(gray: NDArray[np.uint8]) -> bool:
    """Return True if nearly all textured cells become even without their thin lines.

    `gray` is (height, width). Dark lines are removed by a morphological closing, bright ones by an
    opening.
    """
    rows, columns = (side // LINE_ART_CELL_PX for side in gray.shape)
    if not rows or not columns:
        return False

    def compute_cell_std(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        area = pixels[: rows * LINE_ART_CELL_PX, : columns * LINE_ART_CELL_PX].astype(np.float32)
        mean, mean_square = (
            cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA)
            for values in (area, area * area)
        )
        return np.asarray(np.sqrt(np.maximum(mean_square - mean * mean, 0.0)), np.float32)

    std = compute_cell_std(gray)
    is_textured = std > MAX_FLAT_STD_LEVELS
    even_std = np.maximum(MAX_FLAT_STD_LEVELS, MAX_REMAINING_STD_SHARE * std)
    if not is_textured.any():
        return False
    kernel = np.ones((MAX_LINE_WIDTH_PX, MAX_LINE_WIDTH_PX), np.uint8)
    for operation in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN):
        without_lines = np.asarray(cv2.morphologyEx(gray, operation, kernel), np.uint8)
        is_even = compute_cell_std(without_lines) <= even_std
        if is_even[is_textured].mean() >= MIN_LINE_ART_SHARE:
            return True
    return False


def extract_features(rgb: NDArray[np.uint8]) -> bytes:
    """Extract the features of a thumbnail (height, width, 3) as stored bytes, at most 21 kB.

    They are the format version, a 32 x 32 gray version, what verify asks of an image alone, and the
    strongest keypoints: SIFT (Lowe 2004) with root-normalized descriptors (Arandjelović and
    Zisserman 2012).
    """
    gray, regions = convert_to_gray(rgb), find_regions(rgb)
    return _pack_header(gray, regions).tobytes() + encode_keypoints(gray, regions)


def _pack_header(gray: NDArray[np.uint8], regions: Sequence[Box]) -> NDArray[np.void]:
    """Pack what precedes the keypoints in stored features, (1,) of _HEADER_DTYPE."""
    header = np.zeros(1, _HEADER_DTYPE)
    header["version"] = FORMAT_VERSION
    header["small_gray"] = reduce_pixels(gray, (SMALL_GRAY_SIDE_PX, SMALL_GRAY_SIDE_PX))
    header["noise"] = estimate_noise(gray)
    header["flat_share"] = measure_flat_share(gray)
    header["is_line_art"] = is_line_art(gray)
    header["region_count"] = len(regions)
    steps = np.array(regions, np.float64).reshape(-1, 4) * REGION_STEPS
    header["regions"][0, : len(regions)] = steps.round()
    return header


def has_current_format(features: bytes) -> bool:
    """Return True if stored features have the format of this version."""
    return (
        features.startswith(FORMAT_VERSION)
        and len(features) >= _HEADER_DTYPE.itemsize
        and is_keypoint_count(len(features) - _HEADER_DTYPE.itemsize)
    )
