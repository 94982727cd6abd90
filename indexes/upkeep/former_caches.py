"""Adopt the caches of stores of format 6 and older, so that nothing in them is computed again."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from indexes.caches.cache import delete_database
from indexes.paths import CACHES_NAME, FORMER_CACHES_NAME, VERIFYING_MARKER_NAME


@dataclass(frozen=True)
class FormerCache:
    """A cache of an older store, and the statements that bring its tables up to date."""

    former_name: str
    name: str
    statements: tuple[str, ...]


FORMER_CACHES = (
    FormerCache(
        "thumbs.db",
        "thumbnails.db",
        (
            "ALTER TABLE thumbs RENAME TO thumbnails",
            "ALTER TABLE thumbnails RENAME COLUMN picture TO jpeg",
            "ALTER TABLE thumbnails RENAME COLUMN sum TO checksum",
        ),
    ),
    FormerCache(
        "parts.db",
        "crops.db",
        (
            "ALTER TABLE parts RENAME TO crops",
            "ALTER TABLE crops RENAME COLUMN rows TO vectors",
            "ALTER TABLE compared RENAME COLUMN parts TO has_crops",
        ),
    ),
)


def has_former_caches(folder: Path) -> bool:
    """Tell if the store in `folder` still has the caches of an older one."""
    return (folder / FORMER_CACHES_NAME).is_dir()


def adopt_former_caches(folder: Path) -> None:
    """Move the caches of an older store in `folder` to their present names, and update them.

    A cache that cannot be moved is filled again from the files. Call it with the ingest lock held.
    """
    if not has_former_caches(folder):
        return
    with suppress(OSError):
        (folder / CACHES_NAME).mkdir(mode=0o700, exist_ok=True)
    for cache in FORMER_CACHES:
        former_path = folder / FORMER_CACHES_NAME / cache.former_name
        path = folder / CACHES_NAME / cache.name
        if former_path.exists() and not path.exists():
            with suppress(sqlite3.Error, OSError):
                _update_tables(former_path, cache.statements)
                former_path.replace(path)
        delete_database(former_path)
    with suppress(OSError):
        marker = folder / FORMER_CACHES_NAME / VERIFYING_MARKER_NAME
        marker.replace(folder / CACHES_NAME / VERIFYING_MARKER_NAME)
    shutil.rmtree(folder / FORMER_CACHES_NAME, ignore_errors=True)


def _update_tables(path: Path, statements: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10.0)) as database:
        for statement in statements:
            try:
                database.execute(statement)
            except sqlite3.OperationalError as error:
                # A run that was killed before it moved the file may have executed it already.
                if not str(error).startswith("no such"):
                    raise
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
