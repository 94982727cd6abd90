from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.durable.failpoints import FAILPOINTS
from indexes.errors import DiskFull
from pipeline.actions import folders, rename, stand_ins
from pipeline.actions.apply import apply_plan
from pipeline.actions.entries import State
from pipeline.actions.journal import find_journal
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action, Plan
from pipeline.actions.plan_checks import MAX_UNCONFIRMED_FILES, require_confirmation
from pipeline.actions.plan_file import name_run
from pipeline.actions.preview import preview_plan
from pipeline.actions.undo import list_runs
from pipeline.errors import PlanRefused
from tests.actions.conftest import make_plan
from tests.support.actions import (
    OLD_TIME,
    Desk,
    get_statuses,
    killed_at,
    killed_at_scratch_name,
    make_desk,
    make_part,
    read_contents,
    read_folder_times,
    read_tree,
    save,
)
from tests.support.faults import run_in_process

ACTIONS = [Action.QUARANTINE, Action.MOVE, Action.HARDLINK, Action.SYMLINK]
VICTIMS = ("copy.jpg", "a/b/copy 2.jpg", "a/worse.jpg")
APPLY_FAILPOINTS = [
    name
    for name in FAILPOINTS
    if name.startswith("action") and not any(word in name for word in ("purge", "delet", "linked"))
]


PURGE_FAILPOINTS = [
    name
    for name in FAILPOINTS
    if name.startswith("action") and ("purge" in name or "deleted" in name)
]


@pytest.mark.parametrize("action", ACTIONS)
def test_undo_brings_back_every_file_as_it_was(desk: Desk, action: Action) -> None:
    """The inode is the same, so that all is that the filesystem knows of a file."""
    plan, before = make_plan(desk, action), read_tree(desk.root)
    for number, folder in enumerate((desk.root / "a" / "b", desk.root / "a", desk.root)):
        os.utime(folder, ns=(OLD_TIME + number, OLD_TIME + number))
    folder_times = read_folder_times(desk.root)
    outcomes = desk.apply(plan)
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    for outcome in outcomes:
        assert Path(outcome.target).read_bytes() in (b"one", b"two")
    if action is Action.HARDLINK:
        assert (desk.root / "copy.jpg").samefile(desk.root / "keep.jpg")
    elif action is Action.SYMLINK:
        assert (desk.root / "a/b/copy 2.jpg").readlink() == Path("../../keep.jpg")
    else:
        assert not any((desk.root / name).exists() for name in VICTIMS)
    assert {outcome.status for outcome in desk.undo()} == {Status.DONE}
    assert read_tree(desk.root) == before
    assert read_folder_times(desk.root) == folder_times


def test_undo_leaves_the_time_of_a_folder_that_changed_meanwhile(desk: Desk) -> None:
    desk.apply(make_plan(desk))
    os.utime(desk.root / "a", ns=(OLD_TIME, OLD_TIME))
    desk.undo()
    assert (desk.root / "a").stat().st_mtime_ns > OLD_TIME


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "failpoint", ["action intended", "action moved", "action done", "action restored"]
)
def test_times_of_folders_are_as_before_after_kills(
    desk: Desk, failpoint: str, action: Action
) -> None:
    plan = make_plan(desk, action)
    for number, folder in enumerate((desk.root / "a" / "b", desk.root / "a", desk.root)):
        os.utime(folder, ns=(OLD_TIME + number, OLD_TIME + number))
    folder_times = read_folder_times(desk.root)
    for is_undo in (False, False, True, True):
        with killed_at(f"{failpoint}:2"):
            if is_undo:
                desk.undo()
            else:
                desk.apply(plan)
    desk.undo()
    assert read_folder_times(desk.root) == folder_times


def test_undo_after_a_kill_leaves_the_time_of_a_folder_that_changed_meanwhile(desk: Desk) -> None:
    """Another program changed it long after the intent of the run."""
    folder = desk.root / "a" / "b"
    plan, before = make_plan(desk), folder.stat().st_mtime_ns
    with killed_at("action moved:2"):
        desk.apply(plan)
    later = before + 3600 * 10**9
    os.utime(folder, ns=(later, later))
    desk.undo()
    assert folder.stat().st_mtime_ns > before


def test_victim_that_was_edited_after_a_kill_is_moved_back(desk: Desk) -> None:
    plan = make_plan(desk)
    with killed_at("action moved"):
        desk.apply(plan)
    (target,) = (desk.root / ".neardup-quarantine").rglob("*.jpg")
    target.write_bytes(b"edited")
    assert get_statuses(desk.apply(plan))["copy.jpg"] is Status.LEFT
    assert (desk.root / "copy.jpg").read_bytes() == b"edited"


