"""Propose alignments of two images from their keypoints.

An affine transform is fitted to keypoint matches by RANSAC, and a homography if clearly more
matches agree with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.features import SMALL_GRAY_SIDE_PX, ImageFeatures
from pipeline.verify.homography import Homography, apply_homography, compute_scale
from pipeline.verify.keypoint_matches import match_keypoints
from pipeline.verify.keypoints import Keypoints

MIN_INLIERS = 6  # keypoint matches that must agree with an alignment
# An upright alignment with so many inliers is tried before the mirrored one is computed. By chance
# never more than 20 agree, but an image may resemble its own mirror image.
CONFIDENT_INLIERS = 40
AFFINE_REPROJ_PX = 6.0  # RANSAC: reprojection error of an inlier of an affine transform
HOMOGRAPHY_REPROJ_PX = 4.0  # the same for a homography
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


def propose_alignments(src: ImageFeatures, dst: ImageFeatures) -> Iterator[Alignment]:
    """Yield alignments from src to dst, the likeliest first; each is computed on demand.

    An upright one with at least CONFIDENT_INLIERS comes first. Then comes the mirrored one if it
    has more inliers, else the upright one. If both have fewer than MIN_INLIERS, the images are
    aligned as a whole. The result depends on the two images alone.
    """
    keypoints = (src.keypoints, dst.keypoints)
    upright_matches, mirrored_matches = match_keypoints(*keypoints)
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
    src_last, dst_last = (np.array(features.gray.shape[::-1]) - 1.0 for features in (src, dst))
    affine = cv2.getAffineTransform(
        (src_corners * src_last).astype(np.float32), (dst_corners * dst_last).astype(np.float32)
    )
    return Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), 0)


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
