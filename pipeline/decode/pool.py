"""Decode files in worker processes, so that what a file does to its decoder costs only that file.

A worker decodes one file at a time. The kernel ends it if the file takes too long, and gives it no
memory beyond its limit. Its file is then tried once more by a fresh process, and after that given
up. Bytes and pixels pass through shared memory; the rest is small JSON, see messages.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from threading import Semaphore

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.decode import Decoded, PreprocessOrLoader, decode_source
from pipeline.decode.formats import EXTRA_INSTALLED, MODULE_BY_EXTRA, FailureReason
from pipeline.decode.messages import DecodedHeader, DecodeRequest, parse_rejection
from pipeline.decode.preprocess import DecodedImage, Preprocess
from pipeline.decode.read import AlreadyStored, Failure, Rejected
from pipeline.errors import DecoderStartFailed
from pipeline.scan import SourceFile
from pipeline.workers import shared_memory
from pipeline.workers.cpus import count_usable_cores
from pipeline.workers.pool import RequestAbandoned, WorkerKind, WorkerPool
from pipeline.workers.process import receive_line

MAX_SECONDS_PER_FILE = 60.0
# Of a worker: twice what the largest image takes that is not rejected.
MAX_WORKER_MEMORY_BYTES = 3 << 29
MAX_ATTEMPTS_PER_FILE = 2  # processes that a file may crash before it is given up
# Beyond its time limit, after which a worker that the kernel did not end is killed.
REPLY_GRACE_SECONDS = 10.0


class DecoderPool:
    """A pool of worker processes that decode files.

    The processes are started at the first use, or by start(). Can be used from any thread, and must
    be closed. Raises DecoderStartFailed, from whichever method first needs it, if a process does
    not start: that is no fault of a file.
    """

    def __init__(
        self,
        workers: int | None = None,
        readers: int = 1,
        max_seconds: float = MAX_SECONDS_PER_FILE,
        max_memory_bytes: int = MAX_WORKER_MEMORY_BYTES,
    ) -> None:
        """Prepare `workers` processes, one for each usable core by default; start nothing yet.

        At most `readers` files are read at a time. A file may take `max_seconds`, and a process
        `max_memory_bytes`.
        """
        workers = workers or count_usable_cores()
        self._thread_count = workers + readers
        self._read_slots = Semaphore(readers)
        # A worker may have to wait until each of the others has decoded a large image.
        self._reply_timeout_seconds = (workers + 1) * max_seconds + REPLY_GRACE_SECONDS
        try:
            self._large_image_lock_fd = shared_memory.create()
        except OSError as error:
            raise _make_start_error(str(error)) from error
        modules = [MODULE_BY_EXTRA[extra] for extra in MODULE_BY_EXTRA if EXTRA_INSTALLED[extra]]
        kind = WorkerKind(
            name="decoder",
            module="pipeline.decode.worker",
            exchange=self._exchange,
            make_start_error=_make_start_error,
            args=[self._large_image_lock_fd, max_seconds, max_memory_bytes, " ".join(modules)],
            fds=[self._large_image_lock_fd],
            max_seconds=max_seconds,
        )
        self._workers = WorkerPool(kind, workers)
        self._resources = ExitStack()  # closed once, however often close() is called
        self._resources.callback(os.close, self._large_image_lock_fd)
        self._resources.callback(self._workers.close)

    def __enter__(self) -> DecoderPool:
        """Return the pool."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the pool."""
        self.close()

    def close(self) -> None:
        """End the processes for good, whatever they are doing."""
        self._workers.terminate()
        self._resources.close()

    def start(self, file_count: int) -> None:
        """Start as many processes as `file_count` files need, without waiting for them."""
        self._workers.start(file_count)

    def decode(
        self,
        source: SourceFile,
        preprocess: PreprocessOrLoader,
        is_wanted: Callable[[bytes], bool] = lambda hash: True,
    ) -> Decoded | AlreadyStored | Failure:
        """Decode one file in a worker; see decode_source()."""
        return decode_source(
            source, preprocess, is_wanted, self._read_slots, self._decode_in_worker
        )

    def stream(
        self,
        sources: Iterable[SourceFile],
        preprocess: PreprocessOrLoader,
        is_wanted: Callable[[bytes], bool] = lambda hash: True,
        prefetch: int = 0,
    ) -> Generator[Decoded | AlreadyStored | Failure]:
        """Decode files in the order of `sources`, about `prefetch` of them ahead of the caller.

        If the generator is closed before its end, the processes are ended for good, whatever they
        are doing, so that no file that hangs is waited for.
        """
        window: deque[Future[Decoded | AlreadyStored | Failure]] = deque()
        with ThreadPoolExecutor(self._thread_count, thread_name_prefix="decode") as threads:
            try:
                for source in sources:
                    window.append(threads.submit(self.decode, source, preprocess, is_wanted))
                    if len(window) >= prefetch + self._thread_count:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            except BaseException:
                for future in window:
                    future.cancel()
                self._workers.terminate()  # before the executor waits for its threads
                raise

    def _decode_in_worker(
        self, data: bytes, digest: bytes, preprocess: Preprocess, is_raw: bool
    ) -> DecodedImage:
        request = DecodeRequest(data, digest, preprocess, is_raw)
        try:
            answer = self._workers.request(request, MAX_ATTEMPTS_PER_FILE)
        except RequestAbandoned as abandoned:
            raise Rejected(FailureReason.POISONED, str(abandoned)) from abandoned
        if isinstance(answer, Rejected):
            raise answer
        return answer

    def _exchange(
        self, channel: socket.socket, memory_fd: int, request: DecodeRequest
    ) -> DecodedImage | Rejected:
        """Have a worker decode a file; for what this raises see WorkerKind."""
        shared_memory.put(memory_fd, request.data)
        message = {
            "size": len(request.data),
            "digest": request.digest.hex(),
            "raw": request.is_raw,
            "preprocess": asdict(request.preprocess),
        }
        channel.settimeout(self._reply_timeout_seconds)
        channel.sendall(json.dumps(message).encode() + b"\n")
        answer = json.loads(receive_line(channel, self._reply_timeout_seconds))
        if "reason" in answer:
            result: DecodedImage | Rejected = parse_rejection(answer)
        else:
            header = DecodedHeader.from_json(answer, request.preprocess, len(request.digest))
            shapes = [header.shape, *([header.thumbnail_shape] if header.thumbnail_shape else [])]
            result = DecodedImage(header.to_image(request), *_read_pixels(memory_fd, shapes))
        os.ftruncate(memory_fd, 0)
        return result


def _read_pixels(memory_fd: int, shapes: Sequence[tuple[int, int]]) -> list[NDArray[np.uint8]]:
    """Read RGB pixels of these (height, width), one after the other, from shared memory."""
    sizes = [height * width * 3 for height, width in shapes]
    samples = np.frombuffer(shared_memory.get(memory_fd, sum(sizes)), np.uint8)
    parts = np.split(samples, np.cumsum(sizes)[:-1])
    return [part.reshape(*shape, 3) for part, shape in zip(parts, shapes, strict=True)]


def _make_start_error(reason: str) -> DecoderStartFailed:
    return DecoderStartFailed(
        f"the processes that decode images did not start: {reason}; no image was counted as failed "
        "for it. See what is installed with `neardup doctor`; if an installation was interrupted, "
        "`pip install --force-reinstall neardup` repairs it; then run the same command again"
    )
