"""The folder of a store: how it is created, locked and opened."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from indexes.catalog.catalog import Catalog
from indexes.catalog.database import WRITE_LOCK_TIMEOUT_SECONDS
from indexes.durable import locks
from indexes.errors import StoreError
from indexes.paths import (
    CATALOG_NAME,
    INGEST_LOCK_NAME,
    READERS_LOCK_NAME,
    SCRATCH_NAME,
    SEGMENTS_NAME,
    STORE_ENTRY_NAMES,
    WRITE_LOCK_NAME,
    quote,
)


def lock_ingest(folder: Path, timeout_seconds: float = 0.0) -> AbstractContextManager[None]:
    """Lock the store in `folder` for one ingest. Raises StoreLocked after `timeout_seconds`."""
    return locks.lock(folder / INGEST_LOCK_NAME, timeout_seconds)


def lock_writes(folder: Path) -> AbstractContextManager[None]:
    """Lock the store in `folder` against commits of other processes. Raises StoreLocked."""
    return locks.lock(folder / WRITE_LOCK_NAME, WRITE_LOCK_TIMEOUT_SECONDS)


class StoreFolder:
    """An open store folder: its catalog, and a lock that keeps files which readers may need."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """Open the folder; with `write`, create it if it is missing.

        Raises StoreMissing, StoreVersionMismatch, StoreDamaged, and StoreError for a folder that
        holds something else or cannot be created.
        """
        if write:
            _create(path)
        self.path, self.segments, self.scratch = path, path / SEGMENTS_NAME, path / SCRATCH_NAME
        # A reader may still need a segment that was merged. Without a store, no lock file is made.
        has_store = write or (path / CATALOG_NAME).exists()
        self.reader_lock = locks.ReaderLock(path / READERS_LOCK_NAME if has_store else None)
        try:
            self.catalog = Catalog(path, write=write)
        except BaseException:
            self.reader_lock.release()
            raise

    def close(self) -> None:
        """Close the catalog, then release the lock."""
        try:
            self.catalog.close()
        finally:
            self.reader_lock.release()


def _create(path: Path) -> None:
    try:
        names = {entry.name for entry in path.iterdir()} if path.is_dir() else set[str]()
        foreign_names = names - STORE_ENTRY_NAMES
        if CATALOG_NAME not in names and foreign_names:
            raise StoreError(
                f"{path} is not a store, and holds {quote(min(foreign_names))};"
                " name a new folder with --store"
            )
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (SEGMENTS_NAME, SCRATCH_NAME):
            (path / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be created: {error.strerror};"
            " name a folder you can write to with --store"
        ) from error
