"""Inside a process that decodes: files come through memory that both sides have open, one at a time, and their pictures go back so."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np

from pipeline.decode.image import decode_image, load_format_plugins
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import Rejected
from pipeline.workers import shared_memory


def serve(
    channel_fd: str,
    memory_fd: str,
    memory_lock_fd: str,
    max_seconds: str,
    max_memory_bytes: str,
    extra_modules: str,
) -> None:
    """Say that it is ready, then decode what comes through a link until it ends.

    The descriptors, the limits and the modules of extras are those that _Process gives on the command line. Raises ImportError, before it
    is ready, where a decoder is not there.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    load_format_plugins()
    for module in extra_modules.split():
        import_module(module)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of ours
        os.dup2(
            nowhere.fileno(), 2
        )  # what would have said why it did not start; C libraries tell it what they think of odd files
    resource.setrlimit(resource.RLIMIT_DATA, (int(max_memory_bytes), int(max_memory_bytes)))
    clock = float(max_seconds)
    with (
        socket.socket(fileno=int(channel_fd)) as asked,
        asked.makefile("rb") as lines,
        suppress(ConnectionError),
    ):
        asked.sendall(shared_memory.READY_LINE)
        for line in lines:
            question = json.loads(line)
            signal.setitimer(
                signal.ITIMER_REAL, clock
            )  # its signal is not handled: the kernel ends the process, whatever it does
            answer = _answer(question, int(memory_fd), _MemoryLock(int(memory_lock_fd), clock))
            signal.setitimer(signal.ITIMER_REAL, 0)
            asked.sendall(json.dumps(answer).encode() + b"\n")


def _answer(request: dict[str, Any], memory_fd: int, memory_lock: _MemoryLock) -> dict[str, Any]:
    try:
        # The hash of the bytes is not sent: where it stands for the pixels, who knows it puts it in.
        image, shown = decode_image(
            shared_memory.get(memory_fd, request["size"]),
            b"",
            Preprocess(*request["preprocess"]),
            request["raw"],
            memory_lock,
        )
    except Rejected as refused:
        return {"reason": refused.reason, "detail": refused.detail}
    shared_memory.put(memory_fd, np.ascontiguousarray(shown).data.cast("B"))
    return {
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "pixels": image.pixel_hash.hex(),
        "featureless": image.is_featureless,
        "flags": image.flags,
        "metadata": image.metadata,
        "taken": image.taken_at,
        "shape": shown.shape[:2],
    }


class _MemoryLock:
    """One process at a time is within; what it waited does not count against its file. A lock of the kernel: it ends with its process."""

    def __init__(self, lock_fd: int, max_seconds: float) -> None:
        self._lock_fd, self._max_seconds = lock_fd, max_seconds

    def __enter__(self) -> None:
        left = signal.setitimer(signal.ITIMER_REAL, 0)[0]
        fcntl.lockf(self._lock_fd, fcntl.LOCK_EX)
        signal.setitimer(signal.ITIMER_REAL, left or self._max_seconds)

    def __exit__(self, kind: object, error: object, where: object) -> None:
        fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)
