"""The state of a store as JSON and text, and what a person must know when reading its answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indexes.coverage import Coverage, JoinReport, UnreadablePath
from indexes.paths import escape_unprintable, format_command
from indexes.records import Counts, Root, Run, RunOutcome, SavedThresholds, Space
from indexes.store import Store
from pipeline.grouping.keep_rules import DiskStatus, LibraryFile
from pipeline.query.assets import find_orphans
from pipeline.query.thresholds import get_effective_floor
from pipeline.report.document import make_document, serialize_counts, serialize_space
from pipeline.report.format import (
    MAX_LISTED_ITEMS,
    TOO_PLAIN,
    format_bytes,
    format_failure,
    pluralize,
)
from pipeline.report.ingest import format_flag_count, format_reason_counts
from pipeline.report.maintenance import (
    PendingMigrationReport,
    format_migration_progress,
    report_pending_migration,
    serialize_pending_migration,
)


@dataclass(frozen=True)
class StatusReport:
    """The answer of `status`.

    `raised_floor` is the floor of the store if it is above the model's own. `pairs_left_out` counts
    the pairs that are no candidates, as both photos have many nearer ones; `verdicts` counts them
    by relation. `recall` is that of the join; None before the first. `orphans` are the paths of
    sidecars and films of live photos whose photo is not there.
    """

    store: Path
    model: str | None
    space: Space | None
    raised_floor: float | None
    saved_thresholds: SavedThresholds | None
    roots: Sequence[Root]
    counts: Counts
    vectors: int
    segments: int
    last_join: JoinReport | None
    pairs: int
    pairs_left_out: int
    verdicts: Mapping[str, int]
    recall: float | None
    migration: PendingMigrationReport | None
    bytes_on_disk: int
    last_run: Run | None
    orphans: Sequence[str] = ()


def report_status(store: Store) -> StatusReport:
    """Report the model, roots, contents, pairs and last run of a store."""
    segments = store.catalog.vectors.list_segments()
    watermark = store.catalog.pairs.get_watermark()
    files = (path for path in store.folder.rglob("*") if path.is_file())
    return StatusReport(
        store=store.folder,
        model=store.model,
        space=store.space,
        raised_floor=_get_raised_floor(store),
        saved_thresholds=store.catalog.settings.get_saved_thresholds(),
        roots=store.catalog.roots.list(),
        counts=store.catalog.files.get_counts(),
        vectors=sum(segment.vector_count for segment in segments),
        segments=len(segments),
        last_join=store.catalog.runs.get_last_join(),
        pairs=store.catalog.pairs.count(),
        pairs_left_out=(store.catalog.verdicts.count_left_out(watermark.floor) if watermark else 0),
        verdicts=store.catalog.verdicts.count_by_relation(),
        recall=watermark.recall if watermark else None,
        migration=report_pending_migration(store),
        bytes_on_disk=sum(path.stat().st_size for path in files),
        last_run=store.catalog.runs.get_last(),
        orphans=[orphan.path for orphan in find_orphans(store)],
    )


def _get_raised_floor(store: Store) -> float | None:
    """Get the floor above the model's own that the store had to raise; None if it did not."""
    space = store.space
    if space is None:
        return None
    floor = get_effective_floor(store, space)
    return floor if floor > space.floor else None


# --- JSON ---


def serialize_status(
    report: StatusReport, failures: Sequence[UnreadablePath] | None = None
) -> dict[str, Any]:
    """Serialize the answer of `status`, with the failures if they were asked for."""
    space, saved, migration = report.space, report.saved_thresholds, report.migration
    document = make_document(
        {
            "store": os.fspath(report.store),
            "model": report.model,
            "space": serialize_space(space) if space else None,
            "floor": space.floor if space else None,
            "raised_floor": report.raised_floor,
            "threshold": space.threshold if space else None,
            "saved_thresholds": asdict(saved) if saved else None,
            "roots": [
                {"path": root.path, "excludes": list(root.excludes), "hidden": root.include_hidden}
                for root in report.roots
            ],
            "coverage": serialize_counts(report.counts, report.last_run),
            "vectors": report.vectors,
            "segments": report.segments,
            "join": asdict(report.last_join) if report.last_join else None,
            "pairs": report.pairs,
            "pairs_left_out": report.pairs_left_out,
            "verdicts": report.verdicts,
            "recall": report.recall,
            "migration": serialize_pending_migration(migration) if migration else None,
            "bytes_on_disk": report.bytes_on_disk,
            "last_run": _serialize_run(report.last_run) if report.last_run else None,
            "orphans": list(report.orphans),
        }
    )
    if failures is not None:
        document["failures"] = [
            {"path": item.path, "reason": item.reason, "detail": item.detail or ""}
            for item in failures
        ]
    return document


