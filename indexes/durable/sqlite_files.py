"""Read the bytes of files that SQLite has open in this process.

POSIX drops all locks that a process has on a file as soon as the process closes any descriptor of
that file (sqlite.org/howtocorrupt.html, section 2.2). Another process would then take itself for
the only user of the database and remove the WAL that this one still writes to. So a descriptor of a
database file stays open as long as any database is open in this process.
"""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from threading import Lock

from blake3 import blake3

BLOCK_BYTES = 1 << 24  # read at a time; large enough that blake3 uses all cores

_lock = Lock()  # guards the two below
_open_databases = 0
_descriptors: dict[tuple[int, int], list[int]] = {}  # by device and inode


def begin_use() -> None:
    """Count a database of this process as open. Call it before the database is opened or read."""
    global _open_databases
    with _lock:
        _open_databases += 1


def end_use() -> None:
    """Count a database as closed; after the last one no lock is left, and descriptors are closed.

    Call it once for each begin_use(), after SQLite closed the file.
    """
    global _open_databases
    with _lock:
        _open_databases -= 1
        if not _open_databases:
            for descriptor in chain.from_iterable(_descriptors.values()):
                os.close(descriptor)
            _descriptors.clear()


def hash_database(path: Path) -> str:
    """Return the blake3 of a database file in hex; between begin_use() and end_use(). May raise
    OSError.
    """
    hasher = blake3(max_threads=blake3.AUTO)
    descriptor = _get_descriptor(path)
    position = 0
    while block := os.pread(descriptor, BLOCK_BYTES, position):
        hasher.update(block)
        position += len(block)
    return hasher.hexdigest()


def _get_descriptor(path: Path) -> int:
    """Return a descriptor of a file; it stays open, and a file that took its place has its own."""
    with _lock:
        stat = path.stat()
        known = _descriptors.get((stat.st_dev, stat.st_ino))
        if known:
            return known[0]
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stat = os.fstat(descriptor)  # another file may have taken its place meanwhile
        _descriptors.setdefault((stat.st_dev, stat.st_ino), []).append(descriptor)
        return descriptor
