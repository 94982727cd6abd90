"""Processes that verify pairs: all that a pair takes is small, and of that an interpreter does one thing at a time, whatever its threads.

What they are given comes from the store, and what they say is believed: no file that may be hostile is opened here.
"""

from __future__ import annotations

import subprocess
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from queue import LifoQueue
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipeline.decode.pool import count_usable_cores
from pipeline.errors import VerifierCrashed
from pipeline.verify.inputs import VerifyInput
from pipeline.verify.verdict import Verdict
from pipeline.workers import process as child

if TYPE_CHECKING:
    from pipeline.verify.features import ImageFeatures

MAX_ITEMS_PER_REQUEST = 16  # pictures or pairs that a process is given at a time
MAX_ITEMS_WITHOUT_WORKERS = 24  # that are done sooner than a process has started
MAX_CACHED_FEATURES = 96  # sketches that a process holds: up to 80 MB


class VerifierPool:
    """`count` processes, one for each usable core by default, started when there is more to do than a `few` things: those are done in this
    one. Used from one thread, and closed at the end.

    Raises BadVerifier, from wherever it is first met, where processes do not start, or come to an end whatever they look at.
    """

    def __init__(
        self, workers: int | None = None, max_without_workers: int = MAX_ITEMS_WITHOUT_WORKERS
    ) -> None:
        """Nothing is started yet."""
        self._max_without_workers = max_without_workers
        self._workers = [_WorkerProcess() for _ in range(workers or count_usable_cores())]
        self._idle_workers: LifoQueue[_WorkerProcess] = LifoQueue()
        for process in self._workers:
            self._idle_workers.put(process)
        self._local_handler, self._is_parallel = _RequestHandler(), False
        self._threads = ThreadPoolExecutor(len(self._workers), thread_name_prefix="verify")

    def __enter__(self) -> VerifierPool:
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
        """End the processes, whatever they do."""
        self._threads.shutdown(
            wait=False, cancel_futures=True
        )  # who stops does not wait for what was not begun
        for process in self._workers:
            process.stop()
        self._threads.shutdown()
        for process in self._workers:
            process.reap()

    def extract_features(self, jpegs: Sequence[bytes]) -> list[bytes | None]:
        """The features of thumbs, in their order; None of one that ends the processes which look at it."""
        return self._submit("features", jpegs)()

    def verify(self, pairs: Sequence[tuple[VerifyInput, VerifyInput]]) -> list[Verdict | None]:
        """What the two of each pair are to each other, in their order; None of a pair that ends the processes which look at it."""
        return self.submit_pairs(pairs)()

    def submit_pairs(
        self, pairs: Sequence[tuple[VerifyInput, VerifyInput]]
    ) -> Callable[[], list[Verdict | None]]:
        """Begin to verify, and go on meanwhile; what is returned waits for what verify() says."""
        return self._submit("verify", pairs)

    def _submit(self, operation: str, items: Sequence[Any]) -> Callable[[], list[Any]]:
        if not self._is_parallel and len(items) <= self._max_without_workers:
            return lambda: [self._handle_locally(operation, item) for item in items]
        self._is_parallel = True
        found = self._threads.map(
            partial(self._request_with_retry, operation),
            (
                items[start : start + MAX_ITEMS_PER_REQUEST]
                for start in range(0, len(items), MAX_ITEMS_PER_REQUEST)
            ),
        )
        return lambda: [one for some in found for one in some]

    def _handle_locally(self, operation: str, item: Any) -> Any:  # noqa: ANN401 - of any kind
        """Done in this process, which only what is no mere exception ends."""
        try:
            return self._local_handler.handle(operation, [item])[0]
        except Exception:  # whatever libraries make of what they are given: in a process of its own it would end that one
            return None

    def _request_with_retry(
        self, operation: str, items: Sequence[Any], is_retry: bool = False
    ) -> list[Any]:
        process = self._idle_workers.get()
        try:
            return process.request(operation, items)
        except _WorkerFailed as ended:
            if is_retry:
                try:
                    process.request(operation, [])
                except _WorkerFailed:  # then it is not what is looked at
                    raise _make_crash_error(str(ended)) from ended
                return [None]
        finally:
            self._idle_workers.put(process)
        return [
            one
            for item in items
            for one in self._request_with_retry(operation, [item], is_retry=True)
        ]  # which of them it was


class _WorkerFailed(Exception):
    """A process came to its end while it was asked; says how."""


def _make_crash_error(reason: str) -> VerifierCrashed:
    return VerifierCrashed(
        f"a process that verifies pairs came to no end ({reason}); what was verified before is kept. Run the same command again; if this comes"
        " again, see what is installed with `neardup doctor`"
    )


class _WorkerProcess:
    def __init__(self) -> None:
        self._lock = Lock()  # of what follows
        self._process_and_channel: tuple[subprocess.Popen[bytes], Connection[Any, Any]] | None = (
            None
        )
        self._is_closed = False

    def request(self, operation: str, items: Sequence[Any]) -> list[Any]:
        link = self._connect()
        try:
            link.send((operation, items))
            answer: list[Any] = link.recv()
        except (OSError, EOFError) as error:
            raise _WorkerFailed(self.reap() or str(error)) from error
        return answer

    def _connect(self) -> Connection[Any, Any]:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("these verifiers are closed")
            if not self._process_and_channel:
                try:
                    ours, theirs = Pipe()
                    with theirs:
                        self._process_and_channel = (
                            child.spawn(
                                "pipeline.verify.pool", [theirs.fileno()], [theirs.fileno()]
                            ),
                            ours,
                        )
                except OSError as error:
                    raise _make_crash_error(str(error)) from error
            return self._process_and_channel[1]

    def stop(self) -> None:
        """End it for good, whatever it does; who asks it meanwhile hears of that."""
        with self._lock:
            self._is_closed = True
            if self._process_and_channel:
                self._process_and_channel[0].kill()
                self._process_and_channel[0].wait()

    def reap(self) -> str:
        """End it; says how it had come to its end before."""
        with self._lock:
            running, self._process_and_channel = self._process_and_channel, None
        if not running:
            return ""
        process, link = running
        link.close()
        code = child.terminate(process, 1.0)
        return f"it {child.describe_exit(code)}" if code else ""


class _RequestHandler:
    """What is asked of such a process. Sketches that were asked for last are held."""

    def __init__(self) -> None:
        self._cached_features: OrderedDict[bytes, ImageFeatures] = OrderedDict()

    def handle(self, operation: str, items: Sequence[Any]) -> list[Any]:
        from pipeline.thumbnails import decode_thumbnail
        from pipeline.verify.features import extract_features
        from pipeline.verify.verify import verify

        if operation == "features":
            return [extract_features(decode_thumbnail(picture)) for picture in items]
        return [
            verify(self._load_features(first), self._load_features(second))
            for first, second in items
        ]

    def _load_features(self, verify_input: VerifyInput) -> ImageFeatures:
        from pipeline.verify.features import features_from_thumbnail

        found = self._cached_features.pop(verify_input.hash, None) or features_from_thumbnail(
            verify_input.jpeg, verify_input.features, verify_input.size
        )
        self._cached_features[verify_input.hash] = found
        if len(self._cached_features) > MAX_CACHED_FEATURES:
            self._cached_features.popitem(last=False)
        return found


def serve(channel_fd: str) -> None:
    """Inside such a process: answer what comes through a link, until it ends."""
    import cv2

    cv2.setNumThreads(1)
    work = _RequestHandler()
    with Connection(int(channel_fd)) as asked, suppress(EOFError, ConnectionError):
        while True:
            asked.send(work.handle(*asked.recv()))
