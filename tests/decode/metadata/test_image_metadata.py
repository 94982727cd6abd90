"""Metadata of images: fields of EXIF and maker notes, encodings, hostile blocks."""

from __future__ import annotations

import io
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from indexes.metadata import (
    MAX_COUNTED_COLORS,
    NO_METADATA,
    Fidelity,
    ImageMetadata,
    decode_metadata,
    encode_metadata,
)
from pipeline.decode.metadata.exif import read_raw_tags, read_tags
from pipeline.decode.metadata.image_metadata import read_metadata
from pipeline.decode.readers.pillow import load_format_plugins
from tests.support.images import decode_file, draw_scene, encode_jpeg, save_image
from tests.support.raw_and_jxl import save_dng

SCENE = draw_scene(1, (96, 64))
BASE = ExifTags.Base
MUTATED_BLOCKS = 2000


def make_exif(**changes: Any) -> Image.Exif:
    """The EXIF of a camera; `changes` are tags of its Exif directory by name."""
    exif = Image.Exif()
    exif[BASE.Make], exif[BASE.Model], exif[BASE.Software] = "Canon", "EOS 40D\0", "1.1 "
    exif[BASE.Orientation], exif[BASE.DateTime] = 6, "2021:06:01 10:00:00"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {
            BASE.DateTimeOriginal: "2021:05:30 15:56:01",
            BASE.SubsecTimeOriginal: "27 ",
            BASE.OffsetTimeOriginal: "+02:00",
            BASE.ExposureTime: 0.0125,
            BASE.ExposureBiasValue: -0.33,
            BASE.FNumber: 5.6,
            BASE.ISOSpeedRatings: 200,
            BASE.FocalLength: 50.0,
            BASE.ImageUniqueID: "77c6274bd589ad50395891e84a8b673b",
            BASE.BodySerialNumber: "0420",
            BASE.FileSource: b"\3",
            BASE.ExifImageWidth: 4000,
            BASE.ExifImageHeight: 3000,
        }
        | {getattr(BASE, name): value for name, value in changes.items()}
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {1: "S", 2: (48.0, 30.0, 36.0), 3: "E", 4: (16.0, 0.0, 0.0)}
    )
    return exif


