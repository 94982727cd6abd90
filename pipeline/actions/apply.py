"""Apply a plan: each victim by itself, each with its keeper open and hashed, or still rejected."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from indexes.durable.locks import lock
from indexes.paths import ACTIONS_LOCK_NAME, quote
from pipeline.actions.entries import Entry, State
from pipeline.actions.folders import Refused
from pipeline.actions.held_files import HeldKeeper, held_keeper
from pipeline.actions.journal import Journal, RunHeader, format_now, open_journal
from pipeline.actions.merges import merge_metadata
from pipeline.actions.moves import Stuck, move_victim
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.places import choose_target
from pipeline.actions.plan import Action, Merge, Part, Plan, PlannedGroup, Victim
from pipeline.actions.plan_checks import require_current
from pipeline.actions.plan_file import name_run
from pipeline.actions.rejections import Rejections
from pipeline.actions.restore import undo_entry
from pipeline.actions.settle import has_victim_away, settle_runs
from pipeline.actions.trash import require_trash

# The part is at its path; or it is done, and the run was cut off before another part was.
_RESUMED_STATES = {State.REVERTED, State.DONE}
OTHER_PART_LEFT = "a part of it could not be moved"


def apply_plan(
    plan: Plan, store_folder: Path, roots: Sequence[str], rejections: Rejections | None = None
) -> Iterator[Outcome]:
    """Apply a plan and yield the outcome of each victim; the lock of the actions is held meanwhile.

    What a kill left half done, of any run, is finished or reversed first. A plan that was applied
    in part is continued; one that was undone is not applied again. Without `rejections` no photo
    counts as rejected. Raises PlanRefused, StoreLocked, ActionRecordDamaged, MissingExtra and
    DiskFull; the journal has everything that was done until then.
    """
    if plan.action is Action.TRASH:
        require_trash()
    with lock(store_folder / ACTIONS_LOCK_NAME):
        require_current(plan, store_folder, roots, rejections)
        header = make_header(plan)
        settle_runs(store_folder, roots, continued=header.run)
        if not plan.victim_count:
            return
        with open_journal(store_folder, header) as journal:
            number = 0
            for group in plan.groups:
                if plan.rejected:
                    yield from _apply_to_rejected(journal, group, number, roots, rejections)
                else:
                    yield from _apply_to_group(journal, group, number, roots)
                number += sum(len(victim.parts) for victim in group.victims)


def make_header(plan: Plan) -> RunHeader:
    """Make the header of the journal of the run that applies a plan."""
    return RunHeader(
        name_run(plan), format_now(), plan.store_id, plan.action, plan.roots, plan.destination
    )


def _apply_to_group(
    journal: Journal, group: PlannedGroup, number: int, roots: Sequence[str]
) -> Iterator[Outcome]:
    """Act on the victims of a group; `number` is that of the first of their parts in the plan."""
    waiting, reported = split_waiting(journal.victims, group, number)
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
                yield from leave(victim, str(refused))
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
        yield undo_entry(journal, entry, roots)
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
    waiting, reported = split_waiting(journal.victims, group, number)
    yield from reported
    for first, victim in waiting:
        try:
            decision = find_decision(victim, rejections)
        except Refused as refused:
            yield from leave(victim, str(refused))
        else:
            yield from _apply_to_victim(journal, decision, victim, first, (), roots)


def find_decision(victim: Victim, rejections: Rejections | None) -> str:
    """Find the id of the decision that rejects a victim. Raises Refused if there is none."""
    photo = victim.parts[0]
    if rejections is None:
        raise Refused(f"{quote(photo.path)} is not rejected by any decision now")
    return rejections.find_decision(photo)


def leave(victim: Victim, reason: str) -> Iterator[Outcome]:
    """Yield the outcome of each part of a victim that is left alone."""
    for part in victim.parts:
        yield Outcome(part.path, Status.LEFT, reason)


def split_waiting(
    known: Mapping[int, Entry], group: PlannedGroup, number: int
) -> tuple[list[tuple[int, Victim]], list[Outcome]]:
    """Split victims: those to act on, with their numbers, and what a run before did with others.

    `known` are the entries of the journal by number; the first one of the group is `number`.
    """
    waiting, reported = list[tuple[int, Victim]](), list[Outcome]()
    for victim in group.victims:
        entries = [known.get(number + offset) for offset, _ in enumerate(victim.parts)]
        states = {entry.state if entry else State.REVERTED for entry in entries}
        if states <= {State.DONE, State.PURGED} or states - _RESUMED_STATES:
            pairs = zip(victim.parts, entries, strict=True)
            reported += [_report_earlier(part, entry) for part, entry in pairs]
        else:
            waiting.append((number, victim))
        number += len(victim.parts)
    return waiting, reported


def _report_earlier(part: Part, entry: Entry | None) -> Outcome:
    if entry is None or entry.state is State.REVERTED:
        return Outcome(part.path, Status.LEFT, OTHER_PART_LEFT)
    if entry.state in (State.DONE, State.PURGED):
        return Outcome(part.path, Status.DONE, "done before", entry.target, part.stat.size)
    if entry.state is State.UNDONE:
        # Whoever undoes a plan wants another one.
        detail = "it was moved back by `neardup undo`; ingest its folder again, and make a new plan"
        return Outcome(part.path, Status.LEFT, detail)
    detail = entry.detail or "cut off before; it is at its path, or its drive is away"
    return Outcome(part.path, Status.STUCK, detail, entry.target)


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
        done = journal.victims.get(number + offset)
        if done is not None and done.state is State.DONE:
            moved.append(done)
            continue
        try:
            require_owners_gone(victim)
            action = journal.header.action
            base, target = choose_target(journal.header, part.path, roots, action)
            ordered = _order_keepers(part, keepers)
            kept = tuple(keeper.part for keeper in ordered)
            entry = Entry(
                number + offset, part.path, part, action, base, target, group_id, kept, rejected
            )
            moved.append(move_victim(journal, entry, ordered))
        except Refused as refused:
            for earlier in reversed(moved):
                undone = undo_entry(journal, earlier, roots, State.REVERTED)
                if undone.status is Status.DONE:
                    yield Outcome(earlier.path, Status.LEFT, OTHER_PART_LEFT)
                else:
                    yield replace(undone, status=Status.STUCK)
            is_stuck = isinstance(refused, Stuck)
            status, place = (Status.STUCK, target) if is_stuck else (Status.LEFT, "")
            yield Outcome(part.path, status, str(refused), place)
            for later in victim.parts[offset + 1 :]:
                yield Outcome(later.path, Status.LEFT, OTHER_PART_LEFT)
            return
    for entry in moved:
        yield Outcome(entry.path, Status.DONE, "", entry.target, entry.victim.stat.size)


def require_owners_gone(victim: Victim, going: Collection[str] = ()) -> None:
    """Raise Refused if a photo that shares a part with a victim is still there, and needs it.

    Those `going` count as gone.
    """
    for path in victim.shared_with:
        if os.path.lexists(path) and path not in going:
            raise Refused(f"{quote(path)} is still there, and shares a sidecar with it")


def _order_keepers(part: Part, keepers: Sequence[HeldKeeper]) -> list[HeldKeeper]:
    """Put the keeper with the bytes of a part first: it stands in for the part."""
    return sorted(keepers, key=lambda keeper: keeper.part.blake3 != part.blake3)
