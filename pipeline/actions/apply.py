"""Apply a plan: each victim by itself, each with its keeper open and hashed, or still rejected."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from indexes.durable.failpoints import failpoint
from indexes.durable.locks import lock
from indexes.paths import ACTIONS_LOCK_NAME, quote
from pipeline.actions.folders import Refused
from pipeline.actions.held_files import HeldKeeper, held_keeper, opened_victim
from pipeline.actions.journal import (
    Entry,
    Journal,
    RunHeader,
    State,
    find_journal,
    format_now,
    list_journals,
    open_journal,
    read_journal,
    read_whole_journal,
    reopen_journal,
)
from pipeline.actions.merge_entries import UNSETTLED_MERGE_STATES
from pipeline.actions.merges import merge_metadata, require_mergeable
from pipeline.actions.moves import Stuck, move_victim
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.places import choose_target
from pipeline.actions.plan import (
    Action,
    Merge,
    Part,
    Plan,
    PlannedGroup,
    Victim,
    require_applicable,
)
from pipeline.actions.plan_file import name_run
from pipeline.actions.protection import load_settings
from pipeline.actions.rejections import Rejections
from pipeline.actions.restore import observe_times, restore, settle
from pipeline.actions.trash import require_trash
from pipeline.actions.unmerge import has_victim_away, settle_merges, undo_merge
from pipeline.errors import PlanRefused, RunNotFound

# A plan of more files, or of a larger share of the library, has to be confirmed by their number.
MAX_UNCONFIRMED_FILES = 1_000
MAX_UNCONFIRMED_SHARE = 0.2
MAX_ALWAYS_UNCONFIRMED_FILES = 5  # of any library: in a small one a few files are a large share
_SETTLED_STATES = {State.INTENDED, State.PURGE_INTENDED}  # that a kill left
# The part is at its path; or it is done, and the run was cut off before another part was.
_RESUMED_STATES = {State.REVERTED, State.UNDONE, State.DONE}


def require_confirmation(plan: Plan, confirmed: int | None) -> None:
    """Raise PlanRefused if a plan of many files is not confirmed by their number."""
    count = plan.victim_count
    is_large = count > MAX_UNCONFIRMED_FILES or (
        count > MAX_ALWAYS_UNCONFIRMED_FILES and count > MAX_UNCONFIRMED_SHARE * plan.library_files
    )
    if confirmed is not None and confirmed != count:
        raise PlanRefused(f"the plan acts on {count:,} files, not on {confirmed:,}")
    if is_large and confirmed is None:
        raise PlanRefused(
            f"the plan acts on {count:,} of {plan.library_files:,} files; read it, then confirm"
            f" their number with --confirm {count}"
        )


def preview_plan(
    plan: Plan, store_folder: Path, roots: Sequence[str], rejections: Rejections | None = None
) -> Iterator[Outcome]:
    """Yield what applying a plan would do to each victim; nothing is hashed or changed.

    Without `rejections` no photo counts as rejected. Raises PlanRefused.
    """
    settings = load_settings(store_folder)
    require_applicable(plan, settings.store_id, roots, settings.protected)
    _require_current(plan, rejections)
    header, number = _make_header(plan), -1
    entries = _read_entries(store_folder, header.run)
    for group in plan.groups:
        try:
            if group.merge:
                require_mergeable(group.merge)
                detail = f"to add: {group.merge.summary}"
                yield Outcome(group.merge.sidecar, Status.PLANNED, detail)
        except Refused as refused:
            for victim in group.victims:
                yield from _leave(victim, refused)
            number += sum(len(victim.parts) for victim in group.victims)
            continue
        for victim in group.victims:
            for part in victim.parts:
                number += 1
                try:
                    if plan.rejected:
                        _find_decision(victim, rejections)
                    for kept in group.keeper_parts:
                        with opened_victim(kept):
                            pass
                    with opened_victim(part):
                        target = choose_target(header, part.path, roots)[1]
                except Refused as refused:
                    reason = _explain(refused, entries.get(number))
                    yield Outcome(part.path, Status.LEFT, reason)
                else:
                    yield Outcome(part.path, Status.PLANNED, "", target, part.stat.size)


def _read_entries(store_folder: Path, run: str) -> dict[int, Entry]:
    with suppress(RunNotFound):
        return read_journal(find_journal(store_folder, run))[1]
    return {}


def _explain(refused: Refused, entry: Entry | None) -> str:
    """Say why a part is left; `entry` is what the journal of the plan had of it before."""
    if entry is not None and entry.state is State.UNDONE:
        return "it was moved back by `neardup undo`; ingest its folder again, and make a new plan"
    return str(refused)


def apply_plan(
    plan: Plan, store_folder: Path, roots: Sequence[str], rejections: Rejections | None = None
) -> Iterator[Outcome]:
    """Apply a plan and yield the outcome of each victim; the lock of the actions is held meanwhile.

    What a kill left half done, of any run, is finished or reversed first. A plan that was applied
    in part is continued. Without `rejections` no photo counts as rejected. Raises PlanRefused,
    StoreLocked, ActionRecordDamaged, MissingExtra and
    DiskFull; the journal has everything that was done until then.
    """
    if plan.action is Action.TRASH:
        require_trash()
    with lock(store_folder / ACTIONS_LOCK_NAME):
        settings = load_settings(store_folder)
        require_applicable(plan, settings.store_id, roots, settings.protected)
        _require_current(plan, rejections)
        settle_runs(store_folder, roots)
        if not plan.victim_count:
            return
        with open_journal(store_folder, _make_header(plan)) as journal:
            number = 0
            for group in plan.groups:
                if plan.rejected:
                    yield from _apply_to_rejected(journal, group, number, roots, rejections)
                else:
                    yield from _apply_to_group(journal, group, number, roots)
                number += sum(len(victim.parts) for victim in group.victims)


def _require_current(plan: Plan, rejections: Rejections | None) -> None:
    if plan.rejected and rejections is not None:
        rejections.require_current(plan.ingest_run)


def settle_runs(store_folder: Path, roots: Sequence[str]) -> None:
    """Finish or reverse what a kill left half done, in all runs. Call it with the lock held."""
    for path in list_journals(store_folder):
        content = read_whole_journal(path)
        has_victims = any(entry.state in _SETTLED_STATES for entry in content.entries.values())
        merge_states = {merge.state for merge in content.merges.values()}
        if has_victims or merge_states & UNSETTLED_MERGE_STATES:
            with reopen_journal(path) as journal:
                settle(journal, roots)
                settle_merges(journal, roots)


def _make_header(plan: Plan) -> RunHeader:
    return RunHeader(
        name_run(plan), format_now(), plan.store_id, plan.action, plan.roots, plan.destination
    )


def _apply_to_group(
    journal: Journal, group: PlannedGroup, number: int, roots: Sequence[str]
) -> Iterator[Outcome]:
    """Act on the victims of a group; `number` is that of the first of their parts in the plan."""
    waiting, reported = _split_waiting(journal, group, number)
    yield from reported
    if not waiting:
        return
    extended = group.merge.sidecar if group.merge else None
    with ExitStack() as stack:
        try:
            parts = [part for part in group.keeper_parts if part.path != extended]
            keepers = [stack.enter_context(held_keeper(part)) for part in parts]
            if group.merge:
                sidecar = merge_metadata(journal, group, number, roots)
                if len(parts) < len(group.keeper_parts):  # it stands for a sidecar of a victim
                    keepers.append(stack.enter_context(held_keeper(sidecar)))
        except Refused as refused:
            for _, victim in waiting:
                yield from _leave(victim, refused)
            return
        for first, victim in waiting:
            yield from _apply_to_victim(journal, group.id, victim, first, keepers, roots)
    if group.merge:
        yield from _report_merge(journal, group.merge, number, roots)


def _report_merge(
    journal: Journal, merge: Merge, number: int, roots: Sequence[str]
) -> Iterator[Outcome]:
    """Report a merge; undo it if no victim went, so that the sidecar is as it was."""
    entry = journal.merges[number]
    if not has_victim_away(journal, entry):
        yield from undo_merge(journal, entry, roots)
    else:
        yield Outcome(merge.sidecar, Status.DONE, f"added: {merge.summary}")


def _apply_to_rejected(
    journal: Journal,
    group: PlannedGroup,
    number: int,
    roots: Sequence[str],
    rejections: Rejections | None,
) -> Iterator[Outcome]:
    """Act on the rejected photos of a group, each while a decision still rejects it."""
    waiting, reported = _split_waiting(journal, group, number)
    yield from reported
    for first, victim in waiting:
        try:
            decision = _find_decision(victim, rejections)
        except Refused as refused:
            yield from _leave(victim, refused)
        else:
            yield from _apply_to_victim(journal, decision, victim, first, (), roots)


def _find_decision(victim: Victim, rejections: Rejections | None) -> str:
    """Find the id of the decision that rejects a victim. Raises Refused if there is none."""
    photo = victim.parts[0]
    if rejections is None:
        raise Refused(f"{quote(photo.path)} is not rejected by any decision now")
    return rejections.find_decision(photo)


def _leave(victim: Victim, refused: Refused) -> Iterator[Outcome]:
    for part in victim.parts:
        yield Outcome(part.path, Status.LEFT, str(refused))


def _split_waiting(
    journal: Journal, group: PlannedGroup, number: int
) -> tuple[list[tuple[int, Victim]], list[Outcome]]:
    """Split victims: those to act on, with their numbers, and what a run before did with others."""
    waiting, reported = list[tuple[int, Victim]](), list[Outcome]()
    for victim in group.victims:
        states = [
            entry.state if entry else State.REVERTED
            for entry in (
                journal.entries.get(number + offset) for offset, _ in enumerate(victim.parts)
            )
        ]
        if set(states) <= {State.DONE, State.PURGED} or set(states) - _RESUMED_STATES:
            reported.extend(_report_earlier(journal, victim, number))
        else:
            waiting.append((number, victim))
        number += len(victim.parts)
    return waiting, reported


def _report_earlier(journal: Journal, victim: Victim, number: int) -> Iterator[Outcome]:
    for offset, part in enumerate(victim.parts):
        entry = journal.entries.get(number + offset)
        if entry is None:
            yield Outcome(part.path, Status.LEFT, "another part of it could not be moved")
        elif entry.state in (State.DONE, State.PURGED):
            yield Outcome(part.path, Status.DONE, "done before", entry.target, part.stat.size)
        else:
            detail = entry.detail or "cut off before; it is at its path, or its drive is away"
            yield Outcome(part.path, Status.STUCK, detail, entry.target)


def _apply_to_victim(
    journal: Journal,
    group_id: str,
    victim: Victim,
    number: int,
    keepers: Sequence[HeldKeeper],
    roots: Sequence[str],
) -> Iterator[Outcome]:
    """Act on all parts of a victim, or on none: a part that cannot be moved brings them back.

    Without keepers it is a rejected photo, and `group_id` is the id of the decision.
    """
    rejected = None if keepers else victim.parts[0].blake3
    moved = list[Entry]()
    for offset, part in enumerate(victim.parts):
        done = journal.entries.get(number + offset)
        if done is not None and done.state is State.DONE:
            moved.append(done)
            continue
        try:
            _require_owners_gone(victim)
            base, target = choose_target(journal.header, part.path, roots)
            kept = tuple(keeper.part for keeper in _order_keepers(part, keepers))
            action = journal.header.action
            entry = Entry(number + offset, group_id, action, part, kept, base, target, rejected)
            move_victim(journal, entry, _order_keepers(part, keepers))
        except Refused as refused:
            is_stuck = isinstance(refused, Stuck)
            for earlier in reversed(moved):
                undone = undo_entry(journal, journal.entries[earlier.number], roots)
                if undone.status is Status.DONE:
                    detail = "a part of it could not be moved"
                    yield Outcome(earlier.victim.path, Status.LEFT, detail)
                else:
                    yield replace(undone, status=Status.STUCK)
            status, place = (Status.STUCK, target) if is_stuck else (Status.LEFT, "")
            yield Outcome(part.path, status, _explain(refused, done), place)
            return
        moved.append(entry)
    for entry in moved:
        yield Outcome(entry.victim.path, Status.DONE, "", entry.target, entry.victim.stat.size)


def _require_owners_gone(victim: Victim) -> None:
    """Raise Refused if a photo that shares a part with a victim is still there, and needs it."""
    for path in victim.shared_with:
        if os.path.lexists(path):
            raise Refused(f"{quote(path)} is still there, and shares a sidecar with it")


def _order_keepers(part: Part, keepers: Sequence[HeldKeeper]) -> list[HeldKeeper]:
    """Put the keeper with the bytes of a part first: it stands in for the part."""
    return sorted(keepers, key=lambda keeper: keeper.part.blake3 != part.blake3)


def undo_entry(journal: Journal, entry: Entry, roots: Sequence[str]) -> Outcome:
    """Move one victim back, as the journal then says. Raises DiskFull."""
    was_done = entry.state is State.DONE
    journal.record(entry, State.UNDO_INTENDED, "", observe_times(entry))
    failpoint("action undo intended")
    entry = journal.entries[entry.number]
    try:
        note = restore(journal, entry, roots)
    except Refused as refused:
        # Only what is known to be whole, and was not taken up by an undo before, can be purged.
        state = State.DONE if was_done else State.STUCK
        journal.record(entry, state, str(refused))
        return Outcome(entry.victim.path, Status.LEFT, str(refused), entry.target)
    journal.record(entry, State.UNDONE, note)
    failpoint("action undone")
    return Outcome(entry.victim.path, Status.DONE, note, "", entry.victim.stat.size)
