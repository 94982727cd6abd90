"""How one picture lies on another, by the keypoints that they share."""

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

MAX_RATIO = 0.85  # of the distances to the nearest and the second nearest, beyond which the nearest says nothing
MIN_INLIERS = 6  # keypoints that must agree
CONFIDENT_INLIERS = 40  # so many, and it is tried at once: by chance never more than 20 agree, but pictures may be like their mirror
AFFINE_REPROJ_PX, HOMOGRAPHY_REPROJ_PX = (
    6.0,
    4.0,
)  # pixels that they may be off, by an affine and by a projective transform
HOUGH_ANGLE_BIN_DEG, HOUGH_SCALE_BIN_OCTAVES = (
    15.0,
    0.4,
)  # of the bins in which turns, in degrees, and sizes, in powers of 2, are counted
MIN_WHOLE_IMAGE_NCC = (
    0.8  # the correlation from which on two pictures are laid on each other as a whole
)
MAX_SCALE_FACTOR = 12.0  # times larger or smaller


@dataclass(frozen=True, slots=True)
class Alignment:
    """`matrix` (3, 3) takes pixels (x, y, 1) of one picture to those of another; so many keypoints agree on it."""

    homography: Homography
    inliers: int


def propose_alignments(src: ImageFeatures, dst: ImageFeatures) -> Iterator[Alignment]:
    """Ways in which `one` may lie on `other`, to be tried in turn: upright where ENOUGH keypoints agree; upright or mirrored, as more of
    them say; all of one on all of the other, where fewer than LEAST agree either way. Each is worked out when it is asked for. The same for
    the same two, whatever was asked before.
    """
    upright = _align_keypoints(src.keypoints, dst.keypoints, mirrored=False)
    if upright and upright.inliers >= CONFIDENT_INLIERS:
        yield upright
    mirrored = _align_keypoints(src.keypoints, dst.keypoints, mirrored=True)
    if mirrored and (not upright or mirrored.inliers > upright.inliers):
        yield mirrored
    elif upright and upright.inliers < CONFIDENT_INLIERS:
        yield upright
    if not upright and not mirrored and (on_all := _align_whole_images(src, dst)):
        yield on_all


def _align_keypoints(src: Keypoints, dst: Keypoints, *, mirrored: bool) -> Alignment | None:
    """The transform that most keypoints agree on; None where fewer than LEAST do."""
    left, right = _match_descriptors(
        src.descriptors[:, MIRRORED_DESCRIPTOR_ORDER] if mirrored else src.descriptors,
        dst.descriptors,
    )
    agree = _hough_filter(src, dst, left, right, mirrored)
    if np.count_nonzero(agree) < MIN_INLIERS:
        return None
    start, end = _drop_duplicate_points(src.points[left[agree]], dst.points[right[agree]])
    if len(start) < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)
    affine, inside = cv2.estimateAffine2D(
        start,
        end,
        method=cv2.RANSAC,
        ransacReprojThreshold=AFFINE_REPROJ_PX,
        maxIters=500,
        confidence=0.995,
    )
    if affine is None or int(inside.sum()) < MIN_INLIERS:
        return None
    found = _upgrade_to_homography(
        Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), int(inside.sum())), start, end
    )
    return (
        found if 1 / MAX_SCALE_FACTOR < compute_scale(found.homography) < MAX_SCALE_FACTOR else None
    )


def _align_whole_images(src: ImageFeatures, dst: ImageFeatures) -> Alignment | None:
    """All of `one` on all of `other`, in the one of eight ways, turned or mirrored, that agrees best; None where none agrees well.

    For pictures that are too soft to have keypoints.
    """
    first, second = (
        sketch.small_gray.astype(np.float64) - sketch.small_gray.mean() for sketch in (src, dst)
    )
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    if lengths < 1.0:
        return None
    # As unit squares: what takes places (x, y) of the turned picture to those of the picture itself.
    agree = {}
    for turn in range(4):
        for mirrored in (False, True):
            turned = np.rot90(second[:, ::-1] if mirrored else second, turn)
            agree[turn, mirrored] = float((first * turned).sum()) / lengths
    turn, mirrored = max(agree, key=lambda way: agree[way])
    if (
        agree[turn, mirrored] < MIN_WHOLE_IMAGE_NCC
        or min(*src.gray.shape, *dst.gray.shape) < SMALL_GRAY_SIDE_PX
    ):
        return None
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    ends = corners.copy()
    for _ in range(turn):  # rot90 turns counterclockwise: the right edge becomes the top
        ends = np.column_stack([1.0 - ends[:, 1], ends[:, 0]])
    if mirrored:
        ends[:, 0] = 1.0 - ends[:, 0]
    places = [np.array(sketch.gray.shape[::-1]) - 1.0 for sketch in (src, dst)]
    affine = cv2.getAffineTransform(
        (corners * places[0]).astype(np.float32), (ends * places[1]).astype(np.float32)
    )
    return Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), 0)


