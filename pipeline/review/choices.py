"""The choices of a person on groups: enter their decisions, remember them, take them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Self

from indexes.caches.group_rows import FoundGroup
from indexes.decisions import encode_decision, parse_decision
from indexes.errors import StoreDamaged
from indexes.review import GroupState, ReviewDatabase, ReviewState, format_now
from indexes.store import Store
from pipeline.decide.decide import MergedDecisions, merge_into, take_back
from pipeline.errors import ChoiceRefused, InvalidFilter
from pipeline.grouping.cluster import Group
from pipeline.review.filters import GroupFilter, parse_filter
from pipeline.review.listing import ListedFile, Listing
from pipeline.review.new_decisions import NewDecisions, select_named
from pipeline.review.rows import make_group_row

MAX_REGROUPED_IMAGES = 5_000  # after one choice; more are left to the next build of the listing


class Choice(StrEnum):
    """A choice of a person for a group. The values are stored, and part of the HTTP API."""

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
    """The effect of a choice.

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


_STATES = {
    Choice.ACCEPT: ReviewState.ACCEPTED,
    Choice.KEEP_ALL: ReviewState.KEPT_ALL,
    Choice.SEPARATE: ReviewState.SEPARATED,
    Choice.SKIP: ReviewState.SKIPPED,
    Choice.REJECT: ReviewState.REJECTED,
}


