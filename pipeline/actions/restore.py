"""Move victims of a run back, and settle what a kill left half done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from indexes.durable.failpoints import failpoint
from indexes.paths import quote
from pipeline.actions.folder_times import FolderTimes
from pipeline.actions.folders import (
    SHARED_MODE,
    Refused,
    explain_os_error,
    find_root,
    made_folders,
    open_if_there,
    opened_folder,
    remove_empty_folders,
    split_path,
)
from pipeline.actions.held_files import hash_name, held_keeper, identify, stat_name
from pipeline.actions.journal import Entry, Journal, State
from pipeline.actions.places import is_away, require_known_places, split_target
from pipeline.actions.plan import REPLACING_ACTIONS, Action
from pipeline.actions.rename import exchange, rename_exclusive
from pipeline.actions.stand_ins import is_stand_in


def restore(journal: Journal, entry: Entry, roots: Sequence[str]) -> str:
    """Move a victim back to its path, if it is not there; return what to note about it.

    A file that is at its path is never replaced. Folders that are gone are made again. Raises
    Refused, and DiskFull.
    """
    require_known_places(journal.header, entry, roots)
    path = entry.victim.path
    if entry.action is Action.TRASH:
        raise Refused(f"{quote(path)} is in the trash, from which neardup cannot take it")
    steps, target_name = split_target(entry)
    folder_path, name = split_path(path)
    with ExitStack() as stack:
        target_folder = open_if_there(stack, split_path(entry.target)[0])
        target = None if target_folder is None else stat_name(target_folder, target_name)
        if target_folder is None or target is None:
            folder = _require_at_path(stack, entry)
            times = _observe(entry, folder)
            remove_empty_folders(entry.base, steps)  # which a kill may have left
            _restore_times(entry, folder, times)
            return ""
        root = find_root(path, roots) or ""
        folder_steps = [step for step in folder_path[len(root.rstrip("/")) :].split("/") if step]
        folder = stack.enter_context(made_folders(root, folder_steps, SHARED_MODE))
        times = _observe(entry, folder)
        try:
            if entry.action in REPLACING_ACTIONS:
                _restore_replaced(entry, folder, name, target_folder, target_name)
            else:
                _restore_moved(entry, folder, name, target_folder, target_name)
            os.fsync(folder)
            os.fsync(target_folder)
        except OSError as error:
            raise explain_os_error(error, path) from error
        failpoint("action restored")
        note = _note_change(entry, folder, name)
        remove_empty_folders(entry.base, steps)
        _restore_times(entry, folder, times)
    return note


def observe_times(entry: Entry) -> FolderTimes | None:
    """Tell by the present times of its folders if only the run changed them since a victim moved.

    None if the journal does not have them, or the folder is not there.
    """
    with suppress(Refused), opened_folder(split_path(entry.victim.path)[0]) as folder:
        return _observe(entry, folder)
    return None


def _observe(entry: Entry, folder: int) -> FolderTimes | None:
    if entry.times is None:
        return None
    return entry.times.observe(folder, entry.base, entry.pending_since_ns)


def _restore_times(entry: Entry, folder: int, times: FolderTimes | None) -> None:
    """Give the folders the mtimes of before the move, unless another program changed them since.

    `times` are those of before the victim was moved back.
    """
    if times is not None:
        times.restore(folder, "" if entry.action is Action.MOVE else entry.base)


def _require_at_path(stack: ExitStack, entry: Entry) -> int:
    """Return the open folder of a victim that is at its path. Raises Refused if it is not."""
    path = entry.victim.path
    folder_path, name = split_path(path)
    folder = open_if_there(stack, folder_path)
    if folder is None or stat_name(folder, name) is None:
        raise Refused(f"{quote(path)} is neither at its path nor at {quote(entry.target)}")
    return folder


def _restore_moved(
    entry: Entry, folder: int, name: str, target_folder: int, target_name: str
) -> None:
    target = os.stat(target_name, dir_fd=target_folder, follow_symlinks=False)
    place = stat_name(folder, name)
    if place is None:
        with suppress(FileExistsError):
            rename_exclusive(target_folder, target_name, folder, name, target_folder)
            remove_scratch_names(folder, name, target_folder)
            return
    elif identify(place) == identify(target):  # linked, and not unlinked yet
        os.unlink(target_name, dir_fd=target_folder)
        remove_scratch_names(folder, name, target_folder)
        return
    raise _explain_taken(entry)


def remove_scratch_names(folder: int, name: str, target_folder: int) -> None:
    """Remove names in quarantine that rename_exclusive() left of a file when it was killed."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    for other in os.listdir(target_folder):
        if other.startswith(".neardup-") and other.endswith(f"-{status.st_ino}"):
            scratch = stat_name(target_folder, other)
            if scratch is not None and identify(scratch) == identify(status):
                os.unlink(other, dir_fd=target_folder)


