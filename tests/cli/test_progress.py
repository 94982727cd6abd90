from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from pipeline.actions.outcome import Outcome, Status
from pipeline.cli import progress
from tests.support.actions import make_desk, save
from tests.support.cli import NEARDUP, Run, run_process
from tests.support.images import draw_scene, save_image


def run_on_terminal(store: Path, *arguments: str | Path) -> tuple[int, str]:
    """Run a command whose stderr is a terminal: (exit code, what the terminal got, as text)."""
    own_end, command_end = pty.openpty()
    environment = os.environ | {"NEARDUP_STORE": str(store), "TERM": "xterm"}
    with subprocess.Popen(
        [*NEARDUP, *map(str, arguments)], env=environment, stderr=command_end
    ) as running:
        os.close(command_end)
        printed = b""
        try:
            while part := os.read(own_end, 4096):
                printed += part
        except OSError:  # a pseudo-terminal raises this when its other end is closed
            pass
    os.close(own_end)
    return running.returncode, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.decode())


def test_ingest_on_a_terminal_shows_a_bar(tmp_path: Path, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    code, printed = run_on_terminal(tmp_path / "store", "ingest", photos)
    assert code == 3
    assert "7/7" in printed
    assert "images/s" in printed
    assert "broken.jpg: truncated" in printed
    assert "7 files seen, 6 new" in printed


def test_apply_on_a_terminal_shows_files_and_bytes(run: Run, tmp_path: Path, photos: Path) -> None:
    plan, store = tmp_path / "plan.json", tmp_path / "library"
    run("ingest", photos)
    run("plan", "--output", plan)
    code, printed = run_on_terminal(store, "apply", plan, "--yes")
    assert code == 0, printed
    assert re.search(r"1 of 1 files, [\d.]+ kB of [\d.]+ kB", printed)
    assert run("undo", "last")[0] == 0
    run("ingest")
    run("plan", "--output", tmp_path / "again.json")
    assert " of " not in run("apply", tmp_path / "again.json", "--yes")[2]


def test_outcome_of_a_sidecar_is_no_file_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge of metadata has an outcome of its own, and no size."""
    monkeypatch.setattr(progress, "_has_terminal", lambda: True)
    desk = make_desk(tmp_path)
    files = [save(desk.root / name, b"one") for name in ("keep.jpg", "copy.jpg")]
    plan = desk.make_plan([(files[0], files[1:])])
    paths = (f"{files[0]}.xmp", str(files[1]))
    outcomes = [Outcome(path, Status.DONE) for path in paths]
    assert progress.follow_plan(outcomes, plan) == outcomes


def test_ingest_without_a_terminal_prints_a_line_now_and_then(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "reading photos" not in run("ingest", photos)[2]  # it took less than a minute
    for number in range(3):
        save_image(photos / f"new{number}.jpg", draw_scene(60 + number))
    monkeypatch.setattr("pipeline.cli.progress.PROGRESS_LINE_SECONDS", 0.0)
    err = run("ingest")[2]
    assert re.search(r"^reading photos: 2 of 3, about \d+ s left$", err, re.MULTILINE)
    assert "searching for photos within photos" in err
    assert "comparing pairs of photos" in err


def test_decoders_do_not_write_to_the_terminal(tmp_path: Path, photos: Path) -> None:
    """libtiff writes its complaints to descriptor 2, whatever Python does with warnings."""
    data = bytearray(
        save_image(photos / "odd.tiff", draw_scene(1), compression="tiff_lzw").read_bytes()
    )
    data[100:400] = bytes(300)
    (photos / "odd.tiff").write_bytes(data)
    code, _, err = run_process(tmp_path / "store", "ingest", photos)
    assert code == 3
    assert "failed 1 (1 damaged)" in err
    assert "LZWDecode" not in err  # libtiff's complaint
    assert len(err.splitlines()) == 2


def test_ingest_restores_signal_handlers(run: Run, photos: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run("ingest", photos)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
