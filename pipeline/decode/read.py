"""Read a file once: all its bytes, or the reason why they are not those of an image."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import PurePath

from pipeline.decode.formats import (
    EXTRA_INSTALLED,
    IMAGE_SUFFIXES,
    JXL_CODESTREAM_SIGNATURE,
    JXL_CONTAINER_SIGNATURE,
    OWN_MARK_BYTES,
    PNM_SUFFIXES,
    FailureReason,
    has_image_signature,
    has_own_mark,
    has_plain_pnm_signature,
    has_raw_signature,
    has_raw_suffix,
)
from pipeline.decode.live_photos import describe_film
from pipeline.name_rules import SkipReason
from pipeline.scan import SourceFile

MAX_FILE_BYTES = 1 << 29  # a larger file is not read: all of it would be held in memory
MAX_DETAIL_CHARS = 200  # of a failure's detail, which a decoder may have taken from the file


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that gave no image.

    `reason` is a SkipReason if a scan could not read it, `detail` a sentence about this file if
    there is more to say, `hash` the blake3 of its content if that was read.
    """

    source: SourceFile
    reason: FailureReason | SkipReason
    detail: str | None = None
    hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class AlreadyStored:
    """A file whose content the store has, so that it was not decoded."""

    source: SourceFile
    hash: bytes


class Rejected(Exception):
    """Raised where a file is rejected, and turned into its Failure by decode_source()."""

    def __init__(self, reason: FailureReason, detail: str = "") -> None:
        """Keep the reason, and of the detail what is safe to store and print.

        The detail is text for the answer of a worker; it is empty where there is no more to say.
        """
        detail = "".join(
            character if character.isprintable() else "?" for character in detail[:MAX_DETAIL_CHARS]
        )
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read(source: SourceFile) -> bytes:
    """Read all bytes of an image file.

    Raises Rejected if the file is no image, too large, unreadable, or changes meanwhile.
    """
    if has_raw_suffix(source.path) and not EXTRA_INSTALLED["raw"]:
        # Most are TIFFs inside, and their first image is only a thumbnail.
        raise Rejected(FailureReason.RAW_PHOTO, "to read raw photos: pip install 'neardup[raw]'")
    try:
        # O_NONBLOCK: a file may have become a FIFO since it was listed.
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            before = os.fstat(descriptor)
            _check_file_type(before)
            if not _has_image(source.path, os.pread(descriptor, OWN_MARK_BYTES, 0)):
                film = describe_film(source.path, descriptor)
                raise Rejected(FailureReason.NOT_A_PHOTO, film)
            if before.st_size > MAX_FILE_BYTES:
                raise Rejected(
                    FailureReason.FILE_TOO_LARGE,
                    f"{before.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}",
                )
            data = file.read(before.st_size)
            # Network filesystems may return less than was requested.
            while len(data) < before.st_size and (rest := file.read(before.st_size - len(data))):
                data += rest
            after = os.fstat(descriptor)
    except ValueError as error:
        raise Rejected(FailureReason.UNREADABLE, str(error)) from error  # a NUL in the path
    except OSError as error:
        raise Rejected(FailureReason.UNREADABLE, error.strerror or str(error)) from error
    is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if len(data) != before.st_size or not is_same:
        raise Rejected(
            FailureReason.CHANGED_WHILE_READ, f"{before.st_size:,} bytes became {after.st_size:,}"
        )
    return data


def _check_file_type(status: os.stat_result) -> None:
    """Raise Rejected unless the file is a regular one that holds bytes."""
    if not stat.S_ISREG(status.st_mode):
        raise Rejected(FailureReason.NOT_A_PHOTO, "no regular file")
    if status.st_size == 0:
        raise Rejected(FailureReason.EMPTY_FILE, "0 bytes")


def _has_image(path: str, head: bytes) -> bool:
    """Tell if the first bytes of a file are those of a format that is read here.

    Raises Rejected if they are not, though the suffix of the file is one of an image; if the format
    needs an extra; and for a picture that neardup made.
    """
    if has_own_mark(head):
        raise Rejected(FailureReason.MADE_BY_NEARDUP)
    suffix = PurePath(path).suffix.lower()
    is_raw = has_raw_suffix(path)
    # A codestream's signature is two bytes, which other files start with too.
    is_jxl_codestream = suffix == ".jxl" and head.startswith(JXL_CODESTREAM_SIGNATURE)
    is_jxl = is_jxl_codestream or head.startswith(JXL_CONTAINER_SIGNATURE)
    if is_jxl and not EXTRA_INSTALLED["jxl"]:
        raise Rejected(FailureReason.NO_DECODER, "to read JPEG XL: pip install 'neardup[jxl]'")
    # Other texts start like a plain PNM.
    is_plain_pnm = suffix in PNM_SUFFIXES and has_plain_pnm_signature(head)
    if is_jxl or is_plain_pnm or has_image_signature(head) or (is_raw and has_raw_signature(head)):
        return True
    if is_raw or suffix in IMAGE_SUFFIXES:
        detail = f"starts with {head[:8].hex(' ')}, which is not a format that neardup reads"
        raise Rejected(FailureReason.NO_PICTURE_INSIDE, detail)
    return False
