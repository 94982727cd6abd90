"""JPEG XL; the files are written here, by libjxl."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import memory
from pipeline.decode.formats import (
    JXL_CODESTREAM_SIGNATURE,
    JXL_CONTAINER_SIGNATURE,
)
from pipeline.decode.metadata.exif import ORIENTATION_TAG
from pipeline.decode.readers.jxl import _JxlHeader, _read_jxl_header
from tests.support.images import (
    decode_failure,
    decode_file,
    draw_scene,
    encode_jpeg,
    measure_decoding_error,
    measure_difference,
    resize_with_pillow,
)
from tests.support.raw_and_jxl import save_jxl

pytest.importorskip("pillow_jxl")


@pytest.mark.parametrize("size", [(320, 240), (1601, 203), (64, 64), (1920, 1080), (40, 900)])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"use_container": True}])
def test_jxl_decodes_to_its_pixels(
    tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    scene = draw_scene(2, size)
    decoded = decode_file(save_jxl(tmp_path / "a.jxl", scene, **options))
    assert (decoded.image.width, decoded.image.height) == size
    assert measure_difference(decoded.pixels, resize_with_pillow(scene)) < 3
    assert (decoded.image.format, decoded.image.flags) == ("JXL", ())


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_jxl_of_gray_or_alpha_decodes_to_its_pixels(tmp_path: Path, mode: str) -> None:
    scene = draw_scene(2).convert(mode)
    assert measure_decoding_error(save_jxl(tmp_path / "a.jxl", scene, lossless=True), scene) < 2


def test_jxl_of_floats_is_converted_by_its_profile(tmp_path: Path) -> None:
    """Floats are linear in light, so 0.5 is no middle gray."""
    levels = np.asarray(draw_scene(2).convert("L")) / 255.0
    scene = save_jxl(tmp_path / "a.jxl", Image.fromarray(levels.astype(np.float32)), lossless=True)
    encoded = np.where(levels <= 0.0031308, 12.92 * levels, 1.055 * levels ** (1 / 2.4) - 0.055)
    assert (
        measure_decoding_error(scene, Image.fromarray((255 * encoded).round().astype(np.uint8))) < 2
    )


def test_jxl_of_a_jpeg_is_decoded_as_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    path.write_bytes(encode_jpeg(draw_scene(3, (1600, 1200)), exif=exif))
    inside = decode_file(save_jxl(tmp_path / "a.jxl", Image.open(path), lossless_jpeg=True))
    assert (inside.image.width, inside.image.height) == (1200, 1600)
    assert measure_difference(inside.pixels, decode_file(path).pixels) < 1
    assert inside.image.pixel_hash != decode_file(path).image.pixel_hash


def test_jxl_over_pixel_limit_is_rejected_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_jxl(tmp_path / "a.jxl", draw_scene(2, (640, 480)))
    path.write_bytes(path.read_bytes()[:40])
    monkeypatch.setattr(memory, "MAX_PIXELS", 640 * 480 - 1)
    failed = decode_failure(path)
    assert (failed.reason, str(failed.detail)[:9]) == ("too many pixels", "640 x 480")


def split_into_boxes(path: Path, *ends: int) -> Path:
    """Split the codestream of a JPEG XL at `ends` into boxes of their own."""
    codestream = path.read_bytes()
    assert codestream.startswith(JXL_CODESTREAM_SIGNATURE)
    container = JXL_CONTAINER_SIGNATURE + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
    for number, (start, end) in enumerate(pairwise((0, *ends, len(codestream)))):
        last = 0x80000000 * (end == len(codestream))
        container += (
            struct.pack(">I4sI", 12 + end - start, b"jxlp", number | last) + codestream[start:end]
        )
    path.write_bytes(container)
    return path


@pytest.mark.parametrize("ends", [(), (2,), (3, 4, 5, 6), (2, 2, 30)])
def test_jxl_in_boxes_over_pixel_limit_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: tuple[int, ...]
) -> None:
    path = split_into_boxes(save_jxl(tmp_path / "a.jxl", draw_scene(2, (640, 480))), *ends)
    assert measure_decoding_error(path, draw_scene(2, (640, 480))) < 3
    monkeypatch.setattr(memory, "MAX_PIXELS", 640 * 480 - 1)
    failed = decode_failure(path)
    assert (failed.reason, str(failed.detail)[:9]) == ("too many pixels", "640 x 480")


def test_jxl_with_other_size_than_its_header_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_jxl(tmp_path / "a.jxl", draw_scene(2, (640, 480)))
    monkeypatch.setattr(
        "pipeline.decode.readers.jxl._read_jxl_header", lambda data: _JxlHeader(64, 48, False)
    )
    failed = decode_failure(path)
    assert (failed.reason, failed.detail) == (
        "damaged",
        "640 x 480 pixels, where its header says 64 x 48",
    )


def test_jxl_that_makes_its_decoder_panic_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        """The exception that a Rust panic becomes in Python."""

    def panic(self: object, data: bytes) -> None:
        raise PanicException("index out of bounds")

    path = save_jxl(tmp_path / "a.jxl", draw_scene(2))
    monkeypatch.setattr(
        "pillow_jxl.Decoder",
        type("Decoder", (), {"__init__": lambda self, num_threads: None, "__call__": panic}),
    )
    failed = decode_failure(path)
    assert (failed.reason, failed.detail) == ("damaged", "index out of bounds")


def test_animated_jxl_header_is_recognised(tmp_path: Path) -> None:
    """Build headers of 8 x 8 pixels by the specification, lowest bit first."""

    def header(size: int, preview: int, animation: int) -> bytes:
        bits, offset = 0, 0
        fields = [
            (1, 1),
            (0, 5),
            (1, 3),
            (0, 1),
            (1, 1),
            (0, 3),
            (size, 1),
            *([(1, 1), (0, 5), (1, 3)] if size else []),
            (preview, 1),
        ]
        for value, width in [*fields, (animation, 1)]:
            bits, offset = bits | value << offset, offset + width
        return b"\xff\x0a" + bits.to_bytes(20, "little")

    assert _read_jxl_header(header(0, 0, 0)) == _JxlHeader(8, 8, False)
    assert _read_jxl_header(header(0, 0, 1)) == _JxlHeader(8, 8, True)
    assert _read_jxl_header(header(1, 0, 1)) == _JxlHeader(8, 8, True)
