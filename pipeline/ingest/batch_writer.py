"""Pictures are embedded in batches and committed with their files, and what comes of each file is counted."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.join.planner import JoinMethod
from indexes.records import Image, NewFile
from indexes.store import Batch, Store
from indexes.upkeep.compaction import CompactionReport
from pipeline.decode.decode import Decoded
from pipeline.decode.formats import SKIP_REASONS
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.embed.embedder import Embedder, embed
from pipeline.embed.paid_calls import PaidCallBudget, PaidCallEstimate
from pipeline.errors import ServiceUnavailable
from pipeline.ingest.reconcile import RootDiff
from pipeline.scan import SourceFile


@dataclass(frozen=True)
class IngestOptions:
    """How an ingest works; the defaults fit the machine."""

    batch_size: int | None = None  # pictures embedded together; the embedder knows best
    commit_images: int = 1024  # a crash loses at most this many embeddings ...
    commit_seconds: float = 20.0  # ... or this much time
    decoders: int | None = None  # processes that decode, one for each core by default
    readers: int = (
        1  # files read at a time: more make a single disk seek, and serve SSDs and network drives
    )
    accept_missing: bool = (
        False  # vanished files of a root that is there are deleted ones, however many
    )
    roots_to_remove: frozenset[str] = frozenset()  # real paths of roots that are gone for good
    lock_timeout_seconds: float = 0.0  # seconds to wait for another ingest of the same store
    join_method: JoinMethod | None = None  # how pairs are looked for; the planner decides
    max_paid_calls: int | None = (
        None  # paid requests that may be made; where it ends, the ingest does
    )
    accept_paid_calls: bool = False  # pay for as many as it takes, or as max_calls allows
    with_crops: bool = True  # look for pictures within pictures too, where the model runs here


@dataclass(frozen=True, slots=True)
class UnreadablePath:
    """A folder, or a name in it, that could not be read."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RecallReport:
    """The measured recall of a join: of `sampled` pairs `found`; with 95 % confidence it found at least `lower_bound_95` of all."""

    sampled: int
    found: int
    lower_bound_95: float


@dataclass(frozen=True, slots=True)
class JoinReport:
    """How the pairs of new vectors were found: the method and why, pairs with score >= `floor`; recall None where the join was exact."""

    method: str
    reason: str
    floor: float
    pairs: int
    recall: RecallReport | None


@dataclass
class VerificationReport:
    """How many pairs a run verified, by relation; how many could not be verified and why; how many verdicts are provisional and why."""

    version: int
    pairs: int = 0
    relations: Counter[str] = field(default_factory=Counter)
    unverified: Counter[str] = field(default_factory=Counter)
    provisional: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class CropReport:
    """How many images had their crops compared with whole images, and how many large images have no crop vectors."""

    compared: int = 0
    missing: int = 0


