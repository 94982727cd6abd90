"""The groups of a store as a person pages through them: sorted, filtered, with their choices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from indexes.review import ReviewState
from pipeline.review.filters import NO_FILTER, GroupFilter

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
    """How many groups of all have a choice; separated ones, listed no more, count in both."""

    reviewed: int
    groups: int


class Listing:
    """The groups of the store in a folder; can be used from any thread.

    It is a cache with its own file: refresh() fills it, and until then it has no group. The order
    is most bytes to free first, then the path of the keeper.
    """

    def __init__(self, folder: Path) -> None:
        """Open the listing of the store in `folder`; close() it. Nothing is built yet."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Return the listing itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the listing."""
        self.close()

    def close(self) -> None:
        """Close the files, and end a build that runs."""
        raise NotImplementedError

    @property
    def is_built(self) -> bool:
        """True once there is a listing, perhaps an older one; False while the first one is made."""
        raise NotImplementedError

    def is_stale(self) -> bool:
        """Tell if the store changed since the listing was made; ingest, decisions or settings."""
        raise NotImplementedError

    def refresh(self, *, force: bool = False) -> bool:
        """Build the listing anew if it is stale, in a child process; returns whether it was built.

        Call it in a thread of its own: it takes as long as `neardup groups`. The old listing is
        served until the new one takes its place in one transaction. A second call at the same time
        waits for the first. Raises ReviewFailed if the child ended without an answer.
        """
        raise NotImplementedError

    def count(self, group_filter: GroupFilter = NO_FILTER) -> Count:
        """Count the groups of a filter, and their bytes to free."""
        raise NotImplementedError

    def page(
        self, group_filter: GroupFilter = NO_FILTER, cursor: str | None = None, limit: int = 50
    ) -> GroupPage:
        """Return up to `limit` groups after `cursor`, or the first ones.

        Raises InvalidFilter for a cursor that page() did not make, and for a limit that is not
        from 1 to MAX_PAGE_GROUPS. A cursor holds for another filter too, and after changes.
        """
        raise NotImplementedError

    def get(self, group_id: str) -> ListedGroup:
        """Get a group by its id. Raises UnknownGroup for one that is not listed, or no id."""
        raise NotImplementedError

    def find_neighbors(self, group_id: str, group_filter: GroupFilter = NO_FILTER) -> Neighbors:
        """Find the groups before and after a group, which itself need not pass the filter.

        Raises UnknownGroup.
        """
        raise NotImplementedError

    def find_file(self, image_hash: bytes) -> ListedFile | None:
        """Find a listed file with these bytes, by their blake3; None if there is none."""
        raise NotImplementedError

    def count_progress(self) -> Progress:
        """Count the groups that have a choice, and all groups."""
        raise NotImplementedError
