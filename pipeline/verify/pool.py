"""Verify pairs in worker processes, because one interpreter uses one core, whatever its threads.

The workers get what the store holds, and their answers are trusted: they open no hostile file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from pipeline.errors import VerifierCrashed
from pipeline.verify.inputs import VerifyInput
from pipeline.verify.verdict import Verdict
from pipeline.verify.worker import Operation, RequestHandler
from pipeline.workers.cpus import count_usable_cores
from pipeline.workers.pool import RequestAbandoned, WorkerKind, WorkerPool

MAX_ITEMS_PER_REQUEST = 16  # thumbnails or pairs that a worker gets at a time
# So many are done in this process, which takes less time than starting a worker.
MAX_ITEMS_WITHOUT_WORKERS = 24

_Request = tuple[Operation, Sequence[Any]]


class VerifierPool:
    """A pool of worker processes that extract features and verify pairs.

    The processes are started when a call has more than `max_without_workers` items; smaller calls
    before that are done in this process. Used from one thread, and must be closed. Raises
    VerifierCrashed, from whichever method first needs it, if a process does not start: that is no
    fault of an item.
    """

    def __init__(
        self, workers: int | None = None, max_without_workers: int = MAX_ITEMS_WITHOUT_WORKERS
    ) -> None:
        """Prepare `workers` processes, one for each usable core by default; start nothing yet."""
        workers = workers or count_usable_cores()
        self._max_without_workers = max_without_workers
        self._local_handler = RequestHandler()
        self._is_parallel = False
        kind = WorkerKind[_Request, list[Any]](
            name="verifier",
            module="pipeline.verify.worker",
            exchange=_exchange,
            make_start_error=_make_start_error,
        )
        self._workers = WorkerPool(kind, workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verify")

    def __enter__(self) -> VerifierPool:
        """Return the pool."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the pool."""
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are doing, and drop requests that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._workers.terminate()
        self._threads.shutdown()
        self._workers.close()

    def extract_features(self, jpegs: Sequence[bytes]) -> list[bytes | None]:
        """Extract the features of thumbnails, in their order; None for one that crashes workers."""
        return self._submit(Operation.FEATURES, jpegs)()

    def verify(self, pairs: Sequence[tuple[VerifyInput, VerifyInput]]) -> list[Verdict | None]:
        """Verify pairs, in their order; None for a pair that crashes workers."""
        return self.submit_pairs(pairs)()

    def submit_pairs(
        self, pairs: Sequence[tuple[VerifyInput, VerifyInput]]
    ) -> Callable[[], list[Verdict | None]]:
        """Start to verify pairs; the function that is returned waits for what verify() returns."""
        return self._submit(Operation.VERIFY, pairs)

    def _submit(self, operation: Operation, items: Sequence[Any]) -> Callable[[], list[Any]]:
        if not self._is_parallel and len(items) <= self._max_without_workers:
            return lambda: [self._handle_locally(operation, item) for item in items]
        self._is_parallel = True
        batches = [
            items[start : start + MAX_ITEMS_PER_REQUEST]
            for start in range(0, len(items), MAX_ITEMS_PER_REQUEST)
        ]
        answers = self._threads.map(partial(self._request, operation), batches)
        return lambda: [result for batch in answers for result in batch]

    def _handle_locally(self, operation: Operation, item: Any) -> Any:  # noqa: ANN401 - any kind
        """Handle one item in this process; None if it raises, which would crash a worker."""
        try:
            return self._local_handler.handle(operation, [item])[0]
        except Exception:
            return None

    def _request(self, operation: Operation, items: Sequence[Any]) -> list[Any]:
        """Have a worker handle items; one by one if it crashes, to find the item that did it."""
        try:
            return self._workers.request((operation, items), max_attempts=1)
        except RequestAbandoned:
            return [self._request_single(operation, item) for item in items]

    def _request_single(self, operation: Operation, item: Any) -> Any:  # noqa: ANN401 - any kind
        try:
            (result,) = self._workers.request((operation, [item]), max_attempts=1)
        except RequestAbandoned:
            return None
        return result


def _exchange(channel: socket.socket, memory_fd: int, request: _Request) -> list[Any]:
    """Have a worker handle a request; for what this raises see WorkerKind."""
    channel.settimeout(None)  # Connection needs a blocking descriptor
    with Connection(os.dup(channel.fileno())) as connection:
        connection.send(request)
        answer: list[Any] = connection.recv()
    return answer


def _make_start_error(reason: str) -> VerifierCrashed:
    return VerifierCrashed(
        f"a verification worker crashed at its start ({reason}); what was verified before is kept. "
        "Run the same command again; if this happens again, see what is installed with "
        "`neardup doctor`"
    )
