"""Adopt the thumbnails of stores of format 6 and older, so that photos are not read again.

Their crop vectors are computed again from these: they lack regions.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from indexes.paths import CACHES_NAME, FORMER_CACHES_NAME, VERIFYING_MARKER_NAME

FORMER_THUMBNAILS_NAME = "thumbs.db"
THUMBNAILS_NAME = "thumbnails.db"
TABLE_UPDATES = (
    "ALTER TABLE thumbs RENAME TO thumbnails",
    "ALTER TABLE thumbnails RENAME COLUMN picture TO jpeg",
    "ALTER TABLE thumbnails RENAME COLUMN sum TO checksum",
)


def has_former_caches(folder: Path) -> bool:
    """Tell if the store in `folder` still has the caches of an older one."""
    return (folder / FORMER_CACHES_NAME).is_dir()


def adopt_former_caches(folder: Path) -> None:
    """Move the thumbnails of an older store in `folder` to their present name, and update them.

    If they cannot be moved, they are made again from the files. Call it with the ingest lock held.
    """
    if not has_former_caches(folder):
        return
    with suppress(OSError):
        (folder / CACHES_NAME).mkdir(mode=0o700, exist_ok=True)
    former_path = folder / FORMER_CACHES_NAME / FORMER_THUMBNAILS_NAME
    path = folder / CACHES_NAME / THUMBNAILS_NAME
    if former_path.exists() and not path.exists():
        with suppress(sqlite3.Error, OSError):
            _update_tables(former_path)
            former_path.replace(path)
    with suppress(OSError):
        marker = folder / FORMER_CACHES_NAME / VERIFYING_MARKER_NAME
        marker.replace(folder / CACHES_NAME / VERIFYING_MARKER_NAME)
    shutil.rmtree(folder / FORMER_CACHES_NAME, ignore_errors=True)


def _update_tables(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10.0)) as database:
        for statement in TABLE_UPDATES:
            try:
                database.execute(statement)
            except sqlite3.OperationalError as error:
                # A run that was killed before it moved the file may have executed it already.
                if not str(error).startswith("no such"):
                    raise
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
