"""Detect upscaled images: enlarged ones, whose power spectrum lacks high frequencies.

The check compares, in the larger image of a verified pair, the energy of wavelengths that the
smaller image cannot show with that of longer ones. Where that leaves doubt, the period that
enlarging leaves in the pixels decides (resampling). It needs pixels at full resolution, so the
larger file is read once more, at CENTER_FULL_RES.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.decode.decode import Decoded
from pipeline.decode.preprocess import Preprocess
from pipeline.verify.homography import invert_homography
from pipeline.verify.relation import Side
from pipeline.verify.resampling import compute_difference_spectra, is_resampled
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Edits, Verdict, project_box_back

if TYPE_CHECKING:  # loads OpenCV, which callers do without
    from pipeline.regions import Box

CENTER_SIDE_PX = 512  # side of the central square that is read, at full resolution
CENTER_FULL_RES = Preprocess(CENTER_SIDE_PX, "middle")
MAX_BLOCKS_PER_ROW = 4  # blocks of the central square, along a side
MIN_BLOCK_SIDE_PX = 48  # side of a block; an image without room for one is not checked
RADIAL_BINS = 64  # of radial frequency, from 0 to the Nyquist frequency
# Energy above the frequencies of the smaller image over the energy below them, at half the side;
# beyond, fewer frequencies are above, and the bound falls as the energy of a 1/f spectrum does
# there. Of 299 photos of four sources beside a copy of .5, .6, .65, .7 and .74 times the side, 3 to
# 8 are below it and enlarged before they were saved, or soft (with one bound for all it was 3, 18,
# 28, 49 and 84). Of as many photos enlarged by bilinear to Lanczos interpolation and saved at
# qualities 75 to 95, three of four are found at twice the side and a quarter at 1.35 times, by this
# or by their resampling.
MAX_UPSCALED_ENERGY_RATIO = 0.08
MIN_REAL_ENERGY_RATIO = 0.25  # from which an image is certainly not upscaled: of 600 few are below
# Side of the smaller image over that of the larger: between these the spectrum can decide.
MIN_SIDE_RATIO = 0.1
MAX_SIDE_RATIO = 0.75
# Frequencies, as multiples of the highest one that the smaller image shows: fine detail is above
# the last, coarse detail between the first two. Those between count for neither.
MIN_COARSE_FREQUENCY = 0.5
MAX_COARSE_FREQUENCY = 0.92
MIN_FINE_FREQUENCY = 1.08
# Share of a side. A changed region may reach this far beyond its box: a tile that it covers only
# a little still agrees, and is not in the box.
CHANGED_REGION_MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class CenterSpectra:
    """The spectra of an image's center: of its blocks, and of the differences of neighbors.

    `power_spectrum`: (blocks, RADIAL_BINS) from low to high frequency, summed over directions.
    `block_boxes`: (blocks, 4), left, top, right, bottom in normalized coordinates. An image below
    MIN_BLOCK_SIDE_PX has no blocks. `difference_spectra`: as compute_difference_spectra() returns
    them.
    """

    power_spectrum: NDArray[np.float64]
    block_boxes: NDArray[np.float64]
    difference_spectra: NDArray[np.float64]


ImageKey = TypeVar("ImageKey", bound=Hashable)


class UpscaleCheck(Generic[ImageKey]):
    """The last step of verifying pairs: is the larger image of a pair only upscaled?

    A caller reads the images that the check names, and passes on those it could read:

        check = UpscaleCheck(verdicts)
        spectra = {key: compute_spectra_from_decoded(read(key)) for key in check.larger_images}
        verdicts = check.apply(spectra)
    """

    def __init__(self, verdicts: Mapping[tuple[ImageKey, ImageKey], Verdict]) -> None:
        """Check verdicts on pairs of images, (first, second), by keys of the caller's choice."""
        self._verdicts = verdicts
        self._sides = {
            pair: side for pair, verdict in verdicts.items() if (side := find_larger_side(verdict))
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
        self, spectra: Mapping[ImageKey, CenterSpectra]
    ) -> dict[tuple[ImageKey, ImageKey], Verdict]:
        """Return all verdicts, completed where the larger image has spectra, in their order."""
        completed = dict(self._verdicts)
        for pair, side in self._sides.items():
            of_larger = spectra.get(_pick_side(pair, side))
            if of_larger is not None:
                completed[pair] = add_upscaling(completed[pair], side, of_larger)
        return completed


def _pick_side(pair: tuple[ImageKey, ImageKey], side: Side) -> ImageKey:
    return pair[0] if side is Side.FIRST else pair[1]


def compute_spectra_from_decoded(decoded: Decoded) -> CenterSpectra:
    """Compute the spectra of the center of an image that was decoded at CENTER_FULL_RES."""
    return compute_center_spectra(decoded.pixels, (decoded.image.width, decoded.image.height))


def find_larger_side(verdict: Verdict) -> Side | None:
    """Find the side with more pixels for the same content; None if the check cannot decide."""
    edits = verdict.edits
    if not edits or not MIN_SIDE_RATIO < _compute_side_ratio(edits) < MAX_SIDE_RATIO:
        return None
    return Side.SECOND if edits.scale > 1 else Side.FIRST


def _compute_side_ratio(edits: Edits) -> float:
    """Compute the side of the smaller image over that of the larger, for the same content."""
    return min(edits.scale, 1 / edits.scale)


