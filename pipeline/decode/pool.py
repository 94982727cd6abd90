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

from indexes import Image
from pipeline.decode.decode import AnyView, Decoded, decode
from pipeline.decode.preprocess import Picture, View
from pipeline.decode.read import EXTRAS, METADATA, MODULES, NOTES, REFUSALS, Failure, Recognised, Refused
from pipeline.errors import BadDecoder
from pipeline.scan import SourceFile
from pipeline.workers import process as child
from pipeline.workers import shared_memory

SECONDS = 60.0  # that one file may take
MEMORY = 3 << 29  # bytes that a process may hold: twice what the largest picture takes that is not refused
STRIKES = 2  # processes that a file may cost
GRACE = 10.0  # seconds beyond its limit after which a process is ended from here
MAX_LINE = 1 << 16  # bytes of an answer
MAX_SIDE = (1 << 31) - 1  # of a picture; SQLite holds more
MAX_FORMAT = 20  # letters of its name
MIN_TAKEN, MAX_TAKEN = -5_000_000_000, 253_402_300_800  # seconds since 1970: in 1811, and the year 10000
START = 120.0  # seconds until a process is ready: a tenth of one, but from a cold disk beside other work


def usable_cores() -> int:
    """Those that this process may run on, which a container or taskset makes fewer than there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Decoders:
    """`count` processes, one for each usable core by default, started by first use or by start(); `readers` files are read at a time.

    Used from any thread, and closed at the end. Each file has `seconds`, and each process `memory` bytes. Raises BadDecoder, from
    wherever it is first met, where a process does not start: that says nothing of the file.
    """

    def __init__(self, count: int | None = None, readers: int = 1, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        """Nothing is started yet."""
        count = count or usable_cores()
        self._threads = count + readers
        self._reading = Semaphore(readers)
        self._turn = _memory()
        self._all = [_Process(self._turn, seconds, memory, count) for _ in range(count)]
        self._idle: LifoQueue[_Process] = LifoQueue()  # the last that was used first: who asks little starts few
        self._held = ExitStack()  # closed once, however often this is
        self._held.callback(os.close, self._turn)
        self._begun = 0
        for process in self._all:
            self._idle.put(process)
            self._held.callback(process.close)

    def __enter__(self) -> Decoders:
        """As it is."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do, for good."""
        self._stop()
        self._held.close()

    def start(self, files: int) -> None:
        """Start as many processes as so many files need, those that are used first, and do not wait until they are ready."""
        while self._begun < min(files, len(self._all)):
            self._begun += 1
            self._all[-self._begun].start()

    def decode(
        self, source: SourceFile, view: AnyView, wanted: Callable[[bytes], bool] = lambda hash: True
    ) -> Decoded | Recognised | Failure:
        """The picture of one file; see pipeline.decode.decode.decode."""
        return decode(source, view, wanted, self._reading, self._shown)

    def stream(
        self, sources: Iterable[SourceFile], view: AnyView, wanted: Callable[[bytes], bool] = lambda hash: True, ahead: int = 0
    ) -> Generator[Decoded | Recognised | Failure]:
        """The pictures of many, in the order of `sources`, and not many more than `ahead` of them before they are asked for.

        Where it is closed before its end, the processes are ended for good, whatever they do: nobody waits for a file that hangs.
        """
        window: deque[Future[Decoded | Recognised | Failure]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            try:
                for source in sources:
                    window.append(pool.submit(self.decode, source, view, wanted))
                    if len(window) >= ahead + self._threads:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            except BaseException:
                for future in window:
                    future.cancel()
                self._stop()  # first: the pool waits for what runs
                raise

    def _stop(self) -> None:
        for process in self._all:
            process.stop()

    def _shown(self, data: bytes, digest: bytes, view: View, raw: bool) -> Picture:
        process = self._idle.get()
        try:
            ends: list[str] = []
            while len(ends) < STRIKES:
                try:
                    return process.shown(data, digest, view, raw)
                except _Ended as ended:
                    ends.append(str(ended))
            raise Refused("poisoned", "; again: ".join(ends) if len(set(ends)) > 1 else f"{ends[0]}, {len(ends)} times")
        finally:
            self._idle.put(process)


class _Ended(Exception):
    """A process was ended by the file that it decoded; says how."""


def _memory() -> int:
    try:
        return shared_memory.create()
    except OSError as error:
        raise _broken(str(error)) from error


def _broken(how: str) -> BadDecoder:
    return BadDecoder(
        f"a process that decodes photos did not start: {how}; no photo was given up for it. See what is installed with `neardup doctor`;"
        " where an installation was cut off, `pip install --force-reinstall neardup` mends it; then run the same command again"
    )


class _Running(NamedTuple):
    process: subprocess.Popen[bytes]
    link: socket.socket
    memory: int


class _Process:
    def __init__(self, turn: int, seconds: float, memory: int, beside: int) -> None:
        self._turn, self._seconds, self._most = turn, seconds, memory
        self._patience = (beside + 1) * seconds + GRACE  # it may wait until each of the others has had its turn
        self._asking = Lock()  # held while it is asked, so that what that uses is not closed meanwhile
        self._lock = Lock()  # of what follows
        self._running: _Running | None = None
        self._ready = self._closed = False

    def start(self) -> _Running:
        with self._lock:
            if self._closed:
                raise RuntimeError("these decoders are closed")
            if not self._running:
                self._running, self._ready = self._started(), False
            return self._running

    def _started(self) -> _Running:
        with ExitStack() as undone:
            memory = _memory()
            undone.callback(os.close, memory)
            try:
                ours, theirs = socket.socketpair()
                undone.enter_context(ours)
                with theirs:
                    process = self._popen(theirs.fileno(), memory)
            except OSError as error:
                raise _broken(str(error)) from error
            undone.pop_all()
        return _Running(process, ours, memory)

    def _popen(self, link: int, memory: int) -> subprocess.Popen[bytes]:
        extras = " ".join(module for extra, module in MODULES.items() if EXTRAS[extra])
        words = link, memory, self._turn, self._seconds, self._most, extras
        # Until it is ready, it writes to the memory what keeps it from being so.
        return child.begun("pipeline.decode.worker", words, [link, memory, self._turn], memory)

    def ready(self) -> _Running:
        """Start it unless it runs, and wait until it is ready. Raises BadDecoder when it does not come to that."""
        running = self.start()
        if self._ready:
            return running
        how = "it said something else than that it is ready"  # or too much, which is a ValueError
        try:
            self._ready = _line(running.link, START) == shared_memory.READY
        except TimeoutError:
            how = f"it was not ready after {START:g} seconds"
        except (OSError, EOFError):
            said = os.pread(running.memory, 1 << 16, 0).decode(errors="replace").split("\n")
            why = next((" ".join(line.split()) for line in reversed(said) if line.strip()), "")
            how = self.end() + (f": {why[:200]}" if why.isprintable() and why else "")
        except ValueError:
            pass
        except BaseException:
            self.kill()
            raise
        if self._ready:
            return running
        self.kill()
        if self._closed:
            raise RuntimeError("these decoders were closed")
        raise _broken(how)

    def shown(self, data: bytes, digest: bytes, view: View, raw: bool) -> Picture:
        with self._asking:
            _, link, memory = self.ready()
            try:
                shared_memory.put(memory, data)
                asked = {"size": len(data), "raw": raw, "view": [view.size, view.fit, view.resample, view.fill, view.coarse]}
                link.settimeout(self._patience)
                link.sendall(json.dumps(asked).encode() + b"\n")
                answer = json.loads(_line(link, self._patience))
                found = _refused(answer) if "reason" in answer else _checked(answer, data, digest, view, memory)
                os.ftruncate(memory, 0)
            except TimeoutError as error:
                self.kill()
                raise _Ended(f"it took more than {self._seconds:g} seconds") from error
            except (OSError, EOFError) as error:
                raise _Ended(self.end()) from error
            except Exception as error:  # deep JSON, huge numbers: whatever it is, its process is not used again
                self.kill()
                raise _Ended("its decoder gave no sound answer") from error
            except BaseException:  # its answer would be taken for that to the next question
                self.kill()
                raise
        if isinstance(found, Refused):
            raise found
        return found

    def stop(self) -> None:
        """End the process for good, and who asks it meanwhile hears of that; close() is still to come."""
        with self._lock:
            self._closed = True
            if self._running:
                self._running.process.kill()
                with suppress(OSError):
                    self._running.link.shutdown(socket.SHUT_RDWR)  # it may have left children that hold its end

    def close(self) -> None:
        """End it for good, when nobody asks it any more."""
        self.stop()
        with self._asking:
            self.end()

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._running:
            self._running.process.kill()
        self.end()

    def end(self) -> str:
        """End the process; says how it came to its end, if it had before."""
        with self._lock:
            running, self._running = self._running, None
        if not running:
            return "its decoder did not start"
        process, link, memory = running
        link.close()
        os.close(memory)
        code = child.ended(process, GRACE / 2)
        return f"it took more than {self._seconds:g} seconds" if code == -signal.SIGALRM else f"its decoder {child.how(code)}"


def _line(link: socket.socket, seconds: float) -> bytes:
    """One line that comes through a link, with its end; raises TimeoutError, EOFError, or ValueError for more than one or a long one."""
    end, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        # For each part what is left: half a line, and then nothing, would be waited for.
        link.settimeout(max(end - time.monotonic(), 0.001))
        part = link.recv(MAX_LINE + 1 - len(line))
        if not part:
            raise EOFError
        line += part
        if len(line) > MAX_LINE or b"\n" in line[:-1]:
            raise ValueError("no line")
    return line


def _refused(answer: dict[str, Any]) -> Refused:
    """Why there is no picture. Raises ValueError, TypeError or KeyError where that cannot be so."""
    reason, detail = answer["reason"], answer["detail"]
    if reason not in REFUSALS or not isinstance(detail, str):
        raise ValueError("reason")
    return Refused(reason, detail)


def _checked(answer: dict[str, Any], data: bytes, digest: bytes, view: View, memory: int) -> Picture:
    """The picture that a process says that it has decoded, if that can be so. Raises ValueError, TypeError or KeyError."""
    width, height, format_, featureless, shape = (answer[key] for key in ("width", "height", "format", "featureless", "shape"))
    shown_height, shown_width = shape
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in (width, height, shown_height, shown_width)):
        raise ValueError("sides")
    if not isinstance(featureless, bool):
        raise TypeError("featureless")
    if not (isinstance(format_, str) and format_.isascii() and format_.isprintable() and 0 < len(format_) <= MAX_FORMAT):
        raise ValueError("format")
    notes, metadata, taken = tuple(answer["notes"]), tuple(answer["metadata"]), answer["taken"]
    if len(set(notes)) < len(notes) or not set(notes) <= set(NOTES):
        raise ValueError("notes")
    if list(metadata) != sorted(set(metadata)) or not set(metadata) <= set(METADATA):
        raise ValueError("metadata")
    if taken is not None and not (type(taken) is int and MIN_TAKEN < taken < MAX_TAKEN):
        raise ValueError("taken")
    right = max(shape) <= view.size if view.fit in ("within", "middle") else shown_height == shown_width == view.size
    pixels = bytes.fromhex(answer["pixels"]) or digest
    if not right or len(pixels) != len(digest):
        raise ValueError("shape")
    given = shared_memory.get(memory, shown_height * shown_width * 3)
    shown: NDArray[np.uint8] = np.frombuffer(given, np.uint8).reshape(shown_height, shown_width, 3)
    return Image(digest, pixels, width, height, format_, len(data), featureless, notes, metadata, taken), shown
