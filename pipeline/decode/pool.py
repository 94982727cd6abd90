"""Processes that decode, each one file at a time: whatever a picture does to its decoder, it costs that picture.

The kernel ends a process whose file takes too long, and gives it no memory beyond its limit. One that is ended is replaced, and tries the
file once more; then the file is given up. Bytes and pixels travel through memory that both sides have open; what is said is small JSON, and
checked, because what has decoded hostile bytes is not believed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import LifoQueue
from threading import Lock, Semaphore
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexes.records import Image
from pipeline.decode.decode import Decoded, PreprocessOrLoader, decode
from pipeline.decode.preprocess import DecodedImage, Preprocess
from pipeline.decode.read import (
    EXTRA_INSTALLED,
    IMAGE_FLAGS,
    METADATA_KINDS,
    MODULE_BY_EXTRA,
    REJECTION_REASONS,
    AlreadyStored,
    Failure,
    Rejected,
)
from pipeline.errors import DecoderStartFailed
from pipeline.scan import SourceFile
from pipeline.workers import process as child
from pipeline.workers import shared_memory

MAX_SECONDS_PER_FILE = 60.0  # that one file may take
MAX_WORKER_MEMORY_BYTES = (
    3 << 29
)  # bytes that a process may hold: twice what the largest picture takes that is not refused
MAX_ATTEMPTS_PER_FILE = 2  # processes that a file may cost
TERMINATE_GRACE_SECONDS = 10.0  # seconds beyond its limit after which a process is ended from here
MAX_LINE_BYTES = 1 << 16  # bytes of an answer
MAX_SIDE_PIXELS = (1 << 31) - 1  # of a picture; SQLite holds more
MAX_FORMAT_NAME_CHARS = 20  # letters of its name
MIN_TAKEN_TIMESTAMP, MAX_TAKEN_TIMESTAMP = (
    -5_000_000_000,
    253_402_300_800,
)  # seconds since 1970: in 1811, and the year 10000
SPAWN_TIMEOUT_SECONDS = 120.0  # seconds until a process is ready: a tenth of one, but from a cold disk beside other work


def count_usable_cores() -> int:
    """Those that this process may run on, which a container or taskset makes fewer than there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class DecoderPool:
    """`count` processes, one for each usable core by default, started by first use or by start(); `readers` files are read at a time.

    Used from any thread, and closed at the end. Each file has `seconds`, and each process `memory` bytes. Raises BadDecoder, from
    wherever it is first met, where a process does not start: that says nothing of the file.
    """

    def __init__(
        self,
        workers: int | None = None,
        readers: int = 1,
        max_seconds: float = MAX_SECONDS_PER_FILE,
        max_memory_bytes: int = MAX_WORKER_MEMORY_BYTES,
    ) -> None:
        """Nothing is started yet."""
        workers = workers or count_usable_cores()
        self._thread_count = workers + readers
        self._read_slots = Semaphore(readers)
        self._memory_lock_fd = _create_shared_memory()
        self._workers = [
            _WorkerProcess(self._memory_lock_fd, max_seconds, max_memory_bytes, workers)
            for _ in range(workers)
        ]
        self._idle_workers: LifoQueue[_WorkerProcess] = (
            LifoQueue()
        )  # the last that was used first: who asks little starts few
        self._resources = ExitStack()  # closed once, however often this is
        self._resources.callback(os.close, self._memory_lock_fd)
        self._started_count = 0
        for process in self._workers:
            self._idle_workers.put(process)
            self._resources.callback(process.close)

    def __enter__(self) -> DecoderPool:
        """As it is."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do, for good."""
        self._stop_workers()
        self._resources.close()

    def start(self, file_count: int) -> None:
        """Start as many processes as so many files need, those that are used first, and do not wait until they are ready."""
        while self._started_count < min(file_count, len(self._workers)):
            self._started_count += 1
            self._workers[-self._started_count].start()

    def decode(
        self,
        source: SourceFile,
        preprocess: PreprocessOrLoader,
        is_wanted: Callable[[bytes], bool] = lambda hash: True,
    ) -> Decoded | AlreadyStored | Failure:
        """The picture of one file; see pipeline.decode.decode.decode."""
        return decode(source, preprocess, is_wanted, self._read_slots, self._decode_in_worker)

    def stream(
        self,
        sources: Iterable[SourceFile],
        preprocess: PreprocessOrLoader,
        is_wanted: Callable[[bytes], bool] = lambda hash: True,
        prefetch: int = 0,
    ) -> Generator[Decoded | AlreadyStored | Failure]:
        """The pictures of many, in the order of `sources`, and not many more than `ahead` of them before they are asked for.

        Where it is closed before its end, the processes are ended for good, whatever they do: nobody waits for a file that hangs.
        """
        window: deque[Future[Decoded | AlreadyStored | Failure]] = deque()
        with ThreadPoolExecutor(self._thread_count, thread_name_prefix="decode") as pool:
            try:
                for source in sources:
                    window.append(pool.submit(self.decode, source, preprocess, is_wanted))
                    if len(window) >= prefetch + self._thread_count:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            except BaseException:
                for future in window:
                    future.cancel()
                self._stop_workers()  # first: the pool waits for what runs
                raise

    def _stop_workers(self) -> None:
        for process in self._workers:
            process.stop()

    def _decode_in_worker(
        self, data: bytes, digest: bytes, preprocess: Preprocess, is_raw: bool
    ) -> DecodedImage:
        process = self._idle_workers.get()
        try:
            ends: list[str] = []
            while len(ends) < MAX_ATTEMPTS_PER_FILE:
                try:
                    return process.decode(data, digest, preprocess, is_raw)
                except _WorkerFailed as ended:
                    ends.append(str(ended))
            raise Rejected(
                "poisoned",
                "; again: ".join(ends) if len(set(ends)) > 1 else f"{ends[0]}, {len(ends)} times",
            )
        finally:
            self._idle_workers.put(process)


