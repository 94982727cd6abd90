"""Files that are whole or absent, locks that end with their process, and the named moments at which the fault tests end it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from indexes.errors import DiskFull, StoreError, StoreLocked

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

FAILPOINTS = (
    "file begun",  # the temporary file exists
    "file filled",  # and holds everything, perhaps only in memory
    "file synced",  # and on disk
    "file named",  # it has its final name, perhaps only in memory
    "file durable",
    "commit begun",  # a transaction holds the write lock
    "commit filled",  # all rows are written
    "commit done",  # and visible; the seal does not know of it yet
    "commit sealed",
    "join found",  # pairs were found that are not committed
    "compaction committed",  # the new segment is visible, the old files are still there
    "compaction swept",
    "switch linked",  # a store's segments of another space have their names, and no row
    "switch committed",  # they are the store's; what was there before is still on disk
    "switch swept",
    "repair saved",  # the catalog has a backup
    "repair committed",  # what was damaged is out of the catalog, its files are still in place
    "repair linked",  # a damaged catalog and all segments have a second name in quarantine
    "repair condemned",  # the seal says that the catalog is damaged, whatever it is
    "repair replaced",  # there is a new catalog; the segments are still in place
)
_hit_counts: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Say that this moment is reached. NEARDUP_FAILPOINT="commit begun:3" ends the process here the third time, as kill -9 would."""
    assert name in FAILPOINTS, name
    asked, _, number = os.environ.get("NEARDUP_FAILPOINT", "").partition(":")
    if asked == name:
        _hit_counts[name] += 1
        if _hit_counts[name] == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL)


class HashingFile:
    """A writer that hashes what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        """Pass everything on to `file`."""
        self._file = file
        self._hasher = blake3()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write all of `data`; returns its length."""
        self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)
        return len(data)

    def hexdigest(self) -> str:
        """The blake3 of all bytes so far, in hex."""
        return self._hasher.hexdigest()


def write(
    folder: Path, suffix: str, fill: Callable[[HashingFile], None], scratch: Path
) -> tuple[str, int]:
    """Put a file, named by the blake3 of its bytes, into `folder`; when this returns it is on disk, whole, under its final name.

    `fill` writes the content; it goes to a temporary file in `scratch` (same filesystem), is synced, renamed, and the folder is synced.
    Returns the hash in hex, which is the name without `suffix`, and the size in bytes.
    Raises NoSpace on a full disk; the temporary file is removed on any failure.
    """
    return _write_atomically(lambda name: folder / f"{name}{suffix}", fill, scratch)


def replace(path: Path, content: bytes, scratch: Path) -> None:
    """Put `content` at `path`, in the place of what was there: at every moment the old or the new is there, whole. Raises NoSpace."""
    _write_atomically(lambda _: path, lambda file: file.write(content), scratch)


def _write_atomically(
    path_for_hash: Callable[[str], Path], fill: Callable[[HashingFile], object], scratch: Path
) -> tuple[str, int]:
    temporary = scratch / f"{os.getpid()}-{time.monotonic_ns()}"
    try:
        with temporary.open("xb") as file:
            failpoint("file begun")
            hashing = HashingFile(file)
            fill(hashing)
            failpoint("file filled")
            file.flush()
            os.fsync(file.fileno())
        failpoint("file synced")
        name = hashing.hexdigest()
        path = path_for_hash(name)
        temporary.replace(path)
        failpoint("file named")
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull(
                f"no room to write in {scratch}: {error.strerror}; free some space and run again, nothing is lost"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    failpoint("file durable")
    return name, hashing.size


def link(file: Path, folder: Path, scratch: Path) -> None:
    """Give a file, which is on disk, its name in another folder of the same filesystem too, durably; one that has the name stays.

    Where the filesystem has no second names, it is a copy. Raises NoSpace.
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


@contextmanager
def lock(path: Path, timeout_seconds: float = 0.0) -> Iterator[None]:
    """Hold the exclusive lock `path` for the block; the kernel frees it when the process ends, however it ends.

    Tries for `wait` seconds. Raises StoreLocked, naming the process that holds it, when it stays taken.
    """
    # O_CLOEXEC: a program that is started meanwhile does not keep the lock. A forked child would: workers are spawned, never forked.
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened: {error.strerror}; make the store's folder writable, or name another --store"
        ) from error
    try:
        until = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    holder = (
                        os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                        or "another process"
                    )
                    raise StoreLocked(
                        f"{path} is held by process {holder}; wait for it to end, or use another --store"
                    ) from None
                time.sleep(0.02)
            except OSError as error:
                raise StoreError(
                    f"{path} cannot be locked: {error.strerror}; put the store on a filesystem with locks"
                ) from error
        with suppress(OSError):  # on a full disk nobody learns who holds it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


class ReaderLock:
    """A shared lock held by everyone who has a store open, so that files which some of them may still need are not removed."""

    def __init__(self, path: Path | None) -> None:
        """Be present; where nobody can write, nothing is removed, and no lock is needed."""
        self._descriptor: int | None = None
        if path is None:
            return
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
            with suppress(OSError):
                self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                return

    @contextmanager
    def try_exclusive(self) -> Iterator[bool]:
        """Whether nobody else is present; while the block runs, nobody else comes."""
        if self._descriptor is None:
            yield False
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            alone = False
        else:
            alone = True
        try:
            yield alone
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Be present no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
