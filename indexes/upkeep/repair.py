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
from typing import Any

import numpy as np

from indexes.catalog import schema
from indexes.catalog.catalog import Catalog
from indexes.catalog.seal import SealFile
from indexes.catalog.vectors import SegmentRow
from indexes.durable import files as durable
from indexes.durable.failpoints import failpoint
from indexes.durable.sqlite import OpenMode, connect
from indexes.errors import StoreDamaged
from indexes.join.exact import VectorRows
from indexes.paths import RESTORE_BACKUP_HINT, format_command
from indexes.records import Root
from indexes.vectors import segments
from indexes.vectors.segments import Segment, cosines

ROWS_PER_BLOCK = 1 << 16  # vectors, or edges, that are looked at together
CATALOG_FILE_NAMES = ("catalog.db", "catalog.db-wal", "catalog.db-shm", "catalog.seal")
RECOVERY_FILE_NAME = "store.json"
BUSY_TIMEOUT_SECONDS = 5.0  # how long reading a damaged catalog waits for a process that writes
UNEMBEDDED_LOCATION = "pictures"  # the place of a finding that the next ingest mends
CATALOG_TABLES = {
    "vectors",
    "images",
    "files",
    "edges",
    "verdicts",
}  # places of findings inside the catalog


@dataclass(frozen=True)
class Finding:
    """Something that is not what was written: the file or the part of the catalog, what is wrong, and the segment if it is one."""

    location: str
    problem: str
    segment: SegmentRow | None = None


@dataclass(frozen=True)
class RepairReport:
    """What a repair did: where the catalog was saved, where damaged files were put (None: there were none), how many pictures are to be
    embedded again (None: all), and by which model, when the catalog had to be made anew.
    """

    backup: Path
    quarantine: Path | None
    images_to_reembed: int | None
    model: str | None = None


@dataclass(frozen=True)
class RecoveryRecord:
    """What of a store no photo can tell: its folders, and the name of its model."""

    roots: list[Root]
    model: str | None


def find_damage(folder: Path, catalog: Catalog, *, read_all: bool) -> Iterator[Finding]:
    """Everything that is wrong with a store that could be opened; with `data`, every byte is read and every score computed again."""
    try:
        yield from _find_damage(folder, catalog, read_all=read_all)
    except StoreDamaged as error:
        yield Finding(os.fspath(catalog.path), _strip_backup_hint(error))


def _find_damage(folder: Path, catalog: Catalog, *, read_all: bool) -> Iterator[Finding]:
    if set(catalog.fetch_rows(schema.SCHEMA_QUERY)) != schema.build_expected_schema():
        yield Finding(
            os.fspath(catalog.path), f"{catalog.path} has other tables than neardup makes"
        )
        return
    seal = catalog.path.with_suffix(".seal")
    # The first commit is visible a moment before there is a seal.
    if catalog.read_seal() is None and (os.path.lexists(seal) or catalog.get_generation() > 1):
        wrong = "is not what was written" if os.path.lexists(seal) else "is missing"
        yield Finding(os.fspath(seal), f"{seal} {wrong}; the next ingest makes it anew")
    if (
        read_all or not catalog.was_closed_cleanly
    ):  # after a kill nothing but SQLite's own structure tells
        catalog.verify()
    with catalog.snapshot():
        catalog.roots.list()
        catalog.runs.get_last()
        bound = catalog.settings.get_space_and_model()
        rows = catalog.vectors.list_segments() if bound else []
        for before, row in zip(rows, rows[1:], strict=False):
            if before.last_id >= row.first_id:
                yield Finding("segments", f"{before.blake3} and {row.blake3} overlap", row)
        sound = []
        for row in rows:
            try:
                sound.append(
                    _load_verified_segment(
                        folder / "segments",
                        row,
                        bound[0].dim if bound else 0,
                        catalog,
                        read_all=read_all,
                    )
                )
            except StoreDamaged as error:
                yield Finding(
                    os.fspath(folder / "segments" / f"{row.blake3}{segments.SUFFIX}"),
                    _strip_backup_hint(error),
                    row,
                )
        for place, wrong_rows, what in _CONSISTENCY_RULES:
            if wrong := catalog.fetch_rows(f"SELECT count(*) FROM {wrong_rows}")[0][0]:
                yield Finding(place, f"{wrong:,} {what}")
        if waiting := len(catalog.images.find_unembedded()):
            ingest = format_command(folder, "ingest")
            wait = (
                "picture waits to be embedded again, and is"
                if waiting == 1
                else "pictures wait to be embedded again, and are"
            )
            yield Finding(
                UNEMBEDDED_LOCATION, f"{waiting:,} {wait} not compared; `{ingest}` does that"
            )
        if read_all and len(sound) == len(rows):
            yield from _find_wrong_scores(catalog, VectorRows(sound))


