"""The times of folders around a move, so that undoing it brings them back, too."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.actions.folders import Refused, opened_folder


@dataclass(frozen=True, slots=True)
class FolderTimes:
    """The mtime in nanoseconds, before and after a move, of the file's folder and of the base."""

    folder: tuple[int, int]
    base: tuple[int, int]


def parse_times(times: dict[str, Any]) -> FolderTimes:
    """Make times of their JSON. Raises ValueError, TypeError or KeyError if it has another form."""
    (folder_before, folder_after), (base_before, base_after) = times["folder"], times["base"]
    return FolderTimes((int(folder_before), int(folder_after)), (int(base_before), int(base_after)))


def read_times(base: str, folder: int) -> tuple[int, int]:
    """Read the mtimes, in nanoseconds, of an open folder and of a base; 0 if unknown."""
    try:
        base_time = os.stat(base).st_mtime_ns  # noqa: PTH116 - may be no UTF-8
    except OSError:
        base_time = 0
    return os.fstat(folder).st_mtime_ns, base_time


def restore_times(
    times: FolderTimes | None, folder: int, base: str | None, now: tuple[int, int]
) -> None:
    """Give the folders the mtimes of before a move, unless they have changed since then.

    `now` are those of before it was undone. Without a `base`, that one is not touched. Of a run
    that was killed some are not known; then the folders keep the time of the undo.
    """
    if times is None:
        return
    with suppress(OSError, Refused):  # a folder of another user
        if now[0] == times.folder[1]:
            _set_mtime(folder, times.folder[0])
        if now[1] == times.base[1] and base is not None:
            with opened_folder(base) as opened:
                _set_mtime(opened, times.base[0])


def _set_mtime(folder: int, mtime_ns: int) -> None:
    os.utime(folder, ns=(os.fstat(folder).st_atime_ns, mtime_ns))