def read_file(path: Path) -> ImageMetadata:
    metadata = decode_file(path).image.metadata
    assert metadata is not None
    assert decode_metadata(encode_metadata(metadata)) == metadata
    return metadata


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {}), ("a.png", {}), ("a.webp", {}), ("a.heic", {"format": "HEIF"})],
)
def test_fields_are_read_from_each_format(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    exif = make_exif()
    metadata = read_file(
        save_image(
            tmp_path / name,
            SCENE,
            exif=exif.tobytes() if options else exif,
            **options,
        )
    )
    capture = metadata.capture
    assert (capture.make, capture.model, metadata.software) == ("Canon", "EOS 40D", "1.1")
    assert (capture.taken, capture.subseconds) == ("2021-05-30 15:56:01", "27")
    assert (capture.utc_offset, metadata.modified) == ("+02:00", "2021-06-01 10:00:00")
    assert (capture.exposure_time, capture.exposure_bias) == (0.0125, -0.33)
    assert (capture.aperture, capture.iso, capture.focal_length) == (5.6, 200, 50.0)
    assert (capture.unique_id, capture.body_serial) == ("77c6274bd589ad50395891e84a8b673b", "0420")
    assert (metadata.source, metadata.latitude, metadata.longitude) == ("camera", -48.51, 16.0)
    assert (metadata.stated_width, metadata.stated_height) == (4000, 3000)


def test_fields_are_read_from_a_tiff(tmp_path: Path) -> None:
    directory = ImageFileDirectory_v2()
    directory[BASE.Model] = "EOS 40D"
    # Pillow writes a directory inside another, but not that of an Exif object.
    directory[ExifTags.IFD.Exif] = dict(make_exif().get_ifd(ExifTags.IFD.Exif))
    capture = read_file(save_image(tmp_path / "a.tif", SCENE, tiffinfo=directory)).capture
    assert (capture.model, capture.taken) == ("EOS 40D", "2021-05-30 15:56:01")
    assert (capture.exposure_time, capture.subseconds) == (0.0125, "27")


@pytest.mark.parametrize("magic", [b"II*\0", b"IIRO"])
def test_fields_are_read_from_a_raw_photo_whose_preview_has_none(magic: bytes) -> None:
    buffer = io.BytesIO()
    directory = ImageFileDirectory_v2()
    directory[ExifTags.IFD.Exif] = dict(make_exif().get_ifd(ExifTags.IFD.Exif))
    SCENE.save(buffer, "TIFF", tiffinfo=directory)
    tags = read_raw_tags(magic + buffer.getvalue()[4:])
    assert tags[BASE.DateTimeOriginal] == "2021:05:30 15:56:01"
    assert read_raw_tags(b"FUJIFILMCCD-RAW" + bytes(100)) == {}
    assert BASE.DateTimeOriginal not in read_raw_tags(magic + b"\xff" * 8)


def test_camera_of_a_dng_is_read(tmp_path: Path) -> None:
    pytest.importorskip("rawpy", reason="the extra raw is not installed")
    preview = draw_scene(2, (320, 240))
    for name, jpeg in (("bare.dng", None), ("preview.dng", preview)):
        metadata = read_file(save_dng(tmp_path / name, draw_scene(2, (320, 240)), jpeg))
        assert (metadata.capture.make, metadata.capture.model) == ("Test", "Camera")


def test_file_without_metadata_says_nothing(tmp_path: Path) -> None:
    metadata = read_file(save_image(tmp_path / "a.png", SCENE))
    assert replace(metadata, frames=None, fidelity=None) == NO_METADATA  # what is measured


def build_directory(byte_order: str, entries: list[tuple[int, int, bytes]], start: int) -> bytes:
    """A TIFF directory of (tag, type, value), `start` bytes after where its offsets count from."""
    values, packed = b"", struct.pack(f"{byte_order}H", len(entries))
    values_start = start + 2 + 12 * len(entries) + 4
    for tag, kind, value in entries:
        count = len(value) // {2: 1, 4: 4}[kind]
        field = value.ljust(4, b"\0")
        if len(value) > 4:
            field = struct.pack(f"{byte_order}I", values_start + len(values))
            values += value
        packed += struct.pack(f"{byte_order}HHI", tag, kind, count) + field
    return packed + b"\0\0\0\0" + values


def test_burst_and_live_photo_of_apple_are_read(tmp_path: Path) -> None:
    burst, content = b"5E6A1F3B-0000\0", b"570F1469-0001\0"
    note = b"Apple iOS\0\0\1MM" + build_directory(
        ">", [(0x000B, 2, burst), (0x0011, 2, content)], start=14
    )
    exif = make_exif(MakerNote=note)
    exif[BASE.Make] = "Apple"
    capture = read_file(save_image(tmp_path / "a.jpg", SCENE, exif=exif)).capture
    assert (capture.burst_id, capture.content_id) == ("5E6A1F3B-0000", "570F1469-0001")


def test_shutter_count_of_nikon_is_read(tmp_path: Path) -> None:
    header = b"Nikon\0\2\x10\0\0"
    tiff = b"II*\0\x08\0\0\0" + build_directory(
        "<", [(0x001D, 2, b"6001234\0"), (0x00A7, 4, struct.pack("<I", 6632))], start=8
    )
    exif = make_exif(MakerNote=header + tiff, BodySerialNumber="")
    exif[BASE.Make] = "NIKON CORPORATION"
    capture = read_file(save_image(tmp_path / "a.jpg", SCENE, exif=exif)).capture
    assert (capture.body_serial, capture.image_number) == ("6001234", 6632)


def test_image_number_of_canon_is_read(tmp_path: Path) -> None:
    """Canon's offsets count from the start of the EXIF data; a number lies in its own field."""
    note = build_directory("<", [(0x0008, 4, struct.pack("<I", 1202059))], start=0)
    exif = make_exif(MakerNote=note)
    exif.endian = "<"
    assert (
        read_file(save_image(tmp_path / "a.jpg", SCENE, exif=exif)).capture.image_number == 1202059
    )


@given(quality=st.integers(1, 100), subsampling=st.sampled_from([0, 1, 2]))
def test_quality_and_subsampling_of_a_jpeg_are_found(quality: int, subsampling: int) -> None:
    data = encode_jpeg(SCENE, quality, subsampling=subsampling)
    with Image.open(io.BytesIO(data)) as image:
        jpeg = read_metadata(image, read_tags(image)).jpeg
    assert jpeg is not None
    assert jpeg.has_standard_tables
    # At the lowest qualities all entries are 255.
    assert jpeg.quality == quality or quality < 3
    assert jpeg.subsampling == ("4:4:4", "4:2:2", "4:2:0")[subsampling]


def test_origin_of_a_jpeg_is_a_class(tmp_path: Path) -> None:
    def read_origin(name: str, **options: Any) -> str | None:
        jpeg = read_file(save_image(tmp_path / name, SCENE, **options)).jpeg
        assert jpeg is not None
        return jpeg.origin

    assert read_origin("camera.jpg", exif=make_exif(), subsampling=1) == "camera"
    assert read_origin("messenger.jpg", subsampling=2, quality=80) == "messenger"
    assert read_origin("unknown.jpg", subsampling=0) is None


def test_lying_fields_are_left_out(tmp_path: Path) -> None:
    exif = make_exif(
        DateTimeOriginal="0000:00:00 00:00:00",
        ExposureTime=float("inf"),
        FNumber=1e30,
        FocalLength=-5.0,
        ImageUniqueID="x" * 5000,
        OffsetTimeOriginal="\x1b[31m",
    )
    exif[BASE.Model] = "\x1b]0;title\x07" + "M" * 300
    capture = read_file(save_image(tmp_path / "a.jpg", SCENE, exif=exif)).capture
    assert (capture.taken, capture.subseconds, capture.utc_offset) == (None, None, None)
    assert (capture.exposure_time, capture.aperture, capture.focal_length) == (None, None, None)
    assert capture.model is not None
    assert capture.model.isprintable()
    assert len(capture.model) <= 80
    assert capture.unique_id is not None
    assert len(capture.unique_id) <= 80


def test_mutated_exif_gives_the_same_pixels_and_valid_metadata(tmp_path: Path) -> None:
    load_format_plugins()
    rng = random.Random(0)
    note = b"Apple iOS\0\0\1MM" + build_directory(">", [(0x000B, 2, b"5E6A1F3B-0000\0")], start=14)
    blocks = [make_exif().tobytes(), make_exif(MakerNote=note).tobytes()]
    for _ in range(MUTATED_BLOCKS):
        block = bytearray(rng.choice(blocks))
        for _ in range(rng.choice((1, 4, 40))):
            block[rng.randrange(6, len(block))] = rng.choice((0, 255, rng.randrange(256)))
        with Image.open(io.BytesIO(encode_jpeg(SCENE, exif=bytes(block)))) as image:
            metadata = read_metadata(image, read_tags(image))
        assert decode_metadata(encode_metadata(metadata)) == metadata
        assert len(encode_metadata(metadata)) < 2000


@given(
    color_count=st.integers(1, MAX_COUNTED_COLORS + 1),
    is_gray=st.booleans(),
    even_share=st.floats(0, 1),
    bit_depth=st.none() | st.integers(8, 64),
    blockiness=st.none() | st.floats(0, 2),
)
def test_fidelity_is_stored_as_it_was_measured(**measured: Any) -> None:
    metadata = ImageMetadata(fidelity=Fidelity(**measured))
    assert decode_metadata(encode_metadata(metadata)) == metadata


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"capture": []},
        {"capture": {"iso": "200"}},
        {"capture": {"iso": True}},
        {"capture": {"make": "x" * 1000}},
        {"capture": {"make": "a\nb"}},
        {"latitude": float("nan")},
        {"latitude": 1e300},
        {"jpeg": {"quality": 90}},
        {"fidelity": {"color_count": 2, "is_gray": 1, "even_share": 0.5}},
        {"fidelity": {"color_count": 2, "is_gray": True, "even_share": float("inf")}},
        {"unknown": 1},
    ],
)
def test_record_that_is_none_is_refused(record: Any) -> None:  # noqa: ANN401 - what JSON can hold
    with pytest.raises(ValueError, match=r".+"):
        ImageMetadata.from_json(record)
