"""Format paths, sizes, counts and failures for a person."""

from __future__ import annotations

from indexes.paths import escape_unprintable
from pipeline.decode.formats import format_reason

TOO_PLAIN = "too plain to compare"  # what people read of a featureless image
MAX_LISTED_ITEMS = 10  # lines that a text answer spends on one kind of finding; --json has them all


def format_bytes(count: float) -> str:
    """Format a number of bytes in a unit that fits: 0 B, 12 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """Format a number with its noun: 1 file, 2,000 files."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"


def format_failure(path: str, reason: str, detail: str | None) -> str:
    """Format why a path could not be read: `path: reason (detail)`."""
    line = f"{escape_unprintable(path)}: {format_reason(reason)}"
    return f"{line} ({escape_unprintable(detail)})" if detail else line
