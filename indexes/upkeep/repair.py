"""Whether what is on disk is what was written, named piece by piece; and how a store goes on without what is not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import numpy as np
from blake3 import blake3

from indexes.catalog import schema
from indexes.catalog.catalog import Catalog
from indexes.catalog.database import condemned
from indexes.catalog.pairs import SegmentRow
from indexes.durable import files as durable
from indexes.errors import StoreDamaged
from indexes.join.exact import Shelf
from indexes.paths import BACKUP, command
from indexes.records import Root
from indexes.vectors import segments
from indexes.vectors.segments import Segment, cosines

BLOCK = 1 << 16  # vectors, or edges, that are looked at together
CATALOG = ("catalog.db", "catalog.db-wal", "catalog.db-shm", "catalog.seal")
NOTED = "store.json"
WAITING = "pictures"  # the place of a finding that the next ingest mends
PARTS = {"vectors", "images", "files", "edges", "evidence"}  # places of findings inside the catalog


@dataclass(frozen=True)
class Finding:
    """Something that is not what was written: the file or the part of the catalog, what is wrong, and the segment if it is one."""

    place: str
    what: str
    segment: SegmentRow | None = None


@dataclass(frozen=True)
class Repair:
    """What a repair did: where the catalog was saved, where damaged files were put (None: there were none), how many pictures are to be
    embedded again (None: all), and by which model, when the catalog had to be made anew.
    """

    backup: Path
    quarantine: Path | None
    lost: int | None
    model: str | None = None


@dataclass(frozen=True)
class Noted:
    """What of a store no photo can tell: its folders, and the name of its model."""

    roots: list[Root]
    model: str | None


def findings(folder: Path, catalog: Catalog, *, data: bool) -> Iterator[Finding]:
    """Everything that is wrong with a store that could be opened; with `data`, every byte is read and every score computed again."""
    try:
        yield from _findings(folder, catalog, data=data)
    except StoreDamaged as error:
        yield Finding(os.fspath(catalog.path), _said(error))


def _findings(folder: Path, catalog: Catalog, *, data: bool) -> Iterator[Finding]:
    if set(catalog.rows(schema.LISTED)) != schema.expected():
        yield Finding(os.fspath(catalog.path), f"{catalog.path} has other tables than neardup makes")
        return
    seal = catalog.path.with_suffix(".seal")
    # The first commit is visible a moment before there is a seal.
    if catalog.seal() is None and (os.path.lexists(seal) or catalog.generation() > 1):
        wrong = "is not what was written" if os.path.lexists(seal) else "is missing"
        yield Finding(os.fspath(seal), f"{seal} {wrong}; the next ingest makes it anew")
    if data or not catalog.was_closed:  # after a kill nothing but SQLite's own structure tells
        catalog.verify()
    with catalog.snapshot():
        catalog.roots()
        catalog.last_run()
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
                yield Finding(os.fspath(folder / "segments" / f"{row.blake3}{segments.SUFFIX}"), _said(error), row)
        for place, wrong_rows, what in _RULES:
            if wrong := catalog.rows(f"SELECT count(*) FROM {wrong_rows}")[0][0]:
                yield Finding(place, f"{wrong:,} {what}")
        if waiting := len(catalog.unembedded()):
            ingest = command(folder, "ingest")
            wait = "picture waits to be embedded again, and is" if waiting == 1 else "pictures wait to be embedded again, and are"
            yield Finding(WAITING, f"{waiting:,} {wait} not compared; `{ingest}` does that")
        if data and len(sound) == len(rows):
            yield from _wrong_edges(catalog, Shelf(sound))


def _said(error: StoreDamaged) -> str:
    return str(error).partition(f"; {BACKUP}")[0]


_HOMELESS = "NOT EXISTS (SELECT 1 FROM segments WHERE vectors.id BETWEEN first AND last)"
_ORPHANED = "evidence WHERE first NOT IN (SELECT id FROM images) OR second NOT IN (SELECT id FROM images)"
_RULES = (
    ("vectors", f"vectors WHERE {_HOMELESS}", "vectors are in no segment"),
    ("images", "images WHERE vector IS NOT NULL AND vector NOT IN (SELECT id FROM vectors)", "images name a vector that is not there"),
    ("files", "files WHERE image IS NOT NULL AND image NOT IN (SELECT id FROM images)", "files name an image that is not there"),
    (
        "edges",
        "edges WHERE left NOT IN (SELECT id FROM vectors) OR right NOT IN (SELECT id FROM vectors)",
        "pairs name a vector that is not there",
    ),
    ("evidence", _ORPHANED, "verified pairs name an image that is not there"),
)
# What makes the rules hold again, in this order; the pairs are dropped, and found again. A file that is forgotten comes back as a new one.
_CURES = (
    f"UPDATE images SET vector = NULL WHERE vector NOT IN (SELECT id FROM vectors WHERE NOT {_HOMELESS})",
    f"DELETE FROM vectors WHERE {_HOMELESS}",
    "DELETE FROM files WHERE image NOT IN (SELECT id FROM images)",
    f"DELETE FROM {_ORPHANED}",
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
    stored, wrong = catalog.edges(-2.0), 0
    while len(some := np.fromiter(islice(stored, BLOCK), kind)):
        some = some[np.isin(some["left"], shelf.ids) & np.isin(some["right"], shelf.ids)]
        if len(some):
            scores = cosines(shelf.take(shelf.rows(some["left"])), shelf.take(shelf.rows(some["right"])))
            wrong += int((scores != some["score"]).sum())
    if wrong:
        yield Finding("edges", f"{wrong:,} pairs have another score than their vectors")


def set_aside(folder: Path, catalog: Catalog, damaged: Sequence[Finding]) -> Repair:
    """Go on without what is damaged: segments are moved to quarantine, their images wait to be embedded again, pairs are found again.

    Segments that the catalog does not name go to quarantine too: an older catalog may have been put back, which they belong to.
    """
    backup = folder / "backup" / f"catalog-{_stamp()}.db"
    _made(backup.parent)
    catalog.back_up(backup)
    durable.reach("repair saved")
    lost = {finding.segment.blake3: finding.segment for finding in damaged if finding.segment}
    sound = {row.blake3 for row in catalog.segments()} - set(lost)
    quarantined = _linked([file for file in _segment_files(folder) if file.stem not in sound], _made(folder / "quarantine"))
    before = len(catalog.unembedded())
    with catalog.transaction():
        for row in lost.values():
            catalog.lose_vectors(row.first, row.last)
        catalog.remove_segments(lost)
        if any(finding.segment is None and finding.place in PARTS for finding in damaged):
            catalog.drop_edges()
            for cure in _CURES:
                catalog.write(cure)
    durable.reach("repair committed")
    for file in quarantined:
        file.unlink()
    return Repair(backup, folder / "quarantine" if quarantined else None, len(catalog.unembedded()) - before)


def start_anew(folder: Path) -> Repair:
    """Set a damaged catalog, and all segments, which nothing else explains, aside, and begin a new one that knows the same folders.

    Cut off anywhere, the store stays one with a damaged catalog, and all that it held is still there.
    """
    quarantine = _made(folder / "quarantine" / _stamp())
    held = [folder / name for name in CATALOG if (folder / name).exists()]
    files = _segment_files(folder)
    _linked([*held, *files], quarantine)
    durable.reach("repair linked")
    told, noted = _told(quarantine / "catalog.db"), _noted(folder)
    _made(quarantine / "new" / "tmp")
    new = Catalog(quarantine / "new", write=True)
    with new.transaction():
        for root in told.roots or noted.roots:
            new.put_root(root)
    new.close()
    durable.replace(folder / "catalog.seal", condemned(), folder / "tmp")  # whatever is there from now on, it is damaged
    durable.reach("repair condemned")
    (quarantine / "new" / "catalog.db").replace(folder / "catalog.db")
    for name in ("catalog.db-wal", "catalog.db-shm"):
        (folder / name).unlink(missing_ok=True)
    durable.sync_folder(folder)
    durable.reach("repair replaced")
    for file in files:
        file.unlink()
    (quarantine / "new" / "catalog.seal").replace(folder / "catalog.seal")
    durable.sync_folder(folder)
    shutil.rmtree(quarantine / "new")
    return Repair(quarantine / "catalog.db", quarantine, None, told.model or noted.model)


def _segment_files(folder: Path) -> list[Path]:
    return [file for file in (folder / "segments").iterdir() if file.suffix == segments.SUFFIX]


def _linked(files: Sequence[Path], into: Path) -> list[Path]:
    """Give files another name in a folder of the same filesystem, durably; those that have it already are left alone."""
    for file in files:
        if (into / file.name).exists():
            continue
        try:
            (into / file.name).hardlink_to(file)
        except OSError:  # a filesystem without them
            shutil.copy2(file, into / file.name)
    durable.sync_folder(into)
    return list(files)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _told(path: Path) -> Noted:
    """What a damaged catalog still tells of its folders and its model."""
    roots: list[Root] = []
    model = None
    uri = f"file:{quote(os.fsencode(path))}?mode=ro"
    with suppress(sqlite3.Error, ValueError, TypeError), closing(sqlite3.connect(uri, uri=True)) as damaged:
        for row in damaged.execute("SELECT path, excludes, hidden FROM roots"):
            roots.append(_root(os.fsdecode(row[0]), json.loads(row[1]), row[2]))
        model = next((str(row[0]) for row in damaged.execute("SELECT source FROM space")), None)
    return Noted(roots, model)


def _root(path: str, excludes: Sequence[str], hidden: object) -> Root:
    return Root(path, tuple(map(str, excludes)), bool(hidden))


def note(folder: Path, noted: Noted) -> None:
    """Write down once more, beside the catalog, what no photo can tell."""
    line = json.dumps(asdict(noted)).encode()
    durable.replace(folder / NOTED, line + b"\n" + blake3(line).hexdigest().encode() + b"\n", folder / "tmp")


def _noted(folder: Path) -> Noted:
    """What was written down beside the catalog; nothing where that is damaged too."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        line, digest = (folder / NOTED).read_bytes().splitlines()
        if blake3(line).hexdigest().encode() == digest:
            given = json.loads(line)
            return Noted([_root(**root) for root in given["roots"]], given["model"])
    return Noted([], None)


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
