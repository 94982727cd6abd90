"""Caches of stores of format 6 and older: taken over once, so that no thumbnail or crop vector is computed again."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from indexes.caches.cache import CACHE_FOLDER, delete_database

FORMER_FOLDER = "thumbs"
# (former name, name, statements that bring its tables up to date)
FORMER_CACHES = (
    (
        "thumbs.db",
        "thumbnails.db",
        (
            "ALTER TABLE thumbs RENAME TO thumbnails",
            "ALTER TABLE thumbnails RENAME COLUMN picture TO jpeg",
            "ALTER TABLE thumbnails RENAME COLUMN sum TO checksum",
        ),
    ),
    (
        "parts.db",
        "crops.db",
        (
            "ALTER TABLE parts RENAME TO crops",
            "ALTER TABLE crops RENAME COLUMN rows TO vectors",
            "ALTER TABLE compared RENAME COLUMN parts TO has_crops",
        ),
    ),
)


def adopt_former_caches(folder: Path) -> None:
    """Move the caches of an older store in `folder` to where they belong now. What cannot be moved is filled again from the photos.

    Call it with the ingest lock held.
    """
    if not (folder / FORMER_FOLDER).is_dir():
        return
    with suppress(OSError):
        (folder / CACHE_FOLDER).mkdir(mode=0o700, exist_ok=True)
    for former_name, name, statements in FORMER_CACHES:
        former, cache = folder / FORMER_FOLDER / former_name, folder / CACHE_FOLDER / name
        if former.exists() and not cache.exists():
            with suppress(sqlite3.Error, OSError):
                with closing(sqlite3.connect(former, isolation_level=None, timeout=10.0)) as db:
                    for sql in statements:
                        with suppress(
                            sqlite3.OperationalError
                        ):  # done by a run that was killed before the file was moved
                            db.execute(sql)
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                former.replace(cache)
        delete_database(former)
    shutil.rmtree(folder / FORMER_FOLDER, ignore_errors=True)
