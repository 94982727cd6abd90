"""A file without a name that two processes have open, to pass bytes between them."""

from __future__ import annotations

import os
import sys
import tempfile


def create() -> int:
    """Create an empty file without a name, in memory if the system can; return its descriptor."""
    if sys.platform == "linux":
        return os.memfd_create("neardup")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def put(memory_fd: int, data: bytes | memoryview) -> None:
    """Replace the content of the file by `data`."""
    os.ftruncate(memory_fd, len(data))
    offset, rest = 0, memoryview(data)
    while rest:
        written = os.pwrite(memory_fd, rest, offset)
        offset, rest = offset + written, rest[written:]


def get(memory_fd: int, size: int) -> bytes:
    """Return the first `size` bytes of the file. Raises ValueError if it has fewer."""
    data = os.pread(memory_fd, size, 0)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes in shared memory, {size} expected")
    return data
