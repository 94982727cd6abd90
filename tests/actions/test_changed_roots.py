"""Runs are undone and purged after folders inside or around their roots were ingested."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.actions.apply import apply_plan
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action
from pipeline.actions.purge import purge_runs
from pipeline.actions.undo import undo_run
from tests.actions.conftest import make_plan
from tests.support.actions import Desk, read_tree

ACTIONS = [Action.QUARANTINE, Action.MOVE, Action.HARDLINK, Action.SYMLINK]


@pytest.mark.parametrize("action", ACTIONS)
def test_run_is_undone_after_a_folder_in_its_root_was_ingested(desk: Desk, action: Action) -> None:
    plan, before = make_plan(desk, action), read_tree(desk.root)
    desk.apply(plan)
    roots = [str(desk.root), str(desk.root / "a"), str(desk.root / "a" / "b")]
    assert {outcome.status for outcome in undo_run(desk.store, "last", roots)} == {Status.DONE}
    assert read_tree(desk.root) == before


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("is_inner_left", [False, True])
def test_run_is_undone_after_the_folder_around_its_root_was_ingested(
    desk: Desk, action: Action, is_inner_left: bool
) -> None:
    plan, before = make_plan(desk, action), read_tree(desk.root)
    desk.apply(plan)
    roots = [str(desk.root.parent), *([str(desk.root)] if is_inner_left else [])]
    assert {outcome.status for outcome in undo_run(desk.store, "last", roots)} == {Status.DONE}
    assert read_tree(desk.root) == before


def test_run_is_purged_after_a_folder_in_its_root_was_ingested(desk: Desk) -> None:
    desk.apply(make_plan(desk))
    roots = [str(desk.root), str(desk.root / "a")]
    outcomes = list(purge_runs(desk.store, roots, timedelta(0), dry_run=False))
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 3


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_moved_in_a_root_that_the_store_has_no_more(desk: Desk, action: Action) -> None:
    """A journal can be edited, so its own roots are no proof."""
    roots = [str(desk.root), str(desk.root / "a")]
    list(apply_plan(make_plan(desk, action), desk.store, roots))
    before = read_tree(desk.root.parent)
    (desk.store / "unrelated").mkdir()
    outcomes = list(undo_run(desk.store, "last", [str(desk.store / "unrelated")]))
    assert {outcome.status for outcome in outcomes} == {Status.LEFT}
    (desk.store / "unrelated").rmdir()
    after = read_tree(desk.root.parent)
    assert {name: kept for name, kept in after.items() if not name.startswith("store")} == {
        name: kept for name, kept in before.items() if not name.startswith("store")
    }