def _serialize_run(run: Run) -> dict[str, Any]:
    return {
        "started": run.started,
        "ended": run.ended,
        "outcome": run.outcome,
        "coverage": run.coverage.to_dict() if run.coverage else {},
    }


# --- text ---


def format_status(report: StatusReport) -> Iterator[str]:
    """Yield the lines of the answer of `status`, each with its label in front."""
    size = format_bytes(report.bytes_on_disk)
    yield f"store       {escape_unprintable(os.fspath(report.store))}  ({size})"
    yield from _format_model_lines(report)
    for root in report.roots:
        excludes = ", ".join(map(escape_unprintable, root.excludes))
        without = f"  without {excludes}" if excludes else ""
        hidden = "  with hidden files" if root.include_hidden else ""
        yield f"root        {escape_unprintable(root.path)}{without}{hidden}"
    yield from _format_content_lines(report)
    yield from _format_pair_lines(report)
    if report.last_run:
        yield from _format_run_lines(report.last_run, report.store)


def _format_model_lines(report: StatusReport) -> Iterator[str]:
    """Yield the model with its thresholds, those that were saved, and a pending migration."""
    space, saved, migration = report.space, report.saved_thresholds, report.migration
    if space:
        raised = f", raised to {report.raised_floor:g}" if report.raised_floor else ""
        thresholds = f"threshold {space.threshold}, floor {space.floor}{raised}"
        yield f"model       {report.model}  ({space.dim} dimensions, {thresholds})"
    if space and saved:
        values = f"threshold {saved.threshold:g}, agreement {saved.min_agreement:g}"
        yield f"saved       {values}, by `calibrate --save`"
        if saved.threshold > (report.raised_floor or space.floor):
            yield "            images within images are left out if they score below that threshold"
    if migration:
        progress = format_migration_progress(migration)
        yield f"migration   to {migration.pending.model} is running or did not finish, {progress}"


def _format_content_lines(report: StatusReport) -> Iterator[str]:
    """Yield the counts of files, images and vectors."""
    counts = report.counts
    missing = f" ({counts.missing:,} missing)" if counts.missing else ""
    files = f"{pluralize(counts.files, 'file')}{missing}"
    images = pluralize(counts.images, "distinct photo")
    yield f"photos      {files}, {images}, {counts.featureless:,} {TOO_PLAIN}"
    if counts.flagged:
        flagged = (format_flag_count(flag, count) for flag, count in counts.flagged.items())
        yield f"flagged     {', '.join(flagged)}"
    yield f"not read    {format_reason_counts(counts.failed_by_reason)}"
    if orphans := report.orphans:
        example = escape_unprintable(orphans[0])
        files = pluralize(len(orphans), "file")
        yield f"orphans     {files} whose photo or film is not there, such as {example}"
    yield f"vectors     {report.vectors:,} in {pluralize(report.segments, 'segment')}"


def _format_pair_lines(report: StatusReport) -> Iterator[str]:
    """Yield how many pairs are known and verified, and how the last join found its pairs."""
    recall = ""
    if report.recall is not None and report.recall < 1:
        exact = format_command(report.store, "ingest", "--join", "exact")
        recall = f", at least {report.recall:.2%} of all (95 % confidence)"
        recall += f"; `{exact}` finds the rest"
    left_out = ""
    if report.pairs_left_out:
        left_out = f"; {report.pairs_left_out:,} not compared: both photos have many nearer ones"
    yield f"pairs       {report.pairs:,} known{recall}{left_out}"
    if verdicts := report.verdicts:
        relations = ", ".join(f"{count:,} {relation}" for relation, count in verdicts.items())
        yield f"verified    {sum(verdicts.values()):,}: {relations}"
    if report.last_join:
        yield f"last join   {_format_join(report.last_join)}"


