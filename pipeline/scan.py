"""List the files below folders: every regular file once, in a stable order, without opening any."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from indexes.paths import STORE_MARKER_NAMES, quote
from indexes.records import CatalogFile, FileStat, Root
from pipeline.name_rules import (
    PAGE_MARKER_NAME,
    PAGE_THUMBNAIL_NAME_PATTERN,
    NameRules,
    SkipReason,
    is_foreign_library,
)


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


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something below a root that is not read, and why; `is_failure` if a user should repair it."""

    path: str
    reason: SkipReason
    detail: str | None = None
    is_failure: bool = False


def scan(roots: Iterable[Root]) -> Iterator[SourceFile | Skipped]:
    """List every file below `roots`, always in the same order.

    A folder's files come before its folders; what only symbolic links reach comes last. Each folder
    is walked once, however many roots, links or mounts lead to it, so loops end. Nothing is opened:
    a FIFO or a socket is skipped. Hidden names, trash folders, photo libraries of other programs,
    the thumbnails of our own pages and what a root excludes are skipped; a root itself is always
    walked.
    """
    return scan_by_rules([NameRules(root) for root in roots])


def scan_by_rules(rules: Iterable[NameRules]) -> Iterator[SourceFile | Skipped]:
    """List the files below the roots of `rules`; these know afterwards which excludes matched."""
    rules_by_root = {of_root.path: of_root for of_root in rules}
    visited_folders: set[tuple[int, int]] = set()
    symlinks: list[tuple[NameRules, str]] = []
    # A root inside another is walked by its own rules.
    for path in sorted(rules_by_root, key=os.fsencode):
        yield from _walk(rules_by_root[path], path, rules_by_root, visited_folders, symlinks)
    while symlinks:
        symlinks.sort(key=lambda symlink: os.fsencode(symlink[1]), reverse=True)
        of_root, path = symlinks.pop()
        try:
            # A Path for each of a million files would cost more than the walk.
            target = os.stat(path)  # noqa: PTH116
        except OSError:
            yield Skipped(path, SkipReason.BROKEN_LINK)
            continue
        if stat.S_ISDIR(target.st_mode):
            if is_foreign_library(path) or is_foreign_library(os.path.realpath(path)):
                yield Skipped(path, SkipReason.FOREIGN_LIBRARY)
            else:
                yield from _walk(of_root, path, rules_by_root, visited_folders, symlinks)
        elif stat.S_ISREG(target.st_mode):
            yield SourceFile(path, FileStat.from_os_stat(target))
        else:
            yield Skipped(path, SkipReason.SPECIAL_FILE)


def _walk(
    rules: NameRules,
    start_folder: str,
    root_paths: Container[str],
    visited_folders: set[tuple[int, int]],
    symlinks: list[tuple[NameRules, str]],
) -> Iterator[SourceFile | Skipped]:
    """Walk a folder by the rules of its root; add to `visited_folders` and to `symlinks`."""
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
        names = {entry.name for entry in entries}
        if names >= STORE_MARKER_NAMES:
            yield Skipped(folder, SkipReason.STORE)
            continue
        rules.has_names = rules.has_names or bool(names)
        has_page = PAGE_MARKER_NAME in names
        subfolders = []
        for entry in entries:
            if entry.path in root_paths:
                continue
            if reason := rules.find_skip_reason(entry.name, entry.path):
                yield Skipped(entry.path, reason)
            elif has_page and PAGE_THUMBNAIL_NAME_PATTERN.fullmatch(entry.name):
                yield Skipped(entry.path, SkipReason.PAGE_THUMBNAIL)
            elif entry.is_symlink():
                symlinks.append((rules, entry.path))
            elif not entry.is_dir(follow_symlinks=False):
                yield _stat_entry(entry)
            elif is_foreign_library(entry.name):
                yield Skipped(entry.path, SkipReason.FOREIGN_LIBRARY)
            else:
                subfolders.append(entry.path)
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
