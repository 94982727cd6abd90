"""Write files so that each is whole or absent, whenever the process or the machine stops."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from indexes.durable.failpoints import failpoint
from indexes.errors import DiskFull

# EFBIG: a quota on the size of one file, and the limit that the tests set in place of a full disk.
DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class HashingFile:
    """A writer that hashes the bytes that pass through it."""

    def __init__(self, file: BinaryIO) -> None:
        """Pass all bytes on to `file`."""
        self._file = file
        self._hasher = blake3()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write all of `data` and return its length."""
        self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)
        return len(data)

    def hexdigest(self) -> str:
        """Return the blake3 of all bytes so far, in hex."""
        return self._hasher.hexdigest()


def write(
    folder: Path, suffix: str, fill: Callable[[HashingFile], None], scratch: Path
) -> tuple[str, int]:
    """Write a file into `folder`, named by the blake3 of its bytes, durably and all or nothing.

    `fill` writes the bytes to a temporary file in `scratch`, a folder of the same filesystem. That
    file is synced and renamed, and then `folder` is synced.
    Returns the hash in hex, which is the name without `suffix`, and the size in bytes.
    Raises DiskFull. The temporary file is removed on any failure.
    """
    return _write_atomically(lambda digest: folder / f"{digest}{suffix}", fill, scratch)


def replace(path: Path, content: bytes, scratch: Path) -> None:
    """Replace the file at `path` by one with `content`, durably and all or nothing.

    At every moment either the old or the new file is at `path`, whole. Raises DiskFull.
    """
    _write_atomically(lambda _: path, lambda file: file.write(content), scratch)


def write_checked(path: Path, line: bytes, scratch: Path) -> None:
    """Replace the file at `path` by `line`, which has no line break, and the line's blake3 in hex.

    Raises DiskFull.
    """
    assert b"\n" not in line, "the line break separates the line from its hash"
    replace(path, line + b"\n" + blake3(line).hexdigest().encode() + b"\n", scratch)


def read_checked(path: Path) -> bytes | None:
    """Read the line that `write_checked` wrote; None if the file is missing or damaged."""
    with suppress(OSError, ValueError):
        line, digest, rest = path.read_bytes().split(b"\n")
        if digest == blake3(line).hexdigest().encode() and not rest:
            return line
    return None


def _write_atomically(
    path_for_digest: Callable[[str], Path], fill: Callable[[HashingFile], object], scratch: Path
) -> tuple[str, int]:
    temporary = scratch / f"{os.getpid()}-{time.monotonic_ns()}"
    try:
        with temporary.open("xb") as file:
            failpoint("file created")
            hashing_file = HashingFile(file)
            fill(hashing_file)
            failpoint("file written")
            file.flush()
            os.fsync(file.fileno())
        failpoint("file synced")
        digest = hashing_file.hexdigest()
        path = path_for_digest(digest)
        temporary.replace(path)
        failpoint("file renamed")
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull(
                f"no room to write in {scratch}: {error.strerror}; free some space and run again,"
                " nothing is lost"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    failpoint("file durable")
    return digest, hashing_file.size


def link(file: Path, folder: Path, scratch: Path) -> None:
    """Give `file`, which is on disk, its name in `folder` of the same filesystem too, durably.

    A file that has the name in `folder` already stays. Where the filesystem has no hard links, the
    file is copied. Raises DiskFull.
    """
    try:
        (folder / file.name).hardlink_to(file)
    except FileExistsError:
        pass
    except OSError:
        with file.open("rb") as content:
            _write_atomically(
                lambda _: folder / file.name,
                lambda copy: shutil.copyfileobj(content, copy),
                scratch,
            )
    sync_folder(folder)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