def test_quarantine_keeps_the_folders_of_its_files(desk: Desk) -> None:
    plan = make_plan(desk)
    desk.apply(plan)
    folder = desk.root / ".neardup-quarantine" / name_run(plan)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == set(VICTIMS)
    assert (desk.root / ".neardup-quarantine").stat().st_mode & 0o777 == 0o700


def test_quarantine_stays_on_the_mount_of_its_files(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount is played: below a/, as the kernel would number it."""

    def identify(descriptor: int) -> tuple[int, str]:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        return os.fstat(descriptor).st_dev, "2" if f"{path}/".startswith(f"{inner}/") else "1"

    inner = desk.root / "a"
    monkeypatch.setattr(folders, "_identify_mount", identify)
    plan = make_plan(desk)
    targets = {outcome.target for outcome in desk.apply(plan)}
    run = name_run(plan)
    assert targets == {
        f"{desk.root}/.neardup-quarantine/{run}/copy.jpg",
        f"{inner}/.neardup-quarantine/{run}/b/copy 2.jpg",
        f"{inner}/.neardup-quarantine/{run}/worse.jpg",
    }
    assert {outcome.status for outcome in desk.undo()} == {Status.DONE}


def test_parts_of_a_victim_go_together_or_not_at_all(desk: Desk) -> None:
    """Plans of today have one part each; assets will have several."""
    sidecars = [save(desk.root / name, b"xmp") for name in ("keep.xmp", "copy.xmp")]
    group = make_plan(desk).groups[0]
    assert group.keeper is not None
    keeper = replace(group.keeper, parts=(*group.keeper.parts, make_part(sidecars[0])))
    parts = (*group.victims[0].parts, make_part(sidecars[1]))
    group = replace(group, keeper=keeper, victims=(replace(group.victims[0], parts=parts),))
    plan, before = replace(make_plan(desk), groups=(group,)), read_tree(desk.root)
    assert get_statuses(desk.apply(plan)) == {"copy.jpg": Status.DONE, "copy.xmp": Status.DONE}
    desk.undo()
    assert read_tree(desk.root) == before
    parts = tuple(make_part(Path(part.path)) for part in parts)
    group = replace(group, victims=(replace(group.victims[0], parts=parts),))
    with killed_at("action done"):
        desk.apply(replace(plan, groups=(group,)))
    assert get_statuses(desk.apply(replace(plan, groups=(group,)))) == dict.fromkeys(
        ("copy.jpg", "copy.xmp"), Status.DONE
    )
    desk.undo()
    assert read_tree(desk.root) == before
    parts = tuple(make_part(Path(part.path)) for part in parts)
    group = replace(group, victims=(replace(group.victims[0], parts=parts),))
    plan = replace(plan, groups=(group,))
    save(desk.root / "copy.xmp", b"XMP")
    before = read_tree(desk.root)
    assert set(get_statuses(desk.apply(plan)).values()) == {Status.LEFT}
    assert read_tree(desk.root) == before


def test_preview_changes_nothing_and_names_what_would_be_left(desk: Desk) -> None:
    plan = make_plan(desk)
    save(desk.root / "copy.jpg", b"One")
    before = read_tree(desk.root.parent)
    outcomes = list(preview_plan(plan, desk.store, [str(desk.root)]))
    assert get_statuses(outcomes) == {
        "copy.jpg": Status.LEFT,
        "copy 2.jpg": Status.PLANNED,
        "worse.jpg": Status.PLANNED,
    }
    assert read_tree(desk.root.parent) == before


def test_reflink_is_refused_where_blocks_cannot_be_shared(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    plan, before = make_plan(desk, Action.REFLINK), read_tree(desk.root)
    outcomes = desk.apply(plan)
    assert {outcome.status for outcome in outcomes} == {Status.LEFT}
    assert "cannot share blocks" in outcomes[0].detail
    assert read_tree(desk.root) == before


def test_reflink_has_the_metadata_of_its_victim(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ioctl is played by a copy: few machines have a filesystem that shares blocks."""

    def copy(target: int, request: int, source: int) -> None:
        assert request == stand_ins.FICLONE
        os.write(target, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(fcntl, "ioctl", copy)
    victim = desk.root / "a/b/copy 2.jpg"
    plan, before, old = make_plan(desk, Action.REFLINK), read_tree(desk.root), victim.stat()
    desk.apply(plan)
    new = victim.stat()
    assert (new.st_mode, new.st_mtime_ns) == (old.st_mode, old.st_mtime_ns)
    assert new.st_ino not in (old.st_ino, (desk.root / "keep.jpg").stat().st_ino)
    desk.undo()
    assert read_tree(desk.root) == before


def test_undo_keeps_what_took_the_place_of_a_victim(desk: Desk) -> None:
    desk.apply(make_plan(desk))
    (desk.root / "copy.jpg").write_bytes(b"new")
    statuses = get_statuses(desk.undo())
    assert statuses == {
        "copy.jpg": Status.LEFT,
        "copy 2.jpg": Status.DONE,
        "worse.jpg": Status.DONE,
    }
    assert (desk.root / "copy.jpg").read_bytes() == b"new"
    (desk.root / "copy.jpg").rename(desk.root / "new.jpg")
    assert get_statuses(desk.undo()) == {"copy.jpg": Status.DONE}
    assert (desk.root / "copy.jpg").read_bytes() == b"one"


def test_undo_keeps_a_stand_in_that_was_edited(desk: Desk) -> None:
    desk.apply(make_plan(desk, Action.SYMLINK))
    (desk.root / "copy.jpg").unlink()
    (desk.root / "copy.jpg").write_bytes(b"edited")
    assert get_statuses(desk.undo())["copy.jpg"] is Status.LEFT
    assert (desk.root / "copy.jpg").read_bytes() == b"edited"


def test_empty_folders_of_the_user_at_the_destination_stay(desk: Desk) -> None:
    plan, destination = make_plan(desk, Action.MOVE), desk.root.parent / "moved"
    own = destination / desk.root.name / "a"
    own.mkdir(parents=True)
    with killed_at("action moved:2"):
        desk.apply(plan)
    desk.apply(plan)
    desk.undo()
    assert list(destination.rglob("*")) == [own.parent, own]


def test_folders_that_the_run_made_go_whatever_file_comes_back_last(desk: Desk) -> None:
    outcomes = desk.apply(make_plan(desk, Action.MOVE))
    blocking = save(Path(outcomes[-1].path), b"another")
    desk.undo()
    blocking.unlink()
    desk.undo()
    assert list((desk.root.parent / "moved").iterdir()) == []


def test_undo_makes_folders_again_that_were_removed(desk: Desk) -> None:
    desk.apply(make_plan(desk))
    (desk.root / "a" / "b").rmdir()
    desk.undo()
    assert (desk.root / "a/b/copy 2.jpg").read_bytes() == b"one"


def test_plan_that_was_applied_is_not_applied_twice(desk: Desk) -> None:
    plan = make_plan(desk)
    desk.apply(plan)
    after = read_tree(desk.root)
    assert [outcome.detail for outcome in desk.apply(plan)] == ["done before"] * 3
    assert read_tree(desk.root) == after
    desk.undo()
    outcomes = desk.apply(plan)  # moving a file is a change of it
    assert {outcome.status for outcome in outcomes} == {Status.LEFT}
    assert "make a new plan" in outcomes[0].detail


@pytest.mark.parametrize("action", ACTIONS)
def test_plan_is_valid_after_another_one_was_undone(desk: Desk, action: Action) -> None:
    """The victims have another ctime by then, and the keeper of a hard link has one, too."""
    plan, other = make_plan(desk, action), make_plan(desk)
    other = replace(other, created="2026-01-31T10:16:00+00:00")
    desk.apply(plan)
    desk.undo()
    assert {outcome.status for outcome in desk.apply(other)} == {Status.DONE}


def test_file_that_was_edited_in_place_with_its_times_is_not_moved(desk: Desk) -> None:
    """Its size, mtime and inode are those of the plan, its ctime and bytes are not."""
    plan, victim = make_plan(desk), desk.root / "copy.jpg"
    victim.write_bytes(b"ONE")
    os.utime(victim, ns=(OLD_TIME, OLD_TIME))
    outcome = desk.apply(plan)[0]
    assert (outcome.status, "has changed since" in outcome.detail) == (Status.LEFT, True)


@pytest.mark.parametrize("has_renameat2", [True, False])
def test_undo_lists_no_folder(
    desk: Desk, has_renameat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing per file would take a time that grows with the square of their number."""
    if not has_renameat2:
        monkeypatch.setattr(rename, "_renameat2", None)
    before = read_tree(desk.root)
    desk.apply(make_plan(desk))
    listed = list[object]()

    def spy(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(folder: object = ".") -> Any:  # noqa: ANN401 - of either function
            listed.append(folder)
            return function(folder)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", spy(os.listdir))
        patch.setattr(os, "scandir", spy(os.scandir))
        desk.undo()
    assert [folder for folder in listed if str(folder) != str(desk.store / "journal")] == []
    assert read_tree(desk.root) == before


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.MOVE])
def test_filesystem_without_exclusive_rename_links_and_unlinks(
    desk: Desk, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rename, "_renameat2", None)
    before = read_tree(desk.root)
    for failpoint in ("action linked:1", "action linked:2", "action moved:2", "none"):
        plan = make_plan(desk, action)
        if failpoint == "none":
            desk.apply(plan)
        else:
            with killed_at(failpoint):
                desk.apply(plan)
        moved = desk.root.parent / "moved"
        assert read_contents(desk.root, moved) == {b"one", b"two", b"three"}
        desk.undo()
        assert read_tree(desk.root) == before
    outcomes = desk.apply(make_plan(desk, Action.HARDLINK))
    assert "cannot swap two names" in outcomes[0].detail
    assert read_tree(desk.root) == before


@pytest.mark.parametrize("is_undo", [False, True])
def test_scratch_name_that_a_kill_left_is_removed(
    desk: Desk, is_undo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rename, "_renameat2", None)
    plan, before = make_plan(desk), read_tree(desk.root)
    if is_undo:
        desk.apply(plan)
    with killed_at_scratch_name():
        if is_undo:
            desk.undo()
        else:
            desk.apply(plan)
    desk.undo()
    assert read_tree(desk.root) == before


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.MOVE])
def test_scratch_name_that_a_kill_left_does_not_outlive_a_purge(
    desk: Desk, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the bytes would stay under a name that no journal has."""
    monkeypatch.setattr(rename, "_renameat2", None)
    plan = make_plan(desk, action)
    with killed_at_scratch_name():
        desk.apply(plan)
    assert {outcome.status for outcome in desk.apply(plan)} == {Status.DONE}
    assert not list(desk.root.parent.rglob(".neardup-[0-9]*"))
    desk.purge()
    assert not (desk.root / ".neardup-quarantine").exists()


def test_file_under_a_scratch_name_is_not_replaced(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the place of a victim in the moment of a kill, and lies there by no other name."""
    monkeypatch.setattr(rename, "_renameat2", None)
    plan, victim = make_plan(desk), desk.root / "copy.jpg"
    folder = desk.root / ".neardup-quarantine" / name_run(plan)
    lost = save(folder / f".neardup-{victim.stat().st_ino}", b"by another program")
    outcome = desk.apply(plan)[0]
    assert (outcome.status, lost.name in outcome.detail) == (Status.LEFT, True)
    assert lost.read_bytes() == b"by another program"
    assert victim.read_bytes() == b"one"


@pytest.mark.parametrize(
    ("victims", "library", "is_large"),
    [
        (1, 5, False),
        (5, 5, False),
        (6, 30, False),
        (6, 29, True),
        (MAX_UNCONFIRMED_FILES, 10**6, False),
        (MAX_UNCONFIRMED_FILES + 1, 10**6, True),
    ],
)
def test_many_files_are_confirmed_by_their_number(
    desk: Desk, victims: int, library: int, is_large: bool
) -> None:
    plan = make_plan(desk)
    group = plan.groups[0]
    many = replace(group, victims=group.victims[:1] * victims)
    plan = replace(plan, groups=(many,), library_files=library)
    require_confirmation(plan, victims)
    count = "1 file" if victims == 1 else f"{victims:,} files"
    with pytest.raises(PlanRefused, match=f"acts on {count}, not on"):
        require_confirmation(plan, victims + 1)
    if is_large:
        with pytest.raises(PlanRefused, match=f"--confirm {victims}"):
            require_confirmation(plan, None)
    else:
        require_confirmation(plan, None)


def test_intent_is_on_disk_before_its_move_and_the_move_before_its_outcome(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = list[str]()
    plan = make_plan(desk)
    write, call = os.write, rename._call

    def record_write(descriptor: int, data: bytes) -> int:
        events.append("write")
        return write(descriptor, data)

    def record_call(*arguments: Any) -> bool:
        events.append("rename")
        return call(*arguments)

    def record_sync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("sync folder" if is_folder else "sync")

    monkeypatch.setattr(os, "write", record_write)
    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(rename, "_call", record_call)
    plan = replace(plan, groups=plan.groups[1:])
    desk.apply(plan)
    first = events.index("write")
    made = ["sync folder"] * 3  # the folders of quarantine
    moved = ["rename", "sync folder", "sync folder"]
    assert events[first:] == ["write", "sync", *made, *moved, "write", "sync"]


@pytest.mark.parametrize("action", ACTIONS)
def test_file_that_comes_back_has_its_new_name_on_disk_before_its_old_one_is_gone(
    desk: Desk, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(desk, action)
    plan = replace(plan, groups=plan.groups[1:])
    (outcome,) = desk.apply(plan)
    events, call = list[str](), rename._call

    def record_call(*arguments: Any) -> bool:
        events.append("rename")
        return call(*arguments)

    def record_sync(descriptor: int) -> None:
        events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(rename, "_call", record_call)
    desk.undo()
    moved = events.index("rename")
    folders = [str(Path(path).parent) for path in (outcome.path, outcome.target)]
    assert events[moved + 1 : moved + 3] == folders
    assert Path(events[moved + 3]).parent == desk.store / "journal"


def test_last_run_is_the_one_that_moved_a_file_last(desk: Desk) -> None:
    """The older run was cut off, and continued after the newer one."""
    plan = make_plan(desk)
    with killed_at("action done"):
        desk.apply(plan)
    other = desk.make_plan([(desk.root / "other.jpg", [save(desk.root / "o2.jpg", b"three")])])
    desk.apply(other)
    assert find_journal(desk.store, "last").stem == name_run(other)
    desk.apply(plan)
    assert find_journal(desk.store, "last").stem == name_run(plan)
    desk.undo(name_run(other))
    assert find_journal(desk.store, "last").stem == name_run(plan)


# --- kills ---


def _apply_in_child(plan: Plan, store: Path, root: str, failpoint: str) -> None:
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    list(apply_plan(plan, store, [root]))


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.MOVE, Action.HARDLINK])
def test_run_killed_by_the_kernel_is_undone_or_continued(tmp_path: Path, action: Action) -> None:
    destination = None
    if action is Action.MOVE:
        destination = str(tmp_path / "moved")
        (tmp_path / "moved").mkdir()
    for number, failpoint in enumerate(["action intended:2", "action moved:2", "action done:1"]):
        desk = make_desk(tmp_path / str(number))
        groups = [
            (
                save(desk.root / "k", b"k"),
                [save(desk.root / name, b"k") for name in ("1", "2", "3")],
            )
        ]
        plan = desk.make_plan(groups, action, destination=destination)
        before = read_tree(desk.root)
        code = run_in_process(_apply_in_child, plan, desk.store, str(desk.root), failpoint)
        assert code == -signal.SIGKILL
        assert get_statuses(desk.apply(plan)) == dict.fromkeys("123", Status.DONE)
        desk.undo()
        assert read_tree(desk.root) == before


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("failpoint", APPLY_FAILPOINTS)
def test_killed_run_is_undone(desk: Desk, failpoint: str, action: Action) -> None:
    for hit in (1, 2):
        plan, before = make_plan(desk, action), read_tree(desk.root)
        with killed_at(f"{failpoint}:{hit}"):
            desk.apply(plan)
        assert read_contents(desk.root.parent / "moved", desk.root) == {b"one", b"two", b"three"}
        with killed_at(f"{failpoint}:{hit}"):
            desk.undo()
        desk.undo()
        assert read_tree(desk.root) == before


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "failpoint", [name for name in APPLY_FAILPOINTS if "undo" not in name and "rest" not in name]
)
def test_killed_run_is_continued(desk: Desk, failpoint: str, action: Action) -> None:
    plan = make_plan(desk, action)
    with killed_at(f"{failpoint}:2"):
        desk.apply(plan)
    assert {outcome.status for outcome in desk.apply(plan)} == {Status.DONE}
    (run,) = list_runs(desk.store)
    assert run.counts == {"done": 3}


def test_half_a_line_at_the_end_of_a_journal_is_passed_over(desk: Desk) -> None:
    plan, before = make_plan(desk), read_tree(desk.root)
    path = desk.store / "journal" / f"{name_run(plan)}.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'{"line": 0, "schema')
    with killed_at("action moved:2"):
        desk.apply(plan)
    with path.open("ab") as journal:
        journal.write(b'{"line": 4, "event": "do')
    assert {outcome.status for outcome in desk.apply(plan)} == {Status.DONE}
    desk.undo()
    assert read_tree(desk.root) == before


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.SYMLINK])
def test_full_disk_loses_nothing(
    desk: Desk, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, before = os.write, read_tree(desk.root)
    for allowed in range(6):  # writes of the journal
        plan, writes = make_plan(desk, action), 0

        def write_a_few(descriptor: int, data: bytes, allowed: int = allowed) -> int:
            nonlocal writes
            writes += 1
            if writes > allowed:
                write(descriptor, data[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_a_few)
            with pytest.raises(DiskFull, match="no photo is lost"):
                desk.apply(plan)
        assert read_contents(desk.root) == {b"one", b"two", b"three"}
        desk.undo()
        assert read_tree(desk.root) == before


def draw_plan(data: st.DataObject, desk: Desk) -> Plan:
    """Save files in folders of several levels, and plan to act on all copies."""
    parents = st.sampled_from(["", "a/", "a/b/", "c/"])
    groups = list[tuple[Path, list[Path]]]()
    for number in range(data.draw(st.integers(1, 3), "groups")):
        content = bytes([number]) * data.draw(st.integers(0, 3), "length")
        paths = [
            save(
                desk.root / f"{data.draw(parents)}{number} {place}",
                content,
                data.draw(st.sampled_from([0o400, 0o644, 0o755])),
                data.draw(st.integers(0, 2**60)),
            )
            for place in range(data.draw(st.integers(2, 4), "files"))
        ]
        groups.append((paths[0], paths[1:]))
    action, destination = data.draw(st.sampled_from(ACTIONS)), None
    if action is Action.MOVE:
        (desk.root.parent / "moved").mkdir()
        destination = str(desk.root.parent / "moved")
    return desk.make_plan(groups, action, destination=destination)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_random_plan_killed_anywhere_is_undone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    desk = make_desk(tmp_path_factory.mktemp("random"))
    plan = draw_plan(data, desk)
    before, folder_times = read_tree(desk.root), read_folder_times(desk.root)
    contents = read_contents(desk.root)
    failpoints = st.builds("{}:{}".format, st.sampled_from(APPLY_FAILPOINTS), st.integers(1, 6))
    with killed_at(data.draw(failpoints, "kill of apply")):
        desk.apply(plan)
    if data.draw(st.booleans(), "continue"):
        with killed_at(data.draw(failpoints, "second kill")):
            desk.apply(plan)
    assert read_contents(desk.root) == contents
    with killed_at(data.draw(failpoints, "kill of undo")):
        desk.undo()
    desk.undo()
    assert read_tree(desk.root) == before
    assert read_folder_times(desk.root) == folder_times


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_random_purge_killed_anywhere_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """All that is not deleted by then comes back as it was; the rest has its keeper."""
    desk = make_desk(tmp_path_factory.mktemp("random"))
    plan = draw_plan(data, desk)
    before, contents = read_tree(desk.root), read_contents(desk.root)
    keepers = {part.path for group in plan.groups for part in group.keeper_parts}
    acts, purges = (
        st.builds("{}:{}".format, st.sampled_from(names), st.integers(1, 6))
        for names in (APPLY_FAILPOINTS, PURGE_FAILPOINTS)
    )
    with killed_at(data.draw(acts, "kill of apply")):
        desk.apply(plan)
    for moment in data.draw(st.lists(st.one_of(acts, purges), min_size=1, max_size=3), "kills"):
        with killed_at(moment):
            if moment.startswith(tuple(PURGE_FAILPOINTS)):
                desk.purge()
            elif data.draw(st.booleans(), "undo"):
                desk.undo()
            else:
                desk.apply(plan)
        assert contents <= read_contents(desk.root, desk.root.parent / "moved")
    desk.purge()
    desk.undo()
    after = read_tree(desk.root)
    assert {path for path, kept in before.items() if after.get(path) != kept} <= {
        str(Path(part.path).relative_to(desk.root))
        for part, is_victim in plan.iter_parts()
        if is_victim
    }
    assert keepers <= {str(desk.root / path) for path in after}
    assert read_contents(desk.root) == contents
    (run,) = list_runs(desk.store)
    assert set(run.counts) <= {State.UNDONE, State.REVERTED, State.PURGED}
    gone = [path for path in before if path not in after]
    if plan.action in (Action.QUARANTINE, Action.MOVE):
        assert len(gone) == run.counts.get(State.PURGED, 0)
    assert not (desk.root / ".neardup-quarantine").exists()
