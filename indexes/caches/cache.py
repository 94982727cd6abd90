"""SQLite caches of data that can be computed again from the files.

No answer depends on a cache: whatever is wrong with one, it is deleted and filled again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

from indexes.durable.sqlite import OpenMode, connect, is_corrupt, split_values
from indexes.paths import CACHES_NAME, SHARED_MEMORY_SUFFIX, WAL_SUFFIX

CACHE_BUSY_TIMEOUT_SECONDS = 10.0  # how long a statement waits for another process that writes

Columns = dict[str, list[tuple[Any, ...]]]  # of each table, as SQLite describes them


class CacheDatabase:
    """One cache of a store, used by one thread at a time.

    A cache that cannot be read is empty, and one that cannot be written keeps nothing; neither is
    an error.
    """

    _check_same_thread = True  # False where a subclass has its threads wait for each other

    def __init__(self, folder: Path, name: str, tables: Sequence[str], *, write: bool) -> None:
        """Open the cache `name` of the store in `folder`.

        With `write`, create it by the SQL of `tables` if it is missing, damaged or has other
        tables.
        """
        self._path = folder / CACHES_NAME / name
        self._tables = tables
        self._can_write = write
        self._db = self._open()

    def __enter__(self) -> Self:
        """Return the cache itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the cache."""
        self.close()

    def _open(self) -> sqlite3.Connection | None:
        if self._can_write:
            with suppress(OSError):
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            return self._connect()
        except sqlite3.Error as error:
            if not self._can_write or not is_corrupt(error):
                return None
        delete_database(self._path)
        with suppress(sqlite3.Error):
            return self._connect()
        return None

    def _connect(self) -> sqlite3.Connection:
        mode = OpenMode.READ_WRITE_CREATE if self._can_write else OpenMode.READ_ONLY
        db = connect(
            self._path,
            mode,
            CACHE_BUSY_TIMEOUT_SECONDS,
            check_same_thread=self._check_same_thread,
        )
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Create the tables in a new file. Raises sqlite3.DatabaseError for other tables."""
        if self._can_write:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; before anything else
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")  # what a power cut costs is computed again
        columns = _read_columns(db)
        if not columns and self._can_write:
            for sql in self._tables:
                db.execute(sql)
        elif columns != self._build_expected_columns():
            raise sqlite3.DatabaseError(f"the tables of another version: {sorted(columns)}")

    def _build_expected_columns(self) -> Columns:
        with closing(sqlite3.connect(":memory:")) as db:
            for sql in self._tables:
                db.execute(sql)
            return _read_columns(db)

    def close(self) -> None:
        """Close the file. From then on the cache is empty."""
        if self._db:
            self._db.close()
            self._db = None

    def _stream_rows(self, sql: str, *values: Any) -> Iterator[Any]:
        """Yield the rows of a query, up to the first that cannot be read."""
        if self._db:
            with suppress(sqlite3.Error):
                yield from self._db.execute(sql, values)

    def _stream_rows_in(self, sql: str, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the rows of a query whose `({})` stands for a list of any number of values."""
        for statement, chunk in split_values(sql, values):
            yield from self._stream_rows(statement, *chunk)

    def _write(self, *statements: tuple[str, Iterable[Sequence[Any]]]) -> None:
        """Run statements, each for all of its rows, in one transaction; all of them or none."""
        if not self._db:
            return
        try:
            self._db.execute("BEGIN")
            for sql, rows in statements:
                self._db.executemany(sql, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if is_corrupt(error):
                self.close()
                delete_database(self._path)
                self._db = self._open()

    def _keep_only(self, table: str, hashes: Iterable[bytes]) -> None:
        """Delete the rows of `table` whose hash is not among `hashes`."""
        if not self._db:
            return
        with suppress(sqlite3.Error):
            self._db.execute("DROP TABLE IF EXISTS temp.kept")
            self._db.execute("CREATE TEMP TABLE kept (hash BLOB PRIMARY KEY)")
            self._db.executemany(
                "INSERT OR IGNORE INTO kept VALUES (?)", ((hash_,) for hash_ in hashes)
            )
            self._db.execute(f"DELETE FROM {table} WHERE hash NOT IN (SELECT hash FROM kept)")
            self._db.execute("DROP TABLE temp.kept")
            self._return_free_pages()

    def _return_free_pages(self) -> None:
        """Shrink the file by the pages of deleted rows, which SQLite would only use again."""
        if self._db:
            with suppress(sqlite3.Error):
                # execute() would stop after the first page.
                self._db.executescript("PRAGMA incremental_vacuum")


def _read_columns(db: sqlite3.Connection) -> Columns:
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: list(db.execute("SELECT * FROM pragma_table_info(?)", (name,))) for name in tables
    }


def delete_database(path: Path) -> None:
    """Delete a SQLite file with its WAL and the index of that, as far as they exist."""
    for suffix in ("", WAL_SUFFIX, SHARED_MEMORY_SUFFIX):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
