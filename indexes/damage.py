"""Whether what is on disk is what was written, named piece by piece; and how a store goes on without what is not."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np

from indexes import durable, segments
from indexes.catalog import Catalog, Root
from indexes.errors import StoreDamaged
from indexes.join import Shelf
from indexes.segments import Segment, cosines
from indexes.vectors import SegmentRow

BLOCK = 1 << 16  # vectors, or edges, that are looked at together
CATALOG = ("catalog.db", "catalog.db-wal", "catalog.db-shm", "catalog.seal")


@dataclass(frozen=True)
class Finding:
    """Something that is not what was written: the file or the part of the catalog, what is wrong, and the segment if it is one."""

    place: str
    what: str
    segment: SegmentRow | None = None


@dataclass(frozen=True)
class Repair:
    """What a repair did: where the catalog was saved and damaged files were put, how many vectors are to be made again (None: all), and by
    which model, when the store could not be asked any more.
    """

    backup: Path
    quarantine: Path
    lost: int | None
    model: str | None = None


def findings(folder: Path, catalog: Catalog, *, data: bool) -> Iterator[Finding]:
    """Everything that is wrong with a store that could be opened; with `data`, every byte is read and every score computed again."""
    seal = catalog.path.with_suffix(".seal")
    # The first commit is visible a moment before there is a seal.
    if catalog.seal() is None and (os.path.lexists(seal) or catalog.generation() > 1):
        wrong = "is not what was written" if os.path.lexists(seal) else "is missing"
        yield Finding(os.fspath(seal), f"{wrong}; the next ingest makes it anew")
    if data:
        try:
            catalog.verify()
        except StoreDamaged as error:
            yield Finding(os.fspath(catalog.path), str(error))
            return
    with catalog.snapshot():
        bound = catalog.space()
        rows = catalog.segments() if bound else []
        for before, row in zip(rows, rows[1:], strict=False):
            if before.last >= row.first:
                yield Finding("segments", f"{before.blake3} and {row.blake3} overlap", row)
        sound = []
        for row in rows:
            try:
                sound.append(_sound(folder / "segments", row, bound[0].dim if bound else 0, catalog, data=data))
            except StoreDamaged as error:
                yield Finding(os.fspath(folder / "segments" / f"{row.blake3}{segments.SUFFIX}"), str(error), row)
        for place, wrong_rows, what in _RULES:
            if wrong := catalog.rows(f"SELECT count(*) FROM {wrong_rows}")[0][0]:
                yield Finding(place, f"{wrong:,} {what}")
        if data and len(sound) == len(rows):
            yield from _wrong_edges(catalog, Shelf(sound))


_HOMELESS = "NOT EXISTS (SELECT 1 FROM segments WHERE vectors.id BETWEEN first AND last)"
_RULES = (
    ("vectors", f"vectors WHERE {_HOMELESS}", "vectors are in no segment"),
    ("images", "images WHERE vector IS NOT NULL AND vector NOT IN (SELECT id FROM vectors)", "images name a vector that is not there"),
    ("files", "files WHERE image IS NOT NULL AND image NOT IN (SELECT id FROM images)", "files name an image that is not there"),
    (
        "edges",
        "edges WHERE left NOT IN (SELECT id FROM vectors) OR right NOT IN (SELECT id FROM vectors)",
        "pairs name a vector that is not there",
    ),
)
# What makes the rules hold again, in this order; the pairs are dropped, and found again. A file that is forgotten comes back as a new one.
_CURES = (
    f"UPDATE images SET vector = NULL WHERE vector NOT IN (SELECT id FROM vectors WHERE NOT {_HOMELESS})",
    f"DELETE FROM vectors WHERE {_HOMELESS}",
    "DELETE FROM files WHERE image NOT IN (SELECT id FROM images)",
)


def _sound(folder: Path, row: SegmentRow, dim: int, catalog: Catalog, *, data: bool) -> Segment:
    if data:
        segments.verify(row, folder)
    segment = Segment(folder, row, dim)
    if not np.array_equal(segment.ids, catalog.vector_ids(row.first, row.last)):
        raise StoreDamaged(f"{row.blake3} holds other vectors than the catalog says")
    for start in range(0, len(segment.ids) if data else 0, BLOCK):
        lengths = np.linalg.norm(segment.vectors[start : start + BLOCK].astype(np.float32), axis=1)
        if not (np.abs(lengths - 1.0) < segments.MARGIN).all():  # also catches NaN
            raise StoreDamaged(f"{row.blake3} holds vectors that are not of length 1")
    return segment


def _wrong_edges(catalog: Catalog, shelf: Shelf) -> Iterator[Finding]:
    kind = np.dtype([("left", np.int64), ("right", np.int64), ("score", np.float64)])
    edges = np.fromiter(catalog.edges(-2.0), kind)
    for start in range(0, len(edges), BLOCK):
        some = edges[start : start + BLOCK]
        known = np.isin(some["left"], shelf.ids) & np.isin(some["right"], shelf.ids)
        some = some[known]
        scores = cosines(shelf.take(shelf.rows(some["left"])), shelf.take(shelf.rows(some["right"]))) if len(some) else some["score"]
        if wrong := int((scores != some["score"]).sum()):
            yield Finding("edges", f"{wrong:,} pairs have another score than their vectors")


def save(folder: Path, catalog: Catalog) -> Path:
    """A copy of the catalog as it is now, on disk; returns where."""
    backup = folder / "backup"
    backup.mkdir(mode=0o700, exist_ok=True)
    path = backup / f"catalog-{_stamp()}.db"
    catalog.back_up(path)
    durable.reach("repair saved")
    return path


def set_aside(folder: Path, catalog: Catalog, damaged: Sequence[Finding]) -> Repair:
    """Go on without what is damaged: segments are moved to quarantine, their images wait to be embedded again, pairs are found again."""
    backup = save(folder, catalog)
    rows = {finding.segment.blake3: finding.segment for finding in damaged if finding.segment}
    before = _to_embed(catalog)
    with catalog.transaction():
        for row in rows.values():
            catalog.lose_vectors(row.first, row.last)
        catalog.remove_segments(rows)
        if any(finding.segment is None for finding in damaged):
            catalog.drop_edges()
            for cure in _CURES:
                catalog.write(cure)
    durable.reach("repair committed")
    quarantine = folder / "quarantine"
    quarantine.mkdir(mode=0o700, exist_ok=True)
    for name in rows:
        with suppress(FileNotFoundError):
            (folder / "segments" / f"{name}{segments.SUFFIX}").replace(quarantine / f"{name}{segments.SUFFIX}")
    durable.sync_folder(quarantine)
    return Repair(backup, quarantine, _to_embed(catalog) - before)


def _to_embed(catalog: Catalog) -> int:
    return len(catalog.unembedded().intersection(catalog.live()))


def start_anew(folder: Path) -> tuple[Repair, list[Root]]:
    """Move a damaged catalog, and all segments, which nothing else explains, to quarantine; returns those roots that can be read."""
    quarantine = folder / "quarantine" / _stamp()
    quarantine.mkdir(mode=0o700, parents=True)
    for name in CATALOG:
        with suppress(FileNotFoundError):
            (folder / name).replace(quarantine / name)
    for file in (folder / "segments").glob(f"*{segments.SUFFIX}"):
        file.replace(quarantine / file.name)
    for touched in (quarantine, folder):
        durable.sync_folder(touched)
    roots: list[Root] = []
    model = None
    uri = f"file:{quote(os.fsencode(quarantine / 'catalog.db'))}?mode=ro"
    with suppress(sqlite3.Error, ValueError, TypeError), closing(sqlite3.connect(uri, uri=True)) as damaged:
        for path, excludes, hidden in damaged.execute("SELECT path, excludes, hidden FROM roots"):
            roots.append(Root(os.fsdecode(path), tuple(map(str, json.loads(excludes))), bool(hidden)))
        model = next((str(row[0]) for row in damaged.execute("SELECT source FROM space")), None)
    return Repair(quarantine / "catalog.db", quarantine, None, model), roots


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
