"""Plans and journals that were edited, damaged, made elsewhere, or written to do harm."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.actions.checked_json import add_checksum
from pipeline.actions.folders import Refused, opened_folder
from pipeline.actions.outcome import Status
from pipeline.actions.plan import Action, Part, Plan
from pipeline.actions.plan_file import read_plan, serialize_plan, write_plan
from pipeline.actions.protection import change_protection
from pipeline.errors import ActionRecordDamaged, OutputNotWritable, PlanRefused, RunNotFound
from pipeline.report.actions import format_outcomes
from pipeline.verify.relation import Relation
from tests.actions.conftest import make_plan
from tests.actions.test_merges import OLD_SIDECAR
from tests.actions.test_merges import make_plan as make_merge_plan
from tests.support.actions import Desk, killed_at, make_part, read_tree, save


def change_victim(plan: Plan, **changes: Any) -> Plan:
    """Change the file of the first victim of a plan."""
    group = plan.groups[0]
    victim = group.victims[0]
    part = replace(victim.parts[0], **changes)
    victims = (replace(victim, parts=(part,)), *group.victims[1:])
    return replace(plan, groups=(replace(group, victims=victims), *plan.groups[1:]))


def test_plan_is_read_as_it_was_written(desk: Desk, tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    save(desk.root / name, b"one")
    plan = desk.make_plan([(desk.root / "keep.jpg", [desk.root / name])])
    path = tmp_path / "plan.json"
    write_plan(plan, path)
    assert read_plan(path) == plan
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OutputNotWritable, match="never changed"):
        write_plan(plan, path)


def test_edited_plan_is_refused(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(make_plan(desk), path)
    text = path.read_text()
    for old, new in (("copy.jpg", "keep.jpg"), ('"quarantine"', '"trash"'), ("copy 2", "other")):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(PlanRefused, match="was edited or damaged"):
            read_plan(path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b"null", b"[" * 100_000, b'{"schema_version": 1}']
)
def test_file_that_is_no_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanRefused):
        read_plan(path)
    with pytest.raises(PlanRefused, match="cannot be read"):
        read_plan(tmp_path / "nothing.json")


def test_plan_with_unknown_fields_or_types_is_refused(desk: Desk, tmp_path: Path) -> None:
    document = serialize_plan(make_plan(desk))
    changes: list[dict[str, Any]] = [
        {"action": "delete"},
        {"groups": [{}]},
        {"groups": 3},
        {"relations": ["unknown"]},
        {"left": [{"path": "/a", "reason": "b"}]},
    ]
    for number, change in enumerate(changes):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(add_checksum({**document, **change})))
        with pytest.raises(PlanRefused):
            read_plan(path)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname",
        "{root}/../outside.jpg",
        "{root}/./copy.jpg",
        "{root}//copy.jpg",
        "{root}/copy\0.jpg",
        "copy.jpg",
        "",
        "{root}",
        "{root}x/copy.jpg",
    ],
)
def test_path_outside_the_roots_is_refused(desk: Desk, path: str) -> None:
    plan = change_victim(make_plan(desk), path=path.format(root=desk.root))
    before = read_tree(desk.root)
    with pytest.raises(PlanRefused, match="below none of"):
        desk.apply(plan)
    assert read_tree(desk.root) == before


def test_plan_of_another_store_is_refused(desk: Desk) -> None:
    plan = replace(make_plan(desk), store_id="0" * 32)
    with pytest.raises(PlanRefused, match="another store"):
        desk.apply(plan)


def test_plan_that_would_take_the_last_file_is_refused(desk: Desk) -> None:
    root = desk.root
    pair, back = (root / "keep.jpg", [root / "copy.jpg"]), (root / "copy.jpg", [root / "keep.jpg"])
    for groups, words in (
        ([pair, back], "keeps .* and would move it"),
        ([pair, pair], "twice"),
        ([(root / "keep.jpg", [root / "keep.jpg"])], "keeps .* and would move it"),
    ):
        with pytest.raises(PlanRefused, match=words):
            desk.apply(desk.make_plan(groups))
    (root / "link.jpg").hardlink_to(root / "keep.jpg")
    with pytest.raises(PlanRefused, match="hard link of a keeper"):
        desk.apply(desk.make_plan([(root / "keep.jpg", [root / "link.jpg"])]))


def test_hard_link_that_the_plan_does_not_tell_is_left(desk: Desk) -> None:
    """The plan has another inode for it, so its stat is compared first."""
    link = desk.root / "link.jpg"
    link.hardlink_to(desk.root / "keep.jpg")
    plan = desk.make_plan([(desk.root / "keep.jpg", [link])])
    stat = replace(make_part(link).stat, device=1)
    (outcome,) = desk.apply(change_victim(plan, stat=stat))
    assert outcome.status is Status.LEFT
    assert "hard link of its keeper" in outcome.detail
    assert link.exists()


def test_victim_with_other_bytes_is_no_identical_one(desk: Desk) -> None:
    plan = desk.make_plan([(desk.root / "keep.jpg", [desk.root / "other.jpg"])])
    with pytest.raises(PlanRefused, match="and it has others"):
        desk.apply(plan)
    group = plan.groups[0]
    victim = replace(group.victims[0], relation=Relation.SAME_PICTURE)
    plan = replace(plan, action=Action.SYMLINK, groups=(replace(group, victims=(victim,)),))
    with pytest.raises(PlanRefused, match="only identical bytes can be replaced"):
        desk.apply(plan)


def test_plan_that_is_older_than_a_protection_is_refused(desk: Desk) -> None:
    plan = make_plan(desk)
    change_protection(desk.store, (str(desk.root / "a"),), ())
    with pytest.raises(PlanRefused, match="protected since"):
        desk.apply(plan)
    change_protection(desk.store, (), (str(desk.root / "a"),))
    assert {outcome.status for outcome in desk.apply(plan)} == {Status.DONE}


def test_report_is_not_applied(desk: Desk) -> None:
    with pytest.raises(PlanRefused, match="is a report"):
        desk.apply(make_plan(desk, Action.REPORT))


def test_folder_that_became_a_link_is_refused(desk: Desk, tmp_path: Path) -> None:
    plan = make_plan(desk)
    (desk.root / "a").rename(tmp_path / "a")
    (desk.root / "a").symlink_to(tmp_path / "a")
    before = read_tree(tmp_path / "a")
    outcomes = desk.apply(plan)
    assert [outcome.status for outcome in outcomes] == [Status.DONE, Status.LEFT, Status.LEFT]
    assert "is a symbolic link" in outcomes[1].detail
    assert read_tree(tmp_path / "a") == before


def test_no_step_of_a_folder_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    with opened_folder(str(tmp_path / "real" / "inner")) as folder:
        assert os.fstat(folder).st_ino == (tmp_path / "real" / "inner").stat().st_ino
    for path in ("link/inner", "link", "file", "file/inner", "real/none", "real/../real", "a\0b"):
        with pytest.raises(Refused), opened_folder(f"{tmp_path}/{path}"):
            pass


def test_names_of_any_bytes_are_moved_and_printed_safely(desk: Desk) -> None:
    names = [b"caf\xe9.jpg", b"new\nline \x1b[31m.jpg", b"-rf.jpg", b"$(x) 'y'.jpg", b" ", b"\\"]
    copies = [save(desk.root / name.decode("utf-8", "surrogateescape"), b"one") for name in names]
    before = read_tree(desk.root)
    outcomes = desk.apply(desk.make_plan([(desk.root / "keep.jpg", copies)]))
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    for line in format_outcomes([*outcomes, *desk.undo()], "done", ""):
        assert all(character.isprintable() for character in line)
    assert read_tree(desk.root) == before


def test_victim_that_became_a_link_or_a_pipe_is_left(desk: Desk) -> None:
    plan = make_plan(desk)
    (desk.root / "copy.jpg").unlink()
    (desk.root / "copy.jpg").symlink_to("other.jpg")
    (desk.root / "a" / "worse.jpg").unlink()
    os.mkfifo(desk.root / "a" / "worse.jpg")
    outcomes = {Path(outcome.path).name: outcome for outcome in desk.apply(plan)}
    assert "is a symbolic link now" in outcomes["copy.jpg"].detail
    assert "is not a regular file" in outcomes["worse.jpg"].detail
    assert outcomes["copy 2.jpg"].status is Status.DONE


def test_damaged_journal_is_named_and_nothing_is_done(desk: Desk) -> None:
    plan = make_plan(desk)
    desk.apply(plan)
    (path,) = (desk.store / "journal").iterdir()
    sound, before = path.read_bytes(), read_tree(desk.root)
    lines = sound.splitlines(keepends=True)
    for damaged in (
        sound.replace(b"copy.jpg", b"keep.jpg"),
        b"".join(lines[1:]),
        b"".join([lines[0], *lines[2:]]),
        b"".join([*lines[:2], *lines[3:]]),
        b"\0" + sound,
    ):
        path.write_bytes(damaged)
        with pytest.raises(ActionRecordDamaged, match="damaged"):
            desk.undo()
        with pytest.raises(ActionRecordDamaged, match="damaged"):
            desk.apply(plan)
    assert read_tree(desk.root) == before


@pytest.mark.parametrize(
    ("victim_path", "base", "target"),
    [
        ("{root}/stolen", "{top}", "{top}/secret"),
        ("{root}/stolen", "{root}", "{root}/other.jpg"),
        ("{root}/stolen", "{root}", "{root}/../secret"),
        ("{root}/stolen", "{root}", "{root}/.neardup-quarantine/another run/stolen"),
        ("{root}/stolen", "{top}", "{top}/.neardup-quarantine/{run}/photos/stolen"),
        ("{top}/written", None, None),
        ("{root}/../written", None, None),
    ],
)
def test_journal_that_names_other_places_moves_nothing(
    desk: Desk, victim_path: str, base: str | None, target: str | None
) -> None:
    """Its checksums are right: whoever can write to the store's folder can make them."""
    top, root = desk.root.parent, desk.root
    save(top / "secret", b"secret")
    save(root / ".neardup-quarantine" / "another run" / "stolen", b"of another run")
    desk.apply(make_plan(desk))
    (path,) = (desk.store / "journal").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["victim"]["path"] = victim_path.format(root=root, top=top)
    if base and target:
        names = {"root": root, "top": top, "run": path.stem}
        lines[1] |= {"base": base.format(**names), "target": target.format(**names)}
        save(top / ".neardup-quarantine" / path.stem / "photos" / "stolen", b"outside the root")
    path.write_text("".join(json.dumps(add_checksum(line)) + "\n" for line in lines[:2]))
    before = read_tree(root), (top / "secret").read_bytes()
    (outcome,) = desk.undo()
    assert outcome.status is Status.LEFT
    assert (read_tree(root), (top / "secret").read_bytes()) == before
    assert not (top / "written").exists()


