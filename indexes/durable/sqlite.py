"""Open SQLite files, split long lists of values over statements, and classify SQLite's errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Values in one statement. SQLite allows far more; its planner takes longer and longer with them.
MAX_SQL_PARAMETERS = 500


class OpenMode(StrEnum):
    """The access that a connection asks for, as the query of SQLite's file URI."""

    READ_WRITE_CREATE = "mode=rwc"
    READ_ONLY = "mode=ro"
    IMMUTABLE = "mode=ro&immutable=1"  # no locks and no shared memory: the folder is not writable


def format_uri(path: Path, mode: OpenMode) -> str:
    """Return the file URI by which SQLite opens `path`; any bytes may be in the path."""
    return f"file:{quote(os.fsencode(path))}?{mode}"


def connect(
    path: Path, mode: OpenMode, timeout_seconds: float, *, check_same_thread: bool = True
) -> sqlite3.Connection:
    """Open the SQLite file at `path` in autocommit mode.

    A statement waits up to `timeout_seconds` for a lock of another connection. Raises
    sqlite3.Error.
    """
    return sqlite3.connect(
        format_uri(path, mode),
        uri=True,
        isolation_level=None,
        timeout=timeout_seconds,
        check_same_thread=check_same_thread,
    )


def split_values(sql: str, values: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield statements that together match any of `values`, each with its share of them.

    `sql` has `({})` where the values belong, and each statement gets at most MAX_SQL_PARAMETERS.
    """
    remaining = list(values)
    for start in range(0, len(remaining), MAX_SQL_PARAMETERS):
        chunk = remaining[start : start + MAX_SQL_PARAMETERS]
        yield sql.format(",".join("?" * len(chunk))), chunk


def is_disk_full(error: sqlite3.Error) -> bool:
    """Tell a full disk, or one that fails, from other errors."""
    codes = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return get_primary_code(error) in codes or "disk I/O" in str(error)


def is_corrupt(error: sqlite3.Error) -> bool:
    """Tell a file that is damaged, or no database, from one that is busy or out of reach.

    An error without a code counts as damage: Python raises it for text that is no UTF-8.
    """
    return get_primary_code(error) in (None, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def get_primary_code(error: sqlite3.Error) -> int | None:
    """Get SQLite's primary result code; None for an error that SQLite itself did not raise."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
