"""The choices of a person for a plan, and which of them no plan can follow."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.actions.plan import REJECTED_ACTIONS, REPLACING_ACTIONS, Action
from pipeline.errors import PlanRefused
from pipeline.grouping.keep_rules import KeepRules
from pipeline.verify.relation import COPY_RELATIONS, EXACT_RELATIONS, Relation


@dataclass(frozen=True)
class PlanOptions:
    """The choices of a person for a plan.

    `relations` are those of victims to their keepers. `min_confidence` (>=) is required where one
    of them is wider than identical pixels. Files in `reference_folders`, real paths, are kept.
    `rejected`: the plan is one of rejected photos, see make_rejected_plan(). `merge_metadata`: what
    keepers lack of the metadata of their victims is added to sidecars, see MergePlanner.
    """

    action: Action = Action.QUARANTINE
    destination: str | None = None
    relations: frozenset[Relation] = frozenset({Relation.IDENTICAL_BYTES})
    min_confidence: float | None = None
    reference_folders: tuple[str, ...] = ()
    keep_rules: KeepRules = field(default_factory=KeepRules)
    rejected: bool = False
    merge_metadata: bool = False

    def require_sound(self) -> None:
        """Raise PlanRefused for choices that no plan can follow."""
        if others := self.relations - COPY_RELATIONS:
            raise PlanRefused(f"a file that is `{min(others)}` is no copy, so it is never a victim")
        if self.rejected and self.action not in REJECTED_ACTIONS:
            raise PlanRefused(
                f"rejected photos are only moved: --action quarantine or move, not {self.action}"
            )
        is_wide = self.relations - EXACT_RELATIONS and not self.rejected
        if is_wide and self.min_confidence is None:
            raise PlanRefused(
                "relations wider than identical pixels need --min-confidence P, the least"
                " probability of a copy: 0.99, for example"
            )
        if self.action in REPLACING_ACTIONS and self.relations != {Relation.IDENTICAL_BYTES}:
            raise PlanRefused(f"{self.action} is only for identical bytes; leave --relations out")
        if (self.action is Action.MOVE) != (self.destination is not None):
            raise PlanRefused("--action move and --to FOLDER belong together")
