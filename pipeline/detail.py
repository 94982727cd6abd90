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
ACROSS, SMALLEST = 4, 48  # blocks in a row, and pixels that a side of one has at least
BINS = 64  # of wavelengths, up to the finest that pixels can show
# Of the energy of coarser waves, and of the sides. Measured on 60 photos, of 240 and of 500 pixels, as they are and enlarged, at qualities
# of 75 and 92: of those as they are none is below at half or 1 / 1.7 of their sides (lowest .083); of those enlarged 1.7 times .80 to .97
# are, of 2 times .73 to .95; with words on them .72 to .92 and .52 to .83 (by one spectrum of all, .13 to .28).
ENLARGED, LARGEST = 0.08, 0.75

LIKE = 0.87  # the scale from which on two pictures count as of one size

Spectra = NDArray[np.float64]


def larger(evidence: Evidence) -> str:
    """Which of two copies, FIRST or SECOND, has so many more pixels for the same thing that its detail tells something; "" for neither."""
    if not evidence.changes or LIKE < evidence.changes.scale < 1 / LIKE:
        return ""
    return SECOND if evidence.changes.scale > 1 else FIRST


def detailed(evidence: Evidence, one: str, waves: Spectra) -> Evidence:
    """The same, with whether `one`, FIRST or SECOND, whose spectra these are, was only enlarged, where it is the larger; if so, and it lies
    within the other, it was cut out of it: that the other shows it smaller then tells nothing.
    """
    changes = evidence.changes
    if not changes or one != larger(evidence) or not is_enlarged(waves, min(changes.scale, 1 / changes.scale)):
        return evidence
    cut_out = not changes.inside and changes.derived not in ("", one)
    return replace(evidence, changes=replace(changes, enlarged=one, derived=one if cut_out else changes.derived))


def seen(rgb: NDArray[np.uint8]) -> Spectra:
    """The spectra of a picture (height, width, 3) as CLOSE shows it."""
    return spectra(np.asarray(Pillow.fromarray(rgb).convert("L")))


def spectra(grey: NDArray[np.uint8]) -> Spectra:
    """The energy of the waves in each block of the middle of a picture (height, width), from the longest to those of two pixels: (blocks,
    BINS); no block of a picture that is too small to tell.
    """
    height, width = grey.shape
    side = min(SIDE, height, width)
    block = max(side // ACROSS, SMALLEST)
    top, left = (height - side) // 2, (width - side) // 2
    middle = grey[top : top + side, left : left + side].astype(np.float64)
    blocks = [middle[y : y + block, x : x + block] for y in range(0, side - block + 1, block) for x in range(0, side - block + 1, block)]
    window = np.outer(np.hanning(block), np.hanning(block))
    along = np.fft.fftfreq(block) * 2
    fine = np.hypot(along[:, None], along[None, :])
    inside = fine < 1.0
    bins = (fine[inside] * BINS).astype(np.int64)
    energies = (np.abs(np.fft.fft2((some - some.mean()) * window)) ** 2 for some in blocks)
    return np.array([np.bincount(bins, energy[inside], BINS) for energy in energies], np.float64).reshape(-1, BINS)


def is_enlarged(waves: Spectra, share: float) -> bool:
    """Whether there is next to nothing in a picture that one of `share` of its width and height could not show too: in the blocks that have
    half of all energy, those with the least of it. The others may be captions, which were written on it later.
    """
    if not waves.any() or not 0.1 < share < LARGEST:
        return False
    finer, coarser = (
        waves[:, int(share * 1.08 * BINS) :].sum(axis=1),
        waves[:, int(share * 0.5 * BINS) : int(share * 0.92 * BINS)].sum(axis=1),
    )
    shares = finer / np.maximum(coarser, 1e-9)
    order = np.argsort(shares)
    energy = np.cumsum(waves.sum(axis=1)[order])
    return bool(shares[order][np.searchsorted(energy, energy[-1] / 2)] < ENLARGED)
