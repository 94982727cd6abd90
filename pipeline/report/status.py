"""What a store is and holds, and what was done to it, as JSON that scripts can rely on, and as text that a person can read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexes.paths import format_command
from indexes.store import Store
from indexes.upkeep.compaction import CompactionReport
from indexes.upkeep.repair import Finding, RepairReport
from pipeline.ingest.audit import AuditResult
from pipeline.ingest.batch_writer import Coverage
from pipeline.query.thresholds import get_effective_floor
from pipeline.report.answers import (
    MAX_LISTED_ITEMS,
    SCHEMA_VERSION,
    escape_unprintable,
    format_bytes,
    format_failure,
    pluralize,
    serialize_coverage,
    serialize_space,
)


def format_coverage(coverage: Coverage) -> str:
    """The closing line of an ingest: every file that was seen is in exactly one of its counts."""
    parts = [
        pluralize(coverage.seen, "file") + " seen",
        f"{coverage.new:,} new",
        f"{coverage.unchanged:,} unchanged",
        f"{coverage.changed:,} changed" if coverage.changed else "",
        f"{coverage.moved:,} moved",
        f"{coverage.gone:,} gone",
        f"{coverage.left_out:,} left out now" if coverage.left_out else "",
        f"{coverage.missing:,} missing but kept" if coverage.missing else "",
        "skipped " + _format_reason_counts(coverage.skipped),
        "failed " + _format_reason_counts(coverage.failed),
    ]
    noted = "".join(
        f", {_format_flag_count(note, number)}" for note, number in sorted(coverage.flagged.items())
    )
    return (
        ", ".join(part for part in parts if part)
        + f"; {pluralize(coverage.embedded, 'picture')} embedded{noted}"
    )


def _format_flag_count(flag: str, count: int) -> str:
    """So many pictures with a note."""
    return {"pages": f"{count:,} with pages", "preview": pluralize(count, "preview")}.get(
        flag, f"{count:,} {flag}"
    )


def format_extra_hints(coverage: Coverage) -> Iterable[str]:
    """Photos that were skipped because an extra is not installed, and how to get it."""
    for reason, extra, word in (
        ("raw photo", "raw", "raw photo"),
        ("no decoder", "jxl", "JPEG XL picture"),
    ):
        if number := coverage.skipped[reason]:
            yield f"{pluralize(number, word)} skipped; to see {'it' if number == 1 else 'them'}: pip install 'neardup[{extra}]'"


def _format_reason_counts(counts: dict[str, int]) -> str:
    if not counts:
        return "0"
    listed = ", ".join(
        f"{number:,} {reason}"
        for reason, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return f"{sum(counts.values()):,} ({listed})"


def serialize_status(store: Store) -> dict[str, Any]:
    """What a store is and holds."""
    segments = store.catalog.vectors.list_segments()
    last = store.catalog.runs.get_last()
    space = store.space
    return {
        "schema_version": SCHEMA_VERSION,
        "store": os.fspath(store.folder),
        "model": store.model,
        "space": serialize_space(space) if space else None,
        "floor": space.floor if space else None,
        "raised_floor": _get_raised_floor(store),
        "threshold": space.threshold if space else None,
        "saved_thresholds": asdict(choice)
        if (choice := store.catalog.settings.get_saved_thresholds())
        else None,
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
        "recall": frontier.recall if (frontier := store.catalog.pairs.get_watermark()) else None,
        "migration": _serialize_migration(store),
        "bytes_on_disk": sum(
            file.stat().st_size for file in store.folder.rglob("*") if file.is_file()
        ),
        "last_run": {
            "started": last.started,
            "ended": last.ended,
            "outcome": last.outcome,
            "coverage": last.coverage,
        }
        if last
        else None,
    }


def _serialize_migration(store: Store) -> dict[str, Any] | None:
    """A migration that has not ended, with the commands that go on with it and that drop it."""
    begun = store.get_pending_migration()
    if begun is None:
        return None
    migrate = ("migrate", "--model")
    commands = {
        "resume": format_command(store.folder, *migrate, begun.model),
        "abort": format_command(store.folder, *migrate, store.model or "", "--restart"),
    }
    return asdict(begun) | commands


def format_pending_migration(store: Store) -> str | None:
    """That a migration has not ended, how far it is, and the commands that go on with it and that drop it."""
    begun = _serialize_migration(store)
    if begun is None:
        return None
    return f"a migration to {begun['model']} waits, {_format_migration_progress(begun)}"


def _format_migration_progress(migration: dict[str, Any]) -> str:
    pictures = f"{migration['done']:,} of {pluralize(migration['images'], 'picture')}"
    return f"{pictures} are done; `{migration['resume']}` goes on, `{migration['abort']}` drops it"


def format_status(status: dict[str, Any]) -> Iterable[str]:
    """The same for a person."""
    coverage = status["coverage"]
    yield f"store       {escape_unprintable(status['store'])}  ({format_bytes(status['bytes_on_disk'])})"
    space = status["space"]
    if space:
        raised = f", raised to {status['raised_floor']:g}" if status["raised_floor"] else ""
        floor = f"floor {status['floor']}{raised}"
        yield f"model       {status['model']}  ({space['dim']} dimensions, threshold {status['threshold']}, {floor})"
    if choice := status["saved_thresholds"]:
        yield f"goes by     a threshold of {choice['threshold']:g}, an agreement of {choice['min_agreement']:g}, as `calibrate --save` chose"
        if choice["threshold"] > (status["raised_floor"] or status["floor"]):
            yield "            pictures within pictures are left out that are less alike than that as a whole"
    if begun := status["migration"]:
        yield f"migration   to {begun['model']} is running or did not finish, {_format_migration_progress(begun)}"
    for root in status["roots"]:
        excludes = (
            f"  without {', '.join(map(escape_unprintable, root['excludes']))}"
            if root["excludes"]
            else ""
        )
        yield f"root        {escape_unprintable(root['path'])}{excludes}{'  with hidden files' if root['hidden'] else ''}"
    featureless = f"{coverage['featureless']:,} without features"
    missing = f" ({coverage['missing']:,} missing)" if coverage["missing"] else ""
    yield f"photos      {pluralize(coverage['files'], 'file')}{missing}, {pluralize(coverage['images'], 'distinct image')}, {featureless}"
    if coverage["flagged"]:
        yield f"of these    {', '.join(_format_flag_count(note, number) for note, number in coverage['flagged'].items())}"
    yield f"no picture  {_format_reason_counts(coverage['failed_by_reason'])}"
    yield f"vectors     {status['vectors']:,} in {pluralize(status['segments'], 'segment')}"
    share = ""
    if status["recall"] is not None and status["recall"] < 1:
        exact = format_command(Path(status["store"]), "ingest", "--join", "exact")
        share = f", at least {status['recall']:.2%} of all (95 %); `{exact}` finds the rest"
    yield f"pairs       {status['pairs']:,} known{share}"
    if verified := status["verdicts"]:
        yield f"verified    {sum(verified.values()):,}: {', '.join(f'{number:,} {relation}' for relation, number in verified.items())}"
    if joined := format_join(status["join"]):
        yield f"last join   {joined}"
    last = status["last_run"]
    if last:
        outcome = "running, or cut off" if last["outcome"] == "running" else last["outcome"]
        yield f"last ingest {outcome}, {last['ended'] or last['started']}{_format_ingest_problems(last['coverage'])}"
        unseen = last["coverage"].get("unreadable_paths", [])
        for one in unseen[:MAX_LISTED_ITEMS]:
            yield f"not seen    {format_failure(**one)}"
        if len(unseen) > MAX_LISTED_ITEMS:
            yield f"not seen    {len(unseen) - MAX_LISTED_ITEMS:,} more, see `{format_command(Path(status['store']), 'status', '--failures')}`"


def _format_ingest_problems(coverage: dict[str, Any]) -> str:
    """Why an ingest ended with exit code 3, by what it noted; nothing where it did not."""
    failed, missing, absent = (coverage.get(key) for key in ("failed", "missing", "absent_roots"))
    parts = [
        f"failed {_format_reason_counts(failed)}" if failed else "",
        f"{missing:,} missing but kept" if missing else "",
        f"no folder now: {', '.join(map(escape_unprintable, absent))}" if absent else "",
    ]
    return "".join(f"; {part}" for part in parts if part)


def format_join(join: dict[str, Any] | None) -> str | None:
    """How the pairs of the pictures that were new the last time were looked for, and how many those were."""
    if join is None:
        return None
    way = "exact" if join["method"] == "exact" else "by IVF lists"
    text = f"{way}, {pluralize(join['pairs'], 'pair')} found at {join['floor']:g} or above ({join['reason']})"
    recall = join["recall"]
    if recall:
        text += f"; {recall['found']:,} of {recall['sampled']:,} pairs of a sample found, at least {recall['lower_bound_95']:.2%} of all (95 %)"
    return text


def serialize_check(findings: Sequence[Finding], audits: Sequence[AuditResult]) -> dict[str, Any]:
    """What is wrong with a store, and the cosines of photos that were embedded again with their stored vectors."""
    return {
        "schema_version": SCHEMA_VERSION,
        "findings": [
            {"location": finding.location, "problem": finding.problem} for finding in findings
        ],
        "sample": [
            {"path": audited.path, "score": round(audited.score, 6), "same": audited.is_unchanged}
            for audited in audits
        ],
    }


def format_check(findings: Sequence[Finding], audits: Sequence[AuditResult]) -> Iterable[str]:
    """A line for each finding; one line when there is none."""
    for finding in findings:
        yield escape_unprintable(
            finding.problem
            if finding.location in finding.problem
            else f"{finding.location}: {finding.problem}"
        )
    others = [audited for audited in audits if not audited.is_unchanged]
    for audited in others:
        yield f"{escape_unprintable(audited.path)}: embedded again, its cosine with the stored vector is {audited.score:.4f}"
    if audits and not others:
        yield f"{pluralize(len(audits), 'photo')} embedded again, least cosine with the stored vector {min(a.score for a in audits):.5f}"
    if not findings and not others:
        yield "the store is sound"


def format_repair(report: RepairReport) -> Iterable[str]:
    """Where things went, and what follows."""
    yield f"catalog saved as {escape_unprintable(os.fspath(report.backup))}"
    if report.quarantine:
        yield f"damaged files are in {escape_unprintable(os.fspath(report.quarantine))}"
    anew = "all photos are to be embedded again, and what `calibrate --save` saved is lost"
    yield (
        anew
        if report.images_to_reembed is None
        else f"{pluralize(report.images_to_reembed, 'picture')} to embed again"
    )


def format_repair_plan(findings: Sequence[Finding], catalog_path: str) -> str:
    """What a repair would do about `found`; `catalog` is the path of the database."""
    if any(finding.location == catalog_path for finding in findings):
        return "sets the catalog and all segments aside, looks through the same folders again, and embeds every photo anew"
    if any(finding.segment for finding in findings):
        return "sets these segments aside and embeds their photos again"
    return "makes the catalog consistent again, and embeds what needs it"


def format_compaction(report: CompactionReport) -> str:
    """What a compaction did."""
    if not report.bytes_written and not report.vectors_dropped:
        return f"{pluralize(report.segments_before, 'segment')}, nothing to merge or to drop"
    dropped, written = (
        pluralize(report.vectors_dropped, "vector"),
        format_bytes(report.bytes_written),
    )
    return f"{pluralize(report.segments_before, 'segment')} before, {report.segments_after:,} now; {dropped} dropped, {written} written"


def format_migration(model: str, image_count: int, embedded_count: int, waiting_count: int) -> str:
    """The closing line of a migration."""
    text = f"{image_count - waiting_count:,} of {pluralize(image_count, 'distinct image')} now with {model}, {pluralize(embedded_count, 'picture')} embedded in this run"
    left = (
        "is not compared until an ingest finds a photo of it"
        if waiting_count == 1
        else "are not compared until an ingest finds photos of them"
    )
    return f"{text}; {waiting_count:,} {left}" if waiting_count else text


def _get_raised_floor(store: Store) -> float | None:
    """The floor above the model's down to which alone the store knows its pairs; None where it knows them down to that one."""
    space = store.space
    return floor if space and (floor := get_effective_floor(store, space)) > space.floor else None


def format_warnings(store: Store) -> Iterable[str]:
    """What an answer must be read with."""
    if unfinished := format_unfinished_ingest(store):
        yield unfinished
    if floor := _get_raised_floor(store):
        yield f"so many of these photos are like each other that only pairs from {floor:g} on were looked at; what is less alike is missed"


def format_unfinished_ingest(store: Store) -> str | None:
    """What an answer must be read with, when the last ingest did not finish."""
    last, ingest = store.catalog.runs.get_last(), format_command(store.folder, "ingest")
    if last is None:
        return f"the store is empty; `{format_command(store.folder, 'ingest', 'FOLDER')}` fills it"
    if waiting := len(store.catalog.images.find_unembedded()):
        lost = "has no vector and is" if waiting == 1 else "have no vector and are"
        return f"{pluralize(waiting, 'picture')} {lost} not compared; `{ingest}` embeds again what it finds of them"
    if not store.catalog.verdicts.has_any_or_needs_none():
        return f"its pairs were not verified yet; `{ingest}` looks at them"
    if last.outcome == "complete":
        return None
    return f"the last ingest is running or did not finish, so photos may be missing from this answer; `{ingest}` goes on"
