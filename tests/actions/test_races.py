"""Other programs interfere in the middle of a run: no bytes are lost, whatever the moment."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.actions import rename
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action
from pipeline.actions.plan_file import name_run
from pipeline.actions.purge import purge_runs
from tests.actions.conftest import make_plan
from tests.support.actions import (
    OLD_TIME,
    Desk,
    at_failpoint,
    get_statuses,
    killed_at,
    read_contents,
    read_tree,
    save,
)

Race = Callable[[Desk], None]
MOMENTS = ("action intended", "action prepared", "action moved", "action verified", "action done")
ACTIONS = (Action.QUARANTINE, Action.MOVE, Action.HARDLINK, Action.SYMLINK)


def append_to_victim(desk: Desk) -> None:
    """Edit the victim in place, wherever it lies; its place may be empty by now."""
    if (desk.root / "copy.jpg").is_symlink():
        return
    with (desk.root / "copy.jpg").open("ab") as file:
        file.write(b" more")


def replace_victim(desk: Desk) -> None:
    """Replace the victim by other bytes of its size and times, as some editors save."""
    replace_file(desk.root / "copy.jpg", b"ONE")


def replace_keeper(desk: Desk) -> None:
    replace_file(desk.root / "keep.jpg", b"ONE")


def replace_file(path: Path, content: bytes) -> None:
    new = save(path.with_name("new"), content)
    os.utime(new, ns=(OLD_TIME, OLD_TIME))
    new.replace(path)


def edit_keeper_and_reset_its_time(desk: Desk) -> None:
    keeper = desk.root / "keep.jpg"
    times = keeper.stat()
    keeper.write_bytes(b"ONE")
    os.utime(keeper, ns=(times.st_atime_ns, times.st_mtime_ns))


def delete_keeper(desk: Desk) -> None:
    (desk.root / "keep.jpg").unlink()


def make_keeper_a_link(desk: Desk) -> None:
    delete_keeper(desk)
    (desk.root / "keep.jpg").symlink_to("copy.jpg")


def swap_folder(desk: Desk) -> None:
    """Put another folder in the place of the root of all, with a file of the victim's name."""
    desk.root.rename(desk.root.with_name("elsewhere"))
    save(desk.root / "copy.jpg", b"unrelated")


def take_place_of_victim(desk: Desk) -> None:
    (desk.root / "copy.jpg").unlink(missing_ok=True)
    save(desk.root / "copy.jpg", b"another")


RACES: tuple[Race, ...] = (
    append_to_victim,
    replace_victim,
    replace_keeper,
    edit_keeper_and_reset_its_time,
    delete_keeper,
    make_keeper_a_link,
    swap_folder,
    take_place_of_victim,
)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("race", RACES)
def test_race_loses_no_bytes(desk: Desk, race: Race, moment: str, action: Action) -> None:
    """Only bytes that the other program itself deleted may be gone, and then a copy is left."""
    plan = make_plan(desk, action)
    folders = [desk.root, *(desk.root.parent / name for name in ("moved", "elsewhere"))]
    during = set[bytes]()

    def happen() -> None:
        race(desk)
        during.update(read_contents(*folders))

    with at_failpoint(moment, happen):
        desk.apply(plan)
    after = read_contents(*folders)
    assert during <= after
    assert {b"one", b"two", b"three"} <= after
    desk.undo()
    assert during | {b"one"} <= read_contents(*folders)


@pytest.mark.parametrize("race", [append_to_victim, replace_victim])
def test_victim_that_changes_before_it_is_moved_is_moved_back(desk: Desk, race: Race) -> None:
    with at_failpoint("action intended", lambda: race(desk)):
        statuses = get_statuses(desk.apply(make_plan(desk)))
    assert statuses["copy.jpg"] is Status.LEFT
    assert (desk.root / "copy.jpg").read_bytes() in (b"one more", b"ONE")


@pytest.mark.parametrize(
    "race",
    [replace_keeper, edit_keeper_and_reset_its_time, delete_keeper, make_keeper_a_link],
)
@pytest.mark.parametrize("action", ACTIONS)
def test_victim_whose_keeper_changes_meanwhile_is_moved_back(
    desk: Desk, race: Race, action: Action
) -> None:
    """The other victim of that keeper is left, too."""
    plan = make_plan(desk, action)
    with at_failpoint("action moved", lambda: race(desk)):
        statuses = get_statuses(desk.apply(plan))
    assert statuses == {
        "copy.jpg": Status.LEFT,
        "copy 2.jpg": Status.LEFT,
        "worse.jpg": Status.DONE,
    }
    assert (desk.root / "copy.jpg").read_bytes() == b"one"
    assert not (desk.root / "copy.jpg").is_symlink()


