"""Find which of two copies lost bits, where each alone looks sound.

A flipped bit can leave a JPEG whose scan has the right length and whose content goes on in its
place: only a few blocks are wrong. Beside a sound copy they show. The two have as many bytes, and
equal pixels elsewhere, as no re-encoded copy has; and at the edges of the blocks that differ, the
pixels of the damaged one fit the equal ones around them less.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from indexes.records import FLAG_DAMAGED
from pipeline.decode.damage.jpeg_layout import BLOCK_PIXELS
from pipeline.decode.decode import Decoded
from pipeline.decode.preprocess import Preprocess
from pipeline.ingest.progress import IngestContext
from pipeline.thumbnails import read_images
from pipeline.verify.relation import Relation, Side

MAX_SIDE_PIXELS = 16_384
MAX_PIXELS = 40_000_000  # both images are in memory at once
FULL_SIZE = Preprocess(MAX_SIDE_PIXELS, "within")
# Share of the pixels from which two JPEGs of one scan can be recognized.
MIN_EQUAL_SHARE = 0.2
MIN_DIFFERENCE_LEVELS = 2.0  # of luma, from which a block counts
# How much larger the steps at the edges of the blocks are in the damaged image. Of 219 JPEGs with a
# flipped bit, 168 have such blocks; 109 of them reach this ratio, and no sound one does.
MIN_STEP_RATIO = 1.15
# How much larger the share of clipped pixels is in blocks that went out of range.
MIN_CLIPPING_EXCESS = 0.2
COMPARED_RELATIONS = (
    Relation.SAME_PICTURE,
    Relation.DERIVED,
    Relation.OVERLAPS,
    Relation.ANOTHER_SHOT,
    Relation.SIMILAR,
)


def flag_rotten_copies(
    context: IngestContext, new_images: AbstractSet[int] | None
) -> Iterator[int]:
    """Flag the damaged one of each two JPEGs that are one file but for a few bytes.

    `new_images` are those of pairs that this run verified, by id: of others an earlier run has
    decided. None for all images. Yields the id of each image that was flagged, after it is
    committed.
    """
    store = context.store
    for pair in store.catalog.verdicts.find_pairs_of_equal_size("JPEG", COMPARED_RELATIONS):
        if new_images is not None and new_images.isdisjoint(pair):
            continue
        images = dict(store.catalog.images.get(pair))
        if any(image.is_damaged or image.pixel_count > MAX_PIXELS for image in images.values()):
            continue
        pixels = {
            id_: result.pixels
            for id_, result in read_images(store, context.decoders, images, FULL_SIZE)
            if isinstance(result, Decoded)
        }
        if len(pixels) < len(pair):
            continue  # away, or changed since
        if side := find_damaged_side(pixels[pair[0]], pixels[pair[1]]):
            id_ = pair[0] if side is Side.FIRST else pair[1]
            image = images[id_]
            store.update_metadata({id_: replace(image, flags=(*image.flags, FLAG_DAMAGED))})
            yield id_


def find_damaged_side(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Side | None:
    """Find the damaged one of two images, uint8 RGB (height, width, 3), of one scan.

    None if they are not of one scan, or if their steps do not tell which one is damaged.
    """
    if first.shape != second.shape:
        return None
    if (first == second).all(axis=2).mean() < MIN_EQUAL_SHARE:
        return None
    levels = [pixels.mean(axis=2, dtype=np.float32) for pixels in (first, second)]
    differs = _cover_blocks(np.abs(levels[0] - levels[1]) > MIN_DIFFERENCE_LEVELS)
    clipped = [_measure_clipping(pixels, differs) for pixels in (first, second)]
    if abs(clipped[0] - clipped[1]) > MIN_CLIPPING_EXCESS:
        return Side.FIRST if clipped[0] > clipped[1] else Side.SECOND
    steps = [_measure_steps(image_levels, differs) for image_levels in levels]
    if steps[0] > MIN_STEP_RATIO * steps[1]:
        return Side.FIRST
    return Side.SECOND if steps[1] > MIN_STEP_RATIO * steps[0] else None


def _cover_blocks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask of the blocks that hold any pixel of a mask (height, width)."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % BLOCK_PIXELS), (0, -width % BLOCK_PIXELS)))
    rows, columns = padded.shape[0] // BLOCK_PIXELS, padded.shape[1] // BLOCK_PIXELS
    blocks = padded.reshape(rows, BLOCK_PIXELS, columns, BLOCK_PIXELS).any(axis=(1, 3))
    return np.kron(blocks, np.ones((BLOCK_PIXELS, BLOCK_PIXELS), np.bool_))[:height, :width]


def _measure_clipping(pixels: NDArray[np.uint8], differs: NDArray[np.bool_]) -> float:
    """Return the share of the pixels in blocks that differ with a sample that is black or full."""
    samples = pixels[differs]
    if not len(samples):
        return 0.0
    return float(((samples <= 1) | (samples >= 254)).any(axis=1).mean())


def _measure_steps(levels: NDArray[np.float32], differs: NDArray[np.bool_]) -> float:
    """Return the mean step between neighbors, one of them in a block that differs."""
    total, count = 0.0, 0
    for axis in (0, 1):
        is_edge = np.diff(differs, axis=axis)
        total += float(np.abs(np.diff(levels, axis=axis))[is_edge].sum())
        count += int(is_edge.sum())
    return total / count if count else 0.0
