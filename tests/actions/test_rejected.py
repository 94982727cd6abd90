"""Rejected photos that are moved away, from the command line: decisions stand in for keepers."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.actions.plan import Action, Keeper, Plan
from pipeline.actions.plan_file import read_plan, write_plan
from pipeline.actions.preview import preview_plan
from pipeline.actions.purge import purge_runs
from pipeline.cli.console import EXIT_SKIPPED
from pipeline.errors import PlanRefused
from tests.support.actions import killed_at, read_tree
from tests.support.cli import Run
from tests.support.images import draw_scene, save_image

PLAN_REFUSED = 14
LIVE_PHOTO = ["IMG_1.jpg", "IMG_1.mov", "IMG_1.xmp"]


@pytest.fixture
def library(run: Run, tmp_path: Path) -> Path:
    """A live photo, a photo twice and re-encoded, one with a part cut out of it, and one alone."""
    folder = tmp_path / "photos"
    save_image(folder / "IMG_1.jpg", draw_scene(1, (480, 360)))
    (folder / "IMG_1.mov").write_bytes(b"a film of the photo")
    (folder / "IMG_1.xmp").write_bytes(b"<x:xmpmeta>1 star</x:xmpmeta>")
    save_image(folder / "a.png", draw_scene(2, (480, 360)))
    save_image(folder / "sub" / "a.jpg", draw_scene(2, (480, 360)), quality=85)
    shutil.copy2(folder / "a.png", folder / "sub" / "a.png")
    save_image(folder / "large.png", draw_scene(3, (480, 360)))
    part = draw_scene(3, (480, 360)).crop((30, 20, 400, 300))
    save_image(folder / "part.jpg", part, quality=90)
    save_image(folder / "other.jpg", draw_scene(4))
    assert run("ingest", folder)[0] == 0
    return folder


def reject(run: Run, *files: Path) -> list[str]:
    """Reject photos as ann; return the ids of the decisions."""
    for file in files:
        assert run("decide", "reject", file, "--author", "ann")[0] == 0
    listed = json.loads(run("decide", "list", "--json")[1])["decisions"]
    return [decision["id"] for decision in listed]


def make_plan(run: Run, *words: str | Path) -> Any:  # noqa: ANN401 - JSON
    code, out, err = run("plan", "--rejected", "--json", *words)
    assert code == 0, err
    return json.loads(out)["plan"]


def list_victims(plan: Any, folder: Path) -> list[str]:  # noqa: ANN401 - JSON
    return [
        os.path.relpath(part["path"], folder)
        for group in plan["groups"]
        for victim in group["victims"]
        for part in victim["parts"]
    ]


def get_reasons(plan: Any, folder: Path) -> dict[str, str]:  # noqa: ANN401 - JSON
    return {os.path.relpath(left["path"], folder): left["reason"] for left in plan["left"]}


def apply(run: Run, plan: Path, *words: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Apply a plan; return the exit code, and the status and detail of each file by its name."""
    return read_outcomes(run("apply", plan, "--json", *words))


def read_outcomes(answer: tuple[int, str, str]) -> tuple[int, dict[str, tuple[str, str]]]:
    code, out, err = answer
    assert out, err
    return code, {
        Path(file["path"]).name: (file["status"], file.get("detail", ""))
        for file in json.loads(out)["files"]
    }


