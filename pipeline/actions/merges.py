"""Add the fields of victims to a sidecar of their keeper, and bring back what was there before.

The new content is written in quarantine. One rename gives it the place of the sidecar: it changes
places with the one of before, which stays in quarantine; a new one takes a place that is free.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from blake3 import blake3

from indexes.durable.failpoints import failpoint
from indexes.errors import DiskFull
from indexes.paths import quote
from pipeline.actions.folder_times import begin_times
from pipeline.actions.folders import (
    PRIVATE_MODE,
    Refused,
    explain_os_error,
    made_folders,
    opened_folder,
    remove_empty_folders,
    split_path,
)
from pipeline.actions.held_files import identify
from pipeline.actions.journal import Journal
from pipeline.actions.merge_entries import UNSETTLED_MERGE_STATES, MergeEntry, MergeState
from pipeline.actions.moves import Stuck
from pipeline.actions.places import choose_sidecar_target, split_target
from pipeline.actions.plan import Merge, Part, PlannedGroup
from pipeline.actions.sidecar_files import (
    hash_if_there,
    make_content,
    read_sidecar,
    write_sidecar,
)
from pipeline.actions.unmerge import Ends, rename_into_place, take_away


def require_mergeable(merge: Merge) -> None:
    """Raise Refused if the fields cannot be added to the sidecar as it is now; change nothing."""
    folder_path, name = split_path(merge.sidecar)
    with opened_folder(folder_path) as folder:
        make_content(merge, folder, name)


def merge_metadata(
    journal: Journal, group: PlannedGroup, number: int, roots: Sequence[str]
) -> Part:
    """Add the fields of a group to the sidecar of its keeper, as the journal then says.

    `number` is that of its first victim. Returns the sidecar as it is then; one that was done
    before only has to be as it was left. Raises Refused if it is as it was before, Stuck if another
    program wrote to it meanwhile, and DiskFull.
    """
    assert group.merge is not None
    known, merge = journal.merges.get(number), group.merge
    folder_path, name = split_path(merge.sidecar)
    with opened_folder(folder_path) as folder:
        if known is not None and known.state in (MergeState.DONE, MergeState.PURGED):
            return _read_merged(known, folder, name)
        if known is not None and known.state in (MergeState.STUCK, *UNSETTLED_MERGE_STATES):
            raise Refused(known.detail or f"{quote(merge.sidecar)} was cut off before")
        content = make_content(merge, folder, name)
        base, target = choose_sidecar_target(journal.header, merge.sidecar, roots)
        if os.path.lexists(target):
            raise Refused(f"a file is at {quote(target)} already")
        entry = MergeEntry(
            number,
            sum(len(victim.parts) for victim in group.victims),
            merge.sidecar,
            merge.before,
            blake3(content).hexdigest(),
            base,
            target,
            times=(times := begin_times(folder, base)),
        )
        journal.intend_merge(entry)
        entry = journal.merges[number]
        failpoint("merge intended")
        try:
            _put_in_place(entry, folder, split_path(group.keeper_parts[0].path)[1], content)
        except Stuck as stuck:
            journal.record_merge(entry, MergeState.STUCK, str(stuck))
            raise
        except Refused as refused:
            remove_empty_folders(base, split_target(entry)[0])
            times.observe(folder, base, entry.pending_since_ns).restore(folder, base)
            journal.record_merge(entry, MergeState.REVERTED, str(refused))
            raise
        journal.record_merge(entry, MergeState.DONE, times=times.finish(folder, base))
        failpoint("merge done")
        return _read_merged(entry, folder, name)


def _read_merged(entry: MergeEntry, folder: int, name: str) -> Part:
    read = read_sidecar(folder, name, entry.sidecar)
    if read.part.blake3 != entry.after:
        raise Refused(f"{quote(entry.sidecar)} was edited since metadata was added to it")
    return read.part


def _put_in_place(entry: MergeEntry, folder: int, keeper_name: str, content: bytes) -> None:
    steps, target_name = split_target(entry)
    name = split_path(entry.sidecar)[1]
    with made_folders(entry.base, steps, PRIVATE_MODE) as target_folder:
        ends = Ends(folder, name, target_folder, target_name)
        is_new = entry.before is None
        model = folder, keeper_name if is_new else name
        write_sidecar((target_folder, target_name), content, model, is_new, entry.sidecar)
        failpoint("merge written")
        try:
            rename_into_place(ends, is_new)
        except (OSError, Refused, DiskFull) as error:
            os.unlink(target_name, dir_fd=target_folder)
            raise _explain(error, entry.sidecar) from error
        failpoint("merge moved")
        try:
            _verify(entry, ends)
        except Refused as refused:
            _put_back(entry, ends, refused)
            raise
        os.fsync(target_folder)
        os.fsync(folder)
    if is_new:
        remove_empty_folders(entry.base, steps)


def _explain(error: Exception, path: str) -> Exception:
    if isinstance(error, FileExistsError):
        return Refused(f"{quote(path)} came in this moment")
    return explain_os_error(error, path) if isinstance(error, OSError) else error


def _verify(entry: MergeEntry, ends: Ends) -> None:
    """Raise Refused unless the new content has its place, and the sidecar of before is kept."""
    path = quote(entry.sidecar)
    if hash_if_there(ends.folder, ends.name, entry.sidecar) != entry.after:
        raise Refused(f"{path} was written by another program in this moment")
    with opened_folder(split_path(entry.sidecar)[0]) as folder:
        if identify(os.fstat(folder)) != identify(os.fstat(ends.folder)):
            raise Refused(f"the folder of {path} was replaced by another in this moment")
    kept = hash_if_there(ends.target_folder, ends.target_name, entry.target)
    if entry.before is not None and kept != entry.before.blake3:
        raise Refused(f"{path} was changed in this moment")


def _put_back(entry: MergeEntry, ends: Ends, reason: Refused) -> None:
    """Undo a rename after which not all is as it has to be. Raises Stuck where that fails."""
    try:
        take_away(entry, ends)
        return
    except (OSError, Refused):
        pass
    kept = f"; the one of before lies at {quote(entry.target)}" if entry.before else ""
    raise Stuck(f"{reason}{kept}")
