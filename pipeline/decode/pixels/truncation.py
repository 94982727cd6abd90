"""JPEGs whose end is missing, which are decoded as far as they go."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.decode.pixels.color import split_into_strips

JPEG_END_MARKER = b"\xff\xd9"
# Of a truncated JPEG, the gray that libjpeg fills in for missing blocks: 127 to 129.
JPEG_FILLER_LEVEL = 127
JPEG_FILLER_RANGE = 2


def is_mostly_filler(image: Pillow.Image) -> bool:
    """Tell if more than half of a JPEG is the gray that libjpeg fills in for missing blocks.

    With half of it there, most of what the embedder gets is the photo. Measured on 200 photos with
    neardup-0, whose threshold is .85: no two photos that are cut at half score above .73, and .82
    at a quarter; a cut photo matches the whole one in 0 of 100 at a quarter, 26 at half, 95 at
    three quarters.
    """
    filler_pixels = sum(int(np.count_nonzero(is_filler)) for is_filler in _find_filler(image))
    return 2 * filler_pixels > image.width * image.height


def find_content_rows(image: Pillow.Image) -> int:
    """Return how many rows of a JPEG there are down to the last one that is not all filler."""
    row_count = content_rows = 0
    for is_filler in _find_filler(image):
        content = np.flatnonzero(~is_filler.all(axis=1))
        if len(content):
            content_rows = row_count + int(content[-1]) + 1
        row_count += len(is_filler)
    return content_rows


def _find_filler(image: Pillow.Image) -> Iterator[NDArray[np.bool_]]:
    """Yield strips of an image, from the top, as masks of the pixels that are filler."""
    for box in split_into_strips(image):
        # uint8: levels below 127 wrap around to large differences.
        difference = np.atleast_3d(np.asarray(image.crop(box))) - np.uint8(JPEG_FILLER_LEVEL)
        yield np.all(difference <= JPEG_FILLER_RANGE, axis=2)
