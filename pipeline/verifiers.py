"""Processes that verify pairs: all that a pair takes is small, and of that an interpreter does one thing at a time, whatever its threads.

What they are given comes from the store, and what they say is believed: no file that may be hostile is opened here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from queue import LifoQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.decoders import usable_cores
from pipeline.errors import BadVerifier
from pipeline.evidence import Evidence

if TYPE_CHECKING:
    from pipeline.sketch import Sketch

CHUNK = 16  # pictures or pairs that a process is given at a time
FEW = 24  # that are done sooner than a process has started
HELD = 96  # sketches that a process holds: up to 80 MB
# sys.path first: nothing may be imported from the folder that a command happens to run in.
BEGIN = "import sys; sys.path[:] = sys.argv[2:]; from pipeline.verifiers import serve; serve(int(sys.argv[1]))"


class Drawing(NamedTuple):
    """A picture to be verified: the hash of its image, its thumb, its features, and the width and height that it has in full."""

    hash: bytes
    picture: bytes
    features: bytes
    size: tuple[int, int]


class Verifiers:
    """`count` processes, one for each usable core by default, started when there is enough to do; a few things are done in this one. Used
    from one thread, and closed at the end.

    Raises BadVerifier, from wherever it is first met, where a process does not start or does not come to its end.
    """

    def __init__(self, count: int | None = None) -> None:
        """Nothing is started yet."""
        self._count = count or usable_cores()
        self._idle: LifoQueue[_Process] = LifoQueue()
        self._own, self._busy = _Work(), False
        self._held = ExitStack()
        for _ in range(self._count):
            process = _Process()
            self._idle.put(process)
            self._held.callback(process.close)
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="verify")
        self._held.callback(self._pool.shutdown, cancel_futures=True)  # who stops does not wait for what was not begun

    def __enter__(self) -> Verifiers:
        """As it is."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._held.close()

    def features(self, pictures: Sequence[bytes]) -> list[bytes]:
        """The features of thumbs, in their order."""
        return self._begun("features", pictures)()

    def verify(self, pairs: Sequence[tuple[Drawing, Drawing]]) -> list[Evidence]:
        """What the two of each pair are to each other, in their order."""
        return self.verifying(pairs)()

    def verifying(self, pairs: Sequence[tuple[Drawing, Drawing]]) -> Callable[[], list[Evidence]]:
        """Begin to verify, and go on meanwhile; what is returned waits for what verify() says."""
        return self._begun("verify", pairs)

    def _begun(self, what: str, items: Sequence[Any]) -> Callable[[], list[Any]]:
        if not self._busy and len(items) <= FEW:
            return lambda: self._own.done(what, items)
        self._busy = True
        found = self._pool.map(partial(self._asked, what), (items[start : start + CHUNK] for start in range(0, len(items), CHUNK)))
        return lambda: [one for some in found for one in some]

    def _asked(self, what: str, items: Sequence[Any]) -> list[Any]:
        process = self._idle.get()
        try:
            return process.ask(what, items)
        finally:
            self._idle.put(process)


class _Process:
    def __init__(self) -> None:
        self._running: tuple[subprocess.Popen[bytes], Connection[Any, Any]] | None = None

    def ask(self, what: str, items: Sequence[Any]) -> list[Any]:
        try:
            self._running = self._running or _started()
            process, link = self._running
            link.send((what, items))
            answer: list[Any] = link.recv()
        except (OSError, EOFError) as error:
            how = self.close() or str(error)
            raise BadVerifier(
                f"a process that verifies pairs came to no end ({how}); what was verified before is kept. Run the same command again;"
                " if this comes again, see what is installed with `neardup doctor`"
            ) from error
        return answer

    def close(self) -> str:
        """End it; says how it had come to its end before."""
        running, self._running = self._running, None
        if not running:
            return ""
        process, link = running
        link.close()  # it ends when its link does
        try:
            code = process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with {code}" if code else ""


def _started() -> tuple[subprocess.Popen[bytes], Connection[Any, Any]]:
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, str(theirs.fileno()), *sys.path],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the process that started it
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    return process, ours


class _Work:
    """What is asked of such a process. Sketches that were asked for last are held."""

    def __init__(self) -> None:
        self._sketches: OrderedDict[bytes, Sketch] = OrderedDict()

    def done(self, what: str, items: Sequence[Any]) -> list[Any]:
        from pipeline.sketch import features, shown
        from pipeline.verify import verify

        if what == "features":
            return [features(shown(picture)) for picture in items]
        return [verify(self._sketch(first), self._sketch(second)) for first, second in items]

    def _sketch(self, one: Drawing) -> Sketch:
        from pipeline.sketch import drawn

        found = self._sketches.pop(one.hash, None) or drawn(one.picture, one.features, one.size)
        self._sketches[one.hash] = found
        if len(self._sketches) > HELD:
            self._sketches.popitem(last=False)
        return found


def serve(link: int) -> None:
    """Inside such a process: answer what comes through a link, until it ends."""
    import cv2

    cv2.setNumThreads(1)
    work = _Work()
    with Connection(link) as asked, suppress(EOFError, ConnectionError):
        while True:
            asked.send(work.done(*asked.recv()))
