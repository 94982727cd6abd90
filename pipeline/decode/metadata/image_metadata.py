"""Read what a file says of its image: EXIF, maker notes, how its JPEG was encoded.

A file can say anything. Values that are no such thing, or out of their bounds, are left out, and
nothing here raises because of a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, JpegImagePlugin
from PIL import Image as Pillow

from indexes.metadata import (
    MAX_NUMBER,
    MAX_TEXT_CHARS,
    Capture,
    ImageMetadata,
    JpegEncoding,
    Thumbnail,
)
from pipeline.decode.metadata.exif import (
    GPS_IFD,
    GPS_LATITUDE_TAG,
    GPS_LONGITUDE_TAG,
    ORIENTATION_TAG,
    parse_date,
)
from pipeline.decode.metadata.maker_notes import EXIF_PREFIX, read_maker_note

MAX_SUBSECOND_DIGITS = 9
MAX_EXPOSURE_SECONDS = 86_400.0
MAX_ISO = 10_000_000
MAX_APERTURE = 1_000.0
MAX_EXPOSURE_BIAS_EV = 100.0
MAX_FOCAL_LENGTH_MM = 100_000.0
MAX_SIDE_PIXELS = (1 << 31) - 1
FILE_SOURCES = {1: "scanner", 2: "scanner", 3: "camera"}
# libjpeg's quantization tables at quality 50, in the order of the rows (ITU T.81, annex K).
STANDARD_LUMA_TABLE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
SUBSAMPLING_NAMES = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


def read_metadata(image: Pillow.Image, tags: Mapping[int, Any]) -> ImageMetadata:
    """Read the metadata of an opened image whose EXIF tags are `tags`; see exif.read_tags()."""
    capture = _read_capture(image, tags)
    latitude, longitude = _read_position(tags.get(GPS_IFD))
    software = _to_text(tags.get(ExifTags.Base.Software))
    return ImageMetadata(
        capture=capture,
        software=software,
        modified=_to_date(tags.get(ExifTags.Base.DateTime)),
        source=FILE_SOURCES.get(_read_file_source(tags)),
        orientation=_to_int(tags.get(ORIENTATION_TAG), 8),
        latitude=latitude,
        longitude=longitude,
        stated_width=_to_int(tags.get(ExifTags.Base.ExifImageWidth), MAX_SIDE_PIXELS),
        stated_height=_to_int(tags.get(ExifTags.Base.ExifImageHeight), MAX_SIDE_PIXELS),
        jpeg=_read_jpeg_encoding(image, capture),
        thumbnail=_read_thumbnail(image),
    )


def _read_capture(image: Pillow.Image, tags: Mapping[int, Any]) -> Capture:
    base = ExifTags.Base
    noted = read_maker_note(image, tags)
    taken = _to_date(tags.get(base.DateTimeOriginal))
    return Capture(
        make=_to_text(tags.get(base.Make)),
        model=_to_text(tags.get(base.Model)),
        body_serial=_to_text(tags.get(base.BodySerialNumber))
        or _to_text(str(noted.get("body_serial") or "")),
        taken=taken,
        subseconds=_to_digits(tags.get(base.SubsecTimeOriginal)) if taken else None,
        utc_offset=_to_text(tags.get(base.OffsetTimeOriginal)) if taken else None,
        exposure_time=_to_positive(tags.get(base.ExposureTime), MAX_EXPOSURE_SECONDS),
        exposure_bias=_to_float(tags.get(base.ExposureBiasValue), MAX_EXPOSURE_BIAS_EV),
        aperture=_to_positive(tags.get(base.FNumber), MAX_APERTURE),
        iso=_to_int(_first(tags.get(base.ISOSpeedRatings)), MAX_ISO),
        focal_length=_to_positive(tags.get(base.FocalLength), MAX_FOCAL_LENGTH_MM),
        unique_id=_to_text(tags.get(base.ImageUniqueID)),
        image_number=_to_int(_first(noted.get("image_number")), MAX_NUMBER),
        burst_id=_to_text(noted.get("burst_id")),
        content_id=_to_text(noted.get("content_id")),
    )


def _read_file_source(tags: Mapping[int, Any]) -> int:
    value = tags.get(ExifTags.Base.FileSource)
    if isinstance(value, bytes) and value:
        return value[0]
    return value if isinstance(value, int) else 0


def _read_position(gps: Any) -> tuple[float | None, float | None]:  # noqa: ANN401 - from a file
    """Return latitude and longitude in degrees, south and west negative."""
    if not isinstance(gps, dict):
        return None, None
    latitude = _to_degrees(gps.get(GPS_LATITUDE_TAG), gps.get(GPS_LATITUDE_TAG - 1), 90.0)
    longitude = _to_degrees(gps.get(GPS_LONGITUDE_TAG), gps.get(GPS_LONGITUDE_TAG - 1), 180.0)
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _to_degrees(value: Any, direction: Any, most: float) -> float | None:  # noqa: ANN401 - a file's
    with suppress(Exception):
        degrees, minutes, seconds = (float(part) for part in value)
        angle = degrees + minutes / 60 + seconds / 3600
        if 0 <= angle <= most:
            return round(-angle if str(direction)[:1] in ("S", "W") else angle, 6)
    return None


def _read_thumbnail(image: Pillow.Image) -> Thumbnail | None:
    with suppress(Exception):
        exif = image.getexif()
        directory = exif.get_ifd(ExifTags.IFD.IFD1)
        start = directory[ExifTags.Base.JpegIFOffset]
        size = directory[ExifTags.Base.JpegIFByteCount]
        data = image.info["exif"].removeprefix(EXIF_PREFIX)[start : start + size]
        if len(data) == size > 0:
            return Thumbnail(size, hashlib.sha256(data).hexdigest()[:16])
    return None


def _read_jpeg_encoding(image: Pillow.Image, capture: Capture) -> JpegEncoding | None:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    with suppress(Exception):
        luma = np.array(image.quantization[0])
        quality = find_jpeg_quality(luma)
        is_standard = bool(np.array_equal(luma, _scale_luma_tables()[quality - 1]))
        subsampling = SUBSAMPLING_NAMES.get(JpegImagePlugin.get_sampling(image), "other")
        is_edited = "photoshop" in image.info or "adobe" in image.info
        is_from_camera = capture.make is not None and capture.exposure_time is not None
        origin = None
        if is_edited:
            origin = "editor"
        elif is_from_camera:
            origin = "camera"
        elif is_standard and subsampling == "4:2:0" and "exif" not in image.info:
            origin = "messenger"
        return JpegEncoding(quality, is_standard, subsampling, origin)
    return None


def find_jpeg_quality(luma: NDArray[np.int64]) -> int:
    """Return the quality of libjpeg, 1 to 100, whose luma table (64,) comes closest to `luma`."""
    return 1 + int(np.abs(_scale_luma_tables() - luma).sum(axis=1).argmin())


@cache
def _scale_luma_tables() -> NDArray[np.int64]:
    """Scale libjpeg's luma table to each quality as jpeg_set_quality() does: (100, 64)."""
    scales = [5000 // quality if quality < 50 else 200 - 2 * quality for quality in range(1, 101)]
    scaled = (np.outer(scales, STANDARD_LUMA_TABLE) + 50) // 100
    return np.asarray(scaled.clip(1, 255))


def _first(value: Any) -> Any:  # noqa: ANN401 - anything that a file can hold
    return value[0] if isinstance(value, tuple) and value else value


def _to_text(value: Any) -> str | None:  # noqa: ANN401 - anything that a file can hold
    """Return printable text without surrounding spaces; None if nothing is left."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    text = "".join(character for character in value if character.isprintable())
    return text[:MAX_TEXT_CHARS].strip() or None


def _to_digits(value: Any) -> str | None:  # noqa: ANN401 - anything that a file can hold
    text = (_to_text(value) or "").rstrip()
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_SUBSECOND_DIGITS
    return text if is_number else None


def _to_date(value: Any) -> str | None:  # noqa: ANN401 - anything that a file can hold
    moment = parse_date(value)
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else None


def _to_int(value: Any, most: int) -> int | None:  # noqa: ANN401 - anything that a file can hold
    return value if type(value) is int and 0 < value <= most else None


def _to_float(value: Any, most: float) -> float | None:  # noqa: ANN401 - anything a file can hold
    with suppress(Exception):
        number = float(_first(value))
        if isfinite(number) and abs(number) <= most:
            return round(number, 6)
    return None


def _to_positive(value: Any, most: float) -> float | None:  # noqa: ANN401 - anything a file holds
    number = _to_float(value, most)
    return number if number is not None and number > 0 else None
