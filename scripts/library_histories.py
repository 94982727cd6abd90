"""Random histories of a small library: nights of changes, ingests that stop, are killed, go on."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOTS = ("a", "b")
FOLDERS = ("", "trip/", "a long name of a folder/")
# Names of two frames of one burst are hints that two files are two exposures.
BURST_NAMES = ("IMG_20231014_183246_BURST001", "IMG_20231014_183246_BURST002")
MAX_CHANGES_PER_NIGHT = 7
# All times that files get, in seconds; they tell which copy is the oldest.
FIRST_TIME_S = 1_600_000_000
SECONDS_PER_CHANGE = 60
# Files in the library from which fewer are put into it, and more are deleted.
FULL_LIBRARY_SHARE = 0.8
# Of the files that are put into the library: those of a content that it does not hold, and those in
# the place of another file.
NEW_CONTENT_SHARE = 0.8
OVERWRITE_SHARE = 0.15
FAILPOINTS = (
    "file created",
    "file synced",
    "file durable",
    "commit begun",
    "commit written",
    "commit done",
    "commit sealed",
    "join pairs found",
    "compaction committed",
    "compaction swept",
)
MAX_HITS = 6  # of a failpoint before it is fatal
MAX_STEPS = 15  # that an ingest reports before it is stopped


class Action(StrEnum):
    """A change to the library."""

    PUT = "put"  # a content at a path, new there or in the place of another
    DELETE = "delete"
    RENAME = "rename"
    TOUCH = "touch"
    AWAY = "away"  # a root, as a drive that is not mounted
    BACK = "back"


class Ending(StrEnum):
    """The way an ingest ends."""

    COMPLETE = "complete"
    STOPPED = "stopped"  # as by Ctrl-C
    KILLED = "killed"  # by SIGKILL


@dataclass(frozen=True)
class Change:
    """A change to `path`, relative to the library; `other` is the content to put, or a new path."""

    action: Action
    path: str
    other: str = ""
    time_s: int = FIRST_TIME_S


@dataclass(frozen=True)
class Night:
    """Changes, and the ingest after them.

    An ingest that does not complete ends after `steps` reports of its progress, or is killed when
    it hits `failpoint` for the `steps`-th time.
    """

    changes: tuple[Change, ...]
    roots: tuple[str, ...] = ROOTS
    ending: Ending = Ending.COMPLETE
    steps: int = 0
    failpoint: str = ""
    accept_missing: bool = False
    compact: bool = False
    batch_size: int = 4


def make_history(rng: random.Random, contents: Sequence[str], night_count: int) -> list[Night]:
    """Make a history over contents, by name; its last night ends with a complete ingest."""
    files: dict[str, str] = {}  # what the library holds, by path
    nights, time_s = list[Night](), FIRST_TIME_S
    for number in range(night_count):
        changes = list[Change]()
        # A library begins with about as many files as it has later.
        max_changes = MAX_CHANGES_PER_NIGHT if number else len(contents)
        for _ in range(rng.randint(1, max_changes)):
            time_s += SECONDS_PER_CHANGE
            changes.append(_draw_change(rng, contents, files, time_s))
        nights.append(_draw_night(rng, changes))
    back = tuple(Change(Action.BACK, root) for root in ROOTS)
    return [*nights, Night(back, accept_missing=True)]


def _draw_change(
    rng: random.Random, contents: Sequence[str], files: dict[str, str], time_s: int
) -> Change:
    """Draw a change that is possible, and apply it to `files`."""
    is_full = len(files) >= FULL_LIBRARY_SHARE * len(contents)
    weights = {
        Action.PUT: 2 if is_full else 8,
        Action.DELETE: 4 if is_full else 2,
        Action.RENAME: 2,
        Action.TOUCH: 1,
        Action.AWAY: 0.3,
        Action.BACK: 1,
    }
    action = rng.choices(list(weights), list(weights.values()))[0]
    if action in (Action.AWAY, Action.BACK):
        return Change(action, rng.choice(ROOTS))
    if not files or action is Action.PUT:
        # Most often one that the library does not hold, as of a new or a restored file.
        absent = [content for content in contents if content not in files.values()]
        content = rng.choice(absent if absent and rng.random() < NEW_CONTENT_SHARE else contents)
        known = [path for path, held in files.items() if held != content]
        path = (
            rng.choice(known)
            if known and rng.random() < OVERWRITE_SHARE
            else _draw_path(rng, content)
        )
        files[path] = content
        # A restored file has its old time, a new one the present.
        return Change(Action.PUT, path, content, rng.choice([FIRST_TIME_S, time_s]))
    path = rng.choice(sorted(files))
    if action is Action.TOUCH:
        return Change(action, path, time_s=time_s)
    content = files.pop(path)
    if action is Action.DELETE:
        return Change(action, path)
    target = _draw_path(rng, content)
    files[target] = content
    return Change(action, path, target)


def _draw_path(rng: random.Random, content: str) -> str:
    """Draw a path for a content: under its own name, a number, or the name of a burst's frame."""
    stem, _, suffix = content.partition(".")
    stems = (stem, stem, f"{rng.randint(1, 3)} {stem}", rng.choice(BURST_NAMES))
    return f"{rng.choice(ROOTS)}/{rng.choice(FOLDERS)}{rng.choice(stems)}.{suffix}"


def _draw_night(rng: random.Random, changes: Sequence[Change]) -> Night:
    """Draw the ingest of a night."""
    ending = rng.choices(list(Ending), (3, 1, 2))[0]
    failpoint = rng.choice(FAILPOINTS) if ending is Ending.KILLED and rng.random() < 0.5 else ""
    return Night(
        tuple(changes),
        rng.choices([ROOTS, ROOTS[:1], ROOTS[1:]], (6, 1, 1))[0],
        ending,
        rng.randint(1, MAX_HITS if failpoint else MAX_STEPS),
        failpoint,
        accept_missing=rng.random() < 0.5,
        compact=rng.random() < 0.15,
        batch_size=rng.randint(1, 6),
    )


class Library:
    """A folder with two roots, and a folder beside it for those that are away."""

    def __init__(self, folder: Path, contents: Path) -> None:
        """Create the roots, empty; `contents` has the files to put into them."""
        self.folder, self._away, self._contents = folder / "library", folder / "away", contents
        self._away.mkdir(parents=True)
        for root in ROOTS:
            (self.folder / root).mkdir(parents=True)

    def apply(self, change: Change) -> None:
        """Apply a change; one that is not possible, as of a file below a root that is away, is not.

        So a history without some of its changes is a history.
        """
        root, path = change.path.partition("/")[0], self.folder / change.path
        if change.action is Action.BACK:
            if (self._away / root).exists():
                (self._away / root).rename(self.folder / root)
        elif not (self.folder / root).exists():
            return
        elif change.action is Action.AWAY:
            path.rename(self._away / root)
        elif change.action is Action.PUT:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._contents / change.other, path)
            os.utime(path, (change.time_s, change.time_s))
        elif path.exists():
            self._change_file(change, path)

    def _change_file(self, change: Change, path: Path) -> None:
        match change.action:
            case Action.DELETE:
                path.unlink()
            case Action.TOUCH:
                os.utime(path, (change.time_s, change.time_s))
            case _:
                target = self.folder / change.other
                if (self.folder / change.other.partition("/")[0]).exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.rename(target)
