"""Move or replace one file: journal the intent, act, verify what was moved, journal the outcome.

Nothing is deleted or overwritten. A file that is replaced is swapped, in one step, with what stands
in its place, and lies in quarantine like one that is moved. So both are undone alike, with all that
the filesystem knows of the file. A new sidecar takes a name that is free.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from indexes.durable.failpoints import failpoint
from indexes.errors import DiskFull
from indexes.paths import quote
from pipeline.actions.entries import Entry, State
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
from pipeline.actions.journal import Journal
from pipeline.actions.places import split_target
from pipeline.actions.plan import Action
from pipeline.actions.rename import exchange, rename_exclusive
from pipeline.actions.stand_ins import is_stand_in, make_stand_in, require_sound_stand_in
from pipeline.actions.trash import put_in_trash

_HOLD_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC  # also of a symbolic link
Maker = Callable[[int, str], None]  # makes a stand-in at a name in an open folder


class Stuck(Refused):
    """A file was moved or replaced, is not as planned, and its place was taken meanwhile."""


@dataclass(frozen=True)
class Ends:
    """The open folder of a file and that of its target, with its names there."""

    folder: int
    name: str
    target_folder: int
    target_name: str

    @property
    def back(self) -> tuple[int, str, int, str]:
        """The target, then the path of the file, as a rename takes them."""
        return self.target_folder, self.target_name, self.folder, self.name


def move_victim(journal: Journal, entry: Entry, keepers: Sequence[HeldKeeper]) -> Entry:
    """Move or replace one victim; return its entry as the journal has it then. Raises DiskFull.

    Raises Refused if it was left at its path or moved back there, and Stuck if that was impossible.
    """
    for keeper in keepers:
        keeper.check()
    with opened_victim(entry.victim) as (folder, _, descriptor):
        if identify(os.fstat(descriptor)) in {keeper.identity for keeper in keepers}:
            raise Refused(f"{quote(entry.path)} is a hard link of its keeper")

        def make(target_folder: int, name: str) -> None:
            make_stand_in(entry, keepers[0], descriptor, target_folder, name)

        with journaled(journal, entry, folder) as entry:
            if entry.action is Action.TRASH:
                put_in_trash(entry, folder, descriptor)
            else:
                try:
                    put(entry, folder, descriptor, make if entry.is_replaced else None, keepers)
                except Refused:
                    if entry.action is Action.HARDLINK:
                        with suppress(Refused):
                            keepers[0].accept_link()  # a link to it was made and removed
                    raise
    return journal.victims[entry.number]


@contextmanager
def journaled(journal: Journal, entry: Entry, folder: int) -> Iterator[Entry]:
    """Journal the intent of what the block does to a file in an open folder, and the outcome.

    Yields the entry with the times of its folders; they are restored if the block raises Refused.
    """
    times = begin_times(folder, entry.base)
    device, missing = os.fstat(folder).st_dev, tuple(_find_missing_folders(entry))
    entry = journal.intend(replace(entry, times=times, device=device, missing=missing))
    failpoint(f"{entry.kind} intended")
    try:
        yield entry
    except Stuck as stuck:
        journal.record(entry, State.STUCK, str(stuck))
        raise
    except Refused as refused:
        remove_own_folders(journal, entry)
        times.observe(folder, entry.base, entry.pending_since_ns).restore(folder, entry.base)
        journal.record(entry, State.REVERTED, str(refused))
        raise
    journal.record(entry, State.DONE, "", times.finish(folder, entry.base))
    failpoint(f"{entry.kind} done")


def _find_missing_folders(entry: Entry) -> Iterator[str]:
    """Find the folders of the target that are to be made; in quarantine all are of neardup."""
    if entry.action is Action.MOVE:
        reached = entry.base.rstrip("/")
        for step in split_target(entry)[0]:
            reached += f"/{step}"
            if not os.path.lexists(reached):
                yield reached


def remove_own_folders(journal: Journal, entry: Entry) -> None:
    """Remove the folders of a target as far as they are empty, and the run made them."""
    own = journal.made_folders if entry.action is Action.MOVE else None
    remove_empty_folders(entry.base, split_target(entry)[0], own)


def put(
    entry: Entry,
    folder: int,
    before: int | None,
    make: Maker | None,
    keepers: Sequence[HeldKeeper] = (),
) -> None:
    """Move the file of an entry to its target, put what `make` makes in its place, and verify both.

    `before` is the descriptor of the file, None where there is none. All is reversed if something
    is not as it has to be. Raises Refused, Stuck and DiskFull.
    """
    steps, target_name = split_target(entry)
    mode = SHARED_MODE if entry.action is Action.MOVE else PRIVATE_MODE
    with made_folders(entry.base, steps, mode) as target_folder:
        ends = Ends(folder, split_path(entry.path)[1], target_folder, target_name)
        with ExitStack() as stack:
            stand_in = _put_in_place(entry, ends, make, stack)
            failpoint(f"{entry.kind} moved")
            try:
                _verify(entry, ends, before, stand_in, keepers)
                failpoint(f"{entry.kind} verified")
            except Refused as refused:
                _put_back(entry, ends, stand_in, refused)
                raise
        os.fsync(target_folder)
        os.fsync(folder)
    if entry.before is None:
        remove_empty_folders(entry.base, steps)


def _put_in_place(
    entry: Entry, ends: Ends, make: Maker | None, stack: ExitStack
) -> tuple[int, int] | None:
    """Move a file to its target; return what identifies the stand-in, if there is one.

    The stand-in is open until `stack` is closed, so that no other file gets its inode number.
    """
    try:
        if make is None:
            rename_exclusive(
                ends.folder, ends.name, ends.target_folder, ends.target_name, ends.target_folder
            )
            return None
        make(ends.target_folder, ends.target_name)
        failpoint(f"{entry.kind} prepared")
        made = os.open(ends.target_name, _HOLD_FLAGS, dir_fd=ends.target_folder)
        stack.callback(os.close, made)
        try:
            _swap(entry, ends)
        except (OSError, Refused, DiskFull):
            os.unlink(ends.target_name, dir_fd=ends.target_folder)
            raise
        return identify(os.fstat(made))
    except FileExistsError as error:
        if entry.before is None:
            raise Refused(f"{quote(entry.path)} came in this moment") from error
        raise Refused(f"a file is at {quote(entry.target)} already") from error
    except OSError as error:
        raise explain_os_error(error, entry.path) from error


def _swap(entry: Entry, ends: Ends) -> None:
    """Give what is at the target the place of the file; a file that is there goes to the target.

    Raises Refused, and OSError.
    """
    if entry.before is None:
        rename_exclusive(*ends.back, ends.target_folder)
    else:
        exchange(*ends.back)


def _verify(
    entry: Entry,
    ends: Ends,
    before: int | None,
    stand_in: tuple[int, int] | None,
    keepers: Sequence[HeldKeeper],
) -> None:
    """Raise Refused unless the file that was moved is the planned one, and the keeper is there."""
    path = quote(entry.path)
    if before is not None:
        moved = stat_name(ends.target_folder, ends.target_name)
        if moved is None or identify(moved) != identify(os.fstat(before)):
            raise Refused(f"{path} was replaced by another file in this moment")
        if hash_descriptor(before, entry.path) != entry.victim.blake3:
            raise Refused(f"{path} has other bytes than the plan says")
    with opened_folder(split_path(entry.path)[0]) as folder:
        if identify(os.fstat(folder)) != identify(os.fstat(ends.folder)):
            raise Refused(f"the folder of {path} was replaced by another in this moment")
    if stand_in is not None:
        place = stat_name(ends.folder, ends.name)
        if place is None or identify(place) != stand_in:
            raise Refused(f"another file came to {path} in this moment")
        require_sound_stand_in(entry, keepers, ends.folder, ends.name)
    if entry.action is Action.HARDLINK:
        keepers[0].accept_link()
    for keeper in keepers:
        keeper.check()


def _put_back(entry: Entry, ends: Ends, stand_in: tuple[int, int] | None, reason: Refused) -> None:
    """Move back what was moved, whatever it is. Raises Stuck if another file has its place."""
    with suppress(OSError, Refused):
        if stand_in is None:
            rename_exclusive(*ends.back, ends.target_folder)
            return

        def is_own(folder: int, name: str) -> bool:
            status = stat_name(folder, name)
            if status is None or identify(status) != stand_in:
                return False
            # A link has no bytes of its own: those of the keeper may have changed.
            is_link = entry.action in (Action.HARDLINK, Action.SYMLINK)
            return is_link or is_stand_in(entry, folder, name)

        take_stand_in_away(entry, ends, is_own)
        return
    where = f"; it could not be moved back and lies at {quote(entry.target)}"
    if entry.is_merge:
        where = f"; the one of before lies at {quote(entry.target)}" if entry.before else ""
    raise Stuck(f"{reason}{where}")


def take_stand_in_away(entry: Entry, ends: Ends, is_own: Callable[[int, str], bool]) -> None:
    """Give the file of before its place again, and delete the stand-in that has it.

    Anything that the run did not put there stays; `is_own` tells by an open folder and a name.
    Raises Refused then, and OSError.
    """
    if not is_own(ends.folder, ends.name):
        raise explain_taken(entry)
    if entry.before is None:
        rename_exclusive(
            ends.folder, ends.name, ends.target_folder, ends.target_name, ends.target_folder
        )
    else:
        exchange(*ends.back)
    failpoint(f"{entry.kind} taken")
    # Again: another program may have written to it, or replaced it, in between.
    if not is_own(ends.target_folder, ends.target_name):
        _swap(entry, ends)
        raise explain_taken(entry)
    os.unlink(ends.target_name, dir_fd=ends.target_folder)


def explain_taken(entry: Entry) -> Refused:
    """Explain why a file of before does not get its place again."""
    path, target = quote(entry.path), quote(entry.target)
    if entry.is_merge:
        kept = f"; the one of before stays at {target}" if entry.before else ""
        return Refused(f"{path} was edited since metadata was added to it{kept}")
    return Refused(f"another file is at {path}; the one that was moved stays at {target}")
