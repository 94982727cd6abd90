from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.images import draw_scene, save_image

Run = Callable[..., tuple[int, str, str]]


def on_a_terminal(store: Path, *words: str | Path) -> tuple[int, str]:
    """(exit code, what a terminal gets to see) of a command."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"NEARDUP_STORE": str(store), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)], env=environment, stderr=theirs
    ) as running:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # how a pseudo-terminal says that the other end is closed
            pass
    os.close(ours)
    return running.returncode, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())


def test_a_terminal_shows_a_bar(tmp_path: Path, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    code, seen = on_a_terminal(tmp_path / "store", "ingest", photos)
    assert code == 3
    assert "7/7" in seen
    assert "images/s" in seen
    assert "broken.jpg: truncated" in seen
    assert "7 files seen, 6 new" in seen


def test_elsewhere_a_line_comes_now_and_then(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "images/s" not in run("ingest", photos)[2]  # it took less than a minute
    for number in range(3):
        save_image(photos / f"new{number}.jpg", draw_scene(60 + number))
    monkeypatch.setattr("pipeline.cli.progress.PROGRESS_LINE_SECONDS", 0.0)
    err = run("ingest")[2]
    assert re.search(r"^1 of 3 files read, \d+ images/s, 0 min left$", err, re.MULTILINE)


def test_decoders_do_not_write_to_the_terminal(tmp_path: Path, photos: Path) -> None:
    """libtiff tells descriptor 2 what it thinks of odd files, whatever Python does with warnings."""
    data = bytearray(
        save_image(photos / "odd.tiff", draw_scene(1), compression="tiff_lzw").read_bytes()
    )
    data[100:400] = bytes(300)
    (photos / "odd.tiff").write_bytes(data)
    environment = os.environ | {"NEARDUP_STORE": str(tmp_path / "store")}
    words = [sys.executable, "-m", "pipeline.cli", "ingest", str(photos)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "failed 1 (1 damaged)" in done.stderr
    assert "LZWDecode" not in done.stderr  # as it does when nobody stops it
    assert len(done.stderr.splitlines()) == 2


def test_signals_are_given_back(run: Run, photos: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run("ingest", photos)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
