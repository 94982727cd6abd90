"""Fields that are added to sidecars, with kills and other programs in between, and undone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.durable.failpoints import FAILPOINTS
from indexes.errors import DiskFull
from pipeline.actions import rename
from pipeline.actions.apply import apply_plan
from pipeline.actions.outcome import Outcome, Status
from pipeline.actions.plan import Action, FieldSource, Merge, Plan
from pipeline.actions.plan_file import name_run, parse_plan, read_plan, serialize_plan, write_plan
from pipeline.actions.preview import preview_plan
from pipeline.actions.undo import list_runs
from pipeline.decode.metadata.fields import FieldName
from pipeline.decode.metadata.xmp import parse_xmp
from pipeline.errors import PlanRefused
from pipeline.verify.relation import Relation
from tests.support.actions import (
    OLD_TIME,
    Desk,
    at_failpoint,
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
from tests.support.xmp import make_xmp

ACTIONS = [Action.QUARANTINE, Action.MOVE, Action.HARDLINK, Action.SYMLINK]
OLD_SIDECAR = make_xmp(keywords=["sea"], extra="<my:own>x</my:own>")
MERGE_FAILPOINTS = [name for name in FAILPOINTS if name.startswith("merge")]
UNPURGED_FAILPOINTS = [
    name
    for name in FAILPOINTS
    if name.startswith(("merge", "action"))
    and not any(word in name for word in ("purge", "delet", "linked"))
]


@pytest.fixture(params=["new", "extended"])
def sidecar(request: pytest.FixtureRequest, desk: Desk) -> Path:
    """The sidecar of keep.jpg: there is none yet, or there is one."""
    path = desk.root / "keep.jpg.xmp"
    if request.param == "extended":
        save(path, OLD_SIDECAR, 0o604)
    return path


def make_plan(desk: Desk, sidecar: Path, action: Action = Action.QUARANTINE) -> Plan:
    """Plan to act on two copies of keep.jpg, which add a rating and a keyword, and on another."""
    root = desk.root
    copies = [root / "copy.jpg", root / "a" / "b" / "copy 2.jpg"]
    groups = [(root / "keep.jpg", copies), (root / "a" / "best.jpg", [root / "a" / "worse.jpg"])]
    destination = None
    if action is Action.MOVE:
        (root.parent / "moved").mkdir(exist_ok=True)
        destination = str(root.parent / "moved")
    plan = desk.make_plan(groups, action, destination=destination)
    return add_merge(
        plan,
        sidecar,
        FieldSource(FieldName.RATING, "5", str(copies[0])),
        FieldSource(FieldName.KEYWORD, "boat", str(copies[1])),
    )


def add_merge(plan: Plan, sidecar: Path, *fields: FieldSource, group: int = 0) -> Plan:
    before = make_part(sidecar) if sidecar.exists() else None
    merge = Merge(str(sidecar), before, fields)
    groups = list(plan.groups)
    groups[group] = replace(groups[group], merge=merge)
    return replace(plan, groups=tuple(groups))


def get_outcome(outcomes: list[Outcome], path: Path) -> Outcome:
    (found,) = (outcome for outcome in outcomes if outcome.path == str(path))
    return found


def read_fields(path: Path) -> dict[str, Any]:
    fields = parse_xmp(path.read_bytes()).read_fields()
    return {str(name): values for name, values in fields.items()}


@pytest.mark.parametrize("action", ACTIONS)
def test_undo_brings_back_the_sidecar_with_its_times_and_mode(
    desk: Desk, sidecar: Path, action: Action
) -> None:
    plan, before = make_plan(desk, sidecar, action), read_tree(desk.root)
    for number, folder in enumerate((desk.root / "a" / "b", desk.root / "a", desk.root)):
        os.utime(folder, ns=(OLD_TIME + number, OLD_TIME + number))
    times = read_folder_times(desk.root)
    outcomes = desk.apply(plan)
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    assert get_outcome(outcomes, sidecar).detail == "added: rating, keyword"
    keywords = ("sea", "boat") if "keep.jpg.xmp" in before else ("boat",)
    assert read_fields(sidecar) == {"rating": ("5",), "keyword": keywords}
    mode = 0o604 if "keep.jpg.xmp" in before else 0o600  # that of the keeper
    assert sidecar.stat().st_mode & 0o777 == mode
    assert [path.name for path in desk.root.glob("*.xmp*")] == ["keep.jpg.xmp"]
    assert {outcome.status for outcome in desk.undo()} == {Status.DONE}
    assert read_tree(desk.root) == before
    assert read_folder_times(desk.root) == times


def test_preview_names_the_fields_and_changes_nothing(desk: Desk, sidecar: Path) -> None:
    plan = make_plan(desk, sidecar)
    before = read_tree(desk.root.parent)
    outcomes = list(preview_plan(plan, desk.store, [str(desk.root)]))
    assert {outcome.status for outcome in outcomes} == {Status.PLANNED}
    assert get_outcome(outcomes, sidecar).detail == "to add: rating, keyword"
    assert read_tree(desk.root.parent) == before
    sidecar.write_bytes(b"edited")
    outcomes = list(preview_plan(plan, desk.store, [str(desk.root)]))
    assert get_statuses(outcomes) == {
        "copy.jpg": Status.LEFT,
        "copy 2.jpg": Status.LEFT,
        "worse.jpg": Status.PLANNED,
    }


def test_plan_file_keeps_a_merge_and_has_no_field_for_none(
    desk: Desk, sidecar: Path, tmp_path: Path
) -> None:
    plan = make_plan(desk, sidecar)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    assert parse_plan(serialize_plan(plan)) == plan
    assert [("merge" in group) for group in serialize_plan(plan)["groups"]] == [True, False]


def edit(path: Path) -> None:
    path.write_bytes(make_xmp(caption="edited"))


def replace_by_link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("keep.jpg")


def replace_by_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def replace_by_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("change", [edit, replace_by_link, replace_by_folder, replace_by_fifo])
def test_sidecar_that_is_not_as_planned_keeps_the_copies(
    desk: Desk, sidecar: Path, change: Callable[[Path], None]
) -> None:
    plan = make_plan(desk, sidecar)
    change(sidecar)
    before = read_tree(desk.root)
    outcomes = desk.apply(plan)
    assert get_statuses(outcomes) == {
        "copy.jpg": Status.LEFT,
        "copy 2.jpg": Status.LEFT,
        "worse.jpg": Status.DONE,
    }
    assert "keep.jpg.xmp" in outcomes[0].detail
    assert change is not edit or "the plan was made" in outcomes[0].detail
    desk.undo()
    assert read_tree(desk.root) == before


def test_read_only_sidecar_keeps_the_copies(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR, 0o444)
    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    outcomes = desk.apply(plan)
    assert outcomes[0].detail.endswith("keep.jpg.xmp' is read-only")
    desk.undo()
    assert read_tree(desk.root) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_keeps_the_copies(desk: Desk, sidecar: Path) -> None:
    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    desk.root.chmod(0o500)
    try:
        outcomes = desk.apply(plan)
    finally:
        desk.root.chmod(0o755)
    assert get_statuses(outcomes)["copy.jpg"] is Status.LEFT
    assert read_tree(desk.root) == before


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO])
def test_folder_in_which_nothing_can_be_renamed_keeps_the_copies(
    desk: Desk, sidecar: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(code, os.strerror(code))

    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    with monkeypatch.context() as patch:
        patch.setattr(rename, "_call", refuse)
        outcomes = desk.apply(plan)
    assert {outcome.status for outcome in outcomes} == {Status.LEFT}
    assert os.strerror(code) in outcomes[0].detail
    assert read_tree(desk.root) == before


def test_full_disk_loses_nothing(
    desk: Desk, sidecar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(DiskFull):
            desk.apply(plan)
    assert get_statuses(desk.apply(plan))["copy.jpg"] is Status.DONE
    desk.undo()
    assert read_tree(desk.root) == before


def test_filesystem_without_renameat2_extends_nothing_and_still_writes_new_ones(
    desk: Desk, sidecar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rename, "_renameat2", None)
    is_new = not sidecar.exists()
    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    outcomes = desk.apply(plan)
    assert get_statuses(outcomes)["copy.jpg"] is (Status.DONE if is_new else Status.LEFT)
    assert is_new or "cannot swap two names" in outcomes[0].detail
    desk.undo()
    assert read_tree(desk.root) == before


def test_new_sidecar_that_is_linked_when_it_is_killed_is_taken_away(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rename, "_renameat2", None)
    plan, before = make_plan(desk, desk.root / "keep.jpg.xmp"), read_tree(desk.root)
    with killed_at("action linked"):
        desk.apply(plan)
    assert (desk.root / "keep.jpg.xmp").exists()
    desk.undo()
    assert read_tree(desk.root) == before


def test_merge_is_taken_out_again_if_no_copy_can_go(desk: Desk, sidecar: Path) -> None:
    plan = make_plan(desk, sidecar)
    for name in ("copy.jpg", "a/b/copy 2.jpg"):
        (desk.root / name).write_bytes(b"edited")
    before = read_tree(desk.root)
    assert get_statuses(desk.apply(plan))["copy.jpg"] is Status.LEFT
    desk.undo()
    assert read_tree(desk.root) == before


def test_merge_stays_while_a_copy_is_away(desk: Desk, sidecar: Path) -> None:
    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    desk.apply(plan)
    save(desk.root / "copy.jpg", b"another")
    outcomes = desk.undo()
    assert get_statuses(outcomes)["keep.jpg.xmp"] is Status.LEFT
    assert read_fields(sidecar)["rating"] == ("5",)
    (desk.root / "copy.jpg").unlink()
    desk.undo()
    assert read_tree(desk.root) == before


def test_new_sidecar_stays_once_the_copies_are_purged(desk: Desk) -> None:
    """Nothing else has their metadata any more."""
    sidecar = desk.root / "keep.jpg.xmp"
    desk.apply(make_plan(desk, sidecar))
    desk.purge()
    outcome = get_outcome(desk.undo(), sidecar)
    assert (outcome.status, "is not back" in outcome.detail) == (Status.LEFT, True)
    assert read_fields(sidecar)["rating"] == ("5",)


def test_undo_leaves_a_sidecar_that_was_edited_since(desk: Desk, sidecar: Path) -> None:
    is_new = not sidecar.exists()
    desk.apply(make_plan(desk, sidecar))
    edited = sidecar.read_bytes().replace(b"boat", b"ship")
    sidecar.write_bytes(edited)
    with at_failpoint("merge taken", lambda: pytest.fail("it was away for a moment")):
        outcome = get_outcome(desk.undo(), sidecar)
    assert (outcome.status, "edited since" in outcome.detail) == (Status.LEFT, True)
    assert sidecar.read_bytes() == edited
    if not is_new:
        assert "the one of before stays at" in outcome.detail
        assert OLD_SIDECAR in read_contents(desk.root)


def test_sidecar_that_was_deleted_since_is_no_obstacle(desk: Desk, sidecar: Path) -> None:
    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    desk.apply(plan)
    sidecar.unlink()
    assert {outcome.status for outcome in desk.undo()} == {Status.DONE}
    assert read_tree(desk.root) == before


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.MOVE])
def test_purge_deletes_the_sidecar_of_before(desk: Desk, action: Action) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    desk.apply(make_plan(desk, sidecar, action))
    (run,) = list_runs(desk.store)
    held = 9 if action is Action.QUARANTINE else 0  # of "one", "one" and "two"
    assert run.bytes_held >= len(OLD_SIDECAR)
    assert run.bytes_held - len(OLD_SIDECAR) <= held + 2
    assert get_outcome(desk.purge(dry_run=True), sidecar).status is Status.PLANNED
    assert OLD_SIDECAR in read_contents(desk.root)
    assert get_outcome(desk.purge(), sidecar).status is Status.DONE
    assert OLD_SIDECAR not in read_contents(desk.root)
    assert not (desk.root / ".neardup-quarantine").exists()
    merged = sidecar.read_bytes()
    assert get_outcome(desk.undo(), sidecar).status is Status.LEFT
    assert sidecar.read_bytes() == merged


def test_purge_keeps_the_sidecar_of_before_once_the_other_was_edited(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    desk.apply(make_plan(desk, sidecar))
    edit(sidecar)
    outcome = get_outcome(desk.purge(), sidecar)
    assert (outcome.status, bool(outcome.target)) == (Status.LEFT, True)
    assert Path(outcome.target).read_bytes() == OLD_SIDECAR


def test_purge_keeps_a_sidecar_of_before_that_was_edited_in_quarantine(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    desk.apply(make_plan(desk, sidecar))
    (kept,) = (desk.root / ".neardup-quarantine").rglob("*.xmp")
    edit(kept)
    outcome = get_outcome(desk.purge(), sidecar)
    assert (outcome.status, outcome.target) == (Status.LEFT, str(kept))
    assert read_fields(kept) == {"caption": ("edited",)}


@pytest.mark.parametrize("failpoint", ["merge purge intended", "merge deleted", "merge purged"])
def test_purge_that_was_killed_is_continued(desk: Desk, failpoint: str) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    desk.apply(make_plan(desk, sidecar))
    with killed_at(failpoint):
        desk.purge()
    desk.purge()
    assert not (desk.root / ".neardup-quarantine").exists()
    assert read_fields(sidecar)["keyword"] == ("sea", "boat")


@pytest.mark.parametrize(
    "change",
    [
        {"sidecar": "/elsewhere/keep.jpg.xmp"},
        {"sidecar": "{root}/keep.jpg"},
        {"sidecar": "{root}/other.xmp"},
        {"sidecar": "{root}/a/../keep.jpg.xmp"},
        {"sidecar": "{root}/copy.jpg.xmp"},
        {"before": "{root}/a/best.jpg"},
        {"fields": ()},
        {"fields": (FieldSource(FieldName.RATING, "9", "x"),)},
        {"fields": (FieldSource(FieldName.CAPTION, "a\x00b", "x"),)},
        {
            "fields": (
                FieldSource(FieldName.TITLE, "a", "x"),
                FieldSource(FieldName.TITLE, "b", "x"),
            )
        },
    ],
)
def test_plan_that_writes_elsewhere_or_no_metadata_is_refused(
    desk: Desk, change: dict[str, Any]
) -> None:
    plan = make_plan(desk, desk.root / "keep.jpg.xmp")
    group = plan.groups[0]
    assert group.merge is not None
    if "sidecar" in change:
        change = {"sidecar": change["sidecar"].format(root=desk.root)}
    if "before" in change:
        change = {"before": make_part(Path(change["before"].format(root=desk.root)))}
    merge = replace(group.merge, **change)
    plan = replace(plan, groups=(replace(group, merge=merge), *plan.groups[1:]))
    with pytest.raises(PlanRefused, match="the plan writes to"):
        desk.apply(plan)


def test_plan_that_writes_to_a_victim_is_refused(desk: Desk) -> None:
    sidecar = save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)
    plan = make_plan(desk, sidecar)
    group = plan.groups[0]
    parts = (*group.victims[0].parts, make_part(sidecar))
    victim = replace(group.victims[0], relation=Relation.SAME_PICTURE, parts=parts)
    plan = replace(plan, groups=(replace(group, victims=(victim,)), *plan.groups[1:]))
    with pytest.raises(PlanRefused, match="has another use for it"):
        desk.apply(plan)
    assert sidecar.read_bytes() == OLD_SIDECAR


# --- kills and races ---


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.MOVE, Action.HARDLINK])
@pytest.mark.parametrize(
    "failpoint", [name for name in MERGE_FAILPOINTS if "purge" not in name and "delet" not in name]
)
def test_killed_run_is_undone_and_continued(
    desk: Desk, sidecar: Path, failpoint: str, action: Action
) -> None:
    plan, before = make_plan(desk, sidecar, action), read_tree(desk.root)
    with killed_at(failpoint):
        desk.apply(plan)
    with killed_at(failpoint):
        desk.undo()
    desk.undo()
    assert read_tree(desk.root) == before
    plan = make_plan(desk, sidecar, action)
    with killed_at(failpoint):
        desk.apply(plan)
    desk.apply(plan)
    assert read_fields(sidecar)["rating"] == ("5",)
    assert action is Action.HARDLINK or not (desk.root / "copy.jpg").exists()
    (run, *_) = reversed(list_runs(desk.store))
    assert run.run == name_run(plan)
    desk.undo()
    assert read_tree(desk.root) == before


def delete_sidecar(desk: Desk) -> None:
    (desk.root / "keep.jpg.xmp").unlink(missing_ok=True)


def edit_sidecar(desk: Desk) -> None:
    edit(desk.root / "keep.jpg.xmp")


def swap_folder(desk: Desk) -> None:
    desk.root.rename(desk.root.with_name("elsewhere"))
    save(desk.root / "copy.jpg", b"unrelated")


def delete_keeper(desk: Desk) -> None:
    (desk.root / "keep.jpg").unlink()


@pytest.mark.parametrize(
    "moment", ["merge intended", "merge prepared", "merge moved", "merge done"]
)
@pytest.mark.parametrize("race", [delete_sidecar, edit_sidecar, swap_folder, delete_keeper])
def test_race_loses_no_bytes(
    desk: Desk, sidecar: Path, race: Callable[[Desk], None], moment: str
) -> None:
    plan = make_plan(desk, sidecar)
    folders = [desk.root, desk.root.parent / "elsewhere"]
    during = set[bytes]()

    def happen() -> None:
        race(desk)
        during.update(read_contents(*folders))

    with at_failpoint(moment, happen):
        desk.apply(plan)
    written = {content for content in during if b'xmptk="neardup"' in content or b"boat" in content}
    after = read_contents(*folders)
    assert during - written <= after
    assert {b"one", b"two", b"three"} <= after
    desk.undo()
    assert (during - written) | {b"one"} <= read_contents(*folders)


@pytest.mark.parametrize("moment", ["merge intended", "merge prepared"])
def test_sidecar_that_is_written_in_this_moment_stays_as_it_is(
    desk: Desk, sidecar: Path, moment: str
) -> None:
    plan, is_new = make_plan(desk, sidecar), not sidecar.exists()
    with at_failpoint(moment, lambda: edit_sidecar(desk)):
        outcomes = desk.apply(plan)
    assert get_statuses(outcomes)["copy.jpg"] is Status.LEFT
    reason = "came in this moment" if is_new else "has other bytes than the plan says"
    assert outcomes[0].detail.endswith(f"keep.jpg.xmp' {reason}")
    assert read_fields(sidecar) == {"caption": ("edited",)}
    assert not (desk.root / ".neardup-quarantine" / name_run(plan) / "keep.jpg.xmp").exists()


def test_merge_whose_folder_is_swapped_is_reversed_in_it(desk: Desk, sidecar: Path) -> None:
    """The folder that was opened has another path by now."""
    plan, before = make_plan(desk, sidecar), read_tree(desk.root)
    elsewhere = desk.root.with_name("elsewhere")

    def swap() -> None:
        desk.root.rename(elsewhere)
        desk.root.mkdir()

    with at_failpoint("merge moved", swap):
        outcomes = desk.apply(plan)
    assert "folder" in outcomes[0].detail
    assert get_statuses(outcomes)["copy.jpg"] is Status.LEFT
    kept = read_tree(elsewhere)
    assert {name: kept.get(name) for name in before} == before


def test_sidecar_that_is_edited_while_it_is_taken_away_gets_its_place_again(
    desk: Desk, sidecar: Path
) -> None:
    """A program that had it open writes to it where it lies for a moment."""
    plan = make_plan(desk, sidecar)
    desk.apply(plan)
    taken = desk.root / ".neardup-quarantine" / name_run(plan) / "keep.jpg.xmp"
    with at_failpoint("merge taken", lambda: edit(taken)):
        outcome = get_outcome(desk.undo(), sidecar)
    assert (outcome.status, "was edited since" in outcome.detail) == (Status.LEFT, True)
    assert read_fields(sidecar) == {"caption": ("edited",)}


def test_scratch_name_of_a_new_sidecar_is_removed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without renameat2, a kill comes before the last of the three names is removed."""
    plan, before = make_plan(desk, desk.root / "keep.jpg.xmp"), read_tree(desk.root)
    monkeypatch.setattr(rename, "_renameat2", None)
    with killed_at_scratch_name():
        desk.apply(plan)
    assert (desk.root / "keep.jpg.xmp").stat().st_nlink == 2
    desk.undo()
    assert read_tree(desk.root) == before


