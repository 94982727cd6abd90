"""Photos whose pixels are inside something else: raw photos with a preview, and JPEG XL. Each needs an extra."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from PIL import Image as Pillow

from pipeline.decode.read import (
    FLAG_ANIMATED,
    FLAG_PREVIEW,
    JXL_CODESTREAM_SIGNATURE,
    JXL_CONTAINER_SIGNATURE,
    Rejected,
)
from pipeline.decode.resize import apply_orientation

ORIENTATION_BY_LIBRAW_FLIP = {3: 3, 5: 8, 6: 6}  # LibRaw's turns as EXIF orientations
JXL_ASPECT_RATIOS = {
    1: (1, 1),
    2: (12, 10),
    3: (4, 3),
    4: (3, 2),
    5: (16, 9),
    6: (5, 4),
    7: (2, 1),
}  # of a JPEG XL's sides
MAX_JXL_HEADER_BYTES = 64  # bytes of a JPEG XL's code, more than its sizes take
SUPPORTED_JXL_MODES = {"L", "LA", "RGB", "RGBA", "I;16", "F"}

MemoryBudget = Callable[
    [int, int], AbstractContextManager[object]
]  # where width x height pixels may be decoded; raises Refused for too many


@dataclass(frozen=True)
class ExtractedImage:
    """What was found: a JPEG's bytes or upright pixels.

    `orientation` is for a JPEG that has none of its own, `size` that of the photo, upright, where it is not what is shown.
    """

    format: str
    jpeg_or_image: bytes | Pillow.Image
    orientation: int = 1
    full_size: tuple[int, int] | None = None
    flags: tuple[str, ...] = ()


class NotRaw(Rejected):
    """What has the name of a raw photo is none that LibRaw knows."""


def extract_from_raw(data: bytes, memory_budget: MemoryBudget, min_side: int) -> ExtractedImage:
    """The largest preview that the camera made, or the sensor's pixels at half size, decoded within `room`.

    The sensor's are taken where there is no preview, or where they can be had and its shorter side is less than `least` pixels and than
    theirs.
    """
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            turn = ORIENTATION_BY_LIBRAW_FLIP.get(raw.sizes.flip, 1)
            size = (
                (raw.sizes.width, raw.sizes.height)
                if turn < 5
                else (raw.sizes.height, raw.sizes.width)
            )
            preview = _extract_preview(raw)
            if preview is None or min(_read_preview_size(preview)) < min(
                min_side, *(side // 2 for side in size)
            ):
                try:
                    with memory_budget(raw.sizes.raw_width, raw.sizes.raw_height):
                        half = raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
                    return ExtractedImage("RAW", Pillow.fromarray(half), full_size=size)
                except (Rejected, rawpy.LibRawError):
                    if preview is None:
                        raise
    except rawpy.LibRawFileUnsupportedError as error:
        raise NotRaw("no picture inside", "LibRaw knows no camera that writes this") from error
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    if isinstance(preview, bytes):
        return ExtractedImage("RAW", preview, turn, size, (FLAG_PREVIEW,))
    return ExtractedImage(
        "RAW", apply_orientation(preview, turn), full_size=size, flags=(FLAG_PREVIEW,)
    )


def _extract_preview(raw: Any) -> bytes | Pillow.Image | None:  # noqa: ANN401 - rawpy says no types
    import rawpy

    try:
        found = raw.extract_thumb().data
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    return found if isinstance(found, bytes) else Pillow.fromarray(found)


def _read_preview_size(preview: bytes | Pillow.Image) -> tuple[int, int]:
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
    return data.startswith((JXL_CODESTREAM_SIGNATURE, JXL_CONTAINER_SIGNATURE))


def extract_from_jxl(data: bytes, memory_budget: MemoryBudget) -> ExtractedImage:
    """A JPEG XL's first frame, or the JPEG that it was made of, decoded within `room`."""
    from pillow_jxl import (
        Decoder,
    )  # without its plugin, which decodes before a size can be asked, and any format where it expects a JPEG

    width, height, animated = _read_jxl_header(data)
    with memory_budget(width, height):
        try:
            is_jpeg, about, pixels, profile, _ = Decoder(num_threads=0)(data)
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # Rust's, which is no Exception
                raise ValueError(str(error)) from error
            raise
    notes = (FLAG_ANIMATED,) if animated else ()
    if is_jpeg:
        return ExtractedImage("JXL", pixels, flags=notes)
    if {about.width, about.height} != {width, height}:  # it may have turned them
        raise ValueError(
            f"{about.width} x {about.height} pixels, where its header says {width} x {height}"
        )
    if about.mode not in SUPPORTED_JXL_MODES:
        raise Rejected("not supported", f"a JPEG XL of {about.mode}")
    picture = Pillow.frombytes(
        about.mode, (about.width, about.height), pixels
    )  # upright: libjxl sees to that
    if profile:
        picture.info["icc_profile"] = profile
    return ExtractedImage("JXL", picture, flags=notes)


class _BitReader:
    """The bits of a JPEG XL's code, lowest first."""

    def __init__(self, data: bytes) -> None:
        self._remaining_bits = int.from_bytes(data, "little")

    def read_bits(self, count: int) -> int:
        value = self._remaining_bits & ((1 << count) - 1)
        self._remaining_bits >>= count
        return value

    def read_side(self, div8: int) -> int:
        return (
            (self.read_bits(5) + 1) * 8
            if div8
            else self.read_bits((9, 13, 18, 30)[self.read_bits(2)]) + 1
        )

    def read_size(self) -> tuple[int, int]:
        eighths = self.read_bits(1)
        height = self.read_side(eighths)
        ratio = JXL_ASPECT_RATIOS.get(self.read_bits(3))
        return (height * ratio[0] // ratio[1] if ratio else self.read_side(eighths)), height


def _read_jxl_header(data: bytes) -> tuple[int, int, bool]:
    """Width and height before they are turned, and whether it is an animation, from the first bits: libjxl tells after it decoded."""
    bits = _BitReader(_read_jxl_codestream(data)[2:40])
    width, height = bits.read_size()
    if bits.read_bits(1) or not bits.read_bits(1):  # all by default; nothing unusual
        return width, height, False
    bits.read_bits(3)  # the orientation
    if bits.read_bits(1):
        bits.read_size()  # that it should be shown at
    return (
        width,
        height,
        not bits.read_bits(1) and bool(bits.read_bits(1)),
    )  # with a preview, whose size comes next, it is not looked for


def _read_jxl_codestream(data: bytes) -> bytes:
    """The beginning of the code, out of its box or of as many parts of it as that takes."""
    if data.startswith(JXL_CODESTREAM_SIGNATURE):
        return data[:MAX_JXL_HEADER_BYTES]
    at, code = 0, b""
    while len(code) < MAX_JXL_HEADER_BYTES and at + 8 <= len(data):
        length, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if length == 0:  # to the end
            length = len(data) - at
        if length < head:
            break
        if kind in (b"jxlc", b"jxlp"):
            code += data[at + head + 4 * (kind == b"jxlp") : at + length][:MAX_JXL_HEADER_BYTES]
        at += length
    if not code.startswith(JXL_CODESTREAM_SIGNATURE):
        raise ValueError("no JPEG XL code")
    return code[:MAX_JXL_HEADER_BYTES]
