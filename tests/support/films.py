"""Films as phones write them, without a frame."""

from __future__ import annotations

import struct

from PIL import Image

from pipeline.decode.live_photos import CONTENT_ID_KEY


def make_box(kind: bytes, content: bytes) -> bytes:
    """Make a box of a QuickTime file."""
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def make_apple_exif(content_id: bytes) -> Image.Exif:
    """Make the EXIF data of the photo of a live photo."""
    value = content_id + b"\0"
    directory = struct.pack(">HHHIII", 1, 0x0011, 2, len(value), 32, 0)
    exif = Image.Exif()
    exif[0x010F] = "Apple"
    exif.get_ifd(0x8769)[0x927C] = b"Apple iOS\0\0\1MM" + directory + value
    return exif


def make_film(content_id: bytes | None = None, *, frame_bytes: int = 1000) -> bytes:
    """Make a film; with a content identifier that of a live photo, after another key."""
    metadata = b""
    if content_id is not None:
        names = (b"com.apple.quicktime.make", CONTENT_ID_KEY)
        keys = b"".join(make_box(b"mdta", name) for name in names)
        items = b"".join(
            make_box(number.to_bytes(4, "big"), make_box(b"data", b"\0\0\0\1\0\0\0\0" + value))
            for number, value in ((1, b"Apple"), (2, content_id))
        )
        metadata = make_box(
            b"meta",
            make_box(b"hdlr", bytes(25))
            + make_box(b"keys", bytes(4) + len(names).to_bytes(4, "big") + keys)
            + make_box(b"ilst", items),
        )
    head = make_box(b"ftyp", b"qt  \0\0\0\0qt  ") + make_box(b"wide", b"")
    movie = make_box(b"moov", make_box(b"mvhd", bytes(100)) + metadata)
    return head + make_box(b"mdat", bytes(frame_bytes)) + movie