def test_rejected_photo_goes_with_what_belongs_to_it_and_comes_back(
    run: Run, library: Path, tmp_path: Path
) -> None:
    (id_,) = reject(run, library / "IMG_1.jpg")
    before, file = read_tree(library), tmp_path / "plan.json"
    plan = make_plan(run, "--output", file)
    assert list_victims(plan, library) == LIVE_PHOTO
    (group,) = plan["groups"]
    assert (plan["rejected"], group["id"], group["keeper"]) == (True, id_, None)
    assert group["victims"][0]["relation"] == "identical bytes"
    day = json.loads(run("decide", "list", "--json")[1])["decisions"][0]["time"][:10]
    assert group["victims"][0]["decided_by"] == f"ann on {day}"
    assert plan["bytes_to_free"] == sum((library / name).stat().st_size for name in LIVE_PHOTO)
    assert f"rejected by ann on {day} (decision {id_})\n" in run("plan", "--rejected")[1]
    code, outcomes = apply(run, file)
    assert (code, {status for status, _ in outcomes.values()}) == (0, {"planned"})
    assert read_tree(library) == before
    code, outcomes = apply(run, file, "--yes")
    assert (code, sorted(outcomes)) == (0, LIVE_PHOTO)
    assert not any((library / name).exists() for name in LIVE_PHOTO)
    assert run("ingest")[0] == 0
    assert make_plan(run)["groups"] == []
    assert run("undo", "last")[0] == 0
    assert read_tree(library) == before


