"""Threads, open stores and processes that decode files, which requests share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from indexes.store import Store
from pipeline.decode.pool import DecoderPool
from pipeline.review.web.problems import Problem, make_busy_problem

QUICK_THREADS = 8  # of requests that read databases and thumbnails: a few milliseconds each
HEAVY_THREADS = 2  # of requests that decode or compare: seconds, and up to 0.2 GB
MAX_HEAVY_REQUESTS = 16  # running or waiting; each may hold an uploaded file on disk
STORE_IDLE_SECONDS = 5.0  # after which unused stores are closed: an ingest may want to tidy up

T = TypeVar("T")


class StorePool:
    """Open stores, each used by one request at a time and read by whichever thread has it.

    No transaction outlives its request. Opening a store is quick unless its catalog has to be
    hashed, so a few are kept open while there are requests.
    """

    def __init__(self, folder: Path) -> None:
        """Open nothing yet."""
        self._folder, self._lock = folder, threading.Lock()
        self._idle: list[Store] = []
        self._was_used = False

    @contextmanager
    def use(self) -> Iterator[Store]:
        """Lend a store, open for reading. Raises what Store() raises."""
        with self._lock:
            store = self._idle.pop() if self._idle else None
            self._was_used = True
        store = store or Store(self._folder)
        try:
            yield store
        except BaseException:
            store.close()
            raise
        with self._lock:
            self._idle.append(store)

    def close_idle(self, *, unless_used: bool = False) -> None:
        """Close the stores that no request has; with `unless_used`, if none was since the last
        call.
        """
        with self._lock:
            is_kept, self._was_used = unless_used and self._was_used, False
            closing = [] if is_kept else self._idle
            if not is_kept:
                self._idle = []
        for store in closing:
            store.close()


@dataclass(eq=False)
class _Lent:
    pool: DecoderPool
    users: int = 0


class SharedDecoders:
    """Processes that decode files, for requests at the same time and one after the other.

    A pool cannot be used any more after an error in the middle of it, so that the next request gets
    another one; the pool is closed when no request has it.
    """

    def __init__(self) -> None:
        """Start no process yet."""
        self._lock = threading.Lock()
        self._current: _Lent | None = None
        self._lent: list[_Lent] = []
        self._is_closed = False

    @contextmanager
    def use(self) -> Iterator[DecoderPool]:
        """Lend the processes. Raises Problem (503) once they are closed."""
        with self._lock:
            if self._is_closed:
                raise make_busy_problem("the server is stopping")
            if self._current is None:
                self._current = _Lent(DecoderPool())
                self._lent.append(self._current)
            lent = self._current
            lent.users += 1
        try:
            yield lent.pool
        except Problem:
            raise
        except BaseException:
            with self._lock:
                self._current = None if self._current is lent else self._current
            raise
        finally:
            with self._lock:
                lent.users -= 1
                is_done = not lent.users and self._current is not lent and lent in self._lent
                if is_done:
                    self._lent.remove(lent)
            if is_done:
                lent.pool.close()

    def close(self) -> None:
        """End all processes, whatever they do; requests that wait for them fail."""
        with self._lock:
            self._is_closed, self._current = True, None
            lent, self._lent = self._lent, []
        for item in lent:
            item.pool.close()


class Threads:
    """Two kinds of threads, so that quick requests never wait for heavy ones."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._quick = ThreadPoolExecutor(QUICK_THREADS, "review")
        self._heavy = ThreadPoolExecutor(HEAVY_THREADS, "review-heavy")
        self._heavy_requests = 0

    async def run_quick(self, work: Callable[[], T]) -> T:
        """Run what takes milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, work)

    async def run_heavy(self, work: Callable[[], T]) -> T:
        """Run what takes seconds, within hold_heavy()."""
        return await asyncio.get_running_loop().run_in_executor(self._heavy, work)

    @contextmanager
    def hold_heavy(self) -> Iterator[None]:
        """Take one of the places for heavy requests. Raises Problem (503) if there is none."""
        if self._heavy_requests >= MAX_HEAVY_REQUESTS:
            raise make_busy_problem(
                f"{MAX_HEAVY_REQUESTS} photos are being read; ask again in a moment"
            )
        self._heavy_requests += 1
        try:
            yield
        finally:
            self._heavy_requests -= 1

    def close(self) -> None:
        """Wait for what runs, and drop what waits."""
        for threads in (self._quick, self._heavy):
            threads.shutdown(cancel_futures=True)
