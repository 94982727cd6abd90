"""The fields of a photo that one copy can hand on to another: when, where, and what people wrote.

A value is text in one form, whichever kind of metadata it comes from. Everything is from outside:
what is no such value is left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from enum import StrEnum
from math import isfinite
from typing import Any

from pipeline.decode.metadata.exif import parse_date

# EXIF and IPTC-IIM cannot hold more in one segment of a JPEG.
MAX_FIELD_CHARS = 60_000
MAX_KEYWORDS = 1_000
MAX_RATING = 5
_DATE_PATTERN = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_EXIF_DAY_PATTERN = re.compile(r"(\d{4}):(\d\d):(\d\d)", re.ASCII)
_OFFSET_PATTERN = re.compile(r"Z|[+-]\d\d:\d\d", re.ASCII)
_SUBSECONDS_PATTERN = re.compile(r"\d{1,9}", re.ASCII)
_PLACE_PATTERN = re.compile(r"(-?\d{1,3}\.\d{7}),(-?\d{1,3}\.\d{7})", re.ASCII)
# Characters that XML 1.0 cannot hold, not even as references.
_NO_XML_PATTERN = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class FieldName(StrEnum):
    """The name of a field; the values are printed as they are."""

    DATE = "date"  # when the photo was taken, ISO 8601, as precise as it is known
    PLACE = "place"  # latitude and longitude in degrees, "52.5162750,13.3777040"
    RATING = "rating"  # 1 to 5
    CAPTION = "caption"
    TITLE = "title"
    KEYWORD = "keyword"  # the only one with several values


# The values of each field that is filled: one, but for keywords.
Fields = Mapping[FieldName, tuple[str, ...]]


class MetadataUnreadable(Exception):
    """Metadata that cannot be read, or not with safety; the message says why."""


def make_fields(values: Mapping[FieldName, str | None], keywords: Iterable[str] = ()) -> Fields:
    """Make fields of values that were cleaned; an empty one is left out.

    Keywords are cleaned here, and each is kept once. Raises MetadataUnreadable.
    """
    made = {name: (value,) for name, value in values.items() if value}
    unique = dict[str, str]()
    for keyword in keywords:
        if cleaned := clean_text(keyword):
            unique.setdefault(make_comparison_key(FieldName.KEYWORD, cleaned), cleaned)
    if len(unique) > MAX_KEYWORDS:
        raise MetadataUnreadable(f"more than {MAX_KEYWORDS:,} keywords")
    return made | ({FieldName.KEYWORD: tuple(unique.values())} if unique else {})


def combine_fields(sources: Iterable[Fields]) -> Fields:
    """Combine the fields of several sources: keywords are united, of others the first one counts.

    Raises MetadataUnreadable.
    """
    values, keywords = dict[FieldName, str | None](), list[str]()
    for source in sources:
        for name, held in source.items():
            if name is FieldName.KEYWORD:
                keywords.extend(held)
            else:
                values.setdefault(name, held[0])
    return make_fields(values, keywords)


def make_comparison_key(name: FieldName, value: str) -> str:
    """Return what two values have in common that say the same.

    Keywords are compared without case, dates without fractions and time zones, places to 10 m.
    """
    if name is FieldName.DATE:
        return value[: len("2000-01-01T00:00:00")]
    if name is FieldName.PLACE:
        return ",".join(f"{float(part):.4f}" for part in value.split(","))
    return unicodedata.normalize("NFC", value).casefold()


def is_field_value(name: FieldName, value: str) -> bool:
    """Tell if a text is a value of a field in the form that it has here."""
    try:
        if name is FieldName.DATE:
            return clean_date(value) == value
        if name is FieldName.RATING:
            return clean_rating(value) == value
        if name is FieldName.PLACE:
            match = _PLACE_PATTERN.fullmatch(value)
            return match is not None and clean_place(float(match[1]), float(match[2])) == value
        return clean_text(value) == value
    except MetadataUnreadable:
        return False


def clean_text(value: Any) -> str | None:  # noqa: ANN401 - anything that a file can hold
    """Return text that XML can hold, without spaces around it; None if nothing is left.

    Raises MetadataUnreadable if it is too long to be taken over whole.
    """
    if not isinstance(value, str):
        return None
    text = _NO_XML_PATTERN.sub("", value.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if len(text) > MAX_FIELD_CHARS:
        raise MetadataUnreadable(f"a text of more than {MAX_FIELD_CHARS:,} characters")
    return text or None


def clean_date(value: Any, subseconds: Any = None, offset: Any = None) -> str | None:  # noqa: ANN401 - a file's
    """Return a date of EXIF or ISO 8601 in the form of XMP; None if it is no possible one.

    `subseconds` and `offset` are the EXIF tags that belong to it. XMP knows dates without a day.
    """
    match = _DATE_PATTERN.fullmatch(_EXIF_DAY_PATTERN.sub(r"\1-\2-\3", str(value).strip(" \0"), 1))
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    # Any day and hour will do to check the year alone, but for those of clocks that were never set.
    time = f"{hour or '12'}:{minute or '00'}:{second or '00'}"
    if parse_date(f"{year}:{month or '07'}:{day or '15'} {time}") is None:
        return None
    if hour is None:
        return "-".join(part for part in (year, month, day) if part)
    fraction = fraction or _match(_SUBSECONDS_PATTERN, subseconds)
    zone = zone or _match(_OFFSET_PATTERN, offset) or ""
    tail = f".{fraction}" if fraction and second else ""
    return f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{tail}{zone}"


def _match(pattern: re.Pattern[str], value: Any) -> str | None:  # noqa: ANN401 - a file's
    text = str(value).strip(" \0")
    return text if pattern.fullmatch(text) else None


def clean_place(latitude: float, longitude: float) -> str | None:
    """Return a place in degrees, north and east positive; None if it is none.

    0 degrees both ways lie in the ocean: they are written where there was no fix.
    """
    is_place = isfinite(latitude) and isfinite(longitude) and (latitude, longitude) != (0, 0)
    if not is_place or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    # Adding 0 makes a negative zero positive.
    return f"{round(latitude, 7) + 0.0:.7f},{round(longitude, 7) + 0.0:.7f}"


def clean_rating(value: Any) -> str | None:  # noqa: ANN401 - anything that a file can hold
    """Return a rating of 1 to 5 stars; None for any other, such as 0, which says nothing."""
    match = re.fullmatch(r"([1-5])(?:\.0*)?", str(value).strip(" \0"), re.ASCII)
    return match[1] if match else None
