from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.actions import held_files, purge
from pipeline.actions.checked_json import add_checksum
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action
from pipeline.actions.purge import purge_runs
from pipeline.actions.undo import list_runs
from tests.actions.conftest import make_plan
from tests.actions.test_apply import PURGE_FAILPOINTS
from tests.actions.test_merges import OLD_SIDECAR
from tests.actions.test_merges import make_plan as make_merge_plan
from tests.actions.test_races import (
    delete_keeper,
    edit_keeper_and_reset_its_time,
    make_keeper_a_link,
    replace_keeper,
)
from tests.support.actions import (
    Desk,
    at_failpoint,
    get_statuses,
    killed_at,
    read_contents,
    read_tree,
    save,
)
from tests.support.faults import run_in_process


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.HARDLINK, Action.SYMLINK])
def test_purge_deletes_what_has_its_keeper(desk: Desk, action: Action) -> None:
    desk.apply(make_plan(desk, action))
    before = read_tree(desk.root)
    assert desk.purge(hours=1) == []
    planned = desk.purge(dry_run=True)
    assert {outcome.status for outcome in planned} == {Status.PLANNED}
    assert read_tree(desk.root) == before
    assert {outcome.status for outcome in desk.purge()} == {Status.DONE}
    assert not (desk.root / ".neardup-quarantine").exists()
    assert read_contents(desk.root) == {b"one", b"two", b"three"}
    assert desk.purge() == []
    (run,) = list_runs(desk.store)
    assert (run.counts, run.bytes_held) == ({"purged": 3}, 0)
    assert "deleted by" in desk.undo()[0].detail


def test_files_that_were_moved_elsewhere_are_not_purged(desk: Desk) -> None:
    desk.apply(make_plan(desk, Action.MOVE))
    assert desk.purge() == []
    assert (desk.root.parent / "moved" / "photos" / "copy.jpg").exists()


@pytest.mark.parametrize("lose_keeper", [delete_keeper, replace_keeper, make_keeper_a_link])
def test_victim_without_its_keeper_stays_and_is_named(desk: Desk, lose_keeper: object) -> None:
    desk.apply(make_plan(desk))
    assert callable(lose_keeper)
    lose_keeper(desk)
    outcomes = desk.purge()
    assert get_statuses(outcomes) == {
        "copy.jpg": Status.LEFT,
        "copy 2.jpg": Status.LEFT,
        "worse.jpg": Status.DONE,
    }
    assert Path(outcomes[0].target).read_bytes() == b"one"
    assert "keep.jpg" in outcomes[0].detail


def test_keeper_that_is_now_a_link_to_its_victim_saves_the_victim(desk: Desk) -> None:
    """The keeper has the right bytes, and is the very file that would be deleted."""
    outcome = desk.apply(make_plan(desk))[0]
    (desk.root / "keep.jpg").unlink()
    (desk.root / "keep.jpg").hardlink_to(outcome.target)
    left = desk.purge()[0]
    assert left.status is Status.LEFT
    assert "last file of its group" in left.detail


def test_keeper_that_was_moved_by_a_later_run_saves_its_victims(desk: Desk) -> None:
    root = desk.root
    desk.apply(desk.make_plan([(root / "keep.jpg", [root / "copy.jpg"])]))
    desk.apply(desk.make_plan([(root / "a/b/copy 2.jpg", [root / "keep.jpg"])]))
    assert get_statuses(desk.purge()) == {"copy.jpg": Status.LEFT, "keep.jpg": Status.DONE}
    assert (root / "a/b/copy 2.jpg").read_bytes() == b"one"


def test_victim_that_was_changed_in_quarantine_stays(desk: Desk) -> None:
    outcome = desk.apply(make_plan(desk))[0]
    Path(outcome.target).write_bytes(b"edited")
    left = desk.purge()[0]
    assert left.status is Status.LEFT
    assert "was changed" in left.detail
    desk.undo()
    assert (desk.root / "copy.jpg").read_bytes() == b"edited"


def test_drive_that_is_away_saves_its_victims(desk: Desk) -> None:
    desk.apply(make_plan(desk))
    desk.root.rename(desk.root.with_name("away"))
    assert {outcome.status for outcome in desk.purge()} == {Status.LEFT}
    assert {outcome.status for outcome in desk.undo()} == {Status.LEFT}
    desk.root.with_name("away").rename(desk.root)
    assert {outcome.status for outcome in desk.undo()} == {Status.DONE}


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.HARDLINK, Action.SYMLINK])
@pytest.mark.parametrize("failpoint", PURGE_FAILPOINTS)
def test_killed_purge_is_finished(desk: Desk, failpoint: str, action: Action) -> None:
    desk.apply(make_plan(desk, action))
    with killed_at(f"{failpoint}:2"):
        desk.purge()
    assert read_contents(desk.root) == {b"one", b"two", b"three"}
    desk.purge()
    (run,) = list_runs(desk.store)
    assert run.counts == {"purged": 3}
    assert not (desk.root / ".neardup-quarantine").exists()


def _purge_in_child(store: Path, root: str, failpoint: str) -> None:
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    list(purge_runs(store, [root], timedelta(0), dry_run=False))


def test_purge_killed_by_the_kernel_is_finished_or_undone(desk: Desk) -> None:
    desk.apply(make_plan(desk))
    arguments = desk.store, str(desk.root)
    code = run_in_process(_purge_in_child, *arguments, "action purge intended:1")
    assert code == -signal.SIGKILL
    code = run_in_process(_purge_in_child, *arguments, "action deleted:1")
    assert code == -signal.SIGKILL
    assert get_statuses(desk.undo()) == {
        "worse.jpg": Status.DONE,
        "copy 2.jpg": Status.DONE,
        "copy.jpg": Status.LEFT,
    }
    assert list_runs(desk.store)[0].counts == {"purged": 1, "undone": 2}


