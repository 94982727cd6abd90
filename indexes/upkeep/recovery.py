"""The recovery record and a copy of the decisions, saved beside the catalog: a new catalog needs
them, and no photo can give them.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indexes.catalog.catalog import Catalog
from indexes.decisions import Decision, encode_decision, parse_decision
from indexes.durable import files as durable
from indexes.durable.sqlite import OpenMode, connect
from indexes.paths import DECISIONS_NAME, RECOVERY_NAME, SCRATCH_NAME
from indexes.records import Root

# How long reading a damaged catalog waits for a process that writes.
SALVAGE_BUSY_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class RecoveryRecord:
    """The roots of a store, and the name of its model; None if it is not known."""

    roots: list[Root]
    model: str | None


def save_recovery_record(folder: Path, catalog: Catalog) -> None:
    """Save the roots and the model of a store beside its catalog."""
    bound = catalog.settings.get_space_and_model()
    record = RecoveryRecord(catalog.roots.list(), bound[1] if bound else None)
    line = json.dumps(asdict(record)).encode()
    durable.write_checked(folder / RECOVERY_NAME, line, folder / SCRATCH_NAME)


def load_recovery_record(folder: Path) -> RecoveryRecord:
    """Load the saved record; an empty one if it is missing or damaged."""
    line = durable.read_checked(folder / RECOVERY_NAME)
    with suppress(ValueError, TypeError, KeyError):
        if line is not None:
            record = json.loads(line)
            roots = [_read_root(root) for root in record["roots"]]
            return RecoveryRecord(roots, record["model"])
    return RecoveryRecord([], None)


def salvage_recovery_record(catalog_path: Path) -> RecoveryRecord:
    """Read as many roots as possible, and the model, from a damaged catalog."""
    roots: list[Root] = []
    model = None
    with (
        suppress(sqlite3.Error, ValueError, TypeError),
        closing(connect(catalog_path, OpenMode.READ_ONLY, SALVAGE_BUSY_TIMEOUT_SECONDS)) as damaged,
    ):
        for row in damaged.execute("SELECT * FROM roots"):
            roots.append(_make_root(os.fsdecode(row[0]), json.loads(row[1]), row[2]))
        model = next((str(row[8]) for row in damaged.execute("SELECT * FROM space")), None)
    return RecoveryRecord(roots, model)


def save_decisions(folder: Path, catalog: Catalog) -> None:
    """Save a copy of all decisions beside the catalog, unless it is there.

    Call it with the write lock or the ingest lock held, for it writes a temporary file.
    """
    copy = folder / DECISIONS_NAME
    decisions = catalog.decisions.list()
    if load_decisions(folder) != decisions:
        content = "".join(f"{encode_decision(decision)}\n" for decision in decisions)
        durable.replace(copy, content.encode("ascii"), folder / SCRATCH_NAME)


def load_decisions(folder: Path) -> list[Decision]:
    """Load the saved copy of the decisions, the earliest first; damaged lines are left out."""
    decisions = dict[str, Decision]()
    with suppress(OSError):
        for line in (folder / DECISIONS_NAME).read_bytes().splitlines():
            with suppress(ValueError):
                decision = parse_decision(line.decode("ascii"))
                decisions[decision.id] = decision
    return sorted(decisions.values(), key=lambda decision: decision.order)


def salvage_decisions(catalog_path: Path) -> list[Decision]:
    """Read as many decisions as possible from a damaged catalog."""
    decisions = []
    with (
        suppress(sqlite3.Error, ValueError, TypeError),
        closing(connect(catalog_path, OpenMode.READ_ONLY, SALVAGE_BUSY_TIMEOUT_SECONDS)) as damaged,
    ):
        for (record,) in damaged.execute("SELECT record FROM decisions"):
            with suppress(ValueError, TypeError):
                decisions.append(parse_decision(record))
    return decisions


def _make_root(path: str, excludes: Sequence[str], include_hidden: object) -> Root:
    return Root(path, tuple(map(str, excludes)), bool(include_hidden))


def _read_root(root: dict[str, Any]) -> Root:
    """Make a root from the saved record; stores up to format 6 say `hidden`."""
    include_hidden = root["hidden"] if "hidden" in root else root["include_hidden"]
    return _make_root(root["path"], root["excludes"], include_hidden)