def test_victim_whose_folder_is_swapped_is_moved_back_to_it(desk: Desk) -> None:
    """The folder that was opened has another path by now; the file is put back into it."""

    def happen() -> None:
        (desk.root / "a" / "b").rename(desk.root / "a" / "c")
        (desk.root / "a" / "b").mkdir()

    with at_failpoint("action moved:2", happen):
        outcomes = desk.apply(make_plan(desk))
    assert get_statuses(outcomes)["copy 2.jpg"] is Status.LEFT
    assert "folder" in outcomes[1].detail
    assert (desk.root / "a" / "c" / "copy 2.jpg").read_bytes() == b"one"


def test_file_that_takes_the_place_of_a_reflink_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(target: int, request: int, source: int) -> None:
        os.write(target, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(fcntl, "ioctl", copy)
    with at_failpoint("action moved", lambda: take_place_of_victim(desk)):
        outcome = desk.apply(make_plan(desk, Action.REFLINK))[0]
    assert outcome.status is Status.STUCK
    assert (desk.root / "copy.jpg").read_bytes() == b"another"
    assert Path(outcome.target).read_bytes() == b"one"


@pytest.mark.parametrize("is_killed", [False, True])
def test_reflink_that_is_edited_while_it_is_taken_away_is_not_deleted(
    desk: Desk, is_killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that had it open writes to it where it lies for a moment, or after a kill."""

    def copy(target: int, request: int, source: int) -> None:
        os.write(target, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(fcntl, "ioctl", copy)
    plan = make_plan(desk, Action.REFLINK)
    desk.apply(plan)
    taken = desk.root / ".neardup-quarantine" / name_run(plan) / "copy.jpg"
    if is_killed:
        with killed_at("action taken:3"):
            desk.undo()
        taken.write_bytes(b"edited")
        outcomes = desk.undo()
    else:

        def edit() -> None:
            taken.write_bytes(b"edited")

        with at_failpoint("action taken:3", edit):
            outcomes = desk.undo()
    assert get_statuses(outcomes)["copy.jpg"] is Status.LEFT
    assert b"edited" in read_contents(desk.root)


def test_file_that_takes_a_name_between_link_and_unlink_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the filesystem has no exclusive rename."""
    monkeypatch.setattr(rename, "_renameat2", None)
    with at_failpoint("action linked", lambda: take_place_of_victim(desk)):
        outcome = desk.apply(make_plan(desk))[0]
    assert outcome.status is Status.LEFT
    assert (desk.root / "copy.jpg").read_bytes() == b"another"


def test_victim_is_named_where_it_cannot_be_moved_back(desk: Desk) -> None:
    def happen() -> None:
        delete_keeper(desk)
        take_place_of_victim(desk)

    with at_failpoint("action moved", happen):
        outcome = desk.apply(make_plan(desk))[0]
    assert outcome.status is Status.STUCK
    assert outcome.target in outcome.detail
    assert Path(outcome.target).read_bytes() == b"one"
    named = list(purge_runs(desk.store, [str(desk.root)], timedelta(0), dry_run=False))[0]
    assert (named.status, named.target) == (Status.LEFT, outcome.target)
    assert Path(outcome.target).read_bytes() == b"one"


def test_target_that_exists_is_not_replaced(desk: Desk) -> None:
    plan = make_plan(desk)
    folder = desk.root / ".neardup-quarantine" / name_run(plan)
    taken = save(folder / "copy.jpg", b"was here")
    outcomes = desk.apply(plan)
    assert get_statuses(outcomes)["copy.jpg"] is Status.LEFT
    assert "already" in outcomes[0].detail
    assert taken.read_bytes() == b"was here"
    assert (desk.root / "copy.jpg").read_bytes() == b"one"


def test_quarantine_that_is_a_link_is_refused(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (desk.root / ".neardup-quarantine").symlink_to(tmp_path / "outside")
    before = read_tree(desk.root)
    outcomes = desk.apply(make_plan(desk))
    assert {outcome.status for outcome in outcomes} == {Status.LEFT}
    assert "is a symbolic link" in outcomes[0].detail
    assert read_tree(desk.root) == before
    assert not any((tmp_path / "outside").iterdir())
