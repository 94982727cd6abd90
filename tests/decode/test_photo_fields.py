"""Fields of photos as programs write them: EXIF, IPTC-IIM, XMP, Google Takeout; hostile ones."""

from __future__ import annotations

import io
import json
import zlib
from typing import Any

import pytest
from PIL import ExifTags
from PIL import Image as Pillow

from pipeline.decode.metadata import photo_fields
from pipeline.decode.metadata.fields import (
    MAX_FIELD_CHARS,
    FieldName,
    Fields,
    MetadataUnreadable,
    clean_date,
    clean_place,
    clean_rating,
    clean_text,
    combine_fields,
    is_field_value,
    make_fields,
)
from pipeline.decode.metadata.photo_fields import read_photo_fields, read_takeout_fields
from pipeline.decode.metadata.xmp import MAX_XMP_BYTES, parse_xmp
from tests.support.xmp import make_xmp


def save_photo(format_: str = "JPEG", **options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    Pillow.new("RGB", (16, 16)).save(stream, format_, **options)
    stream.seek(0)
    return stream


def make_iptc(*records: tuple[int, int, bytes]) -> bytes:
    """Make the Photoshop segment of a JPEG with records of IPTC-IIM."""
    data = b"".join(
        bytes([0x1C, record, number]) + len(value).to_bytes(2, "big") + value
        for record, number, value in records
    )
    resource = b"8BIM\x04\x04\0\0" + len(data).to_bytes(4, "big") + data + b"\0" * (len(data) % 2)
    segment = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_of_a_camera_and_of_windows_is_read(format_: str) -> None:
    exif = Pillow.Exif()
    exif[ExifTags.Base.ImageDescription] = "a caption"
    exif[0x4746] = 4
    exif[0x9C9B] = "Überschrift".encode("utf-16-le")
    exif[0x9C9E] = "sea; boat;;".encode("utf-16-le") + b"\0\0"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {0x9003: "2019:05:04 03:02:01", 0x9291: "25", 0x9011: "+02:00"}
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {1: "S", 2: (33.0, 51.0, 24.5), 3: "E", 4: (151.0, 12.0, 55.0)}
    )
    assert read_photo_fields(save_photo(format_, exif=exif.tobytes())) == {
        FieldName.DATE: ("2019-05-04T03:02:01.25+02:00",),
        FieldName.PLACE: ("-33.8568056,151.2152778",),
        FieldName.RATING: ("4",),
        FieldName.CAPTION: ("a caption",),
        FieldName.TITLE: ("Überschrift",),
        FieldName.KEYWORD: ("sea", "boat"),
    }


def test_iptc_is_read_in_utf_8_and_in_latin_1() -> None:
    plain = save_photo().getvalue()
    for charset, encoding in ((((1, 90, b"\x1b%G"),), "utf-8"), ((), "latin-1")):
        segment = make_iptc(
            *charset,
            (2, 5, b"title"),
            (2, 25, "Nürnberg".encode(encoding)),
            (2, 25, b"sea"),
            (2, 55, b"20190504"),
            (2, 60, b"030201+0200"),
            (2, 120, "für".encode(encoding)),
        )
        assert read_photo_fields(io.BytesIO(plain[:2] + segment + plain[2:])) == {
            FieldName.DATE: ("2019-05-04T03:02:01+02:00",),
            FieldName.CAPTION: ("für",),
            FieldName.TITLE: ("title",),
            FieldName.KEYWORD: ("Nürnberg", "sea"),
        }


def test_xmp_of_a_photo_counts_before_its_exif_for_what_people_write() -> None:
    exif = Pillow.Exif()
    exif[ExifTags.Base.ImageDescription] = "SONY DSC"
    packet = make_xmp("5", ["sea"], "words") + b"\0" * 10
    assert read_photo_fields(save_photo(exif=exif, xmp=packet)) == {
        FieldName.RATING: ("5",),
        FieldName.CAPTION: ("words",),
        FieldName.KEYWORD: ("sea",),
    }
    assert read_photo_fields(save_photo(exif=exif)) == {}


def test_xmp_of_a_photo_that_is_not_safe_to_read_is_refused() -> None:
    with pytest.raises(MetadataUnreadable, match="document type"):
        read_photo_fields(save_photo(xmp=b"<!DOCTYPE a><a/>"))
    with pytest.raises(MetadataUnreadable, match="not read here"):
        read_photo_fields(io.BytesIO(b"no photo"))


def test_raw_photo_is_read_if_it_is_a_tiff_inside() -> None:
    """Olympus and Panasonic write other letters where a TIFF has its number."""
    exif = Pillow.Exif()
    exif[ExifTags.Base.ImageDescription] = "words"
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    assert data[:4] == b"MM\0*"
    assert read_photo_fields(io.BytesIO(b"MMOR" + data[4:])) == {FieldName.CAPTION: ("words",)}
    with pytest.raises(MetadataUnreadable, match="not read here"):
        read_photo_fields(io.BytesIO(b"\0\0\0\x18ftypcrx "))


