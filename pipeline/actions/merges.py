"""Add the fields of victims to a sidecar of their keeper.

The new content is written in quarantine, and gets its place by one rename, see put().
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from blake3 import blake3

from indexes.paths import quote
from pipeline.actions.entries import UNSETTLED_STATES, Entry, State
from pipeline.actions.folders import Refused, opened_folder, split_path
from pipeline.actions.held_files import opened_victim
from pipeline.actions.journal import Journal
from pipeline.actions.moves import journaled, put
from pipeline.actions.places import choose_target, require_free
from pipeline.actions.plan import Action, Merge, Part, PlannedGroup
from pipeline.actions.sidecar_files import make_content, read_sidecar, write_sidecar


def require_mergeable(merge: Merge, known: Entry | None) -> None:
    """Raise Refused unless the fields can be added to a sidecar, or are there; change nothing.

    `known` is the entry of the merge in the journal, if there is one.
    """
    folder_path, name = split_path(merge.sidecar)
    with opened_folder(folder_path) as folder:
        if _find_merged(known, merge, folder, name) is None:
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
    merge = group.merge
    folder_path, name = split_path(merge.sidecar)
    with ExitStack() as stack:
        folder = stack.enter_context(opened_folder(folder_path))
        if merged := _find_merged(journal.merges.get(number), merge, folder, name):
            return merged
        content = make_content(merge, folder, name)
        base, target = choose_target(journal.header, merge.sidecar, roots, Action.QUARANTINE)
        require_free(target)
        before = None
        if merge.before is not None:
            folder, _, before = stack.enter_context(opened_victim(merge.before))
        entry = Entry(
            number,
            merge.sidecar,
            merge.before,
            Action.QUARANTINE,
            base,
            target,
            after=blake3(content).hexdigest(),
            victim_count=sum(len(victim.parts) for victim in group.victims),
        )
        model = folder, name if merge.before else split_path(group.keeper_parts[0].path)[1]

        def make(target_folder: int, target_name: str) -> None:
            is_new, place = merge.before is None, (target_folder, target_name)
            write_sidecar(place, content, model, is_new, merge.sidecar)

        with journaled(journal, entry, folder) as entry:
            put(entry, folder, before, make)
        return _read_merged(entry, folder, name)


def _find_merged(known: Entry | None, merge: Merge, folder: int, name: str) -> Part | None:
    """Return a sidecar to which the fields were added before; None if they have to be added now.

    Raises Refused if that is not known, or the sidecar was edited since.
    """
    if known is None or known.state in (State.REVERTED, State.UNDONE):
        return None
    if known.state in (State.STUCK, *UNSETTLED_STATES):
        raise Refused(known.detail or f"{quote(merge.sidecar)} was cut off before")
    return _read_merged(known, folder, name)


def _read_merged(entry: Entry, folder: int, name: str) -> Part:
    read = read_sidecar(folder, name, entry.path)
    if read.part.blake3 != entry.after:
        raise Refused(f"{quote(entry.path)} was edited since metadata was added to it")
    return read.part
