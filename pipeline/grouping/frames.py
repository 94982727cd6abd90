"""Compare animations and documents as such: by the digests of their frames, and the order of these.

A still that equals a frame is a part of the animation, and so is an animation whose frames are all
in a longer one. If each file has frames that the other lacks, or the same ones in another order,
the two overlap: neither can stand for the other.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from indexes.metadata import FRAMES, PAGES, Frames
from pipeline.decode.metadata.frame_digest import STILL_DIGEST_SIDE, parse_digest
from pipeline.verify.relation import COPY_RELATIONS, Relation, Side

# The greatest standard deviation of the difference of two digests of one frame, in gray levels.
# Measured with digests of 16 x 16 cells: other pages of text 4.7 and up; pages saved as JPEG of
# quality 30 at .35 to 1.4 of their size up to 3.6; frames as GIF, WebP, PNG and AVIF at .4 and 1 of
# their size up to 2.6, in a fade from black at WebP quality 20 up to 6.3. With the 8 x 8 cells of a
# still: other pages 2.4 and up, the same page up to 2.2.
MAX_DIFFERENCE_LEVELS = {  # by: is one a document, is one a still
    (False, False): 6.5,
    (False, True): 4.0,
    (True, False): 4.0,
    (True, True): 2.3,
}
MAX_MEAN_DIFFERENCE_LEVELS = 8.0
# All pages of text look alike in 8 x 8 cells. So all but the page that a still equals must differ
# from it this many times as much: 1.21 and up if the still is one of the pages, up to 1.14 if it is
# of another document.
MIN_OTHER_PAGE_RATIO = 1.2
# Bounds of the changes in an edited animation. Measured on 19 clips of 4 to 10 frames, 8 edits each
# (brightness, contrast, colors, gray, sepia, a watermark): the difference is at most 4.5 levels in
# 142 of 152, the factor 1.4. With the last frame replaced by the first the difference is at least
# 6.1, but for 2.3 in a clip in which nothing moves; in reversed order at least 7.8.
MIN_FRAMES_FOR_CHANGES = 3
MAX_CONTRAST_FACTOR = 2.0
MAX_CHANGE_DIFFERENCE_LEVELS = 4.5
# A frame with less contrast is blank, and equal to others by chance.
MIN_CONTRAST_LEVELS = 3.0


class Sharing(Enum):
    """A finding about the frames of two files: which of them both have."""

    ALL = "both have the same frames"
    FIRST_IN_SECOND = "the second has all frames of the first, and more"
    SECOND_IN_FIRST = "the first has all frames of the second, and more"
    SOME = "each has frames that the other lacks, or has them in another order"
    NONE_KNOWN = "no frame that both have is known"


def relate_frames(relation: Relation, first: Frames | None, second: Frames | None) -> Relation:
    """Return the relation of two files whose representative frames have this `relation`.

    Stills keep it, and so do copies that have the same frames in the same order.
    """
    if first is None or second is None or relation == Relation.IDENTICAL_BYTES:
        return relation
    hosts = [frames for frames in (first, second) if _has_several(frames)]
    if not hosts:
        return relation
    is_copy = relation in COPY_RELATIONS
    sharing = compare_frames(first, second)
    if len(hosts) == 1:
        is_part = is_copy or sharing in (Sharing.FIRST_IN_SECOND, Sharing.SECOND_IN_FIRST)
        return _get_part_relation(hosts[0]) if is_part else relation
    if sharing is Sharing.ALL or is_copy and have_same_changes(first, second):
        return relation
    if sharing is Sharing.FIRST_IN_SECOND:
        return _get_part_relation(second)
    if sharing is Sharing.SECOND_IN_FIRST:
        return _get_part_relation(first)
    return Relation.OVERLAPS if is_copy or sharing is Sharing.SOME else relation


def find_part_side(first: Frames, second: Frames) -> Side:
    """Return which of two files is the part, where relate_frames() relates them as one."""
    if _has_several(first) and _has_several(second):
        return Side.FIRST if first.count < second.count else Side.SECOND
    return Side.SECOND if _has_several(first) else Side.FIRST


def _has_several(frames: Frames) -> bool:
    """Tell if a file is an animation or a document; a photo with its preview is a still."""
    return frames.kind is not None and frames.count > 1


def compare_frames(first: Frames, second: Frames) -> Sharing:
    """Compare two files by the digests of their frames.

    Of longer files, only some frames have digests: those of two files with equally many frames are
    at the same positions. Documents with pages that were not compared are never the same. Files of
    other counts are the same if only frames that follow an equal one are added, as some programs
    merge them.
    """
    equal = _match_digests(first, second)
    if not equal.size:
        return Sharing.NONE_KNOWN
    is_complete = [frames.count == len(frames.digests) for frames in (first, second)]
    if first.count == second.count:
        is_same = bool(np.diagonal(equal).all())
        has_unseen_pages = PAGES in (first.kind, second.kind) and not all(is_complete)
        if is_same and (has_unseen_pages or _have_changed_pages(first, second)):
            return Sharing.SOME
    else:
        is_same = all(is_complete) and _can_be_warped(equal)
    if is_same:
        return Sharing.ALL
    if is_complete[0] and first.count < second.count and _is_in_order(equal):
        return Sharing.FIRST_IN_SECOND
    if is_complete[1] and second.count < first.count and _is_in_order(equal.T):
        return Sharing.SECOND_IN_FIRST
    with_contrast = np.ix_(_have_contrast(first), _have_contrast(second))
    return Sharing.SOME if equal[with_contrast].any() else Sharing.NONE_KNOWN


def _have_changed_pages(first: Frames, second: Frames) -> bool:
    """Tell if some pages have equal pixels and others do not, as where a page was written on.

    A program that encodes a document again changes all its pages, or none.
    """
    equal = [left == right for left, right in zip(first.checksums, second.checksums, strict=False)]
    return any(equal) and not all(equal)


def have_same_changes(first: Frames, second: Frames) -> bool:
    """Tell if two animations change in the same way: one is the other recolored, or written on.

    The changes from the mean frame must be equal, up to the brightness of each frame and one factor
    for the contrast of all. This says nothing of documents, whose pages differ by less.
    """
    sides = [_parse_all(frames) for frames in (first, second)]
    if sides[0].shape != sides[1].shape or len(sides[0]) < MIN_FRAMES_FOR_CHANGES:
        return False
    if first.count != second.count or not first.kind == second.kind == FRAMES:
        return False
    left, right = (_find_changes(levels) for levels in sides)
    sizes = [float(np.sqrt((changes * changes).sum())) for changes in (left, right)]
    if not min(sizes) > 0 or max(sizes) > MAX_CONTRAST_FACTOR * min(sizes):
        return False
    scale = np.sqrt(sizes[1] / sizes[0])
    difference = right / scale - left * scale
    return bool((difference.std(axis=(1, 2)) <= MAX_CHANGE_DIFFERENCE_LEVELS).all())


def _find_changes(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract from the cells of each frame their mean, and then the mean frame."""
    even = levels - levels.mean(axis=(1, 2), keepdims=True)
    return np.asarray(even - even.mean(axis=0))


