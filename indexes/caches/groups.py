"""The cache of the groups of one state of a store, to page through, search and filter.

Rows belong to a build. A process that makes a new build writes it beside the current one, a few
groups at a time, so that others can write meanwhile; adopt() makes it the current one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from indexes.caches.cache import CacheDatabase, delete_database
from indexes.caches.group_rows import (
    TABLES,
    ComponentRow,
    Condition,
    FoundGroup,
    GroupRow,
    MemberRow,
)
from indexes.durable.sqlite import OpenMode, format_uri, is_corrupt, is_disk_full
from indexes.errors import DiskFull, StoreError

HASH_BYTES = 32
NEXT_GROUPS = 2000  # among which a page is sought at first
MAX_ROWS_DELETED = 2000  # in one transaction, so that no other writer waits long
# The states of a store that nothing was reviewed in; the form is that of indexes.review.
NO_STATES = (
    "CREATE TABLE review.states (group_id TEXT PRIMARY KEY, keeper BLOB, version BLOB, path BLOB,"
    " state TEXT, author TEXT, time TEXT)"
)
# A state holds for its group only while the keeper is the same and, if it names a version, the
# files are; that of a separated group is no state of one that is listed again.
IS_CHOSEN = (
    "chosen.group_id = groups.id AND chosen.keeper = groups.keeper AND chosen.state != 'separated'"
    " AND (chosen.version = x'' OR chosen.version = groups.version)"
)
OF_CURRENT = "FROM groups WHERE groups.build = (SELECT build FROM current)"
FROM_GROUPS = (
    f"FROM groups LEFT JOIN review.states AS chosen ON {IS_CHOSEN}"
    " WHERE groups.build = (SELECT build FROM current)"
)
ORDER = "ORDER BY groups.rank, groups.path"
REVERSE_ORDER = "ORDER BY groups.rank DESC, groups.path DESC"
GROUP_COLUMNS = (
    "groups.number, groups.id, groups.rank, groups.path, groups.keeper, groups.version,"
    " chosen.state, chosen.author, chosen.time"
)


class GroupCache(CacheDatabase):
    """The groups of one store. Can be used from several threads, one at a time.

    As any cache it is empty if it cannot be read; the methods that write raise DiskFull and
    StoreError, for what is shown depends on them.
    """

    _check_same_thread = False

    def __init__(self, folder: Path, *, write: bool, review: Path | None = None) -> None:
        """Open the cache of the store in `folder`; `review` is the database of what was chosen."""
        self._review = review
        super().__init__(folder, "groups.db", TABLES, write=write)

    def _connect(self) -> sqlite3.Connection:
        db = super()._connect()
        try:
            self._attach_review(db)
        except BaseException:
            db.close()
            raise
        return db

    def _attach_review(self, db: sqlite3.Connection) -> None:
        if self._review is None or not self._review.exists():
            db.execute("ATTACH ':memory:' AS review")
            db.execute(NO_STATES)
            return
        # Without write access to the folder, SQLite has no shared memory there.
        is_writable = os.access(self._review.parent, os.W_OK)
        mode = OpenMode.READ_ONLY if is_writable else OpenMode.IMMUTABLE
        db.execute("ATTACH ? AS review", (format_uri(self._review, mode),))

    def attach_review_again(self) -> None:
        """Read what was chosen from the database of it, which did not exist at first."""
        if self._db:
            self._db.execute("DETACH review")
            self._attach_review(self._db)

    # --- reading ---

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything in the block from one commit."""
        if self._db:
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    def get_current(self) -> tuple[int, str] | None:
        """Return the number of the current build and the state it is of; None without one."""
        return next(self._stream_rows("SELECT build, state FROM current"), None)

    def stream_groups(
        self,
        conditions: Sequence[Condition] = (),
        *,
        after: tuple[int, bytes] | None = None,
        before: tuple[int, bytes] | None = None,
    ) -> Iterator[FoundGroup]:
        """Yield the groups of the current build that fulfil all conditions.

        They are in their order from the rank and path `after` on, that itself left out; or in the
        reverse order from `before` back.
        """
        place, values = _make_place(after, before)
        where, more_values = _join(conditions)
        order = ORDER if before is None else REVERSE_ORDER
        sql = f"SELECT {GROUP_COLUMNS} {FROM_GROUPS}{place}{where} {order}"
        return map(FoundGroup._make, self._stream_rows(sql, *values, *more_values))

    def find_groups(
        self,
        conditions: Sequence[Condition],
        limit: int,
        *,
        after: tuple[int, bytes] | None = None,
        before: tuple[int, bytes] | None = None,
    ) -> list[FoundGroup]:
        """Return the first `limit` groups of stream_groups().

        Many groups fulfil most conditions, so the next NEXT_GROUPS are asked alone at first.
        """
        if any(condition.sql_of_few for condition in conditions):
            place, values = _make_place(after, before)
            order = ORDER if before is None else REVERSE_ORDER
            of_few = [condition.sql_of_few or condition.sql for condition in conditions]
            where = "".join(f" AND {sql}" for sql in of_few)
            sql = (
                f"SELECT {GROUP_COLUMNS} FROM (SELECT * {OF_CURRENT}{place} {order}"
                f" LIMIT {NEXT_GROUPS}) AS groups LEFT JOIN review.states AS chosen"
                f" ON {IS_CHOSEN} WHERE true{where} {order} LIMIT ?"
            )
            more_values = [value for condition in conditions for value in condition.values]
            rows = list(self._stream_rows(sql, *values, *more_values, limit))
            if len(rows) == limit:
                return list(map(FoundGroup._make, rows))
        return list(islice(self.stream_groups(conditions, after=after, before=before), limit))

    def find_group(self, id_: str) -> FoundGroup | None:
        """Find a group of the current build by its id; None if there is none."""
        sql = f"SELECT {GROUP_COLUMNS} {FROM_GROUPS} AND groups.id = ?"
        row = next(self._stream_rows(sql, id_), None)
        return FoundGroup(*row) if row else None

    def count(self, conditions: Sequence[Condition] = ()) -> tuple[int, int]:
        """Return the number of groups that fulfil all conditions, and their bytes to free."""
        where, values = _join(conditions)
        # Without what was chosen, if no condition asks for it, this reads an index alone.
        source = FROM_GROUPS if "chosen" in where else OF_CURRENT
        sql = f"SELECT count(*), -ifnull(sum(groups.rank), 0) {source}{where}"
        return next(self._stream_rows(sql, *values), (0, 0))

    def count_chosen(self) -> int:
        """Count the groups of the current build that something was chosen for."""
        sql = (
            f"SELECT count(*) FROM review.states AS chosen CROSS JOIN groups ON {IS_CHOSEN}"
            " WHERE groups.build = (SELECT build FROM current)"
        )
        return int(next(self._stream_rows(sql), (0,))[0])

    def count_separated(self) -> int:
        """Count the groups that were separated and are not listed again."""
        sql = (
            "SELECT count(*) FROM review.states WHERE state = 'separated' AND group_id NOT IN"
            " (SELECT id FROM groups WHERE build = (SELECT build FROM current))"
        )
        return int(next(self._stream_rows(sql), (0,))[0])

    def get_documents(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the JSON of groups by their numbers."""
        sql = "SELECT number, document FROM documents WHERE number IN ({})"
        return dict(self._stream_rows_in(sql, numbers))

    def get_members(self, numbers: Iterable[int]) -> dict[int, list[MemberRow]]:
        """Return the files of groups by their numbers, each with the keeper first."""
        sql = (
            "SELECT number, path, name, hash, pixel_hash FROM members WHERE number IN ({})"
            " ORDER BY number, position"
        )
        found = dict[int, list[MemberRow]]()
        for number, *member in self._stream_rows_in(sql, numbers):
            found.setdefault(number, []).append(MemberRow(*member))
        return found

    def find_member(self, image_hash: bytes) -> MemberRow | None:
        """Find a listed file that has these bytes, by their hash."""
        sql = (
            "SELECT path, name, hash, pixel_hash FROM members"
            " WHERE hash = ? AND build = (SELECT build FROM current) LIMIT 1"
        )
        row = next(self._stream_rows(sql, image_hash), None)
        return MemberRow(*row) if row else None

    def find_components(self, build: int, pixel_hashes: Iterable[bytes]) -> list[ComponentRow]:
        """Return the components of a build that hold any of these images."""
        sql = (
            "SELECT number, images, links FROM components WHERE number IN (SELECT component"
            f" FROM component_images WHERE build = {build:d} AND pixel_hash IN ({{}}))"
        )
        found = dict[int, ComponentRow]()
        for number, images, links in self._stream_rows_in(sql, pixel_hashes):
            starts = range(0, len(images), HASH_BYTES)
            hashes = [images[start : start + HASH_BYTES] for start in starts]
            found[number] = ComponentRow(hashes, links)
        return list(found.values())

    # --- writing ---

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing. Raises DiskFull, and StoreError if the cache cannot be written.

        A damaged cache is empty afterwards.
        """
        if not self._db:
            raise StoreError(f"{self._path} cannot be written; check the folder's permissions")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if is_corrupt(error):
                self.close()
                delete_database(self._path)
                self._db = self._open()
            kind = DiskFull if is_disk_full(error) else StoreError
            raise kind(f"{self._path} cannot be written: {error}") from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db and self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def begin_build(self) -> int:
        """Delete all builds but the current one; returns the number of a new one."""
        current = self.get_current()
        build = current[0] if current else 0
        for table, key in (("groups", "number"), ("components", "number")):
            self._delete_other_builds(table, key, build)
        with self._transaction() as db:
            db.execute("DELETE FROM component_images WHERE build != ?", (build,))
        return build + 1

    def _delete_other_builds(self, table: str, key: str, build: int) -> None:
        sql = f"SELECT {key} FROM {table} WHERE build != ? LIMIT {MAX_ROWS_DELETED}"
        while numbers := list(self._stream_rows(sql, build)):
            with self._transaction() as db:
                for owned in ("groups", "documents", "members") if table == "groups" else (table,):
                    db.executemany(f"DELETE FROM {owned} WHERE number = ?", numbers)

    def put_groups(self, build: int, groups: Sequence[GroupRow]) -> None:
        """Add groups to a build."""
        with self._transaction() as db:
            _insert_groups(db, build, groups)

    def put_components(self, build: int, components: Sequence[ComponentRow]) -> None:
        """Add components to a build."""
        with self._transaction() as db:
            for images, links in components:
                number = db.execute(
                    "INSERT INTO components (build, images, links) VALUES (?, ?, ?)",
                    (build, b"".join(images), links),
                ).lastrowid
                db.executemany(
                    "INSERT OR REPLACE INTO component_images VALUES (?, ?, ?)",
                    ((build, image, number) for image in images),
                )

    def adopt(self, build: int, state: str) -> None:
        """Make a build the current one, of this state of the store."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO current VALUES (1, ?, ?)", (build, state))

    def replace_groups(
        self,
        build: int,
        pixel_hashes: Iterable[bytes],
        groups: Sequence[GroupRow],
        states: tuple[str, str] | None = None,
    ) -> None:
        """Replace the groups of a build that hold any of these images.

        A build of the first of two `states` of the store is one of the second from now on.
        """
        with self._transaction() as db:
            numbers = {
                row
                for hash_ in pixel_hashes
                for row in db.execute(
                    "SELECT number FROM members WHERE build = ? AND pixel_hash = ?", (build, hash_)
                )
            }
            for table in ("groups", "documents", "members"):
                db.executemany(f"DELETE FROM {table} WHERE number = ?", numbers)
            _insert_groups(db, build, groups)
            if states is not None:
                before, after = states
                db.execute(
                    "UPDATE current SET state = ? WHERE build = ? AND state = ?",
                    (after, build, before),
                )


def _make_place(
    after: tuple[int, bytes] | None, before: tuple[int, bytes] | None
) -> tuple[str, list[Any]]:
    """Return the SQL, with its values, of groups after a place or before one."""
    place, sign = (after, ">") if before is None else (before, "<")
    return (
        ("", []) if place is None else (f" AND (groups.rank, groups.path) {sign} (?, ?)", [*place])
    )


def _join(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """Join conditions to SQL that follows another one, with the values of all."""
    sql = "".join(f" AND {condition.sql}" for condition in conditions)
    return sql, [value for condition in conditions for value in condition.values]


def _insert_groups(db: sqlite3.Connection, build: int, groups: Sequence[GroupRow]) -> None:
    for group in groups:
        id_, bytes_to_free, *columns, document, members = group
        number = db.execute(
            "INSERT INTO groups (build, id, rank, path, keeper, version, relations, newest,"
            " confidence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (build, id_, -bytes_to_free, *columns),
        ).lastrowid
        db.execute("INSERT INTO documents VALUES (?, ?)", (number, document))
        db.executemany(
            "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((number, position, build, *member) for position, member in enumerate(members)),
        )
