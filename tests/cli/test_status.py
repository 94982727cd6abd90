from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Run
from tests.support.images import draw_scene, save_image


def test_status_names_files_whose_photo_is_gone(run: Run, photos: Path) -> None:
    (photos / "b.xmp").write_text("<x:xmpmeta/>")
    run("ingest", photos)
    assert "orphans" not in run("status")[1]
    (photos / "sub" / "gone\x1b.xmp").write_text("<x:xmpmeta/>")
    run("ingest")
    orphan = f"1 file whose photo or film is not there, such as {photos}/sub/gone\\x1b.xmp"
    assert f"orphans     {orphan}" in run("status")[1].splitlines()
    paths = json.loads(run("status", "--json")[1])["orphans"]
    assert paths == [f"{photos}/sub/gone\x1b.xmp"]


def test_status_explains_an_ingest_with_problems(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = save_image(tmp_path / "card" / "x.jpg", draw_scene(40)).parent
    assert run("ingest", photos, card)[0] == 0
    assert run("status")[1].splitlines()[-1].startswith("last ingest complete, ")
    assert ";" not in run("status")[1].splitlines()[-1]
    (card / "x.jpg").unlink()
    card.rmdir()
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    scandir = os.scandir
    closed = [photos / f"closed{number:02}" for number in range(12)]
    for folder in closed:
        folder.mkdir()

    def refuse_closed(path: str | Path) -> Any:  # noqa: ANN401 - the type of os.scandir
        if "closed" in os.fspath(path):  # not by permissions: the tests may run as root
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("pipeline.scan.os.scandir", refuse_closed)
    assert run("ingest")[0] == 3
    last, first, *_, tenth, more = run("status")[1].splitlines()[-12:]
    problems = "; failed 13 (12 unreadable folder, 1 truncated); 1 missing, still listed"
    assert f"{problems}; not a folder any more: " in last
    assert last.endswith(str(card))
    assert first == f"unreadable  {closed[0]}: unreadable folder (Permission denied)"
    assert tenth == f"unreadable  {closed[9]}: unreadable folder (Permission denied)"
    assert (
        more
        == f"unreadable  2 more, see `neardup status --failures --store {tmp_path / 'library'}`"
    )
    failures = run("status", "--failures")[1].splitlines()
    assert len(failures) == 13
    assert failures[0].startswith(f"{photos / 'broken.jpg'}: truncated")
    assert failures[-1] == f"{closed[-1]}: unreadable folder (Permission denied)"
    document = json.loads(run("status", "--failures", "--json")[1])
    assert document["failures"][-1] == {
        "path": str(closed[-1]),
        "reason": "unreadable folder",
        "detail": "Permission denied",
    }
