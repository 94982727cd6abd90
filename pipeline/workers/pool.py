"""Worker processes, each with one request at a time, and the pool that shares them out.

A worker that crashes, hangs or sends nonsense costs only its request: the process is killed and
replaced, and the pool sends the request to a fresh process as often as its caller allows. A process
that does not even start is no fault of a request, and raises another error.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from queue import LifoQueue
from threading import Lock
from typing import Generic, TypeVar

from pipeline.workers import process as child
from pipeline.workers import shared_memory

# A process is ready in a tenth of a second, but not from a cold disk beside other work.
SPAWN_TIMEOUT_SECONDS = 120.0
# Time for a process to end by itself once its channel is closed.
EXIT_TIMEOUT_SECONDS = 5.0
MAX_STDERR_BYTES = 1 << 16  # that are read to find out why a process did not start
MAX_STDERR_CHARS = 200  # of its last line, in a message

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class WorkerKind(Generic[Request, Answer]):
    """A kind of worker: how it is started, and how it gets a request and sends the answer.

    A worker runs `module.serve(channel_fd, memory_fd, *args)`, which calls report_ready() and then
    serves requests until its channel is closed. `exchange(channel, memory_fd, request)` returns the
    answer; it raises TimeoutError for a worker that hangs, OSError or EOFError for one that ended,
    and anything else for an answer that cannot be right. `make_start_error` turns the reason why a
    process did not start into the error to raise. `max_seconds` is the time after which a worker
    has the kernel end it by SIGALRM.
    """

    name: str  # for messages, such as "decoder"
    module: str
    exchange: Callable[[socket.socket, int, Request], Answer]
    make_start_error: Callable[[str], Exception]
    args: Sequence[object] = ()
    fds: Sequence[int] = ()  # that the process inherits beside its channel and memory
    max_seconds: float | None = None


class WorkerFailed(Exception):
    """A process crashed, hung, or sent an answer that cannot be right, while it had a request."""


class RequestAbandoned(Exception):
    """Every process that had a request failed; the message names each reason."""

    def __init__(self, reasons: Sequence[str]) -> None:
        """Keep the reason of each process, in order."""
        if len(reasons) > 1 and len(set(reasons)) == 1:
            super().__init__(f"{reasons[0]}, {len(reasons)} times")
        else:
            super().__init__("; then ".join(reasons))


@dataclass
class _RunningProcess:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    memory_fd: int
    is_ready: bool = False


class WorkerProcess(Generic[Request, Answer]):
    """One worker: a process that is started at its first request, and again after it failed.

    Can be used from any thread; requests wait for each other.
    """

    def __init__(self, kind: WorkerKind[Request, Answer]) -> None:
        """Start nothing yet."""
        self._kind = kind
        self._request_lock = Lock()  # held during a request, so that join() waits for its end
        self._state_lock = Lock()  # guards the two fields below
        self._running: _RunningProcess | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The id of the process, None if none runs."""
        running = self._running
        return running.process.pid if running else None

    def start(self) -> None:
        """Start the process unless it runs, without waiting until it is ready.

        Raises RuntimeError after terminate(), and the kind's start error.
        """
        self._start()

    def request(self, request: Request) -> Answer:
        """Send a request and wait for its answer.

        Raises WorkerFailed if the process crashes, hangs, or sends no valid answer; RuntimeError
        after terminate(); and the kind's start error.
        """
        with self._request_lock:
            running = self._start()
            self._wait_until_ready(running)
            try:
                return self._kind.exchange(running.channel, running.memory_fd, request)
            except TimeoutError as error:
                self._kill()
                raise WorkerFailed(self._describe_timeout()) from error
            except (OSError, EOFError) as error:
                raise WorkerFailed(self._reap()) from error
            except Exception as error:  # such as deep JSON or huge numbers
                self._kill()
                raise WorkerFailed(f"the {self._kind.name} sent no valid answer") from error
            except BaseException:  # its answer would be taken as that to the next request
                self._kill()
                raise

    def terminate(self) -> None:
        """Kill the process for good; a thread that waits for its answer gets an error at once."""
        with self._state_lock:
            self._is_closed = True
            if self._running:
                self._running.process.kill()
                with suppress(OSError):
                    # Children of the process can hold the other end of the channel open.
                    self._running.channel.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Terminate the process, and release what it used once no request needs it."""
        self.terminate()
        with self._request_lock:
            self._reap()

    def _start(self) -> _RunningProcess:
        with self._state_lock:
            if self._is_closed:
                raise RuntimeError(f"the {self._kind.name} pool is closed")
            if not self._running:
                try:
                    self._running = self._spawn()
                except OSError as error:
                    raise self._kind.make_start_error(str(error)) from error
            return self._running

    def _spawn(self) -> _RunningProcess:
        kind = self._kind
        with ExitStack() as undo:
            memory_fd = shared_memory.create()
            undo.callback(os.close, memory_fd)
            channel, child_channel = socket.socketpair()
            undo.enter_context(channel)
            with child_channel:
                # Until it is ready, the process writes errors to its memory.
                process = child.spawn(
                    kind.module,
                    [child_channel.fileno(), memory_fd, *kind.args],
                    [child_channel.fileno(), memory_fd, *kind.fds],
                    memory_fd,
                )
            undo.pop_all()
        return _RunningProcess(process, channel, memory_fd)

    def _wait_until_ready(self, running: _RunningProcess) -> None:
        if running.is_ready:
            return
        reason = "it sent something other than its ready message"
        try:
            line = child.receive_line(running.channel, SPAWN_TIMEOUT_SECONDS)
            running.is_ready = line == child.READY_LINE
        except TimeoutError:
            reason = f"it was not ready after {SPAWN_TIMEOUT_SECONDS:g} seconds"
        except (OSError, EOFError):
            message = _read_last_line(running.memory_fd)
            reason = self._reap() + (f": {message}" if message else "")
        except ValueError:
            pass  # more than a line, or too long a line
        except BaseException:
            self._kill()
            raise
        if running.is_ready:
            return
        self._kill()
        if self._is_closed:
            raise RuntimeError(f"the {self._kind.name} pool was closed")
        raise self._kind.make_start_error(reason)

    def _kill(self) -> None:
        if self._running:
            self._running.process.kill()
        self._reap()

    def _reap(self) -> str:
        """Wait for the end of the process, release what it used, and describe how it ended."""
        with self._state_lock:
            running, self._running = self._running, None
        if not running:
            return f"the {self._kind.name} did not run"
        running.channel.close()
        os.close(running.memory_fd)
        code = child.wait_or_kill(running.process, EXIT_TIMEOUT_SECONDS)
        if code == -signal.SIGALRM and self._kind.max_seconds is not None:
            return self._describe_timeout()
        return f"the {self._kind.name} {child.describe_exit(code)}"

    def _describe_timeout(self) -> str:
        if self._kind.max_seconds is None:
            return f"the {self._kind.name} took too long"
        return f"the {self._kind.name} took more than {self._kind.max_seconds:g} seconds"


def _read_last_line(stderr_fd: int) -> str | None:
    """Read the last line that a process wrote to stderr; None if that cannot be printed."""
    text = os.pread(stderr_fd, MAX_STDERR_BYTES, 0).decode(errors="replace")
    lines = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
    return lines[-1][:MAX_STDERR_CHARS] if lines and lines[-1].isprintable() else None


class WorkerPool(Generic[Request, Answer]):
    """`count` workers of one kind, started as they are needed. Can be used from any thread."""

    def __init__(self, kind: WorkerKind[Request, Answer], count: int) -> None:
        """Start nothing yet."""
        self.workers = [WorkerProcess(kind) for _ in range(count)]
        self._started_count = 0
        # The worker that was used last comes first, so that light use starts few processes.
        self._idle_workers: LifoQueue[WorkerProcess[Request, Answer]] = LifoQueue()
        for worker in self.workers:
            self._idle_workers.put(worker)

    def start(self, count: int) -> None:
        """Start up to `count` workers, those that are used first, without waiting for them."""
        while self._started_count < min(count, len(self.workers)):
            self._started_count += 1
            self.workers[-self._started_count].start()

    def request(self, request: Request, max_attempts: int) -> Answer:
        """Send a request to an idle worker, and again to a fresh process while it fails.

        Waits until a worker is idle. Raises RequestAbandoned after `max_attempts` processes, and
        what WorkerProcess.request() raises but for WorkerFailed.
        """
        worker = self._idle_workers.get()
        try:
            reasons: list[str] = []
            while len(reasons) < max_attempts:
                try:
                    return worker.request(request)
                except WorkerFailed as failed:
                    reasons.append(str(failed))
            raise RequestAbandoned(reasons)
        finally:
            self._idle_workers.put(worker)

    def terminate(self) -> None:
        """Kill all processes for good; threads that wait for an answer get an error at once."""
        for worker in self.workers:
            worker.terminate()

    def close(self) -> None:
        """Terminate all processes and release what they used."""
        self.terminate()
        for worker in self.workers:
            worker.join()
