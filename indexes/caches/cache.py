"""Databases of what can be worked out again from photos. Nothing depends on them: whatever is wrong with what is kept there, they begin
anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

FOLDER = "thumbs"
CHUNK = 500


class Derived:
    """One such database of a store, used by one thread at a time. Where it cannot be read, nothing is there; where it cannot be written,
    nothing is kept.
    """

    def __init__(self, folder: Path, name: str, tables: Sequence[str], *, write: bool) -> None:
        """Open `folder`/thumbs/`name`; with `write`, make it, with these tables, where it is missing or is something else."""
        self._path, self._tables, self._writable = folder / FOLDER / name, tables, write
        self._db = self._opened()

    def __enter__(self) -> Self:
        """As it is."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _opened(self) -> sqlite3.Connection | None:
        if self._writable:
            with suppress(OSError):
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
        for _ in range(2):
            db = None
            try:
                mode = "rwc" if self._writable else "ro"
                db = sqlite3.connect(f"file:{quote(os.fsencode(self._path))}?mode={mode}", uri=True, isolation_level=None, timeout=10.0)
                if self._writable:
                    db.execute("PRAGMA journal_mode = WAL")
                    db.execute("PRAGMA synchronous = OFF")  # what a power cut costs is made again
                found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
                wanted = {sql.split()[2]: sql for sql in self._tables}
                if not found and self._writable:
                    for sql in self._tables:
                        db.execute(sql)
                elif found != wanted:
                    raise sqlite3.DatabaseError(f"it has the tables of another version: {sorted(found)}")
                return db
            except sqlite3.Error as error:
                if db:
                    db.close()
                if not self._writable or not _is_spoiled(error):
                    return None
                self._drop()
        return None

    def _drop(self) -> None:
        for end in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._db:
            self._db.close()

    def _rows(self, sql: str, *values: Any) -> Iterator[Any]:
        """Rows of a question; none where it cannot be asked, or from where on it cannot be answered."""
        if self._db:
            with suppress(sqlite3.Error):
                yield from self._db.execute(sql, values)

    def _rows_for(self, sql: str, values: Iterable[Any]) -> Iterator[Any]:
        """Rows of a question with `({})`, where any of many values may stand."""
        wanted = list(values)
        for start in range(0, len(wanted), CHUNK):
            some = wanted[start : start + CHUNK]
            yield from self._rows(sql.format(",".join("?" * len(some))), *some)

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
            if _is_spoiled(error):
                self._db.close()
                self._drop()
                self._db = self._opened()

    def _keep_only(self, table: str, hashes: Iterable[bytes]) -> None:
        """Drop the rows of all hashes but these."""
        if self._db:
            with suppress(sqlite3.Error):
                self._db.execute("DROP TABLE IF EXISTS temp.kept")
                self._db.execute("CREATE TEMP TABLE kept (hash BLOB PRIMARY KEY)")
                self._db.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((hash_,) for hash_ in hashes))
                self._db.execute(f"DELETE FROM {table} WHERE hash NOT IN (SELECT hash FROM kept)")
                self._db.execute("DROP TABLE temp.kept")


def _is_spoiled(error: sqlite3.Error) -> bool:
    """Whether a database is damaged, or another: not where it is only busy, or cannot be reached now."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # an error of our own has none
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
