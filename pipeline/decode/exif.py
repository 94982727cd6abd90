"""What a picture's EXIF tells of itself: which kinds of metadata there are, and when it was taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from PIL import Image as Pillow

from pipeline.decode.read import (
    METADATA_CAMERA,
    METADATA_DATE,
    METADATA_EXPOSURE,
    METADATA_PLACE,
    METADATA_WORDS,
)

ORIENTATION_TAG, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
DATE_TAKEN_TAGS = (
    0x9003,
    0x9004,
)  # when it was taken, when it was digitised; 0x0132 only says when the file was written
# Tags of each kind, one of which is enough; make, model; exposure, aperture, speed; what a person wrote, or rated.
TAGS_BY_METADATA_KIND = {
    METADATA_CAMERA: (0x010F, 0x0110),
    METADATA_EXPOSURE: (0x829A, 0x829D, 0x8827),
}
ANNOTATION_TAGS = (0x010E, 0x013B, 0x4746, 0x8298, 0x9286, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F)
COMMENT_CHARSET_PREFIXES = (
    b"ASCII",
    b"UNICODE",
    b"JIS",
)  # that a comment begins with, whether or not more follows
MIN_YEAR_TAKEN = 1826  # of the oldest photograph; a clock that was never set says less
GPS_LATITUDE_TAG, GPS_LONGITUDE_TAG = 2, 4
EXIF_DATETIME_PATTERN = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")


def read_tags(image: Pillow.Image) -> dict[int, Any]:
    """Its EXIF tags, those of the camera's directory among them, the place under GPS; none where they cannot be read. Raises nothing."""
    found: dict[int, Any] = {}
    with suppress(Exception):  # broken EXIF raises anything, and is no reason to refuse a picture
        exif = image.getexif()
        found.update(exif)
        for directory in (EXIF_IFD, GPS_IFD):
            with suppress(Exception):
                inside = dict(exif.get_ifd(directory))
                found = (
                    found | {GPS_IFD: inside} if directory == GPS_IFD else inside | found
                )  # the first directory is that of the picture
    return found


def read_orientation(tags: Mapping[int, Any], default: int) -> int:
    """How the picture must be turned, 1 to 8 where the tag is sound."""
    value = tags.get(ORIENTATION_TAG, default)
    return value if isinstance(value, int) else default


def find_metadata_kinds(tags: Mapping[int, Any]) -> tuple[str, ...]:
    """The kinds of metadata that there are, in the order of the alphabet."""
    kinds = {
        kind
        for kind, among in TAGS_BY_METADATA_KIND.items()
        if any(_is_filled(tags.get(tag)) for tag in among)
    }
    if any(_is_filled(tags.get(tag)) for tag in ANNOTATION_TAGS):
        kinds.add(METADATA_WORDS)
    place = tags.get(GPS_IFD)
    if (
        isinstance(place, dict)
        and _is_filled(place.get(GPS_LATITUDE_TAG))
        and _is_filled(place.get(GPS_LONGITUDE_TAG))
    ):
        kinds.add(METADATA_PLACE)
    if read_date_taken(tags) is not None:
        kinds.add(METADATA_DATE)
    return tuple(sorted(kinds))


def read_date_taken(tags: Mapping[int, Any]) -> int | None:
    """When it was taken, in seconds since 1970 by the camera's own clock, whatever its zone; None where nothing sound says so."""
    for tag in DATE_TAKEN_TAGS:
        moment = EXIF_DATETIME_PATTERN.match(str(tags.get(tag, "")))
        if moment:
            with suppress(ValueError):  # 0000:00:00, which some cameras write
                if int(moment[1]) < MIN_YEAR_TAKEN:
                    continue
                return int(datetime(*map(int, moment.groups()), tzinfo=UTC).timestamp())  # type: ignore[arg-type,misc] # six numbers
    return None


def _is_filled(value: Any) -> bool:  # noqa: ANN401 - whatever a file holds
    """Whether a tag says something: cameras write comments of spaces, ratings of 0, and places without a fix."""
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
    with suppress(Exception):  # rationals of nothing by nothing
        return bool(value == value and value != 0)
    return False
