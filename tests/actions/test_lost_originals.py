"""What undo and a settled kill say and delete where the file of before is not where it was put."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.actions.checked_json import add_checksum
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action
from tests.actions.conftest import make_plan
from tests.support.actions import Desk, get_statuses, read_contents, save


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
