"""Processes of our own that work beside this one: how they are begun, and how they came to their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence


def spawn(
    module: str, args: Sequence[object], fds: Sequence[int], stderr_fd: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """A process that calls `serve` of a module with these words; it has the same descriptors `files`, and may write to `errors`.

    Raises OSError where it cannot be started.
    """
    # sys.path first: nothing may be imported from the folder that a command happens to run in.
    last = len(args) + 1
    begin = f"import sys; sys.path[:] = sys.argv[{last}:]; from {module} import serve; serve(*sys.argv[1:{last}])"
    return subprocess.Popen(
        [sys.executable, "-c", begin, *map(str, args), *sys.path],
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr_fd,
        start_new_session=True,  # Ctrl-C is for the process that started it
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def terminate(process: subprocess.Popen[bytes], timeout_seconds: float) -> int:
    """What a process ended with, which ends when its link does; by force after so many seconds."""
    try:
        return process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def describe_exit(code: int) -> str:
    """What a process ended with, in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
