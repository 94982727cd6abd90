"""Locks between processes that the kernel frees when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from indexes.errors import StoreError, StoreLocked

POLL_INTERVAL_SECONDS = 0.02  # between two tries to get a lock that another process holds
MAX_HOLDER_BYTES = 32  # bytes read of the process id that a lock file holds


@contextmanager
def lock(path: Path, timeout_seconds: float = 0.0) -> Iterator[None]:
    """Hold the exclusive lock `path` during the block.

    Raises StoreLocked, naming the process that holds the lock, if it is not free within
    `timeout_seconds`, and StoreError if the file cannot be opened or locked.
    """
    descriptor = _open_lock_file(path)
    try:
        _wait_for_lock(descriptor, path, timeout_seconds)
        with suppress(OSError):  # on a full disk the file does not say who holds the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open_lock_file(path: Path) -> int:
    # O_CLOEXEC: a program that is started meanwhile does not keep the lock. A forked child would:
    # workers are spawned, never forked.
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened: {error.strerror}; make the store's folder writable, or name"
            " another --store"
        ) from error


def _wait_for_lock(descriptor: int, path: Path, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StoreLocked(
                    f"{path} is held by process {_read_holder(descriptor)}; wait for it to end, or"
                    " use another --store"
                ) from None
            time.sleep(POLL_INTERVAL_SECONDS)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be locked: {error.strerror}; put the store on a filesystem with"
                " locks"
            ) from error


def _read_holder(descriptor: int) -> str:
    content = os.pread(descriptor, MAX_HOLDER_BYTES, 0)
    return content.decode("ascii", "replace").strip() or "another process"


class ReaderLock:
    """A shared lock that every process holds while it has a store open.

    Files that readers may still need are removed only by a process that holds it alone.
    """

    def __init__(self, path: Path | None) -> None:
        """Hold the shared lock `path`.

        None, or a file that cannot be opened, means no lock: where no process can write, no file
        is removed.
        """
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
        """Yield True if no other process holds the lock; none can take it during the block."""
        if self._descriptor is None:
            yield False
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            is_alone = False
        else:
            is_alone = True
        try:
            yield is_alone
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
