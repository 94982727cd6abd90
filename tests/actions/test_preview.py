"""A preview names what apply then does, whatever was killed before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from indexes.durable.failpoints import FAILPOINTS
from pipeline.actions import rename
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.plan import Action, Plan
from pipeline.actions.preview import preview_plan
from tests.actions.test_merges import OLD_SIDECAR, edit, make_plan
from tests.support.actions import Desk, killed_at, make_part, read_tree, save

ACT_FAILPOINTS = [
    name
    for name in FAILPOINTS
    if name.startswith(("action", "merge")) and "linked" not in name and "deleted" not in name
]


def preview(desk: Desk, plan: Plan) -> list[Outcome]:
    before = read_tree(desk.root.parent)
    outcomes = list(preview_plan(plan, desk.store, [str(desk.root)]))
    assert read_tree(desk.root.parent) == before
    return outcomes


def assert_preview_is_true(desk: Desk, plan: Plan) -> None:
    previewed = {
        outcome.path: Status.DONE if outcome.status is Status.PLANNED else outcome.status
        for outcome in preview(desk, plan)
    }
    done = {outcome.path: outcome.status for outcome in desk.apply(plan)}
    assert previewed == done


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.MOVE, Action.HARDLINK])
@pytest.mark.parametrize("failpoint", ACT_FAILPOINTS)
def test_preview_after_a_kill_says_what_apply_does(
    desk: Desk, failpoint: str, action: Action
) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    plan = make_plan(desk, sidecar, action)
    with killed_at(failpoint):
        desk.apply(plan)
        if "purge" in failpoint:
            desk.purge()
        desk.undo()
    assert_preview_is_true(desk, plan)


@pytest.mark.parametrize("is_undo", [False, True])
def test_preview_knows_a_new_sidecar_that_has_two_names(
    desk: Desk, is_undo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves it so where the filesystem has no exclusive rename."""
    monkeypatch.setattr(rename, "_renameat2", None)
    plan, before = make_plan(desk, desk.root / "keep.jpg.xmp"), read_tree(desk.root)
    if is_undo:
        desk.apply(plan)
    with killed_at("action linked:4" if is_undo else "action linked"):
        desk.undo() if is_undo else desk.apply(plan)
    assert_preview_is_true(desk, plan)
    assert not list((desk.root / ".neardup-quarantine").rglob("*.xmp"))
    desk.undo()
    assert read_tree(desk.root) == before


def test_preview_of_a_plan_that_was_applied_says_so(desk: Desk) -> None:
    plan = make_plan(desk, desk.root / "keep.jpg.xmp")
    desk.apply(plan)
    assert {outcome.detail for outcome in preview(desk, plan)} == {"done before"}


@pytest.mark.parametrize("changed", ["copy.jpg", "copy.xmp", "keep.xmp"])
def test_preview_leaves_all_parts_of_a_victim_or_none(desk: Desk, changed: str) -> None:
    save(desk.root / "keep.xmp", b"xmp")
    group = desk.make_plan([(desk.root / "keep.jpg", [desk.root / "copy.jpg"])]).groups[0]
    assert group.keeper is not None
    keeper = replace(group.keeper, parts=(*group.keeper.parts, make_part(desk.root / "keep.xmp")))
    parts = (*group.victims[0].parts, make_part(save(desk.root / "copy.xmp", b"xmp")))
    group = replace(group, keeper=keeper, victims=(replace(group.victims[0], parts=parts),))
    plan = replace(desk.make_plan([]), groups=(group,))
    (desk.root / changed).write_bytes(b"edited")
    assert [outcome.status for outcome in preview(desk, plan)] == [Status.LEFT] * len(parts)
    assert_preview_is_true(desk, plan)


def test_preview_leaves_a_victim_whose_target_is_taken(desk: Desk) -> None:
    plan = make_plan(desk, desk.root / "keep.jpg.xmp", Action.MOVE)
    taken = save(desk.root.parent / "moved" / desk.root.name / "copy.jpg", b"of the user")
    left = {outcome.path: outcome.detail for outcome in preview(desk, plan) if outcome.is_problem}
    assert set(left) == {str(desk.root / "copy.jpg")}
    assert "a file is at" in left[str(desk.root / "copy.jpg")]
    assert_preview_is_true(desk, plan)
    assert taken.read_bytes() == b"of the user"


def test_preview_knows_a_keeper_by_its_bytes(desk: Desk) -> None:
    """A new link or a new time of it changes nothing, as for apply."""
    plan = make_plan(desk, desk.root / "keep.jpg.xmp")
    (desk.root / "second name.jpg").hardlink_to(desk.root / "keep.jpg")
    (desk.root / "a" / "best.jpg").touch()
    assert {outcome.status for outcome in preview(desk, plan)} == {Status.PLANNED}
    assert_preview_is_true(desk, plan)


def test_photos_that_share_a_part_go_one_after_the_other(desk: Desk) -> None:
    plan = desk.make_plan(
        [(desk.root / "keep.jpg", [desk.root / "copy.jpg", desk.root / "a/b/copy 2.jpg"])]
    )
    first, last = plan.groups[0].victims
    last = replace(last, shared_with=(first.parts[0].path,))
    plan = replace(plan, groups=(replace(plan.groups[0], victims=(first, last)),))
    assert {outcome.status for outcome in preview(desk, plan)} == {Status.PLANNED}
    edit(Path(first.parts[0].path))
    assert {outcome.status for outcome in preview(desk, plan)} == {Status.LEFT}
    assert_preview_is_true(desk, plan)
