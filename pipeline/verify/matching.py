"""Propose alignments of two images from their keypoints.

Descriptors are matched by the ratio test, upright and mirrored at once, and filtered by a Hough
vote over rotation and scale, in which most strangers show by half of their keypoints. An affine
transform is fitted by RANSAC, and a homography if clearly more matches agree with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.features import SMALL_GRAY_SIDE_PX, ImageFeatures, Keypoints
from pipeline.verify.homography import Homography, apply_homography, compute_scale

MAX_RATIO = 0.85  # ratio test: distance to the nearest descriptor over that to the second nearest
# Two images are strangers if a Hough vote of half of the keypoints has less weight: 74 % of 385
# pairs of strangers have, and one of 3,076 pairs of copies.
MIN_VOTE_WEIGHT = 1.0
MAX_VOTE_RATIO = 0.9  # ratio test of that vote; at MAX_RATIO four copies are lost for 73 %
MIN_KEYPOINTS_TO_HALVE = 200  # with fewer, half of them are too few to tell
MIN_DISTANCE = 1e-6  # squared, of unit vectors, in a ratio
MIN_INLIERS = 6  # keypoint matches that must agree with an alignment
# An upright alignment with so many inliers is tried before the mirrored one is computed. By chance
# never more than 20 agree, but an image may resemble its own mirror image.
CONFIDENT_INLIERS = 40
AFFINE_REPROJ_PX = 6.0  # RANSAC: reprojection error of an inlier of an affine transform
HOMOGRAPHY_REPROJ_PX = 4.0  # the same for a homography
HOUGH_ANGLE_BIN_DEG = 15.0  # width of a bin of the Hough vote
HOUGH_SCALE_BIN_OCTAVES = 0.4  # the same for scale, as a power of 2
HOUGH_SCALE_BINS = 24  # half of them reduce, half enlarge
HOUGH_ANGLE_BINS = int(360 / HOUGH_ANGLE_BIN_DEG)
RANSAC_ITERATIONS = 500
RANSAC_CONFIDENCE = 0.995
DUPLICATE_CELL_PX = 2.0  # side of a cell in which keypoint matches count once
DUPLICATE_CELL_STRIDE = 1 << 12  # cells along y, at most, so that each cell has one number
# A homography replaces the affine transform if it has this multiple of its inliers, and these
# more. With fewer points it is not tried.
MIN_HOMOGRAPHY_GAIN = 1.1
MIN_HOMOGRAPHY_EXTRA_INLIERS = 2
MIN_HOMOGRAPHY_POINTS = 10
MIN_WHOLE_IMAGE_NCC = 0.8  # of the 32 x 32 versions, to align two images without keypoints
MAX_SCALE_FACTOR = 12.0  # an alignment may enlarge or reduce by less than this


@dataclass(frozen=True, slots=True)
class Alignment:
    """A homography from pixels of the first image to the second, and its keypoint inliers."""

    homography: Homography
    inliers: int


class _Matches(NamedTuple):
    """Keypoint matches.

    `indices` (3, k): the keypoint in the first image, that in the second, and 1 if the match is
    mirrored, else 0; `ratios` (k,): the squared distance to the nearest descriptor over that to the
    second nearest.
    """

    indices: NDArray[np.intp]
    ratios: NDArray[np.float32]


def propose_alignments(src: ImageFeatures, dst: ImageFeatures) -> Iterator[Alignment]:
    """Yield alignments from src to dst, the likeliest first; each is computed on demand.

    An upright one with at least CONFIDENT_INLIERS comes first. Then comes the mirrored one if it
    has more inliers, else the upright one. If both have fewer than MIN_INLIERS, the images are
    aligned as a whole. The result depends on the two images alone.
    """
    keypoints = (src.keypoints, dst.keypoints)
    upright_matches, mirrored_matches = _match_keypoints(*keypoints)
    upright = _fit_alignment(*keypoints, upright_matches)
    if upright and upright.inliers >= CONFIDENT_INLIERS:
        yield upright
    mirrored = _fit_alignment(*keypoints, mirrored_matches)
    if mirrored and (not upright or mirrored.inliers > upright.inliers):
        yield mirrored
    elif upright and upright.inliers < CONFIDENT_INLIERS:
        yield upright
    if not upright and not mirrored and (whole := _align_whole_images(src, dst)):
        yield whole


def _fit_alignment(src: Keypoints, dst: Keypoints, pairs: NDArray[np.intp]) -> Alignment | None:
    """Fit the transform with the most inliers to pairs of indices (2, k).

    None below MIN_INLIERS.
    """
    if pairs.shape[1] < MIN_INLIERS:
        return None
    src_points, dst_points = _drop_duplicate_points(src.points[pairs[0]], dst.points[pairs[1]])
    if len(src_points) < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)
    affine, inlier_mask = cv2.estimateAffine2D(
        src_points,
        dst_points,
        method=cv2.RANSAC,
        ransacReprojThreshold=AFFINE_REPROJ_PX,
        maxIters=RANSAC_ITERATIONS,
        confidence=RANSAC_CONFIDENCE,
    )
    if affine is None or int(inlier_mask.sum()) < MIN_INLIERS:
        return None
    affine_alignment = Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), int(inlier_mask.sum()))
    alignment = _upgrade_to_homography(affine_alignment, src_points, dst_points)
    scale = compute_scale(alignment.homography)
    return alignment if 1 / MAX_SCALE_FACTOR < scale < MAX_SCALE_FACTOR else None


def _align_whole_images(src: ImageFeatures, dst: ImageFeatures) -> Alignment | None:
    """Align all of src with all of dst in the best of eight orientations; None if none agrees.

    For images that are too soft to have keypoints.
    """
    ncc = dst.oriented_small_gray @ src.oriented_small_gray[0]
    best = int(ncc.argmax())
    if (
        ncc[best] < MIN_WHOLE_IMAGE_NCC
        or min(*src.gray.shape, *dst.gray.shape) < SMALL_GRAY_SIDE_PX
    ):
        return None
    quarter_turns, mirrored = divmod(best, 2)
    # Three corners in unit coordinates: of the turned image, and of the image itself.
    src_corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    dst_corners = src_corners.copy()
    for _ in range(quarter_turns):  # rot90 turns counterclockwise: the right edge becomes the top
        dst_corners = np.column_stack([1.0 - dst_corners[:, 1], dst_corners[:, 0]])
    if mirrored:
        dst_corners[:, 0] = 1.0 - dst_corners[:, 0]
    src_extent, dst_extent = (np.array(features.gray.shape[::-1]) - 1.0 for features in (src, dst))
    affine = cv2.getAffineTransform(
        (src_corners * src_extent).astype(np.float32), (dst_corners * dst_extent).astype(np.float32)
    )
    return Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), 0)


def _match_keypoints(src: Keypoints, dst: Keypoints) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Match keypoints, upright and mirrored; returns their indices (2, k) in both images.

    There are none if half of the keypoints show that the images are strangers.
    """
    none = np.empty((2, 0), np.intp)
    if min(len(src.points), len(dst.points)) < MIN_INLIERS:
        return none, none
    step = 2 if len(src.points) >= MIN_KEYPOINTS_TO_HALVE else 1
    matches = _match_descriptors(src, dst, 0, step)
    if step == 2:
        if _vote(src, dst, matches)[1] < MIN_VOTE_WEIGHT:
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

    A match has weight 1 if it is perfect, 0 at MAX_VOTE_RATIO. Upright and mirrored matches vote
    apart. Returns a mask (k,), and the larger of both weights.
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
        1.0 - matches.ratios / MAX_VOTE_RATIO**2,
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


