"""Maker notes: the directories in which cameras keep what EXIF has no tags for."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from PIL import ExifTags
from PIL import Image as Pillow
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.decode.metadata.exif import TIFF_HEADER_BY_BYTE_ORDER

MAX_MAKER_NOTE_BYTES = 1 << 16  # of a JPEG, whose EXIF cannot be longer
EXIF_PREFIX = b"Exif\0\0"


class MakerNoteFormat(NamedTuple):
    """Where the directory of a maker note is, and its tags by the field of Capture they fill.

    The directory starts `directory_offset` bytes after the start of the note. Its offsets count
    from `base_offset` bytes after that start, or from the start of the EXIF data if that is None.
    `byte_order` is b"II" or b"MM"; None for that of the EXIF data.
    """

    signature: bytes
    directory_offset: int
    base_offset: int | None
    byte_order: bytes | None
    fields: Mapping[int, str]


APPLE_TAGS = {0x000B: "burst_id", 0x0011: "content_id"}
CANON_TAGS = {0x0008: "image_number", 0x000C: "body_serial"}
NIKON_TAGS = {0x001D: "body_serial", 0x00A7: "image_number"}
# The makers that write these tags in the clear, with the signature of their notes; Canon has none.
MAKER_NOTE_FORMATS = (
    MakerNoteFormat(b"Apple iOS\0", 14, 0, b"MM", APPLE_TAGS),
    MakerNoteFormat(b"Nikon\0\2", 18, 10, None, NIKON_TAGS),
)
CANON_NOTE_FORMAT = MakerNoteFormat(b"", 0, None, None, CANON_TAGS)


def read_maker_note(image: Pillow.Image, tags: Mapping[int, Any]) -> dict[str, Any]:
    """Return the values of the tags of a maker note that MAKER_NOTE_FORMATS lists, by field."""
    note = tags.get(ExifTags.Base.MakerNote)
    exif = image.info.get("exif")
    if not isinstance(note, bytes) or not isinstance(exif, bytes):
        return {}
    if len(note) > MAX_MAKER_NOTE_BYTES:
        return {}
    make = str(tags.get(ExifTags.Base.Make, ""))
    known = [format_ for format_ in MAKER_NOTE_FORMATS if note.startswith(format_.signature)]
    if make.startswith("Canon"):
        known.append(CANON_NOTE_FORMAT)
    values: dict[str, Any] = {}
    for format_ in known[:1]:
        with suppress(Exception):  # a broken note raises anything
            directory = _load_directory(exif.removeprefix(EXIF_PREFIX), note, format_)
            for tag, name in format_.fields.items():
                with suppress(Exception):
                    values[name] = directory[tag]
    return values


def _load_directory(exif: bytes, note: bytes, format_: MakerNoteFormat) -> ImageFileDirectory_v2:
    note_start = exif.index(note)
    base_offset = 0 if format_.base_offset is None else note_start + format_.base_offset
    data = exif[base_offset:]
    if format_.byte_order is not None:
        byte_order = format_.byte_order
    else:
        byte_order = data[:2]  # of the EXIF data, or of Nikon's own header
    directory = ImageFileDirectory_v2(TIFF_HEADER_BY_BYTE_ORDER[byte_order] + bytes(4))
    stream = io.BytesIO(data)
    stream.seek(note_start + format_.directory_offset - base_offset)
    directory.load(stream)
    return directory
