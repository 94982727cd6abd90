"""The options of an ingest, and how it counts files in its coverage."""

from __future__ import annotations

from dataclasses import dataclass

from indexes.coverage import Coverage as Coverage  # pipeline exports it from here
from indexes.join.planner import JoinMethod
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


def count_without_image(coverage: Coverage, reason: str) -> None:
    """Count a file that gave no image for a reason, among those that were skipped or failed."""
    counter = coverage.skipped if reason in SKIP_REASONS else coverage.failed
    counter[reason] += 1
