"""Plans with --merge-metadata of real photos, from the command line, applied and undone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags
from PIL import Image as Pillow

from indexes import Store
from pipeline.cli.console import EXIT_SKIPPED
from tests.support.actions import read_folder_times, read_tree
from tests.support.cli import Run
from tests.support.images import draw_scene
from tests.support.xmp import make_xmp, read_with_exiftool

PLAN_REFUSED = 14
MERGE = ("--merge-metadata", "--relations", "identical")


def save_photo(
    path: Path, exif: Pillow.Exif | None = None, xmp: bytes = b"", scene: int = 1
) -> Path:
    """Save a scene as a PNG or WebP, whose pixels are equal whatever its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra: dict[str, Any] = {} if exif is None else {"exif": exif.tobytes()}
    if xmp:
        # Of the formats that Pillow writes XMP to, WebP keeps all pixels.
        path = path.with_suffix(".webp")
        extra |= {"xmp": xmp, "lossless": True, "exact": True}
    draw_scene(scene, (160, 120)).save(path, **extra)
    return path


def make_exif(date: str = "", place: bool = False, caption: str = "") -> Pillow.Exif:
    exif = Pillow.Exif()
    if caption:
        exif[ExifTags.Base.ImageDescription] = caption
    if date:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = date
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.OffsetTimeOriginal] = "+02:00"
    if place:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(
            {1: "S", 2: (33.0, 51.0, 24.5), 3: "E", 4: (151.0, 12.0, 55.0)}
        )
    return exif


def plan(run: Run, *words: str | Path) -> Any:  # noqa: ANN401 - JSON
    code, out, err = run("plan", "--json", *words)
    assert code == 0, err
    return json.loads(out)["plan"]


def list_fields(merge: Any, folder: Path) -> list[tuple[str, str, str]]:  # noqa: ANN401 - JSON
    return [
        (field["name"], field["value"], os.path.relpath(field["path"], folder))
        for field in merge["fields"]
    ]


@pytest.fixture
def library(run: Run, tmp_path: Path) -> Path:
    """The keeper is the largest file of equal pixels; what it lacks is in two copies."""
    folder = tmp_path / "photos"
    keywords = make_xmp(rating="4", keywords=["sea", "boat"])
    save_photo(folder / "copy 1.png", make_exif("2019:05:04 03:02:01", caption="first"))
    save_photo(folder / "copy 2.png", make_exif(place=True, caption="second"))
    save_photo(folder / "copy 3.png", xmp=keywords)
    save_photo(folder / "IMG_1.png")
    assert run("ingest", folder)[0] == 0
    assert run("decide", "keep", folder / "IMG_1.png")[0] == 0
    return folder


def test_plan_names_each_field_that_the_keeper_lacks_and_where_it_comes_from(
    run: Run, library: Path
) -> None:
    ((merge,),) = [[group["merge"] for group in plan(run, *MERGE)["groups"]]]
    assert merge["sidecar"] == str(library / "IMG_1.png.xmp")
    assert merge["before"] is None
    assert list_fields(merge, library) == [
        ("date", "2019-05-04T03:02:01+02:00", "copy 1.png"),
        ("place", "-33.8568056,151.2152778", "copy 2.png"),
        ("rating", "4", "copy 3.webp"),
        ("caption", "first", "copy 1.png"),
        ("keyword", "sea", "copy 3.webp"),
        ("keyword", "boat", "copy 3.webp"),
    ]
    (passed_over,) = merge["passed_over"]
    assert (passed_over["value"], Path(passed_over["path"]).name) == ("second", "copy 2.png")
    text = run("plan", *MERGE)[1]
    assert f"writes {library}/IMG_1.png.xmp" in text
    assert f"rating, 2 keywords of {library}/copy 3.webp" in text
    assert f"not the caption second of {library}/copy 2.png" in text


def test_plan_without_the_option_is_as_before(run: Run, library: Path) -> None:
    made = plan(run, "--relations", "identical")
    assert [len(group["victims"]) for group in made["groups"]] == [3]
    assert not any("merge" in group for group in made["groups"])
    assert run("plan", "--rejected", "--merge-metadata")[0] == PLAN_REFUSED


