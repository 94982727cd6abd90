"""Propose alignments of two images from their keypoints.

Descriptors are matched by the ratio test, filtered by a Hough vote over rotation and scale, and
fitted by RANSAC: an affine transform first, a homography if clearly more matches agree with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.features import (
    MIRRORED_DESCRIPTOR_ORDER,
    SMALL_GRAY_SIDE_PX,
    ImageFeatures,
    Keypoints,
)
from pipeline.verify.homography import Homography, apply_homography, compute_scale

MAX_RATIO = 0.85  # ratio test: distance to the nearest descriptor over that to the second nearest
MIN_INLIERS = 6  # keypoint matches that must agree with an alignment
# An upright alignment with so many inliers is tried before the mirrored one is computed. By chance
# never more than 20 agree, but an image may resemble its own mirror image.
CONFIDENT_INLIERS = 40
AFFINE_REPROJ_PX = 6.0  # RANSAC: reprojection error of an inlier of an affine transform
HOMOGRAPHY_REPROJ_PX = 4.0  # the same for a homography
HOUGH_ANGLE_BIN_DEG = 15.0  # width of a bin of the Hough vote
HOUGH_SCALE_BIN_OCTAVES = 0.4  # the same for scale, as a power of 2
HOUGH_SCALE_BINS = 24  # half of them reduce, half enlarge
RANSAC_ITERATIONS = 500
RANSAC_CONFIDENCE = 0.995
DUPLICATE_CELL_PX = 2.0  # side of a cell in which keypoint matches count once
DUPLICATE_CELL_STRIDE = 1 << 12  # cells along y, at most, so that each cell has one number
# A homography replaces the affine transform if it has this multiple of its inliers, and these
# more. With fewer points it is not tried.
MIN_HOMOGRAPHY_GAIN = 1.1
MIN_HOMOGRAPHY_EXTRA_INLIERS = 2
MIN_HOMOGRAPHY_POINTS = 10
MIN_SMALL_GRAY_NORM = 1.0  # of the product of the norms; below, an image is too even to compare
MIN_WHOLE_IMAGE_NCC = 0.8  # of the 32 x 32 versions, to align two images without keypoints
MAX_SCALE_FACTOR = 12.0  # an alignment may enlarge or reduce by less than this


@dataclass(frozen=True, slots=True)
class Alignment:
    """A homography from pixels of the first image to the second, and its keypoint inliers."""

    homography: Homography
    inliers: int


def propose_alignments(src: ImageFeatures, dst: ImageFeatures) -> Iterator[Alignment]:
    """Yield alignments from src to dst, the likeliest first; each is computed on demand.

    An upright one with at least CONFIDENT_INLIERS comes first. Then comes the mirrored one if it
    has more inliers, else the upright one. If both have fewer than MIN_INLIERS, the images are
    aligned as a whole. The result depends on the two images alone.
    """
    upright = _align_keypoints(src.keypoints, dst.keypoints, mirrored=False)
    if upright and upright.inliers >= CONFIDENT_INLIERS:
        yield upright
    mirrored = _align_keypoints(src.keypoints, dst.keypoints, mirrored=True)
    if mirrored and (not upright or mirrored.inliers > upright.inliers):
        yield mirrored
    elif upright and upright.inliers < CONFIDENT_INLIERS:
        yield upright
    if not upright and not mirrored and (whole := _align_whole_images(src, dst)):
        yield whole


def _align_keypoints(src: Keypoints, dst: Keypoints, *, mirrored: bool) -> Alignment | None:
    """Fit the transform with the most inliers; None below MIN_INLIERS."""
    src_descriptors = src.descriptors[:, MIRRORED_DESCRIPTOR_ORDER] if mirrored else src.descriptors
    src_indices, dst_indices = _match_descriptors(src_descriptors, dst.descriptors)
    is_consistent = _filter_by_hough_vote(src, dst, src_indices, dst_indices, mirrored)
    if np.count_nonzero(is_consistent) < MIN_INLIERS:
        return None
    src_points, dst_points = _drop_duplicate_points(
        src.points[src_indices[is_consistent]], dst.points[dst_indices[is_consistent]]
    )
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
    src_gray, dst_gray = (
        features.small_gray.astype(np.float64) - features.small_gray.mean()
        for features in (src, dst)
    )
    norms = float(np.linalg.norm(src_gray) * np.linalg.norm(dst_gray))
    if norms < MIN_SMALL_GRAY_NORM:
        return None
    ncc = {}
    for quarter_turns in range(4):
        for mirrored in (False, True):
            turned = np.rot90(dst_gray[:, ::-1] if mirrored else dst_gray, quarter_turns)
            ncc[quarter_turns, mirrored] = float((src_gray * turned).sum()) / norms
    best = max(ncc, key=lambda orientation: ncc[orientation])
    if (
        ncc[best] < MIN_WHOLE_IMAGE_NCC
        or min(*src.gray.shape, *dst.gray.shape) < SMALL_GRAY_SIDE_PX
    ):
        return None
    quarter_turns, mirrored = best
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


def _match_descriptors(
    src_descriptors: NDArray[np.float32], dst_descriptors: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match unit descriptors (n, 128) and (m, 128) by the ratio test (Lowe 2004, section 7.1).

    Returns the indices of the matches, (k,) each.
    """
    if len(src_descriptors) < MIN_INLIERS or len(dst_descriptors) < MIN_INLIERS:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    cosines = src_descriptors @ dst_descriptors.T
    rows, nearest = np.arange(len(src_descriptors)), cosines.argmax(axis=1)
    best_cosine = cosines[rows, nearest]
    cosines[rows, nearest] = -1.0
    second_cosine = cosines.max(axis=1)
    # The squared distance of unit vectors is 2 (1 - cosine).
    matched = np.flatnonzero(1.0 - best_cosine < MAX_RATIO**2 * (1.0 - second_cosine))
    return matched, nearest[matched]


