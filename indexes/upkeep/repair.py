"""Repair a store: quarantine damaged parts, which the next ingest makes again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from indexes.catalog.catalog import Catalog
from indexes.catalog.seal import SealFile
from indexes.durable import files as durable
from indexes.durable.failpoints import failpoint
from indexes.errors import StoreDamaged
from indexes.folder import StoreFolder, lock_ingest, lock_writes
from indexes.paths import (
    BACKUP_NAME,
    CATALOG_FILE_NAMES,
    CATALOG_NAME,
    CATALOG_SIDE_FILE_NAMES,
    QUARANTINE_NAME,
    SCRATCH_NAME,
    SEAL_NAME,
    SEGMENTS_NAME,
)
from indexes.upkeep.check import (
    CONSISTENCY_RULES,
    UNEMBEDDED_LOCATION,
    VECTOR_IN_NO_SEGMENT,
    VERDICTS_WITHOUT_IMAGE,
    Finding,
    check,
)
from indexes.upkeep.recovery import (
    load_decisions,
    load_recovery_record,
    salvage_decisions,
    salvage_recovery_record,
    save_decisions,
)
from indexes.vectors import segments

# Statements that make CONSISTENCY_RULES hold again, in this order. Pairs are dropped and found
# again; a file that is removed comes back as a new one.
REPAIR_STATEMENTS = (
    "UPDATE images SET vector = NULL WHERE vector NOT IN"
    f" (SELECT id FROM vectors WHERE NOT {VECTOR_IN_NO_SEGMENT})",
    f"DELETE FROM vectors WHERE {VECTOR_IN_NO_SEGMENT}",
    "DELETE FROM files WHERE image NOT IN (SELECT id FROM images)",
    f"DELETE FROM {VERDICTS_WITHOUT_IMAGE}",
)


@dataclass(frozen=True)
class RepairReport:
    """The result of a repair.

    `backup` is a copy of the catalog, `quarantine` the folder of damaged files (None: there were
    none). `images_to_reembed` is None for all, which the catalog was rebuilt for; `model` is then
    the name of the model, if it is known.
    """

    backup: Path
    quarantine: Path | None
    images_to_reembed: int | None
    model: str | None = None


def repair(folder: Path, *, read_all: bool = False) -> tuple[list[Finding], RepairReport | None]:
    """Check a store and quarantine damaged parts; the next ingest embeds lost vectors again.

    Nothing is deleted. The catalog is backed up first. A damaged catalog goes to quarantine with
    all segments, and only the roots and the decisions are kept. Returns the findings and a report,
    which is None if there was nothing to repair. Raises StoreMissing, StoreVersionMismatch, and
    StoreLocked during an ingest.
    """
    with suppress(StoreDamaged):
        StoreFolder(folder).close()  # without a store, no lock file is created
    with lock_ingest(folder):
        findings = check(folder, read_all=read_all)
        locations = {finding.location for finding in findings}
        if locations <= {UNEMBEDDED_LOCATION}:
            return findings, None
        if os.fspath(folder / CATALOG_NAME) not in locations:
            with closing(StoreFolder(folder, write=True)) as opened:
                report = quarantine_damage(folder, opened.catalog, findings)
                save_decisions(folder, opened.catalog)
                return findings, report
        with lock_writes(folder):
            return findings, rebuild_catalog(folder)


def quarantine_damage(folder: Path, catalog: Catalog, findings: Sequence[Finding]) -> RepairReport:
    """Move damaged segments to quarantine; their images lose their vectors, and pairs are dropped.

    Segments that the catalog does not name go to quarantine too: if an older catalog was restored,
    they belong to the newer one.
    """
    backup = folder / BACKUP_NAME / f"catalog-{_format_timestamp()}.db"
    _make_folder(backup.parent)
    catalog.back_up(backup)
    failpoint("repair saved")
    lost_rows = {finding.segment.blake3: finding.segment for finding in findings if finding.segment}
    sound_names = {row.blake3 for row in catalog.vectors.list_segments()} - set(lost_rows)
    unsound_files = [file for file in _list_segment_files(folder) if file.stem not in sound_names]
    quarantine = _make_folder(folder / QUARANTINE_NAME)
    _link_files(unsound_files, quarantine)
    unembedded_before = len(catalog.images.find_unembedded())
    with catalog.transaction():
        for row in lost_rows.values():
            catalog.vectors.invalidate(row.first_id, row.last_id)
        catalog.vectors.remove_segments(lost_rows)
        if _breaks_a_rule(findings):
            catalog.pairs.delete_all()
            for statement in REPAIR_STATEMENTS:
                catalog.write(statement)
    failpoint("repair committed")
    for file in unsound_files:
        file.unlink()
    images_to_reembed = len(catalog.images.find_unembedded()) - unembedded_before
    return RepairReport(backup, quarantine if unsound_files else None, images_to_reembed)


def _breaks_a_rule(findings: Sequence[Finding]) -> bool:
    tables = {rule.table for rule in CONSISTENCY_RULES}
    return any(finding.segment is None and finding.location in tables for finding in findings)


def rebuild_catalog(folder: Path) -> RepairReport:
    """Move a damaged catalog to quarantine with all segments, and create one with the same roots.

    The decisions are those of the copy beside the catalog, and those that can still be read in it.
    Nothing but the catalog says which image a vector belongs to, so segments are of no use without
    it. Cut off anywhere, the store still has a damaged catalog, and keeps all that it held.
    """
    quarantine = _make_folder(folder / QUARANTINE_NAME / _format_timestamp())
    catalog_files = [folder / name for name in CATALOG_FILE_NAMES if (folder / name).exists()]
    segment_files = _list_segment_files(folder)
    _link_files([*catalog_files, *segment_files], quarantine)
    failpoint("repair linked")
    salvaged = salvage_recovery_record(quarantine / CATALOG_NAME)
    saved = load_recovery_record(folder)
    new_folder = quarantine / "new"
    _make_folder(new_folder / SCRATCH_NAME)
    with closing(Catalog(new_folder, write=True)) as new_catalog:
        with new_catalog.transaction():
            for root in salvaged.roots or saved.roots:
                new_catalog.roots.put(root)
            new_catalog.decisions.put(load_decisions(folder))
            new_catalog.decisions.put(salvage_decisions(quarantine / CATALOG_NAME))
        save_decisions(folder, new_catalog)
    # From here on the catalog counts as damaged, whichever of the two files is in place.
    SealFile(folder / CATALOG_NAME).write_invalid()
    failpoint("repair invalidated")
    (new_folder / CATALOG_NAME).replace(folder / CATALOG_NAME)
    for name in CATALOG_SIDE_FILE_NAMES:
        (folder / name).unlink(missing_ok=True)
    durable.sync_folder(folder)
    failpoint("repair replaced")
    for file in segment_files:
        file.unlink()
    (new_folder / SEAL_NAME).replace(folder / SEAL_NAME)
    durable.sync_folder(folder)
    shutil.rmtree(new_folder)
    model = salvaged.model or saved.model
    return RepairReport(quarantine / CATALOG_NAME, quarantine, None, model)


def _list_segment_files(folder: Path) -> list[Path]:
    files = (folder / SEGMENTS_NAME).iterdir()
    return [file for file in files if file.suffix == segments.SUFFIX]


def _link_files(files: Sequence[Path], folder: Path) -> None:
    for file in files:
        durable.link(file, folder, scratch=folder)


def _make_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _format_timestamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
