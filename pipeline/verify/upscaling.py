"""Whether a picture has the detail that its pixels have room for, or was only made larger."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.decode.decode import Decoded
from pipeline.decode.preprocess import Preprocess
from pipeline.verify.homography import invert_homography
from pipeline.verify.relation import Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Box, Edits, Verdict, project_box_back

CENTER_SIDE_PX = 512  # pixels of the middle that are looked at, with all that the file has of them
CENTER_FULL_RES = Preprocess(CENTER_SIDE_PX, "middle")
MAX_BLOCKS_PER_ROW, MIN_BLOCK_SIDE_PX = (
    4,
    48,
)  # blocks in a row, and pixels that a side of one has at least
RADIAL_BINS = 64  # of wavelengths, up to the finest that pixels can show
# Of the energy of coarser waves, and of the sides. Measured on 600 photos: as they are, none is below at half of their sides, 4 are at
# 1 / 1.7, 6 at .65; enlarged 1.7 times, at qualities of 75 and 92, .81 and .87 are, 2 times .69 and .80, 1.3 times none.
MAX_UPSCALED_ENERGY_RATIO = 0.08
MIN_SIDE_RATIO, MAX_SIDE_RATIO = (
    0.1,
    0.75,
)  # of the larger one's sides, between which its detail tells something
CHANGED_REGION_MARGIN = (
    0.05  # of a side: a tile, of which what lies on a picture may cover too little to be seen there
)


@dataclass(frozen=True, slots=True)
class RadialSpectrum:
    """The energy of the waves in each block of a picture's middle, from the longest to those of two pixels, (blocks, BINS); and where the
    blocks lie, (blocks, 4), as shares of its sides. There are none of a picture that is too small to tell.
    """

    power_spectrum: NDArray[np.float64]
    block_boxes: NDArray[np.float64]


ImageKey = TypeVar("ImageKey", bound=Hashable)


class UpscaleCheck(Generic[ImageKey]):
    """The last step of verifying pairs: is the larger image of a pair only upscaled?

    A caller reads the images that the check names, and passes on those it could read:

        check = UpscaleCheck(verdicts)
        spectra = {key: spectrum_from_decoded(read(key)) for key in check.larger_images}
        verdicts = check.apply(spectra)
    """

    def __init__(self, verdicts: Mapping[tuple[ImageKey, ImageKey], Verdict]) -> None:
        """Check verdicts on pairs of images, (first, second), by keys of the caller's choice."""
        self._verdicts = verdicts
        self._sides = {
            pair: side for pair, verdict in verdicts.items() if (side := larger_side(verdict))
        }

    @property
    def larger_images(self) -> set[ImageKey]:
        """The images to read at CENTER_FULL_RES: the larger one of each pair to check."""
        return {_pick_side(pair, side) for pair, side in self._sides.items()}

    def get_larger_image(self, pair: tuple[ImageKey, ImageKey]) -> ImageKey | None:
        """Return the image of a pair that has to be read; None for a pair that needs no check."""
        side = self._sides.get(pair)
        return None if side is None else _pick_side(pair, side)

    def apply(
        self, spectra: Mapping[ImageKey, RadialSpectrum]
    ) -> dict[tuple[ImageKey, ImageKey], Verdict]:
        """Return all verdicts, completed where the larger image has a spectrum, in their order."""
        completed = dict(self._verdicts)
        for pair, side in self._sides.items():
            spectrum = spectra.get(_pick_side(pair, side))
            if spectrum is not None:
                completed[pair] = with_upscaling(completed[pair], side, spectrum)
        return completed


def _pick_side(pair: tuple[ImageKey, ImageKey], side: Side) -> ImageKey:
    return pair[0] if side is Side.FIRST else pair[1]


def spectrum_from_decoded(decoded: Decoded) -> RadialSpectrum:
    """Compute the radial spectrum of an image that was decoded at CENTER_FULL_RES."""
    return radial_spectrum(decoded.pixels, (decoded.image.width, decoded.image.height))


def larger_side(verdict: Verdict) -> Side | None:
    """Which of two copies, FIRST or SECOND, has so many more pixels for the same thing that its detail tells something; "" for neither."""
    if (
        not verdict.edits
        or not MIN_SIDE_RATIO < _compute_side_ratio(verdict.edits) < MAX_SIDE_RATIO
    ):
        return None
    return Side.SECOND if verdict.edits.scale > 1 else Side.FIRST


