"""A plan of the groups that a person accepted."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.actions.plan import Plan
from pipeline.actions.planner import PlanOptions
from pipeline.review.choices import Reviewer


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
    accepted. The keep rules have to be the default ones. No file is touched; write_plan() and
    `pipeline.actions.apply` take the plan. Raises PlanRefused.
    """
    raise NotImplementedError
