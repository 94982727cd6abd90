"""The times of the folders that a run changes, so that undo can restore them, after a kill too.

The journal has the mtimes of before each change. Those of after it show whether another program
changed a folder meanwhile, and they are missing where a kill came between. Then a change counts as
one of the run if it came right after the intent.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.actions.folders import Refused, opened_folder

UNKNOWN = 0  # the time after a change that the journal does not have
FOREIGN = -1  # another program changed the folder, so its time stays
# The change of a run that was killed comes after its intent by no more than this. The clock of a
# filesystem can be behind that of the system by a tick.
MAX_OWN_DELAY_NS = 10 * 10**9
MAX_CLOCK_LAG_NS = 10**9


@dataclass(frozen=True, slots=True)
class FolderTimes:
    """The mtime in nanoseconds, before and after a move, of the victim's folder and of the base."""

    folder: tuple[int, int]
    base: tuple[int, int]

    def close(self, folder: int, base: int, pending_since_ns: int | None) -> FolderTimes:
        """Return them with the present mtimes as those of after; FOREIGN ones that are not ours.

        `pending_since_ns` is the time of an intent whose outcome is not in the journal.
        """
        return FolderTimes(
            _close(self.folder, folder, pending_since_ns), _close(self.base, base, pending_since_ns)
        )

    def observe(self, folder: int, base_path: str, pending_since_ns: int | None) -> FolderTimes:
        """Return them as close() does, with the mtimes that the folders have now."""
        return self.close(*read_times(folder, base_path), pending_since_ns)

    def finish(self, folder: int, base_path: str) -> FolderTimes:
        """Return them with the present mtimes as those of after a move of our own."""
        folder_ns, base_ns = read_times(folder, base_path)
        return FolderTimes((self.folder[0], folder_ns), (self.base[0], base_ns))

    def restore(self, folder: int, base_path: str) -> None:
        """Give the open folder and the base their mtimes of before, but for a FOREIGN one."""
        with suppress(OSError, OverflowError, Refused):  # a folder of another user, an edited time
            if self.folder[1] != FOREIGN:
                _set_mtime(folder, self.folder[0])
            if self.base[1] != FOREIGN and base_path:
                with opened_folder(base_path) as base:
                    _set_mtime(base, self.base[0])


def begin_times(folder: int, base_path: str) -> FolderTimes:
    """Read the times before a move."""
    folder_ns, base_ns = read_times(folder, base_path)
    return FolderTimes((folder_ns, UNKNOWN), (base_ns, UNKNOWN))


def read_times(folder: int, base_path: str) -> tuple[int, int]:
    """Read the mtimes, in nanoseconds, of a victim's open folder and of the base; 0 if unknown."""
    try:
        base = os.stat(base_path).st_mtime_ns  # noqa: PTH116 - may be no UTF-8
    except OSError:
        base = UNKNOWN
    return os.fstat(folder).st_mtime_ns, base


def parse_times(times: dict[str, Any] | None) -> FolderTimes | None:
    """Make times of their JSON. Raises ValueError, TypeError or KeyError for another form."""
    if times is None:
        return None
    (folder_before, folder_after), (base_before, base_after) = times["folder"], times["base"]
    return FolderTimes((int(folder_before), int(folder_after)), (int(base_before), int(base_after)))


def _close(times: tuple[int, int], now: int, pending_since_ns: int | None) -> tuple[int, int]:
    before, after = times
    is_own = now == after != FOREIGN
    if pending_since_ns is not None and after != FOREIGN:
        delay = now - pending_since_ns
        is_own |= now == before or -MAX_CLOCK_LAG_NS <= delay <= MAX_OWN_DELAY_NS
    return before, now if is_own else FOREIGN


def _set_mtime(folder: int, mtime_ns: int) -> None:
    os.utime(folder, ns=(os.fstat(folder).st_atime_ns, mtime_ns))