@dataclass
class Coverage:
    """What an ingest saw, in files. seen = new + changed + unchanged + moved + those of `skipped` and `failed` that are files."""

    seen: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    moved: int = 0
    gone: int = 0  # and taken out of the answers
    left_out: int = 0  # known, but excluded or hidden now, and taken out of the answers
    missing: int = 0  # known, perhaps only away, and still in the answers
    embedded: int = 0
    flagged: Counter[str] = field(
        default_factory=Counter
    )  # of what is new, those that are damaged, animated ...
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    absent_roots: list[str] = field(default_factory=list)
    unreadable_paths: list[UnreadablePath] = field(
        default_factory=list
    )  # path, reason and detail of folders, and names in them, that cannot be seen
    warnings: list[str] = field(default_factory=list)
    join: JoinReport | None = (
        None  # how the pairs of new pictures were looked for, and what share was found
    )
    verification: VerificationReport | None = (
        None  # pairs that were looked at, what they are, and why some could not be
    )
    crops: CropReport | None = (
        None  # pictures whose parts were compared with others, and those whose parts are not known
    )
    compaction: CompactionReport | None = (
        None  # segments that were merged, vectors that were dropped
    )

    @property
    def has_problems(self) -> bool:
        """Whether something that a user would expect to be compared was not."""
        return bool(self.failed or self.absent_roots or self.missing)

    def count(self, reason: str) -> None:
        """Count a file without an image."""
        (self.skipped if reason in SKIP_REASONS else self.failed)[reason] += 1

    def include(self, counts: Coverage) -> None:
        """Count the files that were read, and the pictures embedded, that `other` counted."""
        self.new += counts.new
        self.changed += counts.changed
        self.unchanged += counts.unchanged
        self.moved += counts.moved
        self.embedded += counts.embedded
        self.flagged.update(counts.flagged)
        self.skipped.update(counts.skipped)
        self.failed.update(counts.failed)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: counters in alphabetical order."""
        return {item.name: _to_json(getattr(self, item.name)) for item in fields(self)}


def _to_json(value: Any) -> Any:  # noqa: ANN401 - any value of a coverage
    if isinstance(value, Counter):  # asdict() cannot copy one
        return dict(sorted(value.items()))
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if is_dataclass(value):
        return {item.name: _to_json(getattr(value, item.name)) for item in fields(value)}
    return value


class BatchWriter:
    """Gathers results, embeds pictures in batches, commits now and then, and counts files as they are committed.

    Use it as a context manager: at the end of the block all is embedded and committed. A block that fails commits what was embedded, and
    embeds the rest only where that costs no money.
    """

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        options: IngestOptions,
        coverage: Coverage,
        changed_paths: Collection[str] = (),
        unembedded_paths: Collection[str] = (),
        root_diffs: Sequence[RootDiff] = (),
    ) -> None:
        """Write to `store`; paths that `changed`, or lost their vector, and the `losses` of roots tell changes and moves from new files."""
        self.moved_file_ids: set[int] = (
            set()
        )  # files of `losses` whose content came under a new path
        self._store, self._embedder, self._options, self._coverage = (
            store,
            embedder,
            options,
            coverage,
        )
        self._changed_paths, self._unembedded_paths = changed_paths, unembedded_paths
        self.batch_size = options.batch_size or embedder.batch_size
        self._claim_lock = threading.Lock()
        self._claimed_hashes: set[bytes] = (
            set()
        )  # contents that a decode has been started for and that are not committed
        self._failure_by_hash: dict[bytes, Failure] = {}
        self._unembedded: list[Decoded] = []  # not embedded yet
        # Not committed yet, without their pixels, which would take 100 MB; no row where there is nothing to embed.
        self._uncommitted: list[tuple[SourceFile, Image, NDArray[np.float32] | None]] = []
        self._failures: list[Failure] = []
        self._duplicates: list[
            AlreadyStored
        ] = []  # files whose content is in the store, or is being decoded under another path
        self._vanished_by_image: dict[int, list[int]] = defaultdict(list)  # files by their image
        for loss in root_diffs:
            for known in loss.vanished:
                if known.image_id is not None:
                    self._vanished_by_image[known.image_id].append(known.id)
        self._last_commit_time = time.monotonic()
        self._budget = PaidCallBudget(
            embedder, options.max_paid_calls, is_cost_accepted=options.accept_paid_calls
        )

    def require_consent(self, file_count: int) -> PaidCallEstimate:
        """Estimate the paid requests of `file_count` files. Raises PaidCallLimit without consent."""
        estimate = self._budget.estimate(file_count)
        self._budget.require_consent(
            estimate, "--max-calls N to make N now and the rest another time"
        )
        return estimate

    def __enter__(self) -> BatchWriter:
        """As it is."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit."""
        if error is not None and self._budget.is_paid:
            self._unembedded = []
        self.flush()

    def claim(self, hash_: bytes) -> bool:
        """Whether a content must be decoded; only the first who asks hears yes. Called by the decoding threads."""
        with self._claim_lock:
            if hash_ in self._claimed_hashes or self._store.find_complete_hashes([hash_]):
                return False
            self._claimed_hashes.add(hash_)
            return True

    def add(self, result: Decoded | AlreadyStored | Failure) -> None:
        """Note one file's result; embeds and commits when enough have come."""
        match result:
            case Decoded():
                self._unembedded.append(result)
                if len(self._unembedded) >= self.batch_size:
                    self._embed()
                    if self._budget.is_paid:
                        self.flush()  # what is paid for is kept
            case AlreadyStored():
                self._duplicates.append(result)
            case Failure():
                self._failures.append(result)
                if result.hash:
                    self._failure_by_hash[result.hash] = result
        files = len(self._uncommitted) + len(self._duplicates) // 4 + len(self._failures) // 4
        late = time.monotonic() - self._last_commit_time > self._options.commit_seconds
        if files >= self._options.commit_images or (
            late and not self._budget.is_paid
        ):  # half a batch costs a request
            self.flush()

    def flush(self) -> None:
        """Embed what is left and commit; what was embedded is committed even where that fails."""
        try:
            self._embed()
        finally:
            self._commit()

    def _commit(self) -> None:
        batch, counted = Batch(), Coverage()
        for source, image, row in self._uncommitted:
            batch.images.append((image, row))
            counted.embedded += row is not None
            counted.flagged.update(image.flags)
            batch.files.append(self._record_file(counted, source, image.hash))
        new = {image.hash for _, image, _ in self._uncommitted}
        known = self._store.catalog.images.get_ids(
            [file.hash for file in self._duplicates if file.hash not in new]
        )
        waiting = []
        for file in self._duplicates:
            if file.hash in known or file.hash in new:
                batch.files.append(
                    self._record_file(
                        counted,
                        file.source,
                        file.hash,
                        batch.moved_file_ids,
                        self._vanished_by_image.get(known.get(file.hash, 0)),
                    )
                )
            elif failure := self._failure_by_hash.get(file.hash):
                self._failures.append(replace(failure, source=file.source))
            else:
                waiting.append(file)
        for failure in self._failures:
            batch.files.append(
                NewFile(
                    failure.source.path,
                    failure.source.require_stat(),
                    None,
                    failure.reason,
                    failure.detail,
                )
            )
            counted.count(failure.reason)
        self._uncommitted, self._duplicates, self._failures = [], waiting, []
        if batch.files:
            self._store.add(batch)
        self._coverage.include(counted)
        self.moved_file_ids.update(batch.moved_file_ids)
        with self._claim_lock:
            self._claimed_hashes -= new
        self._last_commit_time = time.monotonic()

    def _embed(self) -> None:
        """Embed the first picture with its pixels; others share its vector. What is not answered, or costs more than max_calls leaves, is
        left to the next run.
        """
        pictures, self._unembedded = (
            self._unembedded,
            [],
        )  # whatever happens, none is asked for twice
        has_vector = set(
            self._store.catalog.vectors.find_by_pixel_hash(
                [picture.image.pixel_hash for picture in pictures]
            )
        )
        has_vector.update(
            image.pixel_hash for _, image, row in self._uncommitted if row is not None
        )
        shown: dict[bytes, Decoded] = {}
        for picture in pictures:
            if not picture.image.is_featureless and picture.image.pixel_hash not in has_vector:
                shown.setdefault(picture.image.pixel_hash, picture)
        asked = list(shown)[: self._budget.reserve(len(shown))]
        unanswered = None
        try:
            found = embed(self._embedder, [shown[pixels].pixels for pixels in asked])
            rows = dict(zip(asked, found, strict=True))
        except ServiceUnavailable as error:
            unanswered = error
            rows = {asked[number]: row for number, row in error.rows.items()}
        left = set(shown) - set(rows)
        for picture in pictures:
            if picture.image.pixel_hash not in left:
                self._uncommitted.append(
                    (picture.source, picture.image, rows.pop(picture.image.pixel_hash, None))
                )
        if unanswered:
            raise unanswered
        if len(asked) < len(shown):
            self._budget.raise_limit_reached()

    def _record_file(
        self,
        counts: Coverage,
        source: SourceFile,
        hash_: bytes,
        moved_file_ids: list[int] | None = None,
        vanished_file_ids: list[int] | None = None,
    ) -> NewFile:
        """The file, counted as unchanged, changed, moved or new; a move takes one of those that `vanished` with its content along."""
        if source.path in self._unembedded_paths:
            counts.unchanged += 1
        elif source.path in self._changed_paths:
            counts.changed += 1
        elif vanished_file_ids and moved_file_ids is not None:
            moved_file_ids.append(vanished_file_ids.pop())
            counts.moved += 1
        else:
            counts.new += 1
        return NewFile(source.path, source.require_stat(), hash_)
