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
from tests.actions.conftest import make_plan
from tests.support.actions import Desk, get_statuses, killed_at, read_contents, save


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


@pytest.mark.parametrize("action", [Action.SYMLINK, Action.HARDLINK])
def test_undo_works_on_a_copy_of_the_drive(desk: Desk, action: Action) -> None:
    """All files have other inodes there."""
    desk.apply(make_plan(desk, action))
    former = desk.root.with_name("former")
    desk.root.rename(former)
    subprocess.run(["cp", "-a", former, desk.root], check=True)
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
