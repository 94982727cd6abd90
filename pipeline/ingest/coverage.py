"""The options of an ingest, and how it counts files in its coverage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from indexes.coverage import Coverage as Coverage  # pipeline exports it from here
from indexes.join.planner import JoinMethod
from indexes.records import CatalogFile, Run, RunOutcome
from pipeline.decode.formats import SKIP_REASONS


@dataclass(frozen=True)
class IngestOptions:
    """The options of an ingest; the defaults suit the machine it runs on."""

    # Images embedded together; None for the batch size of the embedder.
    batch_size: int | None = None
    # A crash loses at most this many embeddings ...
    commit_images: int = 1024
    # ... or those of this many seconds.
    commit_seconds: float = 20.0
    # Worker processes that decode; None for one per usable core.
    decoders: int | None = None
    # Files read at a time: more slow down a disk that has to seek, and speed up SSDs and
    # network drives.
    readers: int = 1
    # True if files that vanished from a root that is present were deleted, however many.
    accept_missing: bool = False
    # Real paths of roots to remove from the store if they are absent.
    roots_to_remove: frozenset[str] = frozenset()
    # Seconds to wait for another ingest of the same store.
    lock_timeout_seconds: float = 0.0
    # How to join; None lets the planner choose.
    join_method: JoinMethod | None = None
    # The limit of paid requests; the ingest stops when it is reached.
    max_paid_calls: int | None = None
    # Pay for as many requests as it takes, or as max_paid_calls allows.
    accept_paid_calls: bool = False
    # Compare crops, to find images within images; only with a model that runs on this machine.
    with_crops: bool = True


@dataclass(frozen=True)
class EarlierProblems:
    """The problems of the run before: those that are so still are not new.

    `are_known` is False before the first run, and after one that did not finish: its exit code was
    another. Files that failed or are missing are known from the catalog.
    """

    are_known: bool = False
    unreadable_paths: frozenset[str] = frozenset()
    absent_roots: frozenset[str] = frozenset()

    @classmethod
    def from_run(cls, run: Run | None) -> EarlierProblems:
        """Take the problems from the newest run before this one, if there is any."""
        if run is None or run.outcome is not RunOutcome.COMPLETE or run.coverage is None:
            return cls()
        paths = frozenset(unreadable.path for unreadable in run.coverage.unreadable_paths)
        return cls(
            are_known=True,
            unreadable_paths=paths,
            absent_roots=frozenset(run.coverage.absent_roots),
        )

    def count_new(self, files: Iterable[CatalogFile]) -> int:
        """Count the missing files that were not missing before."""
        return sum(not (file.is_missing and self.are_known) for file in files)


def is_failure(reason: str | None) -> bool:
    """Tell if a file without an image, for this reason, is one that a user should act on."""
    return reason is not None and reason not in SKIP_REASONS


def count_without_image(coverage: Coverage, reason: str) -> None:
    """Count a file that gave no image for a reason, among those that were skipped or failed."""
    counter = coverage.skipped if reason in SKIP_REASONS else coverage.failed
    counter[reason] += 1
