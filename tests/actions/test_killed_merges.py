"""Merges of metadata whose purge or undo was killed, and what a plan says of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexes import Store
from pipeline.actions.entries import State
from pipeline.actions.journal import list_journals, read_journal
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action
from pipeline.actions.plan_options import PlanOptions
from pipeline.actions.preview import preview_plan
from pipeline.grouping.cluster import Group
from pipeline.grouping.match import Match
from pipeline.query.assets import mark_without_counterpart
from pipeline.verify.relation import COPY_RELATIONS, Relation
from tests.actions.test_merges import OLD_SIDECAR, edit, get_outcome, make_plan
from tests.actions.test_wider_relations import list_paths, make_verdict, plan_group, save_photo
from tests.support.actions import OLD_TIME, Desk, killed_at, save


def get_merge_state(desk: Desk) -> State:
    (path,) = list_journals(desk.store)
    (merge,) = read_journal(path).merges.values()
    return merge.state


@pytest.mark.parametrize(
    ("action", "failpoint", "expected"),
    [
        (Action.MOVE, "merge purge intended", State.UNDONE),
        (Action.MOVE, "merge deleted", State.PURGED),
        # The victims in quarantine are deleted before, so what was added stays.
        (Action.QUARANTINE, "merge purge intended", State.DONE),
        (Action.QUARANTINE, "merge deleted", State.PURGED),
    ],
)
def test_undo_settles_a_killed_purge_of_a_merge(
    desk: Desk, action: Action, failpoint: str, expected: State
) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    desk.apply(make_plan(desk, sidecar, action))
    with killed_at(failpoint):
        desk.purge()
    desk.undo()
    assert get_merge_state(desk) is expected
    assert (sidecar.read_bytes() == OLD_SIDECAR) is (expected is State.UNDONE)


def test_nothing_is_decided_about_a_killed_purge_while_the_drive_is_away(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    desk.apply(make_plan(desk, sidecar, Action.MOVE))
    with killed_at("merge purge intended"):
        desk.purge()
    away = desk.root.with_name("away")
    desk.root.rename(away)
    desk.purge()
    assert get_merge_state(desk) is State.PURGE_INTENDED
    away.rename(desk.root)
    desk.undo()
    assert sidecar.read_bytes() == OLD_SIDECAR


@pytest.mark.parametrize("failpoint", ["merge done", "action intended"])
def test_merge_whose_victims_were_never_moved_is_taken_back_by_another_plan(
    desk: Desk, failpoint: str
) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    plan = make_plan(desk, sidecar)
    with killed_at(failpoint):
        desk.apply(plan)
    assert sidecar.read_bytes() != OLD_SIDECAR
    desk.apply(desk.make_plan([]))
    assert sidecar.read_bytes() == OLD_SIDECAR
    assert get_merge_state(desk) is State.UNDONE
    assert {outcome.status for outcome in desk.apply(plan)} == {Status.DONE}


def test_merge_that_cannot_be_taken_back_is_tried_once(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    with killed_at("merge done"):
        desk.apply(make_plan(desk, sidecar))
    edit(sidecar)
    (journal,) = list_journals(desk.store)
    desk.apply(desk.make_plan([]))
    once = journal.read_bytes()
    desk.apply(desk.make_plan([]))
    assert journal.read_bytes() == once
    assert b"edited since" in once


def test_merge_of_a_run_that_is_continued_is_not_taken_back(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    plan = make_plan(desk, sidecar)
    with killed_at("merge done"):
        desk.apply(plan)
    desk.apply(plan)
    (journal,) = list_journals(desk.store)
    assert journal.read_bytes().count(b"merge intended") == 1


def test_run_is_not_continued_if_its_sidecar_was_edited_since(desk: Desk) -> None:
    """The edit may have taken out what was added, and no copy has it any more once it went."""
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    plan = make_plan(desk, sidecar)
    with killed_at("merge done"):
        desk.apply(plan)
    edit(sidecar)
    outcome = get_outcome(desk.apply(plan), desk.root / "copy.jpg")
    assert (outcome.status, "was edited since" in outcome.detail) == (Status.LEFT, True)
    assert (desk.root / "copy.jpg").exists()


def test_killed_undo_leaves_the_time_of_a_folder_that_another_program_changed(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    plan = make_plan(desk, sidecar)
    os.utime(desk.root, ns=(OLD_TIME, OLD_TIME))
    desk.apply(plan)
    (desk.root / "new").write_bytes(b"by another program")
    with killed_at("merge restored"):
        desk.undo()
    desk.undo()
    assert desk.root.stat().st_mtime_ns != OLD_TIME


def test_preview_gives_each_victim_its_own_reason(desk: Desk) -> None:
    """The first group cannot be merged now; the victim of the second was never moved."""
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    plan = make_plan(desk, sidecar)
    worse = desk.root / "a" / "worse.jpg"
    worse.write_bytes(b"edited before it was applied")
    desk.apply(plan)
    desk.undo()
    edit(sidecar)
    outcome = get_outcome(list(preview_plan(plan, desk.store, [str(desk.root)])), worse)
    assert "undo" not in outcome.detail


def test_files_that_cannot_go_because_of_their_metadata_are_left(
    store: Store, tmp_path: Path
) -> None:
    """Two equal copies in doubt, whose metadata is no XMP: one would go for the other."""
    verdict = make_verdict(Relation.SAME_PICTURE, 0.5)
    files = [save_photo(tmp_path / f"{n}.jpg", n > 0, b"no xmp <" if n else None) for n in range(3)]
    members = tuple(Match(file, Relation.SAME_PICTURE, 0.9, verdict) for file in files[1:])
    group = mark_without_counterpart(Group("1", files[0], members, "best"))
    options = PlanOptions(relations=COPY_RELATIONS, min_confidence=0.9, merge_metadata=True)
    plan = plan_group(store, group, tmp_path, options)
    assert list_paths(plan)[1] == set()
    assert {left.path for left in plan.left} == {file.path for file in files[1:]}