def _strip_backup_hint(error: StoreDamaged) -> str:
    return str(error).partition(f"; {RESTORE_BACKUP_HINT}")[0]


_VECTOR_IN_NO_SEGMENT = (
    "NOT EXISTS (SELECT 1 FROM segments WHERE vectors.id BETWEEN first AND last)"
)
_VERDICTS_WITHOUT_IMAGE = (
    "verdicts WHERE first NOT IN (SELECT id FROM images) OR second NOT IN (SELECT id FROM images)"
)
_CONSISTENCY_RULES = (
    ("vectors", f"vectors WHERE {_VECTOR_IN_NO_SEGMENT}", "vectors are in no segment"),
    (
        "images",
        "images WHERE vector IS NOT NULL AND vector NOT IN (SELECT id FROM vectors)",
        "images name a vector that is not there",
    ),
    (
        "files",
        "files WHERE image IS NOT NULL AND image NOT IN (SELECT id FROM images)",
        "files name an image that is not there",
    ),
    (
        "edges",
        "edges WHERE left NOT IN (SELECT id FROM vectors) OR right NOT IN (SELECT id FROM vectors)",
        "pairs name a vector that is not there",
    ),
    ("verdicts", _VERDICTS_WITHOUT_IMAGE, "verified pairs name an image that is not there"),
)
# What makes the rules hold again, in this order; the pairs are dropped, and found again. A file that is forgotten comes back as a new one.
_REPAIR_STATEMENTS = (
    f"UPDATE images SET vector = NULL WHERE vector NOT IN (SELECT id FROM vectors WHERE NOT {_VECTOR_IN_NO_SEGMENT})",
    f"DELETE FROM vectors WHERE {_VECTOR_IN_NO_SEGMENT}",
    "DELETE FROM files WHERE image NOT IN (SELECT id FROM images)",
    f"DELETE FROM {_VERDICTS_WITHOUT_IMAGE}",
)


def _load_verified_segment(
    folder: Path, row: SegmentRow, dim: int, catalog: Catalog, *, read_all: bool
) -> Segment:
    if read_all:
        segments.verify(row, folder)
    segment = Segment(folder, row, dim)
    if not np.array_equal(segment.ids, catalog.vectors.list_ids(row.first_id, row.last_id)):
        raise StoreDamaged(f"{row.blake3} holds other vectors than the catalog says")
    for start in range(0, len(segment.ids) if read_all else 0, ROWS_PER_BLOCK):
        lengths = np.linalg.norm(
            segment.vectors[start : start + ROWS_PER_BLOCK].astype(np.float32), axis=1
        )
        if not (np.abs(lengths - 1.0) < segments.STORED_PRODUCT_MARGIN).all():  # also catches NaN
            raise StoreDamaged(f"{row.blake3} holds vectors that are not of length 1")
    return segment


def _find_wrong_scores(catalog: Catalog, vector_rows: VectorRows) -> Iterator[Finding]:
    kind = np.dtype([("left", np.int64), ("right", np.int64), ("score", np.float64)])
    stored, wrong = catalog.pairs.stream(-2.0), 0
    while len(some := np.fromiter(islice(stored, ROWS_PER_BLOCK), kind)):
        some = some[
            np.isin(some["left"], vector_rows.ids) & np.isin(some["right"], vector_rows.ids)
        ]
        if len(some):
            scores = cosines(
                vector_rows.gather(vector_rows.find_rows(some["left"])),
                vector_rows.gather(vector_rows.find_rows(some["right"])),
            )
            wrong += int((scores != some["score"]).sum())
    if wrong:
        yield Finding("edges", f"{wrong:,} pairs have another score than their vectors")


def quarantine_damage(folder: Path, catalog: Catalog, findings: Sequence[Finding]) -> RepairReport:
    """Go on without what is damaged: segments are moved to quarantine, their images wait to be embedded again, pairs are found again.

    Segments that the catalog does not name go to quarantine too: an older catalog may have been put back, which they belong to.
    """
    backup = folder / "backup" / f"catalog-{_format_timestamp()}.db"
    _make_folder(backup.parent)
    catalog.back_up(backup)
    failpoint("repair saved")
    lost = {finding.segment.blake3: finding.segment for finding in findings if finding.segment}
    sound = {row.blake3 for row in catalog.vectors.list_segments()} - set(lost)
    quarantined = _link_files(
        [file for file in _list_segment_files(folder) if file.stem not in sound],
        _make_folder(folder / "quarantine"),
    )
    before = len(catalog.images.find_unembedded())
    with catalog.transaction():
        for row in lost.values():
            catalog.vectors.invalidate(row.first_id, row.last_id)
        catalog.vectors.remove_segments(lost)
        if any(
            finding.segment is None and finding.location in CATALOG_TABLES for finding in findings
        ):
            catalog.pairs.delete_all()
            for cure in _REPAIR_STATEMENTS:
                catalog.write(cure)
    failpoint("repair committed")
    for file in quarantined:
        file.unlink()
    return RepairReport(
        backup,
        folder / "quarantine" if quarantined else None,
        len(catalog.images.find_unembedded()) - before,
    )