def _filter_by_hough_vote(
    src: Keypoints,
    dst: Keypoints,
    src_indices: NDArray[np.int64],
    dst_indices: NDArray[np.int64],
    mirrored: bool,
) -> NDArray[np.bool_]:
    """Keep the matches near the most voted rotation and scale (Hough vote); a mask (k,)."""
    rotation_deg = (
        dst.angles[dst_indices] + src.angles[src_indices] - 180.0
        if mirrored
        else dst.angles[dst_indices] - src.angles[src_indices]
    ) % 360.0
    octaves = np.log2(dst.sizes[dst_indices] / src.sizes[src_indices])
    angle_bins = int(360 / HOUGH_ANGLE_BIN_DEG)
    row = np.floor(rotation_deg / HOUGH_ANGLE_BIN_DEG).astype(np.int64) % angle_bins
    # The first and the last column stay empty, so that sums over neighbors need no wrap.
    columns, middle = HOUGH_SCALE_BINS + 2, HOUGH_SCALE_BINS // 2
    column = np.floor(octaves / HOUGH_SCALE_BIN_OCTAVES).astype(np.int64) + middle
    column = np.clip(column, 1, HOUGH_SCALE_BINS)
    votes = np.bincount(row * columns + column, minlength=angle_bins * columns)
    votes = votes.reshape(angle_bins, columns)
    smoothed = votes + np.roll(votes, 1, 0) + np.roll(votes, -1, 0)
    smoothed[:, 1:-1] += smoothed[:, :-2] + smoothed[:, 2:]
    top_row, top_column = np.unravel_index(
        np.argmax(smoothed[:, 1:-1]), (angle_bins, HOUGH_SCALE_BINS)
    )
    top_column = top_column + 1
    row_distance = np.minimum((row - top_row) % angle_bins, (top_row - row) % angle_bins)
    return np.asarray((row_distance <= 1) & (np.abs(column - top_column) <= 1))


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
    """Fit a homography by RANSAC; keep the affine one unless clearly more matches agree."""
    if len(src) < MIN_HOMOGRAPHY_POINTS:
        return affine_alignment
    cv2.setRNGSeed(0)
    H, inlier_mask = cv2.findHomography(
        src,
        dst,
        cv2.RANSAC,
        HOMOGRAPHY_REPROJ_PX,
        maxIters=RANSAC_ITERATIONS,
        confidence=RANSAC_CONFIDENCE,
    )
    if H is None:
        return affine_alignment
    affine_errors = np.linalg.norm(apply_homography(affine_alignment.homography, src) - dst, axis=1)
    affine_inliers = int((affine_errors < HOMOGRAPHY_REPROJ_PX).sum())
    if inlier_mask.sum() > MIN_HOMOGRAPHY_GAIN * affine_inliers + MIN_HOMOGRAPHY_EXTRA_INLIERS:
        return Alignment(H, int(inlier_mask.sum()))
    return affine_alignment
