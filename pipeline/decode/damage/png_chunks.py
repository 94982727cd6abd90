"""Damage inside a PNG: which pixel data has a wrong checksum, and which rows come before it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_CHUNK = b"IHDR"
DATA_CHUNK = b"IDAT"  # of the first frame
SAMPLES_BY_COLOR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
INPUT_STEP_BYTES = 1 << 10  # what an error costs of the pixels before it
INFLATE_STEP_BYTES = 1 << 20
MAX_CHUNKS = 1 << 16  # the rest is not read


def find_wrong_data_chunk(data: bytes) -> int | None:
    """Return the position of the first chunk of pixel data with a wrong CRC; None if there is none.

    Pillow does not check them.
    """
    for position, name, content in _read_chunks(data):
        if name == DATA_CHUNK:
            stored = data[position + 8 + len(content) : position + 12 + len(content)]
            if len(stored) == 4 and zlib.crc32(content, zlib.crc32(name)) != int.from_bytes(stored):
                return position
    return None


def measure_rows_before(data: bytes, end: int) -> float | None:
    """Return the share of a PNG's height that its chunks before `end` hold, as far as they inflate.

    None if it is interlaced, so that they hold a part of every row.
    """
    row_bytes = height = 0
    inflater = zlib.decompressobj()
    inflated_bytes = 0
    for position, name, content in _read_chunks(data):
        if position >= end:
            break
        if name == HEADER_CHUNK and len(content) == 13:
            width, height = int.from_bytes(content[:4]), int.from_bytes(content[4:8])
            if content[12] or content[9] not in SAMPLES_BY_COLOR_TYPE:
                return None
            row_bytes = 1 + (width * content[8] * SAMPLES_BY_COLOR_TYPE[content[9]] + 7) // 8
        elif name == DATA_CHUNK:
            with suppress(zlib.error):
                for start in range(0, len(content), INPUT_STEP_BYTES):
                    pending = bytes(content[start : start + INPUT_STEP_BYTES])
                    while pending and inflated_bytes < row_bytes * height:
                        inflated_bytes += len(inflater.decompress(pending, INFLATE_STEP_BYTES))
                        pending = inflater.unconsumed_tail
    if not (row_bytes and height):
        return None
    return min(inflated_bytes // row_bytes / height, 1.0)


def _read_chunks(data: bytes) -> Iterator[tuple[int, bytes, memoryview]]:
    """Yield the position, name and content of each chunk, as far as they follow each other."""
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return
        size = int.from_bytes(data[position : position + 4])
        name = data[position + 4 : position + 8]
        yield position, name, memoryview(data)[position + 8 : position + 8 + size]
        position += 12 + size
