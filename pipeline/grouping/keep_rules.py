"""Which photo is kept of those that are copies of each other: rules in order, which a person can read and change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import inf
from typing import Any

from indexes.records import FileStat, Image
from pipeline.errors import InvalidKeepRule

GONE_FROM_DISK, CHANGED_ON_DISK = "gone", "changed"
LOSSLESS_FORMATS = {"PNG", "BMP", "GIF", "TIFF"}
# How much of what the camera saw a format holds: what none of these names is a raw photo. A PNG of a photo is mostly a re-save of a JPEG.
FORMAT_RANK = (
    {"HEIF": 1, "TIFF": 1}
    | dict.fromkeys(("JPEG", "MPO", "PNG", "BMP", "AVIF", "JPEG2000", "JXL"), 2)
    | {"WEBP": 3, "GIF": 4}
)


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A file with the image that it holds; `missing` when it was not there the last time, but perhaps only its drive was away; GONE or
    CHANGED `since` then, where it was looked at again.
    """

    path: str
    stat: FileStat
    image: Image
    is_missing: bool = False
    disk_status: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Words for what a person should know of it."""
        return (
            *self.image.flags,
            *(["missing"] if self.is_missing else []),
            *([f"{self.disk_status} since"] if self.disk_status else []),
        )

    @property
    def is_present(self) -> bool:
        """Whether it is, as far as is known, and holds this image."""
        return not self.is_missing and not self.disk_status

    @property
    def timestamp_ns(self) -> int:
        """When it was taken, else when its file was written, in nanoseconds since 1970."""
        return (
            self.stat.mtime_ns
            if self.image.taken_at is None
            else self.image.taken_at * 1_000_000_000
        )


@dataclass(frozen=True, slots=True)
class CopyHints:
    """What its copies say of a picture, as far as pixels show: that it was made of one of them, that it is one that was only enlarged, that
    it is one with a margin that shows nothing; and how many `pixels` count of it, at most, where one is the other, stretched.
    """

    is_derived: bool = False
    is_upscaled: bool = False
    is_padded: bool = False
    max_pixel_count: float = inf


Criterion = tuple[
    str, Callable[[LibraryFile, CopyHints], Any]
]  # in which way a photo is better, and what sorts the better one first


RULES: dict[str, tuple[Criterion, ...]] = {
    "original": (("not made of another", lambda photo, said: said.is_derived),),
    "resolution": (
        ("not only enlarged", lambda photo, said: said.is_upscaled),
        ("no bare margin", lambda photo, said: said.is_padded),
        (
            "most pixels",
            lambda photo, said: -min(photo.image.width * photo.image.height, said.max_pixel_count),
        ),
    ),
    "format": (("richest format", lambda photo, said: FORMAT_RANK.get(photo.image.format, 0)),),
    "metadata": (("most metadata", lambda photo, said: -len(photo.image.metadata)),),
    "date": (("oldest", lambda photo, said: (photo.timestamp_ns, photo.stat.mtime_ns)),),
    "bytes": (("most bytes", lambda photo, said: -photo.image.size),),
    "path": (
        ("shortest path", lambda photo, said: len(photo.path)),
        ("first by its path", lambda photo, said: photo.path),
    ),
}
BASE_CRITERIA: tuple[Criterion, ...] = (
    ("it is there", lambda photo, said: not photo.is_present),
    ("it is whole", lambda photo, said: photo.image.is_damaged),
)
LOSSY_FIRST_CRITERION: Criterion = (
    "not a lossless copy",
    lambda photo, said: photo.image.format in LOSSLESS_FORMATS,
)
PIXEL_RULES = {
    "original",
    "resolution",
    "format",
}  # rules about the pixels, which tell nothing of photos with the same ones
FOLDER_PREFIX = "folder:"


class KeepRules:
    """An order of rules. A photo that is there and whole comes first whatever they say; then those that are named, in their order, then the
    others of RULES in theirs; `original` before all of them unless it is named.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names` of RULES, or folder:PATTERN for photos below a folder whose name, or whole path, matches. Raises BadRule for others."""
        named = list(names)
        for name in named:
            if name not in RULES and not (
                name.startswith(FOLDER_PREFIX) and name.removeprefix(FOLDER_PREFIX).strip("/")
            ):
                raise InvalidKeepRule(
                    f"{ascii(name)} is no rule to keep a photo by; use some of {', '.join(RULES)}, {FOLDER_PREFIX}PATTERN"
                )
            if named.count(name) > 1:
                raise InvalidKeepRule(
                    f"{ascii(name)} is named twice; name each rule once, the most important first"
                )
        if "original" not in named:
            named.insert(0, "original")
        self.names = (*named, *(name for name in RULES if name not in named))

    def find_unused(self, paths: Iterable[str]) -> list[str]:
        """The rules of folders that say nothing of any of these paths."""
        paths = list(paths)
        folders = [name for name in self.names if name.startswith(FOLDER_PREFIX)]
        return [
            name
            for name in folders
            if not any(_is_in_folder(path, _parse_folder_pattern(name)) for path in paths)
        ]

    @cached_property
    def _criteria(self) -> tuple[Criterion, ...]:
        return (*BASE_CRITERIA, *(better for name in self.names for better in _get_criteria(name)))

    @cached_property
    def _equal_pixels_criteria(self) -> tuple[Criterion, ...]:
        return (
            *BASE_CRITERIA,
            LOSSY_FIRST_CRITERION,
            *(
                better
                for name in self.names
                if name not in PIXEL_RULES
                for better in _get_criteria(name)
            ),
        )

    def rank_key(self, file: LibraryFile, hints: CopyHints) -> tuple[Any, ...]:
        """Sorts the photo to keep first, among those of different pictures. No two photos have the same."""
        return tuple(key(file, hints) for _, key in self._criteria)

    def rank_key_equal_pixels(self, file: LibraryFile) -> tuple[Any, ...]:
        """Sorts photos with the same pixels: one in a lossy format comes before a lossless one, which is a re-save of it."""
        return tuple(key(file, CopyHints()) for _, key in self._equal_pixels_criteria)

    def explain_choice(
        self,
        keeper_key: tuple[Any, ...],
        other_keys: Iterable[tuple[Any, ...]],
        equal_pixels: bool = False,
    ) -> str:
        """In which ways one worth is better than each of some others, the most important first; `equals`: they are of original_first()."""
        words = self._equal_pixels_criteria if equal_pixels else self._criteria
        first = {
            next(
                number
                for number, (one, its) in enumerate(zip(keeper_key, other, strict=True))
                if one != its
            )
            for other in other_keys
        }
        return ", ".join(words[number][0] for number in sorted(first))


def _get_criteria(name: str) -> tuple[Criterion, ...]:
    if name in RULES:
        return RULES[name]
    pattern = _parse_folder_pattern(name)
    return ((f"in {pattern}", lambda photo, said: not _is_in_folder(photo.path, pattern)),)


def _parse_folder_pattern(name: str) -> str:
    """What a rule of a folder matches: with a / in it, the end of a folder's path, or all of it where it begins with one."""
    pattern = os.path.expanduser(name.removeprefix(FOLDER_PREFIX)).rstrip("/")  # noqa: PTH111 - a pattern is no path
    return f"*/{pattern}" if "/" in pattern and not pattern.startswith(("/", "*")) else pattern


def _is_in_folder(path: str, pattern: str) -> bool:
    """Whether a folder above a path has a name, or is one, that matches a pattern."""
    parts = path.split("/")[:-1]
    if "/" in pattern:
        return any(fnmatchcase("/".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
    return any(fnmatchcase(part, pattern) for part in parts if part)
