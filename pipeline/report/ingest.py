"""The coverage of an ingest as JSON and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from indexes.coverage import Coverage
from indexes.paths import escape_unprintable
from pipeline.decode.formats import FailureReason, format_reason
from pipeline.report.document import make_document
from pipeline.report.format import MAX_LISTED_ITEMS, pluralize


def serialize_ingest(coverage: Coverage) -> dict[str, Any]:
    """Serialize the answer of `ingest`."""
    return make_document(coverage.to_dict())


def format_coverage(coverage: Coverage) -> str:
    """Format the closing line of an ingest; every file seen is in exactly one of its counts."""
    counts = [
        pluralize(coverage.seen, "file seen", "files seen"),
        f"{coverage.new:,} new",
        f"{coverage.unchanged:,} unchanged",
        f"{coverage.changed:,} changed" if coverage.changed else "",
        f"{coverage.moved:,} moved",
        f"{coverage.gone:,} gone",
        f"{coverage.left_out:,} now excluded" if coverage.left_out else "",
        f"{coverage.missing:,} missing, still listed" if coverage.missing else "",
        "skipped " + format_reason_counts(coverage.skipped),
        "failed " + format_reason_counts(coverage.failed),
        f"{len(coverage.rejected):,} rejected" if coverage.rejected else "",
    ]
    embedded = [f"{pluralize(coverage.embedded, 'image')} embedded"]
    embedded += [format_flag_count(flag, count) for flag, count in sorted(coverage.flagged.items())]
    return f"{', '.join(filter(None, counts))}; {', '.join(embedded)}"


def format_rejected_paths(coverage: Coverage) -> Iterable[str]:
    """Yield a line for each file that holds a rejected photo, up to MAX_LISTED_ITEMS."""
    for rejected in coverage.rejected[:MAX_LISTED_ITEMS]:
        yield (
            f"{escape_unprintable(rejected.path)}: rejected (decision {rejected.decision}):"
            f" {rejected.relation}"
        )
    if len(coverage.rejected) > MAX_LISTED_ITEMS:
        yield f"{len(coverage.rejected) - MAX_LISTED_ITEMS:,} more rejected photos (see --json)"


def format_flag_count(flag: str, count: int) -> str:
    """Format how many images have a flag: 2 animated, 1 with pages, 3 previews."""
    if flag == "pages":
        return f"{count:,} with pages"
    return pluralize(count, "preview") if flag == "preview" else f"{count:,} {flag}"


def format_reason_counts(counts: Mapping[str, int]) -> str:
    """Format a total with its reasons, most frequent first: 3 (2 truncated, 1 damaged)."""
    if not counts:
        return "0"
    by_frequency = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{count:,} {format_reason(reason)}" for reason, count in by_frequency)
    return f"{sum(counts.values()):,} ({reasons})"


def format_extra_hints(coverage: Coverage) -> Iterable[str]:
    """Yield how to install what reads the images that were skipped for want of an extra."""
    for reason, extra, noun in (
        (FailureReason.RAW_PHOTO, "raw", "raw file"),
        (FailureReason.NO_DECODER, "jxl", "JPEG XL file"),
    ):
        if count := coverage.skipped[reason]:
            them = "it" if count == 1 else "them"
            install = f"pip install 'neardup[{extra}]'"
            yield f"{pluralize(count, noun)} skipped; to read {them}: {install}"
