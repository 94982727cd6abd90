"""Match the keypoints of two images, upright and mirrored at once.

Descriptors are matched by the ratio test (Lowe 2004, section 7.1), and filtered by a Hough vote
over rotation and scale. Most strangers show by half of their keypoints, whose matches lie anywhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.verify.keypoints import Keypoints

MAX_RATIO = 0.85  # ratio test: distance to the nearest descriptor over that to the second nearest
# Half of the keypoints of an image show most strangers: no match there is supported by enough
# others with a like rotation and scale that lie where it would put them. Of 580 strangers among the
# candidates of a library 78 % have less support, of 2,838 pairs that are copies or one scene two.
MIN_SUPPORT = 0.8
CONFIDENT_VOTE_WEIGHT = 5.0  # of a vote that needs no support; only 9 % of the strangers reach it
MAX_SUPPORT_ERROR = 0.3  # how far off a match may lie, as a share of its distance, and in pixels
MAX_SUPPORT_ERROR_PX = 8.0
MIN_SUPPORT_DISTANCE_PX = 4.0  # nearer keypoints are often one corner
MAX_VOTE_RATIO = 0.9  # ratio test of these matches
MIN_KEYPOINTS_TO_HALVE = 200  # with fewer, half of them are too few to tell
MIN_MATCHABLE_KEYPOINTS = 2  # the ratio test needs a second nearest
MIN_DISTANCE = 1e-6  # squared, of unit vectors, in a ratio
HOUGH_ANGLE_BIN_DEG = 15.0  # width of a bin of the Hough vote
HOUGH_SCALE_BIN_OCTAVES = 0.4  # the same for scale, as a power of 2
HOUGH_SCALE_BINS = 24  # half of them reduce, half enlarge
HOUGH_ANGLE_BINS = int(360 / HOUGH_ANGLE_BIN_DEG)


class _Matches(NamedTuple):
    """Keypoint matches.

    `indices` (3, k): the keypoint in the first image, that in the second, and 1 if the match is
    mirrored, else 0; `ratios` (k,): the squared distance to the nearest descriptor over that to the
    second nearest.
    """

    indices: NDArray[np.intp]
    ratios: NDArray[np.float32]

    @property
    def weights(self) -> NDArray[np.float32]:
        """1 for a perfect match, 0 at MAX_VOTE_RATIO, (k,)."""
        return np.float32(1.0) - self.ratios / np.float32(MAX_VOTE_RATIO**2)


def match_keypoints(src: Keypoints, dst: Keypoints) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Match keypoints, upright and mirrored; returns their indices (2, k) in both images.

    There are none if half of the keypoints show that the images are strangers.
    """
    none = np.empty((2, 0), np.intp)
    if min(len(src.points), len(dst.points)) < MIN_MATCHABLE_KEYPOINTS:
        return none, none
    step = 2 if len(src.points) >= MIN_KEYPOINTS_TO_HALVE else 1
    matches = _match_descriptors(src, dst, 0, step)
    if step == 2:
        is_consistent, weight = _vote(src, dst, matches)
        if weight < CONFIDENT_VOTE_WEIGHT and (
            _measure_support(src, dst, matches, is_consistent) < MIN_SUPPORT
        ):
            return none, none
        others = _match_descriptors(src, dst, 1, step)
        matches = _Matches(
            np.concatenate([matches.indices, others.indices], axis=1),
            np.concatenate([matches.ratios, others.ratios]),
        )
    is_distinct = matches.ratios < MAX_RATIO**2
    matches = _Matches(matches.indices[:, is_distinct], matches.ratios[is_distinct])
    is_consistent, _ = _vote(src, dst, matches)
    consistent = matches.indices[:, is_consistent]
    is_mirrored = consistent[2] == 1
    return consistent[:2, ~is_mirrored], consistent[:2, is_mirrored]


