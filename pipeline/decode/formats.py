"""File formats by suffix and signature, and the words that describe what reading a file gave."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image as Pillow

# Signatures: the first bytes of a file.

SIGNATURE_BYTES = 18  # how many bytes are enough to tell every format below
IMAGE_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"II+\0",  # BigTIFF
    b"MM\0+",
    b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
    b"\xff\x4f\xff\x51",  # JPEG 2000, a bare codestream
)
BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
HEIF_BRANDS = {
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
    *(b"mif1", b"msf1", b"mif2", b"avif", b"avis", b"miaf"),
}
RAW_SIGNATURES = (
    *(b"II*\0", b"MM\0*"),  # TIFF
    *(b"IIRO", b"IIRS", b"MMOR", b"IIU\0"),  # the variants of Olympus and Panasonic
    *(b"FUJIFILMCCD-RAW", b"II\x1a\0\0\0HEAP", b"\0MRM", b"FOVb"),
)
# PNM: PBM, PGM and PPM. Of two letters alone, as with BMP, the numbers after them make a header.
PNM_SIGNATURE_PATTERN = re.compile(rb"P[4-6]\s+(#|\d+\s+\d)")
PLAIN_PNM_SIGNATURE_PATTERN = re.compile(rb"P[1-3]\s+(#|\d+\s+\d)")  # the samples are text too
JXL_CODESTREAM_SIGNATURE = b"\xff\x0a"
JXL_CONTAINER_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"

# Marks of pictures that neardup wrote, which no library should hold. In formats other than JPEG and
# PNG, the software in their EXIF or their comment is OWN_MARK.

OWN_MARK = b"neardup"
JPEG_START = b"\xff\xd8"
JPEG_COMMENT_MARKER = b"\xff\xfe"
OWN_JPEG_COMMENT = JPEG_COMMENT_MARKER + (len(OWN_MARK) + 2).to_bytes(2, "big") + OWN_MARK
OWN_PNG_TEXT_KEY = "Software"
OWN_PNG_TEXT = b"tEXt" + OWN_PNG_TEXT_KEY.encode() + b"\0" + OWN_MARK
OWN_PNG_TEXT_OFFSET = 37  # after the signature, the header and the length of the text
OWN_MARK_BYTES = OWN_PNG_TEXT_OFFSET + len(OWN_PNG_TEXT)  # bytes that are enough to tell a mark

# Suffixes, in lower case.

PNM_SUFFIXES = {".pbm", ".pgm", ".ppm", ".pnm"}
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpc"),
    *(".jpf", ".jpx", ".jxl"),
    *PNM_SUFFIXES,
}
RAW_SUFFIXES = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq"),
    *(".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2"),
    *(".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}

# Extras: formats that need a package which a plain installation does not have.

MODULE_BY_EXTRA = {"raw": "rawpy", "jxl": "pillow_jxl"}
EXTRA_INSTALLED = {
    extra: find_spec(module) is not None for extra, module in MODULE_BY_EXTRA.items()
}

# Kinds of metadata beside the pixels.

METADATA_CAMERA = "camera"
METADATA_DATE = "date"
METADATA_EXPOSURE = "exposure"
METADATA_PLACE = "place"
METADATA_WORDS = "words"
METADATA_KINDS = (
    METADATA_CAMERA,
    METADATA_DATE,
    METADATA_EXPOSURE,
    METADATA_PLACE,
    METADATA_WORDS,
)

# Reasons why a file gives no image.


class FailureReason(StrEnum):
    """Why a file gives no image, in the words of catalog and messages."""

    CHANGED_WHILE_READ = "changed while read"
    DAMAGED = "damaged"
    EMPTY_FILE = "empty file"
    FILE_TOO_LARGE = "file too large"
    MADE_BY_NEARDUP = "made by neardup"  # the picture of a page or of `explain`
    NO_DECODER = "no decoder"  # a JPEG XL, without the extra
    NO_PICTURE_INSIDE = "no picture inside"
    NOT_A_PHOTO = "not a photo"
    NOT_SUPPORTED = "not supported"
    POISONED = "poisoned"  # crashed its worker process
    RAW_PHOTO = "raw photo"  # without the extra
    TOO_MANY_PIXELS = "too many pixels"
    TOO_MUCH_MEMORY = "too much memory"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"


# Why decode_image() rejects bytes, whichever file they came from.
REJECTION_REASONS = {
    FailureReason.DAMAGED,
    FailureReason.MADE_BY_NEARDUP,
    FailureReason.NO_PICTURE_INSIDE,
    FailureReason.NOT_SUPPORTED,
    FailureReason.TOO_MANY_PIXELS,
    FailureReason.TOO_MUCH_MEMORY,
    FailureReason.TRUNCATED,
}
# Reasons that call for no action by the user.
SKIP_REASONS = {
    FailureReason.MADE_BY_NEARDUP,
    FailureReason.NOT_A_PHOTO,
    FailureReason.RAW_PHOTO,
    FailureReason.NO_DECODER,
}
# What messages say instead of reasons that stores and JSON keep by an older word.
REASON_TEXTS = {
    FailureReason.POISONED: "crashed the decoder",
    "poisoned its verifier": "crashed the verification",
}
# Reasons that can disappear while the file stays as it is, so that every ingest reads it again.
RETRY_REASONS = {FailureReason.UNREADABLE, FailureReason.CHANGED_WHILE_READ}
if EXTRA_INSTALLED["raw"]:
    RETRY_REASONS.add(FailureReason.RAW_PHOTO)
if EXTRA_INSTALLED["jxl"]:
    RETRY_REASONS.add(FailureReason.NO_DECODER)


@dataclass(frozen=True)
class ExtractedImage:
    """The image inside a format that Pillow does not decode: a JPEG stream, or decoded pixels.

    `orientation` is the EXIF orientation to apply; for a JPEG stream only if it has none of its
    own. `full_size` is the upright (width, height) of the image where the content is smaller.
    """

    format: str
    content: bytes | Pillow.Image
    orientation: int = 1
    full_size: tuple[int, int] | None = None
    flags: tuple[str, ...] = ()


def has_raw_suffix(path: str) -> bool:
    """Tell if a path has the suffix of a raw file; many raw files start like any TIFF."""
    return PurePath(path).suffix.lower() in RAW_SUFFIXES


def has_raw_signature(head: bytes) -> bool:
    """Tell if a file with the suffix of a raw file can be one, by its first bytes."""
    return head.startswith(RAW_SIGNATURES) or head[4:12] == b"ftypcrx "


def has_jxl_signature(head: bytes) -> bool:
    """Tell if a file starts like a JPEG XL, in a container or as a bare codestream."""
    return head.startswith((JXL_CODESTREAM_SIGNATURE, JXL_CONTAINER_SIGNATURE))


def has_plain_pnm_signature(head: bytes) -> bool:
    """Tell if a file with the suffix of a PNM starts like one whose samples are text."""
    return PLAIN_PNM_SIGNATURE_PATTERN.match(head) is not None


def has_own_mark(head: bytes) -> bool:
    """Tell by its first OWN_MARK_BYTES if neardup made a picture."""
    is_own_jpeg = head.startswith(JPEG_START + OWN_JPEG_COMMENT)
    return is_own_jpeg or head[OWN_PNG_TEXT_OFFSET:OWN_MARK_BYTES] == OWN_PNG_TEXT


def mark_jpeg(jpeg: bytes) -> bytes:
    """Mark a JPEG as made by neardup, by a comment at its start."""
    return JPEG_START + OWN_JPEG_COMMENT + jpeg.removeprefix(JPEG_START)


def has_image_signature(head: bytes) -> bool:
    """Tell if the first SIGNATURE_BYTES of a file are those of a format that Pillow decodes."""
    if head.startswith(IMAGE_SIGNATURES):
        return True
    if head[:2] == b"BM":  # any text can start with two letters; the next header's size decides
        return int.from_bytes(head[14:18], "little") in BMP_HEADER_SIZES
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if PNM_SIGNATURE_PATTERN.match(head):
        return True
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def format_reason(reason: str) -> str:
    """Format the reason of a failure for messages."""
    return REASON_TEXTS.get(reason, reason)
