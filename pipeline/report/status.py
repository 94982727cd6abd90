"""The state of a store as JSON and text, and what a person must know when reading its answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexes.paths import format_command
from indexes.records import Run, RunOutcome
from indexes.store import Store
from pipeline.grouping.keep_rules import DiskStatus, LibraryFile
from pipeline.query.thresholds import get_effective_floor
from pipeline.report.document import make_document, serialize_coverage, serialize_space
from pipeline.report.format import (
    MAX_LISTED_ITEMS,
    escape_unprintable,
    format_bytes,
    format_failure,
    pluralize,
)
from pipeline.report.ingest import format_flag_count, format_reason_counts
from pipeline.report.maintenance import format_migration_progress, serialize_pending_migration

# --- JSON ---


def serialize_status(store: Store) -> dict[str, Any]:
    """Serialize the model, roots, contents, pairs and last run of a store."""
    segments = store.catalog.vectors.list_segments()
    space = store.space
    saved = store.catalog.settings.get_saved_thresholds()
    watermark = store.catalog.pairs.get_watermark()
    files = (path for path in store.folder.rglob("*") if path.is_file())
    return make_document(
        {
            "store": os.fspath(store.folder),
            "model": store.model,
            "space": serialize_space(space) if space else None,
            "floor": space.floor if space else None,
            "raised_floor": _get_raised_floor(store),
            "threshold": space.threshold if space else None,
            "saved_thresholds": asdict(saved) if saved else None,
            "roots": [
                {"path": root.path, "excludes": list(root.excludes), "hidden": root.include_hidden}
                for root in store.catalog.roots.list()
            ],
            "coverage": serialize_coverage(store),
            "vectors": sum(segment.vector_count for segment in segments),
            "segments": len(segments),
            "join": store.catalog.runs.get_last_join(),
            "pairs": store.catalog.pairs.count(),
            "verdicts": store.catalog.verdicts.count_by_relation(),
            "recall": watermark.recall if watermark else None,
            "migration": serialize_pending_migration(store),
            "bytes_on_disk": sum(path.stat().st_size for path in files),
            "last_run": _serialize_run(store.catalog.runs.get_last()),
        }
    )


def _serialize_run(run: Run | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "started": run.started,
        "ended": run.ended,
        "outcome": run.outcome,
        "coverage": run.coverage,
    }


def _get_raised_floor(store: Store) -> float | None:
    """Get the floor above the model's own that the store had to raise; None if it did not."""
    space = store.space
    if space is None:
        return None
    floor = get_effective_floor(store, space)
    return floor if floor > space.floor else None


# --- text ---