def add_upscaling(verdict: Verdict, side: Side, spectra: CenterSpectra) -> Verdict:
    """Complete a verdict by the spectra of the image on `side`, if that is the larger one.

    Sets `fine_detail` and, if the image is upscaled, `upscaled_side`. If the other image also shows
    all of it without a seam, it was cropped from the other and enlarged; or the other was made from
    it, if it has detail that the other cannot show.
    """
    edits = verdict.edits
    if not edits or side != find_larger_side(verdict):
        return verdict
    inverse = invert_homography(verdict.homography_matrix)
    changed_regions = (
        edits.changed_regions
        if side == Side.FIRST
        else tuple(project_box_back(inverse, box) for box in edits.changed_regions)
    )
    fine_detail = measure_fine_detail(spectra, _compute_side_ratio(edits), changed_regions)
    if fine_detail is None:
        return verdict
    edits = replace(edits, fine_detail=round(fine_detail, 4))
    is_upscaled = _is_upscaled(fine_detail, _compute_side_ratio(edits), spectra)
    if is_upscaled:
        edits = replace(edits, upscaled_side=side)
    own_overlap = edits.overlap[side == Side.SECOND]
    other_overlap = edits.overlap[side == Side.FIRST]
    is_part = own_overlap >= MIN_FULL_OVERLAP > other_overlap and not edits.embedded_side
    if is_part and is_upscaled:
        edits = replace(edits, derived_side=side)
    elif is_part and fine_detail >= MIN_REAL_ENERGY_RATIO and not edits.derived_side:
        edits = replace(edits, derived_side=side.other)
    return replace(verdict, edits=edits)


def _is_upscaled(fine_detail: float, side_ratio: float, spectra: CenterSpectra) -> bool:
    """Tell if an image has too little fine detail, or little and the trace of resampling."""
    bandwidth = math.log(1 / (MIN_FINE_FREQUENCY * side_ratio))
    bandwidth_at_half = math.log(2 / MIN_FINE_FREQUENCY)
    max_detail = MAX_UPSCALED_ENERGY_RATIO * min(1.0, bandwidth / bandwidth_at_half)
    return fine_detail < max_detail or (
        fine_detail < MIN_REAL_ENERGY_RATIO and is_resampled(spectra.difference_spectra, side_ratio)
    )


def compute_center_spectra(rgb: NDArray[np.uint8], size: tuple[int, int]) -> CenterSpectra:
    """Compute the power spectrum and the spectra of differences of the center of an image.

    `rgb` (height, width, 3) is the image at CENTER_FULL_RES, `size` its full (width, height).
    """
    gray = np.asarray(Pillow.fromarray(rgb).convert("L"))
    height, width = gray.shape
    side = min(CENTER_SIDE_PX, height, width)
    block_side = max(side // MAX_BLOCKS_PER_ROW, MIN_BLOCK_SIDE_PX)
    top, left = (height - side) // 2, (width - side) // 2
    center = gray[top : top + side, left : left + side].astype(np.float64)
    window = np.outer(np.hanning(block_side), np.hanning(block_side))
    frequencies = np.fft.fftfreq(block_side) * 2  # 1 is the Nyquist frequency
    radius = np.hypot(frequencies[:, None], frequencies[None, :])
    is_within_nyquist = radius < 1.0
    bins = (radius[is_within_nyquist] * RADIAL_BINS).astype(np.int64)
    powers, boxes = [], []
    for y, x in product(range(0, side - block_side + 1, block_side), repeat=2):
        block = center[y : y + block_side, x : x + block_side]
        power = np.abs(np.fft.fft2((block - block.mean()) * window)) ** 2
        powers.append(np.bincount(bins, power[is_within_nyquist], RADIAL_BINS))
        corner = (np.array(size) - side) / 2 + [x, y]
        boxes.append([*corner / size, *(corner + block_side) / size])
    return CenterSpectra(
        np.array(powers, np.float64).reshape(-1, RADIAL_BINS),
        np.array(boxes).reshape(-1, 4),
        compute_difference_spectra(center),
    )


def measure_fine_detail(
    spectra: CenterSpectra, side_ratio: float, changed_regions: Sequence[Box]
) -> float | None:
    """Measure the energy of detail that an image of `side_ratio` times the side cannot show.

    Over the energy of the detail just below; None for an image without any. Blocks that touch a
    changed region are ignored, because text may have been added after upscaling. All others count:
    the only sharp part of an image may be small.
    """
    is_unchanged = np.ones(len(spectra.power_spectrum), bool)
    block_left, block_top, block_right, block_bottom = spectra.block_boxes.T
    for left, top, right, bottom in changed_regions:
        is_unchanged &= (
            (block_left >= right + CHANGED_REGION_MARGIN)
            | (block_right <= left - CHANGED_REGION_MARGIN)
            | (block_top >= bottom + CHANGED_REGION_MARGIN)
            | (block_bottom <= top - CHANGED_REGION_MARGIN)
        )
    power = spectra.power_spectrum[is_unchanged].sum(axis=0)
    coarse_start, coarse_stop, fine_start = (
        int(side_ratio * frequency * RADIAL_BINS)
        for frequency in (MIN_COARSE_FREQUENCY, MAX_COARSE_FREQUENCY, MIN_FINE_FREQUENCY)
    )
    fine, coarse = power[fine_start:].sum(), power[coarse_start:coarse_stop].sum()
    return float(fine / coarse) if coarse > 0 else None
