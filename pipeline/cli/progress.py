"""What an ingest shows while it runs, and how a person stops it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import click

from indexes import Way
from indexes.paths import command
from pipeline.decode.read import SKIPPED, Failure
from pipeline.ingest.batch_writer import Coverage
from pipeline.ingest.ingest import Progress
from pipeline.report.answers import counted, failure_text

SHOWN_FAILURES = 10
WORTH_TELLING = 2.0  # seconds that a join will take
LINE_EVERY = 60.0  # seconds between lines of progress where no terminal shows a bar


class Stopped(BaseException):
    """An ingest was stopped by a signal, after it committed what it had embedded."""

    def __init__(self, number: int) -> None:
        """By signal `number`."""
        super().__init__(number)
        self.exit_code = 128 + number


def watch(progress: Generator[Progress], store: Path) -> Coverage:
    """Run an ingest of `store` to its end and show it: a bar on a terminal, else a line a minute; failures as they come, up to a few.

    The first Ctrl-C or SIGTERM commits what is embedded and raises Stopped; the second ends the process at once, which loses only that.
    """
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        asked.append(number)
        tell("\nstopping; once more to stop at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    failures, coverage, planned = 0, Coverage(), False
    try:
        # Closed here, and not wherever a traceback lets go of it: the store must still be open.
        with closing(progress), _display() as show:
            for now in progress:
                coverage = now.coverage
                if now.failure and now.failure.reason not in SKIPPED:
                    failures += 1
                    _tell_failure(failures, now.failure, store)
                if now.calls:
                    tell(f"up to {counted(now.calls, 'paid request')} for {counted(now.total or 0, 'file')}")
                if now.plan and not planned:
                    planned = True
                    if now.plan.seconds >= WORTH_TELLING or now.plan.way is Way.BUCKETS:
                        tell(f"joining {'exactly' if now.plan.way is Way.EXACT else 'by buckets'}: {now.plan.why}")
                show(now)
                if asked:
                    raise Stopped(asked[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return coverage


def tell(line: str) -> None:
    """A line for the person, not for the program that reads the answer."""
    click.echo(line, err=True)


def _tell_failure(number: int, failure: Failure, store: Path) -> None:
    if number <= SHOWN_FAILURES:
        tell(f"neardup: {failure_text(failure.source.path, failure.reason, failure.detail)}")
    elif number == SHOWN_FAILURES + 1:
        tell(f"neardup: further failures are not listed here; see `{command(store, 'status', '--failures')}`")


@contextmanager
def _display() -> Iterator[Callable[[Progress], None]]:
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f} images/s" if task.speed and task.total and task.description == "reading" else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("listing", total=None)

        def show(now: Progress) -> None:
            stage = (
                "verifying"
                if now.verifying
                else "looking inside"
                if now.parts
                else "joining"
                if now.plan
                else "listing"
                if now.total is None
                else "reading"
            )
            bar.update(task, description=stage, completed=now.done, total=now.total)

        yield show


def _lines() -> Callable[[Progress], None]:
    began = since = time.monotonic()

    def show(now: Progress) -> None:
        nonlocal began, since
        moment = time.monotonic()
        if not now.total or not now.done:
            began = moment
        if moment - since < LINE_EVERY:
            return
        since = moment
        if now.verifying:
            tell(f"{now.done:,} of {now.total or 0:,} pairs verified")
        elif now.parts:
            tell(f"{now.done:,} of {now.total:,} pictures looked into" if now.total else "parts of pictures are compared")
        elif now.plan:
            tell(f"{100 * now.done // max(now.total or 1, 1)} % of the join done")
        elif now.total is None:
            tell(f"{now.done:,} files listed")
        else:
            speed = max(now.done / max(moment - began, 1e-9), 1e-9)
            left = (now.total - now.done) / speed / 60
            tell(f"{now.done:,} of {now.total:,} files read, {speed:.0f} images/s, {left:.0f} min left")

    return show
