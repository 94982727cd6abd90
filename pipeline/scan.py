"""Folders in, files out: every regular file below the roots once, in a stable order, without opening any."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath

from indexes.records import CatalogFile, FileStat, Root

TRASH_FOLDER_NAMES = {
    "$RECYCLE.BIN",
    "RECYCLER",
    "System Volume Information",
    "lost+found",
    "@Recycle",
    "#recycle",
    "@eaDir",
    "Trash",
}


UNKNOWN_STAT = FileStat(0, 0, 0, 0, 0)  # of what was not looked at


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file on disk. `path` may hold what is no UTF-8, as os.fsdecode gives it."""

    path: str
    stat: FileStat


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something below a root that was not looked into, and why. `trouble` when a user would want it mended."""

    path: str
    reason: str
    detail: str = ""
    is_failure: bool = False


def scan(roots: Sequence[Root]) -> Iterator[SourceFile | Skipped]:
    """Every file below `roots`, always in the same order: a folder's files, then its folders; what only symbolic links reach comes last.

    Each folder is walked once, however many roots, links or mounts lead to it, so loops end. Nothing is opened: a FIFO or a socket is
    passed. Hidden names, trash folders and what a root excludes are passed; a root itself is always walked.
    """
    walked: set[tuple[int, int]] = set()
    links: list[tuple[Root, str]] = []
    tops = {root.path for root in roots}  # a root inside another is walked by its own rules
    for root in sorted(roots, key=lambda root: os.fsencode(root.path)):
        yield from _walk(root, root.path, tops, walked, links)
    while links:
        links.sort(key=lambda link: os.fsencode(link[1]), reverse=True)
        root, path = links.pop()
        try:
            target = os.stat(path)  # noqa: PTH116 - str paths: a Path for each of a million files costs more than the walk
        except OSError:
            yield Skipped(path, "broken link")
            continue
        if stat.S_ISDIR(target.st_mode):
            yield from _walk(root, path, tops, walked, links)
        elif stat.S_ISREG(target.st_mode):
            yield SourceFile(path, to_file_stat(target))
        else:
            yield Skipped(path, "special file")


def _walk(
    root: Root,
    start_folder: str,
    root_paths: set[str],
    visited_folders: set[tuple[int, int]],
    symlinks: list[tuple[Root, str]],
) -> Iterator[SourceFile | Skipped]:
    folders = [start_folder]
    while folders:
        folder = folders.pop()
        try:
            here = os.stat(folder)  # noqa: PTH116 - as above
            if (here.st_dev, here.st_ino) in visited_folders:
                yield Skipped(folder, "reached before")
                continue
            visited_folders.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=_encode_name)
        except OSError as error:
            yield Skipped(folder, "unreadable folder", error.strerror or "", is_failure=True)
            continue
        if {"catalog.db", "segments"} <= {entry.name for entry in entries}:
            yield Skipped(folder, "a store")
            continue
        below = []
        for entry in entries:
            if entry.path in root_paths:
                continue
            if reason := _find_skip_reason(root, entry):
                yield Skipped(entry.path, reason)
            elif entry.is_symlink():
                symlinks.append((root, entry.path))
            elif entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            else:
                yield _stat_entry(entry)
        folders.extend(reversed(below))


def _encode_name(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name)


def _stat_entry(entry: os.DirEntry[str]) -> SourceFile | Skipped:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Skipped(entry.path, "unreadable", error.strerror or "", is_failure=True)
    if not stat.S_ISREG(status.st_mode):
        return Skipped(entry.path, "special file")
    return SourceFile(entry.path, to_file_stat(status))


def to_file_stat(status: os.stat_result) -> FileStat:
    """What the store keeps of what the system says of a file."""
    return FileStat.from_os_stat(status)


def is_unchanged(file: CatalogFile) -> bool:
    """Whether a file is there and can be taken for what it was when it was read."""
    try:
        status = os.stat(file.path)  # noqa: PTH116 - a path that may be no UTF-8
    except OSError:
        return False
    return to_file_stat(status).is_unchanged_since(file.stat)


def _find_skip_reason(root: Root, entry: os.DirEntry[str]) -> str | None:
    if entry.name in TRASH_FOLDER_NAMES or entry.name.startswith(".Trash"):
        return "trash"
    if entry.name.startswith(".") and not root.include_hidden:
        return "hidden"
    relative = (
        str(PurePath(entry.path).relative_to(root.path))
        if root.excludes and "/" in "".join(root.excludes)
        else entry.name
    )
    if any(
        fnmatchcase(entry.name, pattern) or fnmatchcase(relative, pattern)
        for pattern in root.excludes
    ):
        return "excluded"
    return None


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether a path lies below one of some folders."""
    return any(path.startswith(folder.rstrip("/") + "/") for folder in folders)
