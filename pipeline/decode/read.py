"""One read of a file: all its bytes, or the reason why they are not those of a photo."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePath

from pipeline.scan import SourceFile

SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),  # JPEG 2000, and its code alone
)
BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
HEAD = 18  # bytes that tell a format
BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2", b"avif", b"avis", b"miaf"}
PHOTO_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib"),
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
MAX_FILE = 1 << 29  # bytes
MAX_DETAIL = 200  # characters

RAW_SIGNATURES = (
    *(b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"),  # TIFFs, and what Olympus and Panasonic made of them
    *(b"FUJIFILMCCD-RAW", b"II\x1a\0\0\0HEAP", b"\0MRM", b"FOVb"),
)
JXL, JXL_BOX = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
# What can be read with an extra that is installed.
MODULES = {"raw": "rawpy", "jxl": "pillow_jxl"}
EXTRAS = {extra: find_spec(module) is not None for extra, module in MODULES.items()}

ANIMATED, DAMAGED, PAGES, PREVIEW = NOTES = "animated", "damaged", "pages", "preview"  # what is noted of pictures
# Kinds of metadata that a picture may have with it.
CAMERA, DATE, EXPOSURE, PLACE, WORDS = METADATA = "camera", "date", "exposure", "place", "words"
# Reasons that bytes are refused for, whatever file they came from; see picture().
REFUSALS = {"damaged", "no picture inside", "not supported", "too many pixels", "too much memory", "truncated"}
SKIPPED = {"not a photo", "raw photo", "no decoder"}  # reasons that nobody needs to mend
RETRIED = {"unreadable", "changed while read"}  # reasons that may be gone the next time, with the file as it is
RETRIED |= ({"raw photo"} if EXTRAS["raw"] else set()) | ({"no decoder"} if EXTRAS["jxl"] else set())


@dataclass(frozen=True, slots=True)
class Failure:
    """A file without an image: `reason` is one of a few words to count by, `detail` what was met, `hash` its content where it was read."""

    source: SourceFile
    reason: str
    detail: str = ""
    hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file whose content is known already, so that it was not decoded."""

    source: SourceFile
    hash: bytes


class Refused(Exception):
    """Carries a reason and a detail from where a file is refused to where its Failure is made."""

    def __init__(self, reason: str, detail: str) -> None:
        """As Failure has them; of the detail, which decoders may take from the file, what can be stored and shown."""
        detail = "".join(character if character.isprintable() else "?" for character in detail[:MAX_DETAIL])
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read(source: SourceFile) -> bytes:
    """All bytes of a photo; raises Refused for what is no photo, too large, unreadable, or changes meanwhile."""
    suffix = PurePath(source.path).suffix.lower()
    raw = is_raw(source.path)
    if raw and not EXTRAS["raw"]:  # most are TIFFs inside, whose first picture is a thumbnail
        raise Refused("raw photo", "to see raw photos: pip install 'neardup[raw]'")
    try:
        # O_NONBLOCK: what was a file when it was listed may be a FIFO now.
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise Refused("not a photo", "no regular file")
            if before.st_size == 0:
                raise Refused("empty file", "0 bytes")
            head = os.pread(descriptor, HEAD, 0)
            jxl = head.startswith(JXL_BOX) or suffix == ".jxl" and head.startswith(JXL)  # two bytes would be other files too
            if jxl and not EXTRAS["jxl"]:
                raise Refused("no decoder", "to see JPEG XL: pip install 'neardup[jxl]'")
            if not (raw and is_raw_photo(head) or jxl or is_photo(head)):
                if raw or suffix in PHOTO_SUFFIXES:
                    raise Refused("no picture inside", f"begins with {head[:8].hex(' ')}, which no format here does")
                raise Refused("not a photo", "")
            if before.st_size > MAX_FILE:
                raise Refused("file too large", f"{before.st_size:,} bytes; the limit is {MAX_FILE:,}")
            data = file.read(before.st_size)
            while len(data) < before.st_size and (more := file.read(before.st_size - len(data))):  # network filesystems may give parts
                data += more
            after = os.fstat(descriptor)
    except ValueError as error:
        raise Refused("unreadable", str(error)) from error  # a NUL in the path
    except OSError as error:
        raise Refused("unreadable", error.strerror or str(error)) from error
    if len(data) != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Refused("changed while read", f"{before.st_size:,} bytes became {after.st_size:,}")
    return data


def is_raw(path: str) -> bool:
    """Whether a file's name is that of a raw photo; many have nothing else that tells them from a TIFF."""
    return PurePath(path).suffix.lower() in RAW_SUFFIXES


def is_raw_photo(head: bytes) -> bool:
    """Whether a file with such a name can be one, by its first bytes."""
    return head.startswith(RAW_SIGNATURES) or head[4:12] == b"ftypcrx "


def is_photo(head: bytes) -> bool:
    """Whether a file's first bytes (HEAD of them) are those of a format that is read here."""
    if head.startswith(SIGNATURES):
        return True
    if head[:2] == b"BM":  # two letters would be any text; the size of the next header tells
        return int.from_bytes(head[14:18], "little") in BMP_HEADERS
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head[4:8] == b"ftyp" and head[8:12] in BRANDS
