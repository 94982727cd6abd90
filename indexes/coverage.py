"""The coverage of a run: what became of every file that a scan saw, and its JSON in the catalog."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True)
class UnreadablePath:
    """A file without an image, or a folder that could not be read, and why."""

    path: str
    reason: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class RejectedPath:
    """A file that holds a rejected photo or the same picture, and the id of the decision."""

    path: str
    relation: str
    decision: str


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
    recall: RecallReport | None = None


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


@dataclass(frozen=True)
class CompactionReport:
    """Segments before and after a compaction, dropped tombstones, and bytes written."""

    segments_before: int
    segments_after: int
    vectors_dropped: int
    bytes_written: int


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
    metadata_read: int = 0  # images of an older store whose metadata was read
    flagged: Counter[str] = field(default_factory=Counter)  # new images by flag
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    absent_roots: list[str] = field(default_factory=list)
    unreadable_paths: list[UnreadablePath] = field(default_factory=list)
    # Files in the folders of the run that hold a rejected photo or the same picture.
    rejected: list[RejectedPath] = field(default_factory=list)
    # Files that failed or are missing, folders that were not read and absent roots, without those
    # that were so in the run before.
    new_problems: int = 0
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

    @property
    def has_new_problems(self) -> bool:
        """True if it has problems that the run before did not have."""
        return self.new_problems > 0

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
        self.new_problems += counts.new_problems

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


Report = TypeVar("Report")


def parse_coverage(text: str) -> Coverage | None:
    """Parse the JSON of a coverage; None for that of a run that has not ended.

    What a former version did not write gets its default. Raises ValueError.
    """
    document = json.loads(text)
    if document == {}:
        return None
    try:
        coverage = _build(Coverage, document)
        coverage.flagged = Counter(coverage.flagged)
        coverage.skipped = Counter(coverage.skipped)
        coverage.failed = Counter(coverage.failed)
        coverage.unreadable_paths = [
            _build(UnreadablePath, path) for path in document.get("unreadable_paths", [])
        ]
        coverage.rejected = [_build(RejectedPath, path) for path in document.get("rejected", [])]
        coverage.join = _build_optional(JoinReport, document.get("join"))
        if coverage.join:
            recall = _build_optional(RecallReport, document["join"].get("recall"))
            coverage.join = replace(coverage.join, recall=recall)
        coverage.verification = _build_optional(VerificationReport, document.get("verification"))
        if report := coverage.verification:
            report.relations = Counter(report.relations)
            report.unverified = Counter(report.unverified)
            report.provisional = Counter(report.provisional)
        coverage.crops = _build_optional(CropReport, document.get("crops"))
        coverage.compaction = _build_optional(CompactionReport, document.get("compaction"))
    except (AttributeError, TypeError) as error:
        raise ValueError(f"no coverage of a run: {error}") from error
    return coverage


def _build(kind: type[Report], document: Mapping[str, Any]) -> Report:
    """Build a dataclass from the fields that it knows; raises TypeError if one is missing."""
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: value for name, value in document.items() if name in names})


def _build_optional(kind: type[Report], document: Mapping[str, Any] | None) -> Report | None:
    return _build(kind, document) if document else None