class _WorkerFailed(Exception):
    """A process was ended by the file that it decoded; says how."""


def _create_shared_memory() -> int:
    try:
        return shared_memory.create()
    except OSError as error:
        raise _make_start_error(str(error)) from error


def _make_start_error(reason: str) -> DecoderStartFailed:
    return DecoderStartFailed(
        f"a process that decodes photos did not start: {reason}; no photo was given up for it. See what is installed with `neardup doctor`;"
        " where an installation was cut off, `pip install --force-reinstall neardup` mends it; then run the same command again"
    )


class _RunningProcess(NamedTuple):
    process: subprocess.Popen[bytes]
    channel: socket.socket
    memory_fd: int


class _WorkerProcess:
    def __init__(
        self, memory_lock_fd: int, max_seconds: float, max_memory_bytes: int, pool_size: int
    ) -> None:
        self._memory_lock_fd, self._max_seconds, self._max_memory_bytes = (
            memory_lock_fd,
            max_seconds,
            max_memory_bytes,
        )
        self._reply_timeout_seconds = (
            (pool_size + 1) * max_seconds + TERMINATE_GRACE_SECONDS
        )  # it may wait until each of the others has had its turn
        self._request_lock = (
            Lock()
        )  # held while it is asked, so that what that uses is not closed meanwhile
        self._state_lock = Lock()  # of what follows
        self._running: _RunningProcess | None = None
        self._is_ready = self._is_closed = False

    def start(self) -> _RunningProcess:
        with self._state_lock:
            if self._is_closed:
                raise RuntimeError("these decoders are closed")
            if not self._running:
                self._running, self._is_ready = self._spawn(), False
            return self._running

    def _spawn(self) -> _RunningProcess:
        with ExitStack() as undone:
            memory = _create_shared_memory()
            undone.callback(os.close, memory)
            try:
                ours, theirs = socket.socketpair()
                undone.enter_context(ours)
                with theirs:
                    process = self._popen(theirs.fileno(), memory)
            except OSError as error:
                raise _make_start_error(str(error)) from error
            undone.pop_all()
        return _RunningProcess(process, ours, memory)

    def _popen(self, channel_fd: int, memory_fd: int) -> subprocess.Popen[bytes]:
        extras = " ".join(
            module for extra, module in MODULE_BY_EXTRA.items() if EXTRA_INSTALLED[extra]
        )
        words = (
            channel_fd,
            memory_fd,
            self._memory_lock_fd,
            self._max_seconds,
            self._max_memory_bytes,
            extras,
        )
        # Until it is ready, it writes to the memory what keeps it from being so.
        return child.spawn(
            "pipeline.decode.worker",
            words,
            [channel_fd, memory_fd, self._memory_lock_fd],
            memory_fd,
        )

    def ensure_ready(self) -> _RunningProcess:
        """Start it unless it runs, and wait until it is ready. Raises BadDecoder when it does not come to that."""
        running = self.start()
        if self._is_ready:
            return running
        how = "it said something else than that it is ready"  # or too much, which is a ValueError
        try:
            self._is_ready = (
                _receive_line(running.channel, SPAWN_TIMEOUT_SECONDS) == shared_memory.READY_LINE
            )
        except TimeoutError:
            how = f"it was not ready after {SPAWN_TIMEOUT_SECONDS:g} seconds"
        except (OSError, EOFError):
            said = os.pread(running.memory_fd, 1 << 16, 0).decode(errors="replace").split("\n")
            why = next((" ".join(line.split()) for line in reversed(said) if line.strip()), "")
            how = self.reap() + (f": {why[:200]}" if why.isprintable() and why else "")
        except ValueError:
            pass
        except BaseException:
            self.kill()
            raise
        if self._is_ready:
            return running
        self.kill()
        if self._is_closed:
            raise RuntimeError("these decoders were closed")
        raise _make_start_error(how)

    def decode(
        self, data: bytes, digest: bytes, preprocess: Preprocess, is_raw: bool
    ) -> DecodedImage:
        with self._request_lock:
            _, link, memory = self.ensure_ready()
            try:
                shared_memory.put(memory, data)
                asked = {
                    "size": len(data),
                    "raw": is_raw,
                    "preprocess": [
                        preprocess.size,
                        preprocess.fit,
                        preprocess.resample,
                        preprocess.fill,
                        preprocess.coarse,
                    ],
                }
                link.settimeout(self._reply_timeout_seconds)
                link.sendall(json.dumps(asked).encode() + b"\n")
                answer = json.loads(_receive_line(link, self._reply_timeout_seconds))
                found = (
                    _parse_rejection(answer)
                    if "reason" in answer
                    else _parse_decoded_image(answer, data, digest, preprocess, memory)
                )
                os.ftruncate(memory, 0)
            except TimeoutError as error:
                self.kill()
                raise _WorkerFailed(f"it took more than {self._max_seconds:g} seconds") from error
            except (OSError, EOFError) as error:
                raise _WorkerFailed(self.reap()) from error
            except (
                Exception
            ) as error:  # deep JSON, huge numbers: whatever it is, its process is not used again
                self.kill()
                raise _WorkerFailed("its decoder gave no sound answer") from error
            except BaseException:  # its answer would be taken for that to the next question
                self.kill()
                raise
        if isinstance(found, Rejected):
            raise found
        return found

    def stop(self) -> None:
        """End the process for good, and who asks it meanwhile hears of that; close() is still to come."""
        with self._state_lock:
            self._is_closed = True
            if self._running:
                self._running.process.kill()
                with suppress(OSError):
                    self._running.channel.shutdown(
                        socket.SHUT_RDWR
                    )  # it may have left children that hold its end

    def close(self) -> None:
        """End it for good, when nobody asks it any more."""
        self.stop()
        with self._request_lock:
            self.reap()

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._running:
            self._running.process.kill()
        self.reap()

    def reap(self) -> str:
        """End the process; says how it came to its end, if it had before."""
        with self._state_lock:
            running, self._running = self._running, None
        if not running:
            return "its decoder did not start"
        process, link, memory = running
        link.close()
        os.close(memory)
        code = child.terminate(process, TERMINATE_GRACE_SECONDS / 2)
        return (
            f"it took more than {self._max_seconds:g} seconds"
            if code == -signal.SIGALRM
            else f"its decoder {child.describe_exit(code)}"
        )