def _restore_replaced(
    entry: Entry, folder: int, name: str, target_folder: int, target_name: str
) -> None:
    target = os.stat(target_name, dir_fd=target_folder, follow_symlinks=False)
    place, inode = stat_name(folder, name), entry.victim.stat.inode
    if place is not None and place.st_ino == inode and target.st_ino != inode:
        # Not swapped yet, or swapped back: what is in quarantine is what was to stand here.
        if entry.action is not Action.SYMLINK:  # the last file with these bytes, perhaps
            _require_bytes(entry, folder, name)
        os.unlink(target_name, dir_fd=target_folder)
        return
    if place is None:
        rename_exclusive(target_folder, target_name, folder, name, target_folder)
        return
    if target.st_ino != inode or not is_stand_in(entry, folder, name):
        raise _explain_taken(entry)
    exchange(folder, name, target_folder, target_name)
    # Again: it may have been replaced in between, by a file that got its inode number.
    if not is_stand_in(entry, target_folder, target_name):
        exchange(folder, name, target_folder, target_name)
        raise _explain_taken(entry)
    os.unlink(target_name, dir_fd=target_folder)


def _require_bytes(entry: Entry, folder: int, name: str) -> None:
    if hash_name(folder, name, entry.victim.path) != entry.victim.blake3:
        raise _explain_taken(entry)


def _explain_taken(entry: Entry) -> Refused:
    return Refused(
        f"another file is at {quote(entry.victim.path)}; the one that was moved stays at"
        f" {quote(entry.target)}"
    )


def _note_change(entry: Entry, folder: int, name: str) -> str:
    status, before = os.stat(name, dir_fd=folder, follow_symlinks=False), entry.victim.stat
    if (status.st_size, status.st_mtime_ns) == (before.size, before.mtime_ns):
        return ""
    return "it was changed while it was away"


def settle(journal: Journal, roots: Sequence[str]) -> None:
    """Finish or reverse every entry that a kill left half done. Raises DiskFull.

    A victim that was moved, is what the plan names, and has its keeper, counts as done; else it
    is moved back.
    """
    for entry in list(journal.entries.values()):
        if entry.state is State.INTENDED:
            _settle_intended(journal, entry, roots)
        elif entry.state is State.PURGE_INTENDED:
            settle_purge(journal, entry, roots)


def settle_purge(journal: Journal, entry: Entry, roots: Sequence[str]) -> None:
    """Record whether a purge that was killed had deleted a victim, unless its drive is away.

    Raises DiskFull.
    """
    is_there = os.path.lexists(entry.target)
    if not is_there and is_away(entry):
        return
    with suppress(Refused):
        require_known_places(journal.header, entry, roots)
        remove_empty_folders(entry.base, split_target(entry)[0])
    journal.record(entry, State.DONE if is_there else State.PURGED)


def _settle_intended(journal: Journal, entry: Entry, roots: Sequence[str]) -> None:
    try:
        require_known_places(journal.header, entry, roots)
        if entry.action is Action.TRASH:
            is_there = os.path.lexists(entry.victim.path)
            journal.record(entry, State.REVERTED if is_there else State.DONE)
        elif _is_done(entry):
            journal.record(entry, State.DONE, "", observe_times(entry))
        else:
            journal.record(entry, State.REVERTED, restore(journal, entry, roots))
    except Refused as refused:
        if os.path.lexists(entry.target):  # else its drive may be away: the next time tells
            journal.record(entry, State.STUCK, str(refused))


def _is_done(entry: Entry) -> bool:
    """Tell if a victim is at its target, whole, and its keeper is still there."""
    folder_path, name = split_path(entry.victim.path)
    target_folder_path, target_name = split_path(entry.target)
    with suppress(Refused, OSError), ExitStack() as stack:
        target_folder = stack.enter_context(opened_folder(target_folder_path))
        folder = stack.enter_context(opened_folder(folder_path))
        target, place = stat_name(target_folder, target_name), stat_name(folder, name)
        if target is None or target.st_ino != entry.victim.stat.inode:
            return False
        if entry.action in REPLACING_ACTIONS:
            if place is None or not is_stand_in(entry, folder, name):
                return False
        elif place is not None:
            return False
        if hash_name(target_folder, target_name, entry.target) != entry.victim.blake3:
            return False
        for part in entry.keepers:
            keeper = stack.enter_context(held_keeper(part))
            if keeper.identity == identify(target):
                return False
        return True
    return False
