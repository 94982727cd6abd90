"""Bring back what was at a path before a run, for undo and for what a kill left half done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from indexes.durable.failpoints import failpoint
from indexes.paths import quote
from pipeline.actions.entries import Entry, State
from pipeline.actions.folder_times import FOREIGN, FolderTimes, read_times, set_mtimes
from pipeline.actions.folders import (
    PRIVATE_MODE,
    SHARED_MODE,
    Refused,
    explain_os_error,
    find_root,
    made_folders,
    open_if_there,
    opened_folder,
    split_path,
)
from pipeline.actions.held_files import hash_if_there, hash_name, identify, stat_name
from pipeline.actions.journal import Journal
from pipeline.actions.moves import Ends, explain_taken, remove_own_folders, take_stand_in_away
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.places import require_known_places, split_target
from pipeline.actions.plan import Action
from pipeline.actions.rename import remove_scratch_name, rename_exclusive
from pipeline.actions.stand_ins import is_link_to_keeper, is_stand_in


def undo_entry(
    journal: Journal, entry: Entry, roots: Sequence[str], state: State = State.UNDONE
) -> Outcome:
    """Bring back what was at a path before; the journal then says `state`. Raises DiskFull."""
    was_done, was_moved = entry.state is State.DONE, entry.state is not State.INTENDED
    entry = journal.record(entry, State.UNDO_INTENDED, "", observe_times(journal, entry))
    failpoint(f"{entry.kind} undo intended")
    try:
        note = restore(journal, entry, roots, was_moved=was_moved)
    except Refused as refused:
        # Only what is known to be whole, and was not taken up by an undo before, can be purged.
        journal.record(entry, State.DONE if was_done else State.STUCK, str(refused))
        return Outcome(entry.path, Status.LEFT, str(refused), entry.target)
    journal.record(entry, state, note)
    failpoint(f"{entry.kind} undone")
    if entry.is_merge:
        return Outcome(entry.path, Status.DONE, note or "metadata that was added is taken out")
    return Outcome(entry.path, Status.DONE, note, "", entry.victim.stat.size)


def restore(journal: Journal, entry: Entry, roots: Sequence[str], *, was_moved: bool) -> str:
    """Bring back what was at a path before, if it is not there; return what to note about it.

    A file at the path that the run did not put there is never replaced. Folders that are gone are
    made again. `was_moved`: the file of before was in quarantine, not only to be moved there.
    Raises Refused, and DiskFull.
    """
    require_known_places(journal.header, entry, roots)
    if entry.action is Action.TRASH:
        raise Refused(f"{quote(entry.path)} is in the trash, from which neardup cannot take it")
    steps, target_name = split_target(entry)
    folder_path, name = split_path(entry.path)
    with ExitStack() as stack:
        target_folder = open_if_there(stack, split_path(entry.target)[0])
        is_held = target_folder is not None and stat_name(target_folder, target_name) is not None
        folder = _open_folder_of(stack, entry, roots, is_held)
        now = read_times(folder, entry.base)
        restored = _choose_times(journal, entry, now)
        try:
            if entry.before is None:
                _remove_new(entry, folder, target_folder, steps)
            elif target_folder is None or not is_held:
                _require_at_path(entry, folder, was_moved)
                if target_folder is not None:
                    remove_scratch_name(folder, name, target_folder)
            else:
                ends = Ends(folder, name, target_folder, target_name)
                (_restore_replaced if entry.is_replaced else _restore_moved)(entry, ends)
            # The new name first: a power cut in between may leave two names, but never none.
            os.fsync(folder)
            if target_folder is not None:
                os.fsync(target_folder)
        except (OSError, Refused) as error:
            # What was tried may have changed them.
            folder_ns, base_ns = (
                None if time is None else old for old, time in zip(now, restored, strict=True)
            )
            set_mtimes(folder, entry.base, folder_ns, base_ns)
            if isinstance(error, Refused):
                raise
            raise explain_os_error(error, entry.path) from error
        failpoint(f"{entry.kind} restored")
        note = _note_change(entry, folder, name) if is_held else ""
        remove_own_folders(journal, entry)
        set_mtimes(folder, entry.base, *restored)
    return note


def observe_times(journal: Journal, entry: Entry) -> FolderTimes | None:
    """Tell by the present times of its folders if only the run changed them.

    They become those of after, with those of before all changes of the run. None if the journal
    does not have them, or the folder is not there.
    """
    with suppress(Refused), opened_folder(split_path(entry.path)[0]) as folder:
        now = read_times(folder, entry.base)
        _add_pending_times(journal, entry, now)
        if entry.times is None:
            return None
        pairs = [entry.times.folder, entry.times.base]
        for number, path in enumerate(entry.timed_folders):
            original = journal.history.find_original(path, now[number])
            own = (original, now[number]) if original is not None else None
            pairs[number] = own or (pairs[number][0], FOREIGN)
        return FolderTimes(*pairs)
    return None


def _choose_times(
    journal: Journal, entry: Entry, now: tuple[int, int]
) -> tuple[int | None, int | None]:
    """Choose the mtimes of the folder and the base once a file is back; None leaves one as it is.

    `now` are those of before.
    """
    _add_pending_times(journal, entry, now)
    times: list[int | None] = [None, None]
    for number, path in enumerate(entry.timed_folders):
        times[number] = journal.history.find_time(path, now[number])
    return times[0], times[1]


def _add_pending_times(journal: Journal, entry: Entry, now: tuple[int, int]) -> None:
    """Add to the history a change without an outcome in the journal, if it was one of the run."""
    if entry.times is not None and entry.pending_since_ns is not None:
        journal.add_times(entry, entry.times.close(*now, entry.pending_since_ns))


def _open_folder_of(stack: ExitStack, entry: Entry, roots: Sequence[str], is_held: bool) -> int:
    """Open the folder of a path; make it again if it is gone, and something comes back to it."""
    folder_path, _ = split_path(entry.path)
    if is_held and entry.before is not None:
        root = find_root(entry.path, roots) or ""
        steps = [step for step in folder_path[len(root.rstrip("/")) :].split("/") if step]
        return stack.enter_context(made_folders(root, steps, SHARED_MODE))
    folder = open_if_there(stack, folder_path)
    if folder is None:
        raise _explain_missing(entry)
    return folder


def _explain_missing(entry: Entry) -> Refused:
    if entry.before is None:
        return Refused(f"the folder of {quote(entry.path)} is not there")
    return Refused(f"{quote(entry.path)} is neither at its path nor at {quote(entry.target)}")


def _require_at_path(entry: Entry, folder: int, was_moved: bool) -> None:
    """Raise Refused unless the file of before is at its path, and not what stands in for it.

    One that was perhaps never moved can have been edited since, but for a sidecar.
    """
    name = split_path(entry.path)[1]
    if stat_name(folder, name) is None:
        raise _explain_missing(entry)
    if is_link_to_keeper(entry, folder, name):
        raise _explain_not_back(entry, "is the link that the run made")
    if not (was_moved or entry.is_merge):
        return
    if hash_name(folder, name, entry.path) != entry.victim.blake3:
        raise _explain_not_back(entry, "has other bytes than before")
    if entry.action is Action.REFLINK and not entry.is_merge:
        status = stat_name(folder, name)
        if status is None or status.st_ino != entry.victim.stat.inode:
            raise _explain_not_back(entry, "is the copy that the run made")


def _explain_not_back(entry: Entry, what: str) -> Refused:
    path, target = quote(entry.path), quote(entry.target)
    return Refused(f"{path} {what}, and the one of before is not at {target}")


def _restore_moved(entry: Entry, ends: Ends) -> None:
    target = os.stat(ends.target_name, dir_fd=ends.target_folder, follow_symlinks=False)
    place = stat_name(ends.folder, ends.name)
    if place is None:
        with suppress(FileExistsError):
            rename_exclusive(*ends.back, ends.target_folder)
            return
    elif identify(place) == identify(target):  # linked, and not unlinked yet
        os.unlink(ends.target_name, dir_fd=ends.target_folder)
        return
    raise explain_taken(entry)


def _restore_replaced(entry: Entry, ends: Ends) -> None:
    held = os.stat(ends.target_name, dir_fd=ends.target_folder, follow_symlinks=False)
    place = stat_name(ends.folder, ends.name)
    is_before = held.st_ino == entry.victim.stat.inode or _has_bytes_of_before(entry, ends, place)
    if place is None and (is_before or not entry.is_merge):
        if is_link_to_keeper(entry, ends.target_folder, ends.target_name):
            os.unlink(ends.target_name, dir_fd=ends.target_folder)  # it never got its place
            raise _explain_missing(entry)
        rename_exclusive(*ends.back, ends.target_folder)
    elif is_before:
        _take_stand_in_away(entry, ends)
    else:
        _discard_stand_in(entry, ends)


def _has_bytes_of_before(entry: Entry, ends: Ends, place: os.stat_result | None) -> bool:
    """Tell if a file in quarantine is that of before with another inode, as on a copied drive.

    A stand-in for a victim can have the same bytes: then the one of before is at its path.
    """
    target_folder, name = ends.target_folder, ends.target_name
    if not entry.is_merge:
        is_at_path = place is not None and place.st_ino == entry.victim.stat.inode
        if is_at_path or is_link_to_keeper(entry, target_folder, name):
            return False
    with suppress(Refused):
        return hash_if_there(target_folder, name, entry.target) == entry.victim.blake3
    return False


def _take_stand_in_away(entry: Entry, ends: Ends) -> None:
    take_stand_in_away(entry, ends, lambda folder, name: is_stand_in(entry, folder, name))


def _discard_stand_in(entry: Entry, ends: Ends) -> None:
    """Delete a stand-in in quarantine: it has not got its place, or was taken from it again."""
    place = stat_name(ends.folder, ends.name)
    if entry.is_merge:
        if is_stand_in(entry, ends.folder, ends.name):
            raise explain_taken(entry)
    elif place is None or place.st_ino != entry.victim.stat.inode:
        raise explain_taken(entry)
    elif entry.action is not Action.SYMLINK:  # the last file with these bytes, perhaps
        if hash_name(ends.folder, ends.name, entry.path) != entry.victim.blake3:
            raise explain_taken(entry)
    _require_own(entry, ends)
    os.unlink(ends.target_name, dir_fd=ends.target_folder)


def _require_own(entry: Entry, ends: Ends) -> None:
    """Raise Refused unless what lies in quarantine is what the run had put, or was to put, there.

    What an act that was killed left there can be half of a copy. A link is never half.
    """
    is_link = entry.action in (Action.HARDLINK, Action.SYMLINK)
    if entry.state is not State.UNDO_INTENDED and not is_link:
        return
    if is_stand_in(entry, ends.target_folder, ends.target_name):
        return
    if not is_link_to_keeper(entry, ends.target_folder, ends.target_name):
        raise Refused(
            f"{quote(entry.path)} was edited while it was taken away again; it stays at"
            f" {quote(entry.target)}"
        )


def _remove_new(entry: Entry, folder: int, target_folder: int | None, steps: Sequence[str]) -> None:
    """Remove a sidecar that was new, by way of quarantine: what is deleted there is known."""
    name, target_name = split_path(entry.path)[1], split_target(entry)[1]
    place = stat_name(folder, name)
    if target_folder is not None and (target := stat_name(target_folder, target_name)) is not None:
        # A kill left it: before it got its place, or after that was taken from it again.
        is_linked = place is not None and identify(place) == identify(target)
        if not is_linked:
            _require_own(entry, Ends(folder, name, target_folder, target_name))
        os.unlink(target_name, dir_fd=target_folder)
        if not is_linked:
            return
    if place is None:
        return
    with made_folders(entry.base, steps, PRIVATE_MODE) as made_folder:
        ends = Ends(folder, name, made_folder, target_name)
        _take_stand_in_away(entry, ends)


def _note_change(entry: Entry, folder: int, name: str) -> str:
    """Return a note if a file that is back is another than before."""
    if entry.before is None:
        return ""
    status, before = stat_name(folder, name), entry.before.stat
    if status and (status.st_size, status.st_mtime_ns) == (before.size, before.mtime_ns):
        return ""
    return "it was changed while it was away"
