"""Digests of frames: small gray versions, as text with one character a cell.

A digest is equal for two files of one frame up to a few levels, whatever their formats and sizes.
This module imports no Pillow, because those who compare digests decode nothing.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

# Cells along a side. 16 tell two pages of text apart; 8 are enough for a still, and take 64 bytes
# of each image in a catalog.
FRAME_DIGEST_SIDE = 16
STILL_DIGEST_SIDE = 8
DIGEST_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LEVELS_PER_STEP = 256 // len(DIGEST_ALPHABET)


def format_digest(levels: NDArray[np.uint8]) -> str:
    """Return the digest of an image whose gray levels (side, side) are given."""
    return "".join(DIGEST_ALPHABET[step] for step in (levels // LEVELS_PER_STEP).ravel())


def parse_digest(digest: str) -> NDArray[np.float64] | None:
    """Return the gray levels (side, side) of a digest; None if the text is no digest."""
    side = isqrt(len(digest))
    steps = [DIGEST_ALPHABET.find(character) for character in digest]
    if not digest or side * side != len(digest) or min(steps) < 0:
        return None
    levels = np.array(steps, np.float64) * LEVELS_PER_STEP + (LEVELS_PER_STEP - 1) / 2
    return levels.reshape(side, side)
