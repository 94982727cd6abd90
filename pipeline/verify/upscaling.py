"""Whether a picture has the detail that its pixels have room for, or was only made larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.decode.preprocess import View
from pipeline.verify.homography import inverse
from pipeline.verify.verdict import ALL, FIRST, OTHER, SECOND, Box, Changes, Evidence, onto

SIDE = 512  # pixels of the middle that are looked at, with all that the file has of them
CLOSE = View(SIDE, "middle")
ACROSS, SMALLEST = 4, 48  # blocks in a row, and pixels that a side of one has at least
BINS = 64  # of wavelengths, up to the finest that pixels can show
# Of the energy of coarser waves, and of the sides. Measured on 600 photos: as they are, none is below at half of their sides, 4 are at
# 1 / 1.7, 6 at .65; enlarged 1.7 times, at qualities of 75 and 92, .81 and .87 are, 2 times .69 and .80, 1.3 times none.
ENLARGED = 0.08
LEAST, LARGEST = 0.1, 0.75  # of the larger one's sides, between which its detail tells something
BESIDE = 0.05  # of a side: a tile, of which what lies on a picture may cover too little to be seen there


@dataclass(frozen=True, slots=True)
class Detail:
    """The energy of the waves in each block of a picture's middle, from the longest to those of two pixels, (blocks, BINS); and where the
    blocks lie, (blocks, 4), as shares of its sides. There are none of a picture that is too small to tell.
    """

    waves: NDArray[np.float64]
    places: NDArray[np.float64]


def larger(evidence: Evidence) -> str:
    """Which of two copies, FIRST or SECOND, has so many more pixels for the same thing that its detail tells something; "" for neither."""
    if not evidence.changes or not LEAST < _share(evidence.changes) < LARGEST:
        return ""
    return SECOND if evidence.changes.scale > 1 else FIRST


def _share(changes: Changes) -> float:
    """The smaller one's sides, as shares of the larger one's, where both show the same."""
    return min(changes.scale, 1 / changes.scale)


def detailed(evidence: Evidence, one: str, detail: Detail) -> Evidence:
    """The same, with whether `one`, FIRST or SECOND, whose detail this is, was only enlarged, where it is the larger; if so, and all of it
    is a part of the other, it was cut out of it: that the other shows it smaller then tells nothing.
    """
    changes = evidence.changes
    if not changes or one != larger(evidence):
        return evidence
    back = inverse(evidence.transform)
    spoiled = changes.spoiled if one == FIRST else tuple(onto(back, box) for box in changes.spoiled)
    if not is_enlarged(detail, _share(changes), spoiled):
        return evidence
    mine, its = changes.covers[one == SECOND], changes.covers[one == FIRST]
    cut_out = not changes.inside and mine >= ALL > its and changes.derived == OTHER[one]
    return replace(evidence, changes=replace(changes, enlarged=one, derived=one if cut_out else changes.derived))


def seen(rgb: NDArray[np.uint8], size: tuple[int, int]) -> Detail:
    """The detail of a picture of `size`, (width, height), as CLOSE shows it: (height, width, 3) of its middle."""
    grey = np.asarray(Pillow.fromarray(rgb).convert("L"))
    height, width = grey.shape
    side = min(SIDE, height, width)
    block = max(side // ACROSS, SMALLEST)
    top, left = (height - side) // 2, (width - side) // 2
    middle = grey[top : top + side, left : left + side].astype(np.float64)
    window = np.outer(np.hanning(block), np.hanning(block))
    along = np.fft.fftfreq(block) * 2
    fine = np.hypot(along[:, None], along[None, :])
    inside = fine < 1.0
    bins = (fine[inside] * BINS).astype(np.int64)
    waves, places = [], []
    for y, x in product(range(0, side - block + 1, block), repeat=2):
        some = middle[y : y + block, x : x + block]
        energy = np.abs(np.fft.fft2((some - some.mean()) * window)) ** 2
        waves.append(np.bincount(bins, energy[inside], BINS))
        start = (np.array(size) - side) / 2 + [x, y]
        places.append([*start / size, *(start + block) / size])
    return Detail(np.array(waves, np.float64).reshape(-1, BINS), np.array(places).reshape(-1, 4))


def is_enlarged(detail: Detail, share: float, spoiled: Sequence[Box]) -> bool:
    """Whether there is next to nothing in a picture that one of `share` of its width and height could not show too. Blocks that something
    lies on, in the boxes `spoiled`, are left aside: words may have been written there later. No others are: what is sharp in a photo may be
    small.
    """
    clear = np.ones(len(detail.waves), bool)
    for left, top, right, bottom in spoiled:
        x, y, to_x, to_y = detail.places.T
        clear &= (x >= right + BESIDE) | (to_x <= left - BESIDE) | (y >= bottom + BESIDE) | (to_y <= top - BESIDE)
    waves = detail.waves[clear].sum(axis=0)
    if not waves.any():
        return False
    finer, coarser = waves[int(share * 1.08 * BINS) :].sum(), waves[int(share * 0.5 * BINS) : int(share * 0.92 * BINS)].sum()
    return bool(finer < ENLARGED * coarser)
