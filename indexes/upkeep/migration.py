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
from indexes.errors import StoreError
from indexes.records import Space
from indexes.vectors import segments

NEXT = "next"  # the folder of the second store
BLOCK = 10_000  # images that are looked at together


@dataclass(frozen=True)
class Begun:
    """A migration that has not ended: the name of the model that a store is being brought to, and how many of its images, those without
    features among them, need no embedding any more.
    """

    model: str
    done: int
    images: int


def begun(folder: Path) -> tuple[Space, str] | None:
    """The space, and the name of its model, that the store in `folder` is being brought to; None where nothing says so."""
    with suppress(StoreError), closing(Catalog(folder / NEXT, write=False)) as catalog:
        return catalog.space()
    return None


def unfinished(folder: Path, catalog: Catalog) -> Begun | None:
    """The migration of the store in `folder`, whose catalog this is, that was begun and has not ended; None where nothing says so."""
    with suppress(StoreError), closing(Catalog(folder / NEXT, write=False)) as new:
        own, bound = catalog.space(), new.space()
        if own is None or bound is None or bound[0] == own[0]:  # equal: it has ended, and only its folder is left
            return None
        done = images = 0
        hashes = catalog.hashes()
        while some := list(islice(hashes, BLOCK)):  # its own images may be of photos that are gone by now
            done, images = done + len(new.whole(some)), images + len(some)
        return Begun(bound[1], done, images)
    return None


def drop(folder: Path) -> None:
    """Remove the second store. Cut off anywhere, it is whole, or what is left of it is among the temporary files."""
    if (folder / NEXT).exists():
        doomed = folder / "tmp" / f"{NEXT}-{time.monotonic_ns()}"
        (folder / NEXT).rename(doomed)
        durable.sync_folder(folder)
        shutil.rmtree(doomed)


def take_over(folder: Path, catalog: Catalog) -> None:
    """Put what the second store, closed, has in the place of all vectors, segments and pairs of the first, in one commit.

    Its segments get a second name first. The files of the old ones stay, for whoever still reads them. Others that want to write wait
    meanwhile, for 500,000 images with 5 million pairs 12 seconds (measured); who reads does not.
    """
    place = folder / "segments"
    with closing(Catalog(folder / NEXT, write=False)) as new:
        rows = new.segments()
    for row in rows:
        durable.link(folder / NEXT / "segments" / f"{row.blake3}{segments.SUFFIX}", place, folder / "tmp")
        segments.verify(row, place)
    durable.reach("switch linked")
    with catalog.beside(folder / NEXT / "catalog.db", NEXT), catalog.transaction():
        catalog.take_over(NEXT)
        for row in rows:
            catalog.put_segment(segments.noted(row, place))
    durable.reach("switch committed")
