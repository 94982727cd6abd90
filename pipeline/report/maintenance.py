"""Results of check, repair, compact and migrate as JSON and text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from indexes.coverage import CompactionReport
from indexes.paths import escape_unprintable, format_command
from indexes.store import Store
from indexes.upkeep.check import Finding
from indexes.upkeep.migration import PendingMigration
from indexes.upkeep.repair import RepairReport
from pipeline.ingest.audit import AuditResult
from pipeline.report.document import make_document
from pipeline.report.format import format_bytes, pluralize

# --- check ---


def serialize_check(findings: Sequence[Finding], audits: Sequence[AuditResult]) -> dict[str, Any]:
    """Serialize what is wrong with a store, and the scores of images that were embedded again."""
    return make_document(
        {
            "findings": [
                {"location": finding.location, "problem": finding.problem} for finding in findings
            ],
            "sample": [
                {"path": audit.path, "score": round(audit.score, 6), "same": audit.is_unchanged}
                for audit in audits
            ],
        }
    )


def format_check(findings: Sequence[Finding], audits: Sequence[AuditResult]) -> Iterable[str]:
    """Yield a line for each finding and each image that gives another vector, else one line."""
    for finding in findings:
        names_location = finding.location in finding.problem
        yield escape_unprintable(
            finding.problem if names_location else f"{finding.location}: {finding.problem}"
        )
    changed = [audit for audit in audits if not audit.is_unchanged]
    for audit in changed:
        score = f"its cosine with the stored vector is {audit.score:.4f}"
        yield f"{escape_unprintable(audit.path)}: embedded again, {score}"
    if audits and not changed:
        lowest = min(audit.score for audit in audits)
        images = pluralize(len(audits), "image")
        yield f"{images} embedded again, lowest cosine with the stored vector {lowest:.5f}"
    if not findings and not changed:
        yield "the store is sound"


# --- repair ---


def format_repair_plan(findings: Sequence[Finding], catalog_path: str) -> str:
    """Format what a repair would do about the findings; `catalog_path` is that of the database."""
    if any(finding.location == catalog_path for finding in findings):
        return (
            "quarantines the catalog and all segments, scans the same folders again,"
            " and embeds every image again"
        )
    if any(finding.segment for finding in findings):
        return "quarantines these segments and embeds their images again"
    return "makes the catalog consistent again and embeds the images that need it"


def format_repair(report: RepairReport) -> Iterable[str]:
    """Yield where a repair put backup and damaged files, and how much must be embedded again."""
    yield f"catalog saved as {escape_unprintable(os.fspath(report.backup))}"
    if report.quarantine:
        yield f"damaged files moved to {escape_unprintable(os.fspath(report.quarantine))}"
    if report.images_to_reembed is None:
        yield "all images must be embedded again; thresholds from `calibrate --save` are lost"
    else:
        yield f"{pluralize(report.images_to_reembed, 'image')} to embed again"


# --- compact ---


def serialize_compaction(report: CompactionReport) -> dict[str, Any]:
    """Serialize what a compaction did."""
    return make_document(asdict(report))


def format_compaction(report: CompactionReport) -> str:
    """Format what a compaction did in one line."""
    segments = pluralize(report.segments_before, "segment")
    if not report.bytes_written and not report.vectors_dropped:
        return f"{segments}; nothing to merge or drop"
    dropped = f"{pluralize(report.vectors_dropped, 'vector')} dropped"
    written = f"{format_bytes(report.bytes_written)} written"
    return f"{segments} before, {report.segments_after:,} now; {dropped}, {written}"


# --- migrate ---


@dataclass(frozen=True)
class MigrationReport:
    """The outcome of `migrate`: the model that the store uses now, whether that is another one than
    before, images in the store, images embedded in this run, images that wait for their file, and
    the pending migration that --restart dropped.
    """

    model: str
    migrated: bool
    images: int
    embedded: int
    waiting: int
    dropped: PendingMigration | None


def serialize_migration(report: MigrationReport) -> dict[str, Any]:
    """Serialize the answer of `migrate`."""
    return make_document(asdict(report))


def format_migration(report: MigrationReport) -> str:
    """Format the closing line of a migration that changed the model of the store."""
    migrated = report.images - report.waiting
    images = pluralize(report.images, "image")
    text = f"{migrated:,} of {images} now embedded with {report.model}"
    text += f", {report.embedded:,} in this run"
    if not report.waiting:
        return text
    wait = "is not compared until an ingest finds its file"
    if report.waiting > 1:
        wait = "are not compared until an ingest finds their files"
    return f"{text}; {report.waiting:,} {wait}"


@dataclass(frozen=True)
class PendingMigrationReport:
    """A migration that has not ended, and the commands that resume it and drop it."""

    pending: PendingMigration
    resume_command: str
    abort_command: str


def report_pending_migration(store: Store) -> PendingMigrationReport | None:
    """Report the migration of a store that has not ended; None without one."""
    pending = store.get_pending_migration()
    if pending is None:
        return None
    assert store.model is not None  # a migration starts from a store that is bound to a model
    migrate = ("migrate", "--model")
    return PendingMigrationReport(
        pending,
        resume_command=format_command(store.folder, *migrate, pending.model),
        abort_command=format_command(store.folder, *migrate, store.model, "--restart"),
    )


def serialize_pending_migration(report: PendingMigrationReport) -> dict[str, Any]:
    """Serialize a migration that has not ended."""
    commands = {"resume": report.resume_command, "abort": report.abort_command}
    return asdict(report.pending) | commands


def format_pending_migration(report: PendingMigrationReport) -> str:
    """Format that a migration has not ended, and how to resume or drop it."""
    model = report.pending.model
    return f"a migration to {model} is pending, {format_migration_progress(report)}"


def format_migration_progress(report: PendingMigrationReport) -> str:
    """Format how far a migration is, and the commands that resume and drop it."""
    pending = report.pending
    images = f"{pending.done:,} of {pluralize(pending.images, 'image')} embedded"
    resume, abort = report.resume_command, report.abort_command
    return f"{images}; `{resume}` resumes it, `{abort}` drops it"
