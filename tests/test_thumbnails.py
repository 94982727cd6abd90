"""The JPEG of a thumbnail: smaller than Pillow's default, with the same pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.thumbnails import THUMBNAIL_JPEG_QUALITY, decode_thumbnail, encode_thumbnail
from tests.support.images import draw_textured_image


def _encode_plainly(rgb: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=THUMBNAIL_JPEG_QUALITY)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(448, 298), (200, 448), (17, 9), (1, 1)])
def test_encoded_thumbnail_is_smaller_with_the_pixels_of_a_plain_jpeg(
    size: tuple[int, int],
) -> None:
    rgb = np.asarray(draw_textured_image(1, size))
    jpeg, plain = encode_thumbnail(rgb), _encode_plainly(rgb)
    assert len(jpeg) < len(plain)
    assert np.array_equal(decode_thumbnail(jpeg), decode_thumbnail(plain))


def test_noise_that_takes_more_than_a_byte_a_pixel_is_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    chroma = random.integers(0, 2, (224, 224, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    luma = random.integers(0, 2, (448, 448, 1), np.uint8)
    noise = np.where(random.random((448, 448, 1)) < 0.7, chroma, luma) * np.uint8(255)
    monkeypatch.setattr("pipeline.thumbnails.THUMBNAIL_JPEG_QUALITY", 91)
    jpeg = encode_thumbnail(noise)
    assert len(jpeg) > 448 * 448
    assert decode_thumbnail(jpeg).shape == noise.shape
