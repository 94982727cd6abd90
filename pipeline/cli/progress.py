"""Show the progress of an ingest, a migration or a plan; stop the first two on a signal."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from indexes.coverage import Coverage
from indexes.join.planner import JoinMethod, format_duration
from indexes.paths import format_command
from pipeline.cli.console import print_message, print_warning
from pipeline.decode.formats import SKIP_REASONS
from pipeline.decode.read import Failure
from pipeline.ingest.progress import Progress, Stage
from pipeline.report.format import format_bytes, format_failure

if TYPE_CHECKING:
    from pipeline.actions.outcome import Outcome
    from pipeline.actions.plan import Plan

MAX_LISTED_FAILURES = 10  # failures of a run that are printed; `status --failures` lists all
MIN_ANNOUNCED_JOIN_SECONDS = 2.0  # shorter exact joins are over before a line about them is read
PROGRESS_LINE_SECONDS = 60.0  # between lines of progress where no terminal shows a bar
# What each stage does, in words for people.
ACTIVITIES = {
    Stage.LISTING: "listing files",
    Stage.READING: "reading photos",
    Stage.METADATA: "reading metadata",
    Stage.JOINING: "searching for photos that look alike",
    Stage.VERIFYING: "comparing pairs of photos",
    Stage.CROPPING: "searching for photos within photos",
}


class StoppedBySignal(BaseException):
    """A signal stopped an ingest or a migration after it committed what it had embedded."""

    def __init__(self, signal_number: int) -> None:
        """Set the exit code of a command that a signal ended."""
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


def run_with_progress(updates: Generator[Progress], store: Path) -> Coverage:
    """Run an ingest or a migration of `store` to its end and return its coverage.

    Shows a bar on a terminal, elsewhere a line a minute, and the first failures. The first Ctrl-C
    or SIGTERM commits what is embedded and raises StoppedBySignal; the second ends the process at
    once and loses what was not committed yet.
    """
    signals: list[int] = []

    def stop(signal_number: int, frame: FrameType | None) -> None:
        signal.signal(signal_number, signal.SIG_DFL)
        signals.append(signal_number)
        print_message("\nstopping; interrupt again to stop at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    failures, coverage, planned = 0, Coverage(), False
    try:
        # Closed here while the store is open, not when the garbage collector finds it.
        with closing(updates), _open_display() as show:
            for now in updates:
                coverage = now.coverage
                if now.failure and now.failure.reason not in SKIP_REASONS:
                    failures += 1
                    _print_failure(failures, now.failure, store)
                if now.paid_calls and now.paid_calls.calls:
                    print_message(now.paid_calls.describe())
                if now.plan and not planned:
                    planned = True
                    if (
                        now.plan.exact_seconds >= MIN_ANNOUNCED_JOIN_SECONDS
                        or now.plan.method is JoinMethod.IVF
                    ):
                        is_exact = now.plan.method is JoinMethod.EXACT
                        method = "exactly" if is_exact else "with inverted lists"
                        print_message(f"finding pairs {method}: {now.plan.reason}")
                show(now)
                if signals:
                    raise StoppedBySignal(signals[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return coverage


def follow_plan(outcomes: Iterable[Outcome], plan: Plan) -> list[Outcome]:
    """Collect the outcomes of a plan; on a terminal, show how many files and bytes are done."""
    if not _has_terminal():
        return list(outcomes)
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    sizes = {part.path: part.stat.size for part, is_victim in plan.iter_parts() if is_victim}
    total = sum(sizes.values())
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    collected: list[Outcome] = []
    done, paths = 0, set[str]()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        for outcome in chain([None], outcomes):
            if outcome is not None:
                collected.append(outcome)
                if (
                    outcome.path in sizes and outcome.path not in paths
                ):  # not the sidecar of a keeper
                    done += sizes[outcome.path]
                    paths.add(outcome.path)
            files = f"{len(paths):,} of {len(sizes):,} files"
            size = f"{format_bytes(done)} of {format_bytes(total)}"
            bar.update(task, description=f"{files}, {size}", completed=done)
    return collected


@contextmanager
def follow_comparisons() -> Iterator[Callable[[int, int], None]]:
    """Show how many pairs are compared; the display begins with the first report of that.

    A report is the number of pairs that are done, and of all.
    """
    with ExitStack() as stack:
        show: Callable[[Progress], None] | None = None

        def report(done: int, total: int) -> None:
            nonlocal show
            show = show or stack.enter_context(_open_display())
            show(Progress(Stage.VERIFYING, done, total, Coverage()))

        yield report


def _has_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _print_failure(failure_count: int, failure: Failure, store: Path) -> None:
    if failure_count <= MAX_LISTED_FAILURES:
        print_warning(format_failure(failure.source.path, failure.reason, failure.detail))
    elif failure_count == MAX_LISTED_FAILURES + 1:
        list_all = format_command(store, "status", "--failures")
        print_warning(f"more failures are not listed here; see `{list_all}`")


@contextmanager
def _open_display() -> Iterator[Callable[[Progress], None]]:
    if _has_terminal():
        with _open_bar() as show:
            yield show
    else:
        yield _make_line_printer()


@contextmanager
def _open_bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(
                f"{task.speed:.0f} images/s"
                if task.speed and task.total and task.description == ACTIVITIES[Stage.READING]
                else ""
            )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(ACTIVITIES[Stage.LISTING], total=None)

        def show(progress: Progress) -> None:
            bar.update(
                task,
                description=ACTIVITIES[progress.stage],
                completed=progress.done,
                total=progress.total,
            )

        yield show


def _make_line_printer() -> Callable[[Progress], None]:
    since = time.monotonic()
    begun: tuple[Stage, int, float] | None = None  # a stage, its items then done, the time

    def show(progress: Progress) -> None:
        nonlocal begun, since
        moment = time.monotonic()
        if begun is None or begun[0] is not progress.stage or progress.done < begun[1]:
            begun = progress.stage, progress.done, moment
        if moment - since >= PROGRESS_LINE_SECONDS:
            since = moment
            print_message(_format_line(progress, progress.done - begun[1], moment - begun[2]))

    return show


def _format_line(progress: Progress, done: int, seconds: float) -> str:
    """Format a line of progress: the activity, how far it is, and the time that is left.

    `done` of the stage's items took these `seconds`.
    """
    activity, total = ACTIVITIES[progress.stage], progress.total
    if not total:
        return f"{activity}: {progress.done:,} so far" if progress.done else activity
    line = f"{activity}: {progress.done:,} of {total:,}"
    if progress.stage is Stage.JOINING:  # its items mean nothing to people
        line = f"{activity}: {100 * progress.done // total} %"
    if done and seconds > 0:
        left = format_duration((total - progress.done) * seconds / done)
        line += f", about {left} left"
    return line
