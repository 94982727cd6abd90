"""Remove files that a store does not need any more."""

from __future__ import annotations

import shutil

from indexes.folder import StoreFolder, lock_writes
from indexes.upkeep.migration import read_migration_target, remove_next_store
from indexes.upkeep.recovery import save_recovery_record
from indexes.vectors import segments


def sweep(opened: StoreFolder) -> None:
    """Remove temporary files, the store of a finished migration, and unused segments.

    A segment is unused if the catalog does not name it and no other process has the store open, so
    that no reader can still need it. Call it with the ingest lock held.
    """
    catalog = opened.catalog
    migration_target = read_migration_target(opened.path)
    bound = catalog.settings.get_space_and_model()
    # If the spaces are equal, the migration was committed and cut off before its end.
    if migration_target and bound and migration_target[0] == bound[0]:
        save_recovery_record(opened.path, catalog)
        remove_next_store(opened.path)
    names = {f"{row.blake3}{segments.SUFFIX}" for row in catalog.vectors.list_segments()}
    unused_files = [
        file
        for file in opened.segments.iterdir()
        if file.suffix == segments.SUFFIX and file.name not in names
    ]
    with opened.reader_lock.try_exclusive() as is_alone:
        if is_alone:
            for file in unused_files:
                file.unlink(missing_ok=True)
    # Other processes write temporary files only with this lock held.
    with lock_writes(opened.path):
        for file in opened.scratch.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
