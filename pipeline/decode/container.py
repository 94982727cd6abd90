"""Photos whose pixels are inside something else: raw photos with a preview, and JPEG XL. Each needs an extra."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from PIL import Image as Pillow

from pipeline.decode.read import ANIMATED, JXL, JXL_BOX, PREVIEW, Refused
from pipeline.decode.resize import upright

FLIPS = {3: 3, 5: 8, 6: 6}  # LibRaw's turns as EXIF orientations
RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # of a JPEG XL's sides
HEAD = 64  # bytes of a JPEG XL's code, more than its sizes take
MODES = {"L", "LA", "RGB", "RGBA", "I;16", "F"}

Room = Callable[[int, int], AbstractContextManager[object]]  # where width x height pixels may be decoded; raises Refused for too many


@dataclass(frozen=True)
class Inside:
    """What was found: a JPEG's bytes or upright pixels.

    `orientation` is for a JPEG that has none of its own, `size` that of the photo, upright, where it is not what is shown.
    """

    format: str
    shown: bytes | Pillow.Image
    orientation: int = 1
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


class NotRaw(Refused):
    """What has the name of a raw photo is none that LibRaw knows."""


def from_raw(data: bytes, room: Room, least: int) -> Inside:
    """The largest preview that the camera made, or the sensor's pixels at half size, decoded within `room`.

    The sensor's are taken where there is no preview, or where they can be had and its shorter side is less than `least` pixels and than
    theirs.
    """
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            turn = FLIPS.get(raw.sizes.flip, 1)
            size = (raw.sizes.width, raw.sizes.height) if turn < 5 else (raw.sizes.height, raw.sizes.width)
            preview = _preview(raw)
            if preview is None or min(_size(preview)) < min(least, *(side // 2 for side in size)):
                try:
                    with room(raw.sizes.raw_width, raw.sizes.raw_height):
                        half = raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
                    return Inside("RAW", Pillow.fromarray(half), size=size)
                except (Refused, rawpy.LibRawError):
                    if preview is None:
                        raise
    except rawpy.LibRawFileUnsupportedError as error:
        raise NotRaw("no picture inside", "LibRaw knows no camera that writes this") from error
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    if isinstance(preview, bytes):
        return Inside("RAW", preview, turn, size, (PREVIEW,))
    return Inside("RAW", upright(preview, turn), size=size, notes=(PREVIEW,))


def _preview(raw: Any) -> bytes | Pillow.Image | None:  # noqa: ANN401 - rawpy says no types
    import rawpy

    try:
        found = raw.extract_thumb().data
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    return found if isinstance(found, bytes) else Pillow.fromarray(found)


def _size(preview: bytes | Pillow.Image) -> tuple[int, int]:
    """Width and height; none of what is no picture."""
    if not isinstance(preview, bytes):
        return preview.size
    try:
        with Pillow.open(io.BytesIO(preview), formats=("JPEG",)) as opened:
            return opened.size
    except Exception:  # as picture() has it: a broken file makes a decoder raise anything
        return 0, 0


def is_jxl(data: bytes) -> bool:
    """Whether a file is a JPEG XL, in a box or not."""
    return data.startswith((JXL, JXL_BOX))


def from_jxl(data: bytes, room: Room) -> Inside:
    """A JPEG XL's first frame, or the JPEG that it was made of, decoded within `room`."""
    from pillow_jxl import Decoder  # without its plugin, which decodes before a size can be asked, and any format where it expects a JPEG

    width, height, animated = _jxl_header(data)
    with room(width, height):
        try:
            is_jpeg, about, pixels, profile, _ = Decoder(num_threads=0)(data)
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # Rust's, which is no Exception
                raise ValueError(str(error)) from error
            raise
    notes = (ANIMATED,) if animated else ()
    if is_jpeg:
        return Inside("JXL", pixels, notes=notes)
    if {about.width, about.height} != {width, height}:  # it may have turned them
        raise ValueError(f"{about.width} x {about.height} pixels, where its header says {width} x {height}")
    if about.mode not in MODES:
        raise Refused("not supported", f"a JPEG XL of {about.mode}")
    picture = Pillow.frombytes(about.mode, (about.width, about.height), pixels)  # upright: libjxl sees to that
    if profile:
        picture.info["icc_profile"] = profile
    return Inside("JXL", picture, notes=notes)


class _Bits:
    """The bits of a JPEG XL's code, lowest first."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value

    def side(self, eighths: int) -> int:
        return (self.take(5) + 1) * 8 if eighths else self.take((9, 13, 18, 30)[self.take(2)]) + 1

    def size(self) -> tuple[int, int]:
        eighths = self.take(1)
        height = self.side(eighths)
        ratio = RATIOS.get(self.take(3))
        return (height * ratio[0] // ratio[1] if ratio else self.side(eighths)), height


def _jxl_header(data: bytes) -> tuple[int, int, bool]:
    """Width and height before they are turned, and whether it is an animation, from the first bits: libjxl tells after it decoded."""
    bits = _Bits(_jxl_code(data)[2:40])
    width, height = bits.size()
    if bits.take(1) or not bits.take(1):  # all by default; nothing unusual
        return width, height, False
    bits.take(3)  # the orientation
    if bits.take(1):
        bits.size()  # that it should be shown at
    return width, height, not bits.take(1) and bool(bits.take(1))  # with a preview, whose size comes next, it is not looked for


def _jxl_code(data: bytes) -> bytes:
    """The beginning of the code, out of its box or of as many parts of it as that takes."""
    if data.startswith(JXL):
        return data[:HEAD]
    at, code = 0, b""
    while len(code) < HEAD and at + 8 <= len(data):
        length, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if length == 0:  # to the end
            length = len(data) - at
        if length < head:
            break
        if kind in (b"jxlc", b"jxlp"):
            code += data[at + head + 4 * (kind == b"jxlp") : at + length][:HEAD]
        at += length
    if not code.startswith(JXL):
        raise ValueError("no JPEG XL code")
    return code[:HEAD]
