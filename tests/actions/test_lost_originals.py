"""The file of before is not where it was put: undo says so, and deletes nothing unproven."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.actions.checked_json import add_checksum
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action
from pipeline.actions.undo import list_runs
from tests.actions.conftest import make_plan
from tests.actions.test_merges import OLD_SIDECAR
from tests.actions.test_merges import make_plan as make_merge_plan
from tests.support.actions import Desk, at_failpoint, get_statuses, killed_at, read_contents, save


def restore_from_backup(path: Path) -> None:
    """Put a copy with the same bytes and times in the place of a file: it has another inode."""
    copy = shutil.copy2(path, path.with_name("restored"))
    Path(copy).replace(path)


@pytest.mark.parametrize("action", [Action.SYMLINK, Action.HARDLINK])
def test_original_is_not_deleted_where_another_file_got_its_inode_number(
    desk: Desk, action: Action
) -> None:
    """Its number was free once a backup put another file in its place."""
    plan = make_plan(desk, action)
    held = Path(desk.apply(plan)[0].target)
    inode = held.stat().st_ino
    held.write_bytes(b"edited in quarantine")
    restore_from_backup(held)
    copy = desk.root / "copy.jpg"
    copy.unlink()
    save(copy, b"one")
    rename_inode_in_journal(desk, inode, copy.stat().st_ino)
    assert get_statuses(desk.undo())["copy.jpg"] is Status.LEFT
    assert b"edited in quarantine" in read_contents(desk.root)


def rename_inode_in_journal(desk: Desk, old: int, new: int) -> None:
    """Play that a filesystem gave a number again, by another number in the journal."""
    (journal,) = (desk.store / "journal").iterdir()
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if "victim" in line and line["victim"]["stat"]["inode"] == old:
            line["victim"]["stat"]["inode"] = new
    journal.write_text("".join(json.dumps(add_checksum(line)) + "\n" for line in lines))


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.SYMLINK, Action.HARDLINK])
def test_undo_says_where_nothing_comes_back(desk: Desk, action: Action) -> None:
    """The quarantine was deleted, and links, or a file of another program, are at the paths."""
    outcomes = desk.apply(make_plan(desk, action))
    shutil.rmtree(desk.root / ".neardup-quarantine")
    if action is Action.QUARANTINE:
        for outcome in outcomes:
            save(Path(outcome.path), b"of another program")
    for _ in range(2):
        outcomes = desk.undo()
        assert {outcome.status for outcome in outcomes} == {Status.LEFT}
        assert all("the one of before is not at" in outcome.detail for outcome in outcomes)


def test_undo_takes_no_reflink_for_the_original(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(target: int, request: int, source: int) -> None:
        os.write(target, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(fcntl, "ioctl", copy)
    desk.apply(make_plan(desk, Action.REFLINK))
    shutil.rmtree(desk.root / ".neardup-quarantine")
    assert {outcome.status for outcome in desk.undo()} == {Status.LEFT}


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.SYMLINK, Action.HARDLINK])
def test_original_that_a_person_put_back_counts_as_back(desk: Desk, action: Action) -> None:
    for outcome in desk.apply(make_plan(desk, action)):
        Path(outcome.target).replace(outcome.path)
    assert {outcome.status for outcome in desk.undo()} == {Status.DONE}


def test_file_that_was_edited_before_it_was_moved_is_no_loss(desk: Desk) -> None:
    with killed_at("action intended"):
        desk.apply(make_plan(desk))
    (desk.root / "copy.jpg").write_bytes(b"edited")
    assert {outcome.status for outcome in desk.undo()} == {Status.DONE}


def copy_drive(desk: Desk) -> None:
    """Put a copy of the root in its place, with all links and times, and other inodes."""
    former = desk.root.with_name("former")
    desk.root.rename(former)
    subprocess.run(["cp", "-a", former, desk.root], check=True)


@pytest.mark.parametrize("action", [Action.SYMLINK, Action.HARDLINK])
def test_undo_works_on_a_copy_of_the_drive(desk: Desk, action: Action) -> None:
    desk.apply(make_plan(desk, action))
    copy_drive(desk)
    assert {outcome.status for outcome in desk.undo()} == {Status.DONE}
    copy = desk.root / "copy.jpg"
    assert (copy.is_symlink(), copy.read_bytes()) == (False, b"one")
    assert not copy.samefile(desk.root / "keep.jpg")
    assert not os.path.lexists(desk.root / ".neardup-quarantine")


@pytest.mark.parametrize("action", [Action.SYMLINK, Action.HARDLINK])
def test_link_that_never_got_its_place_does_not_come_back_for_the_original(
    desk: Desk, action: Action
) -> None:
    with killed_at("action prepared"):
        desk.apply(make_plan(desk, action))
    (desk.root / "copy.jpg").unlink()
    assert get_statuses(desk.undo())["copy.jpg"] is Status.LEFT
    assert not os.path.lexists(desk.root / "copy.jpg")
    assert (desk.root / "keep.jpg").read_bytes() == b"one"


def test_held_link_stays_where_the_file_at_the_path_has_other_bytes(desk: Desk) -> None:
    """The keeper was edited and deleted: the link has the last bytes of it."""
    with killed_at("action prepared:3"):
        desk.apply(make_plan(desk, Action.HARDLINK))
    (desk.root / "a" / "worse.jpg").write_bytes(b"edited")
    (desk.root / "a" / "best.jpg").unlink()
    desk.undo()
    assert {b"two", b"edited"} <= read_contents(desk.root)


def test_link_that_never_got_its_place_gets_none_on_a_copy_of_the_drive(desk: Desk) -> None:
    with killed_at("action prepared"):
        desk.apply(make_plan(desk, Action.HARDLINK))
    copy_drive(desk)
    desk.undo()
    assert not (desk.root / "copy.jpg").samefile(desk.root / "keep.jpg")


def test_reflink_that_never_got_its_place_is_not_the_original(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(target: int, request: int, source: int) -> None:
        os.write(target, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(fcntl, "ioctl", copy)
    with killed_at("action prepared"):
        desk.apply(make_plan(desk, Action.REFLINK))
    desk.apply(desk.make_plan([]))
    assert list_runs(desk.store)[0].counts == {"reverted": 1}
    assert not list((desk.root / ".neardup-quarantine").rglob("copy.jpg"))


@pytest.mark.parametrize("action", [Action.SYMLINK, Action.HARDLINK])
def test_file_that_took_the_name_of_a_prepared_link_stays(desk: Desk, action: Action) -> None:
    with killed_at("action prepared"):
        desk.apply(make_plan(desk, action))
    (held,) = (desk.root / ".neardup-quarantine").rglob("*.jpg")
    held.unlink()
    save(held, b"of another program")
    desk.apply(desk.make_plan([]))
    assert b"of another program" in read_contents(desk.root)


def test_nothing_is_decided_about_a_file_that_is_nowhere(desk: Desk) -> None:
    """Its drive may be away, and files lie in the mount point."""
    with killed_at("action intended"):
        desk.apply(make_plan(desk))
    (desk.root / "copy.jpg").unlink()
    desk.apply(desk.make_plan([]))
    assert list_runs(desk.store)[0].counts == {"intended": 1}


def test_victim_without_any_keeper_in_the_journal_is_not_purged(desk: Desk) -> None:
    (outcome, *_) = desk.apply(make_plan(desk))
    (journal,) = (desk.store / "journal").iterdir()
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[1]["keepers"] = []
    journal.write_text("".join(json.dumps(add_checksum(line)) + "\n" for line in lines))
    assert get_statuses(desk.purge())["copy.jpg"] is Status.LEFT
    assert Path(outcome.target).read_bytes() == b"one"


def test_file_that_an_undo_could_not_bring_back_is_not_purged_after_a_kill(desk: Desk) -> None:
    """The run had not verified it, so it may be something else than the plan says."""
    with killed_at("action moved"):
        desk.apply(make_plan(desk))
    save(desk.root / "copy.jpg", b"another")
    desk.undo()
    outcomes = desk.purge()
    assert get_statuses(outcomes)["copy.jpg"] is Status.LEFT
    assert Path(outcomes[0].target).read_bytes() == b"one"


def test_sidecar_that_was_edited_does_not_count_as_back(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    desk.apply(make_merge_plan(desk, sidecar, Action.HARDLINK))
    held = next((desk.root / ".neardup-quarantine").rglob("keep.jpg.xmp"))
    held.unlink()
    sidecar.write_bytes(b"edited")
    assert get_statuses(desk.undo())["keep.jpg.xmp"] is Status.LEFT


def test_second_victim_is_linked_after_the_first_was_refused(desk: Desk) -> None:
    """The link that was made and removed changed the ctime of the keeper."""
    plan = make_plan(desk, Action.HARDLINK)
    save(desk.root / "new", b"ONE")
    with at_failpoint("action intended", lambda: swap_names(desk)):
        statuses = get_statuses(desk.apply(plan))
    assert statuses == {
        "copy.jpg": Status.LEFT,
        "copy 2.jpg": Status.DONE,
        "worse.jpg": Status.DONE,
    }


def swap_names(desk: Desk) -> None:
    (desk.root / "new").replace(desk.root / "copy.jpg")


def test_killed_move_is_reversed_if_its_keeper_is_the_very_file(desk: Desk) -> None:
    plan = make_plan(desk)
    with killed_at("action moved"):
        desk.apply(plan)
    (held,) = (desk.root / ".neardup-quarantine").rglob("copy.jpg")
    (desk.root / "keep.jpg").unlink()
    (desk.root / "keep.jpg").hardlink_to(held)
    desk.apply(desk.make_plan([]))
    assert (desk.root / "copy.jpg").read_bytes() == b"one"
    assert not held.exists()


def test_entry_for_another_file_is_not_believed(desk: Desk) -> None:
    """A merge names a sidecar, and a file of before at another path."""
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    desk.apply(make_merge_plan(desk, sidecar))
    (journal,) = (desk.store / "journal").iterdir()
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[1]["before"]["path"] = str(desk.root / "keep.jpg")
    journal.write_text("".join(json.dumps(add_checksum(line)) + "\n" for line in lines))
    extended = sidecar.read_bytes()
    assert get_statuses(desk.undo())["keep.jpg.xmp"] is Status.LEFT
    assert sidecar.read_bytes() == extended
