"""Processes forked from one that has loaded all modules: they start in no time.

Forks of a process that never ran a thread pool are safe.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing import connection, reduction
from multiprocessing.context import ForkServerProcess
from threading import Lock
from typing import Any

import pytest

from pipeline.workers import process as child

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        __name__,
        "tests.support.nightly",
        "faiss",
        "pipeline.cli.main",
        "pipeline.decode.worker",
        "pillow_heif",
        "pillow_jxl",
        "rawpy",
        "pipeline.verify.worker",
        "pipeline.verify.verify",
        "pipeline.verify.judge",
    ]
)

# Every start also asks for the exit codes of all others, and each can be read only once.
_lock = Lock()


class ForkedWorker:
    """Has what a worker pool uses of subprocess.Popen."""

    def __init__(self, process: ForkServerProcess) -> None:
        assert process.pid is not None
        self._process, self.pid = process, process.pid

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        if not connection.wait([self._process.sentinel], timeout):
            raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0)
        with _lock:
            self._process.join()
            assert self._process.exitcode is not None
            return self._process.exitcode


class _InheritedFd:
    """A descriptor that the process which gets it as an argument inherits, as an integer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _detach, (reduction.DupFd(self._fd),)


def _detach(fd: Any) -> int:  # noqa: ANN401 - private to multiprocessing
    number: int = fd.detach()
    return number


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """Have worker pools of this process fork their workers."""
    patch.setattr(child, "spawn", _fork_worker)


def _fork_worker(
    module: str, args: Sequence[object], fds: Sequence[int], stderr_fd: int
) -> ForkedWorker:
    """Start a child as pipeline.workers.process.spawn() does."""
    inherited = [_InheritedFd(arg) if type(arg) is int and arg in fds else arg for arg in args]
    process = FORKSERVER.Process(
        target=_serve, args=(module, inherited, _InheritedFd(stderr_fd)), daemon=True
    )
    with _lock:
        process.start()
    return ForkedWorker(process)


def _serve(module: str, args: Sequence[object], stderr_fd: int) -> None:
    os.setsid()
    os.dup2(stderr_fd, 2)
    os.close(stderr_fd)
    import_module(module).serve(*map(str, args))
