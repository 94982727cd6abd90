"""Thumbnails that are made of the pixels decoded for the embedder."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.decode.decode import Decoded
from pipeline.decode.pixels.reduction import has_same_jpeg_scale, reduce_jpeg
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from tests.support.images import decode_file, draw_scene, encode_jpeg, make_source_file, save_image

EMBED_INPUT = Preprocess(160, with_thumbnail=True)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "heic", "jp2"])
@pytest.mark.parametrize("size", [(200, 150), (600, 400), (1600, 1200)])
def test_thumbnail_equals_one_that_is_decoded_on_its_own(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    path = save_image(tmp_path / f"a.{suffix}", draw_scene(1, size))
    thumbnail = decode_file(path, EMBED_INPUT).thumbnail
    if thumbnail is None:
        # OpenJPEG would decode another size for it.
        assert (suffix, size) == ("jp2", (1600, 1200))
    else:
        assert np.array_equal(thumbnail, decode_file(path, VERIFY_INPUT).pixels)


@pytest.mark.parametrize("size", [(1920, 1080), (3000, 400), (440, 1760)])
def test_jpeg_of_another_scale_has_no_thumbnail(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save_image(tmp_path / "a.jpg", draw_scene(1, size))
    assert decode_file(path, EMBED_INPUT).thumbnail is None


@pytest.mark.parametrize("side", [900, 1800, 2000])
def test_jpeg_2000_of_another_factor_has_no_thumbnail(tmp_path: Path, side: int) -> None:
    """An embedder can take more pixels than a thumbnail has."""
    path = save_image(tmp_path / "a.jp2", draw_scene(1, (side, side)))
    large = decode_file(path, Preprocess(768, with_thumbnail=True)).thumbnail
    assert (large is None) == (side >= 1792)
    if large is not None:
        assert np.array_equal(large, decode_file(path, VERIFY_INPUT).pixels)


def test_no_thumbnail_is_made_unless_asked_for(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.jpg", draw_scene(1))
    assert decode_file(path, replace(EMBED_INPUT, with_thumbnail=False)).thumbnail is None


def test_workers_return_the_thumbnail(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.jpg", draw_scene(1, (600, 400)))
    with DecoderPool(1) as pool:
        decoded = pool.decode(make_source_file(path), EMBED_INPUT)
    assert isinstance(decoded, Decoded)
    expected = decode_file(path, EMBED_INPUT)
    assert expected.thumbnail is not None
    assert decoded.thumbnail is not None
    assert np.array_equal(decoded.thumbnail, expected.thumbnail)
    assert np.array_equal(decoded.pixels, expected.pixels)


@given(st.integers(1, 2000), st.integers(1, 2000))
@settings(max_examples=50, deadline=None)
def test_scale_is_the_one_that_pillow_chooses(width: int, height: int) -> None:
    data = encode_jpeg(Image.new("L", (width, height)))
    sizes = []
    for preprocess in (EMBED_INPUT, VERIFY_INPUT):
        with Image.open(io.BytesIO(data)) as image:
            reduce_jpeg(image, preprocess)
            sizes.append(image.size)
    is_same = has_same_jpeg_scale((width, height), EMBED_INPUT, VERIFY_INPUT)
    assert is_same == (sizes[0] == sizes[1])
