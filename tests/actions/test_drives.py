"""Nothing is decided about files whose drive is not mounted when a killed run is settled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.actions import apply
from pipeline.actions.checked_json import add_checksum
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action
from pipeline.actions.preview import preview_plan
from pipeline.actions.undo import list_runs
from tests.actions.test_merges import OLD_SIDECAR, make_plan
from tests.support.actions import Desk, killed_at, read_tree, save


@contextmanager
def unmounted(desk: Desk) -> Iterator[None]:
    """Have an empty folder at the root, and the journal tell that the root was on another device.

    No mount is needed, so no root either.
    """
    (path,) = (desk.store / "journal").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if "device" in line:
            line["device"] += 1
        for file in (line.get("victim"), line.get("before")):
            if file:
                file["stat"]["device"] += 1
    path.write_text("".join(json.dumps(add_checksum(line)) + "\n" for line in lines))
    drive = desk.root.with_name("drive")
    desk.root.rename(drive)
    desk.root.mkdir()
    yield
    desk.root.rmdir()
    drive.rename(desk.root)


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize(
    "failpoint", ["merge done", "merge moved", "merge intended", "action moved", "action restored"]
)
def test_killed_run_is_settled_once_its_drive_is_back(
    desk: Desk, failpoint: str, is_new: bool
) -> None:
    sidecar = desk.root / "keep.jpg.xmp"
    if not is_new:
        save(sidecar, OLD_SIDECAR)
    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    with killed_at(failpoint):
        desk.apply(plan)
        desk.undo()
    left = read_tree(desk.root)
    with unmounted(desk):
        desk.apply(desk.make_plan([]))
        previewed = list(preview_plan(plan, desk.store, [str(desk.root)]))
        assert not any(outcome.status is Status.PLANNED for outcome in previewed)
    assert read_tree(desk.root) == left
    desk.apply(desk.make_plan([]))
    desk.undo(list_runs(desk.store)[0].run)
    assert read_tree(desk.root) == before


@pytest.mark.parametrize("is_in_trash", [False, True])
def test_file_counts_as_in_the_trash_only_while_its_drive_is_there(
    desk: Desk, is_in_trash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "require_trash", lambda: None)
    copy = desk.root / "copy.jpg"
    plan = desk.make_plan([(desk.root / "keep.jpg", [copy])], Action.TRASH)
    with killed_at("action intended"):
        desk.apply(plan)
    if is_in_trash:
        copy.unlink()
    with unmounted(desk):
        desk.apply(desk.make_plan([]))
        assert list_runs(desk.store)[0].counts == {"intended": 1}
    desk.apply(desk.make_plan([]))
    assert list_runs(desk.store)[0].counts == {"done" if is_in_trash else "reverted": 1}


def test_folder_of_a_file_in_the_trash_may_be_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "require_trash", lambda: None)
    copy = desk.root / "a" / "b" / "copy 2.jpg"
    plan = desk.make_plan([(desk.root / "keep.jpg", [copy])], Action.TRASH)
    with killed_at("action intended"):
        desk.apply(plan)
    shutil.rmtree(copy.parent)
    desk.apply(desk.make_plan([]))
    assert list_runs(desk.store)[0].counts == {"done": 1}
