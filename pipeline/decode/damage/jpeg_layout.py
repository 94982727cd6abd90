"""Where the scan of a JPEG begins and ends, and which markers in it are out of place."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.pixels.pixel_hash import (
    JPEG_APPLICATION_MARKERS,
    JPEG_COMMENT_MARKER,
    JPEG_SCAN_MARKER,
)

FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SEQUENTIAL_FRAME_MARKERS = {0xC0, 0xC1}  # Huffman-coded: baseline and extended
RESTART_INTERVAL_MARKER = 0xDD
FIRST_RESTART_MARKER = 0xD0
RESTART_MARKERS = range(FIRST_RESTART_MARKER, FIRST_RESTART_MARKER + 8)
END_MARKER = 0xD9
LINE_COUNT_MARKER = 0xDC  # may follow the first scan of any JPEG
TABLE_MARKERS = {0xC4, 0xDB, RESTART_INTERVAL_MARKER}  # Huffman, quantization
# What may follow a scan where more scans are to come.
MARKERS_BETWEEN_SCANS = {
    *(JPEG_SCAN_MARKER, JPEG_COMMENT_MARKER, LINE_COUNT_MARKER),
    *TABLE_MARKERS,
    *JPEG_APPLICATION_MARKERS,
}
BLOCK_PIXELS = 8  # a side of the blocks that a JPEG is coded in
# Scans beyond these are not read. Few photos have 64 MiB, or one byte of 0xFF in 64.
MAX_SCAN_BYTES = 1 << 26
MAX_PREFIX_BYTES = 1 << 20
SECTOR_BYTES = 512  # the least that a disk loses at once
# How far a run of zeros may reach beyond the sectors that were lost: the data itself has zeros.
MAX_SECTOR_SLACK_BYTES = 3
NONZERO_PATTERN = re.compile(rb"[^\0]")
MAX_ZERO_RUNS = 64  # of a flat image that has many


@dataclass(frozen=True, slots=True)
class JpegLayout:
    """The layout of a JPEG. Positions are offsets in bytes, sizes are pixels as they are coded.

    `mcu_width` and `mcu_height` are the size of an MCU, the unit that a scan repeats. The scans are
    the bytes from `scan_start` to `scan_end`, which is the end of the data if the end marker is
    missing. `has_one_scan`: a Huffman-coded JPEG, not progressive, in a single scan.
    `trouble_position` is where the scans first break a rule of the format, None if they break none.
    `stray_markers` are the positions of markers that cannot be part of the scans.
    """

    width: int
    height: int
    mcu_width: int
    mcu_height: int
    scan_start: int
    scan_end: int
    has_one_scan: bool
    trouble_position: int | None
    stray_markers: tuple[int, ...]


@dataclass(slots=True)
class _Header:
    """The segments before the first scan, as far as they matter here."""

    frame_marker: int = 0
    height: int = 0
    width: int = 0
    sampling: bytes = b""
    restart_interval: int = 0
    scan_components: int = 0
    scan_start: int = 0


def read_jpeg_layout(data: bytes) -> JpegLayout | None:
    """Read the layout of a JPEG; None if it has no frame or no scan, or scans beyond the limits."""
    header = _read_header(data)
    if header is None:
        return None
    # The sampling of a single component says nothing: its MCU is a block.
    is_gray = len(header.sampling) == 1
    mcu_width = BLOCK_PIXELS * (1 if is_gray else max(byte >> 4 for byte in header.sampling))
    mcu_height = BLOCK_PIXELS * (1 if is_gray else max(byte & 15 for byte in header.sampling))
    if not (header.width and header.height and mcu_width and mcu_height):
        return None
    has_one_scan = (
        header.frame_marker in SEQUENTIAL_FRAME_MARKERS
        and len(header.sampling) == header.scan_components
    )
    found = _find_markers(data, header.scan_start)
    if found is None:
        return None
    positions, markers = found
    is_restart = (markers & 0xF8) == FIRST_RESTART_MARKER
    others = zip(positions[~is_restart].tolist(), markers[~is_restart].tolist(), strict=True)
    scan_end, strays = _find_scan_end(data, list(others), has_one_scan)
    is_inside = is_restart & (positions < scan_end)
    restarts, restart_markers = positions[is_inside], markers[is_inside]
    troubles = list(strays)
    if not header.restart_interval:
        troubles += restarts.tolist()
        strays += restarts.tolist()
    elif has_one_scan:
        mcus = -(-header.width // mcu_width) * -(-header.height // mcu_height)
        expected_count = -(-mcus // header.restart_interval) - 1
        troubles += _find_wrong_restarts(restarts, restart_markers, expected_count, scan_end)
    troubles += _find_zeroed_sectors(data, header.scan_start, scan_end)
    return JpegLayout(
        width=header.width,
        height=header.height,
        mcu_width=mcu_width,
        mcu_height=mcu_height,
        scan_start=header.scan_start,
        scan_end=scan_end,
        has_one_scan=has_one_scan,
        trouble_position=min(troubles, default=None),
        stray_markers=tuple(strays),
    )


def mask_stray_markers(data: bytes, layout: JpegLayout) -> bytes:
    """Return the JPEG with its stray markers turned into data, at which no decoder stops."""
    masked = bytearray(data)
    for position in layout.stray_markers:
        masked[position + 1] = 0
    return bytes(masked)


def _read_header(data: bytes) -> _Header | None:
    header = _Header()
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if marker == 0xFF:  # padding
            start += 1
            continue
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        segment = data[start + 4 : end]
        if marker in FRAME_MARKERS and len(segment) >= 9:
            header.frame_marker = marker
            header.height = int.from_bytes(segment[1:3], "big")
            header.width = int.from_bytes(segment[3:5], "big")
            header.sampling = segment[7 : 6 + 3 * segment[5] : 3]
        elif marker == RESTART_INTERVAL_MARKER:
            header.restart_interval = int.from_bytes(segment[:2], "big")
        elif marker == JPEG_SCAN_MARKER:
            header.scan_components = segment[0] if segment else 0
            header.scan_start = end
            return header if header.sampling and end < len(data) else None
        start = end
    return None


def _find_markers(data: bytes, start: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
    """Return the positions of all markers from `start` on, ascending, and their second bytes."""
    scan = np.frombuffer(data, np.uint8)[start:]
    if len(scan) > MAX_SCAN_BYTES:
        return None
    is_prefix = scan[:-1] == 0xFF
    if np.count_nonzero(is_prefix) > MAX_PREFIX_BYTES:
        return None
    prefixes = np.flatnonzero(is_prefix)
    seconds = scan[prefixes + 1]
    is_marker = (seconds != 0) & (seconds != 0xFF)
    return prefixes[is_marker] + start, seconds[is_marker]


def _find_scan_end(
    data: bytes, markers: list[tuple[int, int]], has_one_scan: bool
) -> tuple[int, list[int]]:
    """Find the end marker among all markers but restarts, and the stray ones before it."""
    allowed = {LINE_COUNT_MARKER} if has_one_scan else MARKERS_BETWEEN_SCANS
    strays: list[int] = []
    segment_end = 0
    for position, marker in markers:
        if position < segment_end:
            continue
        if marker == END_MARKER:
            return position, strays
        if marker in allowed:
            size = int.from_bytes(data[position + 2 : position + 4], "big")
            segment_end = position + 2 + size
        else:
            strays.append(position)
    return len(data), strays


def _find_wrong_restarts(
    positions: NDArray[np.int64],
    markers: NDArray[np.uint8],
    expected_count: int,
    scan_end: int,
) -> list[int]:
    """Return the first restart marker out of order, or the end of the scan if some are missing.

    One more than needed is harmless: one of 330 cameras' files has it.
    """
    order = FIRST_RESTART_MARKER + np.arange(len(markers)) % len(RESTART_MARKERS)
    wrong: list[int] = positions[markers != order][:1].tolist()
    if not wrong and not expected_count <= len(markers) <= expected_count + 1:
        wrong.append(scan_end)
    return wrong


def _find_zeroed_sectors(data: bytes, start: int, end: int) -> list[int]:
    """Return the position of the first run of zeros that fills whole sectors of a disk.

    Flat images have such runs too, but hardly ever from one sector's start to another's end.
    """
    sector = bytes(SECTOR_BYTES)
    for _ in range(MAX_ZERO_RUNS):
        first = data.find(sector, start, end)
        if first < 0:
            break
        next_byte = NONZERO_PATTERN.search(data, first, end)
        last = next_byte.start() if next_byte else end
        lead = -first % SECTOR_BYTES
        if max(lead, last % SECTOR_BYTES) <= MAX_SECTOR_SLACK_BYTES:
            return [first + lead]
        start = last
    return []
