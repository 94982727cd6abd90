"""The options of an ingest, and its coverage: what became of every file that a scan saw."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from indexes.join.planner import JoinMethod
from indexes.upkeep.compaction import CompactionReport
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


@dataclass(frozen=True, slots=True)
class UnreadablePath:
    """A folder, or an entry of a folder, that could not be read."""

    path: str
    reason: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class RecallReport:
    """The measured recall of a join: `found` of `sampled` pairs.

    `lower_bound_95` is a lower bound of the recall, with 95 % confidence.
    """

    sampled: int
    found: int
    lower_bound_95: float


@dataclass(frozen=True, slots=True)
class JoinReport:
    """The join of a run: its method, the reason for it, and the number of pairs >= `floor`.

    `recall` is None for an exact join.
    """

    method: str
    reason: str
    floor: float
    pairs: int
    recall: RecallReport | None


@dataclass
class VerificationReport:
    """The number of pairs that a run verified, by relation.

    `unverified` counts by reason the pairs that could not be verified, `provisional` those whose
    upscale check is still due. `version` is that of the verdicts.
    """

    version: int
    pairs: int = 0
    relations: Counter[str] = field(default_factory=Counter)
    unverified: Counter[str] = field(default_factory=Counter)
    provisional: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class CropReport:
    """The number of images whose crops were compared, and of large images without crop vectors."""

    compared: int = 0
    missing: int = 0


@dataclass
class Coverage:
    """The counts of a run, in files; every file seen is in exactly one of them.

    The sum of `new`, `changed`, `unchanged`, `moved` and the files among `skipped` and `failed` is
    `seen`. Those two count by reason, and include folders and links, which are not files seen.
    """

    seen: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    moved: int = 0
    gone: int = 0  # deleted, and removed from the answers
    left_out: int = 0  # excluded or hidden now, and removed from the answers
    missing: int = 0  # absent, perhaps with their drive, and still in the answers
    embedded: int = 0
    flagged: Counter[str] = field(default_factory=Counter)  # new images by flag
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    absent_roots: list[str] = field(default_factory=list)
    unreadable_paths: list[UnreadablePath] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # None for a step that had nothing to do.
    join: JoinReport | None = None
    verification: VerificationReport | None = None
    crops: CropReport | None = None
    compaction: CompactionReport | None = None

    @property
    def has_problems(self) -> bool:
        """True if photos that a user expects to be compared were not."""
        return bool(self.failed or self.absent_roots or self.missing)

    def count(self, reason: str) -> None:
        """Count a file without an image."""
        counter = self.skipped if reason in SKIP_REASONS else self.failed
        counter[reason] += 1

    def include(self, counts: Coverage) -> None:
        """Add the files and embedded images of `counts`."""
        self.new += counts.new
        self.changed += counts.changed
        self.unchanged += counts.unchanged
        self.moved += counts.moved
        self.embedded += counts.embedded
        self.flagged.update(counts.flagged)
        self.skipped.update(counts.skipped)
        self.failed.update(counts.failed)

    def to_dict(self) -> dict[str, Any]:
        """Convert the coverage for JSON, with the counters in alphabetical order."""
        return {item.name: _to_json(getattr(self, item.name)) for item in fields(self)}


def _to_json(value: Any) -> Any:  # noqa: ANN401 - any value of a coverage
    if isinstance(value, Counter):  # dataclasses.asdict() cannot copy a Counter
        return dict(sorted(value.items()))
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if is_dataclass(value):
        return {item.name: _to_json(getattr(value, item.name)) for item in fields(value)}
    return value
