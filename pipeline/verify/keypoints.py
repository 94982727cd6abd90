"""Keypoints of an image: detected by SIFT (Lowe 2004), stored in few bytes, decoded for matching.

Descriptors are root-normalized (Arandjelović and Zisserman 2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.regions import Box

MAX_KEYPOINTS = 400  # the strongest of an image
# In the regions of a host more are detected at full thumbnail size: a photo on a page is small, and
# letters are stronger. Of 120 photos on drawn screens 115 are aligned instead of 112, of 60 pairs
# of screens with one photo 55 instead of 51.
MAX_REGION_KEYPOINTS = 200
# Longer side at which keypoints are detected: a third of the work of 448, and as many copies are
# found.
DETECT_SIDE_PX = 224
# With fewer keypoints, they are detected at full thumbnail size instead, where they are more exact.
MIN_KEYPOINTS_BEFORE_FULL_SIZE = 100
# A quarter of OpenCV's default: soft images have few stronger keypoints.
SIFT_CONTRAST_THRESHOLD = 0.01

# A descriptor holds 4 x 4 cells of 8 directions, relative to the direction of its keypoint. Most of
# its variance lies in the low frequencies along the three: of 128 cosine and sine waves, the 52
# whose frequencies sum to at most 4 have 86 %. Of 828 pairs of copies, most of them hard, 815 are
# aligned by them, 814 by all 128, which take more than twice the time.
MAX_DESCRIPTOR_FREQUENCY = 4

# Steps per pixel for points, per octave for sizes and per degree for angles, in stored features.
_POINT_STEPS, _OCTAVE_STEPS, _ANGLE_STEPS = 64, 32, 256 / 360
# Each of the 52 numbers of a descriptor is stored in four bits, two of them to a byte. A step is a
# third of its root mean square in 170,000 keypoints of photos and their copies; the first, which is
# large in all descriptors, is counted from its mean. Against the four bits of each of 128 roots
# before, in twice the space, 5 of 520 pairs, most of them hard copies, become copies, and 3 do not
# any more. Three bits win 5 and lose 4, eight bits win 1 and lose 2.
_MIDDLE_CODE = 7.5
_FIRST_NUMBER_MEAN = 0.765
_EVEN_COUNT = 27  # numbers that are the same in a mirror image
_NUMBER_STEPS = np.float32(1e-4) * np.array(
    (
        "279 761 730 233 202 335 552 338 160 346 535 268 94 411 453 268 132 332 "
        "202 221 280 158 209 105 173 107 230 500 351 150 300 258 128 183 161 100 "
        "244 248 291 122 168 267 186 100 243 73 321 152 254 81 78 66"
    ).split(),
    np.float32,
)
_KEYPOINT_DTYPE = np.dtype(
    [("point", "<u2", 2), ("octave", "u1"), ("angle", "u1"), ("descriptor", "u1", 26)]
)


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Keypoints with their descriptors: the strongest of the image first, then those in regions.

    `points` (n, 2) float32, x and y in thumbnail pixels; `octaves` (n,), the logarithm to base 2 of
    their sizes in pixels; `angles` (n,) in degrees, clockwise.

    `even` (n, 27) and `odd` (n, 25) float32 are the low frequencies of descriptors, together unit
    vectors. In a mirror image the even ones stay as they are and the odd ones change sign, so the
    cosine of two descriptors is the sum of two products, and in a mirror image their difference.
    """

    points: NDArray[np.float32]
    octaves: NDArray[np.float32]
    angles: NDArray[np.float32]
    even: NDArray[np.float32]
    odd: NDArray[np.float32]


def encode_keypoints(gray: NDArray[np.uint8], regions: Sequence[Box]) -> bytes:
    """Detect the keypoints of a thumbnail (height, width) with regions; return them as stored."""
    scale = min(1.0, DETECT_SIDE_PX / max(gray.shape))
    keypoints = _detect_keypoints(gray, scale, MAX_KEYPOINTS)
    if scale < 1.0 and len(keypoints) < MIN_KEYPOINTS_BEFORE_FULL_SIZE:
        keypoints = _detect_keypoints(gray, 1.0, MAX_KEYPOINTS)
    elif scale < 1.0 and regions:
        inside = _detect_keypoints(gray, 1.0, MAX_REGION_KEYPOINTS, _mask_regions(gray, regions))
        keypoints = np.concatenate([keypoints, inside])
    return keypoints.tobytes()


def decode_keypoints(stored: bytes) -> Keypoints:
    """Decode what encode_keypoints() returned."""
    records = np.frombuffer(stored, _KEYPOINT_DTYPE)
    packed = records["descriptor"]
    codes = np.concatenate([packed >> 4, packed & 15], axis=1).astype(np.float32)
    descriptors = (codes - np.float32(_MIDDLE_CODE)) * _NUMBER_STEPS
    descriptors[:, 0] += np.float32(_FIRST_NUMBER_MEAN)
    descriptors /= np.sqrt(np.vecdot(descriptors, descriptors))[:, None]
    points, octaves, angles = (
        records[name].astype(np.float32) / np.float32(steps)
        for name, steps in (
            ("point", _POINT_STEPS),
            ("octave", _OCTAVE_STEPS),
            ("angle", _ANGLE_STEPS),
        )
    )
    even, odd = descriptors[:, :_EVEN_COUNT], descriptors[:, _EVEN_COUNT:]
    return Keypoints(points, octaves, angles, even, odd)


