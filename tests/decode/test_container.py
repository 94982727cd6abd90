"""Raw photos by their previews, and JPEG XL; files are written here, because no camera's may be shipped."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode import exif as exif_module
from pipeline.decode import formats, memory
from pipeline.decode import read as reading
from pipeline.decode.decode import Decoded, decode
from pipeline.decode.jxl import _JxlHeader
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import Failure
from pipeline.decode.resize import TRANSPOSE_BY_ORIENTATION
from tests.support.images import (
    PREPROCESS,
    decode_file,
    draw_scene,
    encode_jpeg,
    make_source_file,
    measure_difference,
    resize_with_pillow,
    save_image,
)

pytest.importorskip("rawpy")
pytest.importorskip("pillow_jxl")

Tags = dict[int, tuple[str, list[int] | bytes]]


def dng(
    sensor: NDArray[np.uint16],
    preview: bytes | None,
    preview_size: tuple[int, int],
    orientation: int = 1,
) -> bytes:
    """A DNG as small as LibRaw takes it: a sensor of red, green, green, blue behind an optional JPEG."""
    height, width = sensor.shape
    pixels = sensor.astype("<u2").tobytes()
    matrix = [
        value
        for row in np.round(np.linalg.inv(XYZ) * 10_000).astype(int).tolist()
        for number in row
        for value in (number, 10_000)
    ]
    raw: Tags = {
        254: ("I", [0]),
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [16]),
        259: ("H", [1]),
        262: ("H", [32803]),
        273: ("I", [8]),
        277: ("H", [1]),
        278: ("I", [height]),
        279: ("I", [len(pixels)]),
        33421: ("H", [2, 2]),
        33422: ("B", bytes([0, 1, 1, 2])),
    }
    about: Tags = {
        271: ("s", b"Test\0"),
        272: ("s", b"Camera\0"),
        274: ("H", [orientation]),
        50706: ("B", bytes([1, 4, 0, 0])),
        50708: ("s", b"Test Camera\0"),
        50721: ("r", matrix),
        50728: ("R", [1, 1] * 3),
        50778: ("H", [21]),
    }
    if preview is None:
        return _tiff(pixels, [raw | about])
    first: Tags = {
        254: ("I", [1]),
        256: ("I", [preview_size[0]]),
        257: ("I", [preview_size[1]]),
        258: ("H", [8, 8, 8]),
        259: ("H", [7]),
        262: ("H", [6]),
        273: ("I", [8 + len(pixels)]),
        277: ("H", [3]),
        278: ("I", [preview_size[1]]),
        279: ("I", [len(preview)]),
    }
    return _tiff(pixels + preview, [first | about, raw])


XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # of sRGB, so that it is the camera's own


def _tiff(body: bytes, directories: list[Tags]) -> bytes:
    """The first directory, and others as its children."""
    out = b"II*\0" + bytes(4) + body
    children: list[int] = []
    for tags in reversed(directories):
        if tags is directories[0] and children:
            tags = tags | {330: ("I", children)}
        at = len(out)
        far, entries = at + 2 + 12 * len(tags) + 4, b""
        values = b""
        for tag, (kind, value) in sorted(tags.items()):
            code, count = {
                "s": (2, len(value)),
                "B": (1, len(value)),
                "R": (5, len(value) // 2),
                "r": (10, len(value) // 2),
            }.get(kind, ({"H": 3, "I": 4}.get(kind, 0), len(value)))
            packed = (
                value
                if isinstance(value, bytes)
                else struct.pack("<" + {"R": "I", "r": "i"}.get(kind, kind) * len(value), *value)
            )
            if len(packed) > 4:
                values, packed = values + packed, struct.pack("<I", far + len(values))
            entries += struct.pack("<HHI", tag, code, count) + packed.ljust(4, b"\0")
        out += struct.pack("<H", len(tags)) + entries + bytes(4) + values
        children.append(at)
    return out[:4] + struct.pack("<I", children[-1]) + out[8:]


def mosaic(shown: Image.Image) -> NDArray[np.uint16]:
    """What a sensor behind the filters would see of a picture."""
    linear = (np.asarray(shown) / 255.0) ** 2.2 * 65535
    seen = linear[..., 1].copy()
    seen[::2, ::2], seen[1::2, 1::2] = linear[::2, ::2, 0], linear[1::2, 1::2, 2]
    return seen.astype(np.uint16)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("with_preview", [True, False])
def test_a_raw_photo_is_shown_upright(tmp_path: Path, orientation: int, with_preview: bool) -> None:
    shown = draw_scene(1, (640, 480))
    path = tmp_path / "a.dng"
    path.write_bytes(
        dng(
            mosaic(shown),
            encode_jpeg(shown.resize((320, 240))) if with_preview else None,
            (320, 240),
            orientation,
        )
    )
    decoded = decode_file(path)
    upright = shown.transpose(TRANSPOSE_BY_ORIENTATION[orientation]) if orientation != 1 else shown
    assert measure_difference(decoded.pixels, resize_with_pillow(upright)) < (
        4 if with_preview else 20
    )  # a sensor's numbers get another curve of tones
    assert (decoded.image.width, decoded.image.height) == upright.size  # not those of the preview
    assert (decoded.image.format, decoded.image.flags) == (
        "RAW",
        ("preview",) if with_preview else (),
    )
    assert decoded.image.size == path.stat().st_size


def test_a_raw_photo_is_never_the_same_pixels_as_its_preview(tmp_path: Path) -> None:
    shown = draw_scene(1, (320, 240))
    (tmp_path / "a.dng").write_bytes(dng(mosaic(shown), encode_jpeg(shown), shown.size))
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(shown))
    raw, preview = decode_file(tmp_path / "a.dng"), decode_file(tmp_path / "a.jpg")
    assert measure_difference(raw.pixels, preview.pixels) < 1
    assert raw.image.pixel_hash != preview.image.pixel_hash


def test_a_preview_that_is_smaller_than_what_is_asked_for_gives_way_to_the_sensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, path = draw_scene(1, (640, 480)), tmp_path / "a.dng"
    path.write_bytes(dng(mosaic(shown), encode_jpeg(Image.new("RGB", (80, 60))), (80, 60)))
    assert decode_file(path, Preprocess(60)).image.flags == ("preview",)
    larger = decode_file(path, Preprocess(61))
    assert larger.image.flags == ()
    assert measure_difference(larger.pixels, resize_with_pillow(shown, Preprocess(61))) < 20
    small = draw_scene(1, (100, 80))  # at half size it would be less than its preview
    path.write_bytes(dng(mosaic(small), encode_jpeg(Image.new("RGB", (64, 48))), (64, 48)))
    assert decode_file(path).image.flags == ("preview",)
    path.write_bytes(dng(mosaic(shown), encode_jpeg(Image.new("RGB", (80, 60))), (80, 60)))
    monkeypatch.setattr(memory, "MAX_PIXELS", 640 * 480 - 1)  # a small preview is better than none
    assert decode_file(path, Preprocess(61)).image.flags == ("preview",)


def test_a_cut_preview_is_noted(tmp_path: Path) -> None:
    shown = draw_scene(1, (320, 240))
    (tmp_path / "a.dng").write_bytes(
        dng(mosaic(shown), encode_jpeg(shown)[:-600] + bytes(2), shown.size)
    )
    assert set(decode_file(tmp_path / "a.dng").image.flags) == {"preview", "damaged"}


def test_a_raw_photo_without_a_preview_is_held_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(dng(mosaic(draw_scene(1, (640, 480))), None, (0, 0)))
    monkeypatch.setattr(memory, "MAX_PIXELS", 640 * 480 - 1)
    failed = decode(make_source_file(path), PREPROCESS)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail[:9]) == ("too many pixels", "640 x 480")


@pytest.mark.parametrize(
    "name", ["a.dng", "a.cr2", "a.nef", "a.arw", "a.orf", "a.rw2", "a.raf", "a.cr3"]
)
def test_what_only_has_the_name_of_a_raw_photo_has_a_reason(tmp_path: Path, name: str) -> None:
    for data in (
        b"this is text",
        b"II*\0\x08\0\0\0" + bytes(100),
        b"FUJIFILMCCD-RAW " + bytes(200),
        b"\0\0\0\x18ftypcrx " + bytes(200),
    ):
        (tmp_path / name).write_bytes(data)
        failed = decode(make_source_file(tmp_path / name), PREPROCESS)
        assert isinstance(failed, Failure)
        assert failed.reason in {"no picture inside", "damaged"}, failed


@pytest.mark.parametrize("options", [{}, {"compression": "jpeg"}])
def test_a_picture_depends_on_no_name(tmp_path: Path, options: dict[str, Any]) -> None:
    """An image is its bytes: who comes first must not decide what it shows, nor whether it is refused."""
    plain = save_image(tmp_path / "b.tif", draw_scene(1), **options)
    other = tmp_path / "a.dng"
    other.write_bytes(plain.read_bytes())
    named, called = decode_file(plain), decode_file(other)
    assert called.image == named.image
    assert np.array_equal(called.pixels, named.pixels)
    with DecoderPool(1) as decoders:
        for paths in ((plain, other), (other, plain)):
            for decoded in decoders.stream([make_source_file(path) for path in paths], PREPROCESS):
                assert isinstance(decoded, Decoded)
                assert decoded.image == named.image


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "jxl"])
def test_a_photo_with_the_name_of_a_raw_one_is_shown(tmp_path: Path, suffix: str) -> None:
    path = (
        jxl(tmp_path / "a.jxl", draw_scene(1), use_container=True)
        if suffix == "jxl"
        else save_image(tmp_path / f"a.{suffix}", draw_scene(1))
    )
    shown = decode_file(path)
    assert decode_file(path.rename(tmp_path / "a.raw")).image == shown.image


def jxl(path: Path, shown: Image.Image, **options: Any) -> Path:
    import pillow_jxl  # noqa: F401 - lets Pillow write it

    return save_image(path, shown, **options)


@pytest.mark.parametrize("size", [(320, 240), (1601, 203), (64, 64), (1920, 1080), (40, 900)])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"use_container": True}])
def test_a_jpeg_xl_shows_its_picture(
    tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    shown = draw_scene(2, size)
    decoded = decode_file(jxl(tmp_path / "a.jxl", shown, **options))
    assert (decoded.image.width, decoded.image.height) == size
    assert measure_difference(decoded.pixels, resize_with_pillow(shown)) < 3
    assert (decoded.image.format, decoded.image.flags) == ("JXL", ())


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_a_jpeg_xl_of_other_samples(tmp_path: Path, mode: str) -> None:
    shown = draw_scene(2).convert(mode)
    assert (
        measure_difference(
            decode_file(jxl(tmp_path / "a.jxl", shown, lossless=True)).pixels,
            resize_with_pillow(shown),
        )
        < 2
    )


def test_a_jpeg_xl_of_floats_is_shown_by_its_profile(tmp_path: Path) -> None:
    """They stand for light, so half of it is no middle grey."""
    levels = np.asarray(draw_scene(2).convert("L")) / 255.0
    shown = jxl(tmp_path / "a.jxl", Image.fromarray(levels.astype(np.float32)), lossless=True)
    encoded = np.where(levels <= 0.0031308, 12.92 * levels, 1.055 * levels ** (1 / 2.4) - 0.055)
    assert (
        measure_difference(
            decode_file(shown).pixels,
            resize_with_pillow(Image.fromarray((255 * encoded).round().astype(np.uint8))),
        )
        < 2
    )


def test_a_jpeg_in_a_jpeg_xl_is_decoded_as_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[exif_module.ORIENTATION_TAG] = 6
    path.write_bytes(encode_jpeg(draw_scene(3, (1600, 1200)), exif=exif))
    inside = decode_file(jxl(tmp_path / "a.jxl", Image.open(path), lossless_jpeg=True))
    assert (inside.image.width, inside.image.height) == (1200, 1600)
    assert measure_difference(inside.pixels, decode_file(path).pixels) < 1
    assert inside.image.pixel_hash != decode_file(path).image.pixel_hash


def test_a_jpeg_xl_is_held_to_the_limit_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jxl(tmp_path / "a.jxl", draw_scene(2, (640, 480)))
    path.write_bytes(path.read_bytes()[:40])
    monkeypatch.setattr(memory, "MAX_PIXELS", 640 * 480 - 1)
    failed = decode(make_source_file(path), PREPROCESS)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail[:9]) == ("too many pixels", "640 x 480")


def in_parts(path: Path, *ends: int) -> Path:
    """A JPEG XL whose code is cut at `ends` into parts with boxes of their own."""
    code = path.read_bytes()
    assert code.startswith(formats.JXL_CODESTREAM_SIGNATURE)
    boxed = formats.JXL_CONTAINER_SIGNATURE + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
    for number, (start, end) in enumerate(pairwise((0, *ends, len(code)))):
        last = 0x80000000 * (end == len(code))
        boxed += struct.pack(">I4sI", 12 + end - start, b"jxlp", number | last) + code[start:end]
    path.write_bytes(boxed)
    return path


@pytest.mark.parametrize("ends", [(), (2,), (3, 4, 5, 6), (2, 2, 30)])
def test_a_jpeg_xl_in_parts_is_held_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: tuple[int, ...]
) -> None:
    path = in_parts(jxl(tmp_path / "a.jxl", draw_scene(2, (640, 480))), *ends)
    assert (
        measure_difference(decode_file(path).pixels, resize_with_pillow(draw_scene(2, (640, 480))))
        < 3
    )
    monkeypatch.setattr(memory, "MAX_PIXELS", 640 * 480 - 1)
    failed = decode(make_source_file(path), PREPROCESS)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail[:9]) == ("too many pixels", "640 x 480")


def test_a_jpeg_xl_that_is_not_what_its_header_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jxl(tmp_path / "a.jxl", draw_scene(2, (640, 480)))
    monkeypatch.setattr(
        "pipeline.decode.jxl._read_jxl_header", lambda data: _JxlHeader(64, 48, False)
    )
    failed = decode(make_source_file(path), PREPROCESS)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail) == (
        "damaged",
        "640 x 480 pixels, where its header says 64 x 48",
    )


def test_a_decoder_of_jpeg_xl_that_panics_costs_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        """As Rust raises it through Python."""

    def panic(self: object, data: bytes) -> None:
        raise PanicException("index out of bounds")

    path = jxl(tmp_path / "a.jxl", draw_scene(2))
    monkeypatch.setattr(
        "pillow_jxl.Decoder",
        type("Decoder", (), {"__init__": lambda self, num_threads: None, "__call__": panic}),
    )
    failed = decode(make_source_file(path), PREPROCESS)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail) == ("damaged", "index out of bounds")


def test_an_animated_jpeg_xl_is_noted(tmp_path: Path) -> None:
    """From the specification's bits, lowest first: 8 x 8 pixels by eighths, square; not all by default, upright, then what there is."""
    from pipeline.decode.jxl import _read_jxl_header

    def header(size: int, preview: int, animation: int) -> bytes:
        bits, at = 0, 0
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
            bits, at = bits | value << at, at + width
        return b"\xff\x0a" + bits.to_bytes(20, "little")

    assert _read_jxl_header(header(0, 0, 0)) == _JxlHeader(8, 8, False)
    assert _read_jxl_header(header(0, 0, 1)) == _JxlHeader(8, 8, True)
    assert _read_jxl_header(header(1, 0, 1)) == _JxlHeader(8, 8, True)


