"""Decode JPEG and JPEG 2000 at a fraction of their size, which takes less time and memory."""

from __future__ import annotations

from math import ceil

from PIL import Image as Pillow

from pipeline.decode.preprocess import Preprocess

JPEG2000_CODESTREAM_START = b"\xff\x4f\xff\x51"
JPEG2000_CODING_STYLE_MARKER = 0x52
JPEG2000_TILE_MARKER = 0x90
MAX_JPEG2000_LEVELS = 8  # of halving, whatever the file claims
JPEG_SCALES = (8, 4, 2, 1)  # by which Pillow has libjpeg divide both sides


def reduce_jpeg(image: Pillow.Image, preprocess: Preprocess) -> bool:
    """Make libjpeg decode at 1/2, 1/4 or 1/8 where that leaves enough pixels; tell if it will.

    Enough is twice the size of `preprocess`; for coarse preprocessing, its size.
    """
    full_size = image.size
    image.draft("RGB", _compute_min_size(full_size, preprocess))
    return image.size != full_size


def has_same_jpeg_scale(size: tuple[int, int], first: Preprocess, second: Preprocess) -> bool:
    """Tell if reduce_jpeg() has a JPEG of `size` (width, height) decoded alike for both."""
    return _choose_jpeg_scale(size, first) == _choose_jpeg_scale(size, second)


def _choose_jpeg_scale(size: tuple[int, int], preprocess: Preprocess) -> int:
    """Choose what Pillow's draft() divides both sides by."""
    min_size = _compute_min_size(size, preprocess)
    ratio = min(size[0] // min_size[0], size[1] // min_size[1])
    return next((scale for scale in JPEG_SCALES if scale <= ratio), 1)


def _compute_min_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Compute the least (width, height) to decode a JPEG of `size` at."""
    if not preprocess.coarse:
        return 2 * preprocess.size, 2 * preprocess.size
    ratio = preprocess.size / max(size)
    return ceil(ratio * size[0]), ceil(ratio * size[1])


def reduce_jpeg2000(image: Pillow.Image, data: bytes, preprocess: Preprocess) -> int:
    """Make OpenJPEG decode at 1/2, 1/4 ... where that leaves twice the size of `preprocess`.

    Returns the factor by which both sides are divided.
    """
    factor = choose_jpeg2000_factor(image.size, data, preprocess)
    halvings = factor.bit_length() - 1
    image.reduce = halvings  # type: ignore[method-assign, assignment] # the plugin's own
    return factor


def choose_jpeg2000_factor(size: tuple[int, int], data: bytes, preprocess: Preprocess) -> int:
    """Choose the factor by which a JPEG 2000 of `size` (width, height) is reduced."""
    start = data.find(JPEG2000_CODESTREAM_START)
    # An image whose origin is not 0, 0 has other sizes.
    if start < 0 or any(data[start + 16 : start + 24]):
        return 1
    levels = min(_read_jpeg2000_levels(data, start), MAX_JPEG2000_LEVELS)

    def is_possible(factor: int) -> bool:
        # Pillow rounds a side where OpenJPEG takes the next integer: both must agree.
        has_same_sides = all(side % factor == 0 or side % factor * 2 >= factor for side in size)
        return has_same_sides and min(size) >= 2 * preprocess.size * factor

    return max(filter(is_possible, (1 << level for level in range(levels + 1))), default=1)


def _read_jpeg2000_levels(data: bytes, codestream_start: int) -> int:
    """Read how many times a JPEG 2000 can be halved; 0 if its header does not say."""
    position = codestream_start + 2
    while position + 10 <= len(data):
        marker = data[position + 1]
        if marker == JPEG2000_CODING_STYLE_MARKER:
            return data[position + 9]
        if marker == JPEG2000_TILE_MARKER:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0
