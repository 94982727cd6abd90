from __future__ import annotations

from pathlib import Path

from indexes import Store
from tests.support.cli import Run


def test_dedupe_prints_groups_and_coverage(run: Run, photos: Path) -> None:
    code, out, err = run("dedupe", photos)
    assert code == 0
    assert out.count("keep  ") == 1
    assert "identical bytes" in out
    assert out.splitlines()[-1].startswith("1 group, 3 near-duplicates")
    counts = "6 files seen, 6 new, 0 unchanged, 0 moved, 0 gone, skipped 0, failed 0"
    assert f"{counts}; 5 images embedded" in err
    assert run("dedupe", photos, "--exit-code")[0] == 20
    assert "6 unchanged" in run("ingest")[2]
    assert run("groups")[1] == out


def test_parts_are_printed_and_sidecars_compared(run: Run, photos: Path) -> None:
    (photos / "a.xmp").write_text("rated 3")
    (photos / "sub" / "a copy.xmp").write_text("rated 3")
    keep, copy, *_ = run("dedupe", photos)[1].splitlines()
    assert " + a.xmp " in keep
    assert " + a copy.xmp " in copy
    assert "not to be given up" not in copy
    (photos / "sub" / "a copy.xmp").write_text("rated 5")  # as many bytes
    copy = run("dedupe", photos)[1].splitlines()[1]
    assert copy.endswith("not to be given up: a copy.xmp has no copy beside the keeper")


def test_keep_rules_choose_the_keeper(run: Run, photos: Path) -> None:
    run("ingest", photos)
    assert run("groups")[1].startswith(f"keep  {photos}/a.png")
    for rules in (
        ["--keep", "folder:sub"],
        ["--keep", "format, folder:s*"],
        ["--keep", "folder:nowhere", "--keep", f"folder:{photos}/sub"],
    ):
        code, out, _ = run("groups", *rules)
        assert code == 0
        assert out.startswith(f"keep  {photos}/sub/")
        assert "in sub" in out or "in s*" in out or f"in {photos}/sub" in out
    assert (
        run("dedupe", photos, "--keep", "folder:sub")[1] == run("groups", "--keep", "folder:sub")[1]
    )
    for command in (["groups"], ["dedupe", photos]):
        code, out, err = run(*command, "--keep", "date,largest")
        assert (code, out) == (2, "")
        assert "'largest' is not a keep rule; use original, resolution, format" in err


def test_answers_warn_when_last_ingest_did_not_finish(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run("ingest", photos)
    assert "did not finish" not in run("groups")[2]
    for outcome in ("running", "interrupted"):
        with Store(tmp_path / "library", write=True) as store, store.catalog.transaction():
            store.catalog._db.execute("UPDATE runs SET outcome = ?", (outcome,))
        for command in (["groups"], ["query", photos / "a.png"]):
            assert "did not finish" in run(*command)[2]
    assert "running, or cut off" not in run("status")[1]
