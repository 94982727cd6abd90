"""Which photo is kept of those that are copies of each other: rules in order, which a person can read and change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import inf
from typing import Any

from indexes import Image, Stat
from pipeline.errors import BadRule

GONE, CHANGED = "gone", "changed"
LOSSLESS = {"PNG", "BMP", "GIF", "TIFF"}
# How much of what the camera saw a format holds: what none of these names is a raw photo. A PNG of a photo is mostly a re-save of a JPEG.
RICHNESS = {"HEIF": 1, "TIFF": 1} | dict.fromkeys(("JPEG", "MPO", "PNG", "BMP", "AVIF", "JPEG2000", "JXL"), 2) | {"WEBP": 3, "GIF": 4}


@dataclass(frozen=True, slots=True)
class Photo:
    """A file with the image that it holds; `missing` when it was not there the last time, but perhaps only its drive was away; GONE or
    CHANGED `since` then, where it was looked at again.
    """

    path: str
    stat: Stat
    image: Image
    missing: bool = False
    since: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        """Words for what a person should know of it."""
        return (*self.image.notes, *(["missing"] if self.missing else []), *([f"{self.since} since"] if self.since else []))

    @property
    def is_there(self) -> bool:
        """Whether it is, as far as is known, and holds this image."""
        return not self.missing and not self.since

    @property
    def moment(self) -> int:
        """When it was taken, else when its file was written, in nanoseconds since 1970."""
        return self.stat.mtime_ns if self.image.taken is None else self.image.taken * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Said:
    """What its copies say of a picture, as far as pixels show: that it was made of one of them, that it is one that was only enlarged, that
    it is one with a margin that shows nothing; and how many `pixels` count of it, at most, where one is the other, stretched.
    """

    derived: bool = False
    enlarged: bool = False
    margin: bool = False
    pixels: float = inf


Better = tuple[str, Callable[[Photo, Said], Any]]  # in which way a photo is better, and what sorts the better one first


RULES: dict[str, tuple[Better, ...]] = {
    "original": (("not made of another", lambda photo, said: said.derived),),
    "resolution": (
        ("not only enlarged", lambda photo, said: said.enlarged),
        ("no bare margin", lambda photo, said: said.margin),
        ("most pixels", lambda photo, said: -min(photo.image.width * photo.image.height, said.pixels)),
    ),
    "format": (("richest format", lambda photo, said: RICHNESS.get(photo.image.format, 0)),),
    "metadata": (("most metadata", lambda photo, said: -len(photo.image.metadata)),),
    "date": (("oldest", lambda photo, said: (photo.moment, photo.stat.mtime_ns)),),
    "bytes": (("most bytes", lambda photo, said: -photo.image.size),),
    "path": (("shortest path", lambda photo, said: len(photo.path)), ("first by its path", lambda photo, said: photo.path)),
}
ALWAYS: tuple[Better, ...] = (
    ("it is there", lambda photo, said: not photo.is_there),
    ("it is whole", lambda photo, said: photo.image.damaged),
)
RESAVE: Better = ("not a lossless copy", lambda photo, said: photo.image.format in LOSSLESS)
OF_PIXELS = {"original", "resolution", "format"}  # rules about the pixels, which tell nothing of photos with the same ones
FOLDER = "folder:"


class Keep:
    """An order of rules. A photo that is there and whole comes first whatever they say; then those that are named, in their order, then the
    others of RULES in theirs; `original` before all of them unless it is named.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names` of RULES, or folder:PATTERN for photos below a folder whose name, or whole path, matches. Raises BadRule for others."""
        named = list(names)
        for name in named:
            if name not in RULES and not (name.startswith(FOLDER) and name.removeprefix(FOLDER).strip("/")):
                raise BadRule(f"{ascii(name)} is no rule to keep a photo by; use some of {', '.join(RULES)}, {FOLDER}PATTERN")
            if named.count(name) > 1:
                raise BadRule(f"{ascii(name)} is named twice; name each rule once, the most important first")
        if "original" not in named:
            named.insert(0, "original")
        self.names = (*named, *(name for name in RULES if name not in named))

    def idle(self, paths: Iterable[str]) -> list[str]:
        """The rules of folders that say nothing of any of these paths."""
        paths = list(paths)
        folders = [name for name in self.names if name.startswith(FOLDER)]
        return [name for name in folders if not any(_is_below(path, _pattern(name)) for path in paths)]

    @cached_property
    def _betters(self) -> tuple[Better, ...]:
        return (*ALWAYS, *(better for name in self.names for better in _rule(name)))

    @cached_property
    def _betters_of_equals(self) -> tuple[Better, ...]:
        return (*ALWAYS, RESAVE, *(better for name in self.names if name not in OF_PIXELS for better in _rule(name)))

    def worth(self, photo: Photo, said: Said) -> tuple[Any, ...]:
        """Sorts the photo to keep first, among those of different pictures. No two photos have the same."""
        return tuple(key(photo, said) for _, key in self._betters)

    def original_first(self, photo: Photo) -> tuple[Any, ...]:
        """Sorts photos with the same pixels: one in a lossy format comes before a lossless one, which is a re-save of it."""
        return tuple(key(photo, Said()) for _, key in self._betters_of_equals)

    def reason(self, mine: tuple[Any, ...], others: Iterable[tuple[Any, ...]], equals: bool = False) -> str:
        """In which ways one worth is better than each of some others, the most important first; `equals`: they are of original_first()."""
        words = self._betters_of_equals if equals else self._betters
        first = {next(number for number, (one, its) in enumerate(zip(mine, other, strict=True)) if one != its) for other in others}
        return ", ".join(words[number][0] for number in sorted(first))


def _rule(name: str) -> tuple[Better, ...]:
    if name in RULES:
        return RULES[name]
    pattern = _pattern(name)
    return ((f"in {pattern}", lambda photo, said: not _is_below(photo.path, pattern)),)


def _pattern(name: str) -> str:
    """What a rule of a folder matches: with a / in it, the end of a folder's path, or all of it where it begins with one."""
    pattern = os.path.expanduser(name.removeprefix(FOLDER)).rstrip("/")  # noqa: PTH111 - a pattern is no path
    return f"*/{pattern}" if "/" in pattern and not pattern.startswith(("/", "*")) else pattern


def _is_below(path: str, pattern: str) -> bool:
    """Whether a folder above a path has a name, or is one, that matches a pattern."""
    parts = path.split("/")[:-1]
    if "/" in pattern:
        return any(fnmatchcase("/".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
    return any(fnmatchcase(part, pattern) for part in parts if part)
