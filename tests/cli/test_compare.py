from __future__ import annotations

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
