from __future__ import annotations

import json
import os
import re
import shutil
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from tests.support.cli import Run
from tests.support.images import draw_scene, save_image


def test_query_prints_matches_as_text(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    code, out, _ = run("query", photos / "a.png")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].endswith("a.png: in the library, 3 matches")
    assert [
        re.match("  (identical bytes|same picture)", line) is not None for line in lines[1:]
    ] == [True] * 3
    assert run("query", photos / "b.jpg")[1].endswith("in the library, no other copy\n")
    stranger = save_image(tmp_path / "stranger.png", draw_scene(50))
    assert run("query", stranger)[1].endswith("not in the library, no match\n")
    assert run("query", stranger, "--exit-code")[0] == 0
    elsewhere = shutil.copy(photos / "b.jpg", tmp_path / "elsewhere.jpg")
    answer = f"{elsewhere}: the same bytes are in the library at {photos / 'b.jpg'}, "
    assert f"{answer}1 match\n" in run("query", elsewhere)[1]
    assert f"{answer}no match\n" in run("query", elsewhere, "--relations", "derived")[1]
    copied = save_image(tmp_path / "same pixels.png", Image.open(photos / "a.png"), optimize=True)
    assert ": the same pixels are in the library at " in run("query", copied)[1]
    (photos / "b.jpg").unlink()
    assert (
        f"in the library at {photos / 'b.jpg'} (gone since), 1 match" in run("query", elsewhere)[1]
    )
    shutil.copy(elsewhere, photos / "z.jpg")
    run("ingest", photos)
    (found,) = json.loads(run("query", elsewhere, "--json")[1])["answers"]
    assert (found["in_library"], found["same_bytes_at"]) == (False, str(photos / "z.jpg"))
    assert run("query", photos / "a.png", "--exit-code")[0] == 20


def test_query_begins_with_the_closest_copy(run: Run, photos: Path, tmp_path: Path) -> None:
    run("ingest", photos)
    with Image.open(photos / "b.jpg") as photo:
        smaller = save_image(tmp_path / "small.jpg", photo.resize((400, 300)), quality=80)
        crop = save_image(tmp_path / "crop.jpg", photo.crop((40, 30, 600, 450)), quality=90)
    assert run("query", smaller)[1].startswith(
        f"{smaller}: the same picture is in the library at {photos / 'b.jpg'}, 1 match\n"
    )
    assert run("query", crop)[1].startswith(
        f"{crop}: another version of it is in the library at {photos / 'b.jpg'}, 1 match\n"
    )


def test_query_names_unreadable_files_also_for_an_empty_library(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    run("ingest", tmp_path / "empty")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((photos / "b.jpg").read_bytes()[:500])
    code, out, err = run("query", photos / "a.png", tmp_path / "nothing.jpg", photos, broken)
    assert code == 3
    assert out == f"{photos / 'a.png'}: not in the library, no match\n"
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        str(tmp_path / "nothing.jpg"),
        str(photos),
        str(broken),
    ]


def test_query_reads_paths_from_standard_input(run: Run, photos: Path) -> None:
    run("ingest", photos)
    lines = f"{photos}/a.png\n{photos}/b.jpg\n".encode()
    assert [
        answer["file"] for answer in json.loads(run("query", "--json", stdin=lines)[1])["answers"]
    ] == lines.decode().split()
    non_utf8 = photos / os.fsdecode(b"caf\xe9\n.jpg")
    non_utf8.write_bytes((photos / "b.jpg").read_bytes())
    (answer,) = json.loads(
        run("query", "-0", "-", "--json", stdin=os.fsencode(non_utf8) + b"\0")[1]
    )["answers"]
    assert os.fsencode(answer["file"]) == os.fsencode(non_utf8)
    assert answer["matches"][0]["relation"] == "identical bytes"
    assert "caf\\xe9\\n.jpg: the same bytes are in the library at " in run("query", non_utf8)[1]


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_list_from_windows_names_the_same_files(
    run: Run, photos: Path, line_end: str, start: str
) -> None:
    run("ingest", photos)
    with_cr = photos / "named with CR\r"
    shutil.copy(photos / "b.jpg", with_cr)
    paths = [str(path) for path in (photos / "a.png", photos / "b.jpg")]
    lines = start + line_end.join([*paths, "", f"{with_cr}\n"])
    answers = json.loads(run("query", "-", "--json", stdin=lines.encode())[1])["answers"]
    assert [answer["file"] for answer in answers] == [*paths, str(with_cr)]
    assert answers[0]["in_library"]


def test_photo_on_standard_input_gives_one_line_of_help(run: Run, photos: Path) -> None:
    run("ingest", photos)
    suffixes = ("jpg", "png", "gif", "bmp", "webp", "tiff", "ppm")
    for suffix, words in product(suffixes, (["-"], [], ["-0", "-"])):
        photo = save_image(photos.parent / f"a.{suffix}", draw_scene(1))
        code, out, err = run("query", *words, stdin=photo.read_bytes())
        assert (code, out) == (2, ""), (suffix, words)
        assert err == (
            "neardup: standard input holds a photo, not paths; name its file instead:"
            " `neardup query FILE`\n"
        )


def test_standard_input_with_nul_needs_the_option_for_it(run: Run, photos: Path) -> None:
    run("ingest", photos)
    code, out, err = run("query", stdin=f"{photos}/a.png\0{photos}/b.jpg\0".encode())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "needs -0" in err


def test_path_that_starts_like_a_photo_is_a_path(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest", photos)
    monkeypatch.chdir(photos)
    (photos / "a.png").rename("P5 400 300.png")
    answer = json.loads(run("query", "--json", stdin=b"P5 400 300.png\r\nb.jpg\n")[1])
    assert [item["file"] for item in answer["answers"]] == ["P5 400 300.png", "b.jpg"]
