"""How one picture lies on another, by the keypoints that they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.features import MIRRORED, SMALL, Keypoints, Sketch
from pipeline.verify.homography import Matrix, moved, scale_of

RATIO = 0.85  # of the distances to the nearest and the second nearest, beyond which the nearest says nothing
LEAST = 6  # keypoints that must agree
ENOUGH = 40  # so many, and it is tried at once: by chance never more than 20 agree, but pictures may be like their mirror
REACH, TIGHT = 6.0, 4.0  # pixels that they may be off, by an affine and by a projective transform
TURN, OCTAVE = 15.0, 0.4  # of the bins in which turns, in degrees, and sizes, in powers of 2, are counted
ALIKE = 0.8  # the correlation from which on two pictures are laid on each other as a whole
MOST_SCALED = 12.0  # times larger or smaller


@dataclass(frozen=True, slots=True)
class Alignment:
    """`matrix` (3, 3) takes pixels (x, y, 1) of one picture to those of another; so many keypoints agree on it."""

    matrix: Matrix
    agreeing: int


def alignments(one: Sketch, other: Sketch) -> Iterator[Alignment]:
    """Ways in which `one` may lie on `other`, to be tried in turn: upright where ENOUGH keypoints agree; upright or mirrored, as more of
    them say; all of one on all of the other, where fewer than LEAST agree either way. Each is worked out when it is asked for. The same for
    the same two, whatever was asked before.
    """
    upright = _aligned(one.keypoints, other.keypoints, mirrored=False)
    if upright and upright.agreeing >= ENOUGH:
        yield upright
    mirrored = _aligned(one.keypoints, other.keypoints, mirrored=True)
    if mirrored and (not upright or mirrored.agreeing > upright.agreeing):
        yield mirrored
    elif upright and upright.agreeing < ENOUGH:
        yield upright
    if not upright and not mirrored and (on_all := _whole(one, other)):
        yield on_all


def _aligned(one: Keypoints, other: Keypoints, *, mirrored: bool) -> Alignment | None:
    """The transform that most keypoints agree on; None where fewer than LEAST do."""
    left, right = _matched(one.looks[:, MIRRORED] if mirrored else one.looks, other.looks)
    agree = _agreeing(one, other, left, right, mirrored)
    if np.count_nonzero(agree) < LEAST:
        return None
    start, end = _apart(one.places[left[agree]], other.places[right[agree]])
    if len(start) < LEAST:
        return None
    cv2.setRNGSeed(0)
    affine, inside = cv2.estimateAffine2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=REACH, maxIters=500, confidence=0.995)
    if affine is None or int(inside.sum()) < LEAST:
        return None
    found = _projective(Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), int(inside.sum())), start, end)
    return found if 1 / MOST_SCALED < scale_of(found.matrix) < MOST_SCALED else None


def _whole(one: Sketch, other: Sketch) -> Alignment | None:
    """All of `one` on all of `other`, in the one of eight ways, turned or mirrored, that agrees best; None where none agrees well.

    For pictures that are too soft to have keypoints.
    """
    first, second = (sketch.small.astype(np.float64) - sketch.small.mean() for sketch in (one, other))
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
    if agree[turn, mirrored] < ALIKE or min(*one.grey.shape, *other.grey.shape) < SMALL:
        return None
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    ends = corners.copy()
    for _ in range(turn):  # rot90 turns counterclockwise: the right edge becomes the top
        ends = np.column_stack([1.0 - ends[:, 1], ends[:, 0]])
    if mirrored:
        ends[:, 0] = 1.0 - ends[:, 0]
    places = [np.array(sketch.grey.shape[::-1]) - 1.0 for sketch in (one, other)]
    affine = cv2.getAffineTransform((corners * places[0]).astype(np.float32), (ends * places[1]).astype(np.float32))
    return Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), 0)


def _matched(one: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of looks of which the second is much nearer to the first than any other is (Lowe 2004, section 7.1)."""
    if len(one) < LEAST or len(other) < LEAST:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    cosines = one @ other.T
    everyone, nearest = np.arange(len(one)), cosines.argmax(axis=1)
    first = cosines[everyone, nearest]
    cosines[everyone, nearest] = -1.0
    kept = np.flatnonzero(1.0 - first < RATIO**2 * (1.0 - cosines.max(axis=1)))  # squared distances are twice these
    return kept, nearest[kept]


def _agreeing(one: Keypoints, other: Keypoints, left: NDArray[np.int64], right: NDArray[np.int64], mirrored: bool) -> NDArray[np.bool_]:
    """Those matches whose turn and change of size are near to what most of them say (a Hough vote)."""
    turn = (other.angles[right] + one.angles[left] - 180.0 if mirrored else other.angles[right] - one.angles[left]) % 360.0
    growth = np.log2(other.sizes[right] / one.sizes[left])
    turns = int(360 / TURN)
    row = np.floor(turn / TURN).astype(np.int64) % turns
    column = np.clip(np.floor(growth / OCTAVE).astype(np.int64) + 12, 1, 24)
    votes = np.bincount(row * 26 + column, minlength=26 * turns).reshape(turns, 26)
    near = votes + np.roll(votes, 1, 0) + np.roll(votes, -1, 0)
    near[:, 1:-1] += near[:, :-2] + near[:, 2:]  # the outermost columns are empty
    top = np.unravel_index(np.argmax(near[:, 1:-1]), (turns, 24))
    top = top[0], top[1] + 1
    return np.asarray((np.minimum((row - top[0]) % turns, (top[0] - row) % turns) <= 1) & (np.abs(column - top[1]) <= 1))


def _apart(start: NDArray[np.float32], end: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Without those that begin or end within 2 pixels of another: one corner with three directions is one witness."""
    for _ in range(2):
        places = np.round(end / 2.0) @ np.array([1 << 12, 1], np.float32)
        _, first = np.unique(places, return_index=True)
        start, end = end[np.sort(first)], start[np.sort(first)]
    return start, end


def _projective(found: Alignment, start: NDArray[np.float32], end: NDArray[np.float32]) -> Alignment:
    """A projective transform, where clearly more keypoints agree on it than on the affine one."""
    if len(start) < 10:
        return found
    cv2.setRNGSeed(0)
    matrix, inside = cv2.findHomography(start, end, cv2.RANSAC, TIGHT, maxIters=500, confidence=0.995)
    if matrix is None:
        return found
    before = int((np.linalg.norm(moved(found.matrix, start) - end, axis=1) < TIGHT).sum())
    return Alignment(matrix, int(inside.sum())) if inside.sum() > 1.1 * before + 2 else found
