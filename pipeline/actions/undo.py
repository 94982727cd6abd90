"""Undo a run by its journal, and list the runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexes.durable.locks import lock
from indexes.paths import ACTIONS_LOCK_NAME, format_command, quote
from indexes.store import Store
from pipeline.actions.entries import MOVED_STATES, State
from pipeline.actions.folders import split_path
from pipeline.actions.journal import find_journal, list_journals, read_journal, reopen_journal
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.places import is_away
from pipeline.actions.plan import Action
from pipeline.actions.restore import undo_entry
from pipeline.actions.settle import has_victim_away, settle


@dataclass(frozen=True)
class RunSummary:
    """A run: when it began (UTC, ISO 8601), and its files by what became of them.

    `bytes_held` is the size of the files that it holds in quarantine.
    """

    run: str
    started: str
    action: Action
    counts: dict[State, int]
    bytes_held: int


def undo_run(store_folder: Path, run: str, roots: Sequence[str]) -> Iterator[Outcome]:
    """Move the victims of a run back, the last one first; yield the outcome of each.

    `last` is the run that moved a file last. What a kill left half done is reversed, too. A second
    undo goes on with what the first one could not move. Raises RunNotFound, ActionRecordDamaged,
    StoreLocked and DiskFull.
    """
    with (
        lock(store_folder / ACTIONS_LOCK_NAME),
        reopen_journal(find_journal(store_folder, run)) as journal,
    ):
        undo = format_command(store_folder, "undo", journal.header.run)
        # A merge comes before its first victim, and is undone after it.
        for entry in reversed(journal.list_all()):
            if entry.state is State.PURGE_INTENDED:
                entry = settle(journal, entry, roots)
            if entry.state is State.PURGED:
                what = "it"
                if entry.is_merge:
                    what = "metadata that was added stays: the sidecar of before"
                yield Outcome(entry.path, Status.LEFT, f"{what} was deleted by `neardup purge`")
            elif entry.state not in MOVED_STATES:
                continue
            elif is_away(journal.header, entry):
                place = entry.base or split_path(entry.path)[0]
                away = f"{quote(place)} is not there; mount its drive, then `{undo}`"
                yield Outcome(entry.path, Status.LEFT, away, entry.target)
            elif entry.is_merge and has_victim_away(journal, entry):
                detail = "metadata that was added stays: a photo that it comes from is not back"
                yield Outcome(entry.path, Status.LEFT, detail)
            else:
                yield undo_entry(journal, entry, roots)


def list_runs(store_folder: Path) -> list[RunSummary]:
    """List the runs of a store, the oldest first. Raises ActionRecordDamaged."""
    return [_summarize(path) for path in list_journals(store_folder)]


def count_returned_files(store: Store) -> int:
    """Count the files that an undo moved back and that the store does not know since.

    Raises ActionRecordDamaged.
    """
    undone = {
        entry.path
        for path in list_journals(store.folder)
        for entry in read_journal(path).victims.values()
        if entry.state is State.UNDONE
    }
    get_file = store.catalog.files.get_by_path
    return sum(get_file(path) is None and os.path.lexists(path) for path in undone)


def _summarize(path: Path) -> RunSummary:
    content = read_journal(path)
    return RunSummary(
        content.header.run,
        content.header.started,
        content.header.action,
        dict(Counter(entry.state for entry in content.victims.values())),
        sum(entry.bytes_held for entry in content.list_all()),
    )
