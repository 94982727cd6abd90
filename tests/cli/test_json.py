from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from tests.support.cli import Run


def normalize(document: Any, folder: Path) -> Any:  # noqa: ANN401 - JSON
    """Replace what differs between machines and encoders: paths, hashes, times, sizes, measures."""
    if isinstance(document, dict):
        varying = {"id", "bytes", "bytes_on_disk", "started", "ended"}
        varying |= {
            "inliers",
            "tiles",
            "agreeing_share",
            "displaced_share",
            "homography",
            "overlap",
        }  # of verdicts
        return {
            key: type(value).__name__ if key in varying else normalize(value, folder)
            for key, value in document.items()
        }
    if isinstance(document, list):
        return [normalize(value, folder) for value in document]
    return document.replace(str(folder), "HERE") if isinstance(document, str) else document


def assert_equal_json(document: Any, golden: Any, at: str = "$") -> None:  # noqa: ANN401 - JSON
    """Assert that documents are equal, measured numbers to within 0.02."""
    if isinstance(golden, dict):
        assert list(document) == list(golden), at
        for key in golden:
            assert_equal_json(document[key], golden[key], f"{at}.{key}")
    elif isinstance(golden, list):
        assert len(document) == len(golden), at
        for number, value in enumerate(golden):
            assert_equal_json(document[number], value, f"{at}[{number}]")
    else:
        expected = pytest.approx(golden, abs=0.02) if isinstance(golden, float) else golden
        assert document == expected, at


@pytest.mark.parametrize("name", ["dedupe", "groups", "query", "compare", "ingest", "status"])
def test_json_keeps_its_documented_fields(run: Run, photos: Path, name: str) -> None:
    """Fields may be added to golden/*.json on purpose, never changed or removed."""
    os.utime(photos / "a.png", (1_600_000_000, 1_600_000_000))  # the older of two equal files
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    dedupe = run("dedupe", photos, "--json")[1]
    out = {
        "dedupe": lambda: dedupe,
        "groups": lambda: run("groups", "--threshold", "0.9", "--json")[1],
        "query": lambda: run(
            "query", photos / "a small.jpg", photos / "b.jpg", photos / "nothing.jpg", "--json"
        )[1],
        "compare": lambda: run(
            "compare", photos / "a.png", photos / "sub" / "a copy.png", photos / "b.jpg", "--json"
        )[1],
        "ingest": lambda: run("ingest", photos, "--exclude", "c.*", "--json")[1],
        "status": lambda: run("status", "--failures", "--json")[1],
    }[name]()
    document = normalize(json.loads(out), photos.parent)
    golden = Path(__file__).parent / "golden" / f"{name}.json"
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(json.dumps(document, indent=2) + "\n")
    assert_equal_json(document, json.loads(golden.read_text()))


def make_folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def test_every_json_document_has_its_schema_version(run: Run, photos: Path) -> None:
    def get_arguments(name: str) -> list[str | Path]:
        given: dict[str, list[str | Path]] = {
            "ingest": [photos],
            "dedupe": [photos],
            "contains": [photos, make_folder(photos.with_name("other"))],
            "query": [photos / "a.png"],
            "compare": [photos / "a.png", photos / "b.jpg"],
            "explain": [photos / "a.png", photos / "b.jpg"],
            "plan": ["--output", photos.parent / "plan.json"],
            "apply": [photos.parent / "plan.json", "--yes"],
            "undo": ["last"],
            "migrate": ["--model", "neardup-1"],
            "calibrate": ["--sample", "1"],
        }
        return [name, *given.get(name, []), "--json"]

    with_json = [
        name
        for name, command in main.commands.items()
        if "as_json" in {option.name for option in command.params}
    ]
    assert set(with_json) == set(main.commands) - {"decide", "repair", "review"}
    for name in with_json:
        assert json.loads(run(*get_arguments(name))[1])["schema_version"] == 3, name
