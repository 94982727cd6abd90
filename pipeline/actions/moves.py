"""Move one victim, or replace it: journal the intent, move, verify what was moved, journal it.

Nothing is deleted or overwritten. A victim that is replaced is swapped, in one step, with what
stands in its place, and lies in quarantine like one that is moved. So both are undone alike, with
all that the filesystem knows of the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from indexes.durable.failpoints import failpoint
from indexes.paths import quote
from pipeline.actions.folder_times import begin_times
from pipeline.actions.folders import (
    PRIVATE_MODE,
    SHARED_MODE,
    Refused,
    explain_os_error,
    made_folders,
    opened_folder,
    remove_empty_folders,
    split_path,
)
from pipeline.actions.held_files import (
    HeldKeeper,
    hash_descriptor,
    identify,
    opened_victim,
    stat_name,
)
from pipeline.actions.journal import Entry, Journal, State
from pipeline.actions.places import split_target
from pipeline.actions.plan import REPLACING_ACTIONS, Action
from pipeline.actions.rename import exchange, rename_exclusive
from pipeline.actions.stand_ins import make_stand_in, require_leads_to_keeper
from pipeline.actions.trash import put_in_trash

_HOLD_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC  # also of a symbolic link


class Stuck(Refused):
    """A file was moved, is not what the plan names, and its place was taken meanwhile."""


@dataclass(frozen=True)
class _Ends:
    """The two ends of a move: open folders with a name in each, and the file, which is open."""

    folder: int
    name: str
    target_folder: int
    target_name: str
    victim: int


def move_victim(journal: Journal, entry: Entry, keepers: Sequence[HeldKeeper]) -> None:
    """Move or replace one victim, as the journal then says. Raises DiskFull.

    Raises Refused if it was left at its path or moved back there, and Stuck if that was impossible.
    """
    for keeper in keepers:
        keeper.check()
    with opened_victim(entry.victim) as (folder, name, descriptor):
        if identify(os.fstat(descriptor)) in {keeper.identity for keeper in keepers}:
            raise Refused(f"{quote(entry.victim.path)} is a hard link of its keeper")
        times = begin_times(folder, entry.base)
        journal.intend(replace(entry, times=times))
        entry = journal.entries[entry.number]
        failpoint("action intended")
        try:
            if entry.action is Action.TRASH:
                put_in_trash(entry, folder, descriptor)
            else:
                _move_to_target(entry, keepers, folder, name, descriptor)
        except Stuck as stuck:
            journal.record(entry, State.STUCK, str(stuck))
            raise
        except Refused as refused:
            if entry.action is Action.HARDLINK:
                with suppress(Refused):
                    keepers[0].accept_link()  # a link to it was made and removed
            remove_empty_folders(entry.base, split_target(entry)[0])
            now = times.observe(folder, entry.base, entry.pending_since_ns)
            now.restore(folder, entry.base)
            journal.record(entry, State.REVERTED, str(refused))
            raise
        journal.record(entry, State.DONE, "", times.finish(folder, entry.base))
        failpoint("action done")


def _move_to_target(
    entry: Entry, keepers: Sequence[HeldKeeper], folder: int, name: str, victim: int
) -> None:
    steps, target_name = split_target(entry)
    mode = SHARED_MODE if entry.action is Action.MOVE else PRIVATE_MODE
    with made_folders(entry.base, steps, mode) as target_folder:
        ends = _Ends(folder, name, target_folder, target_name, victim)
        with ExitStack() as stack:
            stand_in = _take_away(entry, ends, keepers, stack)
            failpoint("action moved")
            try:
                _verify(entry, ends, keepers, stand_in)
                failpoint("action verified")
            except Refused as refused:
                _put_back(entry, ends, stand_in, refused)
                raise
        os.fsync(target_folder)
        os.fsync(folder)


def _take_away(
    entry: Entry, ends: _Ends, keepers: Sequence[HeldKeeper], stack: ExitStack
) -> tuple[int, int] | None:
    """Move a victim to its target; return what identifies the stand-in, if it has one.

    The stand-in is open until `stack` is closed, so that no other file gets its inode number.
    """
    try:
        if entry.action not in REPLACING_ACTIONS:
            rename_exclusive(
                ends.folder, ends.name, ends.target_folder, ends.target_name, ends.target_folder
            )
            return None
        make_stand_in(entry, keepers[0], ends.victim, ends.target_folder, ends.target_name)
        failpoint("action prepared")
        made = os.open(ends.target_name, _HOLD_FLAGS, dir_fd=ends.target_folder)
        stack.callback(os.close, made)
        try:
            exchange(ends.folder, ends.name, ends.target_folder, ends.target_name)
        except (OSError, Refused):
            os.unlink(ends.target_name, dir_fd=ends.target_folder)
            raise
        return identify(os.fstat(made))
    except FileExistsError as error:
        raise Refused(f"a file is at {quote(entry.target)} already") from error
    except OSError as error:
        raise explain_os_error(error, entry.victim.path) from error


def _verify(
    entry: Entry, ends: _Ends, keepers: Sequence[HeldKeeper], stand_in: tuple[int, int] | None
) -> None:
    """Raise Refused unless the file that was moved is the victim, and its keeper is still there."""
    path = quote(entry.victim.path)
    moved = stat_name(ends.target_folder, ends.target_name)
    if moved is None or identify(moved) != identify(os.fstat(ends.victim)):
        raise Refused(f"{path} was replaced by another file in this moment")
    if hash_descriptor(ends.victim, entry.victim.path) != entry.victim.blake3:
        raise Refused(f"{path} has other bytes than the plan says")
    with opened_folder(split_path(entry.victim.path)[0]) as folder:
        if identify(os.fstat(folder)) != identify(os.fstat(ends.folder)):
            raise Refused(f"the folder of {path} was replaced by another in this moment")
    if stand_in is not None:
        place = stat_name(ends.folder, ends.name)
        if place is None or identify(place) != stand_in:
            raise Refused(f"another file came to {path} in this moment")
        require_leads_to_keeper(entry, keepers[0], ends.folder, ends.name)
    if entry.action is Action.HARDLINK:
        keepers[0].accept_link()
    for keeper in keepers:
        keeper.check()


def _put_back(entry: Entry, ends: _Ends, stand_in: tuple[int, int] | None, reason: Refused) -> None:
    """Move back what was moved, whatever it is. Raises Stuck if another file has its place."""
    places = ends.target_folder, ends.target_name, ends.folder, ends.name
    try:
        if stand_in is None:
            rename_exclusive(*places, ends.target_folder)
            return
        exchange(*places)
        returned = stat_name(ends.target_folder, ends.target_name)
        if returned is not None and identify(returned) == stand_in:
            os.unlink(ends.target_name, dir_fd=ends.target_folder)
            return
        exchange(*places)  # what came to the place meanwhile belongs there
    except (OSError, Refused):
        pass
    raise Stuck(f"{reason}; it could not be moved back and lies at {quote(entry.target)}")
