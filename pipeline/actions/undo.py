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
from pipeline.actions.apply import undo_entry
from pipeline.actions.journal import (
    MOVED_STATES,
    State,
    find_journal,
    list_journals,
    read_journal,
    read_whole_journal,
    reopen_journal,
)
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.places import is_away
from pipeline.actions.plan import Action
from pipeline.actions.restore import settle_purge
from pipeline.actions.unmerge import undo_merge


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

    `last` is the newest run. What a kill left half done is reversed, too. A second undo goes on
    with what the first one could not move. Raises RunNotFound, ActionRecordDamaged, StoreLocked
    and DiskFull.
    """
    with (
        lock(store_folder / ACTIONS_LOCK_NAME),
        reopen_journal(find_journal(store_folder, run)) as journal,
    ):
        undo = format_command(store_folder, "undo", journal.header.run)
        # A merge comes before its first victim, which has its number, and is undone after it.
        numbered = [
            *((number, 1) for number in journal.entries),
            *((number, 0) for number in journal.merges),
        ]
        for number, is_victim in sorted(numbered, reverse=True):
            if not is_victim:
                yield from undo_merge(journal, journal.merges[number], roots)
                continue
            if journal.entries[number].state is State.PURGE_INTENDED:
                settle_purge(journal, journal.entries[number], roots)
            entry = journal.entries[number]
            path = entry.victim.path
            if entry.state is State.PURGED:
                yield Outcome(path, Status.LEFT, "it was deleted by `neardup purge`")
            elif entry.state in MOVED_STATES and is_away(entry):
                away = f"{quote(entry.base)} is not there; mount its drive, then `{undo}`"
                yield Outcome(path, Status.LEFT, away, entry.target)
            elif entry.state in MOVED_STATES:
                yield undo_entry(journal, entry, roots)


def list_runs(store_folder: Path) -> list[RunSummary]:
    """List the runs of a store, the oldest first. Raises ActionRecordDamaged."""
    return [_summarize(path) for path in list_journals(store_folder)]


def count_returned_files(store: Store) -> int:
    """Count the files that an undo moved back and that the store does not know since.

    Raises ActionRecordDamaged.
    """
    undone = {
        entry.victim.path
        for path in list_journals(store.folder)
        for entry in read_journal(path)[1].values()
        if entry.state is State.UNDONE
    }
    get_file = store.catalog.files.get_by_path
    return sum(get_file(path) is None and os.path.lexists(path) for path in undone)


def _summarize(path: Path) -> RunSummary:
    content = read_whole_journal(path)
    header, entries = content.header, content.entries
    is_held = header.action not in (Action.MOVE, Action.TRASH)
    return RunSummary(
        header.run,
        header.started,
        header.action,
        dict(Counter(entry.state for entry in entries.values())),
        sum(
            entry.victim.stat.size
            for entry in entries.values()
            if is_held and entry.state in MOVED_STATES
        )
        + sum(merge.bytes_held for merge in content.merges.values()),
    )
