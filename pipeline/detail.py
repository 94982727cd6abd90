"""Whether a picture has the detail that its pixels have room for, or was only made larger."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.view import View

SIDE = 512  # pixels of the middle that are looked at, with all that the file has of them
CLOSE = View(SIDE, "middle")
BINS = 256  # of wavelengths, up to the finest that pixels can show
# Of the energy of coarser waves, and of the sides. Measured on 30 photos, as they are and enlarged, re-encoded at qualities of 60 to 95: of
# those as they are none is below at half or 1 / 1.7 of their sides (lowest .149); of those enlarged 1.7 times most are, of 2 times half.
ENLARGED, LARGEST = 0.08, 0.75

Spectrum = NDArray[np.float64]


def spectrum(grey: NDArray[np.uint8]) -> Spectrum:
    """The energy of the waves in the middle of a picture (height, width), from the longest to those of two pixels, in BINS; none to tell
    of a picture that is too small.
    """
    height, width = grey.shape
    side = min(SIDE, height, width)
    if side < 64:
        return np.zeros(BINS)
    top, left = (height - side) // 2, (width - side) // 2
    middle = grey[top : top + side, left : left + side].astype(np.float64)
    energy = np.abs(np.fft.fft2((middle - middle.mean()) * np.outer(np.hanning(side), np.hanning(side)))) ** 2
    along = np.fft.fftfreq(side) * 2
    fine = np.hypot(along[:, None], along[None, :])
    inside = fine < 1.0
    return np.bincount((fine[inside] * BINS).astype(np.int64), energy[inside], BINS).astype(np.float64)


def is_enlarged(waves: Spectrum, share: float) -> bool:
    """Whether there is next to nothing in a picture that one of `share` of its width and height could not show too."""
    if not waves.any() or not 0.1 < share < LARGEST:
        return False
    finer, coarser = waves[int(share * 1.08 * BINS) :].sum(), waves[int(share * 0.5 * BINS) : int(share * 0.92 * BINS)].sum()
    return bool(finer < ENLARGED * coarser)
