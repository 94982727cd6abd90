"""A plan of the groups that a person accepted."""

from __future__ import annotations

import os
from dataclasses import dataclass

from indexes.store import Store
from pipeline.actions.plan import Plan
from pipeline.actions.plan_options import PlanOptions
from pipeline.actions.planner import make_plan
from pipeline.actions.protection import load_settings
from pipeline.errors import PlanRefused
from pipeline.grouping.cluster import Group
from pipeline.grouping.keep_rules import KeepRules
from pipeline.query.vouched import verify_vouched_members
from pipeline.review.choices import Reviewer
from pipeline.review.rows import compute_version, make_group_row

GONE_REASON = "its files are not one group any more"
CHANGED_REASON = "a file of it was moved, or has another relation to the keeper, or that is another"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An accepted group that is not as it was accepted any more; `keeper` is the path it had."""

    group_id: str
    keeper: str
    reason: str


@dataclass(frozen=True)
class ReviewPlan:
    """A plan, whose count of files and bytes are its own; and the groups that it leaves out."""

    plan: Plan
    passed_over: tuple[PassedOver, ...]


def plan_accepted(reviewer: Reviewer, options: PlanOptions) -> ReviewPlan:
    """Make a plan of the accepted groups that are as they were accepted.

    The options are those of `neardup plan`: relations, least confidence and action narrow what was
    accepted. A stale listing is built again first. No file is touched. Raises PlanRefused for
    options that no plan can follow, and for keep rules or reference folders, because a person chose
    which file is kept; ReviewFailed and StoreError.
    """
    options.require_sound()
    if (
        options.rejected
        or options.reference_folders
        or options.keep_rules.names != KeepRules().names
    ):
        raise PlanRefused("a plan of what was accepted has no other rules for what is kept")
    reviewer.listing.refresh()
    accepted = reviewer.list_accepted()
    found = {state.group_id: reviewer.listing.find_listed(state.group_id) for state in accepted}
    with Store(reviewer.folder) as store, store.catalog.snapshot():
        listed = [group for group in found.values() if group]
        groups = {
            make_group_row(group).id: group for group in reviewer.listing.form_groups(store, listed)
        }
        unchanged, passed_over = list[Group](), list[PassedOver]()
        for state in accepted:
            group = groups.get(state.group_id)
            if group is not None and compute_version(group) == state.version:
                unchanged.append(group)
                continue
            reason = GONE_REASON if group is None else CHANGED_REASON
            passed_over.append(PassedOver(state.group_id, os.fsdecode(state.path), reason))
        if options.min_confidence is not None:
            unchanged = verify_vouched_members(store, unchanged)
        unchanged.sort(key=lambda group: group.keeper.path)
        plan = make_plan(store, unchanged, options, load_settings(store.folder))
    return ReviewPlan(plan, tuple(passed_over))