def is_keypoint_count(byte_count: int) -> bool:
    """Return True if so many bytes can be stored keypoints."""
    count, rest = divmod(byte_count, _KEYPOINT_DTYPE.itemsize)
    return rest == 0 and count <= MAX_KEYPOINTS + MAX_REGION_KEYPOINTS


def _detect_keypoints(
    gray: NDArray[np.uint8], scale: float, count: int, mask: NDArray[np.uint8] | None = None
) -> NDArray[np.void]:
    """Detect the `count` strongest keypoints of an image reduced by `scale`, strongest first.

    `gray` is (height, width), and so is `mask`, which is 0 where none are wanted; a mask needs a
    `scale` of 1. Returns (n,) of _KEYPOINT_DTYPE, in pixels of the whole image.
    """
    width, height = (max(1, round(scale * side)) for side in gray.shape[::-1])
    reduced = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV keeps the strongest of the whole image before it looks at the mask.
    sift = _get_sift(count if mask is None else 0)
    detected, descriptors = sift.detectAndCompute(reduced, mask)
    strongest = sorted(range(len(detected)), key=lambda index: -detected[index].response)
    strongest = strongest[:count]
    keypoints = np.zeros(len(strongest), _KEYPOINT_DTYPE)
    if not strongest:
        return keypoints
    to_thumbnail = np.array([gray.shape[1] / width, gray.shape[0] / height])
    geometry = np.array(
        [(*detected[index].pt, detected[index].size, detected[index].angle) for index in strongest]
    )
    points = (geometry[:, :2] + 0.5) * to_thumbnail - 0.5
    keypoints["point"] = (points * _POINT_STEPS).round().clip(0, 65535)
    octaves = np.log2(geometry[:, 2] / scale)
    keypoints["octave"] = (octaves * _OCTAVE_STEPS).round().clip(0, 255)
    keypoints["angle"] = (geometry[:, 3] * _ANGLE_STEPS).round().astype(np.int64) % 256
    keypoints["descriptor"] = _encode_descriptors(descriptors[strongest])
    return keypoints


def _encode_descriptors(descriptors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode the low frequencies of SIFT descriptors (n, 128) in four bits each, (n, 26)."""
    numbers = np.sqrt(descriptors) @ _build_descriptor_waves()
    numbers /= np.sqrt(np.vecdot(numbers, numbers)).clip(1.0)[:, None]
    numbers[:, 0] -= _FIRST_NUMBER_MEAN
    codes = (numbers / _NUMBER_STEPS + _MIDDLE_CODE).round().clip(0, 2 * _MIDDLE_CODE)
    first, second = np.split(codes.astype(np.uint8), 2, axis=1)
    return np.asarray(first << 4 | second, np.uint8)


def _mask_regions(gray: NDArray[np.uint8], regions: Sequence[Box]) -> NDArray[np.uint8]:
    """Mask the regions of an image (height, width) by 255."""
    mask, (height, width) = np.zeros_like(gray), gray.shape
    for left, top, right, bottom in regions:
        rows = slice(round(top * height), round(bottom * height))
        mask[rows, round(left * width) : round(right * width)] = 255
    return mask


@cache
def _build_descriptor_waves() -> NDArray[np.float32]:
    """Build the waves that descriptors are made of: the columns of an orthonormal matrix (128, 52).

    The first _EVEN_COUNT do not change in a mirror image, the others change sign. The waves are
    products of cosines along both axes of cells (discrete cosine transform) and of cosines or sines
    around the directions (Fourier series). Mirroring reverses the cells along one axis and the
    sense of the directions.
    """
    cells, directions = np.arange(4) + 0.5, 2 * np.pi * np.arange(8) / 8
    along_cells = [np.cos(np.pi * frequency * cells / 4) for frequency in range(4)]
    around = [(k, 0, np.cos(k * directions)) for k in range(5)]
    around += [(k, 1, np.sin(k * directions)) for k in range(1, 4)]
    even: list[NDArray[np.float64]] = []
    odd: list[NDArray[np.float64]] = []
    for y, x, (k, is_sine, wave) in product(range(4), range(4), around):
        if y + x + k <= MAX_DESCRIPTOR_FREQUENCY:
            values = np.einsum("i,j,k->ijk", along_cells[y], along_cells[x], wave).ravel()
            (odd if (y + is_sine) % 2 else even).append(values / np.linalg.norm(values))
    return np.array(even + odd, np.float32).T


@cache
def _get_sift(count: int) -> Any:  # noqa: ANN401 - OpenCV's stubs lack SIFT
    """Get a detector of the `count` strongest keypoints, or of all for 0."""
    return cv2.SIFT_create(count, contrastThreshold=SIFT_CONTRAST_THRESHOLD)
