from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indexes import Store
from tests.support.cli import Run, run_process
from tests.support.images import draw_scene, save_image

# The command line with small commits. It prints how many files each commit has, and waits for
# standard input to close after as many commits as its first argument says.
STOPPABLE_NEARDUP = """
import sys
import pipeline.ingest.ingest as ingest
from indexes import Store

defaults = ingest.IngestOptions.__init__.__defaults__
ingest.IngestOptions.__init__.__defaults__ = (4, 4, *defaults[2:])
commits_left = int(sys.argv.pop(1))
add = Store.add

def add_and_report(store, batch):
    global commits_left
    add(store, batch)
    commits_left -= 1
    print(len(batch.files), flush=True)
    if not commits_left:
        sys.stdin.read()

Store.add = add_and_report
from pipeline.cli.main import main
main()
"""


def load_groups(run: Run, store: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(run("groups", "--json", "--store", store)[1])["groups"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of 24 images, 12 scenes at two sizes each, and the store of a complete ingest."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for number in range(24):
        scene = draw_scene(number // 2, (240, 180))
        if number % 2:
            scene = scene.resize((180, 135))
        save_image(folder / "root" / f"{number:02}.jpg", scene, quality=80)
    assert run_process(folder / "whole", "ingest", folder / "root")[0] == 0
    return folder / "root", folder / "whole"


@pytest.mark.parametrize(
    ("signal_number", "commits"),
    [
        (signal.SIGKILL, 1),
        (signal.SIGKILL, 2),
        (signal.SIGKILL, 4),
        (signal.SIGINT, 1),
        (signal.SIGINT, 4),
        (signal.SIGTERM, 2),
    ],
)
def test_stopped_ingest_continues_to_the_same_result(
    tmp_path: Path,
    run: Run,
    uninterrupted: tuple[Path, Path],
    signal_number: signal.Signals,
    commits: int,
) -> None:
    """Committed work survives, and the next run reaches the groups of an uninterrupted ingest."""
    (root, whole), stopped = uninterrupted, tmp_path / "stopped"
    environment = os.environ | {"NEARDUP_STORE": str(stopped)}
    arguments = [
        sys.executable,
        "-c",
        STOPPABLE_NEARDUP,
        str(commits),
        "ingest",
        str(root),
        "--batch",
        "4",
    ]
    with subprocess.Popen(
        arguments,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        committed = sum(int(running.stdout.readline()) for _ in range(commits))
        running.send_signal(signal_number)
        _, err = running.communicate()
    assert (
        running.returncode
        == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[signal_number]
    ), err
    assert "Traceback" not in err
    assert ("continues from there" in err) == (signal_number != signal.SIGKILL)
    with Store(stopped) as store:
        kept = store.catalog.files.get_counts().files
    assert committed <= kept < 24
    code, _, err = run("ingest", root, "--store", stopped)
    assert code == 0
    assert f"{24 - kept} images embedded" in err
    groups = load_groups(run, stopped)
    assert groups == load_groups(run, whole)
    assert len(groups) == 12
