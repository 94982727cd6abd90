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
GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def make_digest(rgb: NDArray[np.uint8], side: int) -> str:
    """Make the digest, of `side` x `side` cells, of an RGB image (height, width, 3)."""
    gray = rgb.astype(np.float64) @ GRAY_WEIGHTS
    rows, columns = (_make_averages(length, side) for length in gray.shape)
    cells = rows @ gray @ columns.T
    steps = (cells / LEVELS_PER_STEP).astype(np.int64).clip(0, len(DIGEST_ALPHABET) - 1)
    return "".join(DIGEST_ALPHABET[step] for step in steps.ravel())


def parse_digest(digest: str) -> NDArray[np.float64] | None:
    """Return the gray levels (side, side) of a digest; None if the text is no digest."""
    side = isqrt(len(digest))
    steps = [DIGEST_ALPHABET.find(character) for character in digest]
    if not digest or side * side != len(digest) or min(steps) < 0:
        return None
    levels = np.array(steps, np.float64) * LEVELS_PER_STEP + (LEVELS_PER_STEP - 1) / 2
    return levels.reshape(side, side)


def _make_averages(length: int, side: int) -> NDArray[np.float64]:
    """Return the weights (side, length) that average `length` samples over `side` equal cells."""
    edges = np.linspace(0, length, side + 1)
    starts, ends = edges[:-1, None], edges[1:, None]
    samples = np.arange(length)[None, :]
    covered = np.minimum(ends, samples + 1) - np.maximum(starts, samples)
    return covered.clip(0) / (ends - starts)