@pytest.mark.parametrize(("name", "reason"), [("a.dng", "raw photo"), ("a.jxl", "no decoder")])
def test_without_its_extra_a_photo_is_left_out_and_seen_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    path = tmp_path / name
    if name == "a.dng":
        path.write_bytes(dng(mosaic(draw_scene(1)), encode_jpeg(draw_scene(1)), (320, 240)))
    else:
        jxl(path, draw_scene(1))
    assert reason in formats.RETRY_REASONS  # an ingest reads it again, now that it can
    monkeypatch.setattr(reading, "EXTRA_INSTALLED", {"raw": False, "jxl": False})
    failed = decode(make_source_file(path), PREPROCESS)
    assert isinstance(failed, Failure)
    assert failed.reason == reason
    assert f"neardup[{path.suffix == '.dng' and 'raw' or 'jxl'}]" in failed.detail
    assert reason in formats.SKIP_REASONS


def test_mutated_raw_photos_and_jpeg_xl_cost_themselves_alone(tmp_path: Path) -> None:
    """Seeded: flipped bytes in both, by the processes that an ingest has."""
    rng = np.random.default_rng(5)
    raw = dng(mosaic(draw_scene(1, (96, 64))), encode_jpeg(draw_scene(1, (96, 64))), (96, 64))
    bare = dng(mosaic(draw_scene(1, (96, 64))), None, (0, 0))
    xl = jxl(tmp_path / "sound.jxl", draw_scene(1, (96, 64))).read_bytes()
    paths = []
    for number in range(600):
        suffix, data = (("dng", raw), ("dng", bare), ("jxl", xl))[number % 3]
        mutated = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 8)):
            mutated[at] = rng.integers(256)
        if suffix == "dng":  # most of it is pixels
            mutated[-int(rng.integers(1, 400))] = rng.integers(256)
        paths.append(tmp_path / f"{number}.{suffix}")
        paths[-1].write_bytes(mutated)
    with DecoderPool(2) as decoders:
        results = list(
            decoders.stream([make_source_file(path) for path in paths], PREPROCESS, prefetch=20)
        )
    assert [result.source.path for result in results] == list(map(str, paths))
    assert sum(isinstance(result, Decoded) for result in results) > 100
    assert not [
        result for result in results if isinstance(result, Failure) and result.reason == "poisoned"
    ]
