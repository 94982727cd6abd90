"""One read of a file: all its bytes, or the reason why they are not those of a photo."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePath

from pipeline.scan import SourceFile

IMAGE_SIGNATURES = (
    *(
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF87a",
        b"GIF89a",
        b"II*\0",
        b"MM\0*",
        b"II+\0",
        b"MM\0+",
    ),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),  # JPEG 2000, and its code alone
)
BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
SIGNATURE_BYTES = 18  # bytes that tell a format
HEIF_BRANDS = {
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"mif1",
    b"msf1",
    b"mif2",
    b"avif",
    b"avis",
    b"miaf",
}
IMAGE_SUFFIXES = {
    *(
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".webp",
        ".gif",
        ".tif",
        ".tiff",
        ".bmp",
        ".dib",
    ),
    *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jxl"),
}
RAW_SUFFIXES = {
    *(
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".crw",
        ".dcr",
        ".dng",
        ".erf",
        ".fff",
        ".gpr",
        ".iiq",
        ".kdc",
        ".mef",
        ".mos",
        ".mrw",
        ".nef",
        ".nrw",
    ),
    *(".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
MAX_FILE_BYTES = 1 << 29  # bytes
MAX_DETAIL_CHARS = 200  # characters

RAW_SIGNATURES = (
    *(
        b"II*\0",
        b"MM\0*",
        b"IIRO",
        b"IIRS",
        b"MMOR",
        b"IIU\0",
    ),  # TIFFs, and what Olympus and Panasonic made of them
    *(b"FUJIFILMCCD-RAW", b"II\x1a\0\0\0HEAP", b"\0MRM", b"FOVb"),
)
JXL_CODESTREAM_SIGNATURE, JXL_CONTAINER_SIGNATURE = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
# What can be read with an extra that is installed.
MODULE_BY_EXTRA = {"raw": "rawpy", "jxl": "pillow_jxl"}
EXTRA_INSTALLED = {
    extra: find_spec(module) is not None for extra, module in MODULE_BY_EXTRA.items()
}

FLAG_ANIMATED, FLAG_DAMAGED, FLAG_PAGES, FLAG_PREVIEW = IMAGE_FLAGS = (
    "animated",
    "damaged",
    "pages",
    "preview",
)  # what is noted of pictures
# Kinds of metadata that a picture may have with it.
METADATA_CAMERA, METADATA_DATE, METADATA_EXPOSURE, METADATA_PLACE, METADATA_WORDS = (
    METADATA_KINDS
) = (
    "camera",
    "date",
    "exposure",
    "place",
    "words",
)
# Reasons that bytes are refused for, whatever file they came from; see picture().
REJECTION_REASONS = {
    "damaged",
    "no picture inside",
    "not supported",
    "too many pixels",
    "too much memory",
    "truncated",
}
SKIP_REASONS = {"not a photo", "raw photo", "no decoder"}  # reasons that nobody needs to mend
RETRY_REASONS = {
    "unreadable",
    "changed while read",
}  # reasons that may be gone the next time, with the file as it is
RETRY_REASONS |= ({"raw photo"} if EXTRA_INSTALLED["raw"] else set()) | (
    {"no decoder"} if EXTRA_INSTALLED["jxl"] else set()
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A file without an image: `reason` is one of a few words to count by, `detail` what was met, `hash` its content where it was read."""

    source: SourceFile
    reason: str
    detail: str = ""
    hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class AlreadyStored:
    """A file whose content is known already, so that it was not decoded."""

    source: SourceFile
    hash: bytes


class Rejected(Exception):
    """Carries a reason and a detail from where a file is refused to where its Failure is made."""

    def __init__(self, reason: str, detail: str) -> None:
        """As Failure has them; of the detail, which decoders may take from the file, what can be stored and shown."""
        detail = "".join(
            character if character.isprintable() else "?" for character in detail[:MAX_DETAIL_CHARS]
        )
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read(source: SourceFile) -> bytes:
    """All bytes of a photo; raises Refused for what is no photo, too large, unreadable, or changes meanwhile."""
    suffix = PurePath(source.path).suffix.lower()
    raw = has_raw_suffix(source.path)
    if (
        raw and not EXTRA_INSTALLED["raw"]
    ):  # most are TIFFs inside, whose first picture is a thumbnail
        raise Rejected("raw photo", "to see raw photos: pip install 'neardup[raw]'")
    try:
        # O_NONBLOCK: what was a file when it was listed may be a FIFO now.
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise Rejected("not a photo", "no regular file")
            if before.st_size == 0:
                raise Rejected("empty file", "0 bytes")
            head = os.pread(descriptor, SIGNATURE_BYTES, 0)
            jxl = (
                head.startswith(JXL_CONTAINER_SIGNATURE)
                or suffix == ".jxl"
                and head.startswith(JXL_CODESTREAM_SIGNATURE)
            )  # two bytes would be other files too
            if jxl and not EXTRA_INSTALLED["jxl"]:
                raise Rejected("no decoder", "to see JPEG XL: pip install 'neardup[jxl]'")
            if not (raw and has_raw_signature(head) or jxl or has_image_signature(head)):
                if raw or suffix in IMAGE_SUFFIXES:
                    raise Rejected(
                        "no picture inside",
                        f"begins with {head[:8].hex(' ')}, which no format here does",
                    )
                raise Rejected("not a photo", "")
            if before.st_size > MAX_FILE_BYTES:
                raise Rejected(
                    "file too large", f"{before.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}"
                )
            data = file.read(before.st_size)
            while len(data) < before.st_size and (
                more := file.read(before.st_size - len(data))
            ):  # network filesystems may give parts
                data += more
            after = os.fstat(descriptor)
    except ValueError as error:
        raise Rejected("unreadable", str(error)) from error  # a NUL in the path
    except OSError as error:
        raise Rejected("unreadable", error.strerror or str(error)) from error
    if len(data) != before.st_size or (before.st_size, before.st_mtime_ns) != (
        after.st_size,
        after.st_mtime_ns,
    ):
        raise Rejected("changed while read", f"{before.st_size:,} bytes became {after.st_size:,}")
    return data


def has_raw_suffix(path: str) -> bool:
    """Whether a file's name is that of a raw photo; many have nothing else that tells them from a TIFF."""
    return PurePath(path).suffix.lower() in RAW_SUFFIXES


def has_raw_signature(head: bytes) -> bool:
    """Whether a file with such a name can be one, by its first bytes."""
    return head.startswith(RAW_SIGNATURES) or head[4:12] == b"ftypcrx "


def has_image_signature(head: bytes) -> bool:
    """Whether a file's first bytes (HEAD of them) are those of a format that is read here."""
    if head.startswith(IMAGE_SIGNATURES):
        return True
    if head[:2] == b"BM":  # two letters would be any text; the size of the next header tells
        return int.from_bytes(head[14:18], "little") in BMP_HEADER_SIZES
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS
