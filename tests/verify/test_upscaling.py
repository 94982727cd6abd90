"""The check for upscaling: which images it asks for, and what their spectra show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.regions import Box
from pipeline.verify.homography import UNIT_CORNERS
from pipeline.verify.relation import Relation, Side
from pipeline.verify.resampling import MIN_RESAMPLING_SIDE_PX, compute_difference_spectra
from pipeline.verify.upscaling import (
    CENTER_SIDE_PX,
    MAX_SIDE_RATIO,
    MAX_UPSCALED_ENERGY_RATIO,
    RADIAL_BINS,
    CenterSpectra,
    UpscaleCheck,
    add_upscaling,
    compute_center_spectra,
    find_larger_side,
    measure_fine_detail,
)
from pipeline.verify.verdict import Verdict, flatten_homography
from tests.support.pair_verification import draw_sharp_image
from tests.support.verification import PLAIN_COPY

FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
SHARP = draw_sharp_image(900, 700)


def crop_center(image: Image.Image) -> NDArray[np.uint8]:
    """Crop the central square that the check reads."""
    left, top = (image.width - CENTER_SIDE_PX) // 2, (image.height - CENTER_SIDE_PX) // 2
    return np.asarray(image.crop((left, top, left + CENTER_SIDE_PX, top + CENTER_SIDE_PX)))


def make_copy(
    scale: float, overlap: tuple[float, float] = (1.0, 1.0), derived: Side | None = None
) -> Verdict:
    """Make the verdict on a copy that has `scale` times the pixels of the first along a side."""
    edits = replace(PLAIN_COPY, scale=scale, overlap=overlap, derived_side=derived)
    relation = Relation.SAME_PICTURE if edits.is_same_picture else Relation.DERIVED
    return Verdict(relation, 90, 90, 1.0, 0.0, flatten_homography(np.eye(3)), edits)


SHARP_SPECTRUM = compute_center_spectra(crop_center(SHARP), SHARP.size)
ENLARGED = SHARP.resize((1530, 1190), Image.Resampling.LANCZOS)
ENLARGED_SPECTRUM = compute_center_spectra(crop_center(ENLARGED), ENLARGED.size)


def is_upscaled(
    spectrum: CenterSpectra, side_ratio: float, changed_regions: tuple[Box, ...] = ()
) -> bool:
    detail = measure_fine_detail(spectrum, side_ratio, changed_regions)
    return detail is not None and detail < MAX_UPSCALED_ENERGY_RATIO


@pytest.mark.parametrize("resampling", FILTERS)
@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_enlarged_image_is_upscaled_and_its_original_is_not(
    factor: float, resampling: Image.Resampling
) -> None:
    size = (round(SHARP.width * factor), round(SHARP.height * factor))
    enlarged = SHARP.resize(size, resampling)
    spectrum = compute_center_spectra(crop_center(enlarged), enlarged.size)
    assert is_upscaled(spectrum, 1 / factor)
    assert not is_upscaled(SHARP_SPECTRUM, 1 / factor)


def test_sharp_part_counts_unless_it_lies_in_a_changed_region() -> None:
    size = (CENTER_SIDE_PX, CENTER_SIDE_PX)
    covered = ENLARGED.crop((300, 300, 300 + CENTER_SIDE_PX, 300 + CENTER_SIDE_PX))
    noise = np.random.default_rng(1).integers(0, 256, (140, 140, 3), np.uint8)
    covered.paste(Image.fromarray(noise), (20, 20))
    spectrum = compute_center_spectra(np.asarray(covered), size)
    assert not is_upscaled(spectrum, 1 / 1.7)
    share = 160 / CENTER_SIDE_PX
    assert is_upscaled(spectrum, 1 / 1.7, ((0.0, 0.0, share, share),))
    whole = ((0.0, 0.0, 1.0, 1.0),)
    assert measure_fine_detail(spectrum, 1 / 1.7, whole) is None  # no block is left


def test_spectrum_has_the_power_of_a_wave_at_its_frequency() -> None:
    wavelength = 4  # px, which is half the Nyquist frequency
    wave = 127.5 + 100 * np.cos(2 * np.pi * np.arange(CENTER_SIDE_PX) / wavelength)
    pixels = np.repeat(np.tile(wave, (CENTER_SIDE_PX, 1))[..., None], 3, -1).astype(np.uint8)
    spectrum = compute_center_spectra(pixels, (CENTER_SIDE_PX, CENTER_SIDE_PX))
    blocks, bins = spectrum.power_spectrum.shape
    assert blocks == 16
    power = spectrum.power_spectrum.sum(axis=0)
    assert power[bins // 2 - 2 : bins // 2 + 3].sum() > 0.99 * power.sum()
    assert spectrum.block_boxes.min() == 0 and spectrum.block_boxes.max() == 1


def test_image_without_room_for_a_block_or_without_texture_is_not_upscaled() -> None:
    tiny = compute_center_spectra(np.asarray(SHARP.crop((0, 0, 47, 47))), (47, 47))
    assert tiny.power_spectrum.shape[0] == 0 and tiny.block_boxes.shape == (0, 4)
    flat = compute_center_spectra(np.full((512, 512, 3), 90, np.uint8), (512, 512))
    assert measure_fine_detail(tiny, 0.5, ()) is measure_fine_detail(flat, 0.5, ()) is None


@pytest.mark.parametrize(
    ("scale", "side"),
    [(2.0, Side.SECOND), (0.5, Side.FIRST), (1.0, None), (MAX_SIDE_RATIO, None), (0.1, None)],
)
def test_only_pairs_of_quite_different_sizes_are_checked(scale: float, side: Side | None) -> None:
    verdict = make_copy(scale)
    assert find_larger_side(verdict) is side
    check = UpscaleCheck({("a", "b"): verdict})
    larger = {None: None, Side.FIRST: "a", Side.SECOND: "b"}[side]
    assert check.get_larger_image(("a", "b")) == larger
    assert check.larger_images == ({larger} if larger else set())


def test_pairs_whose_larger_image_was_read_are_completed_in_order() -> None:
    verdicts = {
        ("small", "enlarged"): make_copy(1.7),
        ("away", "small"): make_copy(0.5),
        ("small", "sharp"): make_copy(1.7),
        ("sharp", "small"): Verdict(Relation.UNRELATED),
    }
    check = UpscaleCheck(verdicts)
    assert check.larger_images == {"enlarged", "away", "sharp"}
    completed = check.apply({"enlarged": ENLARGED_SPECTRUM, "sharp": SHARP_SPECTRUM})
    assert list(completed) == list(verdicts)
    changed = {pair for pair, verdict in completed.items() if verdict != verdicts[pair]}
    assert changed == {("small", "enlarged"), ("small", "sharp")}
    enlarged, sharp = (completed["small", name].edits for name in ("enlarged", "sharp"))
    assert enlarged and sharp
    assert (enlarged.upscaled_side, sharp.upscaled_side) == (Side.SECOND, None)
    assert enlarged.fine_detail and sharp.fine_detail
    assert enlarged.fine_detail < MAX_UPSCALED_ENERGY_RATIO < sharp.fine_detail


def make_spectra(side_ratio: float, fine_detail: float) -> CenterSpectra:
    """Make spectra without a period and with so much energy above those of the smaller image."""
    power = np.zeros((1, RADIAL_BINS))
    coarse, fine = (int(side_ratio * share * RADIAL_BINS) for share in (0.8, 1.2))
    power[0, coarse], power[0, fine] = 1.0, fine_detail
    no_period = compute_difference_spectra(np.zeros((MIN_RESAMPLING_SIDE_PX,) * 2))
    return CenterSpectra(power, np.array([[0.0, 0.0, 1.0, 1.0]]), no_period)


@pytest.mark.parametrize(
    ("side_ratio", "fine_detail", "is_found"),
    [
        (0.3, 0.07, True),
        (0.3, 0.09, False),  # the bound does not rise below half the side
        (0.5, 0.07, True),
        (0.5, 0.09, False),
        (0.7, 0.03, True),
        (0.7, 0.04, False),
        (0.74, 0.02, True),
        (0.74, 0.03, False),
    ],
)
def test_the_fewer_frequencies_are_above_the_less_detail_is_enough(
    side_ratio: float, fine_detail: float, is_found: bool
) -> None:
    spectra = make_spectra(side_ratio, fine_detail)
    edits = add_upscaling(make_copy(1 / side_ratio), Side.SECOND, spectra).edits
    assert edits and edits.fine_detail == pytest.approx(fine_detail)
    assert edits.upscaled_side is (Side.SECOND if is_found else None)


def test_upscaled_image_that_the_other_shows_whole_was_cropped_from_it() -> None:
    crop = make_copy(1.7, (0.6, 1.0), derived=Side.FIRST)
    edits = add_upscaling(crop, Side.SECOND, ENLARGED_SPECTRUM).edits
    assert edits and (edits.upscaled_side, edits.derived_side) == (Side.SECOND, Side.SECOND)
    whole = make_copy(1.7, derived=Side.FIRST)
    edits = add_upscaling(whole, Side.SECOND, ENLARGED_SPECTRUM).edits
    assert edits and (edits.upscaled_side, edits.derived_side) == (Side.SECOND, Side.FIRST)


def test_changed_regions_are_on_the_first_image_and_ignored_on_the_second() -> None:
    covered = ENLARGED.copy()
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)
    covered.paste(Image.fromarray(noise), (550, 400))
    spectrum = compute_center_spectra(crop_center(covered), covered.size)
    corners = UNIT_CORNERS[[0, 2]] * [200, 200] + [550, 400]
    left, top, right, bottom = (corners / covered.size).ravel()
    verdict = make_copy(1.7)
    assert verdict.edits
    sharp = add_upscaling(verdict, Side.SECOND, spectrum).edits
    assert sharp and sharp.upscaled_side is None
    region = (float(left), float(top), float(right), float(bottom))
    marked = replace(verdict, edits=replace(verdict.edits, changed_regions=(region,)))
    edits = add_upscaling(marked, Side.SECOND, spectrum).edits
    assert edits and edits.upscaled_side is Side.SECOND
