"""The choices of a person on groups: enter their decisions, remember them, take them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pipeline.review.filters import GroupFilter
from pipeline.review.listing import Listing

MAX_SEPARATED_PAIRS = 10_000  # decisions that one choice may enter


class Choice(StrEnum):
    """What a person can choose for a group. The values are stored, and part of the HTTP API."""

    ACCEPT = "accept"  # all but the keeper may go
    KEEP_ALL = "keep all"
    SEPARATE = "separate"  # not duplicates
    SKIP = "skip"
    MAKE_KEEPER = "make keeper"
    REJECT = "reject"


# Those that need no file, so they can be made for all groups of a filter.
BULK_CHOICES = (Choice.ACCEPT, Choice.KEEP_ALL, Choice.SEPARATE, Choice.SKIP)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a choice did.

    `action` is its number, which undo() takes back. `group_ids` are the groups that hold the files
    of the group now, with most bytes to free first: itself after most choices, none if nothing is
    left to group. `group_count` counts the groups that were chosen for. `is_refreshed`: False if
    so many files are concerned that only the next refresh() of the listing shows the change.
    """

    choice: Choice
    action: int
    group_ids: tuple[str, ...]
    group_count: int = 1
    decision_ids: tuple[str, ...] = ()
    is_refreshed: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where the person was: a group, and the filter as the parameters of a URL."""

    group_id: str | None
    filter: GroupFilter


class Reviewer:
    """Makes the choices of `author` on the groups of a listing; can be used from any thread.

    Decisions are those of `neardup decide`, entered by the same functions. The store is open for
    writing until close(); no ingest lock is needed. Each choice is saved when the call returns.
    """

    def __init__(self, folder: Path, listing: Listing, author: str) -> None:
        """Open the store in `folder` for writing, and what was reviewed of it."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the store."""
        raise NotImplementedError

    def choose(self, group_id: str, choice: Choice, paths: Sequence[str] = ()) -> Outcome:
        """Make a choice for a group.

        MAKE_KEEPER and REJECT need one of its `paths`. SEPARATE takes those that are no duplicates
        of the others, and stay together; without any, no two of its files are duplicates. The
        other choices take none. Raises UnknownGroup, ChoiceRefused for paths that are not its, and
        DecisionRefused for a contradiction; then nothing has changed.
        """
        raise NotImplementedError

    def choose_all(self, choice: Choice, group_filter: GroupFilter, expected_count: int) -> Outcome:
        """Make one of BULK_CHOICES for all groups of a filter, and no other.

        `expected_count` is the number that the person was shown. Raises ChoiceRefused if there are
        more or fewer of them now, and DecisionRefused; then nothing has changed.
        """
        raise NotImplementedError

    def undo(self) -> Outcome | None:
        """Take back the last choice that was not yet: its decisions and states; None without one.

        A decision that was forgotten since stays forgotten.
        """
        raise NotImplementedError

    def get_place(self) -> Place:
        """Return where the person was when save_place() was last called."""
        raise NotImplementedError

    def save_place(self, place: Place) -> None:
        """Remember where the person is, for another browser and after a restart."""
        raise NotImplementedError
