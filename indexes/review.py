"""Choices of a person for the groups of a store, in a database beside the catalog.

It is no cache: nothing but this file knows what was accepted or skipped. Decisions are in the
catalog. A choice enters these first, so one that is cut off leaves decisions without a state.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from indexes.durable.sqlite import OpenMode, connect, is_disk_full
from indexes.errors import DiskFull, StoreDamaged, StoreError, StoreVersionMismatch
from indexes.paths import REVIEW_NAME

APPLICATION_ID = 0x6E647276  # "ndrv", by which neardup and `file` recognise the database
FORMAT_VERSION = 1
BUSY_TIMEOUT_SECONDS = 10.0  # how long a statement waits for another process that writes
MAX_ACTIONS = 1000  # that can be undone; earlier ones are forgotten
HASH_BYTES = 32
TABLES = (
    # `version` is empty where the state holds for any files with this keeper.
    "CREATE TABLE states (group_id TEXT PRIMARY KEY, keeper BLOB NOT NULL, version BLOB NOT NULL,"
    " path BLOB NOT NULL, state TEXT NOT NULL, author TEXT NOT NULL, time TEXT NOT NULL)"
    " STRICT, WITHOUT ROWID",
    "CREATE TABLE actions (number INTEGER PRIMARY KEY AUTOINCREMENT, choice TEXT NOT NULL,"
    " author TEXT NOT NULL, time TEXT NOT NULL, decisions TEXT NOT NULL, replaced TEXT NOT NULL,"
    " images BLOB NOT NULL) STRICT",
    "CREATE TABLE changes (action INTEGER NOT NULL REFERENCES actions (number) ON DELETE CASCADE,"
    " group_id TEXT NOT NULL, keeper BLOB, version BLOB, path BLOB, state TEXT, author TEXT,"
    " time TEXT, PRIMARY KEY (action, group_id)) STRICT, WITHOUT ROWID",
    "CREATE TABLE place (one INTEGER PRIMARY KEY CHECK (one = 1), group_id TEXT,"
    " filter TEXT NOT NULL) STRICT",
)


class ReviewState(StrEnum):
    """A choice that stands for a group. The values are stored, and printed unchanged."""

    ACCEPTED = "accepted"  # all but the keeper may go
    KEPT_ALL = "kept all"
    SEPARATED = "separated"  # decided not to be duplicates
    REJECTED = "rejected"  # a photo of it was thrown away
    SKIPPED = "skipped"


class GroupState(NamedTuple):
    """The state of a group; `keeper` and `path` are the hash and the path of its keeper.

    With a `version` it holds only for a group of that one; empty: for any with this keeper.
    """

    group_id: str
    keeper: bytes
    version: bytes
    path: bytes
    state: ReviewState
    author: str
    time: str  # UTC, ISO 8601


@dataclass(frozen=True, slots=True)
class Action:
    """The record of a choice, to take it back.

    `decision_ids` are the decisions that it entered, `replaced` the lines of those that gave way.
    `images` are the pixel hashes of the files that it concerned.
    """

    number: int
    choice: str
    decision_ids: tuple[str, ...]
    replaced: tuple[str, ...]
    images: tuple[bytes, ...]


class ReviewDatabase:
    """The states of the groups of one store, and the actions that led to them, newest last.

    Can be used from several threads, one at a time. All methods raise DiskFull, StoreDamaged for
    a file that is not what was written, and StoreError for one that cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        """Open or create the database in the folder of a store."""
        self.path = folder / REVIEW_NAME
        with self._translate_errors():
            self._db = connect(
                self.path, OpenMode.READ_WRITE_CREATE, BUSY_TIMEOUT_SECONDS, check_same_thread=False
            )
        try:
            with self._translate_errors():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                for sql in TABLES:
                    self._db.execute(sql)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            elif application != APPLICATION_ID or version != FORMAT_VERSION:
                raise StoreVersionMismatch(
                    f"{self.path} has format {version}, this neardup reads {FORMAT_VERSION};"
                    " upgrade neardup, or move the file away to review from the start"
                )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn SQLite's errors into store errors."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a bug in neardup
        except sqlite3.Error as error:
            if is_disk_full(error):
                raise DiskFull(
                    f"no room to write {self.path} ({error}); free some space, nothing is lost"
                ) from error
            if isinstance(error, sqlite3.OperationalError):
                raise StoreError(
                    f"{self.path} cannot be used ({error}); check the folder's permissions and who"
                    " else has it open"
                ) from error
            raise StoreDamaged(
                f"{self.path} is damaged ({error}); restore it from a backup, or move it away to"
                " review from the start: decisions are kept"
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    # --- states ---

    def list_states(self, state: ReviewState) -> list[GroupState]:
        """Return the states of this kind, by group id; some groups are perhaps gone."""
        with self._translate_errors():
            rows = self._db.execute(
                "SELECT * FROM states WHERE state = ? ORDER BY group_id", (state,)
            ).fetchall()
        return [_make_state(row) for row in rows]

    def put(
        self,
        choice: str,
        author: str,
        states: Iterable[GroupState],
        *,
        decision_ids: Sequence[str] = (),
        replaced: Sequence[str] = (),
        images: Iterable[bytes] = (),
    ) -> int:
        """Save an action with the states that it gave to groups; returns its number."""
        now = format_now()
        with self._translate_errors(), self._transaction():
            number = self._db.execute(
                "INSERT INTO actions (choice, author, time, decisions, replaced, images)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    choice,
                    author,
                    now,
                    json.dumps(list(decision_ids)),
                    json.dumps(list(replaced)),
                    b"".join(images),
                ),
            ).lastrowid
            assert number is not None
            states = list(states)
            self._db.executemany(
                "INSERT INTO changes SELECT ?1, ?2, keeper, version, path, state, author, time"
                " FROM (SELECT 1) LEFT JOIN states ON group_id = ?2",
                ((number, state.group_id) for state in states),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?)", states
            )
            self._db.execute("DELETE FROM actions WHERE number <= ?", (number - MAX_ACTIONS,))
        return number

    # --- undo ---

    def get_last_action(self) -> Action | None:
        """Return the newest action that was not taken back; None if there is none."""
        with self._translate_errors():
            row = self._db.execute(
                "SELECT number, choice, decisions, replaced, images FROM actions"
                " ORDER BY number DESC LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            number, choice, decisions, replaced, images = row
            starts = range(0, len(images), HASH_BYTES)
            hashes = tuple(images[start : start + HASH_BYTES] for start in starts)
            decision_ids, lines = tuple(json.loads(decisions)), tuple(json.loads(replaced))
            return Action(number, choice, decision_ids, lines, hashes)

    def list_changed_groups(self, action: int) -> list[str]:
        """Return the ids of the groups that an action gave a state to."""
        with self._translate_errors():
            sql = "SELECT group_id FROM changes WHERE action = ? ORDER BY group_id"
            return [id_ for (id_,) in self._db.execute(sql, (action,))]

    def take_back(self, action: int) -> None:
        """Give the groups of an action their states of before, and forget it.

        Nothing is done if it was taken back already.
        """
        with self._translate_errors(), self._transaction():
            self._db.execute(
                "DELETE FROM states WHERE group_id IN"
                " (SELECT group_id FROM changes WHERE action = ?)",
                (action,),
            )
            self._db.execute(
                "INSERT INTO states SELECT group_id, keeper, version, path, state, author, time"
                " FROM changes WHERE action = ? AND state IS NOT NULL",
                (action,),
            )
            self._db.execute("DELETE FROM actions WHERE number = ?", (action,))

    # --- place ---

    def get_place(self) -> tuple[str | None, str]:
        """Return the group and the filter, as JSON, that were saved last."""
        with self._translate_errors():
            row = self._db.execute("SELECT group_id, filter FROM place").fetchone()
        return row if row else (None, "{}")

    def put_place(self, group_id: str | None, group_filter: str) -> None:
        """Save a group and a filter, as JSON."""
        with self._translate_errors(), self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO place VALUES (1, ?, ?)", (group_id, group_filter)
            )


def format_now() -> str:
    """Format the present time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _make_state(row: tuple[str, bytes, bytes, bytes, str, str, str]) -> GroupState:
    group_id, keeper, version, path, state, author, time = row
    return GroupState(group_id, keeper, version, path, ReviewState(state), author, time)
