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

# Steps per pixel for points and sizes, and per degree for angles, in stored features.
_QUANTIZATION_STEPS = (64, 32, 256 / 360)
# Descriptor values are whole numbers from 0 to 255. Four bits of each square root carry all that
# matching uses, two of them to a byte.
_KEYPOINT_DTYPE = np.dtype(
    [("point", "<u2", 2), ("size", "<u2"), ("angle", "u1"), ("descriptor", "u1", 64)]
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
    waves, even_count = _build_descriptor_waves()
    packed = np.ascontiguousarray(records["descriptor"])
    numbers = np.concatenate([packed >> 4, packed & 15], axis=1).astype(np.float32)
    descriptors = numbers @ waves
    norms = np.sqrt(np.vecdot(descriptors, descriptors)).clip(1.0)
    descriptors /= norms[:, None]
    points, sizes, angles = (
        records[name].astype(np.float32) / np.float32(steps)
        for name, steps in zip(("point", "size", "angle"), _QUANTIZATION_STEPS, strict=True)
    )
    even, odd = descriptors[:, :even_count], descriptors[:, even_count:]
    return Keypoints(points, np.log2(sizes), angles, even, odd)


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
    point_steps, size_steps, angle_steps = _QUANTIZATION_STEPS
    keypoints["point"] = (points * point_steps).round().clip(0, 65535)
    keypoints["size"] = (geometry[:, 2] / scale * size_steps).round().clip(1, 65535)
    keypoints["angle"] = (geometry[:, 3] * angle_steps).round().astype(np.int64) % 256
    roots = np.sqrt(descriptors[strongest]).round().clip(0, 15).astype(np.uint8)
    keypoints["descriptor"] = roots[:, ::2] << 4 | roots[:, 1::2]
    return keypoints


def _mask_regions(gray: NDArray[np.uint8], regions: Sequence[Box]) -> NDArray[np.uint8]:
    """Mask the regions of an image (height, width) by 255."""
    mask, (height, width) = np.zeros_like(gray), gray.shape
    for left, top, right, bottom in regions:
        rows = slice(round(top * height), round(bottom * height))
        mask[rows, round(left * width) : round(right * width)] = 255
    return mask


@cache
def _build_descriptor_waves() -> tuple[NDArray[np.float32], int]:
    """Build the waves that descriptors are made of, and count those that mirroring does not change.

    They are the columns of an orthonormal matrix (128, 52): first those that do not change in a
    mirror image, then those that change sign. Its rows are the even numbers of a descriptor, then
    the odd ones, as they are unpacked. The waves are products of cosines along both axes of
    cells (discrete cosine transform) and of cosines or sines around the directions (Fourier
    series). Mirroring reverses the cells along one axis and the sense of the directions.
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
    waves = np.array(even + odd, np.float32).T
    return np.ascontiguousarray(np.concatenate([waves[::2], waves[1::2]])), len(even)


@cache
def _get_sift(count: int) -> Any:  # noqa: ANN401 - OpenCV's stubs lack SIFT
    """Get a detector of the `count` strongest keypoints, or of all for 0."""
    return cv2.SIFT_create(count, contrastThreshold=SIFT_CONTRAST_THRESHOLD)