def test_sidecar_that_is_edited_once_it_is_written_keeps_the_edit_and_the_copies(
    desk: Desk, sidecar: Path
) -> None:
    is_new = not sidecar.exists()
    with at_failpoint("merge moved", lambda: edit_sidecar(desk)):
        outcomes = desk.apply(make_plan(desk, sidecar))
    assert get_statuses(outcomes)["copy.jpg"] is Status.LEFT
    assert "by another program in this moment" in outcomes[0].detail
    assert is_new or "the one of before lies at" in outcomes[0].detail
    desk.undo()
    assert read_fields(sidecar) == {"caption": ("edited",)}
    assert is_new or OLD_SIDECAR in read_contents(desk.root)


sidecars = st.none() | st.builds(
    make_xmp, st.sampled_from(["", "0", "3"]), st.lists(st.text("ab<&é", min_size=1), max_size=2)
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_merges_killed_anywhere_are_undone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The tree is equal to the byte, with modes and times; what was merged is merged once."""
    desk = make_desk(tmp_path_factory.mktemp("random"))
    groups, paths = list[tuple[Path, list[Path]]](), list[Path]()
    for number in range(data.draw(st.integers(1, 2), "groups")):
        files = [save(desk.root / f"{number}/{name}.jpg", bytes([number])) for name in "abc"]
        groups.append((files[0], files[1:]))
        paths.append(desk.root / f"{number}/a.{data.draw(st.sampled_from(['', 'jpg.']))}xmp")
        if (content := data.draw(sidecars, "sidecar")) is not None:
            save(paths[-1], content, data.draw(st.sampled_from([0o600, 0o664])))
    plan = desk.make_plan(groups, data.draw(st.sampled_from([Action.QUARANTINE, Action.HARDLINK])))
    for number, path in enumerate(paths):
        fields = [FieldSource(FieldName.PLACE, "1.0000000,-2.5000000", "x")]
        added = data.draw(st.lists(st.sampled_from(["new", "ä & ö"]), unique=True), "keywords")
        fields += [FieldSource(FieldName.KEYWORD, keyword, "x") for keyword in added]
        plan = add_merge(plan, path, *fields, group=number)
    before, times = read_tree(desk.root), read_folder_times(desk.root)
    failpoints = st.builds("{}:{}".format, st.sampled_from(UNPURGED_FAILPOINTS), st.integers(1, 3))
    is_killed = data.draw(st.booleans(), "kill")
    if is_killed:
        with killed_at(data.draw(failpoints, "kill of apply")):
            desk.apply(plan)
    desk.apply(plan)
    for path in paths:
        assert read_fields(path)["place"] == ("1.0000000,-2.5000000",)
    once = read_tree(desk.root)
    assert {outcome.detail for outcome in desk.apply(plan)} == {"done before"}
    assert read_tree(desk.root) == once
    if is_killed:
        with killed_at(data.draw(failpoints, "kill of undo")):
            desk.undo()
    desk.undo()
    assert read_tree(desk.root) == before
    assert is_killed or read_folder_times(desk.root) == times


def test_merge_of_another_store_is_not_believed(desk: Desk, tmp_path: Path) -> None:
    """A root that was removed since is none: nothing is written below it."""
    plan = make_plan(desk, desk.root / "keep.jpg.xmp")
    desk.apply(plan)
    merged = (desk.root / "keep.jpg.xmp").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(PlanRefused):
        list(apply_plan(plan, desk.store, [str(tmp_path / "elsewhere")]))
    assert (desk.root / "keep.jpg.xmp").read_bytes() == merged
