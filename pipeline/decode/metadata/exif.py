"""EXIF of an image: its orientation, the kinds of metadata in it, and when it was taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

from PIL import Image as Pillow

from pipeline.decode.formats import (
    METADATA_CAMERA,
    METADATA_DATE,
    METADATA_EXPOSURE,
    METADATA_PLACE,
    METADATA_WORDS,
    OWN_MARK,
)

ORIENTATION_TAG = 0x0112
SOFTWARE_TAG = 0x0131
EXIF_IFD = 0x8769
GPS_IFD = 0x8825
GPS_LATITUDE_TAG = 2  # inside GPS_IFD
GPS_LONGITUDE_TAG = 4
# DateTimeOriginal and DateTimeDigitized. DateTime (0x0132) is when the file was written.
DATE_TAKEN_TAGS = (0x9003, 0x9004)
# An image has a kind of metadata if one of these tags is filled.
TAGS_BY_METADATA_KIND = {
    METADATA_CAMERA: (0x010F, 0x0110),  # make, model
    METADATA_EXPOSURE: (0x829A, 0x829D, 0x8827),  # exposure time, aperture, sensitivity
    # What a person wrote or rated: description, artist, rating, copyright, comments, Windows' own.
    METADATA_WORDS: (
        *(0x010E, 0x013B, 0x4746, 0x8298, 0x9286),
        *(0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F),
    ),
}
TIFF_HEADER_BY_BYTE_ORDER = {b"II": b"II*\0", b"MM": b"MM\0*"}
COMMENT_CHARSET_PREFIXES = (b"ASCII", b"UNICODE", b"JIS")  # an empty comment has one too
MIN_YEAR_TAKEN = 1826  # of the oldest photograph; a clock that was never set can show less
# Days on which clocks begin that were never set: the epochs of Mac OS, Unix and FAT, whatever the
# time of the day, for such a clock goes on.
CLOCK_EPOCHS = {date(1904, 1, 1), date(1970, 1, 1), date(1980, 1, 1)}
# Where many cameras begin. Photos were taken later on that day, so only midnight counts.
CAMERA_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
EXIF_DATETIME_PATTERN = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")


def read_tags(image: Pillow.Image) -> dict[int, Any]:
    """Read an image's EXIF tags, merged with those of the Exif directory; GPS under GPS_IFD.

    Returns what can be read of broken EXIF, and never raises.
    """
    with suppress(Exception):  # broken EXIF raises anything, and is no reason to reject an image
        return _merge_directories(image.getexif())
    return {}


def read_raw_tags(data: bytes) -> dict[int, Any]:
    """Read the tags of a raw photo as read_tags() does; none if it is no variant of TIFF."""
    if header := TIFF_HEADER_BY_BYTE_ORDER.get(data[:2]):
        with suppress(Exception):  # as above
            exif = Pillow.Exif()
            # Olympus and Panasonic write other letters where a TIFF has its number.
            exif.load(data if data[:4] == header else header + data[4:])
            return _merge_directories(exif)
    return {}


def _merge_directories(exif: Pillow.Exif) -> dict[int, Any]:
    tags: dict[int, Any] = {}
    with suppress(Exception):  # as above: what can be read stays
        tags.update(exif)
        with suppress(Exception):
            tags = exif.get_ifd(EXIF_IFD) | tags  # the first directory is that of the image
        with suppress(Exception):
            tags = tags | {GPS_IFD: dict(exif.get_ifd(GPS_IFD))}
    return tags


def is_own_picture(tags: Mapping[int, Any], comment: object) -> bool:
    """Tell by its EXIF tags or its comment if neardup made a picture."""
    marks = (OWN_MARK, OWN_MARK.decode())
    return tags.get(SOFTWARE_TAG) in marks or comment in marks


def read_orientation(tags: Mapping[int, Any], default: int) -> int:
    """Return the orientation, 1 to 8 if the tag is sound; `default` if there is none."""
    value = tags.get(ORIENTATION_TAG, default)
    return value if isinstance(value, int) else default


def find_metadata_kinds(tags: Mapping[int, Any]) -> tuple[str, ...]:
    """Find the kinds of metadata in an image, in alphabetical order."""
    kinds = {
        kind
        for kind, tags_of_kind in TAGS_BY_METADATA_KIND.items()
        if any(_is_filled(tags.get(tag)) for tag in tags_of_kind)
    }
    place = tags.get(GPS_IFD)
    if isinstance(place, dict) and all(
        _is_filled(place.get(tag)) for tag in (GPS_LATITUDE_TAG, GPS_LONGITUDE_TAG)
    ):
        kinds.add(METADATA_PLACE)
    if read_date_taken(tags) is not None:
        kinds.add(METADATA_DATE)
    return tuple(sorted(kinds))


def read_date_taken(tags: Mapping[int, Any]) -> int | None:
    """Read when an image was taken, in seconds since 1970 by the camera's own clock.

    The clock's time zone is unknown. None if no tag holds a possible date, or if the clock was
    never set.
    """
    for tag in DATE_TAKEN_TAGS:
        if moment := parse_date(tags.get(tag)):
            return int(moment.timestamp())
    return None


def parse_date(value: Any) -> datetime | None:  # noqa: ANN401 - anything that a file can hold
    """Parse a date of EXIF; its UTC stands for the camera's own clock.

    None if it is no possible date, or that of a clock which was never set.
    """
    match = EXIF_DATETIME_PATTERN.match(str(value))
    if not match:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    with suppress(ValueError):  # 0000:00:00, which some cameras write
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        is_set = moment.date() not in CLOCK_EPOCHS and moment != CAMERA_EPOCH
        return moment if is_set and year >= MIN_YEAR_TAKEN else None
    return None


def _is_filled(value: Any) -> bool:  # noqa: ANN401 - anything that a file can hold
    """Tell if a tag holds information.

    Cameras write comments of spaces, ratings of 0, and positions without a fix.
    """
    if value is None:
        return False
    if isinstance(value, bytes):
        for charset in COMMENT_CHARSET_PREFIXES:
            value = value.removeprefix(charset)
        return bool(value.strip(b" \0"))
    if isinstance(value, tuple | list):
        return any(_is_filled(part) for part in value)
    if isinstance(value, str):
        return bool(value.strip(" \0"))
    with suppress(Exception):  # a rational of 0 / 0
        return bool(value == value and value != 0)
    return False
