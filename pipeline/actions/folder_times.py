"""The times of the folders that a run changes, so that undo can restore them, after a kill too.

The journal has the mtimes of before each change. Those of after it show whether another program
changed a folder meanwhile, and they are missing where a kill came between. Then a change counts as
one of the run if it came right after the intent.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
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
        set_mtimes(
            folder,
            base_path,
            self.folder[0] if self.folder[1] != FOREIGN else None,
            self.base[0] if self.base[1] != FOREIGN else None,
        )


class FolderHistory:
    """The changes of a run to the times of its folders, and how many files are away from each.

    Files come back in any order, and some stay away: the time of a folder is restored when the last
    of its files comes back, from the chain of changes.
    """

    def __init__(self) -> None:
        """Begin without changes."""
        self._before = defaultdict[str, dict[int, int]](dict)  # mtimes by those after a change
        self._away = Counter[str]()

    def add(self, path: str, times: tuple[int, int]) -> None:
        """Add a change of a folder: its mtimes before and after it, if both are known."""
        before, after = times
        known = self._before[path]
        if after not in (UNKNOWN, FOREIGN) and known.get(after, after) == after:
            known[after] = before

    def count_away(self, path: str, change: int) -> None:
        """Count a file that goes from a folder (1), or is back (-1)."""
        self._away[path] += change

    def find_time(self, path: str, now: int) -> int | None:
        """Find the mtime to restore when a file is back in a folder whose mtime was `now`.

        That is `now` while other files are away, else that of before all changes of the run. None
        if another program changed the folder.
        """
        original = self.find_original(path, now)
        return now if original is not None and self._away[path] > 1 else original

    def find_original(self, path: str, now: int) -> int | None:
        """Find the mtime of before all changes of the run that led to `now`; None if none did."""
        known, passed = self._before[path], set[int]()
        if now not in known:
            return None
        while now in known and now not in passed:
            passed.add(now)
            now = known[now]
        known |= dict.fromkeys(passed, now)  # the next walk is one step long
        return now


def set_mtimes(folder: int, base_path: str, folder_ns: int | None, base_ns: int | None) -> None:
    """Set the mtimes of an open folder and of the base, where they are given and can be set."""
    # A folder of another user or a read-only one, or a time that was edited.
    with suppress(OSError, OverflowError):
        if folder_ns is not None:
            _set_mtime(folder, folder_ns)
    with suppress(OSError, OverflowError, Refused):
        if base_ns is not None and base_path:
            with opened_folder(base_path) as base:
                _set_mtime(base, base_ns)


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
