"""Bytes that go from one process to another through a file without a name that both have open."""

from __future__ import annotations

import os
import sys
import tempfile

READY_LINE = b"ready\n"  # what a process says, once, before it is asked anything


def create() -> int:
    """The descriptor of an empty file without a name, in memory where the system has that."""
    if sys.platform == "linux":
        return os.memfd_create("neardup")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def put(memory_fd: int, data: bytes | memoryview) -> None:
    """Make `data` all that the file holds."""
    os.ftruncate(memory_fd, len(data))
    at, left = 0, memoryview(data)
    while left:
        done = os.pwrite(memory_fd, left, at)
        at, left = at + done, left[done:]


def get(memory_fd: int, size: int) -> bytes:
    """The first `size` bytes of the file. Raises ValueError where it has fewer."""
    data = os.pread(memory_fd, size, 0)
    if len(data) != size:
        raise ValueError("less than was said")
    return data
