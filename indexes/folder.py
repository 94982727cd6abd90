"""The folder of a store: the names in it, how it is created, and how it is opened."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from indexes.catalog.catalog import Catalog
from indexes.durable import locks
from indexes.errors import StoreError

SEGMENTS_NAME = "segments"
SCRATCH_NAME = "tmp"
BACKUP_NAME = "backup"
QUARANTINE_NAME = "quarantine"
RECOVERY_NAME = "store.json"
# The second store, inside the first, of a migration to another space.
NEXT_STORE_NAME = "next"
CATALOG_NAME = "catalog.db"
SEAL_NAME = "catalog.seal"
CATALOG_FILE_NAMES = (CATALOG_NAME, "catalog.db-wal", "catalog.db-shm", SEAL_NAME)
INGEST_LOCK_NAME = "ingest.lock"
WRITE_LOCK_NAME = "write.lock"
READERS_LOCK_NAME = "readers.lock"
# Names that may be in a folder without a catalog: its store was cut off while it was created, or
# lost its catalog.
STORE_ENTRY_NAMES = {
    SEGMENTS_NAME,
    SCRATCH_NAME,
    "caches",
    "thumbs",
    BACKUP_NAME,
    QUARANTINE_NAME,
    NEXT_STORE_NAME,
    INGEST_LOCK_NAME,
    WRITE_LOCK_NAME,
    READERS_LOCK_NAME,
    RECOVERY_NAME,
    *CATALOG_FILE_NAMES,
}
# How long to wait for another writer's transaction, which takes milliseconds.
WRITE_LOCK_TIMEOUT_SECONDS = 60.0


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
                f"{path} is not a store, and holds {ascii(min(foreign_names))};"
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
