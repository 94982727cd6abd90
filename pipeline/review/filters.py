"""Filters of groups: as a browser sends them, checked, and as conditions of the cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, TypeVar

from indexes.caches.group_rows import Condition
from indexes.paths import quote
from pipeline.errors import InvalidFilter
from pipeline.verify.relation import REPORTED_RELATIONS, Relation

MAX_TEXT_CHARS = 1000  # of a folder or a searched name
MAX_BYTES = 1 << 62  # SQLite has no larger integers

Value = TypeVar("Value")


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
        relations = ",".join(item for item in REPORTED_RELATIONS if item in self.relations)
        values = {
            "relations": relations or None,
            "folder": self.folder,
            "min_bytes": self.min_bytes,
            "first_day": self.first_day,
            "last_day": self.last_day,
            "min_confidence": self.min_confidence,
            "undecided": "1" if self.is_undecided else None,
            "name": self.name,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def to_conditions(self) -> list[Condition]:
        """Return the conditions on rows of the cache that select the groups."""
        return list(self._iter_conditions())

    def _iter_conditions(self) -> Iterator[Condition]:
        of_current = "SELECT number FROM members WHERE build = (SELECT build FROM current)"
        of_group = "SELECT 1 FROM members WHERE members.number = groups.number"
        if self.relations:
            yield Condition("groups.relations & ?", [pack_relations(self.relations)])
        if self.folder is not None:
            first = os.fsencode(self.folder.rstrip("/") + "/")
            last = first[:-1] + b"0"  # the byte after "/"
            sql = f"groups.number IN ({of_current} AND path >= ? AND path < ?)"
            yield Condition(sql, [first, last], f"EXISTS ({of_group} AND path >= ? AND path < ?)")
        if self.min_bytes is not None:
            yield Condition("groups.rank <= ?", [-self.min_bytes])
        if self.first_day is not None:
            yield Condition("groups.newest >= ?", [_get_midnight(self.first_day)])
        if self.last_day is not None:
            end = _get_midnight(self.last_day) + int(timedelta(days=1).total_seconds())
            yield Condition("groups.newest < ?", [end])
        if self.min_confidence is not None:
            yield Condition("groups.confidence >= ?", [self.min_confidence])
        if self.is_undecided:
            yield Condition("chosen.state IS NULL")
        if self.name is not None:
            sql = f"groups.number IN ({of_current} AND instr(name, ?))"
            yield Condition(sql, [fold_name(self.name)], f"EXISTS ({of_group} AND instr(name, ?))")


NO_FILTER = GroupFilter()
FILTER_FIELDS = (
    "relations",
    "folder",
    "min_bytes",
    "first_day",
    "last_day",
    "min_confidence",
    "undecided",
    "name",
)


def pack_relations(relations: frozenset[Relation]) -> int:
    """Return an integer with a bit for each of the relations that an answer can show."""
    return sum(1 << bit for bit, item in enumerate(REPORTED_RELATIONS) if item in relations)


def fold_name(name: str) -> str:
    """Return the form in which names are searched: without case, and with any byte in it."""
    return name.casefold().encode("utf-8", "backslashreplace").decode()


def _get_midnight(day: date) -> int:
    """Return when a day begins, in seconds since 1970 by the clock of the camera."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def parse_filter(query: Mapping[str, Any], others: Collection[str] = ()) -> GroupFilter:
    """Parse the parameters of a URL, or the same fields of JSON, as texts.

    `relations` (names with commas between them), `folder`, `min_bytes`, `first_day`, `last_day`
    (YYYY-MM-DD), `min_confidence`, `undecided` (1 or 0), `name`. An empty text is no condition.
    Raises InvalidFilter, which names the parameter; also for one that is neither of these nor among
    `others`, because a filter with a typing error would select all groups.
    """
    if unknown := sorted(set(query) - set(FILTER_FIELDS) - set(others)):
        allowed = ", ".join(FILTER_FIELDS)
        raise InvalidFilter(f"there is no filter {quote(unknown[0])}; there are {allowed}")

    def parse(name: str, parser: Callable[[str], Value]) -> Value | None:
        text = query.get(name)
        if text is None or text == "":
            return None
        try:
            if not isinstance(text, str) or len(text) > MAX_TEXT_CHARS or "\0" in text:
                raise ValueError(f"no text of at most {MAX_TEXT_CHARS:,} characters")
            return parser(text)
        except (ValueError, OverflowError) as error:
            raise InvalidFilter(f"{name} is {error}") from error

    return GroupFilter(
        parse("relations", _parse_relations) or frozenset(),
        parse("folder", _parse_folder),
        parse("min_bytes", _parse_bytes),
        parse("first_day", _parse_day),
        parse("last_day", _parse_day),
        parse("min_confidence", _parse_share),
        parse("undecided", _parse_flag) or False,
        parse("name", _parse_name),
    )


def _parse_relations(text: str) -> frozenset[Relation]:
    names = [name.strip() for name in text.split(",")]
    if unknown := set(names) - set(REPORTED_RELATIONS):
        raise ValueError(f"no list of relations: {quote(min(unknown))} is none")
    return frozenset(map(Relation, names))


def _parse_folder(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("no absolute path")
    os.fsencode(text)  # raises UnicodeEncodeError, a ValueError, for what no path has
    return text


def _parse_bytes(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_BYTES:
        raise ValueError("no number of bytes")
    return int(text)


def _parse_day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ValueError("no day as YYYY-MM-DD") from error
    if day.isoformat() != text:
        raise ValueError("no day as YYYY-MM-DD")
    return day


def _parse_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError as error:
        raise ValueError("no number from 0 to 1") from error
    if not isfinite(share) or not 0 <= share <= 1:
        raise ValueError("no number from 0 to 1")
    return share


def _parse_flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("neither 0 nor 1")
    return text == "1"


def _parse_name(text: str) -> str:
    fold_name(text)
    return text
