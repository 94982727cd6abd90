from __future__ import annotations

import json
from pathlib import Path

from tests.support.cli import Run


def test_compare_prints_relation_or_score_matrix(run: Run, photos: Path) -> None:
    run("ingest", photos)
    assert (
        run("compare", photos / "a.png", photos / "sub" / "a copy.png")[1]
        == "1.0000  identical bytes\n"
    )
    assert run("compare", photos / "a.png", photos / "b.jpg")[1].endswith("  unrelated\n")
    assert run("compare", photos / "a.png", photos / "b.jpg", "--exit-code")[0] == 0
    matrix = run("compare", photos / "a.png", photos / "b.jpg", photos / "c.webp")[1].splitlines()
    assert len(matrix) == 8
    assert matrix[-3].split()[1] == "1.000"


def test_threshold_leaves_out_verified_pairs_as_in_groups(run: Run, photos: Path) -> None:
    first, second, copy = (photos / name for name in ("a.png", "a small.jpg", "sub/a copy.png"))
    code, out, _ = run("compare", first, second, "--exit-code", "--threshold", "0.9")
    assert (code, out.split(maxsplit=1)[1]) == (20, "same picture\n")
    code, out, _ = run("compare", first, second, "--exit-code", "--threshold", "0.99")
    assert code == 0
    assert out.endswith("  same picture; left out, below the threshold\n")
    matrix = run("compare", first, second, copy, "--threshold", "0.99")[1].splitlines()
    assert [line.split(maxsplit=2) for line in matrix[matrix.index("", 5) + 1 :]] == [
        ["1", "3", "identical bytes"]
    ]
    document = json.loads(run("compare", first, second, copy, "--threshold", "0.99", "--json")[1])
    assert (document["min_score"], document["threshold"]) == (0.99, 0.99)
    pairs = [(pair["relation"], pair.get("below_threshold")) for pair in document["pairs"]]
    assert pairs == [("same picture", True), ("identical bytes", None), ("same picture", True)]
