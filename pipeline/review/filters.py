"""Which groups a page shows: filters as a browser sends them, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pipeline.verify.relation import Relation

MAX_TEXT_CHARS = 1000  # of a folder or a searched name


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """The groups that fulfil all that is given; without anything, all.

    `relations`: a member has one of these to its keeper. `folder`, an absolute path: a file lies
    below it. `min_bytes` (>=): bytes to free. `first_day` and `last_day`: the newest file was taken
    on these days or between them, by the camera's clock. `min_confidence` (>=, 0 to 1): the least
    probability of a copy among the members; hashes count as 1, and an unknown one as 0.
    `is_undecided`: only groups without a valid choice. `name`: a part of the name of a file, in
    upper or lower case.
    """

    relations: frozenset[Relation] = frozenset()
    folder: str | None = None
    min_bytes: int | None = None
    first_day: date | None = None
    last_day: date | None = None
    min_confidence: float | None = None
    is_undecided: bool = False
    name: str | None = None

    def to_query(self) -> dict[str, str]:
        """Return the parameters of a URL that parse_filter() reads; those that say nothing are left
        out.
        """
        raise NotImplementedError


NO_FILTER = GroupFilter()


def parse_filter(query: Mapping[str, Any]) -> GroupFilter:
    """Parse the parameters of a URL, or the same fields of JSON, as texts.

    `relations` (names with commas between them), `folder`, `min_bytes`, `first_day`, `last_day`
    (YYYY-MM-DD), `min_confidence`, `undecided` (1 or 0), `name`. An empty text is no condition.
    Other parameters are passed over. Raises InvalidFilter, which names the parameter.
    """
    raise NotImplementedError
