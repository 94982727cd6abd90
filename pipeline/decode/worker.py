"""Inside a worker process that decodes: files and pixels pass through shared memory."""

from __future__ import annotations

import fcntl
import json
import resource
import signal
import socket
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.image import decode_image
from pipeline.decode.messages import DecodedHeader
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import Rejected
from pipeline.decode.readers.pillow import load_format_plugins
from pipeline.workers import shared_memory
from pipeline.workers.process import report_ready


def serve(
    channel_fd: str,
    memory_fd: str,
    large_image_lock_fd: str,
    max_seconds: str,
    max_memory_bytes: str,
    extra_modules: str,
) -> None:
    """Report that the worker is ready, then answer requests until the channel is closed.

    The arguments are those that DecoderPool gives on the command line. Raises ImportError, before
    it is ready, if a decoder is missing.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    load_format_plugins()
    for module in extra_modules.split():
        import_module(module)
    resource.setrlimit(resource.RLIMIT_DATA, (int(max_memory_bytes), int(max_memory_bytes)))
    timer_seconds = float(max_seconds)
    large_image_lock = _LargeImageLock(int(large_image_lock_fd), timer_seconds)
    with (
        socket.socket(fileno=int(channel_fd)) as channel,
        channel.makefile("rb") as lines,
        suppress(ConnectionError),
    ):
        report_ready(channel.fileno())
        for line in lines:
            request = json.loads(line)
            # SIGALRM has no handler, so the kernel ends the process, whatever it is doing.
            signal.setitimer(signal.ITIMER_REAL, timer_seconds)
            answer = _answer(request, int(memory_fd), large_image_lock)
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.sendall(json.dumps(answer).encode() + b"\n")


def _answer(
    request: dict[str, Any], memory_fd: int, large_image_lock: _LargeImageLock
) -> dict[str, Any]:
    try:
        decoded = decode_image(
            shared_memory.get(memory_fd, request["size"]),
            bytes.fromhex(request["digest"]),
            Preprocess(**request["preprocess"]),
            request["raw"],
            large_image_lock,
        )
    except Rejected as rejected:
        return {"reason": rejected.reason, "detail": rejected.detail}
    shared_memory.put(memory_fd, decoded.pixels.tobytes() + _get_bytes(decoded.thumbnail))
    return DecodedHeader.from_decoded(decoded).to_json()


def _get_bytes(pixels: NDArray[np.uint8] | None) -> bytes:
    return b"" if pixels is None else pixels.tobytes()


class _LargeImageLock:
    """A lock that one worker holds at a time; waiting for it does not count against its file.

    The kernel releases it when its process ends.
    """

    def __init__(self, lock_fd: int, max_seconds: float) -> None:
        self._lock_fd, self._max_seconds = lock_fd, max_seconds

    def __enter__(self) -> None:
        remaining_seconds = signal.setitimer(signal.ITIMER_REAL, 0)[0]
        fcntl.lockf(self._lock_fd, fcntl.LOCK_EX)
        signal.setitimer(signal.ITIMER_REAL, remaining_seconds or self._max_seconds)

    def __exit__(self, kind: object, error: object, where: object) -> None:
        fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)
