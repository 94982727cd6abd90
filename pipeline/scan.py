"""List the files below folders: every regular file once, in a stable order, without opening any."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import PurePath

from indexes.paths import STORE_MARKER_NAMES, quote
from indexes.records import CatalogFile, FileStat, Root

TRASH_FOLDER_NAMES = {  # and every name that starts with .Trash
    *("$RECYCLE.BIN", "RECYCLER", "System Volume Information", "lost+found"),
    *("@Recycle", "#recycle", "@eaDir", "Trash"),
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file on disk.

    `path` can hold bytes that are no UTF-8, in the form that os.fsdecode returns. `stat` is None if
    the filesystem was not asked for it, or did not answer.
    """

    path: str
    stat: FileStat | None = None

    def require_stat(self) -> FileStat:
        """Return the stat; raise ValueError if it is unknown."""
        if self.stat is None:
            raise ValueError(f"{ascii(self.path)} has no stat; only files of a scan do")
        return self.stat

    def is_unchanged_since(self, earlier: FileStat) -> bool:
        """Tell if the content can be taken as the same as before; False if the stat is unknown."""
        return self.stat is not None and self.stat.is_unchanged_since(earlier)


class SkipReason(StrEnum):
    """Why a scan skips something below a root, in the words of messages."""

    BROKEN_LINK = "broken link"
    EXCLUDED = "excluded"
    HIDDEN = "hidden"
    REACHED_BEFORE = "reached before"
    SPECIAL_FILE = "special file"
    STORE = "a store"
    TRASH = "trash"
    UNREADABLE = "unreadable"
    UNREADABLE_FOLDER = "unreadable folder"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something below a root that is not read, and why; `is_failure` if a user should repair it."""

    path: str
    reason: SkipReason
    detail: str | None = None
    is_failure: bool = False


def scan(roots: Sequence[Root]) -> Iterator[SourceFile | Skipped]:
    """List every file below `roots`, always in the same order.

    A folder's files come before its folders; what only symbolic links reach comes last. Each folder
    is walked once, however many roots, links or mounts lead to it, so loops end. Nothing is opened:
    a FIFO or a socket is skipped. Hidden names, trash folders and what a root excludes are skipped;
    a root itself is always walked. A slash at the end of an exclude, as a shell completes it, does
    not count.
    """
    roots = [
        replace(root, excludes=tuple(pattern.rstrip("/") for pattern in root.excludes))
        for root in roots
    ]
    visited_folders: set[tuple[int, int]] = set()
    symlinks: list[tuple[Root, str]] = []
    root_paths = {root.path for root in roots}  # a root inside another is walked by its own rules
    for root in sorted(roots, key=lambda root: os.fsencode(root.path)):
        yield from _walk(root, root.path, root_paths, visited_folders, symlinks)
    while symlinks:
        symlinks.sort(key=lambda symlink: os.fsencode(symlink[1]), reverse=True)
        root, path = symlinks.pop()
        try:
            # A Path for each of a million files would cost more than the walk.
            target = os.stat(path)  # noqa: PTH116
        except OSError:
            yield Skipped(path, SkipReason.BROKEN_LINK)
            continue
        if stat.S_ISDIR(target.st_mode):
            yield from _walk(root, path, root_paths, visited_folders, symlinks)
        elif stat.S_ISREG(target.st_mode):
            yield SourceFile(path, FileStat.from_os_stat(target))
        else:
            yield Skipped(path, SkipReason.SPECIAL_FILE)


def _walk(
    root: Root,
    start_folder: str,
    root_paths: set[str],
    visited_folders: set[tuple[int, int]],
    symlinks: list[tuple[Root, str]],
) -> Iterator[SourceFile | Skipped]:
    """Walk a folder by the rules of `root`; add to `visited_folders` and to `symlinks`."""
    folders = [start_folder]
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 - as above
            if (status.st_dev, status.st_ino) in visited_folders:
                yield Skipped(folder, SkipReason.REACHED_BEFORE)
                continue
            visited_folders.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=_encode_name)
        except OSError as error:
            yield Skipped(folder, SkipReason.UNREADABLE_FOLDER, error.strerror, is_failure=True)
            continue
        if STORE_MARKER_NAMES <= {entry.name for entry in entries}:
            yield Skipped(folder, SkipReason.STORE)
            continue
        subfolders = []
        for entry in entries:
            if entry.path in root_paths:
                continue
            if reason := _find_skip_reason(root, entry):
                yield Skipped(entry.path, reason)
            elif entry.is_symlink():
                symlinks.append((root, entry.path))
            elif entry.is_dir(follow_symlinks=False):
                subfolders.append(entry.path)
            else:
                yield _stat_entry(entry)
        folders.extend(reversed(subfolders))


def _encode_name(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name)


def _stat_entry(entry: os.DirEntry[str]) -> SourceFile | Skipped:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Skipped(entry.path, SkipReason.UNREADABLE, error.strerror, is_failure=True)
    if not stat.S_ISREG(status.st_mode):
        return Skipped(entry.path, SkipReason.SPECIAL_FILE)
    return SourceFile(entry.path, FileStat.from_os_stat(status))


def is_unchanged(file: CatalogFile) -> bool:
    """Tell if a file is present and its content can be taken as the same as when it was read."""
    try:
        status = os.stat(file.path)  # noqa: PTH116 - a path that may be no UTF-8
    except OSError:
        return False
    return FileStat.from_os_stat(status).is_unchanged_since(file.stat)


def _find_skip_reason(root: Root, entry: os.DirEntry[str]) -> SkipReason | None:
    """Return why an entry is skipped by its name, or None."""
    if entry.name in TRASH_FOLDER_NAMES or entry.name.startswith(".Trash"):
        return SkipReason.TRASH
    if entry.name.startswith(".") and not root.include_hidden:
        return SkipReason.HIDDEN
    names = [entry.name]
    if any("/" in pattern for pattern in root.excludes):  # relative paths cost time
        names.append(str(PurePath(entry.path).relative_to(root.path)))
    if any(fnmatchcase(name, pattern) for pattern in root.excludes for name in names):
        return SkipReason.EXCLUDED
    return None


def explain_no_folder(path: str) -> str:
    """Explain why a path that was named as a folder cannot be scanned: 'x' does not exist."""
    try:
        os.stat(path)  # noqa: PTH116 - a path that may be no UTF-8
    except (FileNotFoundError, NotADirectoryError):
        return f"{quote(path)} does not exist"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return f"{quote(path)} cannot be read ({getattr(error, 'strerror', None) or error})"
    return f"{quote(path)} is not a folder"


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Tell if a path lies below any of `folders`."""
    return any(path.startswith(folder.rstrip("/") + "/") for folder in folders)
