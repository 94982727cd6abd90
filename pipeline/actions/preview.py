"""Say what applying a plan would do, without doing it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.actions.apply import (
    OTHER_PART_LEFT,
    find_decision,
    leave,
    make_header,
    require_owners_gone,
    split_waiting,
)
from pipeline.actions.entries import UNSETTLED_STATES, Entry, State
from pipeline.actions.folders import Refused
from pipeline.actions.held_files import opened_victim, require_kept
from pipeline.actions.journal import JournalContent, RunHeader, find_journal, read_journal
from pipeline.actions.merges import require_mergeable
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.places import choose_target, is_away, require_free
from pipeline.actions.plan import Merge, Plan, PlannedGroup, Victim
from pipeline.actions.plan_checks import require_current
from pipeline.actions.rejections import Rejections
from pipeline.actions.settle import get_reversed_state, is_done
from pipeline.errors import RunNotFound


def preview_plan(
    plan: Plan, store_folder: Path, roots: Sequence[str], rejections: Rejections | None = None
) -> Iterator[Outcome]:
    """Yield what applying a plan would do to each victim; nothing is changed.

    A file is hashed only where its stat does not tell. What a kill left half done counts as
    settled. Without `rejections` no photo counts as rejected. Raises PlanRefused.
    """
    require_current(plan, store_folder, roots, rejections)
    known = _read_settled(store_folder, make_header(plan))
    preview, number = _Preview(plan, known, roots, rejections), 0
    for group in plan.groups:
        yield from preview.preview_group(group, number)
        number += sum(len(victim.parts) for victim in group.victims)


def _read_settled(store_folder: Path, header: RunHeader) -> JournalContent:
    """Read the journal of a run as settle_runs() would leave it, with the run continued."""
    content = JournalContent(header, {}, {})
    with suppress(RunNotFound):
        content = read_journal(find_journal(store_folder, header.run))
    for entry in content.list_all():
        if entry.state in UNSETTLED_STATES and not is_away(content.header, entry):
            state = State.DONE if is_done(entry) else get_reversed_state(entry)
            if entry.state is State.PURGE_INTENDED:
                is_there = os.path.lexists(entry.target)
                state = State.DONE if is_there else State.PURGED
            content.get_all_by_number(entry)[entry.number] = replace(entry, state=state)
    return content


@dataclass(frozen=True)
class _Preview:
    """A preview; `known` is the journal as it would be, `going` are paths of parts that go."""

    plan: Plan
    known: JournalContent
    roots: Sequence[str]
    rejections: Rejections | None
    going: set[str] = field(default_factory=set)

    def preview_group(self, group: PlannedGroup, number: int) -> Iterator[Outcome]:
        """Yield the outcomes of a group; `number` is that of the first of its parts."""
        waiting, reported = split_waiting(self.known.victims, group, number)
        yield from reported
        if not waiting:
            return
        merge, merged = group.merge, self.known.merges.get(number)
        try:
            for kept in group.keeper_parts:
                if merge is None or kept.path != merge.sidecar:
                    require_kept(kept)
            if merge:
                require_mergeable(merge, merged)
        except Refused as refused:
            for _, victim in waiting:
                yield from leave(victim, str(refused))
            return
        if merge:
            yield _preview_merge(merge, merged)
        for first, victim in waiting:
            outcomes = list(self._preview_victim(victim, first))
            self.going.update(outcome.path for outcome in outcomes if not outcome.is_problem)
            yield from outcomes

    def _preview_victim(self, victim: Victim, number: int) -> Iterator[Outcome]:
        """Yield the outcome of each part of a victim: all of them go, or none."""
        outcomes = list[Outcome]()
        for offset, part in enumerate(victim.parts):
            done = self.known.victims.get(number + offset)
            if done is not None and done.state is State.DONE:
                outcomes.append(Outcome(part.path, Status.DONE, "", done.target, part.stat.size))
                continue
            try:
                require_owners_gone(victim, self.going)
                if self.plan.rejected:
                    find_decision(victim, self.rejections)
                with opened_victim(part):
                    header, action = self.known.header, self.plan.action
                    target = choose_target(header, part.path, self.roots, action)[1]
                    if done is None:  # else a kill may have left there what apply reverses
                        require_free(target)
            except Refused as refused:
                for earlier in outcomes:
                    yield Outcome(earlier.path, Status.LEFT, OTHER_PART_LEFT)
                yield Outcome(part.path, Status.LEFT, str(refused))
                for later in victim.parts[offset + 1 :]:
                    yield Outcome(later.path, Status.LEFT, OTHER_PART_LEFT)
                return
            outcomes.append(Outcome(part.path, Status.PLANNED, "", target, part.stat.size))
        yield from outcomes


def _preview_merge(merge: Merge, merged: Entry | None) -> Outcome:
    if merged is not None and merged.state is State.DONE:
        return Outcome(merge.sidecar, Status.DONE, f"added: {merge.summary}")
    return Outcome(merge.sidecar, Status.PLANNED, f"to add: {merge.summary}")
