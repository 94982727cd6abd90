"""Read the fields of a photo: from its own file, and from the JSON that Google Takeout writes."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO

from PIL import ExifTags, IptcImagePlugin
from PIL import Image as Pillow

from pipeline.decode.metadata import exif
from pipeline.decode.metadata.fields import (
    FieldName,
    Fields,
    MetadataUnreadable,
    clean_date,
    clean_place,
    clean_rating,
    clean_text,
    combine_fields,
    make_fields,
)
from pipeline.decode.metadata.xmp import parse_xmp
from pipeline.decode.readers.pillow import ALLOWED_FORMATS, load_format_plugins

MAX_JSON_BYTES = 1 << 20  # Google Takeout writes 1 kB
MAX_PNG_PIXELS = 64_000_000  # 256 MB, in the process that plans
MAX_RAW_BYTES = 1 << 29
XMP_TAG = 700  # of a TIFF
RATING_TAG = 0x4746
# Of Windows, in UTF-16: title, comment, keywords.
XP_TITLE_TAG, XP_COMMENT_TAG, XP_KEYWORDS_TAG = 0x9C9B, 0x9C9C, 0x9C9E
# Record and number of IPTC-IIM.
IPTC_CHARSET, IPTC_TITLE, IPTC_KEYWORDS = (1, 90), (2, 5), (2, 25)
IPTC_DATE, IPTC_TIME, IPTC_CAPTION = (2, 55), (2, 60), (2, 120)
IPTC_UTF_8 = b"\x1b%G"
# Cameras fill the description with their own name: no person wrote it.
_CAMERA_CAPTION_PATTERN = re.compile(r"[A-Z ]*DIGITAL CAMERA *|SONY DSC|DCIM.*")


def read_photo_fields(file: BinaryIO) -> Fields:
    """Read the fields of a photo from its open file: EXIF, IPTC-IIM and XMP. Only a PNG is decoded.

    What EXIF says of date and place counts before XMP, and what people wrote the other way round:
    EXIF holds less of it. Raises MetadataUnreadable.
    """
    tags, packet, iptc = _read_parts(file)
    by_exif = _read_exif_fields(tags)
    by_xmp = parse_xmp(packet).read_fields() if packet else {}
    first = {name: by_exif[name] for name in (FieldName.DATE, FieldName.PLACE) if name in by_exif}
    return combine_fields([first, by_xmp, _read_iptc_fields(iptc), by_exif])


def _read_parts(file: BinaryIO) -> tuple[Mapping[int, Any], bytes, Mapping[Any, Any]]:
    """Read the EXIF tags, the XMP and the records of IPTC-IIM. Raises MetadataUnreadable."""
    load_format_plugins()
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore")  # what Pillow says of odd metadata helps no one here
            image = stack.enter_context(Pillow.open(file, formats=ALLOWED_FORMATS))
            if image.format == "PNG":
                _load_late_chunks(image)
            tags = exif.read_tags(image)
            packet = image.info.get("xmp") or tags.get(XMP_TAG) or b""
            iptc: Any = {}
            with suppress(Exception):  # broken IPTC raises anything; what else is there stays
                iptc = IptcImagePlugin.getiptcinfo(image) or {}
    except Exception as error:  # a broken file can make a decoder raise anything
        file.seek(0)
        is_raw = file.read(2) in exif.TIFF_HEADER_BY_BYTE_ORDER
        file.seek(0)
        tags = exif.read_raw_tags(file.read(MAX_RAW_BYTES)) if is_raw else {}
        packet, iptc = tags.get(XMP_TAG) or b"", {}
        if not tags:
            raise MetadataUnreadable("a format whose metadata is not read here") from error
    if isinstance(packet, str):
        packet = packet.encode(errors="replace")
    if not isinstance(packet, bytes):
        packet = b""
    return tags, packet.strip(b" \t\r\n\0"), iptc


def _load_late_chunks(image: Pillow.Image) -> None:
    """Read the chunks behind the pixels of a PNG, for which Pillow decodes these.

    Raises ValueError for one of too many pixels.
    """
    if image.width * image.height > MAX_PNG_PIXELS:
        raise ValueError("too many pixels")
    image.load()


def _read_exif_fields(tags: Mapping[int, Any]) -> Fields:
    base = ExifTags.Base
    dates = (
        clean_date(
            tags.get(base.DateTimeOriginal),
            tags.get(base.SubsecTimeOriginal),
            tags.get(base.OffsetTimeOriginal),
        ),
        clean_date(
            tags.get(base.DateTimeDigitized),
            tags.get(base.SubsecTimeDigitized),
            tags.get(base.OffsetTimeDigitized),
        ),
    )
    captions = [
        _decode_text(tags.get(base.ImageDescription)),
        _decode_windows_text(tags.get(XP_COMMENT_TAG)),
    ]
    return make_fields(
        {
            FieldName.DATE: next(filter(None, dates), None),
            FieldName.PLACE: _read_exif_place(tags.get(exif.GPS_IFD)),
            FieldName.RATING: clean_rating(tags.get(RATING_TAG)),
            FieldName.CAPTION: next(
                (text for text in captions if text and not _CAMERA_CAPTION_PATTERN.fullmatch(text)),
                None,
            ),
            FieldName.TITLE: _decode_windows_text(tags.get(XP_TITLE_TAG)),
        },
        (_decode_windows_text(tags.get(XP_KEYWORDS_TAG)) or "").split(";"),
    )


def _decode_text(value: Any) -> str | None:  # noqa: ANN401 - anything that a file can hold
    """Decode text of EXIF: programs write UTF-8 where ASCII is asked for.

    Pillow decodes it as Latin-1.
    """
    if isinstance(value, str):
        with suppress(UnicodeError):
            value = value.encode("latin-1").decode()
    elif isinstance(value, bytes):
        value = value.decode(errors="replace")
    return clean_text(value)


def _decode_windows_text(value: Any) -> str | None:  # noqa: ANN401 - anything that a file can hold
    if isinstance(value, tuple):
        with suppress(TypeError, ValueError):
            value = bytes(value)
    return clean_text(value.decode("utf-16-le", "ignore")) if isinstance(value, bytes) else None


def _read_exif_place(gps: Any) -> str | None:  # noqa: ANN401 - anything that a file can hold
    with suppress(Exception):  # as of all EXIF
        angles = []
        for tag in (exif.GPS_LATITUDE_TAG, exif.GPS_LONGITUDE_TAG):
            degrees, minutes, seconds = (float(part) for part in gps[tag])
            angle = degrees + minutes / 60 + seconds / 3600
            angles.append(-angle if str(gps[tag - 1])[:1] in ("S", "W") else angle)
        return clean_place(*angles)
    return None


def _read_iptc_fields(records: Mapping[Any, Any]) -> Fields:
    is_utf_8 = records.get(IPTC_CHARSET) == IPTC_UTF_8

    def decode(value: Any) -> str:  # noqa: ANN401 - anything that a file can hold
        if not isinstance(value, bytes):
            return ""
        with suppress(UnicodeDecodeError):
            return value.decode()
        return value.decode(errors="replace") if is_utf_8 else value.decode("latin-1")

    keywords = records.get(IPTC_KEYWORDS)
    day, time = decode(records.get(IPTC_DATE)), decode(records.get(IPTC_TIME))
    date = f"{day[:4]}-{day[4:6]}-{day[6:8]}" if len(day) == 8 else ""
    if date and len(time) >= 6:
        zone = f"{time[6:9]}:{time[9:11]}" if len(time) == 11 else ""
        date += f"T{time[:2]}:{time[2:4]}:{time[4:6]}{zone}"
    return make_fields(
        {
            FieldName.DATE: clean_date(date),
            FieldName.CAPTION: clean_text(decode(records.get(IPTC_CAPTION))),
            FieldName.TITLE: clean_text(decode(records.get(IPTC_TITLE))),
        },
        map(decode, keywords if isinstance(keywords, list) else [keywords]),
    )


def read_takeout_fields(data: bytes) -> Fields:
    """Read the fields of the JSON that Google Takeout writes beside a photo; times are in UTC.

    Raises MetadataUnreadable.
    """
    if len(data) > MAX_JSON_BYTES:
        raise MetadataUnreadable(f"more than {MAX_JSON_BYTES >> 20} MB of JSON")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MetadataUnreadable("no JSON") from error
    if not isinstance(document, dict):
        return {}
    date = place = None
    with suppress(TypeError, KeyError, ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(int(document["photoTakenTime"]["timestamp"]), UTC)
        date = clean_date(f"{moment:%Y-%m-%dT%H:%M:%S}Z")
    for key in ("geoData", "geoDataExif"):
        with suppress(TypeError, KeyError, ValueError, OverflowError):
            geo = document[key]
            place = place or clean_place(float(geo["latitude"]), float(geo["longitude"]))
    return make_fields(
        {
            FieldName.DATE: date,
            FieldName.PLACE: place,
            FieldName.CAPTION: clean_text(document.get("description")),
        }
    )