def test_merged_fields_are_read_by_exiftool_and_undone_with_the_run(
    run: Run, library: Path, tmp_path: Path
) -> None:
    before, times = read_tree(library), read_folder_times(library)
    file = tmp_path / "plan.json"
    assert run("plan", *MERGE, "--output", file)[0] == 0
    code, out, _ = run("apply", file)
    assert (code, "to add: date, place, rating, caption, 2 keywords" in out) == (0, True)
    assert read_tree(library) == before
    code, out, err = run("apply", file, "--yes")
    assert (code, "added: date, place" in out) == (0, True), err
    sidecar = library / "IMG_1.png.xmp"
    assert {path.name for path in library.iterdir() if path.is_file()} == {
        "IMG_1.png",
        "IMG_1.png.xmp",
    }
    if read := read_with_exiftool(sidecar):
        assert read["XMP:DateTimeOriginal"] == "2019:05:04 03:02:01+02:00"
        assert read["XMP:GPSLatitude"] == pytest.approx(-33.8568056, abs=1e-6)
        assert (read["XMP:Rating"], read["XMP:Subject"]) == (4, ["sea", "boat"])
        assert read["XMP:Description"] == "first"
    assert run("undo", "last")[0] == 0
    assert read_tree(library) == before
    assert read_folder_times(library) == times


