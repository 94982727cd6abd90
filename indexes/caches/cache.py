"""Databases of what can be worked out again from photos. Nothing depends on them: whatever is wrong with what is kept there, they begin
anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

CACHE_FOLDER = "caches"
MAX_SQL_PARAMETERS = 500


class CacheDatabase:
    """One such database of a store, used by one thread at a time. Where it cannot be read, nothing is there; where it cannot be written,
    nothing is kept.
    """

    def __init__(self, folder: Path, name: str, tables: Sequence[str], *, write: bool) -> None:
        """Open `folder`/caches/`name`; with `write`, create it with `tables` if it is missing or holds other tables."""
        self._path, self._tables, self._can_write = folder / CACHE_FOLDER / name, tables, write
        self._db = self._open()

    def __enter__(self) -> Self:
        """As it is."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _open(self) -> sqlite3.Connection | None:
        if self._can_write:
            with suppress(OSError):
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
        for _ in range(2):
            db = None
            try:
                mode = "rwc" if self._can_write else "ro"
                db = sqlite3.connect(
                    f"file:{quote(os.fsencode(self._path))}?mode={mode}",
                    uri=True,
                    isolation_level=None,
                    timeout=10.0,
                )
                if self._can_write:
                    db.execute("PRAGMA journal_mode = WAL")
                    db.execute("PRAGMA synchronous = OFF")  # what a power cut costs is made again
                found = _read_columns(db)
                if not found and self._can_write:
                    for sql in self._tables:
                        db.execute(sql)
                elif found != self._expected_columns():
                    raise sqlite3.DatabaseError(
                        f"it has the tables of another version: {sorted(found)}"
                    )
                return db
            except sqlite3.Error as error:
                if db:
                    db.close()
                if not self._can_write or not _is_corrupt(error):
                    return None
                self._delete_files()
        return None

    def _expected_columns(self) -> dict[str, list[tuple[Any, ...]]]:
        with closing(sqlite3.connect(":memory:")) as db:
            for sql in self._tables:
                db.execute(sql)
            return _read_columns(db)

    def _delete_files(self) -> None:
        delete_database(self._path)

    def close(self) -> None:
        """Let go of the file."""
        if self._db:
            self._db.close()

    def _stream_rows(self, sql: str, *values: Any) -> Iterator[Any]:
        """Rows of a question; none where it cannot be asked, or from where on it cannot be answered."""
        if self._db:
            with suppress(sqlite3.Error):
                yield from self._db.execute(sql, values)

    def _stream_rows_in(self, sql: str, values: Iterable[Any]) -> Iterator[Any]:
        """Rows of a question with `({})`, where any of many values may stand."""
        wanted = list(values)
        for start in range(0, len(wanted), MAX_SQL_PARAMETERS):
            some = wanted[start : start + MAX_SQL_PARAMETERS]
            yield from self._stream_rows(sql.format(",".join("?" * len(some))), *some)

    def _write(self, *steps: tuple[str, Iterable[Sequence[Any]]]) -> None:
        """All of these together, or nothing."""
        if not self._db:
            return
        try:
            self._db.execute("BEGIN")
            for sql, rows in steps:
                self._db.executemany(sql, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if _is_corrupt(error):
                self._db.close()
                self._delete_files()
                self._db = self._open()

    def _keep_only(self, table: str, hashes: Iterable[bytes]) -> None:
        """Drop the rows of all hashes but these."""
        if self._db:
            with suppress(sqlite3.Error):
                self._db.execute("DROP TABLE IF EXISTS temp.kept")
                self._db.execute("CREATE TEMP TABLE kept (hash BLOB PRIMARY KEY)")
                self._db.executemany(
                    "INSERT OR IGNORE INTO kept VALUES (?)", ((hash_,) for hash_ in hashes)
                )
                self._db.execute(f"DELETE FROM {table} WHERE hash NOT IN (SELECT hash FROM kept)")
                self._db.execute("DROP TABLE temp.kept")


def _read_columns(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """The columns of each table, as SQLite describes them."""
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: list(db.execute("SELECT * FROM pragma_table_info(?)", (name,))) for name in tables
    }


def delete_database(path: Path) -> None:
    """Delete a SQLite database with its log, where they exist."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _is_corrupt(error: sqlite3.Error) -> bool:
    """Whether a database is damaged, or another: not where it is only busy, or cannot be reached now."""
    code = getattr(
        error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT
    )  # an error of our own has none
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
