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

from pipeline.decode.pool import usable_cores
from pipeline.errors import BadVerifier
from pipeline.verify.inputs import Drawing
from pipeline.verify.verdict import Evidence
from pipeline.workers import process as child

if TYPE_CHECKING:
    from pipeline.verify.features import Sketch

CHUNK = 16  # pictures or pairs that a process is given at a time
FEW = 24  # that are done sooner than a process has started
HELD = 96  # sketches that a process holds: up to 80 MB


class Verifiers:
    """`count` processes, one for each usable core by default, started when there is more to do than a `few` things: those are done in this
    one. Used from one thread, and closed at the end.

    Raises BadVerifier, from wherever it is first met, where processes do not start, or come to an end whatever they look at.
    """

    def __init__(self, count: int | None = None, few: int = FEW) -> None:
        """Nothing is started yet."""
        self._few = few
        self._all = [_Process() for _ in range(count or usable_cores())]
        self._idle: LifoQueue[_Process] = LifoQueue()
        for process in self._all:
            self._idle.put(process)
        self._own, self._busy = _Work(), False
        self._pool = ThreadPoolExecutor(len(self._all), thread_name_prefix="verify")

    def __enter__(self) -> Verifiers:
        """As it is."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._pool.shutdown(wait=False, cancel_futures=True)  # who stops does not wait for what was not begun
        for process in self._all:
            process.stop()
        self._pool.shutdown()
        for process in self._all:
            process.end()

    def features(self, pictures: Sequence[bytes]) -> list[bytes | None]:
        """The features of thumbs, in their order; None of one that ends the processes which look at it."""
        return self._begun("features", pictures)()

    def verify(self, pairs: Sequence[tuple[Drawing, Drawing]]) -> list[Evidence | None]:
        """What the two of each pair are to each other, in their order; None of a pair that ends the processes which look at it."""
        return self.verifying(pairs)()

    def verifying(self, pairs: Sequence[tuple[Drawing, Drawing]]) -> Callable[[], list[Evidence | None]]:
        """Begin to verify, and go on meanwhile; what is returned waits for what verify() says."""
        return self._begun("verify", pairs)

    def _begun(self, what: str, items: Sequence[Any]) -> Callable[[], list[Any]]:
        if not self._busy and len(items) <= self._few:
            return lambda: [self._alone(what, item) for item in items]
        self._busy = True
        found = self._pool.map(partial(self._asked, what), (items[start : start + CHUNK] for start in range(0, len(items), CHUNK)))
        return lambda: [one for some in found for one in some]

    def _alone(self, what: str, item: Any) -> Any:  # noqa: ANN401 - of any kind
        """Done in this process, which only what is no mere exception ends."""
        try:
            return self._own.done(what, [item])[0]
        except Exception:  # whatever libraries make of what they are given: in a process of its own it would end that one
            return None

    def _asked(self, what: str, items: Sequence[Any], again: bool = False) -> list[Any]:
        process = self._idle.get()
        try:
            return process.ask(what, items)
        except _Ended as ended:
            if again:
                try:
                    process.ask(what, [])
                except _Ended:  # then it is not what is looked at
                    raise _broken(str(ended)) from ended
                return [None]
        finally:
            self._idle.put(process)
        return [one for item in items for one in self._asked(what, [item], again=True)]  # which of them it was


class _Ended(Exception):
    """A process came to its end while it was asked; says how."""


def _broken(how: str) -> BadVerifier:
    return BadVerifier(
        f"a process that verifies pairs came to no end ({how}); what was verified before is kept. Run the same command again; if this comes"
        " again, see what is installed with `neardup doctor`"
    )


class _Process:
    def __init__(self) -> None:
        self._lock = Lock()  # of what follows
        self._running: tuple[subprocess.Popen[bytes], Connection[Any, Any]] | None = None
        self._closed = False

    def ask(self, what: str, items: Sequence[Any]) -> list[Any]:
        link = self._link()
        try:
            link.send((what, items))
            answer: list[Any] = link.recv()
        except (OSError, EOFError) as error:
            raise _Ended(self.end() or str(error)) from error
        return answer

    def _link(self) -> Connection[Any, Any]:
        with self._lock:
            if self._closed:
                raise RuntimeError("these verifiers are closed")
            if not self._running:
                try:
                    ours, theirs = Pipe()
                    with theirs:
                        self._running = child.begun("pipeline.verify.pool", [theirs.fileno()], [theirs.fileno()]), ours
                except OSError as error:
                    raise _broken(str(error)) from error
            return self._running[1]

    def stop(self) -> None:
        """End it for good, whatever it does; who asks it meanwhile hears of that."""
        with self._lock:
            self._closed = True
            if self._running:
                self._running[0].kill()
                self._running[0].wait()

    def end(self) -> str:
        """End it; says how it had come to its end before."""
        with self._lock:
            running, self._running = self._running, None
        if not running:
            return ""
        process, link = running
        link.close()
        code = child.ended(process, 1.0)
        return f"it {child.how(code)}" if code else ""


class _Work:
    """What is asked of such a process. Sketches that were asked for last are held."""

    def __init__(self) -> None:
        self._sketches: OrderedDict[bytes, Sketch] = OrderedDict()

    def done(self, what: str, items: Sequence[Any]) -> list[Any]:
        from pipeline.thumbnails import shown
        from pipeline.verify.features import features
        from pipeline.verify.verify import verify

        if what == "features":
            return [features(shown(picture)) for picture in items]
        return [verify(self._sketch(first), self._sketch(second)) for first, second in items]

    def _sketch(self, one: Drawing) -> Sketch:
        from pipeline.verify.features import drawn

        found = self._sketches.pop(one.hash, None) or drawn(one.picture, one.features, one.size)
        self._sketches[one.hash] = found
        if len(self._sketches) > HELD:
            self._sketches.popitem(last=False)
        return found


def serve(link: str) -> None:
    """Inside such a process: answer what comes through a link, until it ends."""
    import cv2

    cv2.setNumThreads(1)
    work = _Work()
    with Connection(int(link)) as asked, suppress(EOFError, ConnectionError):
        while True:
            asked.send(work.done(*asked.recv()))