def test_number_of_victims_in_a_journal_costs_no_time(desk: Desk) -> None:
    with killed_at("merge done"):
        desk.apply(make_merge_plan(desk, save(desk.root / "keep.jpg.xmp", OLD_SIDECAR)))
    (path,) = (desk.store / "journal").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["victim_count"] = 2**70
    path.write_text("".join(json.dumps(add_checksum(line)) + "\n" for line in lines))
    desk.apply(desk.make_plan([]))
    assert (desk.root / "keep.jpg.xmp").read_bytes() == OLD_SIDECAR


def test_run_that_does_not_exist_is_named(desk: Desk) -> None:
    for run in ("last", "20260131-1", "../../etc/passwd"):
        with pytest.raises(RunNotFound):
            desk.undo(run)


def test_damaged_list_of_protected_folders_is_not_taken_for_an_empty_one(desk: Desk) -> None:
    change_protection(desk.store, (str(desk.root / "a"),), ())
    path = desk.store / "actions.json"
    path.write_bytes(path.read_bytes().replace(b"photos", b"phptos"))
    with pytest.raises(ActionRecordDamaged, match="protected folders"):
        change_protection(desk.store, (), ())


def test_part_of_a_plan_has_the_hash_of_its_bytes(desk: Desk) -> None:
    """A victim with the size, times and inode of the plan, and other bytes, is moved back."""
    plan = change_victim(make_plan(desk), blake3="0" * 64)
    group = plan.groups[0]
    victim = replace(group.victims[0], relation=Relation.DERIVED, confidence=0.99)
    plan = replace(plan, groups=(replace(group, victims=(victim,)),))
    before = read_tree(desk.root)
    (outcome,) = desk.apply(plan)
    assert outcome.status is Status.LEFT
    assert "has other bytes than the plan says" in outcome.detail
    assert read_tree(desk.root) == before
    assert group.keeper is not None
    kept = Part(group.keeper.parts[0].path, group.keeper.parts[0].stat, "0" * 64)
    keeper = replace(group.keeper, parts=(kept,))
    (outcome,) = desk.apply(replace(plan, groups=(replace(plan.groups[0], keeper=keeper),)))
    assert "the keeper" in outcome.detail
    assert read_tree(desk.root) == before