def _get_part_relation(host: Frames) -> Relation:
    return Relation.PAGE_OF if host.kind == PAGES else Relation.FRAME_OF


def _match_digests(first: Frames, second: Frames) -> NDArray[np.bool_]:
    """Tell which frames of two files are equal, (frames, frames).

    A blank still equals none, nor does a broken frame: its NaN is in no bounds.
    """
    left, right = _parse_all(first), _parse_all(second)
    with_still = left.shape[1] != right.shape[1] or 1 in (len(left), len(right))
    if with_still:
        left, right = _shrink(left), _shrink(right)
    if left.shape[1:] != right.shape[1:]:
        return np.zeros((len(left), len(right)), np.bool_)
    has_pages = PAGES in (first.kind, second.kind)
    most = MAX_DIFFERENCE_LEVELS[has_pages, with_still]
    difference = left[:, None] - right[None, :]
    spread, offset = difference.std(axis=(2, 3)), np.abs(difference.mean(axis=(2, 3)))
    equal = (spread <= most) & (offset <= MAX_MEAN_DIFFERENCE_LEVELS)
    if has_pages and with_still:
        closest = np.nanmin(spread, initial=np.inf)
        equal &= np.count_nonzero(spread < MIN_OTHER_PAGE_RATIO * closest) == 1
    if first.kind is None:
        equal &= _have_contrast(first)[:, None]
    if second.kind is None:
        equal &= _have_contrast(second)[None, :]
    return np.asarray(equal)


def _parse_all(frames: Frames) -> NDArray[np.float64]:
    """Return the gray levels (frames, side, side) of all digests; NaN where one is broken."""
    parsed = [parse_digest(digest) for digest in frames.digests]
    side = max((len(levels) for levels in parsed if levels is not None), default=1)
    broken = np.full((side, side), np.nan)
    return np.array(
        [broken if levels is None or len(levels) != side else levels for levels in parsed]
    ).reshape(len(parsed), side, side)


def _shrink(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the cells of digests down to those of a still."""
    factor = max(1, levels.shape[1] // STILL_DIGEST_SIDE)
    side = levels.shape[1] // factor
    blocks = levels[:, : side * factor, : side * factor]
    return np.asarray(blocks.reshape(len(levels), side, factor, side, factor).mean(axis=(2, 4)))


def _have_contrast(frames: Frames) -> NDArray[np.bool_]:
    """Tell which frames of a file are not blank."""
    return np.asarray(_parse_all(frames).std(axis=(1, 2)) >= MIN_CONTRAST_LEVELS)


def _can_be_warped(equal: NDArray[np.bool_]) -> bool:
    """Tell if two sequences are the same when each of their frames may be repeated.

    This is dynamic time warping at no cost: a path of equal frames from the first pair to the last.
    """
    reached = np.zeros_like(equal)
    for row, column in np.argwhere(equal):  # in the order of rows, then columns
        above = reached[max(0, row - 1) : row + 1, max(0, column - 1) : column + 1]
        reached[row, column] = above.any() or (row == 0 and column == 0)
    return bool(reached[-1, -1])


def _is_in_order(equal: NDArray[np.bool_]) -> bool:
    """Tell if all frames of the first file are in the second, in their order."""
    position = 0
    for row in equal:
        later = np.flatnonzero(row[position:])
        if not len(later):
            return False
        position += int(later[0])
    return True