def _match_descriptors(
    src_descriptors: NDArray[np.float32], dst_descriptors: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of looks of which the second is much nearer to the first than any other is (Lowe 2004, section 7.1)."""
    if len(src_descriptors) < MIN_INLIERS or len(dst_descriptors) < MIN_INLIERS:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    cosines = src_descriptors @ dst_descriptors.T
    everyone, nearest = np.arange(len(src_descriptors)), cosines.argmax(axis=1)
    first = cosines[everyone, nearest]
    cosines[everyone, nearest] = -1.0
    kept = np.flatnonzero(
        1.0 - first < MAX_RATIO**2 * (1.0 - cosines.max(axis=1))
    )  # squared distances are twice these
    return kept, nearest[kept]


def _hough_filter(
    src: Keypoints,
    dst: Keypoints,
    src_indices: NDArray[np.int64],
    dst_indices: NDArray[np.int64],
    mirrored: bool,
) -> NDArray[np.bool_]:
    """Those matches whose turn and change of size are near to what most of them say (a Hough vote)."""
    turn = (
        dst.angles[dst_indices] + src.angles[src_indices] - 180.0
        if mirrored
        else dst.angles[dst_indices] - src.angles[src_indices]
    ) % 360.0
    growth = np.log2(dst.sizes[dst_indices] / src.sizes[src_indices])
    turns = int(360 / HOUGH_ANGLE_BIN_DEG)
    row = np.floor(turn / HOUGH_ANGLE_BIN_DEG).astype(np.int64) % turns
    column = np.clip(np.floor(growth / HOUGH_SCALE_BIN_OCTAVES).astype(np.int64) + 12, 1, 24)
    votes = np.bincount(row * 26 + column, minlength=26 * turns).reshape(turns, 26)
    near = votes + np.roll(votes, 1, 0) + np.roll(votes, -1, 0)
    near[:, 1:-1] += near[:, :-2] + near[:, 2:]  # the outermost columns are empty
    top = np.unravel_index(np.argmax(near[:, 1:-1]), (turns, 24))
    top = top[0], top[1] + 1
    return np.asarray(
        (np.minimum((row - top[0]) % turns, (top[0] - row) % turns) <= 1)
        & (np.abs(column - top[1]) <= 1)
    )


def _drop_duplicate_points(
    src: NDArray[np.float32], dst: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Without those that begin or end within 2 pixels of another: one corner with three directions is one witness."""
    for _ in range(2):
        places = np.round(dst / 2.0) @ np.array([1 << 12, 1], np.float32)
        _, first = np.unique(places, return_index=True)
        src, dst = dst[np.sort(first)], src[np.sort(first)]
    return src, dst


def _upgrade_to_homography(
    affine_alignment: Alignment, src: NDArray[np.float32], dst: NDArray[np.float32]
) -> Alignment:
    """A projective transform, where clearly more keypoints agree on it than on the affine one."""
    if len(src) < 10:
        return affine_alignment
    cv2.setRNGSeed(0)
    matrix, inside = cv2.findHomography(
        src, dst, cv2.RANSAC, HOMOGRAPHY_REPROJ_PX, maxIters=500, confidence=0.995
    )
    if matrix is None:
        return affine_alignment
    before = int(
        (
            np.linalg.norm(apply_homography(affine_alignment.homography, src) - dst, axis=1)
            < HOMOGRAPHY_REPROJ_PX
        ).sum()
    )
    return (
        Alignment(matrix, int(inside.sum()))
        if inside.sum() > 1.1 * before + 2
        else affine_alignment
    )
