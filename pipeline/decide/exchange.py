"""Export decisions as JSON Lines, and import them into another store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from indexes.decisions import MAX_LINE_CHARS, Decision, encode_decision, parse_decision
from indexes.store import Store
from pipeline.decide.decide import MergedDecisions, merge_into
from pipeline.errors import InvalidDecisionLine

MAX_IMPORTED_DECISIONS = 1_000_000


def export_decisions(store: Store) -> Iterator[str]:
    """Yield each decision of a store as a line of JSON, the earliest first."""
    return map(encode_decision, store.catalog.decisions.list())


def import_decisions(store: Store, lines: Iterable[bytes]) -> MergedDecisions:
    """Add the decisions of an export, all or none; those that are there already change nothing.

    Raises InvalidDecisionLine, with the number of the line, and DecisionRefused for a contradiction
    between them, or with those of the store.
    """
    return merge_into(store, list(_parse(lines)))


def _parse(lines: Iterable[bytes]) -> Iterator[Decision]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if number > MAX_IMPORTED_DECISIONS:
                raise ValueError(f"only {MAX_IMPORTED_DECISIONS:,} lines are read at a time")
            if len(line) > MAX_LINE_CHARS:
                raise ValueError(f"longer than {MAX_LINE_CHARS:,} bytes")
            yield parse_decision(line.decode())
        except ValueError as error:  # UnicodeDecodeError is one
            reason = "no UTF-8" if isinstance(error, UnicodeDecodeError) else error
            raise InvalidDecisionLine(
                f"line {number:,} is no decision: {reason}; nothing was imported"
            ) from error
