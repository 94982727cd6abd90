"""Start a child process, receive its lines, and describe how it ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

READY_LINE = b"ready\n"  # a worker sends it once, before its first request
MAX_LINE_BYTES = 1 << 16  # of a line that a worker may send


def spawn(
    module: str, args: Sequence[object], fds: Sequence[int], stderr_fd: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a child that runs `module.serve(*args)`, with the arguments as strings.

    The child inherits the descriptors `fds`, and writes errors to `stderr_fd`. Raises OSError if it
    cannot be started.
    """
    # sys.path first: nothing may be imported from the folder that a command happens to run in.
    end = len(args) + 1
    code = (
        f"import sys; sys.path[:] = sys.argv[{end}:]; "
        f"from {module} import serve; serve(*sys.argv[1:{end}])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args), *sys.path],
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr_fd,
        start_new_session=True,  # Ctrl-C is for the parent, which then ends its children
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def report_ready(channel_fd: int) -> None:
    """Tell the parent, from inside a worker, that it is ready for requests.

    From now on stderr is discarded: the parent only reads it if the start fails, and C libraries
    write warnings about unusual files to it. Raises ConnectionError if the parent has ended.
    """
    with open(os.devnull, "wb") as devnull:  # noqa: PTH123 - not a file of a user
        os.dup2(devnull.fileno(), 2)
    os.write(channel_fd, READY_LINE)


def receive_line(channel: socket.socket, timeout_seconds: float) -> bytes:
    """Receive one line, with its end.

    Raises TimeoutError, EOFError, or ValueError for more than one line or too long a line.
    """
    deadline, line = time.monotonic() + timeout_seconds, b""
    while not line.endswith(b"\n"):
        # One deadline for the whole line, because a worker could send half of one and stop.
        channel.settimeout(max(deadline - time.monotonic(), 0.001))
        part = channel.recv(MAX_LINE_BYTES + 1 - len(line))
        if not part:
            raise EOFError
        line += part
        if len(line) > MAX_LINE_BYTES or b"\n" in line[:-1]:
            raise ValueError("more than one line, or too long a line")
    return line


def wait_or_kill(process: subprocess.Popen[bytes], timeout_seconds: float) -> int:
    """Wait until a process ends, kill it after the timeout, and return its exit code."""
    try:
        return process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def describe_exit(code: int) -> str:
    """Describe how a process ended, by its exit code as subprocess reports it."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with {code}"
