"""Cursors: the place after a page of groups, as an opaque text that is checked when it returns."""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode

from blake3 import blake3

from pipeline.errors import InvalidFilter

CHECKSUM_BYTES = 8
MAX_CURSOR_CHARS = 1 << 15
CONTEXT = "neardup review 2026-12-01 cursor of a page of groups"  # of this form of cursors


def encode_cursor(rank: int, path: bytes) -> str:
    """Encode the rank and the path of the last group of a page."""
    place = struct.pack(">q", rank) + path
    return urlsafe_b64encode(_compute_checksum(place) + place).decode("ascii").rstrip("=")


def parse_cursor(cursor: str) -> tuple[int, bytes]:
    """Return the rank and the path in a cursor.

    Raises InvalidFilter for anything that encode_cursor() did not make. The checksum is no secret:
    a cursor names a place in a listing, and any place is one that its reader may see.
    """
    try:
        if len(cursor) > MAX_CURSOR_CHARS:
            raise ValueError
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        checksum, place = data[:CHECKSUM_BYTES], data[CHECKSUM_BYTES:]
        if checksum != _compute_checksum(place):
            raise ValueError
        (rank,) = struct.unpack_from(">q", place)
        path = place[struct.calcsize(">q") :]
        if encode_cursor(rank, path) != cursor:  # base64 ignores foreign characters
            raise ValueError
    except (ValueError, struct.error) as error:
        raise InvalidFilter(
            "the cursor is not one of a page of groups; start at the first"
        ) from error
    return rank, path


def _compute_checksum(place: bytes) -> bytes:
    return blake3(place, derive_key_context=CONTEXT).digest(CHECKSUM_BYTES)
