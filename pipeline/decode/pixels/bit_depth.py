"""The depth of the samples in a file, which can be more than the 8 bits that Pillow decodes."""

from __future__ import annotations

from typing import Any

from PIL import Image as Pillow

from pipeline.decode.pixels.color import BITS_PER_SAMPLE_TAG
from pipeline.decode.pixels.reduction import JPEG2000_CODESTREAM_START

MAX_BIT_DEPTH = 64  # of what a file may claim
MAX_AVIF_HEADER_BYTES = 1 << 16  # of the boxes before the coded pixels
AVIF_FLAGS_OFFSET = 6  # from the name of the codec's box
JPEG2000_DEPTH_OFFSET = 42  # from the start of the codestream


def read_bit_depth(image: Pillow.Image, data: bytes) -> int | None:
    """Read how many bits a sample has in the file `data`, 8 for fewer, too; None if it cannot tell.

    The image must be open and not loaded yet.
    """
    bits: Any = 8
    if image.format == "HEIF":
        bits = image.info.get("bit_depth")
    elif image.format == "AVIF":
        bits = _read_avif_depth(data)
    elif image.format == "JPEG2000":
        bits = _read_jpeg2000_depth(data)
    elif image.format == "TIFF":
        bits = image.tag_v2.get(BITS_PER_SAMPLE_TAG, 1)  # type: ignore[attr-defined] # the plugin's
    elif image.format in ("PNG", "PPM"):
        tile = image.tile  # type: ignore[attr-defined] # of images opened from a file
        arguments = tile[0].args if tile else ""
        if image.format == "PPM" and isinstance(arguments, tuple):
            bits = int(arguments[-1]).bit_length()  # the highest sample value
        elif "16" in str(arguments):
            bits = 16
    bits = max(bits, default=None) if isinstance(bits, tuple) else bits
    return max(8, bits) if type(bits) is int and bits <= MAX_BIT_DEPTH else None


def _read_avif_depth(data: bytes) -> int | None:
    """Read the depth from the flags of the codec's box (AV1 in ISOBMFF, section 2.3.3)."""
    flags = data.find(b"av1C", 0, MAX_AVIF_HEADER_BYTES) + AVIF_FLAGS_OFFSET
    if not AVIF_FLAGS_OFFSET <= flags < len(data):
        return None
    is_high, is_twelve = data[flags] & 0x40, data[flags] & 0x20
    return 8 if not is_high else 12 if is_twelve else 10


def _read_jpeg2000_depth(data: bytes) -> int | None:
    """Read the depth of the first component from the header of the codestream."""
    start = data.find(JPEG2000_CODESTREAM_START)
    depth = start + JPEG2000_DEPTH_OFFSET
    return (data[depth] & 0x7F) + 1 if 0 <= start and depth < len(data) else None


def has_reduced_depth(mode: str, bit_depth: int | None) -> bool:
    """Tell if Pillow decodes samples of `bit_depth` bits in a file to 8 bits, in mode `mode`."""
    return bit_depth is not None and bit_depth > 8 and not mode.startswith(("I", "F"))