def test_killed_purge_is_undone_as_far_as_files_are_left(desk: Desk) -> None:
    desk.apply(make_plan(desk))
    with killed_at("action purge intended:2"):
        desk.purge()
    assert get_statuses(desk.undo()) == {
        "worse.jpg": Status.DONE,
        "copy 2.jpg": Status.DONE,
        "copy.jpg": Status.LEFT,
    }


def test_file_that_a_killed_purge_deleted_counts_as_purged_after_undo(desk: Desk) -> None:
    """Undo cannot bring it back, and it is not stuck anywhere."""
    desk.apply(make_plan(desk))
    with killed_at("action deleted"):
        desk.purge()
    assert get_statuses(desk.undo())["copy.jpg"] is Status.LEFT
    assert list_runs(desk.store)[0].counts == {"purged": 1, "undone": 2}


def test_killed_purge_is_not_settled_while_the_drive_is_away(desk: Desk) -> None:
    """A file on it was perhaps not deleted."""
    desk.apply(make_plan(desk))
    with killed_at("action purge intended:2"):
        desk.purge()
    desk.root.rename(desk.root.with_name("away"))
    other = desk.make_plan([])
    desk.apply(other)
    outcomes = desk.undo()
    assert all("mount its drive" in outcome.detail for outcome in outcomes[:2])
    assert list_runs(desk.store)[0].counts == {"purged": 1, "purge intended": 1, "done": 1}
    desk.root.with_name("away").rename(desk.root)
    assert get_statuses(desk.undo())["copy 2.jpg"] is Status.DONE
    assert list_runs(desk.store)[0].counts == {"purged": 1, "undone": 2}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_read_only_is_named(desk: Desk) -> None:
    desk.root.chmod(0o500)
    try:
        outcomes = desk.apply(make_plan(desk))
    finally:
        desk.root.chmod(0o700)
    assert {outcome.status for outcome in outcomes} == {Status.LEFT}
    assert "Permission denied" in outcomes[0].detail


def play_past(desk: Desk, days: int) -> None:
    """Have the journal tell that all of it was written so long ago."""
    (path,) = (desk.store / "journal").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        for field in {"started", "time"} & set(line):
            moment = datetime.fromisoformat(line[field]) - timedelta(days=days)
            line[field] = moment.isoformat(timespec="microseconds")
    path.write_text("".join(json.dumps(add_checksum(line)) + "\n" for line in lines))


def test_file_that_a_continued_run_moved_today_is_not_old(desk: Desk) -> None:
    """Nor is the sidecar of before, which its undo needs."""
    plan = make_merge_plan(desk, save(desk.root / "keep.jpg.xmp", OLD_SIDECAR))
    with killed_at("action done:1"):
        desk.apply(plan)
    play_past(desk, 40)
    desk.apply(plan)
    assert get_statuses(desk.purge(hours=24 * 30)) == {"copy.jpg": Status.DONE}
    play_past(desk, 40)
    assert len(desk.purge(hours=24 * 30)) == 3


def test_purge_that_was_killed_is_continued_at_once(desk: Desk) -> None:
    """Whatever else the journal tells of a file: its time in quarantine goes on."""
    desk.apply(make_plan(desk))
    play_past(desk, 40)
    with killed_at("action purge intended"):
        desk.purge(hours=24 * 30)
    assert len(desk.purge(hours=24 * 30)) == 3


def test_keeper_is_hashed_once_for_all_of_its_victims(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.apply(make_plan(desk))
    hashed, hash_descriptor = list[str](), held_files.hash_descriptor

    def record(descriptor: int, path: str) -> str:
        hashed.append(Path(path).name)
        return hash_descriptor(descriptor, path)

    monkeypatch.setattr(held_files, "hash_descriptor", record)
    assert {outcome.status for outcome in desk.purge()} == {Status.DONE}
    assert sorted(hashed) == ["best.jpg", "keep.jpg"]


@pytest.mark.parametrize("harm", [delete_keeper, replace_keeper, edit_keeper_and_reset_its_time])
def test_keeper_that_is_lost_after_one_victim_saves_the_next(
    desk: Desk, harm: Callable[[Desk], None]
) -> None:
    desk.apply(make_plan(desk))
    with at_failpoint("action purged", lambda: harm(desk)):
        outcomes = desk.purge()
    assert get_statuses(outcomes) == {
        "copy.jpg": Status.DONE,
        "copy 2.jpg": Status.LEFT,
        "worse.jpg": Status.DONE,
    }
    assert Path(outcomes[1].target).read_bytes() == b"one"


def test_keeper_that_is_touched_after_one_victim_is_hashed_again(desk: Desk) -> None:
    desk.apply(make_plan(desk))
    with at_failpoint("action purged", (desk.root / "keep.jpg").touch):
        assert {outcome.status for outcome in desk.purge()} == {Status.DONE}


def test_keeper_that_is_lost_while_a_victim_is_hashed_saves_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.apply(make_plan(desk))
    hash_descriptor = held_files.hash_descriptor

    def lose(descriptor: int, path: str) -> str:
        if path.endswith("worse.jpg"):
            (desk.root / "a" / "best.jpg").unlink()
        return hash_descriptor(descriptor, path)

    monkeypatch.setattr(purge, "hash_descriptor", lose)
    assert get_statuses(desk.purge())["worse.jpg"] is Status.LEFT
    assert b"two" in read_contents(desk.root)
