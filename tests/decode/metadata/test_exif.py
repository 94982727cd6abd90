"""EXIF: kinds of metadata, the date, the orientation, broken tags."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.decode.metadata.exif import ORIENTATION_TAG, find_metadata_kinds
from tests.support.images import (
    decode_file,
    draw_scene,
    encode_jpeg,
    save_image,
)


def test_metadata_kinds_and_date_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x010E] = "Canon", "   \0"  # an empty description
    exif.get_ifd(0x8769).update({0x9003: "2019:08:03 12:34:56", 0x829A: 0.01})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 1.0, 0.0), 3: "E", 4: (16.0, 0.0, 0.0)})
    (path := tmp_path / "a.jpg").write_bytes(encode_jpeg(draw_scene(1, (300, 200)), exif=exif))
    image = decode_file(path)
    assert image.image.metadata_kinds == ("camera", "date", "exposure", "place")
    assert image.image.taken_at == 1564835696
    save_image(tmp_path / "b.heic", draw_scene(1, (300, 200)), format="HEIF", exif=exif.tobytes())
    assert decode_file(tmp_path / "b.heic").image.metadata_kinds == (
        "camera",
        "date",
        "exposure",
        "place",
    )
    (bare := tmp_path / "c.jpg").write_bytes(encode_jpeg(draw_scene(1, (300, 200))))
    assert (decode_file(bare).image.metadata_kinds, decode_file(bare).image.taken_at) == ((), None)


@pytest.mark.parametrize(
    ("tag", "value", "kinds"),
    [
        (0x9286, b"ASCII\0\0\0" + b"\0" * 200, ()),
        (0x9286, b"ASCII\0\0\0our garden", ("words",)),
        (0x9C9B, b"\0\0", ()),
        (0x9C9B, "Garten".encode("utf-16-le"), ("words",)),
        (0x4746, 0, ()),
        (0x4746, 4, ("words",)),
        (0x010E, "   ", ()),
        (0x8825, {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, ()),
        (0x8825, {2: (48.0, 1.0, 0.0), 4: (16.0, 0.0, 0.0)}, ("place",)),
        (0x8825, {2: (float("nan"),) * 3, 4: (float("nan"),) * 3}, ()),
        (0x9003, "0001:01:01 00:00:00", ()),
    ],
)
def test_empty_tag_counts_as_no_metadata(tag: int, value: object, kinds: tuple[str, ...]) -> None:
    assert find_metadata_kinds({tag: value}) == kinds


def test_orientation_of_first_directory_wins(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 1
    exif.get_ifd(0x8769)[ORIENTATION_TAG] = 6
    (path := tmp_path / "a.jpg").write_bytes(encode_jpeg(draw_scene(1, (300, 200)), exif=exif))
    assert (decode_file(path).image.width, decode_file(path).image.height) == (300, 200)


@pytest.mark.parametrize(
    "date",
    [
        "0000:00:00 00:00:00",
        "2019:13:01 00:00:00",
        "yesterday",
        "",
        "2019-08-03",
        "99999:01:01 00:00:00",
    ],
)
def test_impossible_date_is_none(date: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: date})
    (path := tmp_path / "a.jpg").write_bytes(encode_jpeg(draw_scene(1, (300, 200)), exif=exif))
    assert (decode_file(path).image.metadata_kinds, decode_file(path).image.taken_at) == ((), None)


@pytest.mark.parametrize("start", range(6, 120, 3))
def test_photo_with_broken_exif_is_decoded(start: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    exif.get_ifd(0x8769).update({0x9003: "2019:08:03 12:34:56"})
    data = bytearray(exif.tobytes())
    data[start : start + 3] = b"\xff\xff\xff"
    (path := tmp_path / "a.jpg").write_bytes(
        encode_jpeg(draw_scene(1, (300, 200)), exif=bytes(data))
    )
    assert decode_file(path).image.width in (300, 200)