def test_merging_twice_adds_nothing(run: Run, library: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    run("plan", *MERGE, "--output", file)
    shutil.copytree(library, tmp_path / "copies")
    assert run("apply", file, "--yes")[0] == 0
    for path in (tmp_path / "copies").glob("copy*"):
        shutil.copy2(path, library)
    run("ingest")
    made = plan(run, *MERGE)
    assert [len(group["victims"]) for group in made["groups"]] == [3]
    assert not any("merge" in group for group in made["groups"])


def test_sidecar_that_is_there_is_extended_and_its_own_values_stay(
    run: Run, library: Path, tmp_path: Path
) -> None:
    sidecar = library / "IMG_1.xmp"
    sidecar.write_bytes(make_xmp(rating="2", keywords=["Sea"], extra="<my:own>x</my:own>"))
    sidecar.chmod(0o604)
    run("ingest")
    before = read_tree(library)
    file = tmp_path / "plan.json"
    (group,) = json.loads(run("plan", *MERGE, "--output", file, "--json")[1])["plan"]["groups"]
    assert group["merge"]["sidecar"] == str(sidecar)
    assert [name for name, *_ in list_fields(group["merge"], library)] == [
        *("date", "place", "caption", "keyword")
    ]
    old = read_with_exiftool(sidecar)
    assert run("apply", file, "--yes")[0] == 0
    with Store(tmp_path / "library") as store:
        assert store.catalog.files.get_by_path(str(sidecar)) is not None
    assert sidecar.stat().st_mode & 0o777 == 0o604
    assert b"<my:own>x</my:own>" in sidecar.read_bytes()
    if new := read_with_exiftool(sidecar):
        assert new.pop("XMP:Subject") == ["Sea", "boat"]
        old.pop("XMP:Subject")
        assert {key: new[key] for key in old} == old
    run("undo", "last")
    assert read_tree(library) == before


def test_keywords_of_the_photo_itself_are_in_the_first_list_of_its_sidecar(
    run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    save_photo(folder / "a.png", xmp=make_xmp(keywords=["own"]))
    save_photo(folder / "b.png", xmp=make_xmp(keywords=["other", "OWN"]))
    run("ingest", folder)
    run("decide", "keep", folder / "a.webp")
    (group,) = plan(run, *MERGE)["groups"]
    assert list_fields(group["merge"], folder) == [
        ("keyword", "own", "a.webp"),
        ("keyword", "other", "b.webp"),
    ]


def test_json_of_google_takeout_counts_as_metadata_of_its_photo(run: Run, tmp_path: Path) -> None:
    """The keeper has one, and so needs nothing of its copy but the caption."""
    folder = tmp_path / "photos"
    save_photo(folder / "a.png")
    taken = {"photoTakenTime": {"timestamp": "1556945000"}, "description": ""}
    (folder / "a.png.json").write_text(json.dumps(taken))
    save_photo(folder / "b.png", make_exif("2019:05:04 03:02:01", caption="words"))
    run("ingest", folder)
    run("decide", "keep", folder / "a.png")
    (group,) = plan(run, *MERGE)["groups"]
    assert list_fields(group["merge"], folder) == [("caption", "words", "b.png")]


def test_photos_whose_names_differ_by_case_alone_have_a_sidecar_each(
    run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    for name, scene in (("A.png", 1), ("a.png", 2)):
        save_photo(folder / name, scene=scene)
        exif = make_exif("2019:05:04 03:02:01", caption="words")
        save_photo(folder / "copies" / name, exif, scene=scene)
    (folder / "A.png.xmp").write_bytes(make_xmp())
    run("ingest", folder)
    run("decide", "keep", folder / "A.png")
    run("decide", "keep", folder / "a.png")
    made = plan(run, *MERGE)
    sidecars = {group["merge"]["sidecar"] for group in made["groups"]}
    assert sidecars == {str(folder / name) for name in ("A.png.xmp", "a.png.xmp")}


def test_sidecar_of_a_protected_keeper_is_not_written(run: Run, library: Path) -> None:
    (library / "safe").mkdir()
    (library / "IMG_1.png").rename(library / "safe" / "IMG_1.png")
    run("ingest")
    made = plan(run, *MERGE, "--protect", library / "safe")
    assert made["groups"] == []
    assert all("in a protected folder" in left["reason"] for left in made["left"])


HOSTILE_SIDECARS = [
    (b"no XML", "no sound XML"),
    (b"", "no sound XML"),
    (b"<a/>", "no XMP"),
    (b'<!DOCTYPE a [<!ENTITY l "l"><!ENTITY m "&l;&l;">]><a>&m;</a>', "with a document type"),
    (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "with a document type"),
    (b"<a>" * 5_000, "too many levels"),
    (b"<a>" + b" " * 50_000_000 + b"</a>", "more than 16 MB"),
    ("<a/>".encode("utf-32"), "no sound XML"),
    (b"\xff<a/>", "an encoding other than"),
]


def test_sidecar_that_is_not_safe_to_extend_keeps_the_copies(run: Run, library: Path) -> None:
    sidecar = library / "IMG_1.png.xmp"
    for content, words in HOSTILE_SIDECARS:
        sidecar.write_bytes(content)
        made = plan(run, *MERGE)
        assert made["groups"] == []
        reasons = {left["reason"] for left in made["left"]}
        assert all("the metadata of its keeper" in reason for reason in reasons)
        assert all(words in reason for reason in reasons), reasons
        assert sidecar.read_bytes() == content


def test_link_or_folder_in_the_place_of_a_sidecar_is_left_alone(run: Run, library: Path) -> None:
    sidecar = library / "IMG_1.png.xmp"
    sidecar.symlink_to(library / "copy 1.png")
    made = plan(run, *MERGE)
    assert "is a symbolic link" in made["left"][0]["reason"]
    sidecar.unlink()
    sidecar.mkdir()
    made = plan(run, *MERGE)
    assert (made["groups"], len(made["left"])) == ([], 3)


def test_sidecar_of_another_photo_with_the_name_in_other_case_is_not_extended(
    run: Run, library: Path
) -> None:
    sidecar = library / "IMG_1.PNG.xmp"
    sidecar.write_bytes(make_xmp(rating="1"))
    (group,) = plan(run, *MERGE)["groups"]
    assert group["merge"]["sidecar"] == str(sidecar)  # the photo has no other
    save_photo(library / "IMG_1.PNG", scene=2)
    (group,) = plan(run, *MERGE)["groups"]
    assert group["merge"]["sidecar"] == str(library / "IMG_1.png.xmp")


def test_empty_rating_in_a_sidecar_keeps_the_copy_with_another_one(run: Run, library: Path) -> None:
    """Programs write a rating of 0; it is the sidecar's own, and never changed."""
    (library / "IMG_1.png.xmp").write_bytes(make_xmp(rating="0"))
    made = plan(run, *MERGE)
    reasons = [left["reason"] for left in made["left"]]
    assert any("rating cannot be added" in reason for reason in reasons)


def test_copy_with_equal_bytes_brings_nothing_and_goes(run: Run, library: Path) -> None:
    shutil.copy2(library / "IMG_1.png", library / "same.png")
    (library / "IMG_1.png.xmp").write_bytes(b"broken")
    run("ingest")
    made = plan(run, "--merge-metadata")
    assert [len(group["victims"]) for group in made["groups"]] == [1]
    assert "merge" not in made["groups"][0]


def test_same_sidecar_of_a_copy_goes_for_the_extended_one(run: Run, tmp_path: Path) -> None:
    """The sidecar of the keeper stands for that of the copy, also once it has more."""
    folder = tmp_path / "photos"
    for name, exif in (("a/IMG_1.png", None), ("b/IMG_1.png", make_exif("2019:05:04 03:02:01"))):
        save_photo(folder / name, exif)
        (folder / name).with_suffix(".xmp").write_bytes(make_xmp(rating="3"))
    run("ingest", folder)
    run("decide", "keep", folder / "a" / "IMG_1.png")
    before, file = read_tree(folder), tmp_path / "plan.json"
    run("plan", *MERGE, "--output", file)
    code, out, err = run("apply", file, "--yes", "--confirm", "2")
    assert (code, sorted(path.name for path in (folder / "b").iterdir())) == (0, []), out + err
    assert run("purge", "--older-than", "0d", "--yes")[0] in (0, EXIT_SKIPPED)
    assert not (folder / ".neardup-quarantine").exists()
    assert sorted(read_tree(folder)) == sorted(set(before) - {"b/IMG_1.png", "b/IMG_1.xmp"})
