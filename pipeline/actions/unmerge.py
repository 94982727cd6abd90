"""Take metadata out of sidecars again: for undo, for what a kill left, and delete old ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from indexes.durable.failpoints import failpoint
from indexes.paths import quote
from pipeline.actions.folder_times import FolderTimes
from pipeline.actions.folders import (
    PRIVATE_MODE,
    Refused,
    explain_os_error,
    made_folders,
    open_if_there,
    opened_folder,
    remove_empty_folders,
    split_path,
)
from pipeline.actions.held_files import hash_name, held_keeper, identify, stat_name
from pipeline.actions.journal import MOVED_STATES, Journal, State
from pipeline.actions.merge_entries import (
    MERGED_STATES,
    UNSETTLED_MERGE_STATES,
    MergeEntry,
    MergeState,
)
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.places import is_away, require_known_sidecar, split_target
from pipeline.actions.plan import Part
from pipeline.actions.rename import exchange, rename_exclusive
from pipeline.actions.restore import remove_scratch_names
from pipeline.actions.sidecar_files import hash_if_there


@dataclass(frozen=True)
class Ends:
    """The open folder of a sidecar and that of its target, which may be gone, with the names."""

    folder: int
    name: str
    target_folder: int | None
    target_name: str

    @property
    def places(self) -> tuple[int, str, int, str]:
        """The target, then the place of the sidecar, as a rename takes them."""
        assert self.target_folder is not None
        return self.target_folder, self.target_name, self.folder, self.name


def rename_into_place(ends: Ends, is_new: bool) -> None:
    """Rename what was written to the place of a sidecar; one that is there changes places with it.

    Raises Refused, and OSError.
    """
    if is_new:
        rename_exclusive(*ends.places, ends.places[0])
    else:
        exchange(*ends.places)


def take_away(entry: MergeEntry, ends: Ends) -> None:
    """Take what neardup wrote out of the place of a sidecar, and delete it.

    What was in quarantine gets the place. Anything but what neardup wrote stays in the place.
    Raises Refused, and OSError.
    """
    target_folder, target_name, folder, name = ends.places
    if hash_if_there(folder, name, entry.sidecar) != entry.after:
        raise _explain_edit(entry)
    if entry.before is None:
        rename_exclusive(folder, name, target_folder, target_name, target_folder)
    else:
        exchange(*ends.places)
    failpoint("merge taken")
    # Again: another program may have written to it in between.
    if hash_name(target_folder, target_name, entry.target) != entry.after:
        rename_into_place(ends, entry.before is None)
        raise _explain_edit(entry)
    os.unlink(target_name, dir_fd=target_folder)


def _explain_edit(entry: MergeEntry) -> Refused:
    kept = f"; the one of before stays at {quote(entry.target)}" if entry.before else ""
    return Refused(f"{quote(entry.sidecar)} was edited since metadata was added to it{kept}")


def unmerge(journal: Journal, entry: MergeEntry, roots: Sequence[str]) -> str:
    """Bring back what was there before a merge, if it is not there; return what to note about it.

    Raises Refused if the sidecar was edited since: it stays, and so does the one of before.
    """
    require_known_sidecar(journal.header, entry, roots)
    folder_path, name = split_path(entry.sidecar)
    steps, target_name = split_target(entry)
    note = ""
    with ExitStack() as stack:
        folder = stack.enter_context(opened_folder(folder_path))
        target_folder = open_if_there(stack, split_path(entry.target)[0])
        ends = Ends(folder, name, target_folder, target_name)
        times = _observe(entry, folder)
        try:
            if entry.before is None:
                _remove_new(entry, ends, steps)
            else:
                note = _restore_before(entry, entry.before, ends)
            os.fsync(folder)
        except OSError as error:
            raise explain_os_error(error, entry.sidecar) from error
        failpoint("merge restored")
        remove_empty_folders(entry.base, steps)
        if times is not None:
            times.restore(folder, entry.base)
    return note


def _observe_times(entry: MergeEntry) -> FolderTimes | None:
    """Do what _observe() does; None if the folder is not there."""
    with suppress(Refused), opened_folder(split_path(entry.sidecar)[0]) as folder:
        return _observe(entry, folder)
    return None


def _observe(entry: MergeEntry, folder: int) -> FolderTimes | None:
    """Tell by the present times of its folders if only the run changed them since the merge."""
    if entry.times is None:
        return None
    return entry.times.observe(folder, entry.base, entry.pending_since_ns)


def _remove_new(entry: MergeEntry, ends: Ends, steps: Sequence[str]) -> None:
    """Remove a sidecar that was new, by way of quarantine: what is deleted there is known."""
    target = None
    if ends.target_folder is not None:
        target = stat_name(ends.target_folder, ends.target_name)
    place = stat_name(ends.folder, ends.name)
    if ends.target_folder is not None and target is not None:
        # A kill left it: before it got its place, or after that was taken from it again.
        is_linked = place is not None and identify(place) == identify(target)
        if not is_linked:
            _require_own(entry, ends)
        os.unlink(ends.target_name, dir_fd=ends.target_folder)
        if not is_linked:
            return
    if place is None:
        return
    with made_folders(entry.base, steps, PRIVATE_MODE) as target_folder:
        made = Ends(ends.folder, ends.name, target_folder, ends.target_name)
        remove_scratch_names(ends.folder, ends.name, target_folder)
        take_away(entry, made)


def _restore_before(entry: MergeEntry, before: Part, ends: Ends) -> str:
    """Put the sidecar of before back; return a note if it was changed in quarantine."""
    kept = hash_if_there(ends.target_folder, ends.target_name, entry.target)
    place = hash_if_there(ends.folder, ends.name, entry.sidecar)
    if ends.target_folder is None or kept is None:
        if place != before.blake3:
            raise Refused(
                f"{quote(entry.sidecar)} was changed, and the one of before is not at"
                f" {quote(entry.target)}"
            )
        return ""
    status = os.stat(ends.target_name, dir_fd=ends.target_folder, follow_symlinks=False)
    if status.st_ino != before.stat.inode and kept != before.blake3:
        # What was written there has not got its place, or was taken from it again.
        if place == entry.after:
            raise _explain_edit(entry)
        _require_own(entry, ends)
        os.unlink(ends.target_name, dir_fd=ends.target_folder)
        return ""
    if place is None:
        rename_exclusive(*ends.places, ends.target_folder)
    else:
        take_away(entry, ends)
    return "" if kept == before.blake3 else "it was changed while it was away"


def _require_own(entry: MergeEntry, ends: Ends) -> None:
    """Raise Refused unless what an undo took into quarantine is what neardup wrote.

    What a merge that was killed left there can be half of that.
    """
    found = hash_if_there(ends.target_folder, ends.target_name, entry.target)
    if entry.state is MergeState.UNDO_INTENDED and found != entry.after:
        raise Refused(
            f"{quote(entry.sidecar)} was edited while metadata was taken out of it; it stays at"
            f" {quote(entry.target)}"
        )


def settle_merges(journal: Journal, roots: Sequence[str]) -> None:
    """Finish or reverse every merge that a kill left half done. Raises DiskFull."""
    for entry in list(journal.merges.values()):
        if entry.state is MergeState.PURGE_INTENDED:
            _settle_purge(journal, entry, roots)
        elif entry.state in UNSETTLED_MERGE_STATES:
            _settle(journal, entry, roots)


def _settle_purge(journal: Journal, entry: MergeEntry, roots: Sequence[str]) -> None:
    """Record whether a purge that was killed had deleted the sidecar of before.

    Nothing is decided while its drive is away.
    """
    is_there = os.path.lexists(entry.target)
    if not is_there and is_away(entry):
        return
    with suppress(Refused):
        require_known_sidecar(journal.header, entry, roots)
        remove_empty_folders(entry.base, split_target(entry)[0])
    journal.record_merge(entry, MergeState.DONE if is_there else MergeState.PURGED)


def _settle(journal: Journal, entry: MergeEntry, roots: Sequence[str]) -> None:
    try:
        require_known_sidecar(journal.header, entry, roots)
        if _is_done(entry):
            journal.record_merge(entry, MergeState.DONE, "", _observe_times(entry))
        else:
            note = unmerge(journal, entry, roots)
            journal.record_merge(entry, MergeState.REVERTED, note)
    except Refused as refused:
        if os.path.lexists(split_path(entry.sidecar)[0]):  # else its drive may be away
            journal.record_merge(entry, MergeState.STUCK, str(refused))


def _is_done(entry: MergeEntry) -> bool:
    """Tell if a sidecar has what was written, and the one of before lies in quarantine."""
    folder_path, name = split_path(entry.sidecar)
    target_folder_path, target_name = split_path(entry.target)
    with suppress(Refused, OSError), ExitStack() as stack:
        folder = stack.enter_context(opened_folder(folder_path))
        target_folder = open_if_there(stack, target_folder_path)
        if hash_if_there(folder, name, entry.sidecar) != entry.after:
            return False
        kept = hash_if_there(target_folder, target_name, entry.target)
        if kept is None and entry.before is None:
            remove_empty_folders(entry.base, split_target(entry)[0])
        return kept == (entry.before.blake3 if entry.before else None)
    return False


def undo_merge(journal: Journal, entry: MergeEntry, roots: Sequence[str]) -> Iterator[Outcome]:
    """Undo a merge, as the journal then says; yield its outcome. Raises DiskFull.

    It stays while one of the victims that it is for is away: their metadata is in no other place.
    """
    if entry.state is MergeState.PURGE_INTENDED:
        _settle_purge(journal, entry, roots)
        entry = journal.merges[entry.number]
    if entry.state is MergeState.PURGED:
        detail = (
            "metadata that was added stays: the sidecar of before was deleted by `neardup purge`"
        )
        yield Outcome(entry.sidecar, Status.LEFT, detail)
    if entry.state not in MERGED_STATES:
        return
    if has_victim_away(journal, entry):
        detail = "metadata that was added stays: a photo that it comes from is not back"
        yield Outcome(entry.sidecar, Status.LEFT, detail)
        return
    was_done = entry.state is MergeState.DONE
    journal.record_merge(entry, MergeState.UNDO_INTENDED, "", _observe_times(entry))
    failpoint("merge undo intended")
    entry = journal.merges[entry.number]
    try:
        note = unmerge(journal, entry, roots)
    except Refused as refused:
        state = MergeState.DONE if was_done else MergeState.STUCK
        journal.record_merge(entry, state, str(refused))
        yield Outcome(entry.sidecar, Status.LEFT, str(refused))
        return
    journal.record_merge(entry, MergeState.UNDONE, note)
    failpoint("merge undone")
    yield Outcome(entry.sidecar, Status.DONE, note or "metadata that was added is taken out")


def has_victim_away(journal: Journal, entry: MergeEntry) -> bool:
    """Tell if one of the victims that a merge is for is not at its path."""
    numbers = range(entry.number, entry.number + entry.victim_count)
    states = {journal.entries[number].state for number in numbers if number in journal.entries}
    return not states.isdisjoint(MOVED_STATES | {State.PURGED})


def purge_merges(journal: Journal, roots: Sequence[str], dry_run: bool) -> Iterator[Outcome]:
    """Delete the sidecars of before that a run holds; yield their outcomes. Raises DiskFull.

    One stays, and is named, if it was changed, or if the sidecar that has all of it is gone or was
    changed since.
    """
    for entry in list(journal.merges.values()):
        if entry.state is MergeState.STUCK and entry.before is not None:
            yield Outcome(entry.sidecar, Status.LEFT, entry.detail, entry.target)
        if entry.state is not MergeState.DONE or entry.before is None:
            continue
        try:
            require_known_sidecar(journal.header, entry, roots)
            with held_keeper(Part(entry.sidecar, entry.before.stat, entry.after)) as sidecar:
                _delete_before(journal, entry, sidecar.identity, dry_run)
        except Refused as refused:
            yield Outcome(entry.sidecar, Status.LEFT, str(refused), entry.target)
        else:
            status = Status.PLANNED if dry_run else Status.DONE
            detail = "the sidecar of before metadata was added"
            yield Outcome(entry.sidecar, status, detail, "", entry.before.stat.size)


def _delete_before(
    journal: Journal, entry: MergeEntry, kept: tuple[int, int], dry_run: bool
) -> None:
    folder_path, name = split_path(entry.target)
    with opened_folder(folder_path) as folder:
        is_whole = entry.before and hash_name(folder, name, entry.target) == entry.before.blake3
        status = stat_name(folder, name)
        if not is_whole or status is None or identify(status) == kept:
            raise Refused(f"{quote(entry.target)} was changed since it was moved")
        if dry_run:
            return
        journal.record_merge(entry, MergeState.PURGE_INTENDED)
        failpoint("merge purge intended")
        try:
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)
        except OSError as error:
            journal.record_merge(entry, MergeState.DONE)
            raise explain_os_error(error, entry.target) from error
        failpoint("merge deleted")
    remove_empty_folders(entry.base, split_target(entry)[0])
    journal.record_merge(entry, MergeState.PURGED)
    failpoint("merge purged")
