"""Apply and undo plans in a thread of its own, one at a time, with progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any

from indexes.errors import StoreError
from indexes.store import Store
from pipeline.actions.apply import apply_plan
from pipeline.actions.entries import MOVED_STATES
from pipeline.actions.journal import find_journal, read_journal
from pipeline.actions.moved_files import remove_moved_files
from pipeline.actions.outcome import Outcome
from pipeline.actions.plan import Plan
from pipeline.actions.plan_checks import require_confirmation, require_current
from pipeline.actions.plan_file import name_run
from pipeline.actions.rejections import Rejections
from pipeline.actions.undo import undo_run
from pipeline.errors import PipelineError
from pipeline.review.listing import Listing
from pipeline.review.web.problems import Problem

MAX_LISTED_PROBLEMS = 100  # files that a page names; the journal has all


class RunKind(StrEnum):
    """The kind of a run in progress; the values are for the pages."""

    APPLY = "apply"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The progress of a run: `done` of `total` files were acted on, `moved` of these as planned.

    `problems` are the first MAX_LISTED_PROBLEMS of the `problem_count` files that were not. `error`
    says why it ended before its end.
    """

    kind: RunKind
    run: str
    total: int
    done: int = 0
    moved: int = 0
    problem_count: int = 0
    problems: tuple[Outcome, ...] = ()
    is_running: bool = True
    error: str | None = None

    def add(self, outcome: Outcome) -> RunProgress:
        """Return the progress with one more outcome."""
        is_listed = outcome.is_problem and len(self.problems) < MAX_LISTED_PROBLEMS
        return replace(
            self,
            done=self.done + 1,
            moved=self.moved + (not outcome.is_problem),
            problem_count=self.problem_count + outcome.is_problem,
            problems=(*self.problems, outcome) if is_listed else self.problems,
        )


@dataclass
class Runs:
    """Applies and undoes the plans of a store. A second run is refused while one is going on."""

    folder: Path
    listing: Listing
    _progress: RunProgress | None = field(default=None, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _is_stopping: threading.Event = field(default_factory=threading.Event, init=False)

    @property
    def progress(self) -> RunProgress | None:
        """The run that goes on, or the last one; None before the first."""
        with self._lock:
            return self._progress

    def start_apply(self, plan: Plan, confirmed: int) -> None:
        """Start to apply a plan, given the number of its files as the person confirmed it.

        Raises PlanRefused for another number and for a plan that the store does not allow now, and
        Problem while another run is going on.
        """
        with Store(self.folder) as store:
            roots = [root.path for root in store.catalog.roots.list()]
            require_current(plan, self.folder, roots, Rejections(store))
        require_confirmation(plan, confirmed)
        progress = RunProgress(RunKind.APPLY, name_run(plan), plan.victim_count)
        self._start(progress, self._apply, plan)

    def start_undo(self, run: str) -> None:
        """Start to undo a run. Raises RunNotFound, and Problem while another run is going on."""
        journal = find_journal(self.folder, run)
        entries = read_journal(journal).list_all()
        total = sum(entry.state in MOVED_STATES for entry in entries)
        self._start(RunProgress(RunKind.UNDO, journal.stem, total), self._undo, journal.stem)

    def close(self) -> None:
        """End a run after the file that it is at; its plan can be applied again to go on."""
        self._is_stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self, progress: RunProgress, work: Any, argument: object) -> None:  # noqa: ANN401
        with self._lock:
            if self._progress is not None and self._progress.is_running:
                raise Problem(HTTPStatus.CONFLICT, "another run is going on; wait for its end")
            self._progress = progress
            self._thread = threading.Thread(
                target=self._work, args=(work, argument), name="review-run"
            )
            self._thread.start()

    def _work(self, work: Any, argument: object) -> None:  # noqa: ANN401
        error = "neardup failed; its terminal says where"
        try:
            work(argument)
            self.listing.refresh(force=True)  # files are gone, or are back
            error = ""
        except (PipelineError, StoreError) as reason:
            error = str(reason)
        finally:
            with self._lock:
                assert self._progress is not None
                self._progress = replace(self._progress, is_running=False, error=error or None)

    def _apply(self, plan: Plan) -> None:
        with Store(self.folder, write=True) as store:
            roots = [root.path for root in store.catalog.roots.list()]
            outcomes = list[Outcome]()
            try:
                rejections = Rejections(store)
                self._follow(apply_plan(plan, self.folder, roots, rejections), outcomes)
            finally:
                remove_moved_files(store, plan, outcomes)

    def _undo(self, run: str) -> None:
        with Store(self.folder) as store:
            roots = [root.path for root in store.catalog.roots.list()]
        self._follow(undo_run(self.folder, run, roots), [])

    def _follow(self, outcomes: Iterator[Outcome], collected: list[Outcome]) -> None:
        with closing(outcomes):  # type: ignore[type-var]  # a generator
            for outcome in outcomes:
                collected.append(outcome)
                with self._lock:
                    assert self._progress is not None
                    self._progress = self._progress.add(outcome)
                if self._is_stopping.is_set():
                    raise PipelineError("the server was stopped; apply the plan again to go on")


def serialize_progress(progress: RunProgress | None) -> dict[str, Any]:
    """Serialize the progress of a run for the pages."""
    if progress is None:
        return {"run": None, "is_running": False}
    return {
        "kind": progress.kind,
        "run": progress.run,
        "total": progress.total,
        "done": progress.done,
        "moved": progress.moved,
        "problem_count": progress.problem_count,
        "is_running": progress.is_running,
        "error": progress.error,
    }


def list_problems(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """List the paths of outcomes, each with what became of the file, in words."""
    return [(item.path, f"{item.status}: {item.detail}") for item in outcomes]