def test_json_of_google_takeout_is_read() -> None:
    document = {
        "title": "IMG_1.jpg",
        "description": "words",
        "photoTakenTime": {"timestamp": "1556945000"},
        "geoData": {"latitude": 0.0, "longitude": 0.0},
        "geoDataExif": {"latitude": 52.5, "longitude": -13.25},
    }
    assert read_takeout_fields(json.dumps(document).encode()) == {
        FieldName.DATE: ("2019-05-04T04:43:20Z",),
        FieldName.PLACE: ("52.5000000,-13.2500000",),
        FieldName.CAPTION: ("words",),
    }


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"photoTakenTime": None, "geoData": 3, "description": 5},
        {"photoTakenTime": {"timestamp": "1e999"}, "geoData": {"latitude": "x"}},
        {"photoTakenTime": {"timestamp": 10**40}},
        {"geoData": {"latitude": float("nan"), "longitude": float("inf")}},
    ],
)
def test_json_with_other_values_has_no_fields(document: object) -> None:
    assert read_takeout_fields(json.dumps(document).encode()) == {}


def test_json_that_is_none_or_too_large_is_refused() -> None:
    for data in (b"{", b"\xff", b"[" * 100_000, b" " * 2_000_000):
        with pytest.raises(MetadataUnreadable):
            read_takeout_fields(data)


@pytest.mark.parametrize(
    ("value", "date"),
    [
        ("2019:05:04 03:02:01", "2019-05-04T03:02:01"),
        ("2019-05-04T03:02:01.5Z", "2019-05-04T03:02:01.5Z"),
        ("2019-05-04T03:02", "2019-05-04T03:02:00"),
        ("2019-05-04", "2019-05-04"),
        ("1980", "1980"),
        ("1980-01", "1980-01"),
        ("1980-01-01T00:00:07", None),  # a clock that was never set
        ("0000:00:00 00:00:00", None),
        ("2019-13-01", None),
        ("2019-02-30", None),
        ("٢٠١٩", None),
        ("words", None),
        (None, None),
    ],
)
def test_dates_have_one_form(value: object, date: str | None) -> None:
    assert clean_date(value) == date
    assert date is None or is_field_value(FieldName.DATE, date)


def test_values_that_say_nothing_are_none() -> None:
    assert clean_place(0.0, 0.0) is None
    assert clean_place(91.0, 0.0) is None
    assert clean_place(float("nan"), 1.0) is None
    assert [clean_rating(value) for value in (0, 6, -1, "3.0", 5, b"x", "٣")] == [
        *(None, None, None, "3", "5", None, None)
    ]
    assert clean_text(" \x00\x1b\ud800 ") is None
    assert clean_text("a\r\nb\x0b") == "a\nb"
    with pytest.raises(MetadataUnreadable, match="60,000"):
        clean_text("a" * (MAX_FIELD_CHARS + 1))
    with pytest.raises(MetadataUnreadable, match="1,000 keywords"):
        make_fields({}, map(str, range(1_001)))


def test_the_first_source_counts_and_keywords_are_united_without_case() -> None:
    first: Fields = {FieldName.RATING: ("1",), FieldName.KEYWORD: ("Sea", "a")}
    second: Fields = {
        FieldName.RATING: ("2",),
        FieldName.TITLE: ("t",),
        FieldName.KEYWORD: ("sea", "b"),
    }
    assert combine_fields([first, second]) == {
        FieldName.RATING: ("1",),
        FieldName.TITLE: ("t",),
        FieldName.KEYWORD: ("Sea", "a", "b"),
    }


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no sound XML"),
        (b"<a>", "no sound XML"),
        (b"<a/>", "no XMP"),
        (b"<!DOCTYPE a><a/>", "document type"),
        (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "document type"),
        (b"<a>" * 1_000, "too many levels"),
        (b" " * (MAX_XMP_BYTES + 1), "more than 16 MB"),
        (b"\xff\xfe\xff", "encoding other than"),
        (b"<?xml version='1.0' encoding='latin-1'?><a/>", "names another encoding"),
        (b"<a>&b;</a>", "no sound XML"),
        (b"<b:a/>", "no sound XML"),
    ],
)
def test_xmp_that_is_not_safe_or_none_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(MetadataUnreadable, match=words):
        parse_xmp(data)


def test_fields_behind_the_pixels_of_a_png_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Pillow.Exif()
    exif[ExifTags.Base.ImageDescription] = "early"
    content = save_photo("PNG", exif=exif.tobytes()).getvalue()
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + make_xmp(rating="5")
    chunk = b"iTXt" + text
    late = len(text).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    end = content.rindex(b"IEND") - 4
    photo = content[:end] + late + content[end:]
    fields = read_photo_fields(io.BytesIO(photo))
    assert {FieldName.RATING, FieldName.CAPTION} <= set(fields)
    monkeypatch.setattr(photo_fields, "MAX_PNG_PIXELS", 10)
    with pytest.raises(MetadataUnreadable):
        read_photo_fields(io.BytesIO(photo))
