"""Plans of real photos, from the command line."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.actions.plan import TRASH_WARNING
from pipeline.cli.console import EXIT_SKIPPED
from tests.support.actions import read_tree
from tests.support.cli import Run
from tests.support.images import draw_scene, save_image

PLAN_REFUSED = 14


@pytest.fixture
def library(run: Run, tmp_path: Path) -> Path:
    """Three copies of one file, a smaller version of it, and two equal files of another."""
    folder = tmp_path / "photos"
    save_image(folder / "a.png", draw_scene(1, (480, 360)))
    for name in ("a copy.png", "sub/a.png"):
        (folder / "sub").mkdir(exist_ok=True)
        shutil.copy2(folder / "a.png", folder / name)
    save_image(folder / "small.jpg", draw_scene(1, (480, 360)).resize((360, 270)), quality=85)
    shutil.copy2(folder / "small.jpg", folder / "sub" / "small.jpg")
    save_image(folder / "b.jpg", draw_scene(2))
    assert run("ingest", folder)[0] == 0
    return folder


def make_plan(run: Run, *words: str | Path) -> Any:  # noqa: ANN401 - JSON
    code, out, err = run("plan", "--json", *words)
    assert code == 0, err
    return json.loads(out)["plan"]


def list_victims(plan: Any, folder: Path) -> dict[str, tuple[str, str]]:  # noqa: ANN401 - JSON
    """List the victims of a plan, each with its relation and its keeper."""
    return {
        os.path.relpath(part["path"], folder): (
            victim["relation"],
            os.path.relpath(group["keeper"]["parts"][0]["path"], folder),
        )
        for group in plan["groups"]
        for victim in group["victims"]
        for part in victim["parts"]
    }


def get_reasons(plan: Any, folder: Path) -> dict[str, str]:  # noqa: ANN401 - JSON
    return {os.path.relpath(left["path"], folder): left["reason"] for left in plan["left"]}


def test_plan_acts_on_identical_bytes_unless_asked(run: Run, library: Path) -> None:
    """Equal files that are no exact copies of the keeper have one among themselves."""
    plan = make_plan(run)
    assert list_victims(plan, library) == {
        "a copy.png": ("identical bytes", "a.png"),
        "sub/a.png": ("identical bytes", "a.png"),
        "sub/small.jpg": ("identical bytes", "small.jpg"),
    }
    sizes = [(library / name).stat().st_size for name in ("a.png", "a.png", "small.jpg")]
    assert plan["bytes_to_free"] == sum(sizes)
    assert plan["groups"][0]["victims"][0]["decided_by"] == "neardup"
    assert make_plan(run, library / "sub")["groups"] == []


def test_wider_relations_need_a_confidence(run: Run, library: Path) -> None:
    code, _, err = run("plan", "--relations", "identical,same")
    assert (code, "--min-confidence" in err) == (PLAN_REFUSED, True)
    plan = make_plan(run, "--relations", "identical,same,derived", "--min-confidence", "0.5")
    assert list_victims(plan, library)["small.jpg"][1] == "a.png"
    confidences = [victim["confidence"] for victim in plan["groups"][0]["victims"]]
    assert confidences.count(None) == 2
    assert all(value >= 0.5 for value in confidences if value is not None)
    plan = make_plan(run, "--relations", "identical,same,derived", "--min-confidence", "1")
    assert list_victims(plan, library) == list_victims(make_plan(run), library)
    narrow = make_plan(run, "--relations", "same", "--min-confidence", "1")
    assert "the probability of a copy is" in get_reasons(narrow, library)["small.jpg"]


def test_choices_that_no_plan_can_follow_are_refused(run: Run, library: Path) -> None:
    for words in (
        ["--relations", "similar"],
        ["--relations", "scene", "--min-confidence", "0.9"],
        ["--action", "move"],
        ["--to", "."],
        ["--action", "hardlink", "--relations", "identical"],
        ["--action", "move", "--to", "/nothing/there"],
    ):
        assert run("plan", *words)[0] == PLAN_REFUSED, words


def test_outputs_that_nobody_means_are_refused(run: Run, library: Path, tmp_path: Path) -> None:
    assert run("plan", "--action", "move", "--to", "")[0] == PLAN_REFUSED
    for option in ("--output", "--html"):
        for name in ("", "-"):
            code, _, err = run("plan", option, name)
            assert (code, "is no file" in err) == (2, True), (option, name)
    page = tmp_path / "one"
    assert run("plan", "--output", page, "--html", page)[0] == 2
    page.write_text("mine")
    for option in ("--output", "--html"):
        code, _, err = run("plan", option, page, "--protect", library)
        assert (code != 0, "exists" in err) == (True, True)
    assert page.read_text() == "mine"
    assert make_plan(run)["protected"] == []


def test_moving_to_a_folder_of_the_library_gives_a_warning(
    run: Run, library: Path, tmp_path: Path
) -> None:
    for folder, is_known in ((library / "sub", True), (library, True), (tmp_path, False)):
        (*warnings,) = make_plan(run, "--action", "move", "--to", folder)["warnings"]
        assert ["the next `neardup ingest` finds" in warning for warning in warnings] == (
            [True] if is_known else []
        )


def test_protected_folders_are_remembered_and_hold_the_keeper(run: Run, library: Path) -> None:
    plan = make_plan(run, "--protect", library / "sub")
    assert list_victims(plan, library) == {
        "a.png": ("identical bytes", "sub/a.png"),
        "a copy.png": ("identical bytes", "sub/a.png"),
        "small.jpg": ("identical bytes", "sub/small.jpg"),
    }
    assert make_plan(run)["protected"] == [str(library / "sub")]
    assert len(list_victims(make_plan(run, "--unprotect", library / "sub"), library)) == 3
    everything = make_plan(run, "--protect", library)
    assert everything["groups"] == []
    assert get_reasons(everything, library)["sub/a.png"] == "in a protected folder"
    code, _, err = run("plan", "--protect", library / "sbu")
    assert (code, "does not exist" in err) == (2, True)


def test_reference_folders_hold_the_keeper(run: Run, library: Path) -> None:
    plan = make_plan(run, "--reference", library / "sub")
    assert {keeper for _, keeper in list_victims(plan, library).values()} <= {
        "sub/a.png",
        "sub/small.jpg",
    }
    assert not any(name.startswith("sub/") for name in list_victims(plan, library))
    assert "sub/a.png" not in list_victims(make_plan(run, "--reference", library), library)


def test_plan_says_why_it_leaves_files(run: Run, library: Path) -> None:
    (library / "link.png").hardlink_to(library / "a.png")
    (library / "symlink.png").symlink_to(library / "sub" / "a.png")
    run("ingest")
    (library / "a copy.png").write_bytes(b"edited")
    (library / "sub" / "small.jpg").unlink()
    reasons = get_reasons(make_plan(run), library)
    assert reasons["link.png"].startswith("another path of a file")
    assert reasons["symlink.png"].startswith("another path of a file")
    assert reasons["a copy.png"].startswith("changed since the last ingest")
    assert reasons["sub/small.jpg"].startswith("missing")


def test_copy_that_may_be_better_than_its_keeper_stays(run: Run, tmp_path: Path) -> None:
    """The keeper is the older file, although it is compressed more."""
    folder = tmp_path / "photos"
    for name, quality, time in (("old.jpg", 60, 1_500_000_000), ("new.jpg", 92, 1_600_000_000)):
        path = save_image(folder / name, draw_scene(1, (480, 360)), quality=quality)
        os.utime(path, (time, time))
    run("ingest", folder)
    wide = ("--relations", "identical,same", "--min-confidence", "0.5")
    plan = make_plan(run, *wide)
    assert plan["groups"] == []
    assert "may be the better one" in get_reasons(plan, folder)["new.jpg"]
    run("decide", "keep", folder / "new.jpg")
    assert list_victims(make_plan(run, *wide), folder) == {"old.jpg": ("same picture", "new.jpg")}
    run("decide", "keep", folder / "old.jpg")  # the keeper now, but both are kept
    plan = make_plan(run, *wide)
    assert plan["groups"] == []
    assert get_reasons(plan, folder)["new.jpg"] == "decided to be kept"


@pytest.fixture
def assets(run: Run, tmp_path: Path) -> Path:
    """Two folders with a photo, its film and its sidecar, equal in both."""
    folder = tmp_path / "photos"
    save_image(folder / "a" / "IMG_1.jpg", draw_scene(1, (480, 360)))
    (folder / "a" / "IMG_1.mov").write_bytes(b"a film of the photo")
    (folder / "a" / "IMG_1.xmp").write_bytes(b"<x:xmpmeta>5 stars</x:xmpmeta>")
    shutil.copytree(folder / "a", folder / "b")
    assert run("ingest", folder)[0] == 0
    return folder


def test_photo_goes_with_all_that_belongs_to_it_and_comes_back(
    run: Run, assets: Path, tmp_path: Path
) -> None:
    names = [f"IMG_1.{suffix}" for suffix in ("jpg", "mov", "xmp")]
    file = tmp_path / "plan.json"
    plan = json.loads(run("plan", "--output", file, "--json")[1])["plan"]
    assert sorted(list_victims(plan, assets)) == [f"b/{name}" for name in names]
    ((victim,),) = (group["victims"] for group in plan["groups"])
    assert len(victim["parts"]) == 3
    assert run("apply", file, "--yes", "--confirm", "3")[0] == 0
    assert not (assets / "b" / "IMG_1.jpg").exists()
    assert not any((assets / "b" / name).exists() for name in names)
    assert all((assets / "a" / name).exists() for name in names)
    assert run("undo", "last")[0] == 0
    assert all((assets / "b" / name).exists() for name in names)


@pytest.mark.parametrize("name", ["IMG_1.mov", "IMG_1.xmp"])
def test_photo_stays_with_what_has_no_copy_beside_the_keeper(
    run: Run, assets: Path, name: str
) -> None:
    """The size of both is equal: only their bytes tell."""
    part = assets / "b" / name
    part.write_bytes(part.read_bytes()[::-1])
    run("ingest")
    plan = make_plan(run)
    assert plan["groups"] == []
    (reason,) = get_reasons(plan, assets).values()
    assert reason.endswith(f"{name}' has no copy beside the keeper")


def test_photo_whose_sidecar_is_a_hard_link_of_the_keepers_stays(
    run: Run, assets: Path, tmp_path: Path
) -> None:
    """Programs that link equal files leave it so; apply would refuse such a plan."""
    sidecar = assets / "b" / "IMG_1.xmp"
    sidecar.unlink()
    sidecar.hardlink_to(assets / "a" / "IMG_1.xmp")
    run("ingest")
    plan = make_plan(run)
    assert plan["groups"] == []
    (reason,) = get_reasons(plan, assets).values()
    assert reason == f"'{sidecar}' is a hard link of a file of the keeper"


def test_sidecars_of_two_groups_may_be_hard_links(run: Run, assets: Path, tmp_path: Path) -> None:
    """The victim of the second group has a copy beside its own keeper."""
    for folder in ("a", "b"):
        save_image(assets / folder / "IMG_2.jpg", draw_scene(2, (480, 360)))
    (assets / "a" / "IMG_2.xmp").write_bytes((assets / "a" / "IMG_1.xmp").read_bytes())
    (assets / "b" / "IMG_2.xmp").hardlink_to(assets / "a" / "IMG_1.xmp")
    run("ingest")
    file = tmp_path / "plan.json"
    plan = json.loads(run("plan", "--output", file, "--json")[1])["plan"]
    assert "b/IMG_2.xmp" in list_victims(plan, assets)
    before = read_tree(assets)
    assert run("apply", file, "--yes", "--confirm", "5")[0] == 0
    assert run("undo", "last")[0] == 0
    assert read_tree(assets) == before


@pytest.fixture
def shared_sidecar(run: Run, tmp_path: Path) -> Path:
    """Two folders with two photos of one name and the sidecar of both, equal in both folders."""
    folder = tmp_path / "photos"
    save_image(folder / "a" / "IMG_1.jpg", draw_scene(1, (480, 360)))
    save_image(folder / "a" / "IMG_1.png", draw_scene(2, (480, 360)))
    (folder / "a" / "IMG_1.xmp").write_bytes(b"<x:xmpmeta>5 stars</x:xmpmeta>")
    shutil.copytree(folder / "a", folder / "b")
    assert run("ingest", folder)[0] == 0
    return folder


def test_sidecar_of_two_photos_goes_with_the_last_and_comes_back(
    run: Run, shared_sidecar: Path, tmp_path: Path
) -> None:
    file, before = tmp_path / "plan.json", read_tree(shared_sidecar)
    plan = make_plan(run, "--output", file)
    names = ["b/IMG_1.jpg", "b/IMG_1.png", "b/IMG_1.xmp"]
    assert list(list_victims(plan, shared_sidecar)) == names
    assert get_reasons(plan, shared_sidecar) == {}
    code, out, _ = run("apply", file)
    assert (code, "3 files to act on" in out) == (0, True)
    assert run("apply", file, "--yes")[0] == 0
    assert not any((shared_sidecar / name).exists() for name in names)
    assert run("undo", "last")[0] == 0
    assert read_tree(shared_sidecar) == before


def test_sidecar_of_two_photos_stays_while_one_of_them_does(
    run: Run, shared_sidecar: Path, tmp_path: Path
) -> None:
    """Also where the other one was to go, and could not."""
    file = tmp_path / "plan.json"
    run("plan", "--output", file)
    (shared_sidecar / "b" / "IMG_1.jpg").touch()
    code, out, _ = run("apply", file, "--yes")
    assert (code, "shares a sidecar with it" in out) == (EXIT_SKIPPED, True)
    assert (shared_sidecar / "b" / "IMG_1.xmp").exists()
    plan = make_plan(run)  # the one that was touched has to be ingested first
    assert list(list_victims(plan, shared_sidecar)) == ["b/IMG_1.png"]
    reason = get_reasons(plan, shared_sidecar)["b/IMG_1.xmp"]
    assert reason == f"belongs to '{shared_sidecar / 'b' / 'IMG_1.jpg'}', too, which stays"


def test_sidecar_of_two_photos_without_a_copy_beside_the_keeper_stays(
    run: Run, shared_sidecar: Path
) -> None:
    sidecar = shared_sidecar / "b" / "IMG_1.xmp"
    sidecar.write_bytes(sidecar.read_bytes()[::-1])
    run("ingest")
    plan = make_plan(run)
    assert list(list_victims(plan, shared_sidecar)) == ["b/IMG_1.jpg", "b/IMG_1.png"]
    reasons = get_reasons(plan, shared_sidecar)
    assert reasons == {"b/IMG_1.xmp": "has no copy beside the keeper"}


def test_sidecar_of_two_photos_that_is_a_hard_link_of_the_keepers_stays(
    run: Run, shared_sidecar: Path, tmp_path: Path
) -> None:
    sidecar, file = shared_sidecar / "b" / "IMG_1.xmp", tmp_path / "plan.json"
    sidecar.unlink()
    sidecar.hardlink_to(shared_sidecar / "a" / "IMG_1.xmp")
    run("ingest")
    plan = make_plan(run, "--output", file)
    assert list(list_victims(plan, shared_sidecar)) == ["b/IMG_1.jpg", "b/IMG_1.png"]
    assert "hard link of a file of the keeper" in get_reasons(plan, shared_sidecar)["b/IMG_1.xmp"]
    assert run("apply", file, "--yes")[0] == 0


def test_photo_with_a_sidecar_is_not_replaced_by_a_link(run: Run, assets: Path) -> None:
    plan = make_plan(run, "--action", "hardlink")
    assert plan["groups"] == []
    assert "not replaced by a link" in get_reasons(plan, assets)["b/IMG_1.jpg"]


def test_bytes_of_hard_links_count_once_and_only_if_all_go(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    save_image(folder / "a.png", draw_scene(1))
    shutil.copy2(folder / "a.png", folder / "longer name.png")
    (folder / "longer name 2.png").hardlink_to(folder / "longer name.png")
    run("ingest", folder)
    plan = make_plan(run)
    assert set(list_victims(plan, folder)) == {"longer name.png"}
    assert plan["bytes_to_free"] == 0


def test_folder_of_another_catalog_gives_a_warning(run: Run, library: Path) -> None:
    for name, program in (
        ("Catalog.lrcat", "Lightroom"),
        ("digikam4.db", "digiKam"),
        (".immich", "Immich"),
        (".ppstorage", "PhotoPrism"),
    ):
        (library / name).write_bytes(b"")
        (warning,) = make_plan(run)["warnings"]
        assert warning.startswith(f"'{library}': {program}")
        assert warning in run("plan")[2]
        (library / name).unlink()


def test_plan_from_an_earlier_answer_acts_on_what_still_holds(
    run: Run, library: Path, tmp_path: Path
) -> None:
    earlier = tmp_path / "groups.json"
    earlier.write_text(run("groups", "--json")[1])
    (library / "a third.png").write_bytes((library / "a.png").read_bytes())
    run("ingest")
    assert "a third.png" in list_victims(make_plan(run), library)
    plan = make_plan(run, "--from", earlier)
    assert set(list_victims(plan, library)) == {"a copy.png", "sub/a.png", "sub/small.jpg"}
    save_image(library / "a copy.png", draw_scene(1, (480, 360)).rotate(180))
    run("ingest")
    plan = make_plan(run, "--from", earlier)
    assert set(list_victims(plan, library)) == {"sub/a.png", "sub/small.jpg"}
    assert get_reasons(plan, library)["a copy.png"].startswith("not the member")
    save_image(library / "a.png", draw_scene(5))
    run("ingest")
    plan = make_plan(run, "--from", earlier)
    assert plan["groups"] == []
    assert get_reasons(plan, library)["sub/a.png"].startswith("its keeper is not that")


@pytest.mark.parametrize("relations", ["identical", "identical,same,derived,scene,similar"])
def test_plan_from_an_answer_with_other_relations_has_its_groups(
    run: Run, library: Path, tmp_path: Path, relations: str
) -> None:
    earlier = tmp_path / "groups.json"
    answer = run("groups", "--json", "--relations", relations)[1]
    earlier.write_text(answer)
    plan = make_plan(run, "--from", earlier)
    assert list_victims(plan, library) == list_victims(make_plan(run), library)
    keepers = {group["keeper"]["path"] for group in json.loads(answer)["groups"]}
    assert (str(library / "small.jpg") in keepers) == (relations == "identical")
    reasons = get_reasons(plan, library)
    assert reasons == {} or reasons == {
        "small.jpg": "same picture: not among the relations asked for"
    }


def test_plan_from_an_answer_of_before_says_whose_copy_its_keeper_is(
    run: Run, library: Path, tmp_path: Path
) -> None:
    earlier = tmp_path / "groups.json"
    answer = json.loads(run("groups", "--json", "--relations", "identical")[1])
    del answer["relations"]
    earlier.write_text(json.dumps(answer))
    reason = get_reasons(make_plan(run, "--from", earlier), library)["sub/small.jpg"]
    assert f"a copy of '{library / 'a.png'}' now" in reason


def test_answer_that_is_none_of_groups_is_refused(run: Run, library: Path, tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    for content in (
        "",
        "[]",
        "{}",
        '{"groups": [{"id": 1}]}',
        '{"groups": [], "relations": ["kin"]}',
        '{"groups": [], "min_score": "high"}',
        '{"groups": [], "min_score": %s}' % ("9" * 400),
        "[" * 100_000,
    ):
        path.write_text(content)
        assert run("plan", "--from", path)[0] == PLAN_REFUSED, content
    assert run("plan", "--from", tmp_path / "nothing.json")[0] == PLAN_REFUSED


def test_page_shows_what_is_planned(run: Run, library: Path, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    assert run("plan", "--html", page)[0] == 0
    text = page.read_text()
    assert "a copy.png" in text
    assert "sub/small.jpg" in text
    assert str(library / "b.jpg") not in text


def test_plan_apply_undo_from_the_command_line(run: Run, library: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    groups = run("groups", "--json")[1]
    code, out, err = run("plan", "--output", path)
    assert code == 0
    assert "3 files to move to quarantine" in out
    assert f"apply {path}" in err
    code, out, err = run("apply", path)
    assert (code, "nothing was done yet" in err) == (0, True)
    assert "3 files to act on" in out
    code, out, err = run("apply", path, "--yes")
    assert code == 0
    assert not (library / "a copy.png").exists()
    assert run("groups", "--json")[1] != groups
    code, _, err = run("ingest")
    assert (code, "missing" in err) == (0, False)  # many vanished at once, and it knows why
    listed = json.loads(run("runs", "--json")[1])["runs"]
    assert [run["counts"] for run in listed] == [{"done": 3}]
    assert listed[0]["run"] in run("runs")[1]
    assert run("purge")[1] == "nothing to do\n"
    assert "3 files to delete" in run("purge", "--older-than", "0d")[1]
    code, out, _ = run("undo", listed[0]["run"])
    assert (code, "3 files moved back" in out) == (0, True)
    run("ingest")
    assert run("groups", "--json")[1] == groups


def test_commands_after_an_undo_say_what_to_do(run: Run, library: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    run("plan", "--output", path)
    run("apply", path, "--yes")
    run("undo", "last")
    for words in ((), ("--yes",)):
        code, out, _ = run("apply", path, *words)
        assert (code, out.count("make a new plan")) == (EXIT_SKIPPED, 3), words
    err = run("plan")[2]
    assert "3 files have come back by `neardup undo` and not been ingested" in err
    run("ingest")
    assert "neardup undo" not in run("plan")[2]


def test_outcomes_of_files_that_are_left_set_the_exit_code(
    run: Run, library: Path, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    run("plan", "--output", path)
    (library / "a copy.png").unlink()
    code, out, _ = run("apply", path)
    assert (code, "not there any more" in out) == (EXIT_SKIPPED, True)
    code, out, _ = run("apply", path, "--yes", "--json")
    assert code == EXIT_SKIPPED
    files = {Path(file["path"]).name: file for file in json.loads(out)["files"]}
    assert files["a copy.png"]["status"] == "left alone"
    assert files["small.jpg"]["status"] == "done"
    (library / "sub" / "small.jpg").write_bytes(b"new")
    code, out, _ = run("undo", "last")
    assert (code, "another file is at" in out) == (EXIT_SKIPPED, True)
    (library / "a.png").unlink()
    code, out, _ = run("purge", "--older-than", "0h", "--yes")
    assert code == 0  # small.jpg is kept, and has its keeper


@pytest.mark.parametrize("age", ["", "30", "d", "-1d", "1.5d", "30 d", "1w"])
def test_age_that_is_none_is_a_usage_error(run: Run, age: str) -> None:
    code, _, err = run("purge", "--older-than", age)
    assert (code, "is no age" in err) == (2, True)


def test_age_without_a_unit_is_told_what_to_type(run: Run) -> None:
    code, _, err = run("purge", "--older-than", "0")
    assert (code, "type 0d for days or 0h for hours" in err) == (2, True)


def test_plan_of_another_store_is_refused_before_its_files_are_counted(
    run: Run, library: Path, tmp_path: Path
) -> None:
    """All but one file of the library go, so that it would ask for --confirm."""
    for number in range(8):
        shutil.copy2(library / "a.png", library / f"{number}.png")
    run("ingest")
    path, other = tmp_path / "plan.json", tmp_path / "other store"
    run("plan", "--output", path)
    assert "--confirm 11" in run("apply", path, "--yes")[2]
    run("ingest", library, "--store", other)
    for words in ((), ("--yes",), ("--yes", "--confirm", "11")):
        code, _, err = run("apply", path, "--store", other, *words)
        assert (code, "made from another store" in err) == (PLAN_REFUSED, True), words


def test_commands_without_a_store_say_so(run: Run, tmp_path: Path) -> None:
    assert run("plan")[0] == run("runs")[0] == run("undo", "last")[0] == run("purge")[0] == 10
    assert run("apply", tmp_path / "nothing.json")[0] == PLAN_REFUSED


def test_trash_needs_its_package(
    run: Run, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    run("plan", "--action", "trash", "--output", path)
    monkeypatch.setitem(sys.modules, "send2trash", None)
    code, _, err = run("apply", path, "--yes")
    assert (code, "neardup[trash]" in err) == (1, True)
    assert (library / "a copy.png").exists()


def test_trash_is_used_and_cannot_be_undone(
    run: Run, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))  # the trash of whoever runs this stays empty
    for name in [name for name in sys.modules if name.startswith("send2trash")]:
        monkeypatch.delitem(sys.modules, name)  # it reads the variable when it is imported
    path = tmp_path / "plan.json"
    _, _, err = run("plan", "--action", "trash", "--output", path)
    assert TRASH_WARNING in err
    code, _, err = run("apply", path, "--yes")
    assert (code, TRASH_WARNING in err, "undo it with" in err) == (0, True, False)
    in_trash = {file.name for file in (tmp_path / "Trash" / "files").iterdir()}
    assert in_trash == {"a copy.png", "a.png", "small.jpg"}
    code, out, _ = run("undo", "last")
    assert (code, "in the trash" in out) == (EXIT_SKIPPED, True)


def test_plan_counts_near_duplicates_that_were_not_asked_for(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in (1, 2):
        scene = draw_scene(number, (480, 360))
        save_image(folder / f"{number}.png", scene)
        save_image(folder / f"{number} small.jpg", scene.resize((360, 270)), quality=85)
    assert run("ingest", folder)[0] == 0
    out = run("plan")[1]
    assert "left  2 near-duplicates of other relations; ask for them with --relations" in out
    assert "small.jpg" not in out
    assert len(get_reasons(make_plan(run), folder)) == 2


def test_plan_without_a_file_that_can_go_is_not_to_be_applied(
    run: Run, library: Path, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    run("plan", "--output", path)
    for name in ("a.png", "small.jpg"):
        (library / name).unlink()
    code, out, err = run("apply", path)
    assert code == EXIT_SKIPPED
    assert out.count(f"its keeper '{library}/a.png' is not there any more") == 2
    assert "nothing can be done; make a new plan with `neardup plan" in err
    assert "apply the plan with" not in err


def test_plan_of_a_drive_that_is_away_is_refused_once(
    run: Run, library: Path, tmp_path: Path
) -> None:
    """Before files are counted, and in one line, not one for each file."""
    path = tmp_path / "plan.json"
    run("plan", "--output", path)
    library.rename(tmp_path / "away")
    for words in ((), ("--yes", "--confirm", "17")):
        code, out, err = run("apply", path, *words)
        assert (code, out) == (PLAN_REFUSED, "")
        assert f"'{library}' is not there; mount its drive" in err
    (tmp_path / "away").rename(library)
    assert run("apply", path)[0] == 0