def _match_descriptors(src: Keypoints, dst: Keypoints, start: int, step: int) -> _Matches:
    """Match descriptors, upright and mirrored, by the ratio test (Lowe 2004, section 7.1).

    Those of src are every `step`-th from `start` on.
    """
    odd = src.odd[start::step] @ dst.odd.T
    upright, mirrored = by_orientation = np.empty((2, *odd.shape), np.float32)
    np.matmul(src.even[start::step], dst.even.T, out=upright)
    np.subtract(upright, odd, out=mirrored)
    upright += odd
    cosines = by_orientation.reshape(-1, len(dst.points))
    rows, nearest = np.arange(len(cosines)), cosines.argmax(axis=1)
    best_cosine = cosines[rows, nearest]
    cosines[rows, nearest] = -1.0
    second_cosine = cosines[rows, cosines.argmax(axis=1)]  # takes a third of the time of max()
    # The squared distance of unit vectors is 2 (1 - cosine).
    ratios = (1.0 - best_cosine) / (1.0 - second_cosine).clip(MIN_DISTANCE)
    matched = np.flatnonzero(ratios < MAX_VOTE_RATIO**2)
    is_mirrored, src_indices = np.divmod(matched, len(odd))
    indices = np.stack([src_indices * step + start, nearest[matched], is_mirrored])
    return _Matches(indices, ratios[matched])


def _vote(src: Keypoints, dst: Keypoints, matches: _Matches) -> tuple[NDArray[np.bool_], float]:
    """Find the matches near the rotation and scale with the most weight (Hough vote).

    Upright and mirrored matches vote apart. Returns a mask (k,), and the larger of both weights.
    """
    src_indices, dst_indices, is_mirrored = matches.indices
    src_angles, dst_angles = src.angles[src_indices], dst.angles[dst_indices]
    rotation_deg = dst_angles + np.where(is_mirrored, src_angles - 180.0, -src_angles)
    octaves = dst.octaves[dst_indices] - src.octaves[src_indices]
    row = (rotation_deg // HOUGH_ANGLE_BIN_DEG).astype(np.intp) % HOUGH_ANGLE_BINS
    column = (octaves // HOUGH_SCALE_BIN_OCTAVES).astype(np.intp) + HOUGH_SCALE_BINS // 2
    # The first and the last column stay empty, so that sums over neighbors need no wrap.
    column = column.clip(1, HOUGH_SCALE_BINS)
    shape = (2, HOUGH_ANGLE_BINS, HOUGH_SCALE_BINS + 2)
    votes = np.bincount(
        (is_mirrored * shape[1] + row) * shape[2] + column,
        matches.weights,
        math.prod(shape),
    ).reshape(shape)
    # The first row follows the last.
    votes = np.concatenate([votes[:, -1:], votes, votes[:, :1]], axis=1)
    votes = votes[:, :-2] + votes[:, 1:-1] + votes[:, 2:]
    smoothed = (votes[:, :, :-2] + votes[:, :, 1:-1] + votes[:, :, 2:]).reshape(2, -1)
    top = smoothed.argmax(axis=1)
    top_row, top_column = np.divmod(top[is_mirrored], HOUGH_SCALE_BINS)
    is_near = ((row - top_row + 1) % HOUGH_ANGLE_BINS <= 2) & (abs(column - 1 - top_column) <= 1)
    return is_near, float(smoothed.max())


def _measure_support(
    src: Keypoints, dst: Keypoints, matches: _Matches, mask: NDArray[np.bool_]
) -> float:
    """Measure the most weight of matches in a mask that lie where one of them would put them.

    A match puts others by its own rotation and scale (a similarity transform). Its own weight
    counts.
    """
    src_indices, dst_indices, is_mirrored = matches.indices[:, mask]
    if not len(src_indices):
        return 0.0
    # Complex numbers, x + iy: a similarity transform is a product.
    src_points, dst_points = (
        side.points[indices].view(np.complex64)[:, 0]
        for side, indices in ((src, src_indices), (dst, dst_indices))
    )
    src_angles, dst_angles = src.angles[src_indices], dst.angles[dst_indices]
    rotation_deg = dst_angles + np.where(is_mirrored, src_angles - 180.0, -src_angles)
    scale = np.exp2(dst.octaves[dst_indices] - src.octaves[src_indices])
    factors = scale * np.exp(1j * np.radians(rotation_deg))
    offsets = src_points - src_points[:, None]
    expected = np.where(is_mirrored, -offsets.conj(), offsets) * factors[:, None]
    found = dst_points - dst_points[:, None]
    distances = np.abs(expected)
    is_supported = (
        (np.abs(found - expected) < MAX_SUPPORT_ERROR * distances + MAX_SUPPORT_ERROR_PX)
        & (np.minimum(np.abs(offsets), np.abs(found)) > MIN_SUPPORT_DISTANCE_PX)
        & (is_mirrored == is_mirrored[:, None])
    )
    weights = matches.weights[mask]
    return float((is_supported @ weights + weights).max())
