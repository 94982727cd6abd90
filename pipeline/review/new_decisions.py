"""The decisions that a choice for a group enters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import PurePath

from indexes.decisions import (
    MAX_CONTENTS,
    MAX_NAME_CHARS,
    DecidedContent,
    Decision,
    DecisionKind,
)
from indexes.paths import quote
from pipeline.errors import ChoiceRefused
from pipeline.review.listing import ListedFile

MAX_DECISIONS = 10_000  # that one choice may enter: each makes the next one a little slower


class NewDecisions:
    """Collects the decisions of one choice, each a little later than the one before.

    The methods raise ChoiceRefused where no decision is possible, and for more than MAX_DECISIONS.
    """

    def __init__(self, author: str) -> None:
        """Collect decisions of `author`, from now on."""
        self.decisions = list[Decision]()
        self._author, self._start = author, datetime.now(UTC)

    def keep(self, file: ListedFile) -> None:
        """Add that a file is the keeper of its group."""
        self._decide(DecisionKind.KEEP, [file])

    def keep_all(self, files: Sequence[ListedFile]) -> None:
        """Add that each file is kept. Of several the later one wins: the keeper comes last."""
        distinct = {file.hash: file for file in files[::-1]} | {files[0].hash: files[0]}
        for file in sorted(distinct.values(), key=lambda file: file.hash == files[0].hash):
            self.keep(file)

    def reject(self, file: ListedFile) -> None:
        """Add that a file is thrown away."""
        self._decide(DecisionKind.REJECT, [file])

    def separate(self, files: Sequence[ListedFile], named: Sequence[ListedFile]) -> None:
        """Add that no named file is a duplicate of another one; without any, that no two are."""
        images = {file.pixel_hash: file for file in files}
        apart = {file.pixel_hash: file for file in named}
        others = {file.pixel_hash: file for file in files if file not in named}
        if others and apart.keys() & others.keys():
            raise ChoiceRefused(
                "some of these files have the same pixels as others, so they are one image; name"
                " all of them or none"
            )
        if len(images) < 2:
            raise ChoiceRefused("the files have the same pixels, so they are one image")
        if not apart or not others:
            self._decide(DecisionKind.DIFFERENT, list(images.values()))
            return
        if len(apart) * len(others) > MAX_DECISIONS:
            raise ChoiceRefused("too many pairs of files to separate; name fewer files")
        for pair in product(apart.values(), others.values()):
            self._decide(DecisionKind.DIFFERENT, pair)

    def _decide(self, kind: DecisionKind, files: Iterable[ListedFile]) -> None:
        contents = tuple(
            DecidedContent(file.hash, file.pixel_hash, PurePath(file.path).name[:MAX_NAME_CHARS])
            for file in files
        )
        if len(contents) > MAX_CONTENTS:
            raise ChoiceRefused(f"a decision is about {MAX_CONTENTS:,} photos at most; name fewer")
        if len(self.decisions) >= MAX_DECISIONS:
            raise ChoiceRefused(
                f"this would enter more than {MAX_DECISIONS:,} decisions; choose for fewer groups"
            )
        time = self._start + timedelta(microseconds=len(self.decisions))
        self.decisions.append(Decision(kind, contents, self._author, time))


def select_named(files: Sequence[ListedFile], paths: Sequence[str]) -> list[ListedFile]:
    """Return the files with these paths. Raises ChoiceRefused for a path of none of them."""
    by_path = {file.path: file for file in files}
    for path in paths:
        if path not in by_path:
            raise ChoiceRefused(f"{quote(path)} is no file of this group; look at it again")
    return [by_path[path] for path in dict.fromkeys(paths)]
