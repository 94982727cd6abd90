"""Decisions about test images."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from indexes.decisions import DecidedContent, Decision, DecisionKind
from tests.support.stores import make_hash

START = datetime(2026, 11, 30, 12, tzinfo=UTC)


def decide(kind: DecisionKind, *numbers: int, minute: int = 0, author: str = "ann") -> Decision:
    """Make a decision about test images, some minutes after START."""
    contents = tuple(
        DecidedContent(make_hash(number), make_hash(number), f"{number}.jpg") for number in numbers
    )
    return Decision(kind, contents, author, START + timedelta(minutes=minute))