def _receive_line(channel: socket.socket, timeout_seconds: float) -> bytes:
    """One line that comes through a link, with its end; raises TimeoutError, EOFError, or ValueError for more than one or a long one."""
    end, line = time.monotonic() + timeout_seconds, b""
    while not line.endswith(b"\n"):
        # For each part what is left: half a line, and then nothing, would be waited for.
        channel.settimeout(max(end - time.monotonic(), 0.001))
        part = channel.recv(MAX_LINE_BYTES + 1 - len(line))
        if not part:
            raise EOFError
        line += part
        if len(line) > MAX_LINE_BYTES or b"\n" in line[:-1]:
            raise ValueError("no line")
    return line


def _parse_rejection(answer: dict[str, Any]) -> Rejected:
    """Why there is no picture. Raises ValueError, TypeError or KeyError where that cannot be so."""
    reason, detail = answer["reason"], answer["detail"]
    if reason not in REJECTION_REASONS or not isinstance(detail, str):
        raise ValueError("reason")
    return Rejected(reason, detail)


def _parse_decoded_image(
    answer: dict[str, Any], data: bytes, digest: bytes, preprocess: Preprocess, memory_fd: int
) -> DecodedImage:
    """The picture that a process says that it has decoded, if that can be so. Raises ValueError, TypeError or KeyError."""
    width, height, format_, featureless, shape = (
        answer[key] for key in ("width", "height", "format", "featureless", "shape")
    )
    shown_height, shown_width = shape
    if not all(
        type(side) is int and 0 < side <= MAX_SIDE_PIXELS
        for side in (width, height, shown_height, shown_width)
    ):
        raise ValueError("sides")
    if not isinstance(featureless, bool):
        raise TypeError("featureless")
    if not (
        isinstance(format_, str)
        and format_.isascii()
        and format_.isprintable()
        and 0 < len(format_) <= MAX_FORMAT_NAME_CHARS
    ):
        raise ValueError("format")
    notes, metadata, taken = tuple(answer["flags"]), tuple(answer["metadata"]), answer["taken"]
    if len(set(notes)) < len(notes) or not set(notes) <= set(IMAGE_FLAGS):
        raise ValueError("flags")
    if list(metadata) != sorted(set(metadata)) or not set(metadata) <= set(METADATA_KINDS):
        raise ValueError("metadata")
    if taken is not None and not (
        type(taken) is int and MIN_TAKEN_TIMESTAMP < taken < MAX_TAKEN_TIMESTAMP
    ):
        raise ValueError("taken")
    right = (
        max(shape) <= preprocess.size
        if preprocess.fit in ("within", "middle")
        else shown_height == shown_width == preprocess.size
    )
    pixels = bytes.fromhex(answer["pixels"]) or digest
    if not right or len(pixels) != len(digest):
        raise ValueError("shape")
    given = shared_memory.get(memory_fd, shown_height * shown_width * 3)
    shown: NDArray[np.uint8] = np.frombuffer(given, np.uint8).reshape(shown_height, shown_width, 3)
    return Image(
        digest, pixels, width, height, format_, len(data), featureless, notes, metadata, taken
    ), shown
