"""Pictures are embedded in batches and committed with their files, and what comes of each file is counted."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes import Batch, File, Image, Store, Way
from pipeline.decode.decode import Decoded
from pipeline.decode.read import SKIPPED, Failure, Recognised
from pipeline.embed.embedder import Embedder, embed, is_agreed
from pipeline.errors import TooManyCalls, Unanswered
from pipeline.ingest.reconcile import Loss
from pipeline.scan import SourceFile


@dataclass(frozen=True)
class IngestOptions:
    """How an ingest works; the defaults fit the machine."""

    batch: int | None = None  # pictures embedded together; the embedder knows best
    commit_images: int = 1024  # a crash loses at most this many embeddings ...
    commit_seconds: float = 20.0  # ... or this much time
    decoders: int | None = None  # processes that decode, one for each core by default
    readers: int = 1  # files read at a time: more make a single disk seek, and serve SSDs and network drives
    accept_missing: bool = False  # vanished files of a root that is there are deleted ones, however many
    forget: frozenset[str] = frozenset()  # real paths of roots that are gone for good
    wait_lock: float = 0.0  # seconds to wait for another ingest of the same store
    join: Way | None = None  # how pairs are looked for; the planner decides
    max_calls: int | None = None  # paid requests that may be made; where it ends, the ingest does
    yes: bool = False  # pay for as many as it takes, or as max_calls allows
    parts: bool = True  # look for pictures within pictures too, where the model runs here


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
    noted: Counter[str] = field(default_factory=Counter)  # of what is new, those that are damaged, animated ...
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    absent_roots: list[str] = field(default_factory=list)
    unseen: list[dict[str, str]] = field(default_factory=list)  # path, reason and detail of folders, and names in them, that cannot be seen
    notes: list[str] = field(default_factory=list)
    join: dict[str, Any] | None = None  # how the pairs of new pictures were looked for, and what share was found
    verification: dict[str, Any] | None = None  # pairs that were looked at, what they are, and why some could not be
    parts: dict[str, int] | None = None  # pictures whose parts were compared with others, and those whose parts are not known
    compaction: dict[str, int] | None = None  # segments that were merged, vectors that were dropped

    @property
    def troubled(self) -> bool:
        """Whether something that a user would expect to be compared was not."""
        return bool(self.failed or self.absent_roots or self.missing)

    def count(self, reason: str) -> None:
        """Count a file without an image."""
        (self.skipped if reason in SKIPPED else self.failed)[reason] += 1

    def include(self, other: Coverage) -> None:
        """Count the files that were read, and the pictures embedded, that `other` counted."""
        self.new += other.new
        self.changed += other.changed
        self.unchanged += other.unchanged
        self.moved += other.moved
        self.embedded += other.embedded
        self.noted.update(other.noted)
        self.skipped.update(other.skipped)
        self.failed.update(other.failed)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: reasons in alphabetical order."""
        return {**asdict(self), **{name: dict(sorted(getattr(self, name).items())) for name in ("noted", "skipped", "failed")}}


def affordable(embedder: Embedder, files: int, options: IngestOptions) -> int:
    """How many paid requests so many files take at most. Raises TooManyCalls when nobody agreed to that."""
    calls = embedder.calls(files)
    if not is_agreed(calls, options.max_calls, options.yes):
        raise TooManyCalls(
            f"{files:,} files take up to {calls:,} paid requests to {embedder.name}; say --yes to make them,"
            f" or --max-calls N to make N now and the rest another time"
        )
    return calls