class Reviewer:
    """Makes the choices of `author` on the groups of a listing; can be used from any thread.

    Decisions are those of `neardup decide`, entered by the same functions. The store is open for
    writing until close(); no ingest lock is needed. Each choice is saved when the call returns. Its
    decisions are entered first, so one that is cut off is harmless: the group stands as they have
    it, and waits for a choice.
    """

    def __init__(self, folder: Path, listing: Listing, author: str) -> None:
        """Open the store in `folder` for writing, and what was reviewed of it."""
        self.folder, self.listing, self._author = folder, listing, author
        self._lock = Lock()  # held during a choice
        with ExitStack() as undo:
            self._store = undo.enter_context(Store(folder, write=True))
            self._review = ReviewDatabase(folder)
            undo.callback(self._review.close)
            listing.attach_review()
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        """Return the reviewer itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the store, after a choice that is being made."""
        with self._lock:
            self._undo.close()

    # --- choices ---

    def choose(self, group_id: str, choice: Choice, paths: Sequence[str] = ()) -> Outcome:
        """Make a choice for a group.

        MAKE_KEEPER and REJECT need one of its `paths`. SEPARATE takes those that are no duplicates
        of the others, and stay together; without any, no two of its files are duplicates. The
        other choices take none. Raises UnknownGroup, ChoiceRefused for paths that are not its, and
        DecisionRefused for a contradiction; then nothing has changed.
        """
        with self._lock:
            found = self.listing.find(group_id)
            (files,) = self.listing.list_files([found])
            return self._choose(choice, [found], [files], paths)

    def choose_all(self, choice: Choice, group_filter: GroupFilter, expected_count: int) -> Outcome:
        """Make one of BULK_CHOICES for all groups of a filter, and no other.

        `expected_count` is the number that the person was shown. Raises ChoiceRefused if there are
        more or fewer of them now, and DecisionRefused; then nothing has changed.
        """
        if choice not in BULK_CHOICES:
            raise ChoiceRefused(f"{choice} is for one group: it needs one of its files")
        with self._lock:
            found = self.listing.list_selected(group_filter)
            if len(found) != expected_count:
                raise ChoiceRefused(
                    f"{len(found):,} groups pass the filter now, not {expected_count:,}; look again"
                )
            needs_files = choice in (Choice.KEEP_ALL, Choice.SEPARATE)
            files = self.listing.list_files(found) if needs_files else [()] * len(found)
            return self._choose(choice, found, files, ())

    def _choose(
        self,
        choice: Choice,
        found: Sequence[FoundGroup],
        files: Sequence[Sequence[ListedFile]],
        paths: Sequence[str],
    ) -> Outcome:
        new = NewDecisions(self._author)
        for group_files in files:
            named = select_named(group_files, paths)
            if choice is not Choice.SEPARATE and bool(named) != (choice not in BULK_CHOICES):
                raise ChoiceRefused(f"{choice} takes {'no file' if named else 'one file'}")
            _add(new, choice, group_files, named)
        images = {file.pixel_hash for group_files in files for file in group_files}
        merged, groups = MergedDecisions([]), list[Group]()
        is_refreshed = True
        if new.decisions:

            def enter() -> None:
                nonlocal merged
                merged = merge_into(self._store, new.decisions)

            groups, is_refreshed = self._change(images, enter)
        states = self._make_states(choice, found, groups)
        action = self._review.put(
            choice,
            self._author,
            states,
            decision_ids=[decision.id for decision in merged.new],
            replaced=[encode_decision(decision) for decision in merged.replaced],
            images=sorted(images) if new.decisions else (),
        )
        ids = _sort_ids(groups) if new.decisions else [group.id for group in found]
        return Outcome(
            choice,
            action,
            tuple(ids),
            len(found),
            tuple(decision.id for decision in merged.new),
            is_refreshed,
        )

    def _change(self, images: set[bytes], change: Callable[[], None]) -> tuple[list[Group], bool]:
        """Run `change`, which changes decisions on images; return their groups, if not too many."""
        if len(images) > MAX_REGROUPED_IMAGES:
            change()
            return [], False
        return self.listing.regroup(self._store, images, change), True

    def _make_states(
        self, choice: Choice, found: Sequence[FoundGroup], groups: Sequence[Group]
    ) -> list[GroupState]:
        """Make the states that a choice gives: to groups as they were, and as they are now."""
        if choice not in _STATES:
            return []
        state, now = _STATES[choice], format_now()
        places = {group.id: (group.keeper, group.version, group.path) for group in found}
        if choice in (Choice.KEEP_ALL, Choice.REJECT):
            rows = map(make_group_row, groups)
            places |= {row.id: (row.keeper, row.version, row.path) for row in rows}
        return [
            GroupState(
                id_,
                keeper,
                version if choice is Choice.ACCEPT else b"",
                path,
                state,
                self._author,
                now,
            )
            for id_, (keeper, version, path) in places.items()
        ]

    def undo(self) -> Outcome | None:
        """Take back the last choice that was not yet: its decisions and states; None without one.

        A decision that was forgotten since stays forgotten.
        """
        with self._lock:
            action = self._review.get_last_action()
            if action is None:
                return None
            try:
                replaced = [parse_decision(line) for line in action.replaced]
                choice = Choice(action.choice)
            except ValueError as error:
                raise StoreDamaged(f"{self._review.path} is damaged ({error})") from error
            groups, is_refreshed = list[Group](), True
            if action.decision_ids or replaced:
                groups, is_refreshed = self._change(
                    set(action.images),
                    lambda: _discard(take_back(self._store, action.decision_ids, replaced)),
                )
            changed = self._review.list_changed_groups(action.number)
            self._review.take_back(action.number)
            ids = _sort_ids(groups) or changed
            return Outcome(
                choice, action.number, tuple(ids), len(changed), action.decision_ids, is_refreshed
            )

    def list_accepted(self) -> list[GroupState]:
        """List the groups that were accepted and not yet chosen for in another way, by id."""
        with self._lock:
            return self._review.list_states(ReviewState.ACCEPTED)

    # --- place ---

    def get_place(self) -> Place:
        """Return where the person was when save_place() was last called."""
        with self._lock:
            group_id, text = self._review.get_place()
        try:
            return Place(group_id, parse_filter(json.loads(text)))
        except (ValueError, AttributeError, InvalidFilter):  # of another version
            return Place(None, GroupFilter())

    def save_place(self, place: Place) -> None:
        """Remember where the person is, for another browser and after a restart.

        Raises UnknownGroup for a group that is not listed.
        """
        if place.group_id is not None:
            self.listing.find(place.group_id)
        with self._lock:
            self._review.put_place(place.group_id, json.dumps(place.filter.to_query()))


def _add(
    new: NewDecisions, choice: Choice, files: Sequence[ListedFile], named: Sequence[ListedFile]
) -> None:
    """Add the decisions of a choice for one group."""
    if choice in (Choice.MAKE_KEEPER, Choice.REJECT):
        if len(named) > 1:
            raise ChoiceRefused(f"{choice} takes one file")
        (new.keep if choice is Choice.MAKE_KEEPER else new.reject)(named[0])
    elif choice is Choice.KEEP_ALL:
        new.keep_all(files)
    elif choice is Choice.SEPARATE:
        new.separate(files, named)


def _discard(forgotten: object) -> None:
    """Take a result that is not used."""


def _sort_ids(groups: Iterable[Group]) -> list[str]:
    rows = sorted(map(make_group_row, groups), key=lambda row: (-row.bytes_to_free, row.path))
    return [row.id for row in rows]
