"""docs/json-and-exit-codes.md names the fields that the JSON has, and no others."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from PIL import Image

from indexes.coverage import Coverage
from indexes.decisions import DecisionKind
from indexes.records import FLAG_DAMAGED, FileStat
from indexes.records import Image as ImageRecord
from pipeline.grouping.assets import AssetPart, PartRole
from pipeline.grouping.keep_rules import DiskStatus, LibraryFile
from pipeline.grouping.match import Match
from pipeline.report.matches import serialize_file, serialize_match
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict
from tests.support.cli import Run
from tests.support.decisions import decide
from tests.support.images import draw_scene, save_image
from tests.support.verification import PLAIN_COPY

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "json-and-exit-codes.md"
SCENE = draw_scene(1, (360, 270))


def list_documented(name: str) -> set[str]:
    """List the fields in the first column of the table with this name."""
    table = PAGE.read_text().split(f"| field of {name} | meaning |")[1].split("\n\n")[0]
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    return {field for cell in cells for field in re.findall(r"`(\w+)`", cell)}


def save_exposure(path: Path, iso: int) -> Path:
    """Save one scene as a photo of a camera with this sensitivity."""
    exif = Image.Exif()
    exif[0x0110], exif[0x0132] = "Camera 1", "2024:05:01 10:00:00"
    exif.get_ifd(0x8769).update({0x9003: "2024:05:01 10:00:00", 0x8827: iso})
    return save_image(path, SCENE, exif=exif, quality=90 + iso // 1000)


@pytest.fixture
def library(run: Run, tmp_path: Path) -> Path:
    """A store of copies, an animation with its still and another shot, and a blank image."""
    folder = tmp_path / "photos"
    save_image(folder / "a.png", SCENE)
    save_image(folder / "copy.jpg", SCENE, quality=80)
    frames = [SCENE.copy(), draw_scene(2, SCENE.size)]
    save_image(folder / "both.webp", frames[0], save_all=True, append_images=frames[1:])
    save_image(folder / "blank.png", Image.new("RGB", (300, 200), "white"))
    run("ingest", folder)
    return folder


def test_fields_of_groups_are_documented(run: Run, library: Path) -> None:
    document = json.loads(run("dedupe", library, "--json")[1])
    assert set(document) == list_documented("`groups` and `dedupe`") | {"schema_version"}
    assert set(document["coverage"]) == list_documented("`coverage`")
    (group,) = document["groups"]
    assert set(group) == list_documented("a group") - {"reason"}
    assert "reason" in group["keeper"]
    assert set(group["related"][0]) | {"decision"} == list_documented("a related file")


def test_fields_of_files_and_matches_are_documented() -> None:
    record = ImageRecord(b"1", b"1", 100, 100, "JPEG", 1000, False)
    record = replace(
        record, flags=(FLAG_DAMAGED,), metadata_kinds=("date",), taken_at=1_600_000_000
    )
    stat = FileStat(1000, 0, 0, 1, 1)
    part = AssetPart("/a.xmp", stat, PartRole.SIDECAR, is_missing=True, is_shared=True)
    file = LibraryFile("/a.jpg", stat, record, frame_count=2, parts=(part,))
    serialized = serialize_file(replace(file, disk_status=DiskStatus.CHANGED))
    serialized |= serialize_file(replace(file, is_missing=True))
    assert set(serialized) == list_documented("a file")
    assert set(serialized["parts"][0]) == list_documented("a part")
    verdict = Verdict(Relation.DERIVED, edits=replace(PLAIN_COPY, mirrored=True))
    decision = decide(DecisionKind.SAME, 1, 2)
    match = Match(file, Relation.DERIVED, 0.9, verdict, file, file, decision, ("/a.xmp",))
    assert set(serialize_match(match)) == list_documented("a match")


def test_fields_of_query_are_documented(run: Run, library: Path) -> None:
    names = ("blank.png", "both.webp", "nothing.jpg")
    run("decide", "reject", library / "both.webp")
    document = json.loads(run("query", *(library / name for name in names), "--json")[1])
    assert set(document) == list_documented("`query`") | {"schema_version"}
    answers = document["answers"]
    assert {key for answer in answers for key in answer} == list_documented("an answer")
    assert set(answers[2]["error"]) == {"reason", "detail"}
    assert set(answers[1]["rejected"]) == {"relation", "decision"}
    match = answers[1]["matches"][0]
    assert set(match) <= list_documented("a match") | list_documented("a file")


def test_fields_of_compare_are_documented(run: Run, library: Path, tmp_path: Path) -> None:
    files = [
        *(save_exposure(tmp_path / f"{iso}.jpg", iso) for iso in (100, 3200)),
        library / "both.webp",
        tmp_path / "nothing.jpg",
    ]
    shutil.copy(files[0], library)
    shutil.copy(files[1], library)
    run("ingest")
    run("decide", "same", *files[:2])
    document = json.loads(run("compare", *files, "--json", "--threshold", "0.9999")[1])
    documented = list_documented("`compare` and `explain`")
    assert set(document) == documented | {"schema_version"}
    pairs = document["pairs"]
    assert {key for pair in pairs for key in pair} == list_documented("a pair")
    assert set(pairs[0]["exposure_difference"]) == {"field", "is_certain"}
    (failure,) = document["errors"].values()
    assert set(failure) == {"reason", "detail"}


def test_fields_of_decisions_are_documented(run: Run, library: Path) -> None:
    run("decide", "different", library / "a.png", library / "both.webp")
    run("decide", "reject", library / "blank.png")
    document = json.loads(run("decide", "list", "--json")[1])
    assert set(document) == list_documented("`decide list`") | {"schema_version"}
    decision = document["decisions"][0]
    assert set(decision) == list_documented("a decision")
    assert set(decision["photos"][0]) == {"name", "blake3", "paths", "same_pixels_at"}
    groups = json.loads(run("groups", "--json")[1])
    (rejected,) = groups["coverage"]["rejected"]
    assert set(rejected) == {"path", "relation", "decision"}
    (related,) = (item for item in groups["groups"][0]["related"] if "decision" in item)
    assert set(related["decision"]) == list_documented("a decision") - {"photos"}
    run("decide", "keep", library / "copy.jpg")
    assert "decision" in json.loads(run("groups", "--json")[1])["groups"][0]["keeper"]


def test_fields_of_ingest_are_documented(run: Run, library: Path) -> None:
    document = json.loads(run("ingest", library, "--json")[1])
    assert set(document) == list_documented("`ingest`") | {"schema_version"}
    assert {field.name for field in fields(Coverage)} == list_documented("`ingest`")


def test_fields_of_plans_and_their_outcomes_are_documented(
    run: Run, library: Path, tmp_path: Path
) -> None:
    (library / "a copy.png").write_bytes((library / "a.png").read_bytes())
    run("ingest", library)
    path = tmp_path / "plan.json"
    document = json.loads(run("plan", "--json", "--output", path)[1])
    assert set(document) == list_documented("`plan`") | {"schema_version"}
    nested = {"id", "keeper", "parts", "reason", "victims", "relation", "confidence"}
    nested |= {"decided_by", "path", "group"}
    assert set(document["plan"]) == list_documented("a plan").difference(nested, {"move"})
    for command in (["apply", path, "--yes"], ["undo", "last"], ["purge"]):
        outcome = json.loads(run(*command, "--json")[1])
        assert set(outcome) == {"schema_version", "run", "files"}
