"""Whether a picture has the detail that its pixels have room for, or was only made larger."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.evidence import FIRST, SECOND, Evidence
from pipeline.view import View

SIDE = 512  # pixels of the middle that are looked at, with all that the file has of them
CLOSE = View(SIDE, "middle")
BINS = 256  # of wavelengths, up to the finest that pixels can show
# Of the energy of coarser waves, and of the sides. Measured on 30 photos, as they are and enlarged, re-encoded at qualities of 60 to 95: of
# those as they are none is below at half or 1 / 1.7 of their sides (lowest .149); of those enlarged 1.7 times most are, of 2 times half.
ENLARGED, LARGEST = 0.08, 0.75

LIKE = 0.87  # the scale from which on two pictures count as of one size

Spectrum = NDArray[np.float64]


def larger(evidence: Evidence) -> str:
    """Which of two copies, FIRST or SECOND, has so many more pixels for the same thing that its detail tells something; "" for neither."""
    if not evidence.changes or LIKE < evidence.changes.scale < 1 / LIKE:
        return ""
    return SECOND if evidence.changes.scale > 1 else FIRST


def detailed(evidence: Evidence, one: str, waves: Spectrum) -> Evidence:
    """The same, with whether `one`, FIRST or SECOND, whose spectrum this is, was only enlarged, where it is the larger; if so, and it lies
    within the other, it was cut out of it: that the other shows it smaller then tells nothing.
    """
    changes = evidence.changes
    if not changes or one != larger(evidence) or not is_enlarged(waves, min(changes.scale, 1 / changes.scale)):
        return evidence
    cut_out = not changes.inside and changes.derived not in ("", one)
    return replace(evidence, changes=replace(changes, enlarged=one, derived=one if cut_out else changes.derived))


def seen(rgb: NDArray[np.uint8]) -> Spectrum:
    """The spectrum of a picture (height, width, 3) as CLOSE shows it."""
    return spectrum(np.asarray(Pillow.fromarray(rgb).convert("L")))


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
