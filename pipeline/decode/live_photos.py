"""The content identifier of the film of a live photo, by which its photo is known."""

from __future__ import annotations

import os
from pathlib import PurePath

PIXEL_VIDEO_SUFFIX = ".mp"
LIVE_VIDEO_SUFFIXES = {".mov", ".mp4", PIXEL_VIDEO_SUFFIX}
# The detail that a catalog keeps of such a film, which is no photo, ends with the identifier.
LIVE_VIDEO_DETAIL = "film of the live photo "
CONTENT_ID_KEY = b"com.apple.quicktime.content.identifier"
MAX_CONTENT_ID_CHARS = 64
MAX_BOXES = 64  # at the top of a film; phones write five
MAX_FILM_BYTES = 1 << 40  # a size beyond it is none
MAX_MOVIE_BOX_BYTES = 1 << 20  # that of a live photo has about 20 kB


def describe_film(path: str, descriptor: int) -> str:
    """Describe a file with the suffix of a film: its content identifier, if it has one, else ''.

    Only the sizes of boxes and the movie box are read. Raises OSError.
    """
    if PurePath(path).suffix.lower() not in LIVE_VIDEO_SUFFIXES:
        return ""
    content_id = _find_content_id(_read_movie_box(descriptor))
    return LIVE_VIDEO_DETAIL + content_id if content_id else ""


def parse_content_id(detail: str | None) -> str | None:
    """Return the content identifier that describe_film() put into a detail; None if it did not."""
    is_film = detail is not None and detail.startswith(LIVE_VIDEO_DETAIL)
    return detail.removeprefix(LIVE_VIDEO_DETAIL) if detail and is_film else None


def _read_movie_box(descriptor: int) -> bytes:
    """Read the box `moov` of a QuickTime or MPEG-4 file; empty if there is none."""
    offset = 0
    for _ in range(MAX_BOXES):
        header = os.pread(descriptor, 16, offset)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:  # a size of 64 bits follows
            size = int.from_bytes(header[8:16], "big")
        if kind == b"moov" and size <= MAX_MOVIE_BOX_BYTES:
            return os.pread(descriptor, size, offset)
        if len(header) < 8 or size < 8:
            break
        offset += size
        if offset > MAX_FILM_BYTES:
            break
    return b""


def _find_content_id(movie: bytes) -> str | None:
    """Find the value of CONTENT_ID_KEY: a list of keys, then values by their number, from 1."""
    keys = movie.find(b"keys")
    if keys < 0 or CONTENT_ID_KEY not in movie:
        return None
    position, number = keys + 12, 1  # after version and count
    while (size := _read_number(movie, position)) >= 8:
        if movie[position + 8 : position + size] == CONTENT_ID_KEY:
            break
        position, number = position + size, number + 1
    values = movie.find(b"ilst", position)
    if size < 8 or values < 0:
        return None
    position = values + 4
    while (size := _read_number(movie, position)) >= 24:
        if _read_number(movie, position + 4) == number:
            return _clean(movie[position + 24 : position + size])
        position += size
    return None


def _read_number(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "big")


def _clean(value: bytes) -> str | None:
    text = value.decode("ascii", errors="replace")
    is_valid = text.isascii() and text.isprintable() and 0 < len(text) <= MAX_CONTENT_ID_CHARS
    return text if is_valid else None
