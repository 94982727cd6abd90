"""Damage inside a JPEG or PNG, which decoders repair or pass silently, and where it begins.

Three things tell of it in a JPEG: markers that are out of place, a scan that ends before its last
MCU is decoded or goes on after it, and a seam in the picture. A PNG has checksums.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image as Pillow

from pipeline.decode.damage.breaks import find_break
from pipeline.decode.damage.jpeg_layout import JpegLayout, mask_stray_markers, read_jpeg_layout
from pipeline.decode.damage.png_chunks import find_wrong_data_chunk, measure_rows_before
from pipeline.decode.damage.seams import MIN_STRENGTH, find_seam
from pipeline.decode.pixels.truncation import JPEG_END_MARKER, find_content_rows

JPEG_SIGNATURE = b"\xff\xd8\xff"
# How many bytes before its end a scan is handed to libjpeg byte by byte.
WATCHED_BYTES = 8
# libjpeg asks for that much more than it needs: it fills a register of 64 bits. All of 2,411 sound
# JPEGs in a single scan need 0 to 7 bytes.
MAX_LOOKAHEAD_BYTES = 8
MIN_ROW_SHARE = 0.5  # of a broken PNG that is decoded as far as it goes
LOCATE_SIDE_PIXELS = 32  # of the decode that finds the row of a byte: at 1/8 of its size


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage inside an image; `start` is where it begins, as a share of the height, if known."""

    start: float | None


class JpegStream(io.BytesIO):
    """The bytes of a JPEG for Pillow, which tell whether its scan ended where it should.

    Between start_watching() and stop_watching(), libjpeg gets a single scan's last bytes one by
    one, and after them padding before the end marker: a sound scan needs a few bytes of it and no
    more.
    """

    def __init__(self, data: bytes) -> None:
        """Mask markers at which libjpeg would stop in the middle."""
        self.layout = read_jpeg_layout(data)
        if self.layout and self.layout.stray_markers:
            data = mask_stray_markers(data, self.layout)
        super().__init__(data)
        self._watched_end: int | None = None
        self._padding_bytes = 0
        self._has_wrong_length = False

    def start_watching(self) -> None:
        """Watch how far the next decoding reads."""
        if self.layout and self.layout.has_one_scan:
            self._watched_end = self.layout.scan_end
            self._padding_bytes = 0

    def stop_watching(self) -> None:
        """Note how far it has read; from here on the stream is as the file."""
        if self._watched_end is not None:
            is_short = self.tell() < self._watched_end
            self._has_wrong_length = is_short or self._padding_bytes > MAX_LOOKAHEAD_BYTES
        self._watched_end = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes."""
        end = self._watched_end
        if end is None or size is None or size < 0:
            return super().read(size)
        position = self.tell()
        if position < end:
            before_watched = max(end - WATCHED_BYTES - position, 1)
            return super().read(min(size, before_watched))
        if position == end and self._padding_bytes <= MAX_LOOKAHEAD_BYTES:
            self._padding_bytes += 1
            return b"\0"
        return super().read(size)

    def find_damage(self, image: Pillow.Image) -> Damage | None:
        """Find the damage of the image that was decoded from this stream while it was watched."""
        layout = self.layout
        if layout is None:
            return None
        seam = find_seam(image, layout, self._has_wrong_length)
        starts = []
        if layout.trouble_position is not None:
            starts.append(_locate(self.getvalue(), layout, layout.trouble_position))
        if seam and (seam.is_certain or (self._has_wrong_length and seam.strength >= MIN_STRENGTH)):
            starts.append(seam.row * layout.mcu_height / layout.height)
        if self._has_wrong_length and (row := find_break(image, layout)):
            starts.append(row * layout.mcu_height / layout.height)
        if starts or self._has_wrong_length:
            return Damage(min((start for start in starts if start is not None), default=None))
        return None

    def find_cut(self, image: Pillow.Image) -> Damage:
        """Find where the filler begins in the decoded image of a JPEG whose end is missing."""
        layout = self.layout
        has_one_scan = layout is not None and layout.has_one_scan
        return Damage(measure_content(image, layout) if layout and has_one_scan else None)


def open_stream(data: bytes) -> io.BytesIO:
    """Return a stream of the bytes of an image for load_and_check()."""
    return JpegStream(data) if data.startswith(JPEG_SIGNATURE) else io.BytesIO(data)


def load_and_check(image: Pillow.Image, stream: io.BytesIO, is_cut: bool = False) -> Damage | None:
    """Decode an image that was opened from a stream of open_stream() and find its damage.

    `is_cut`: the end of a JPEG was missing before an end marker was added.
    """
    if not isinstance(stream, JpegStream):
        if image.format == "PNG":
            return _load_png(image, stream.getvalue())
        image.load()
        return None
    if is_cut:
        image.load()
        return stream.find_cut(image)
    stream.start_watching()
    image.load()
    stream.stop_watching()
    return stream.find_damage(image)


def _load_png(image: Pillow.Image, data: bytes) -> Damage | None:
    """Decode a PNG, a broken one as far as it goes if half of its rows are there."""
    try:
        image.load()
    except OSError:
        share = measure_rows_before(data, len(data))
        if share is None or share < MIN_ROW_SHARE:
            raise
        image.tile = []  # type: ignore[attr-defined] # the plugin's own: nothing is left to load
        image.load()
    else:
        share = None
    position = find_wrong_data_chunk(data)
    if position is not None:
        return Damage(measure_rows_before(data, position))
    return None if share is None else Damage(share)


def _locate(data: bytes, layout: JpegLayout, position: int) -> float | None:
    """Return the share of the height that the scan's bytes before `position` hold.

    None for more than one scan, each holding the whole height, and for the end, where what is
    wrong is only noticed.
    """
    if not layout.has_one_scan or position == layout.scan_end:
        return None
    start = io.BytesIO(data[:position] + JPEG_END_MARKER)
    with suppress(Exception), Pillow.open(start, formats=["JPEG"]) as image:
        image.draft("RGB", (LOCATE_SIDE_PIXELS, LOCATE_SIDE_PIXELS))
        image.load()
        return measure_content(image, layout)
    return None


def measure_content(image: Pillow.Image, layout: JpegLayout) -> float:
    """Return the share of the height above the last MCU row that is not all filler."""
    scale = max(1, round(layout.height / image.height))
    last_row = max(find_content_rows(image) - 1, 0) * scale // layout.mcu_height
    return min(last_row * layout.mcu_height / layout.height, 1.0)
