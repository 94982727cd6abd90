"""The depth of samples, as the headers of files of each format state it."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis.strategies import binary, integers, sampled_from
from PIL import Image

from pipeline.decode.pixels.bit_depth import read_bit_depth
from pipeline.decode.readers.pillow import load_format_plugins
from tests.support.images import decode_file, draw_scene, encode_jpeg

SCENE = draw_scene(1, (96, 64))
DEEP = np.asarray(SCENE, np.uint16)[..., ::-1] * 257  # BGR, as OpenCV takes it


def encode_deep(suffix: str, options: tuple[int, ...] = ()) -> bytes:
    levels = DEEP >> 6 if suffix == ".avif" else DEEP  # of 10 bits
    is_encoded, encoded = cv2.imencode(suffix, levels, options)
    assert is_encoded
    return bytes(encoded.tobytes())


def encode_heic(bits: int, monkeypatch: pytest.MonkeyPatch) -> bytes:
    if bits == 8:
        heif = pillow_heif.from_pillow(SCENE)
    else:
        monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
        samples = np.ascontiguousarray(DEEP[..., ::-1]).tobytes()
        heif = pillow_heif.from_bytes("RGB;16", SCENE.size, samples)
    buffer = io.BytesIO()
    heif.save(buffer)
    return buffer.getvalue()


def encode(format_: str, image: Image.Image = SCENE) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


SHALLOW = {
    "one bit.png": encode("PNG", SCENE.convert("1")),
    "palette.png": encode("PNG", SCENE.quantize(4)),
    "fax.tiff": encode("TIFF", SCENE.convert("1")),
    "bitmap.pbm": encode("PPM", SCENE.convert("1")),
    "a.png": encode("PNG"),
    "a.tiff": encode("TIFF"),
    "a.ppm": encode("PPM"),
    "a.bmp": encode("BMP"),
    "a.gif": encode("GIF"),
    "a.webp": encode("WEBP"),
    "a.avif": encode("AVIF"),
    "a.jp2": encode("JPEG2000"),
    "a.jpg": encode_jpeg(SCENE),
}
DEEP_FILES = {
    "a.png": (16, encode_deep(".png")),
    "a.tiff": (16, encode_deep(".tiff")),
    "a.ppm": (16, encode_deep(".ppm")),
    "a.jp2": (16, encode_deep(".jp2")),
    "a.avif": (10, encode_deep(".avif", (cv2.IMWRITE_AVIF_DEPTH, 10))),
    "gray.png": (16, encode("PNG", Image.fromarray(DEEP[..., 0]))),
}


def read_stored_depth(path: Path) -> int | None:
    metadata = decode_file(path).image.metadata
    assert metadata is not None and metadata.fidelity is not None
    return metadata.fidelity.bit_depth


@pytest.mark.parametrize("name", SHALLOW)
def test_sample_of_up_to_8_bits_counts_as_8(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(SHALLOW[name])
    assert read_stored_depth(tmp_path / name) == 8


@pytest.mark.parametrize("name", DEEP_FILES)
def test_depth_of_a_deeper_file_is_read(tmp_path: Path, name: str) -> None:
    depth, data = DEEP_FILES[name]
    (tmp_path / name).write_bytes(data)
    assert read_stored_depth(tmp_path / name) == depth


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_depth_of_heic_is_read(tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(encode_heic(bits, monkeypatch))
    assert read_stored_depth(tmp_path / "a.heic") == bits


def test_deep_avif_equals_no_image_of_8_bits(tmp_path: Path) -> None:
    """Its pixels are decoded to 8 bits, so that equal ones would say too much."""
    (tmp_path / "a.avif").write_bytes(DEEP_FILES["a.avif"][1])
    avif = decode_file(tmp_path / "a.avif").image
    with Image.open(tmp_path / "a.avif") as image:
        image.save(tmp_path / "a.png")
    assert decode_file(tmp_path / "a.png").image.pixel_hash != avif.pixel_hash == avif.hash


@settings(deadline=None)
@given(name=sampled_from(["a.avif", "a.jp2"]), end=integers(0, 300), tail=binary(max_size=50))
def test_broken_header_has_a_depth_that_can_be_or_none(name: str, end: int, tail: bytes) -> None:
    load_format_plugins()
    data = DEEP_FILES[name][1]
    with Image.open(io.BytesIO(data)) as image:
        depth = read_bit_depth(image, data[:end] + tail)
    assert depth is None or 8 <= depth <= 64
