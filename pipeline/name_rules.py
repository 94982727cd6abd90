"""Pass over names in a scan: hidden files, trash, libraries of other programs, excludes."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import translate

from indexes.records import Root

TRASH_FOLDER_NAMES = {  # and every name that starts with .Trash
    *("$RECYCLE.BIN", "RECYCLER", "System Volume Information", "lost+found"),
    *("@Recycle", "#recycle", "@eaDir", "Trash"),
}
# Folders in which other programs keep their own copies and previews of photos, by their suffixes
# in lower case. Some hold originals too, at a place that only their program knows.
FOREIGN_LIBRARY_SUFFIXES = (
    *(".photoslibrary", ".photolibrary", ".migratedphotolibrary"),  # Apple Photos and iPhoto
    *(".aplibrary", ".migratedaplibrary", ".photoboothlibrary"),  # Aperture, Photo Booth
    *(".lrdata", ".lrcat-data", ".lrlibrary"),  # Lightroom
    *(".cocatalog", ".cosessiondb"),  # Capture One
)
# A folder with the thumbnails of a page that neardup wrote has a file of this name.
PAGE_MARKER_NAME = ".neardup-page"
# The folder at the top of a root, or of a mount inside it, to which `apply` moves files.
QUARANTINE_FOLDER_NAME = ".neardup-quarantine"
PAGE_THUMBNAIL_NAME_PATTERN = re.compile(r"[0-9a-f]{32}\.jpg")


class SkipReason(StrEnum):
    """Why a scan skips something below a root, in the words of messages."""

    BROKEN_LINK = "broken link"
    EXCLUDED = "excluded"
    FOREIGN_LIBRARY = "library of another program"
    HIDDEN = "hidden"
    PAGE_THUMBNAIL = "thumbnail of a page"
    QUARANTINE = "moved by neardup"
    REACHED_BEFORE = "reached before"
    SPECIAL_FILE = "special file"
    STORE = "a store"
    TRASH = "trash"
    UNREADABLE = "unreadable"
    UNREADABLE_FOLDER = "unreadable folder"


@dataclass(slots=True)
class _Exclude:
    """A pattern as a user wrote it, its expression, and whether it has matched anything yet."""

    pattern: str
    expression: re.Pattern[str]
    is_used: bool = False


class NameRules:
    """The rules by which names below one root are passed over; its excludes are compiled once.

    An exclude without a slash matches names, at any depth. One with a slash matches paths relative
    to the root; ./NAME and an absolute path below the root are such paths. A slash at the end does
    not count, nor do the case of the ending (.GIF) and how an accented letter is composed. A star
    matches slashes too. A name with brackets also matches itself.
    """

    def __init__(self, root: Root) -> None:
        """Compile the excludes of `root`."""
        self.path = root.path
        self.has_names = False  # set by a scan that met any
        self._include_hidden = root.include_hidden
        self._excludes: list[_Exclude] = []  # those of names and those of paths
        self._of_names: list[_Exclude] = []
        self._of_paths: list[_Exclude] = []
        self._prefix_length = len(root.path.rstrip("/")) + 1
        for pattern in root.excludes:
            name_pattern, path_pattern = _parse_exclude(pattern, root.path)
            exclude = _Exclude(pattern, _compile(name_pattern or path_pattern))
            self._excludes.append(exclude)
            (self._of_names if name_pattern else self._of_paths).append(exclude)

    def find_skip_reason(self, name: str, path: str) -> SkipReason | None:
        """Return why a file or folder is skipped by its name, or None; note which excludes match.

        `path` lies below the root, and ends with `name`.
        """
        if self._excludes and self._is_excluded(name, path):
            return SkipReason.EXCLUDED
        if name in TRASH_FOLDER_NAMES or name.startswith(".Trash"):
            return SkipReason.TRASH
        if name == QUARANTINE_FOLDER_NAME:
            return SkipReason.QUARANTINE
        if name.startswith(".") and not self._include_hidden:
            return SkipReason.HIDDEN
        return None

    def _is_excluded(self, name: str, path: str) -> bool:
        is_excluded = False
        # All of them are tried, so that each one knows whether it has matched.
        if self._of_names:
            name = _compose(name)
            for exclude in self._of_names:
                if exclude.expression.match(name):
                    exclude.is_used = is_excluded = True
        if self._of_paths:
            relative_path = _compose(path[self._prefix_length :])
            for exclude in self._of_paths:
                if exclude.expression.match(relative_path):
                    exclude.is_used = is_excluded = True
        return is_excluded

    def find_unused(self) -> list[str]:
        """Return the excludes that have matched nothing yet, in the order of the root."""
        return [exclude.pattern for exclude in self._excludes if not exclude.is_used]

    def has_exclude(self, pattern: str) -> bool:
        """Tell if the root has this exclude."""
        return any(exclude.pattern == pattern for exclude in self._excludes)


def is_foreign_library(folder: str) -> bool:
    """Tell by its name, or by its path, if a folder is the photo library of another program."""
    return folder.lower().endswith(FOREIGN_LIBRARY_SUFFIXES)


def _compose(text: str) -> str:
    """Compose accented letters: macOS keeps them as two characters in the names of files."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _parse_exclude(pattern: str, root_path: str) -> tuple[str, str]:
    """Parse an exclude to a pattern of names, or else to one of paths relative to the root."""
    pattern = pattern.rstrip("/")
    if pattern.startswith("~/"):
        pattern = os.path.expanduser(pattern)  # noqa: PTH111 - a pattern is not a path
    if pattern.startswith("/"):
        return "", _make_relative(pattern, root_path)
    if "/" not in pattern:
        return _compose(pattern), ""
    pattern = posixpath.normpath(_compose(pattern))
    at_any_depth = pattern.removeprefix("**/")
    return (at_any_depth, "") if "/" not in at_any_depth and "**/" in pattern else ("", pattern)


def _make_relative(pattern: str, root_path: str) -> str:
    """Make an absolute pattern relative to the root, if it lies below; else return it as it is.

    The folders in it may be links.
    """
    pattern = posixpath.normpath(pattern)
    parent, name = posixpath.split(pattern)
    prefix = _compose(root_path.rstrip("/") + "/")
    for absolute in (pattern, posixpath.join(os.path.realpath(parent), name)):
        if (composed := _compose(absolute)).startswith(prefix):
            return composed.removeprefix(prefix)
    return _compose(pattern)


def _compile(pattern: str) -> re.Pattern[str]:
    expression = _translate(pattern)
    if "[" in pattern:  # perhaps no set of characters but the name of a folder: [2019] Rome
        expression += "|" + _translate(pattern.replace("[", "[[]"))
    return re.compile(expression)


def _translate(pattern: str) -> str:
    """Translate a pattern to a regular expression that ignores the case of the ending."""
    stem, dot, ending = pattern.rpartition(".")
    is_in_brackets = stem.rfind("[") > stem.rfind("]")
    if not dot or "/" in ending or is_in_brackets:
        return translate(pattern)
    # Each ends with the end of the text, as \\Z or \\z.
    return f"{translate(stem)[:-2]}(?i:{translate(dot + ending)})"
