"""A file of JSON Lines to which lines are only added; each has its number and its checksum."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indexes.durable.files import DISK_FULL_ERRNOS
from indexes.errors import DiskFull
from pipeline.actions.checked_json import add_checksum, parse_checked


class CheckedLines:
    """Such a file, open for adding lines; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the file; cut off half a line at its end, which says nothing."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        content = path.read_bytes()
        self._line_count = content.count(b"\n")
        os.ftruncate(self._descriptor, content.rfind(b"\n") + 1)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def append(self, document: dict[str, Any]) -> None:
        """Add a line, and return when it is on disk. Raises DiskFull."""
        line = format_line({"line": self._line_count, **document})
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise DiskFull(
                    f"no room for {self._path}: {error.strerror}; free some space and run the same"
                    " command again, no photo is lost"
                ) from error
            raise
        self._line_count += 1


def format_line(document: dict[str, Any]) -> bytes:
    """Format a line with its checksum."""
    return json.dumps(add_checksum(document)).encode("ascii") + b"\n"


def iter_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a file. Raises ValueError, TypeError and KeyError at a bad one."""
    *lines, _ = content.split(b"\n")
    for number, line in enumerate(lines):
        document = parse_checked(line)
        if document["line"] != number:
            raise ValueError(f"line {number + 1} is not the one that was written there")
        yield document