class Writer:
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
        changed: Collection[str] = (),
        lost: Collection[str] = (),
        losses: Sequence[Loss] = (),
    ) -> None:
        """Write to `store`; paths that `changed`, or lost their vector, and the `losses` of roots tell changes and moves from new files."""
        self.moved: set[int] = set()  # files of `losses` whose content came under a new path
        self._store, self._embedder, self._options, self._coverage = store, embedder, options, coverage
        self._changed, self._lost = changed, lost
        self.batch = options.batch or embedder.batch
        self._asked = threading.Lock()
        self._claimed: set[bytes] = set()  # contents that a decode has been started for and that are not committed
        self._failed: dict[bytes, Failure] = {}
        self._pictures: list[Decoded] = []  # not embedded yet
        # Not committed yet, without their pixels, which would take 100 MB; no row where there is nothing to embed.
        self._embedded: list[tuple[SourceFile, Image, NDArray[np.float32] | None]] = []
        self._failures: list[Failure] = []
        self._waiting: list[Recognised] = []  # files whose content is in the store, or is being decoded under another path
        self._vanished: dict[int, list[int]] = defaultdict(list)  # files by their image
        for loss in losses:
            for known in loss.vanished:
                if known.image is not None:
                    self._vanished[known.image].append(known.id)
        self._committed = time.monotonic()
        self._paid = embedder.calls(1) > 0
        self._calls = 0  # paid requests that were made

    def __enter__(self) -> Writer:
        """As it is."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Commit."""
        if error is not None and self._paid:
            self._pictures = []
        self.flush()

    def wanted(self, hash_: bytes) -> bool:
        """Whether a content must be decoded; only the first who asks hears yes. Called by the decoding threads."""
        with self._asked:
            if hash_ in self._claimed or self._store.has([hash_]):
                return False
            self._claimed.add(hash_)
            return True

    def take(self, result: Decoded | Recognised | Failure) -> None:
        """Note one file's result; embeds and commits when enough have come."""
        match result:
            case Decoded():
                self._pictures.append(result)
                if len(self._pictures) >= self.batch:
                    self._embed()
                    if self._paid:
                        self.flush()  # what is paid for is kept
            case Recognised():
                self._waiting.append(result)
            case Failure():
                self._failures.append(result)
                if result.hash:
                    self._failed[result.hash] = result
        files = len(self._embedded) + len(self._waiting) // 4 + len(self._failures) // 4
        late = time.monotonic() - self._committed > self._options.commit_seconds
        if files >= self._options.commit_images or (late and not self._paid):  # half a batch costs a request
            self.flush()

    def flush(self) -> None:
        """Embed what is left and commit; what was embedded is committed even where that fails."""
        try:
            self._embed()
        finally:
            self._commit()

    def _commit(self) -> None:
        batch, counted = Batch(), Coverage()
        for source, image, row in self._embedded:
            batch.images.append((image, row))
            counted.embedded += row is not None
            counted.noted.update(image.notes)
            batch.files.append(self._file(counted, source, image.hash))
        new = {image.hash for _, image, _ in self._embedded}
        known = self._store.catalog.image_ids([file.hash for file in self._waiting if file.hash not in new])
        waiting = []
        for file in self._waiting:
            if file.hash in known or file.hash in new:
                batch.files.append(self._file(counted, file.source, file.hash, batch.moved, self._vanished.get(known.get(file.hash, 0))))
            elif failure := self._failed.get(file.hash):
                self._failures.append(replace(failure, source=file.source))
            else:
                waiting.append(file)
        for failure in self._failures:
            batch.files.append(File(failure.source.path, failure.source.stat, None, failure.reason, failure.detail))
            counted.count(failure.reason)
        self._embedded, self._waiting, self._failures = [], waiting, []
        if batch.files:
            self._store.add(batch)
        self._coverage.include(counted)
        self.moved.update(batch.moved)
        with self._asked:
            self._claimed -= new
        self._committed = time.monotonic()

    def _embed(self) -> None:
        """Embed the first picture with its pixels; others share its vector. What is not answered, or costs more than max_calls leaves, is
        left to the next run.
        """
        pictures, self._pictures = self._pictures, []  # whatever happens, none is asked for twice
        has_vector = set(self._store.catalog.vectors_with_pixels([picture.image.pixels for picture in pictures]))
        has_vector.update(image.pixels for _, image, row in self._embedded if row is not None)
        shown: dict[bytes, Decoded] = {}
        for picture in pictures:
            if not picture.image.featureless and picture.image.pixels not in has_vector:
                shown.setdefault(picture.image.pixels, picture)
        asked = list(shown)[: self._within_limit(len(shown))]
        self._calls += self._embedder.calls(len(asked))
        unanswered = None
        try:
            found = embed(self._embedder, [shown[pixels].view for pixels in asked])
            rows = dict(zip(asked, found, strict=True))
        except Unanswered as error:
            unanswered = error
            rows = {asked[number]: row for number, row in error.rows.items()}
        left = set(shown) - set(rows)
        for picture in pictures:
            if picture.image.pixels not in left:
                self._embedded.append((picture.source, picture.image, rows.pop(picture.image.pixels, None)))
        if unanswered:
            raise unanswered
        if len(asked) < len(shown) and self._calls:
            raise TooManyCalls(f"{self._calls:,} paid requests were made, as --max-calls says; the same command goes on from there")
        if len(asked) < len(shown):
            raise TooManyCalls(
                f"one picture takes up to {self._embedder.calls(1):,} paid requests to {self._embedder.name}, and --max-calls allows"
                f" {self._options.max_calls:,}, so none was made; name a higher limit"
            )

    def _within_limit(self, pictures: int) -> int:
        """How many of so many pictures can be paid for with what is left of max_calls."""
        most = self._options.max_calls
        while most is not None and pictures and self._calls + self._embedder.calls(pictures) > most:
            pictures -= 1
        return pictures

    def _file(
        self, counted: Coverage, source: SourceFile, hash_: bytes, moved: list[int] | None = None, vanished: list[int] | None = None
    ) -> File:
        """The file, counted as unchanged, changed, moved or new; a move takes one of those that `vanished` with its content along."""
        if source.path in self._lost:
            counted.unchanged += 1
        elif source.path in self._changed:
            counted.changed += 1
        elif vanished and moved is not None:
            moved.append(vanished.pop())
            counted.moved += 1
        else:
            counted.new += 1
        return File(source.path, source.stat, hash_)
