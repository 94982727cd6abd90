"""What a store is and holds, and what was done to it, as JSON that scripts can rely on, and as text that a person can read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexes import Compaction, Finding, Repair, Store
from indexes.paths import command
from pipeline.ingest.audit import Audited
from pipeline.ingest.batch_writer import Coverage
from pipeline.query.groups import floor_of
from pipeline.report.answers import SCHEMA_VERSION, SHOWN, counted, coverage_json, failure_text, printable, size, space_json


def coverage_text(coverage: Coverage) -> str:
    """The closing line of an ingest: every file that was seen is in exactly one of its counts."""
    parts = [
        counted(coverage.seen, "file") + " seen",
        f"{coverage.new:,} new",
        f"{coverage.unchanged:,} unchanged",
        f"{coverage.changed:,} changed" if coverage.changed else "",
        f"{coverage.moved:,} moved",
        f"{coverage.gone:,} gone",
        f"{coverage.left_out:,} left out now" if coverage.left_out else "",
        f"{coverage.missing:,} missing but kept" if coverage.missing else "",
        "skipped " + _reasons(coverage.skipped),
        "failed " + _reasons(coverage.failed),
    ]
    noted = "".join(f", {_noted(note, number)}" for note, number in sorted(coverage.noted.items()))
    return ", ".join(part for part in parts if part) + f"; {counted(coverage.embedded, 'picture')} embedded{noted}"


def _noted(note: str, number: int) -> str:
    """So many pictures with a note."""
    return {"pages": f"{number:,} with pages", "preview": counted(number, "preview")}.get(note, f"{number:,} {note}")


def unread_text(coverage: Coverage) -> Iterable[str]:
    """Photos that were skipped because an extra is not installed, and how to get it."""
    for reason, extra, word in (("raw photo", "raw", "raw photo"), ("no decoder", "jxl", "JPEG XL picture")):
        if number := coverage.skipped[reason]:
            yield f"{counted(number, word)} skipped; to see {'it' if number == 1 else 'them'}: pip install 'neardup[{extra}]'"


def _reasons(counts: dict[str, int]) -> str:
    if not counts:
        return "0"
    listed = ", ".join(f"{number:,} {reason}" for reason, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return f"{sum(counts.values()):,} ({listed})"


def status_json(store: Store) -> dict[str, Any]:
    """What a store is and holds."""
    segments = store.catalog.segments()
    last = store.catalog.last_run()
    space = store.space
    return {
        "schema_version": SCHEMA_VERSION,
        "store": os.fspath(store.folder),
        "model": store.model,
        "space": space_json(space) if space else None,
        "floor": space.floor if space else None,
        "raised_floor": _raised_floor(store),
        "threshold": space.threshold if space else None,
        "choice": asdict(choice) if (choice := store.catalog.choice()) else None,
        "roots": [{"path": root.path, "excludes": list(root.excludes), "hidden": root.hidden} for root in store.catalog.roots()],
        "coverage": coverage_json(store),
        "vectors": sum(segment.rows for segment in segments),
        "segments": len(segments),
        "join": store.catalog.last_join(),
        "pairs": store.catalog.edge_count(),
        "verified": store.catalog.relations(),
        "recall": frontier.recall if (frontier := store.catalog.frontier()) else None,
        "migration": _migration_json(store),
        "bytes_on_disk": sum(file.stat().st_size for file in store.folder.rglob("*") if file.is_file()),
        "last_run": {"started": last.started, "ended": last.ended, "outcome": last.outcome, "coverage": last.coverage} if last else None,
    }


def _migration_json(store: Store) -> dict[str, Any] | None:
    """A migration that has not ended, with the commands that go on with it and that drop it."""
    begun = store.migration()
    if begun is None:
        return None
    migrate = ("migrate", "--model")
    commands = {
        "go_on": command(store.folder, *migrate, begun.model),
        "drop": command(store.folder, *migrate, store.model or "", "--restart"),
    }
    return asdict(begun) | commands


def waiting_text(store: Store) -> str | None:
    """That a migration has not ended, how far it is, and the commands that go on with it and that drop it."""
    begun = _migration_json(store)
    if begun is None:
        return None
    return f"a migration to {begun['model']} waits, {_how_far(begun)}"


def _how_far(begun: dict[str, Any]) -> str:
    pictures = f"{begun['done']:,} of {counted(begun['images'], 'picture')}"
    return f"{pictures} are done; `{begun['go_on']}` goes on, `{begun['drop']}` drops it"


def status_text(status: dict[str, Any]) -> Iterable[str]:
    """The same for a person."""
    coverage = status["coverage"]
    yield f"store       {printable(status['store'])}  ({size(status['bytes_on_disk'])})"
    space = status["space"]
    if space:
        raised = f", raised to {status['raised_floor']:g}" if status["raised_floor"] else ""
        floor = f"floor {status['floor']}{raised}"
        yield f"model       {status['model']}  ({space['dim']} dimensions, threshold {status['threshold']}, {floor})"
    if choice := status["choice"]:
        yield f"goes by     a threshold of {choice['threshold']:g}, a strictness of {choice['strictness']:g}, as `calibrate --save` chose"
        if choice["threshold"] > (status["raised_floor"] or status["floor"]):
            yield "            pictures within pictures are left out that are less alike than that as a whole"
    if begun := status["migration"]:
        yield f"migration   to {begun['model']} is running or did not finish, {_how_far(begun)}"
    for root in status["roots"]:
        excludes = f"  without {', '.join(map(printable, root['excludes']))}" if root["excludes"] else ""
        yield f"root        {printable(root['path'])}{excludes}{'  with hidden files' if root['hidden'] else ''}"
    featureless = f"{coverage['featureless']:,} without features"
    missing = f" ({coverage['missing']:,} missing)" if coverage["missing"] else ""
    yield f"photos      {counted(coverage['files'], 'file')}{missing}, {counted(coverage['images'], 'distinct image')}, {featureless}"
    if coverage["noted"]:
        yield f"of these    {', '.join(_noted(note, number) for note, number in coverage['noted'].items())}"
    yield f"no picture  {_reasons(coverage['without_picture'])}"
    yield f"vectors     {status['vectors']:,} in {counted(status['segments'], 'segment')}"
    share = ""
    if status["recall"] is not None and status["recall"] < 1:
        exact = command(Path(status["store"]), "ingest", "--join", "exact")
        share = f", at least {status['recall']:.2%} of all (95 %); `{exact}` finds the rest"
    yield f"pairs       {status['pairs']:,} known{share}"
    if verified := status["verified"]:
        yield f"verified    {sum(verified.values()):,}: {', '.join(f'{number:,} {relation}' for relation, number in verified.items())}"
    if joined := join_text(status["join"]):
        yield f"last join   {joined}"
    last = status["last_run"]
    if last:
        outcome = "running, or cut off" if last["outcome"] == "running" else last["outcome"]
        yield f"last ingest {outcome}, {last['ended'] or last['started']}{_trouble_text(last['coverage'])}"
        unseen = last["coverage"].get("unseen", [])
        for one in unseen[:SHOWN]:
            yield f"not seen    {failure_text(**one)}"
        if len(unseen) > SHOWN:
            yield f"not seen    {len(unseen) - SHOWN:,} more, see `{command(Path(status['store']), 'status', '--failures')}`"


def _trouble_text(coverage: dict[str, Any]) -> str:
    """Why an ingest ended with exit code 3, by what it noted; nothing where it did not."""
    failed, missing, absent = (coverage.get(key) for key in ("failed", "missing", "absent_roots"))
    parts = [
        f"failed {_reasons(failed)}" if failed else "",
        f"{missing:,} missing but kept" if missing else "",
        f"no folder now: {', '.join(map(printable, absent))}" if absent else "",
    ]
    return "".join(f"; {part}" for part in parts if part)


def join_text(join: dict[str, Any] | None) -> str | None:
    """How the pairs of the pictures that were new the last time were looked for, and how many those were."""
    if join is None:
        return None
    way = "exact" if join["way"] == "exact" else "by buckets"
    text = f"{way}, {counted(join['pairs'], 'pair')} found at {join['floor']:g} or above ({join['why']})"
    recall = join["recall"]
    if recall:
        text += f"; {recall['found']:,} of {recall['sampled']:,} pairs of a sample found, at least {recall['at_least']:.2%} of all (95 %)"
    return text


def check_json(found: Sequence[Finding], again: Sequence[Audited]) -> dict[str, Any]:
    """What is wrong with a store, and the cosines of photos that were embedded again with their stored vectors."""
    return {
        "schema_version": SCHEMA_VERSION,
        "findings": [{"place": finding.place, "what": finding.what} for finding in found],
        "sample": [{"path": audited.path, "score": round(audited.score, 6), "same": audited.same} for audited in again],
    }


def check_text(found: Sequence[Finding], again: Sequence[Audited]) -> Iterable[str]:
    """A line for each finding; one line when there is none."""
    for finding in found:
        yield printable(finding.what if finding.place in finding.what else f"{finding.place}: {finding.what}")
    others = [audited for audited in again if not audited.same]
    for audited in others:
        yield f"{printable(audited.path)}: embedded again, its cosine with the stored vector is {audited.score:.4f}"
    if again and not others:
        yield f"{counted(len(again), 'photo')} embedded again, least cosine with the stored vector {min(a.score for a in again):.5f}"
    if not found and not others:
        yield "the store is sound"


def repair_text(done: Repair) -> Iterable[str]:
    """Where things went, and what follows."""
    yield f"catalog saved as {printable(os.fspath(done.backup))}"
    if done.quarantine:
        yield f"damaged files are in {printable(os.fspath(done.quarantine))}"
    anew = "all photos are to be embedded again, and what `calibrate --save` saved is lost"
    yield anew if done.lost is None else f"{counted(done.lost, 'picture')} to embed again"


def intended_text(found: Sequence[Finding], catalog: str) -> str:
    """What a repair would do about `found`; `catalog` is the path of the database."""
    if any(finding.place == catalog for finding in found):
        return "sets the catalog and all segments aside, looks through the same folders again, and embeds every photo anew"
    if any(finding.segment for finding in found):
        return "sets these segments aside and embeds their photos again"
    return "makes the catalog consistent again, and embeds what needs it"


def compaction_text(done: Compaction) -> str:
    """What a compaction did."""
    if not done.written and not done.dropped:
        return f"{counted(done.before, 'segment')}, nothing to merge or to drop"
    dropped, written = counted(done.dropped, "vector"), size(done.written)
    return f"{counted(done.before, 'segment')} before, {done.after:,} now; {dropped} dropped, {written} written"


def migration_text(model: str, images: int, embedded: int, waiting: int) -> str:
    """The closing line of a migration."""
    text = (
        f"{images - waiting:,} of {counted(images, 'distinct image')} now with {model}, {counted(embedded, 'picture')} embedded in this run"
    )
    left = (
        "is not compared until an ingest finds a photo of it" if waiting == 1 else "are not compared until an ingest finds photos of them"
    )
    return f"{text}; {waiting:,} {left}" if waiting else text


def _raised_floor(store: Store) -> float | None:
    """The floor above the model's down to which alone the store knows its pairs; None where it knows them down to that one."""
    space = store.space
    return floor if space and (floor := floor_of(store, space)) > space.floor else None


def warnings_text(store: Store) -> Iterable[str]:
    """What an answer must be read with."""
    if unfinished := unfinished_text(store):
        yield unfinished
    if floor := _raised_floor(store):
        yield f"so many of these photos are like each other that only pairs from {floor:g} on were looked at; what is less alike is missed"


def unfinished_text(store: Store) -> str | None:
    """What an answer must be read with, when the last ingest did not finish."""
    last, ingest = store.catalog.last_run(), command(store.folder, "ingest")
    if last is None:
        return f"the store is empty; `{command(store.folder, 'ingest', 'FOLDER')}` fills it"
    if waiting := len(store.catalog.unembedded()):
        lost = "has no vector and is" if waiting == 1 else "have no vector and are"
        return f"{counted(waiting, 'picture')} {lost} not compared; `{ingest}` embeds again what it finds of them"
    if not store.catalog.is_judged():
        return f"its pairs were not verified yet; `{ingest}` looks at them"
    if last.outcome == "complete":
        return None
    return f"the last ingest is running or did not finish, so photos may be missing from this answer; `{ingest}` goes on"
