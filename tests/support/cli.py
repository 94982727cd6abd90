"""The command line as tests run it: in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# (*words, stdin=None) -> (exit code, stdout, stderr); see the fixture `run`
Run = Callable[..., tuple[int, str, str]]
NEARDUP = (sys.executable, "-m", "pipeline.cli")


def run_process(store: Path, *words: str | Path) -> tuple[int, str, str]:
    """Run the command line in a process of its own: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [*NEARDUP, *map(str, words)],
        env=os.environ | {"NEARDUP_STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