def _drop_duplicate_points(
    src: NDArray[np.float32], dst: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Drop matches that share a cell of DUPLICATE_CELL_PX with another one in either image.

    One corner may have keypoints of several directions; it counts once.
    """
    for _ in range(2):
        cells = np.round(dst / DUPLICATE_CELL_PX) @ np.array([DUPLICATE_CELL_STRIDE, 1], np.float32)
        _, first_in_cell = np.unique(cells, return_index=True)
        src, dst = dst[np.sort(first_in_cell)], src[np.sort(first_in_cell)]
    return src, dst


def _upgrade_to_homography(
    affine_alignment: Alignment, src: NDArray[np.float32], dst: NDArray[np.float32]
) -> Alignment:
    """Fit a homography by MAGSAC; keep the affine one unless clearly more matches agree.

    It is as exact as RANSAC, in a sixth of the time where inliers are few.
    """
    affine_errors = np.linalg.norm(apply_homography(affine_alignment.homography, src) - dst, axis=1)
    affine_inliers = int(np.count_nonzero(affine_errors < HOMOGRAPHY_REPROJ_PX))
    max_rejected = MIN_HOMOGRAPHY_GAIN * affine_inliers + MIN_HOMOGRAPHY_EXTRA_INLIERS
    if len(src) < MIN_HOMOGRAPHY_POINTS or len(src) <= max_rejected:
        return affine_alignment
    H, inlier_mask = cv2.findHomography(
        src,
        dst,
        cv2.USAC_MAGSAC,
        HOMOGRAPHY_REPROJ_PX,
        maxIters=RANSAC_ITERATIONS,
        confidence=RANSAC_CONFIDENCE,
    )
    if H is None or inlier_mask.sum() <= max_rejected:
        return affine_alignment
    return Alignment(H, int(inlier_mask.sum()))