def rebuild_catalog(folder: Path) -> RepairReport:
    """Set a damaged catalog, and all segments, which nothing else explains, aside, and begin a new one that knows the same folders.

    Cut off anywhere, the store stays one with a damaged catalog, and all that it held is still there.
    """
    quarantine = _make_folder(folder / "quarantine" / _format_timestamp())
    held = [folder / name for name in CATALOG_FILE_NAMES if (folder / name).exists()]
    files = _list_segment_files(folder)
    _link_files([*held, *files], quarantine)
    failpoint("repair linked")
    told, noted = _salvage_recovery_record(quarantine / "catalog.db"), _read_recovery_record(folder)
    _make_folder(quarantine / "new" / "tmp")
    new = Catalog(quarantine / "new", write=True)
    with new.transaction():
        for root in told.roots or noted.roots:
            new.roots.put(root)
    new.close()
    SealFile(folder / "catalog.db").write_invalid()
    failpoint("repair invalidated")
    (quarantine / "new" / "catalog.db").replace(folder / "catalog.db")
    for name in ("catalog.db-wal", "catalog.db-shm"):
        (folder / name).unlink(missing_ok=True)
    durable.sync_folder(folder)
    failpoint("repair replaced")
    for file in files:
        file.unlink()
    (quarantine / "new" / "catalog.seal").replace(folder / "catalog.seal")
    durable.sync_folder(folder)
    shutil.rmtree(quarantine / "new")
    return RepairReport(quarantine / "catalog.db", quarantine, None, told.model or noted.model)


def _list_segment_files(folder: Path) -> list[Path]:
    return [file for file in (folder / "segments").iterdir() if file.suffix == segments.SUFFIX]


def _link_files(files: Sequence[Path], folder: Path) -> list[Path]:
    """Give files another name in a folder of the same filesystem, durably; those that have it already are left alone."""
    for file in files:
        if (folder / file.name).exists():
            continue
        try:
            (folder / file.name).hardlink_to(file)
        except OSError:  # a filesystem without them
            shutil.copy2(file, folder / file.name)
    durable.sync_folder(folder)
    return list(files)


def _make_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _salvage_recovery_record(path: Path) -> RecoveryRecord:
    """What a damaged catalog still tells of its folders and its model."""
    roots: list[Root] = []
    model = None
    with (
        suppress(sqlite3.Error, ValueError, TypeError),
        closing(connect(path, OpenMode.READ_ONLY, BUSY_TIMEOUT_SECONDS)) as damaged,
    ):
        for row in damaged.execute("SELECT * FROM roots"):
            roots.append(_make_root(os.fsdecode(row[0]), json.loads(row[1]), row[2]))
        model = next((str(row[8]) for row in damaged.execute("SELECT * FROM space")), None)
    return RecoveryRecord(roots, model)


def _make_root(path: str, excludes: Sequence[str], include_hidden: object) -> Root:
    return Root(path, tuple(map(str, excludes)), bool(include_hidden))


def write_recovery_record(folder: Path, record: RecoveryRecord) -> None:
    """Write down once more, beside the catalog, what no photo can tell."""
    line = json.dumps(asdict(record)).encode()
    durable.write_checked(folder / RECOVERY_FILE_NAME, line, folder / "tmp")


def _read_recovery_record(folder: Path) -> RecoveryRecord:
    """What was written down beside the catalog; nothing where that is damaged too."""
    line = durable.read_checked(folder / RECOVERY_FILE_NAME)
    with suppress(ValueError, TypeError, KeyError):
        if line is not None:
            record = json.loads(line)
            roots = [_read_root(root) for root in record["roots"]]
            return RecoveryRecord(roots, record["model"])
    return RecoveryRecord([], None)


def _read_root(root: dict[str, Any]) -> Root:
    """Make a root from the recovery record; stores up to format 6 say `hidden`."""
    include_hidden = root["hidden"] if "hidden" in root else root["include_hidden"]
    return _make_root(root["path"], root["excludes"], include_hidden)


def _format_timestamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
