"""Files that are whole or absent, and locks that end with their process."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from indexes.errors import NoSpace, StoreError, StoreLocked

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class HashingFile:
    """A writer that hashes what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        """Pass everything on to `file`."""
        self._file = file
        self._hash = blake3()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write all of `data`; returns its length."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def hexdigest(self) -> str:
        """The blake3 of all bytes so far, in hex."""
        return self._hash.hexdigest()


def write(folder: Path, suffix: str, fill: Callable[[HashingFile], None], scratch: Path) -> tuple[str, int]:
    """Put a file, named by the blake3 of its bytes, into `folder`; when this returns it is on disk, whole, under its final name.

    `fill` writes the content; it goes to a temporary file in `scratch` (same filesystem), is synced, renamed, and the folder is synced.
    Returns the hash in hex, which is the name without `suffix`, and the size in bytes.
    Raises NoSpace on a full disk; the temporary file is removed on any failure.
    """
    temporary = scratch / f"{os.getpid()}-{time.monotonic_ns()}{suffix}"
    try:
        with temporary.open("xb") as file:
            hashing = HashingFile(file)
            fill(hashing)
            file.flush()
            os.fsync(file.fileno())
        name = hashing.hexdigest()
        temporary.replace(folder / f"{name}{suffix}")
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(f"no room to write in {folder}: {error.strerror}; free some space and run again, nothing is lost") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)
    return name, hashing.size


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the exclusive lock `path` for the block; the kernel frees it when the process ends, however it ends.

    Tries for `wait` seconds. Raises StoreLocked, naming the process that holds it, when it stays taken.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}; make the store's folder writable, or name another --store") from error
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "another process"
                    raise StoreLocked(f"{path} is held by process {holder}; wait for it to end, or use another --store") from None
                time.sleep(0.02)
            except OSError as error:
                raise StoreError(f"{path} cannot be locked: {error.strerror}; put the store on a filesystem with locks") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
