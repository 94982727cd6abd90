"""The trace that enlarging leaves in the pixels of an image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.verify.resampling import (
    MIN_RESAMPLING_SIDE_PX,
    compute_difference_spectra,
    is_resampled,
)
from tests.support.images import draw_textured_image

SIDE_PX = 512
DETAIL = np.random.default_rng(1).normal(0, 12, (600, 600, 1))
SHARP = Image.fromarray(
    (np.asarray(draw_textured_image(1, (600, 600))) + DETAIL).clip(0, 255).astype(np.uint8)
)
SIDE_RATIOS = (0.4, 0.5, 0.55, 0.6, 2 / 3, 0.72)


def save_jpeg(image: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data)


def read_gray(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image.convert("L").crop((0, 0, SIDE_PX, SIDE_PX)), np.float64)


def enlarge(side_ratio: float, resampling: Image.Resampling) -> Image.Image:
    side = round(SHARP.width / side_ratio)
    return SHARP.resize((side, side), resampling)


@pytest.mark.parametrize("quality", [85, 92])
@pytest.mark.parametrize("resampling", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("side_ratio", SIDE_RATIOS)
def test_enlarged_image_shows_its_factor_after_compression(
    side_ratio: float, resampling: Image.Resampling, quality: int
) -> None:
    saved = save_jpeg(enlarge(side_ratio, resampling), quality)
    spectra = compute_difference_spectra(read_gray(saved))
    assert is_resampled(spectra, side_ratio)


@pytest.mark.parametrize("side_ratio", SIDE_RATIOS)
def test_another_factor_is_not_shown(side_ratio: float) -> None:
    spectra = compute_difference_spectra(read_gray(enlarge(side_ratio, Image.Resampling.BICUBIC)))
    found = [other for other in SIDE_RATIOS if is_resampled(spectra, other)]
    folded = {side_ratio, 1 - side_ratio}  # the frequency of 0.4 is that of 0.6
    assert all(min(abs(other - ratio) for ratio in folded) < 0.01 for other in found)


@pytest.mark.parametrize("quality", [30, 60, 80, 95])
@pytest.mark.parametrize("side_ratio", [*SIDE_RATIOS, 0.25, 0.375, 0.625])
def test_blocks_of_a_jpeg_are_no_trace_of_enlarging(side_ratio: float, quality: int) -> None:
    assert not is_resampled(
        compute_difference_spectra(read_gray(save_jpeg(SHARP, quality))), side_ratio
    )


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_not_resampled(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(128, 30, (SIDE_PX, SIDE_PX))
    spectra = compute_difference_spectra(noise)
    assert not any(is_resampled(spectra, side_ratio) for side_ratio in SIDE_RATIOS)


def test_one_enlarged_direction_is_not_enough() -> None:
    wide = SHARP.resize((1200, 600), Image.Resampling.BILINEAR)
    assert not is_resampled(compute_difference_spectra(read_gray(wide)), 0.5)


def test_last_frequency_is_half_a_cycle_a_pixel() -> None:
    for side in (511, 512):
        stripes = np.tile(np.repeat([0.0, 9.0], 2), (side, side))[:, :side]  # a step every 2 pixels
        spectrum = compute_difference_spectra(stripes)[0]
        assert spectrum.argmax() == len(spectrum) - 1


def test_small_and_even_squares_show_nothing() -> None:
    small = compute_difference_spectra(np.zeros((MIN_RESAMPLING_SIDE_PX - 1,) * 2))
    assert small.shape == (2, 0) and not is_resampled(small, 0.5)
    assert compute_difference_spectra(np.zeros((MIN_RESAMPLING_SIDE_PX,) * 2)).shape[1] > 0
    even = compute_difference_spectra(np.full((SIDE_PX, SIDE_PX), 90.0))
    assert not is_resampled(even, 0.5)
