"""Settle what a kill left half done: finish it where all is as it has to be, else reverse it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pipeline.actions.entries import MOVED_STATES, UNSETTLED_STATES, Entry, State
from pipeline.actions.folders import (
    Refused,
    open_if_there,
    opened_folder,
    remove_empty_folders,
    split_path,
)
from pipeline.actions.held_files import hash_if_there, held_keeper, identify, stat_name
from pipeline.actions.journal import (
    Journal,
    JournalContent,
    list_journals,
    read_journal,
    reopen_journal,
)
from pipeline.actions.places import is_away, require_known_places, split_target
from pipeline.actions.plan import Action
from pipeline.actions.rename import remove_scratch_name
from pipeline.actions.restore import observe_times, restore, undo_entry
from pipeline.actions.stand_ins import is_stand_in


def settle_runs(store_folder: Path, roots: Sequence[str], continued: str | None = None) -> None:
    """Finish or reverse what a kill left half done, in all runs. Call it with the lock held.

    A merge whose victims were never moved is taken back, unless its run is `continued`. Raises
    DiskFull and ActionRecordDamaged.
    """
    for path in list_journals(store_folder):
        content = read_journal(path)
        is_settled = not any(entry.state in UNSETTLED_STATES for entry in content.list_all())
        if is_settled and not any(_is_cut_off(content, merge) for merge in content.merges.values()):
            continue
        with reopen_journal(path) as journal:
            for entry in journal.list_all():
                settle(journal, entry, roots)
            for merge in list(journal.merges.values()):
                is_cut_off = journal.header.run != continued and _is_cut_off(journal, merge)
                if is_cut_off and not is_away(journal.header, merge):
                    undo_entry(journal, merge, roots)


def _is_cut_off(journal: JournalContent, merge: Entry) -> bool:
    """Tell if a run was killed between a merge and the first move of one of its victims.

    A detail says that it cannot be taken back.
    """
    states = {entry.state for entry in journal.list_victims_of(merge)}
    return merge.state is State.DONE and not merge.detail and states <= {State.REVERTED}


def settle(journal: Journal, entry: Entry, roots: Sequence[str]) -> Entry:
    """Finish or reverse an entry that a kill left half done; return it as it is then.

    A file that was moved, is what the plan names, and has its keeper, counts as done; else it is
    moved back. Nothing is decided while its drive is away. Raises DiskFull.
    """
    if entry.state not in UNSETTLED_STATES or is_away(journal.header, entry):
        return entry
    if entry.state is State.PURGE_INTENDED:
        return _settle_purge(journal, entry, roots)
    try:
        require_known_places(journal.header, entry, roots)
        if is_done(entry):
            _tidy(entry)
            return journal.record(entry, State.DONE, "", observe_times(journal, entry))
        if entry.action is Action.TRASH:
            return journal.record(entry, get_reversed_state(entry))
        times = observe_times(journal, entry)
        was_moved = entry.state is not State.INTENDED
        note = restore(journal, entry, roots, was_moved=was_moved)
        return journal.record(entry, get_reversed_state(entry), note, times)
    except Refused as refused:
        place = split_path(entry.path)[0] if entry.is_merge else entry.target
        if os.path.lexists(place):  # else its drive may be away: the next time tells
            return journal.record(entry, State.STUCK, str(refused))
    return entry


def _tidy(entry: Entry) -> None:
    """Remove what a kill left in quarantine of an entry that is done."""
    with suppress(Refused, OSError), ExitStack() as stack:
        target_folder = open_if_there(stack, split_path(entry.target)[0])
        if target_folder is not None:
            held = split_path(entry.path if entry.before is None else entry.target)
            folder = stack.enter_context(opened_folder(held[0]))
            remove_scratch_name(folder, held[1], target_folder)
            if entry.before is None:
                _remove_second_name(folder, held[1], target_folder, split_target(entry)[1])
    if entry.before is None:
        remove_empty_folders(entry.base, split_target(entry)[0])


def _remove_second_name(folder: int, name: str, target_folder: int, target_name: str) -> None:
    """Remove the name in quarantine of a new sidecar that has its place, if a kill left it."""
    place, target = stat_name(folder, name), stat_name(target_folder, target_name)
    if place is not None and target is not None and identify(place) == identify(target):
        os.unlink(target_name, dir_fd=target_folder)


def _settle_purge(journal: Journal, entry: Entry, roots: Sequence[str]) -> Entry:
    """Record whether a purge that was killed had deleted a file."""
    is_there = os.path.lexists(entry.target)
    with suppress(Refused):
        require_known_places(journal.header, entry, roots)
        remove_empty_folders(entry.base, split_target(entry)[0])
    return journal.record(entry, State.DONE if is_there else State.PURGED)


def get_reversed_state(entry: Entry) -> State:
    """Return the state of an entry that a kill left once it is as before."""
    return State.UNDONE if entry.state is State.UNDO_INTENDED else State.REVERTED


def is_done(entry: Entry) -> bool:
    """Tell if a file is at its target, whole, and its stand-in and its keeper are there."""
    if entry.action is Action.TRASH:
        return not os.path.lexists(entry.path)
    folder_path, name = split_path(entry.path)
    target_folder_path, target_name = split_path(entry.target)
    with suppress(Refused, OSError), ExitStack() as stack:
        folder = stack.enter_context(opened_folder(folder_path))
        target_folder = open_if_there(stack, target_folder_path)
        target = None if target_folder is None else stat_name(target_folder, target_name)
        if entry.is_replaced:
            if not is_stand_in(entry, folder, name):
                return False
        elif stat_name(folder, name) is not None:
            return False
        if entry.before is None:
            place = os.stat(name, dir_fd=folder, follow_symlinks=False)
            return target is None or identify(target) == identify(place)  # or not unlinked yet
        if target is None or target.st_ino != entry.before.stat.inode:
            return False
        if hash_if_there(target_folder, target_name, entry.target) != entry.before.blake3:
            return False
        for part in entry.keepers:
            keeper = stack.enter_context(held_keeper(part))
            if keeper.identity == identify(target):
                return False
        return True
    return False


def has_victim_away(journal: JournalContent, merge: Entry) -> bool:
    """Tell if one of the victims that a merge is for is not at its path."""
    away = MOVED_STATES | {State.PURGED}
    return any(victim.state in away for victim in journal.list_victims_of(merge))
