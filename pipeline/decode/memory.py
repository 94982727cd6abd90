"""Bound the memory that decoding takes: large files and large images are handled one at a time.

At most one large file and one large image are in memory, however many are decoded in parallel.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

from pipeline.decode.formats import FailureReason
from pipeline.decode.read import Rejected

# Larger files are held in memory one at a time.
MAX_PARALLEL_FILE_BYTES = 1 << 25
# Larger images are decoded one at a time.
MAX_PARALLEL_PIXELS = 16_000_000
# Larger images are rejected. Pillow takes 4 bytes a pixel, and twice that while it converts. A
# JPEG counts at the reduced size at which it is decoded.
MAX_PIXELS = 100_000_000
# A progressive JPEG keeps all coefficients at full size, however small it is decoded: 3 to 6
# bytes a pixel.
MAX_PROGRESSIVE_PIXELS = 200_000_000

_large_file_lock = threading.Lock()
_large_image_lock = threading.Lock()


def hold_file(size: int) -> AbstractContextManager[object]:
    """Return a context in which a file of `size` bytes may be held in memory."""
    return _large_file_lock if size > MAX_PARALLEL_FILE_BYTES else nullcontext()


class MemoryBudget:
    """The pixels that may be decoded, and the lock under which large images are decoded."""

    def __init__(
        self, large_image_lock: AbstractContextManager[object] = _large_image_lock
    ) -> None:
        """Decode large images under `large_image_lock`, by default one that this process shares."""
        self._large_image_lock = large_image_lock

    def reserve(
        self, width: int, height: int, reduction: int = 1, progressive_pixels: int = 0
    ) -> AbstractContextManager[object]:
        """Return a context in which `width` x `height` pixels may be decoded.

        `reduction` is the factor by which the decoder shrinks both sides; `progressive_pixels` is
        the full size of a progressive JPEG, 0 for other images. Raises Rejected for too many.
        """
        pixels = width * height // reduction**2
        if pixels > MAX_PIXELS:
            raise Rejected(
                FailureReason.TOO_MANY_PIXELS,
                f"{width} x {height}; the limit is {MAX_PIXELS // 1_000_000} megapixels",
            )
        if progressive_pixels > MAX_PROGRESSIVE_PIXELS:
            raise Rejected(
                FailureReason.TOO_MANY_PIXELS,
                f"a progressive JPEG of {progressive_pixels:,} pixels; "
                f"the limit is {MAX_PROGRESSIVE_PIXELS // 1_000_000} megapixels",
            )
        is_large = max(pixels, progressive_pixels) > MAX_PARALLEL_PIXELS
        return self._large_image_lock if is_large else nullcontext()
