"""Another space for a store: a second store, inside the first, gathers its vectors, and one commit puts them in the place of the old."""

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
from indexes.records import Space
from indexes.vectors import segments

NEXT_STORE_NAME = "next"  # the folder of the second store
HASHES_PER_BLOCK = 10_000  # images that are looked at together


@dataclass(frozen=True)
class PendingMigration:
    """A migration that has not ended: the name of the model that a store is being brought to, and how many of its images, those without
    features among them, need no embedding any more.
    """

    model: str
    done: int
    images: int


def read_migration_target(folder: Path) -> tuple[Space, str] | None:
    """The space, and the name of its model, that the store in `folder` is being brought to; None where nothing says so."""
    with suppress(StoreError), closing(Catalog(folder / NEXT_STORE_NAME, write=False)) as catalog:
        return catalog.settings.get_space_and_model()
    return None


def find_pending_migration(folder: Path, catalog: Catalog) -> PendingMigration | None:
    """The migration of the store in `folder`, whose catalog this is, that was begun and has not ended; None where nothing says so."""
    with suppress(StoreError), closing(Catalog(folder / NEXT_STORE_NAME, write=False)) as new:
        own, bound = catalog.settings.get_space_and_model(), new.settings.get_space_and_model()
        if (
            own is None or bound is None or bound[0] == own[0]
        ):  # equal: it has ended, and only its folder is left
            return None
        done = images = 0
        hashes = catalog.images.stream_hashes_in_use()
        while some := list(
            islice(hashes, HASHES_PER_BLOCK)
        ):  # its own images may be of photos that are gone by now
            done, images = done + len(new.images.find_complete_hashes(some)), images + len(some)
        return PendingMigration(bound[1], done, images)
    return None


def remove_next_store(folder: Path) -> None:
    """Remove the second store. Cut off anywhere, it is whole, or what is left of it is among the temporary files."""
    if (folder / NEXT_STORE_NAME).exists():
        doomed = folder / "tmp" / f"{NEXT_STORE_NAME}-{time.monotonic_ns()}"
        (folder / NEXT_STORE_NAME).rename(doomed)
        durable.sync_folder(folder)
        shutil.rmtree(doomed)


def commit_next_store(folder: Path, catalog: Catalog) -> None:
    """Put what the second store, closed, has in the place of all vectors, segments and pairs of the first, in one commit.

    Its segments get a second name first. The files of the old ones stay, for whoever still reads them. Others that want to write wait
    meanwhile, for 500,000 images with 5 million pairs 12 seconds (measured); who reads does not.
    """
    place = folder / "segments"
    with closing(Catalog(folder / NEXT_STORE_NAME, write=False)) as new:
        rows = new.vectors.list_segments()
    for row in rows:
        durable.link(
            folder / NEXT_STORE_NAME / "segments" / f"{row.blake3}{segments.SUFFIX}",
            place,
            folder / "tmp",
        )
        segments.verify(row, place)
    failpoint("migration linked")
    with (
        catalog.attach(folder / NEXT_STORE_NAME / "catalog.db", NEXT_STORE_NAME),
        catalog.transaction(),
    ):
        catalog.replace_vectors_from(NEXT_STORE_NAME)
        for row in rows:
            catalog.vectors.put_segment(segments.with_file_stat(row, place))
    failpoint("migration committed")
