"""The tables of the cache of groups, and the rows that go in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

TABLES = (
    "CREATE TABLE current (one INTEGER PRIMARY KEY CHECK (one = 1), build INTEGER NOT NULL,"
    " state TEXT NOT NULL) STRICT",
    # `rank` is the negative number of bytes to free: the index then has the order of pages.
    "CREATE TABLE groups (number INTEGER PRIMARY KEY, build INTEGER NOT NULL, id TEXT NOT NULL,"
    " rank INTEGER NOT NULL, path BLOB NOT NULL, keeper BLOB NOT NULL, version BLOB NOT NULL,"
    " relations INTEGER NOT NULL, newest INTEGER, confidence REAL NOT NULL) STRICT",
    # With all that is compared with what was chosen, so that a scan of it reads no row.
    "CREATE INDEX groups_in_order ON groups (build, rank, path, id, keeper, version)",
    "CREATE UNIQUE INDEX groups_by_id ON groups (build, id)",
    "CREATE TABLE documents (number INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT",
    "CREATE TABLE members (number INTEGER NOT NULL, position INTEGER NOT NULL,"
    " build INTEGER NOT NULL, path BLOB NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL,"
    " pixel_hash BLOB NOT NULL, PRIMARY KEY (number, position)) STRICT, WITHOUT ROWID",
    "CREATE INDEX members_by_path ON members (build, path, number)",
    "CREATE INDEX members_by_name ON members (build, name, number)",
    "CREATE INDEX members_by_hash ON members (hash)",
    "CREATE INDEX members_by_pixel_hash ON members (build, pixel_hash)",
    "CREATE TABLE components (number INTEGER PRIMARY KEY, build INTEGER NOT NULL,"
    " images BLOB NOT NULL, links BLOB NOT NULL) STRICT",
    "CREATE INDEX components_by_build ON components (build)",
    "CREATE TABLE component_images (build INTEGER NOT NULL, pixel_hash BLOB NOT NULL,"
    " component INTEGER NOT NULL, PRIMARY KEY (build, pixel_hash)) STRICT, WITHOUT ROWID",
)


class MemberRow(NamedTuple):
    """A file of a group: its path as bytes, its name for the search, and the hashes of its image.

    The name is in the form that searched names have: see str.casefold().
    """

    path: bytes
    name: str
    hash: bytes
    pixel_hash: bytes


class GroupRow(NamedTuple):
    """A group for the cache: what it is sorted and filtered by, its JSON, and its files.

    `path` and `keeper` are the path of the keeper and the hash of its bytes. `version` changes with
    any path or relation. `relations` has a bit for each; `newest` is in seconds since 1970.
    """

    id: str
    bytes_to_free: int
    path: bytes
    keeper: bytes
    version: bytes
    relations: int
    newest: int | None
    confidence: float
    document: str
    members: Sequence[MemberRow]


class FoundGroup(NamedTuple):
    """A group of the current build, with what a person chose for it; None without a choice."""

    number: int
    id: str
    rank: int
    path: bytes
    keeper: bytes
    version: bytes
    state: str | None
    author: str | None
    time: str | None


class Condition(NamedTuple):
    """SQL on a row of `groups` and `chosen` that a group has to fulfil, with its values.

    `sql_of_few` asks the same of each group by itself, which is faster for a few groups.
    """

    sql: str
    values: Sequence[Any] = ()
    sql_of_few: str | None = None


class ComponentRow(NamedTuple):
    """Images that edges connect, as pixel hashes, and the encoded edges between them."""

    images: Sequence[bytes]
    links: bytes