def _format_join(join: JoinReport) -> str:
    """Format how a join found the pairs of new vectors, and how many."""
    method = "exact" if join.method == "exact" else "inverted lists"
    pairs = f"{pluralize(join.pairs, 'pair')} found at {join.floor:g} or above"
    text = f"{method}, {pairs} ({join.reason})"
    if recall := join.recall:
        sampled = f"{recall.found:,} of {recall.sampled:,} sampled pairs found"
        text += f"; {sampled}, at least {recall.lower_bound_95:.2%} of all (95 % confidence)"
    return text


def _format_run_lines(run: Run, store: Path) -> Iterator[str]:
    """Yield how an ingest ended, and the first folders that it could not read."""
    outcome = "running, or cut off" if run.outcome is RunOutcome.RUNNING else run.outcome
    problems = _format_ingest_problems(run.coverage) if run.coverage else ""
    yield f"last ingest {outcome}, {run.ended or run.started}{problems}"
    unreadable = run.coverage.unreadable_paths if run.coverage else []
    for item in unreadable[:MAX_LISTED_ITEMS]:
        yield f"unreadable  {format_failure(item.path, item.reason, item.detail)}"
    if len(unreadable) > MAX_LISTED_ITEMS:
        more = f"{len(unreadable) - MAX_LISTED_ITEMS:,} more"
        list_all = format_command(store, "status", "--failures")
        yield f"unreadable  {more}, see `{list_all}`"


def _format_ingest_problems(coverage: Coverage) -> str:
    """Format the problems of an ingest, old and new, from its coverage; empty if it had none."""
    failed, missing, absent = coverage.failed, coverage.missing, coverage.absent_roots
    unverified = coverage.verification.unverified if coverage.verification else {}
    problems = [
        f"failed {format_reason_counts(failed)}" if failed else "",
        f"{missing:,} missing, still listed" if missing else "",
        f"not a folder any more: {', '.join(map(escape_unprintable, absent))}" if absent else "",
        f"pairs not verified {format_reason_counts(unverified)}" if unverified else "",
    ]
    return "".join(f"; {problem}" for problem in problems if problem)


# --- warnings that stand before an answer ---


def format_warnings(store: Store) -> Iterable[str]:
    """Yield why the answers of a store may be incomplete; nothing if they are complete."""
    if unfinished := format_unfinished_ingest(store):
        yield unfinished
    if floor := _get_raised_floor(store):
        yield (
            f"too many similar images: only pairs scoring {floor:g} or more were compared;"
            " weaker matches are missing"
        )


def format_stale_warning(store: Store, files: Iterable[LibraryFile]) -> str | None:
    """Describe how many files are gone or changed since the last ingest; None if none is."""
    statuses = [file.disk_status for file in files]
    gone, changed = statuses.count(DiskStatus.GONE), statuses.count(DiskStatus.CHANGED)
    clauses = []
    if gone:
        clauses.append(f"{gone:,} of these images {'is' if gone == 1 else 'are'} gone")
    if changed:
        subject = f"{changed:,}" if gone else f"{changed:,} of these images"
        clauses.append(f"{subject} {'has' if changed == 1 else 'have'} changed")
    if not clauses:
        return None
    return (
        f"{' and '.join(clauses)} since the last ingest, as marked; run"
        f" `{format_command(store.folder, 'ingest')}` before you rely on this answer"
    )


def format_unfinished_ingest(store: Store) -> str | None:
    """Format what the last ingest left undone, and the command that does it; None if nothing."""
    last_run = store.catalog.runs.get_last()
    ingest = format_command(store.folder, "ingest")
    if last_run is None:
        add = format_command(store.folder, "ingest", "FOLDER")
        return f"the store is empty; add images with `{add}`"
    if waiting := len(store.catalog.images.find_unembedded()):
        have = "has no vector and is" if waiting == 1 else "have no vector and are"
        images = pluralize(waiting, "image")
        return f"{images} {have} not compared; `{ingest}` embeds those whose files it finds"
    if not store.catalog.verdicts.has_any_if_needed():
        return f"the pairs of this store are not verified yet; run `{ingest}`"
    if last_run.outcome is RunOutcome.COMPLETE:
        return None
    return (
        "the last ingest is running or did not finish, so images may be missing from this answer;"
        f" `{ingest}` continues it"
    )
