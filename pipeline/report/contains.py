"""The answer of `contains` as JSON and text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from indexes.paths import escape_unprintable, quote
from pipeline.query.contains import ContainedFile, Containment, ContainsReport
from pipeline.report.document import make_document
from pipeline.report.format import MAX_LISTED_ITEMS, format_failure, pluralize
from pipeline.report.matches import format_file, format_match, serialize_file, serialize_match

REFERENCE = "the photo"  # of a match: the file of the first folder


def serialize_contained(report: ContainsReport, folder: str, other: str) -> dict[str, Any]:
    """Serialize how `other` contains the files of `folder`."""
    counts = {kind: len(report.select(kind)) for kind in Containment}
    return make_document(
        {
            "folder": folder,
            "other": other,
            "share_as_good": round(report.share, 6),
            "is_all_as_good": report.is_all_as_good,
            "counts": {
                **counts,
                "other files": len(report.other_files),
                "not compared": len(report.not_compared),
            },
            "files": [_serialize_file(file) for file in report.files],
            "other_files": [
                {"path": path, "counterpart": counterpart}
                for path, counterpart in report.other_files.items()
            ],
            "not_compared": [
                {"path": failure.path, "reason": failure.reason, "detail": failure.detail or ""}
                for failure in report.not_compared
            ],
        }
    )


def _serialize_file(contained: ContainedFile) -> dict[str, Any]:
    document = serialize_file(contained.file) | {"containment": contained.containment}
    if match := contained.counterpart:
        document["counterpart"] = serialize_file(match.file) | serialize_match(match, REFERENCE)
    return document


def format_contained(report: ContainsReport, folder: str, other: str) -> Iterable[str]:
    """Yield the files that would be lost with `folder`, then the counts, then the conclusion."""
    yield from _format_list(
        "not in the other folder:",
        [escape_unprintable(item.file.path) for item in report.select(Containment.ABSENT)],
    )
    yield from _format_list(
        "only as a lesser or edited version:",
        [_format_lesser(item) for item in report.select(Containment.LESSER)],
    )
    yield from _format_list(
        "not compared:",
        [
            format_failure(failure.path, failure.reason, failure.detail)
            for failure in report.not_compared
        ],
    )
    as_good, count = len(report.select(Containment.AS_GOOD)), len(report.files)
    if not count:
        yield f"no photos below {quote(folder)}"
        return
    # Rounded down, so that 100 % means all.
    percent = int(1000 * report.share) / 10
    yield (
        f"{as_good:,} of {pluralize(count, 'photo')} ({percent:g} %) of {quote(folder)} are in"
        f" {quote(other)} as the same or a better file; {len(report.select(Containment.LESSER)):,}"
        f" only as a lesser one, {len(report.select(Containment.ABSENT)):,} not at all"
    )
    if report.other_files:
        others = pluralize(len(report.other_files), "other file")
        yield f"{others} there have the same bytes as one in {quote(other)}"
    if report.is_all_as_good:
        yield "nothing would be lost with the folder"
    elif report.not_compared:
        yield f"{pluralize(len(report.not_compared), 'file')} there could not be compared"


def _format_list(title: str, lines: list[str]) -> Iterable[str]:
    if not lines:
        return
    yield title
    yield from (f"      {line}" for line in lines[:MAX_LISTED_ITEMS])
    if len(lines) > MAX_LISTED_ITEMS:
        yield f"      and {len(lines) - MAX_LISTED_ITEMS:,} more; --json lists all"
    yield ""


def _format_lesser(item: ContainedFile) -> str:
    assert item.counterpart, "a lesser version is a file"
    counterpart = item.counterpart
    return (
        f"{format_file(item.file)}\n            {format_file(counterpart.file)}"
        f"   {format_match(counterpart, REFERENCE)}"
    )
