from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

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
    assert ": in the library under another path, 1 match\n" in run("query", elsewhere)[1]
    assert run("query", photos / "a.png", "--exit-code")[0] == 20


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
    assert "caf\\xe9\\n.jpg: in the library under another path" in run("query", non_utf8)[1]
