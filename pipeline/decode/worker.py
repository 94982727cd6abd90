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

from pipeline.decode.image import picture, prepare
from pipeline.decode.preprocess import View
from pipeline.decode.read import Refused
from pipeline.workers import shared_memory


def serve(link: str, memory: str, turn: str, seconds: str, most: str, extras: str) -> None:
    """Say that it is ready, then decode what comes through a link until it ends.

    The descriptors, the limits and the modules of extras are those that _Process gives on the command line. Raises ImportError, before it
    is ready, where a decoder is not there.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prepare()
    for module in extras.split():
        import_module(module)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of ours
        os.dup2(nowhere.fileno(), 2)  # what would have said why it did not start; C libraries tell it what they think of odd files
    resource.setrlimit(resource.RLIMIT_DATA, (int(most), int(most)))
    clock = float(seconds)
    with socket.socket(fileno=int(link)) as asked, asked.makefile("rb") as lines, suppress(ConnectionError):
        asked.sendall(shared_memory.READY)
        for line in lines:
            question = json.loads(line)
            signal.setitimer(signal.ITIMER_REAL, clock)  # its signal is not handled: the kernel ends the process, whatever it does
            answer = _answer(question, int(memory), _Turn(int(turn), clock))
            signal.setitimer(signal.ITIMER_REAL, 0)
            asked.sendall(json.dumps(answer).encode() + b"\n")


def _answer(question: dict[str, Any], memory: int, turn: _Turn) -> dict[str, Any]:
    try:
        # The hash of the bytes is not sent: where it stands for the pixels, who knows it puts it in.
        image, shown = picture(shared_memory.get(memory, question["size"]), b"", View(*question["view"]), question["raw"], turn)
    except Refused as refused:
        return {"reason": refused.reason, "detail": refused.detail}
    shared_memory.put(memory, np.ascontiguousarray(shown).data.cast("B"))
    return {
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "pixels": image.pixels.hex(),
        "featureless": image.featureless,
        "notes": image.notes,
        "metadata": image.metadata,
        "taken": image.taken,
        "shape": shown.shape[:2],
    }


class _Turn:
    """One process at a time is within; what it waited does not count against its file. A lock of the kernel: it ends with its process."""

    def __init__(self, file: int, seconds: float) -> None:
        self._file, self._seconds = file, seconds

    def __enter__(self) -> None:
        left = signal.setitimer(signal.ITIMER_REAL, 0)[0]
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        signal.setitimer(signal.ITIMER_REAL, left or self._seconds)

    def __exit__(self, kind: object, error: object, where: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)
