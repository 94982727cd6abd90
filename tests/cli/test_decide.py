"""neardup decide on a real store: what it prints, what other commands say of it, and bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.cli.main import main
from tests.support.cli import Run

ORIGIN = r"by ann on \d{4}-\d\d-\d\d"


@pytest.fixture
def decide(run: Run, photos: Path) -> Callable[..., str]:
    """Ingest six files, and return a function that decides as ann and returns the id."""
    run("ingest", photos)

    def enter(kind: str, *names: str) -> str:
        code, out, err = run("decide", kind, *(photos / name for name in names), "--author", "ann")
        assert code == 0, err
        match = re.fullmatch(rf"decided: {kind} .* \(decision (\w{{16}})\)\n", out)
        assert match, out
        return match[1]

    return enter


def test_answers_name_the_decisions(run: Run, photos: Path, decide: Callable[..., str]) -> None:
    apart = decide("different", "a.png", "a small.jpg")
    same = decide("same", "a.png", "b.jpg")
    kept = decide("keep", "sub/a.jpg")
    rejected = decide("reject", "c.webp")
    out = run("groups")[1]
    assert re.search(rf"keep  .*sub/a\.jpg .*   decided {ORIGIN}\n", out)
    assert re.search(rf"b\.jpg .*same by decision .*decided to be the same {ORIGIN}\n", out)
    assert re.search(rf"apart .*a small\.jpg .*from a.*: decided to be different {ORIGIN}\n", out)
    assert re.search(
        rf"1 rejected photo is in the library:\n  .*c\.webp   rejected {ORIGIN} as c\.webp:"
        r" identical bytes\n",
        out,
    )
    (group,) = json.loads(run("groups", "--json")[1])["groups"]
    assert group["keeper"]["decision"]["id"] == kept
    assert {member["decision"]["id"] for member in group["members"] if "decision" in member} == {
        same
    }
    assert {item["decision"]["id"] for item in group["related"] if "decision" in item} == {apart}

    page = photos.parent / "groups.html"
    run("groups", "--html", page)
    text = page.read_text()
    assert re.search(rf"keep: decided {ORIGIN}<", text)
    assert re.search(rf"<small>decided to be the same {ORIGIN}</small>", text)

    _, out, err = run("ingest")
    assert ", 1 rejected; " in err
    assert re.search(rf"c\.webp: rejected \(decision {rejected}\): identical bytes\n", err)
    code, out, _ = run("explain", photos / "a.png", photos / "a small.jpg")
    assert code == 0
    assert re.search(rf"\ndecision    decided to be different {ORIGIN} \(decision {apart}\)\n", out)
    pair = json.loads(run("explain", photos / "b.jpg", photos / "a.png", "--json")[1])["pairs"][0]
    assert pair["decision"]["id"] == same
    out = run("query", photos / "a small.jpg", photos / "c.webp")[1]
    assert re.search(rf"decided to be different {ORIGIN}  .*a\.png", out)
    assert re.search(rf"\n  rejected {ORIGIN} as c\.webp: identical bytes\n", out)


def test_query_of_what_is_decided_to_be_different_finds_no_copy(
    run: Run, photos: Path, decide: Callable[..., str]
) -> None:
    for name in ("sub/a copy.png", "sub/a.jpg"):
        (photos / name).unlink()
    run("ingest")
    small = photos / "a small.jpg"
    assert run("query", small, "--exit-code")[0] == 20
    decide("different", "a.png", "a small.jpg")
    code, out, _ = run("query", small, "--exit-code")
    assert (code, out.count("decided to be different")) == (0, 1)


def test_list_names_the_files_that_hold_each_photo_now(
    run: Run, photos: Path, decide: Callable[..., str]
) -> None:
    assert run("decide", "list") == (0, "no decisions\n", "")
    first = decide("different", "a.png", "b.jpg")
    (photos / "b.jpg").rename(photos / "odd\x1b[2J.jpg")
    second = decide("keep", "c.webp")
    (photos / "c.webp").unlink()
    run("ingest")
    out = run("decide", "list")[1]
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        line for line in out.splitlines() if re.match(rf"({first}|{second})  \w+, {ORIGIN}$", line)
    ]
    assert f"    {photos}/a.png and 1 more file\n" in out
    assert r"odd\x1b[2J.jpg" in out
    assert "\x1b" not in out
    assert "    c.webp, in no file now\n" in out
    listed = json.loads(run("decide", "list", "--json")[1])["decisions"]
    assert [item["id"] for item in listed] == [first, second]
    assert [photo["paths"] for photo in listed[1]["photos"]] == [[]]


def test_list_finds_a_photo_whose_metadata_was_edited(
    run: Run, photos: Path, decide: Callable[..., str]
) -> None:
    """The bytes of the decision are in no file now, and its pixels are in one."""
    decide("keep", "a.png")
    for path in photos.rglob("a*.png"):
        tags = PngInfo()
        tags.add_text("Comment", f"edited {path.name}")
        image = Image.open(path)
        image.load()
        image.save(path, pnginfo=tags)
    run("ingest")
    listed = json.loads(run("decide", "list", "--json")[1])["decisions"]
    (photo,) = listed[0]["photos"]
    assert photo["paths"] == []
    assert str(photos / "a.png") in photo["same_pixels_at"]
    assert f"    {photos}/a.png (same pixels)" in run("decide", "list")[1]


def test_decisions_are_forgotten_exported_and_imported(
    run: Run, photos: Path, decide: Callable[..., str], tmp_path: Path
) -> None:
    id_ = decide("different", "a.png", "b.jpg")
    lines = run("decide", "export")[1]
    assert json.loads(lines)["id"] == id_
    code, out, _ = run("decide", "forget", id_[:5])
    assert (code, out) == (0, f"forgotten: different a.png, b.jpg (decision {id_})\n")
    assert run("decide", "export")[1] == ""
    file = tmp_path / "decisions.jsonl"
    file.write_text(lines)
    for words, stdin, summary in (
        (["-"], lines.encode(), "1 decision imported, 0 known before"),
        ([file], None, "0 decisions imported, 1 known before"),
    ):
        code, _, err = run("decide", "import", *words, stdin=stdin)
        assert (code, err) == (0, f"{summary}\n")
    assert run("decide", "export")[1] == lines


def test_author_is_the_user_unless_named(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest", photos)
    monkeypatch.setenv("USER", "carl\x1b")
    assert run("decide", "keep", photos / "a.png")[0] == 0
    assert "keep, by carl\\x1b on" in run("decide", "list")[1]
    for author in ("", "  ", "x" * 201):
        code, _, err = run("decide", "keep", photos / "b.jpg", "--author", author)
        assert (code, "the author needs a name of 1 to 200 characters" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["different", "PHOTOS/a.png"], "name two or more photos"),
        (["same", "PHOTOS/a.png"], "Missing argument"),
        (["same", "PHOTOS/a.png", "PHOTOS/a.png"], "have the same bytes"),
        (["keep", "PHOTOS"], "no photo to decide on"),
        (["keep", "PHOTOS/gone\x1b.jpg"], r"gone\x1b.jpg' is no photo to decide on: unreadable"),
        (["forget", "0123"], "no decision starts with '0123'"),
        (["import", "PHOTOS/gone.jsonl"], "gone.jsonl' cannot be read: No such file"),
        (["import", "PHOTOS/a.png"], "line 1 is no decision"),
        (["import", "PHOTOS"], "cannot be read: Is a directory"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(
    run: Run, photos: Path, words: list[str], message: str
) -> None:
    run("ingest", photos)
    words = [word.replace("PHOTOS", str(photos)) for word in words]
    code, out, err = run("decide", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "\x1b" not in err
    assert run("decide", "list")[1] == "no decisions\n"


def test_decide_without_a_store_makes_none(run: Run, photos: Path, tmp_path: Path) -> None:
    for words in (
        ["keep", photos / "a.png"],
        ["list"],
        ["export"],
        ["import", "-"],
        ["forget", "0"],
    ):
        assert run("decide", *words, stdin=b"")[0] == 10
    assert not (tmp_path / "library").exists()


def test_help_of_each_command_of_decide_shows_its_use(run: Run) -> None:
    group = main.commands["decide"]
    out = run("decide", "--help")[1]
    names = list(getattr(group, "commands"))  # noqa: B009 - click types it as any command
    assert names == sorted(names, key=out.index)
    for name in names:
        code, out, _ = run("decide", name, "--help")
        assert (code, "Usage: main decide" in out or f"decide {name}" in out) == (0, True)


def test_several_photos_are_rejected_at_once_or_none(run: Run, photos: Path) -> None:
    run("ingest", photos)
    names = [photos / "c.webp", photos / "b.jpg", photos / "c.webp"]
    assert run("decide", "reject", *names, photos / "gone.jpg")[0] != 0
    assert json.loads(run("decide", "list", "--json")[1])["decisions"] == []
    code, out, _ = run("decide", "reject", *names)
    assert (code, out.count("decided: reject ")) == (0, 2)
    listed = json.loads(run("decide", "list", "--json")[1])["decisions"]
    assert [(item["kind"], len(item["photos"])) for item in listed] == [("reject", 1)] * 2
    assert run("decide", "forget", listed[0]["id"])[0] == 0
    assert len(json.loads(run("decide", "list", "--json")[1])["decisions"]) == 1
