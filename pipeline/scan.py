"""Folders in, files out: every regular file below the roots once, in a stable order, without opening any."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath

from indexes import Known, Root, Stat

TRASH = {"$RECYCLE.BIN", "RECYCLER", "System Volume Information", "lost+found", "@Recycle", "#recycle", "@eaDir", "Trash"}


NOTHING = Stat(0, 0, 0, 0, 0)  # of what was not looked at


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file on disk. `path` may hold what is no UTF-8, as os.fsdecode gives it."""

    path: str
    stat: Stat


@dataclass(frozen=True, slots=True)
class Passed:
    """Something below a root that was not looked into, and why. `trouble` when a user would want it mended."""

    path: str
    reason: str
    detail: str = ""
    trouble: bool = False


def scan(roots: Sequence[Root]) -> Iterator[SourceFile | Passed]:
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
            yield Passed(path, "broken link")
            continue
        if stat.S_ISDIR(target.st_mode):
            yield from _walk(root, path, tops, walked, links)
        elif stat.S_ISREG(target.st_mode):
            yield SourceFile(path, stat_of(target))
        else:
            yield Passed(path, "special file")


def _walk(
    root: Root, top: str, tops: set[str], walked: set[tuple[int, int]], links: list[tuple[Root, str]]
) -> Iterator[SourceFile | Passed]:
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            here = os.stat(folder)  # noqa: PTH116 - as above
            if (here.st_dev, here.st_ino) in walked:
                yield Passed(folder, "reached before")
                continue
            walked.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=_order)
        except OSError as error:
            yield Passed(folder, "unreadable folder", error.strerror or "", trouble=True)
            continue
        if {"catalog.db", "segments"} <= {entry.name for entry in entries}:
            yield Passed(folder, "a store")
            continue
        below = []
        for entry in entries:
            if entry.path in tops:
                continue
            if reason := _passed_over(root, entry):
                yield Passed(entry.path, reason)
            elif entry.is_symlink():
                links.append((root, entry.path))
            elif entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            else:
                yield _source(entry)
        folders.extend(reversed(below))


def _order(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name)


def _source(entry: os.DirEntry[str]) -> SourceFile | Passed:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Passed(entry.path, "unreadable", error.strerror or "", trouble=True)
    if not stat.S_ISREG(status.st_mode):
        return Passed(entry.path, "special file")
    return SourceFile(entry.path, stat_of(status))


def stat_of(status: os.stat_result) -> Stat:
    """What the store keeps of what the system says of a file."""
    return Stat(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def untouched(known: Known) -> bool:
    """Whether a file is there and can be taken for what it was when it was read."""
    try:
        status = os.stat(known.path)  # noqa: PTH116 - a path that may be no UTF-8
    except OSError:
        return False
    return stat_of(status).unchanged(known.stat)


def _passed_over(root: Root, entry: os.DirEntry[str]) -> str | None:
    if entry.name in TRASH or entry.name.startswith(".Trash"):
        return "trash"
    if entry.name.startswith(".") and not root.hidden:
        return "hidden"
    relative = str(PurePath(entry.path).relative_to(root.path)) if root.excludes and "/" in "".join(root.excludes) else entry.name
    if any(fnmatchcase(entry.name, pattern) or fnmatchcase(relative, pattern) for pattern in root.excludes):
        return "excluded"
    return None


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether a path lies below one of some folders."""
    return any(path.startswith(folder.rstrip("/") + "/") for folder in folders)