def format_status(status: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a serialized status, each with its label in front."""
    size = format_bytes(status["bytes_on_disk"])
    yield f"store       {escape_unprintable(status['store'])}  ({size})"
    yield from _format_model_lines(status)
    for root in status["roots"]:
        excludes = ", ".join(map(escape_unprintable, root["excludes"]))
        without = f"  without {excludes}" if excludes else ""
        hidden = "  with hidden files" if root["hidden"] else ""
        yield f"root        {escape_unprintable(root['path'])}{without}{hidden}"
    yield from _format_content_lines(status)
    yield from _format_pair_lines(status)
    yield from _format_last_run_lines(status)


def _format_model_lines(status: dict[str, Any]) -> Iterator[str]:
    """Yield the model with its thresholds, those that were saved, and a pending migration."""
    raised_floor = status["raised_floor"]
    if space := status["space"]:
        raised = f", raised to {raised_floor:g}" if raised_floor else ""
        thresholds = f"threshold {status['threshold']}, floor {status['floor']}{raised}"
        yield f"model       {status['model']}  ({space['dim']} dimensions, {thresholds})"
    if saved := status["saved_thresholds"]:
        values = f"threshold {saved['threshold']:g}, agreement {saved['min_agreement']:g}"
        yield f"saved       {values}, by `calibrate --save`"
        if saved["threshold"] > (raised_floor or status["floor"]):
            yield "            photos within photos are left out if they score below that threshold"
    if migration := status["migration"]:
        progress = format_migration_progress(migration)
        yield f"migration   to {migration['model']} is running or did not finish, {progress}"


def _format_content_lines(status: dict[str, Any]) -> Iterator[str]:
    """Yield the counts of files, images and vectors."""
    coverage = status["coverage"]
    missing = f" ({coverage['missing']:,} missing)" if coverage["missing"] else ""
    files = f"{pluralize(coverage['files'], 'file')}{missing}"
    images = pluralize(coverage["images"], "distinct photo")
    yield f"photos      {files}, {images}, {coverage['featureless']:,} featureless"
    if flagged := coverage["flagged"]:
        counts = (format_flag_count(flag, count) for flag, count in flagged.items())
        yield f"flagged     {', '.join(counts)}"
    yield f"not read    {format_reason_counts(coverage['failed_by_reason'])}"
    yield f"vectors     {status['vectors']:,} in {pluralize(status['segments'], 'segment')}"


def _format_pair_lines(status: dict[str, Any]) -> Iterator[str]:
    """Yield how many pairs are known and verified, and how the last join found its pairs."""
    recall = ""
    if status["recall"] is not None and status["recall"] < 1:
        exact = format_command(Path(status["store"]), "ingest", "--join", "exact")
        recall = f", at least {status['recall']:.2%} of all (95 % confidence)"
        recall += f"; `{exact}` finds the rest"
    yield f"pairs       {status['pairs']:,} known{recall}"
    if verdicts := status["verdicts"]:
        relations = ", ".join(f"{count:,} {relation}" for relation, count in verdicts.items())
        yield f"verified    {sum(verdicts.values()):,}: {relations}"
    if join := format_join(status["join"]):
        yield f"last join   {join}"


def format_join(join: dict[str, Any] | None) -> str | None:
    """Format how the last join found the pairs of new vectors, and how many; None without one."""
    if join is None:
        return None
    method = "exact" if join["method"] == "exact" else "inverted lists"
    pairs = f"{pluralize(join['pairs'], 'pair')} found at {join['floor']:g} or above"
    text = f"{method}, {pairs} ({join['reason']})"
    if recall := join["recall"]:
        sampled = f"{recall['found']:,} of {recall['sampled']:,} sampled pairs found"
        text += f"; {sampled}, at least {recall['lower_bound_95']:.2%} of all (95 % confidence)"
    return text


def _format_last_run_lines(status: dict[str, Any]) -> Iterator[str]:
    """Yield how the last ingest ended, and the first folders that it could not read."""
    last = status["last_run"]
    if not last:
        return
    outcome = "running, or cut off" if last["outcome"] == RunOutcome.RUNNING else last["outcome"]
    problems = _format_ingest_problems(last["coverage"])
    yield f"last ingest {outcome}, {last['ended'] or last['started']}{problems}"
    unreadable = last["coverage"].get("unreadable_paths", [])
    for path in unreadable[:MAX_LISTED_ITEMS]:
        yield f"unreadable  {format_failure(**path)}"
    if len(unreadable) > MAX_LISTED_ITEMS:
        more = f"{len(unreadable) - MAX_LISTED_ITEMS:,} more"
        list_all = format_command(Path(status["store"]), "status", "--failures")
        yield f"unreadable  {more}, see `{list_all}`"


def _format_ingest_problems(coverage: dict[str, Any]) -> str:
    """Format why an ingest ended with exit code 3, from its coverage; empty if it did not."""
    failed, missing, absent = (coverage.get(key) for key in ("failed", "missing", "absent_roots"))
    problems = [
        f"failed {format_reason_counts(failed)}" if failed else "",
        f"{missing:,} missing, still listed" if missing else "",
        f"not a folder any more: {', '.join(map(escape_unprintable, absent))}" if absent else "",
    ]
    return "".join(f"; {problem}" for problem in problems if problem)


# --- warnings that stand before an answer ---


def format_warnings(store: Store) -> Iterable[str]:
    """Yield why the answers of a store may be incomplete; nothing if they are complete."""
    if unfinished := format_unfinished_ingest(store):
        yield unfinished
    if floor := _get_raised_floor(store):
        yield (
            f"too many similar photos: only pairs scoring {floor:g} or more were compared;"
            " weaker matches are missing"
        )


def format_stale_warning(store: Store, files: Iterable[LibraryFile]) -> str | None:
    """Describe how many files are gone or changed since the last ingest; None if none is."""
    statuses = [file.disk_status for file in files]
    gone, changed = statuses.count(DiskStatus.GONE), statuses.count(DiskStatus.CHANGED)
    clauses = []
    if gone:
        clauses.append(f"{gone:,} of these photos {'is' if gone == 1 else 'are'} gone")
    if changed:
        subject = f"{changed:,}" if gone else f"{changed:,} of these photos"
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
        return f"the store is empty; add photos with `{add}`"
    if waiting := len(store.catalog.images.find_unembedded()):
        have = "has no vector and is" if waiting == 1 else "have no vector and are"
        photos = pluralize(waiting, "photo")
        return f"{photos} {have} not compared; `{ingest}` embeds those whose files it finds"
    if not store.catalog.verdicts.has_any_or_needs_none():
        return f"the pairs of this store are not verified yet; run `{ingest}`"
    if last_run.outcome is RunOutcome.COMPLETE:
        return None
    return (
        "the last ingest is running or did not finish, so photos may be missing from this answer;"
        f" `{ingest}` continues it"
    )
