"""The groups of a store as a person pages through them: sorted, filtered, with their choices."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Self

from indexes.caches.group_rows import Condition, FoundGroup, MemberRow
from indexes.caches.groups import GroupCache
from indexes.paths import CACHES_NAME, REVIEW_NAME, quote
from indexes.review import ReviewState
from indexes.store import Store
from pipeline.errors import InvalidFilter, ReviewFailed, UnknownGroup
from pipeline.grouping.cluster import Group
from pipeline.query.components import group_components
from pipeline.review.build import GROUP_OPTIONS, make_builder, read_state
from pipeline.review.cursors import encode_cursor, parse_cursor
from pipeline.review.filters import NO_FILTER, GroupFilter
from pipeline.review.regroup import load_components, regroup
from pipeline.review.rows import ID_DIGITS
from pipeline.workers.pool import WorkerFailed, WorkerProcess

MAX_PAGE_GROUPS = 200


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a listed group; `hash` is the blake3 of its bytes, `pixel_hash` of its pixels."""

    path: str
    hash: bytes
    pixel_hash: bytes


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group of the listing.

    `id` follows from the contents of its files, so it outlives other ingests and another keeper; it
    is not the `id` in `document`. That is the group in the JSON schema of `neardup groups --json`.
    `files` are the keeper, then the members, in the order of `document`. `state` is what was chosen
    for it, by `author` at `time`; all None if nothing was, or not for this keeper.
    """

    id: str
    bytes_to_free: int
    document: dict[str, Any]
    files: tuple[ListedFile, ...]
    state: ReviewState | None = None
    author: str | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class GroupPage:
    """Groups in their order; `next_cursor` is for the page after these, None at the end."""

    groups: tuple[ListedGroup, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Count:
    """A number of groups, and the bytes that they could free."""

    groups: int
    bytes_to_free: int


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The ids of the groups before and after another one under a filter; None at an end."""

    previous: str | None
    next: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of the groups with a choice, and of all; separated ones count in both."""

    reviewed: int
    groups: int


class Listing:
    """The groups of the store in a folder; can be used from any thread.

    It is a cache with its own file: refresh() fills it, and until then it has no group. The order
    is most bytes to free first, then the path of the keeper.
    """

    def __init__(self, folder: Path) -> None:
        """Open the listing of the store in `folder`; close() it. Nothing is built yet.

        In a folder that cannot be written to, it is in a temporary one. Raises StoreMissing,
        StoreVersionMismatch, StoreDamaged and StoreError.
        """
        self._folder = folder
        self._lock = RLock()  # guards all fields, and the two databases
        self._build_lock = Lock()  # held by the one refresh() that builds
        self._builder: WorkerProcess[None, dict[str, Any]] | None = None
        # The images of choices during a build, which it may not know of.
        self._changed_images: set[bytes] | None = None
        self._is_closed = False
        with ExitStack() as undo:
            self._store = undo.enter_context(Store(folder))
            self._cache_folder = folder
            if not os.access(folder / CACHES_NAME, os.W_OK) and not os.access(folder, os.W_OK):
                self._cache_folder = Path(
                    undo.enter_context(tempfile.TemporaryDirectory(prefix="neardup-"))
                )
            review = folder / REVIEW_NAME
            self._cache = undo.enter_context(
                GroupCache(self._cache_folder, write=True, review=review)
            )
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        """Return the listing itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the listing."""
        self.close()

    def close(self) -> None:
        """Close the files, and end a build that runs."""
        with self._lock:
            self._is_closed = True
            if self._builder:
                self._builder.terminate()
        with self._build_lock, self._lock:
            self._undo.close()

    def attach_review(self) -> None:
        """Read what was chosen from a database that did not exist when this was opened."""
        with self._lock:
            self._cache.attach_review_again()

    # --- the state of the listing ---

    @property
    def is_built(self) -> bool:
        """True once there is a listing, perhaps an older one; False while the first one is made."""
        with self._lock:
            return self._cache.get_current() is not None

    def is_stale(self) -> bool:
        """Tell if the store changed since the listing was made; ingest, decisions or settings."""
        with self._lock:
            current = self._cache.get_current()
            return current is None or current[1] != str(read_state(self._store))

    def refresh(self, *, force: bool = False) -> bool:
        """Build the listing again if it is stale, in a child process; returns whether it was built.

        With `force`, also if the store did not change, as after files were moved. Call it in a
        thread of its own: it takes as long as `neardup groups`. The old listing is served until the
        new one takes its place in one transaction. A second call at the same time waits for the
        first. Raises ReviewFailed if no listing was built, and StoreError if it was not adopted.
        """
        with self._build_lock:
            if not force and not self.is_stale():
                return False
            builder = WorkerProcess(make_builder(self._folder, self._cache_folder))
            with self._lock:
                if self._is_closed:
                    raise ReviewFailed("the listing was closed")
                self._builder, self._changed_images = builder, set()
            try:
                answer = builder.request(None)
                if "error" in answer:
                    raise ReviewFailed(f"the groups could not be listed: {answer['error']}")
                self._adopt(answer["build"], answer["state"])
            except (WorkerFailed, RuntimeError) as error:
                raise ReviewFailed(f"the groups could not be listed: {error}") from error
            finally:
                builder.join()
                with self._lock:
                    self._builder, self._changed_images = None, None
            return True

    def _adopt(self, build: int, state: str) -> None:
        """Make a build the current one, with the choices that were made meanwhile."""
        with self._lock, Store(self._folder) as store:
            if self._changed_images:
                regroup(self._cache, build, store, self._changed_images)
            self._cache.adopt(build, state)

    # --- reading ---

    def count(self, group_filter: GroupFilter = NO_FILTER) -> Count:
        """Count the groups of a filter, and their bytes to free."""
        with self._lock:
            return Count(*self._cache.count(group_filter.to_conditions()))

    def page(
        self, group_filter: GroupFilter = NO_FILTER, cursor: str | None = None, limit: int = 50
    ) -> GroupPage:
        """Return up to `limit` groups after `cursor`, or the first ones.

        Raises InvalidFilter for a cursor that page() did not make, and for a limit that is not
        from 1 to MAX_PAGE_GROUPS. A cursor holds for another filter too, and after changes.
        """
        if not 1 <= limit <= MAX_PAGE_GROUPS:
            raise InvalidFilter(f"a page has from 1 to {MAX_PAGE_GROUPS} groups")
        after = None if cursor is None else parse_cursor(cursor)
        with self._lock, self._cache.snapshot():
            conditions = group_filter.to_conditions()
            found = self._cache.find_groups(conditions, limit + 1, after=after)
            groups = self._load(found[:limit])
        is_last = len(found) <= limit
        next_cursor = (
            None if is_last else encode_cursor(found[limit - 1].rank, found[limit - 1].path)
        )
        return GroupPage(tuple(groups), next_cursor)

    def get(self, group_id: str) -> ListedGroup:
        """Get a group by its id. Raises UnknownGroup for one that is not listed, or no id."""
        with self._lock, self._cache.snapshot():
            (group,) = self._load([self._find(group_id)])
        return group

    def find_neighbors(self, group_id: str, group_filter: GroupFilter = NO_FILTER) -> Neighbors:
        """Find the groups before and after a group, which itself need not pass the filter.

        Raises UnknownGroup.
        """
        with self._lock, self._cache.snapshot():
            found = self._find(group_id)
            place, conditions = (found.rank, found.path), group_filter.to_conditions()
            before = self._cache.find_groups(conditions, 1, before=place)
            after = self._cache.find_groups(conditions, 1, after=place)
        return Neighbors(before[0].id if before else None, after[0].id if after else None)

    def find_file(self, image_hash: bytes) -> ListedFile | None:
        """Find a listed file with these bytes, by their blake3; None if there is none."""
        with self._lock:
            member = self._cache.find_member(image_hash)
        return _make_listed_file(member) if member else None

    def count_progress(self) -> Progress:
        """Count the groups that have a choice, and all groups."""
        with self._lock, self._cache.snapshot():
            groups, _ = self._cache.count()
            chosen, separated = self._cache.count_chosen(), self._cache.count_separated()
        return Progress(chosen + separated, groups + separated)

    def count_accepted(self) -> Count:
        """Count the listed groups that are accepted, and their bytes to free."""
        accepted = Condition("chosen.state = ?", [ReviewState.ACCEPTED])
        with self._lock:
            return Count(*self._cache.count([accepted]))

    def find(self, group_id: str) -> FoundGroup:
        """Find a group by its id, without its files. Raises UnknownGroup."""
        with self._lock:
            return self._find(group_id)

    def find_listed(self, group_id: str) -> FoundGroup | None:
        """Find a group by its id, without its files; None for one that is not listed."""
        with self._lock:
            return self._cache.find_group(group_id)

    def list_selected(self, group_filter: GroupFilter) -> list[FoundGroup]:
        """List the groups of a filter in their order, without their files."""
        with self._lock:
            return list(self._cache.stream_groups(group_filter.to_conditions()))

    def list_files(self, groups: Sequence[FoundGroup]) -> list[tuple[ListedFile, ...]]:
        """List the files of groups that list_selected() gave, the keeper first."""
        with self._lock:
            members = self._cache.get_members([group.number for group in groups])
        return [tuple(map(_make_listed_file, members.get(group.number, ()))) for group in groups]

    def _find(self, group_id: str) -> FoundGroup:
        found = None
        if len(group_id) == ID_DIGITS and group_id.isascii():
            found = self._cache.find_group(group_id)
        if found is None:
            raise UnknownGroup(f"there is no group {quote(group_id[:ID_DIGITS])} in the listing")
        return found

    def _load(self, found: Sequence[FoundGroup]) -> list[ListedGroup]:
        numbers = [group.number for group in found]
        documents, members = self._cache.get_documents(numbers), self._cache.get_members(numbers)
        return [
            ListedGroup(
                group.id,
                -group.rank,
                json.loads(documents[group.number]),
                tuple(map(_make_listed_file, members[group.number])),
                ReviewState(group.state) if group.state else None,
                group.author,
                datetime.fromisoformat(group.time) if group.time else None,
            )
            for group in found
            if group.number in documents  # a damaged cache can lack it
        ]

    # --- after a choice ---

    def regroup(
        self, store: Store, pixel_hashes: Collection[bytes], change: Callable[[], None]
    ) -> list[Group]:
        """Run `change`, which changes decisions of `store`, and form the groups of images again.

        The groups, and those of all images that edges connect with these, take the place of the
        listed ones. If nothing else has changed, the listing stays that of the present store.
        Returns those of the groups that hold any of the images.
        """
        with self._lock:
            current = self._cache.get_current()
            build = current[0] if current else 0
            groups, images = regroup(self._cache, build, store, pixel_hashes, change)
            if self._changed_images is not None:
                self._changed_images |= images
        return groups

    def form_groups(self, store: Store, found: Sequence[FoundGroup]) -> list[Group]:
        """Form listed groups again, by what the store and the disk say now, with those beside them.

        What an ingest has added since the listing was built is not in them.
        """
        with self._lock:
            current = self._cache.get_current()
            if current is None:
                return []
            members = self._cache.get_members([group.number for group in found])
            images = {file.pixel_hash for files in members.values() for file in files}
            components = load_components(self._cache, current[0], store, images)
        return group_components(store, components, GROUP_OPTIONS)


def _make_listed_file(member: MemberRow) -> ListedFile:
    return ListedFile(os.fsdecode(member.path), member.hash, member.pixel_hash)
