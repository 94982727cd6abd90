"""Migrate a store to another space.

A second store, inside the first, collects the new vectors. Then one commit replaces the old ones.
"""

from __future__ import annotations

import shutil
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from indexes.catalog.catalog import Catalog
from indexes.durable import files as durable
from indexes.durable.failpoints import failpoint
from indexes.errors import StoreError
from indexes.folder import StoreFolder
from indexes.paths import CATALOG_NAME, NEXT_STORE_NAME, SCRATCH_NAME, SEGMENTS_NAME
from indexes.records import Space
from indexes.vectors import segments

# Images that are looked up at a time.
HASHES_PER_BLOCK = 10_000


@dataclass(frozen=True)
class PendingMigration:
    """An unfinished migration to `model`: `done` of `images` need no embedding any more.

    Featureless images are among both.
    """

    model: str
    done: int
    images: int


def read_migration_target(folder: Path) -> tuple[Space, str] | None:
    """Read the space that a store is being migrated to, and its model; None if none."""
    with suppress(StoreError), closing(Catalog(folder / NEXT_STORE_NAME, write=False)) as catalog:
        return catalog.settings.get_space_and_model()
    return None


def find_pending_migration(folder: Path, catalog: Catalog) -> PendingMigration | None:
    """Find the unfinished migration of the store in `folder` with this catalog; None if none."""
    with suppress(StoreError), closing(Catalog(folder / NEXT_STORE_NAME, write=False)) as new:
        own, target = catalog.settings.get_space_and_model(), new.settings.get_space_and_model()
        # With equal spaces it was committed, and only its folder is left.
        if own is None or target is None or target[0] == own[0]:
            return None
        done = images = 0
        # Only images in use count: the second store may have some whose files are gone by now.
        stream = catalog.images.stream_hashes_in_use()
        while hashes := list(islice(stream, HASHES_PER_BLOCK)):
            done += len(new.images.find_complete_hashes(hashes))
            images += len(hashes)
        return PendingMigration(target[1], done, images)
    return None


def remove_next_store(folder: Path) -> None:
    """Remove the second store. Cut off anywhere, it is whole, or its rest is a temporary file."""
    next_store = folder / NEXT_STORE_NAME
    if next_store.exists():
        doomed = folder / SCRATCH_NAME / f"{NEXT_STORE_NAME}-{time.monotonic_ns()}"
        next_store.rename(doomed)
        durable.sync_folder(folder)
        shutil.rmtree(doomed)


def commit_next_store(opened: StoreFolder) -> None:
    """Replace all vectors, segments and pairs of a store by those of its second store, closed.

    The new segments are linked first, the commit follows. Files of old segments stay for readers.
    The commit blocks other writers, for 500,000 images with 5 million pairs 12 seconds (measured);
    it does not block readers.
    """
    next_store = opened.path / NEXT_STORE_NAME
    with closing(Catalog(next_store, write=False)) as new:
        rows = new.vectors.list_segments()
    for row in rows:
        new_path = segments.get_path(next_store / SEGMENTS_NAME, row)
        durable.link(new_path, opened.segments, opened.scratch)
        segments.verify(row, opened.segments)
    failpoint("migration linked")
    catalog = opened.catalog
    with (
        catalog.attach(next_store / CATALOG_NAME, NEXT_STORE_NAME),
        catalog.transaction(),
    ):
        catalog.replace_vectors_from(NEXT_STORE_NAME)
        for row in rows:
            catalog.vectors.put_segment(segments.add_file_stat(row, opened.segments))
    failpoint("migration committed")