def test_plan_from_before_an_ingest_is_refused(run: Run, library: Path, tmp_path: Path) -> None:
    """A new photo made the rejected one a keeper: it is all that is left of the whole picture."""
    reject(run, library / "other.jpg")
    file = tmp_path / "plan.json"
    assert list_victims(make_plan(run, "--output", file), library) == ["other.jpg"]
    with Image.open(library / "other.jpg") as photo:
        width, height = photo.size
        part = photo.crop((width // 10, height // 10, width, height))
    save_image(library / "new.jpg", part, quality=90)
    run("ingest")
    for words in ((), ("--yes",)):
        code, _, err = run("apply", file, *words)
        assert (code, "ingested since" in err) == (PLAN_REFUSED, True)
    assert (library / "other.jpg").exists()
    assert "the keeper of" in get_reasons(make_plan(run), library)["other.jpg"]


def test_copies_of_a_rejected_photo_go_but_for_those_that_are_to_stay(
    run: Run, library: Path, tmp_path: Path
) -> None:
    reject(run, library / "a.png")
    copies = ["a.png", "sub/a.jpg", "sub/a.png"]
    plan = make_plan(run)
    assert list_victims(plan, library) == copies
    relations = [victim["relation"] for victim in plan["groups"][0]["victims"]]
    assert relations == ["identical bytes", "same picture", "identical bytes"]
    assert list_victims(make_plan(run, library / "sub"), library) == copies[1:]
    plan = make_plan(run, "--reference", library / "sub")
    assert list_victims(plan, library) == ["a.png"]
    assert set(get_reasons(plan, library).values()) == {"in a reference folder"}
    assert run("decide", "keep", library / "sub" / "a.jpg")[0] == 0
    plan = make_plan(run)
    assert list_victims(plan, library) == ["a.png", "sub/a.png"]
    assert get_reasons(plan, library) == {"sub/a.jpg": "decided to be kept"}
    plan = make_plan(run, "--protect", library / "sub")
    assert list_victims(plan, library) == ["a.png"]
    assert get_reasons(plan, library)["sub/a.png"] == "in a protected folder"


def test_keeper_of_copies_that_are_not_rejected_is_left(run: Run, library: Path) -> None:
    reject(run, library / "large.png")
    plan = make_plan(run)
    assert list_victims(plan, library) == []
    reason = f"the keeper of '{library}/part.jpg', which is not rejected"
    assert get_reasons(plan, library) == {"large.png": reason}
    reject(run, library / "part.jpg")
    assert sorted(list_victims(make_plan(run), library)) == ["large.png", "part.jpg"]


def test_part_of_a_photo_that_stays_is_left(run: Run, library: Path) -> None:
    """A film is no photo, so a second photo of the same stem plays the raw file."""
    shutil.copy2(library / "other.jpg", library / "IMG_1.dng")
    run("ingest")
    plan = make_plan(run)
    assert list_victims(plan, library) == []
    reject(run, library / "other.jpg")
    plan = make_plan(run)
    assert list_victims(plan, library) == ["other.jpg"]
    reason = get_reasons(plan, library)["IMG_1.dng"]
    assert reason == f"belongs to '{library}/IMG_1.jpg', which stays"
    reject(run, library / "IMG_1.jpg")
    assert sorted(list_victims(make_plan(run), library)) == [
        "IMG_1.dng",
        *LIVE_PHOTO,
        "other.jpg",
    ]


def test_changed_file_is_left(run: Run, library: Path, tmp_path: Path) -> None:
    reject(run, library / "IMG_1.jpg", library / "other.jpg")
    file = tmp_path / "plan.json"
    make_plan(run, "--output", file)
    (library / "IMG_1.xmp").write_bytes(b"<x:xmpmeta>5 stars</x:xmpmeta>")
    before = read_tree(library)
    code, outcomes = apply(run, file, "--yes")
    assert code == EXIT_SKIPPED
    assert {name: outcomes[name][0] for name in LIVE_PHOTO} == dict.fromkeys(
        LIVE_PHOTO, "left alone"
    )
    assert outcomes["other.jpg"][0] == "done"
    assert {name: before[name] for name in LIVE_PHOTO} == {
        name: read_tree(library)[name] for name in LIVE_PHOTO
    }
    assert "changed since" in get_reasons(make_plan(run), library)["IMG_1.jpg"]


def test_decision_that_was_forgotten_leaves_the_file(
    run: Run, library: Path, tmp_path: Path
) -> None:
    ids = reject(run, library / "IMG_1.jpg", library / "other.jpg")
    file = tmp_path / "plan.json"
    make_plan(run, "--output", file)
    run("decide", "forget", ids[0])
    for words in ((), ("--yes",)):
        code, outcomes = apply(run, file, *words)
        assert code == EXIT_SKIPPED
        assert "is not rejected by any decision now" in outcomes["IMG_1.jpg"][1]
        assert outcomes["other.jpg"][0] in ("planned", "done")
    assert all((library / name).exists() for name in LIVE_PHOTO)
    assert not (library / "other.jpg").exists()


def test_copy_that_is_kept_since_the_plan_is_left(run: Run, library: Path, tmp_path: Path) -> None:
    reject(run, library / "a.png")
    file = tmp_path / "plan.json"
    assert "sub/a.jpg" in list_victims(make_plan(run, "--output", file), library)
    assert run("decide", "keep", library / "sub" / "a.jpg")[0] == 0
    code, outcomes = apply(run, file, "--yes")
    assert (code, outcomes["a.jpg"][0], outcomes["a.png"][0]) == (
        EXIT_SKIPPED,
        "left alone",
        "done",
    )
    assert (library / "sub" / "a.jpg").exists()


def test_sidecar_of_two_photos_stays(run: Run, library: Path) -> None:
    save_image(library / "IMG_1.png", draw_scene(5))
    run("ingest")
    reject(run, library / "IMG_1.jpg")
    victims = list_victims(make_plan(run), library)
    assert "IMG_1.jpg" in victims
    assert "IMG_1.xmp" not in victims


@pytest.mark.parametrize("decision", ["keep", "different"])
def test_later_decision_saves_a_copy(
    run: Run, library: Path, tmp_path: Path, decision: str
) -> None:
    """Before it is moved, and before it is deleted."""
    reject(run, library / "a.png")
    file, copy = tmp_path / "plan.json", library / "sub" / "a.jpg"
    make_plan(run, "--output", file)
    others = [library / "a.png"] if decision == "different" else []
    assert run("apply", file, "--yes")[0] == 0
    moved = next((library / ".neardup-quarantine").rglob("a.jpg"))
    shutil.copy2(moved, tmp_path / "a.jpg")
    shutil.copy2(next((library / ".neardup-quarantine").rglob("sub/a.png")), tmp_path / "a.png")
    others = [tmp_path / other.name for other in others]
    code, _, err = run("decide", decision, tmp_path / "a.jpg", *others)
    assert code == 0, err
    code, outcomes = read_outcomes(run("purge", "--older-than", "0d", "--yes", "--json"))
    assert (code, outcomes["a.jpg"][0], outcomes["a.png"]) == (
        EXIT_SKIPPED,
        "left alone",
        ("done", "still rejected"),
    )
    assert moved.exists()
    assert run("undo", "last")[0] == EXIT_SKIPPED  # the others are deleted
    assert copy.exists()
    run("ingest")
    assert "sub/a.jpg" not in list_victims(make_plan(run), library)


def test_purge_asks_again_whether_the_decision_stands(
    run: Run, library: Path, tmp_path: Path
) -> None:
    ids = reject(run, library / "IMG_1.jpg", library / "a.png")
    file = tmp_path / "plan.json"
    make_plan(run, "--output", file)
    apply(run, file, "--yes", "--confirm", "6")
    run("decide", "forget", ids[0])
    run("compact")
    purge = ("purge", "--older-than", "0d", "--json")
    code, planned = read_outcomes(run(*purge))
    assert (code, planned["a.jpg"]) == (EXIT_SKIPPED, ("planned", "still rejected"))
    code, outcomes = read_outcomes(run(*purge, "--yes"))
    assert (code, outcomes["a.jpg"], outcomes["a.png"]) == (
        EXIT_SKIPPED,
        ("done", "still rejected"),
        ("done", "still rejected"),
    )
    for name in LIVE_PHOTO:
        assert outcomes[name][0] == "left alone"
        assert "not rejected any more" in outcomes[name][1]
    assert not list((library / ".neardup-quarantine").rglob("a.*"))
    assert run("undo", "last")[0] == EXIT_SKIPPED
    assert all((library / name).exists() for name in LIVE_PHOTO)


@pytest.mark.parametrize("is_undone_at_once", [False, True])
@pytest.mark.parametrize("failpoint", ["action moved:2", "action done:2"])
def test_killed_run_is_finished_or_undone(
    run: Run, library: Path, tmp_path: Path, failpoint: str, is_undone_at_once: bool
) -> None:
    reject(run, library / "IMG_1.jpg")
    file, before = tmp_path / "plan.json", read_tree(library)
    make_plan(run, "--output", file)
    with killed_at(failpoint):
        run("apply", file, "--yes")
    assert not (library / "IMG_1.jpg").exists()
    if not is_undone_at_once:
        code, outcomes = apply(run, file, "--yes")
        assert (code, sorted(outcomes)) == (0, LIVE_PHOTO)
        assert {status for status, _ in outcomes.values()} == {"done"}
        assert not any((library / name).exists() for name in LIVE_PHOTO)
    run("undo", "last")
    assert read_tree(library) == before


def test_rejected_photos_are_moved_to_a_folder(run: Run, library: Path, tmp_path: Path) -> None:
    reject(run, library / "other.jpg")
    (tmp_path / "away").mkdir()
    file, before = tmp_path / "plan.json", read_tree(library)
    make_plan(run, "--action", "move", "--to", tmp_path / "away", "--output", file)
    assert apply(run, file, "--yes")[0] == 0
    assert (tmp_path / "away" / "photos" / "other.jpg").exists()
    assert read_outcomes(run("purge", "--older-than", "0d", "--yes", "--json"))[1] == {}
    assert run("undo", "last")[0] == 0
    assert read_tree(library) == before


@pytest.mark.parametrize(
    "words",
    [
        *(["--action", action] for action in ("hardlink", "reflink", "symlink", "trash", "report")),
        ["--relations", "identical"],
        ["--min-confidence", "0.9"],
        ["--from", "groups.json"],
    ],
)
def test_choices_that_need_a_keeper_are_refused(
    run: Run, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("plan", "--rejected", *words)[0] == PLAN_REFUSED


def test_page_shows_the_rejected_photos(run: Run, library: Path, tmp_path: Path) -> None:
    (id_,) = reject(run, library / "IMG_1.jpg")
    reject(run, library / "a.png")
    page = tmp_path / "rejected.html"
    make_plan(run, "--html", page)
    html = page.read_text()
    assert "<h1>4 rejected photos</h1>" in html
    assert re.search(rf"rejected by ann on [\d-]+ \(decision {id_}\)", html)
    assert html.count('<li class="card">') == 4
    assert "with IMG_1.mov" in html
    assert "keep" not in html.partition("</header>")[2]
    for picture in (tmp_path / "rejected-pictures").glob("*.jpg"):
        assert picture.name in html
    assert "no preview" not in html


def test_names_are_escaped_on_the_page(run: Run, library: Path, tmp_path: Path) -> None:
    hostile = library / "<script>"
    hostile.mkdir()
    shutil.copy2(library / "other.jpg", hostile / "<b>.jpg")
    run("ingest")
    reject(run, library / "other.jpg")
    page = tmp_path / "rejected.html"
    make_plan(run, "--html", page)
    html = page.read_text()
    assert "<script>" not in html
    assert "<b>.jpg" not in html
    assert "&lt;script&gt;" in html


def test_only_a_plan_of_rejected_photos_has_no_keeper(
    run: Run, library: Path, tmp_path: Path
) -> None:
    """The files of such plans are whole: only what they say is wrong."""
    reject(run, library / "other.jpg")
    file = tmp_path / "plan.json"
    make_plan(run, "--output", file)
    plan = read_plan(file)
    (group,) = plan.groups
    part = group.victims[0].parts[0]
    keeper = Keeper((replace(part, path=f"{library}/a.png", stat=replace(part.stat, inode=1)),), "")

    def apply_changed(*words: str, **changes: Any) -> int:
        changed = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        write_plan(replace(plan, **changes), changed)
        return run("apply", changed, *words)[0]

    before = read_tree(library)
    assert apply_changed(rejected=False) == PLAN_REFUSED
    assert apply_changed(groups=(replace(group, keeper=keeper),)) == PLAN_REFUSED
    for action in (Action.HARDLINK, Action.SYMLINK, Action.TRASH, Action.REPORT):
        assert apply_changed(action=action) == PLAN_REFUSED
    victim = replace(group.victims[0], parts=())
    assert apply_changed(groups=(replace(group, victims=(victim,)),)) == PLAN_REFUSED
    # A file that no decision is about, with all that the plan should say of it.
    other = Path(library / "a.png")
    parts = tuple(part for part, _ in _plan_as_copy(run, tmp_path, other).iter_parts())
    victim = replace(group.victims[0], parts=parts[:1])
    groups = (replace(group, victims=(victim,)),)
    assert apply_changed("--yes", groups=groups) == EXIT_SKIPPED
    assert read_tree(library) == before


def _plan_as_copy(run: Run, tmp_path: Path, file: Path) -> Plan:
    path = tmp_path / "copies.json"
    run("plan", file.parent, "--output", path)
    return read_plan(path)


def test_without_decisions_nothing_is_rejected(run: Run, library: Path, tmp_path: Path) -> None:
    """Callers that have no store at hand move and delete no rejected photo."""
    reject(run, library / "other.jpg")
    file = tmp_path / "plan.json"
    make_plan(run, "--output", file)
    plan, store = read_plan(file), Path(os.environ["NEARDUP_STORE"])
    (outcome,) = preview_plan(plan, store, [str(library)])
    assert outcome.is_problem
    apply(run, file, "--yes")
    (outcome,) = purge_runs(store, [str(library)], timedelta(0), dry_run=False)
    assert outcome.is_problem
    with pytest.raises(PlanRefused):
        list(preview_plan(replace(plan, rejected=False), store, [str(library)]))