def _compute_side_ratio(edits: Edits) -> float:
    """The smaller one's sides, as shares of the larger one's, where both show the same."""
    return min(edits.scale, 1 / edits.scale)


def with_upscaling(verdict: Verdict, side: Side, spectrum: RadialSpectrum) -> Verdict:
    """The same, with whether `one`, FIRST or SECOND, whose detail this is, was only enlarged, where it is the larger; if so, and all of it
    is a part of the other, it was cut out of it: that the other shows it smaller then tells nothing.
    """
    changes = verdict.edits
    if not changes or side != larger_side(verdict):
        return verdict
    back = invert_homography(verdict.homography_matrix)
    spoiled = (
        changes.changed_regions
        if side == Side.FIRST
        else tuple(project_box_back(back, box) for box in changes.changed_regions)
    )
    if not is_upscaled(spectrum, _compute_side_ratio(changes), spoiled):
        return verdict
    mine, its = changes.overlap[side == Side.SECOND], changes.overlap[side == Side.FIRST]
    cut_out = (
        not changes.embedded_side
        and mine >= MIN_FULL_OVERLAP > its
        and changes.derived_side == side.other
    )
    return replace(
        verdict,
        edits=replace(
            changes, upscaled_side=side, derived_side=side if cut_out else changes.derived_side
        ),
    )


def radial_spectrum(rgb: NDArray[np.uint8], size: tuple[int, int]) -> RadialSpectrum:
    """The detail of a picture of `size`, (width, height), as CLOSE shows it: (height, width, 3) of its middle."""
    grey = np.asarray(Pillow.fromarray(rgb).convert("L"))
    height, width = grey.shape
    side = min(CENTER_SIDE_PX, height, width)
    block = max(side // MAX_BLOCKS_PER_ROW, MIN_BLOCK_SIDE_PX)
    top, left = (height - side) // 2, (width - side) // 2
    middle = grey[top : top + side, left : left + side].astype(np.float64)
    window = np.outer(np.hanning(block), np.hanning(block))
    along = np.fft.fftfreq(block) * 2
    fine = np.hypot(along[:, None], along[None, :])
    inside = fine < 1.0
    bins = (fine[inside] * RADIAL_BINS).astype(np.int64)
    waves, places = [], []
    for y, x in product(range(0, side - block + 1, block), repeat=2):
        some = middle[y : y + block, x : x + block]
        energy = np.abs(np.fft.fft2((some - some.mean()) * window)) ** 2
        waves.append(np.bincount(bins, energy[inside], RADIAL_BINS))
        start = (np.array(size) - side) / 2 + [x, y]
        places.append([*start / size, *(start + block) / size])
    return RadialSpectrum(
        np.array(waves, np.float64).reshape(-1, RADIAL_BINS), np.array(places).reshape(-1, 4)
    )


def is_upscaled(
    spectrum: RadialSpectrum, side_ratio: float, changed_regions: Sequence[Box]
) -> bool:
    """Whether there is next to nothing in a picture that one of `share` of its width and height could not show too. Blocks that something
    lies on, in the boxes `spoiled`, are left aside: words may have been written there later. No others are: what is sharp in a photo may be
    small.
    """
    clear = np.ones(len(spectrum.power_spectrum), bool)
    for left, top, right, bottom in changed_regions:
        x, y, to_x, to_y = spectrum.block_boxes.T
        clear &= (
            (x >= right + CHANGED_REGION_MARGIN)
            | (to_x <= left - CHANGED_REGION_MARGIN)
            | (y >= bottom + CHANGED_REGION_MARGIN)
            | (to_y <= top - CHANGED_REGION_MARGIN)
        )
    waves = spectrum.power_spectrum[clear].sum(axis=0)
    if not waves.any():
        return False
    finer, coarser = (
        waves[int(side_ratio * 1.08 * RADIAL_BINS) :].sum(),
        waves[int(side_ratio * 0.5 * RADIAL_BINS) : int(side_ratio * 0.92 * RADIAL_BINS)].sum(),
    )
    return bool(finer < MAX_UPSCALED_ENERGY_RATIO * coarser)
