"""Folders have the times that they had, also where a run or an undo could do only a part."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.actions import rename
from pipeline.actions.folder_times import FolderHistory
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action
from tests.actions.conftest import make_plan
from tests.actions.test_merges import OLD_SIDECAR
from tests.actions.test_merges import make_plan as make_merge_plan
from tests.support.actions import (
    OLD_TIME,
    Desk,
    at_failpoint,
    get_statuses,
    killed_at,
    read_folder_times,
    save,
)

ACTIONS = [Action.QUARANTINE, Action.MOVE, Action.HARDLINK, Action.SYMLINK]
NAMES = ["copy.jpg", "copy 2.jpg", "worse.jpg", "worst.jpg"]


@pytest.fixture
def aged_desk(desk: Desk) -> Desk:
    """The desk with two victims in one folder, and folders with times of their own."""
    save(desk.root / "a" / "worst.jpg", b"two")
    folders = sorted((path for path in desk.root.rglob("*") if path.is_dir()), reverse=True)
    for number, folder in enumerate((*folders, desk.root)):
        os.utime(folder, ns=(OLD_TIME + number, OLD_TIME + number))
    return desk


def apply(desk: Desk, action: Action) -> dict[str, Status]:
    plan = make_plan(desk, action)
    groups = [(desk.root / "keep.jpg", [desk.root / "copy.jpg", desk.root / "a/b/copy 2.jpg"])]
    groups += [(desk.root / "a/best.jpg", [desk.root / "a/worse.jpg", desk.root / "a/worst.jpg"])]
    return get_statuses(desk.apply(desk.make_plan(groups, action, destination=plan.destination)))


@contextmanager
def immutable(*names: str) -> Iterator[None]:
    """Have no file of these names renamed, as the attribute "immutable" does."""
    call = rename._call

    def refuse(from_folder: int, from_name: str, to_folder: int, to_name: str, flags: int) -> bool:
        if {from_name, to_name} & set(names):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return call(from_folder, from_name, to_folder, to_name, flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rename, "_call", refuse)
        yield


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_times_are_restored_after_an_apply_that_left_a_file(
    aged_desk: Desk, name: str, action: Action
) -> None:
    before = read_folder_times(aged_desk.root)
    with immutable(name):
        assert apply(aged_desk, action)[name] is Status.LEFT
    if name == "copy 2.jpg":  # alone in its folder
        folder = aged_desk.root / "a" / "b"
        assert folder.stat().st_mtime_ns == before[str(folder)]
    aged_desk.undo()
    assert read_folder_times(aged_desk.root) == before


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_times_are_restored_by_the_undo_that_brings_the_last_file_back(
    aged_desk: Desk, name: str, action: Action
) -> None:
    before = read_folder_times(aged_desk.root)
    assert set(apply(aged_desk, action).values()) == {Status.DONE}
    after = read_folder_times(aged_desk.root)
    with immutable(name):
        assert get_statuses(aged_desk.undo())[name] is Status.LEFT
    place = next(aged_desk.root.rglob("best.jpg")).parent
    if name == "copy.jpg":  # all files of the others are back
        assert place.stat().st_mtime_ns == before[str(place)]
    if name.startswith("wors"):  # one is away as after the run
        assert place.stat().st_mtime_ns == after[str(place)]
    aged_desk.undo()
    assert read_folder_times(aged_desk.root) == before


def test_undo_that_swaps_twice_leaves_the_time_as_it_was(aged_desk: Desk) -> None:
    """Another link came to the path before it was taken away, and gets its place again."""
    apply(aged_desk, Action.SYMLINK)
    after = read_folder_times(aged_desk.root)

    def swap() -> None:
        for taken in (aged_desk.root / ".neardup-quarantine").rglob("wors*.jpg"):
            if taken.is_symlink():
                taken.unlink()
                taken.symlink_to("elsewhere")

    with at_failpoint("action taken", swap):
        statuses = get_statuses(aged_desk.undo())
    assert statuses.pop("worst.jpg") is Status.LEFT
    assert set(statuses.values()) == {Status.DONE}
    folder = aged_desk.root / "a"
    assert folder.stat().st_mtime_ns == after[str(folder)]


def test_time_of_one_folder_is_restored_where_that_of_another_cannot_be(
    aged_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of another user, in which everyone may write."""
    before, utime = read_folder_times(aged_desk.root), os.utime
    folder = aged_desk.root / "a" / "b"

    def refuse(path: int | str, ns: tuple[int, int]) -> None:
        if isinstance(path, int) and Path(f"/proc/self/fd/{path}").readlink() == folder:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        utime(path, ns=ns)

    monkeypatch.setattr(os, "utime", refuse)
    apply(aged_desk, Action.QUARANTINE)
    aged_desk.undo()
    after = read_folder_times(aged_desk.root)
    assert {path for path in before if after[path] != before[path]} == {str(folder)}


def test_time_of_a_folder_that_another_program_changed_since_is_not_restored(
    aged_desk: Desk,
) -> None:
    apply(aged_desk, Action.QUARANTINE)
    folder = aged_desk.root / "a"
    (folder / "new").write_bytes(b"by another program")
    changed = OLD_TIME + 10**9
    os.utime(folder, ns=(changed, changed))
    aged_desk.undo()
    assert folder.stat().st_mtime_ns > changed


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("last", ["action moved:3", "action done:1", "none"])
def test_times_are_restored_after_a_run_that_was_reversed_and_continued(
    desk: Desk, action: Action, is_new: bool, last: str
) -> None:
    """The merge stays, so the folder keeps its time when the kill is reversed."""
    sidecar = desk.root / "keep.jpg.xmp"
    if not is_new:
        save(sidecar, OLD_SIDECAR)
    plan = make_merge_plan(desk, sidecar, action)
    for number, folder in enumerate((desk.root / "a/b", desk.root / "a", desk.root)):
        os.utime(folder, ns=(OLD_TIME + number, OLD_TIME + number))
    times = read_folder_times(desk.root)
    for failpoint in ("action prepared", "action moved", last):
        with killed_at(failpoint):
            desk.apply(plan)
    desk.undo()
    assert read_folder_times(desk.root) == times


def test_long_chain_of_changes_is_walked_once() -> None:
    """Each file of a folder adds a change, and each that comes back asks for the time."""
    history, asked = FolderHistory(), list[int]()

    class Time(int):
        def __hash__(self) -> int:
            asked.append(int(self))
            return super().__hash__()

    for number in range(1, 100):
        history.add("/a", (Time(number), Time(number + 1)))
    assert history.find_original("/a", Time(100)) == 1
    asked.clear()
    assert history.find_original("/a", Time(100)) == 1
    assert len(asked) < 20
    assert history.find_original("/a", Time(101)) is None
