"""JPEG XL, by libjxl. Needs the extra `jxl`.

libjxl reports an image's size after it has decoded it, so the header is read here, to reject
what would take too much memory. Its fields are those of ISO/IEC 18181-1.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image as Pillow

from indexes.records import FLAG_ANIMATED
from pipeline.decode.formats import JXL_CODESTREAM_SIGNATURE, ExtractedImage, FailureReason
from pipeline.decode.memory import MemoryBudget
from pipeline.decode.read import Rejected

# Width to height, by the header's `ratio` field; 0 means that the width is given.
JXL_ASPECT_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
JXL_SIDE_BITS = (9, 13, 18, 30)  # of a side, by the two bits before it
MAX_JXL_HEADER_BYTES = 64  # of the codestream; the fields that are read take less
SUPPORTED_JXL_MODES = {"L", "LA", "RGB", "RGBA", "I;16", "F"}


def extract_from_jxl(data: bytes, budget: MemoryBudget) -> ExtractedImage:
    """Decode a JPEG XL's first frame within `budget`, or extract the JPEG that it was made of.

    Raises Rejected for pixels that are not supported, and ValueError for a broken file.
    """
    # Not by the package's Pillow plugin: it decodes before a size is known, and opens any format
    # where a JPEG is expected.
    from pillow_jxl import Decoder

    header = _read_jxl_header(data)
    with budget.reserve(header.width, header.height):
        try:
            is_jpeg, info, content, profile, _ = Decoder(num_threads=0)(data)
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # Rust's, which is no Exception
                raise ValueError(str(error)) from error
            raise
    flags = (FLAG_ANIMATED,) if header.is_animated else ()
    if is_jpeg:
        return ExtractedImage("JXL", content, flags=flags)
    # As a set, because libjxl has turned the pixels upright.
    if {info.width, info.height} != {header.width, header.height}:
        raise ValueError(
            f"{info.width} x {info.height} pixels, where its header says "
            f"{header.width} x {header.height}"
        )
    if info.mode not in SUPPORTED_JXL_MODES:
        raise Rejected(FailureReason.NOT_SUPPORTED, f"a JPEG XL of {info.mode}")
    image = Pillow.frombytes(info.mode, (info.width, info.height), content)
    if profile:
        image.info["icc_profile"] = profile
    return ExtractedImage("JXL", image, flags=flags)


@dataclass(frozen=True)
class _JxlHeader:
    """The size before the image is turned upright, and whether more frames follow the first."""

    width: int
    height: int
    is_animated: bool


class _BitReader:
    """The bits of a JPEG XL codestream, lowest first."""

    def __init__(self, data: bytes) -> None:
        self._remaining_bits = int.from_bytes(data, "little")

    def read_bits(self, count: int) -> int:
        value = self._remaining_bits & ((1 << count) - 1)
        self._remaining_bits >>= count
        return value

    def read_side(self, is_multiple_of_8: bool) -> int:
        if is_multiple_of_8:
            return (self.read_bits(5) + 1) * 8
        return self.read_bits(JXL_SIDE_BITS[self.read_bits(2)]) + 1

    def read_size(self) -> tuple[int, int]:
        """Read a SizeHeader: (width, height)."""
        is_multiple_of_8 = bool(self.read_bits(1))
        height = self.read_side(is_multiple_of_8)
        ratio = JXL_ASPECT_RATIOS.get(self.read_bits(3))
        if ratio:
            return height * ratio[0] // ratio[1], height
        return self.read_side(is_multiple_of_8), height


def _read_jxl_header(data: bytes) -> _JxlHeader:
    """Read the first fields of the codestream: SizeHeader and the start of ImageMetadata."""
    bits = _BitReader(_read_jxl_codestream(data)[2:40])
    width, height = bits.read_size()
    is_all_default = bool(bits.read_bits(1))
    if is_all_default or not bits.read_bits(1):  # the second bit: there are extra fields
        return _JxlHeader(width, height, is_animated=False)
    bits.read_bits(3)  # orientation
    if bits.read_bits(1):
        bits.read_size()  # intrinsic size
    # The header of a preview has a variable length, so what follows it is not read.
    has_preview = bool(bits.read_bits(1))
    return _JxlHeader(width, height, is_animated=not has_preview and bool(bits.read_bits(1)))


def _read_jxl_codestream(data: bytes) -> bytes:
    """Return the first MAX_JXL_HEADER_BYTES of the codestream, from as many boxes as that takes."""
    if data.startswith(JXL_CODESTREAM_SIGNATURE):
        return data[:MAX_JXL_HEADER_BYTES]
    start, codestream = 0, b""
    while len(codestream) < MAX_JXL_HEADER_BYTES and start + 8 <= len(data):
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        header_bytes = 8
        if length == 1:  # a 64-bit length follows
            length, header_bytes = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        if length == 0:  # up to the end of the file
            length = len(data) - start
        if length < header_bytes:
            break
        if kind in (b"jxlc", b"jxlp"):
            index_bytes = 4 if kind == b"jxlp" else 0
            content = data[start + header_bytes + index_bytes : start + length]
            codestream += content[:MAX_JXL_HEADER_BYTES]
        start += length
    if not codestream.startswith(JXL_CODESTREAM_SIGNATURE):
        raise ValueError("no JPEG XL codestream")
    return codestream[:MAX_JXL_HEADER_BYTES]
