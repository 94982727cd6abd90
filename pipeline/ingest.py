"""STAGE 1: folders -> files -> pictures -> unit vectors -> store, in batches, safe to stop at any moment and to run again."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes import Batch, File, Image, Plan, Root, Store, Way
from pipeline.decode import Decoded
from pipeline.decoders import Decoders
from pipeline.embedder import UNASKED, Embedder, embed
from pipeline.errors import BadRoot, TooManyCalls, Unanswered
from pipeline.missing import Loss, find_loss, held_by, is_below
from pipeline.reading import RETRIED, SKIPPED, Failure, Recognised
from pipeline.scan import NOTHING, Passed, SourceFile, scan


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
    notes: list[str] = field(default_factory=list)
    join: dict[str, Any] | None = None  # how the pairs of new pictures were looked for, and what share was found
    compaction: dict[str, int] | None = None  # segments that were merged, vectors that were dropped

    @property
    def troubled(self) -> bool:
        """Whether something that a user would expect to be compared was not."""
        return bool(self.failed or self.absent_roots or self.missing)

    def count(self, reason: str) -> None:
        """Count a file without an image."""
        (self.skipped if reason in SKIPPED else self.failed)[reason] += 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON: reasons in alphabetical order."""
        return {**asdict(self), **{name: dict(sorted(getattr(self, name).items())) for name in ("noted", "skipped", "failed")}}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is: `done` of `total` files that must be read, total is None while folders are listed; then, in its own units, the
    join of what is new, with its `plan`. `failure`: what just failed.
    """

    done: int
    total: int | None
    coverage: Coverage
    failure: Failure | None = None
    plan: Plan | None = None
    calls: int = 0  # said once, before the first: how many paid requests it will take at most


@dataclass(frozen=True)
class Roots:
    """The roots of a run, and the paths that were asked for but are no folders."""

    found: list[Root]
    absent: list[str]


def resolve_roots(store: Store, paths: Sequence[str], excludes: Sequence[str] | None = None, hidden: bool | None = None) -> Roots:
    """The roots to ingest: those at `paths` and what is remembered below them; with no `paths`, all that are remembered.

    A root that is known keeps its excludes and its view of hidden files unless new ones are given; an empty pattern clears them. Raises
    BadRoot when nothing is left to do.
    """
    known = {root.path: root for root in store.catalog.roots()}
    wanted, absent = list(known) if not paths else [], []
    for path in paths:
        real = os.path.realpath(path)
        if real == "/":
            raise BadRoot("/ is the whole machine; name the folders that hold photos")
        if path and (real in known or os.path.isdir(real)):  # noqa: PTH112 - never raises, whatever a dead mount answers
            wanted.append(real)
        else:
            absent.append(path)
    if not wanted:
        listed = ", ".join(map(ascii, absent))
        raise BadRoot(f"{listed} is no folder" if absent else "no folder is remembered yet; name one: `neardup ingest FOLDER`")
    roots = {path: root for path, root in known.items() if is_below(path, wanted)}
    for path in wanted:
        before = known.get(path, Root(path))
        patterns = before.excludes if excludes is None else tuple(pattern for pattern in excludes if pattern)
        roots[path] = Root(path, patterns, before.hidden if hidden is None else hidden)
    return Roots(list(roots.values()), absent)


def ingest_roots(roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions | None = None) -> Generator[Progress]:
    """Bring the store up to date with the files below `roots`, which are remembered. Safe to stop at any yield and to run again.

    A file is read again only when its size, times or inode changed; content that is known is never embedded again. Files that vanished
    leave the answers, but not those of a root that is away. The last Progress holds the whole coverage. Close the iterator before the store
    when stopping early: that commits what is embedded. Raises StoreLocked beside another ingest, and SpaceMismatch for an embedder of
    another space than the store's, which a migration may have changed while this waited.
    """
    options = options or IngestOptions()
    with store.exclusive(options.wait_lock):
        yield from ingest_locked(roots, store, embedder, options)


def ingest_locked(roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions) -> Generator[Progress]:
    """As ingest_roots, for one who has `store.exclusive` already, so that nobody changes the store's model after it was looked up."""
    roots = [Root(os.path.realpath(root.path), root.excludes, root.hidden) for root in roots]
    store.prepare()
    store.remember(roots)
    coverage = Coverage()
    run = store.begin_run()
    outcome = "interrupted"
    try:
        yield from _ingest(roots, store, embedder, options, coverage)
        outcome = "complete"
    finally:
        store.end_run(run, outcome, coverage.as_dict())


@dataclass
class _Seen:
    """What a scan met: files to read, ids of known files, paths of those that changed and of those that
    are as they were but whose vector was lost, and folders that could not be listed.
    """

    todo: list[SourceFile] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)


def _ingest(roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions, coverage: Coverage) -> Iterator[Progress]:
    present = [root for root in roots if os.path.isdir(root.path)]  # noqa: PTH112 - never raises, whatever a dead mount answers
    seen = _Seen()
    yield from _scan(present, store, seen, coverage)

    remembered = store.catalog.roots()
    losses = [find_loss(store, root, remembered, seen.known, seen.unreadable) for root in present]
    writer = Writer(store, embedder, options, coverage, seen, losses)
    if seen.todo:
        with Decoders(options.decoders, options.readers) as decoders:
            decoders.start()  # while the model loads
            store.bind(embedder.space, embedder.name)
            yield Progress(0, len(seen.todo), coverage, calls=affordable(embedder, len(seen.todo), options))
            try:
                for done, result in enumerate(decoders.stream(seen.todo, embedder.view, writer.wanted, writer.batch), 1):
                    writer.take(result)
                    yield Progress(done, len(seen.todo), coverage, result if isinstance(result, Failure) else None)
            except BaseException:
                writer.stop()
                raise
            writer.flush()

    for loss in losses:
        _settle(store, loss, writer.moved, options, coverage)
    for root in roots:
        if root not in present:
            _settle_absent(store, root, remembered, options, coverage)
    yield from find_pairs(store, options, coverage)
    compaction = store.compact()
    if compaction.written or compaction.dropped:
        coverage.compaction = asdict(compaction)
    yield Progress(len(seen.todo), len(seen.todo), coverage)


def affordable(embedder: Embedder, files: int, options: IngestOptions) -> int:
    """How many paid requests so many files take at most. Raises TooManyCalls when nobody agreed to that."""
    calls = embedder.calls(files)
    if calls > UNASKED and not options.yes and options.max_calls is None:
        raise TooManyCalls(
            f"{files:,} files take up to {calls:,} paid requests to {embedder.name}; say --yes to make them,"
            f" or --max-calls N to make N now and the rest another time"
        )
    return calls


def find_pairs(store: Store, options: IngestOptions, coverage: Coverage) -> Iterator[Progress]:
    """Find the pairs that new pictures make; notes in the coverage how."""
    for now in store.join(options.join):
        recall = {**asdict(now.recall), "at_least": round(now.recall.at_least, 5)} if now.recall else None
        coverage.join = {
            "way": now.plan.way.value,
            "why": now.plan.why,
            "floor": now.plan.frontier.floor,
            "pairs": now.pairs,
            "recall": recall,
        }
        yield Progress(now.done, now.total, coverage, plan=now.plan)


def _scan(roots: Sequence[Root], store: Store, seen: _Seen, coverage: Coverage) -> Iterator[Progress]:
    found_again: dict[int, int] = {}
    lost = store.catalog.unembedded()
    for found in scan(roots):
        if isinstance(found, Passed):
            (coverage.failed if found.trouble else coverage.skipped)[found.reason] += 1
            if found.trouble:
                seen.unreadable.append(found.path)
                failure = Failure(SourceFile(found.path, NOTHING), found.reason, found.detail)
                yield Progress(coverage.seen, None, coverage, failure)
            continue
        coverage.seen += 1
        known = store.catalog.known(found.path)
        if known:
            seen.known.add(known.id)
        if known and found.stat.unchanged(known.stat) and known.reason not in RETRIED and known.image not in lost:
            if known.reason is None:
                coverage.unchanged += 1
            else:
                coverage.count(known.reason)
            if known.missing or found.stat.device != known.stat.device:
                found_again[known.id] = found.stat.device
        else:
            seen.todo.append(found)
            if known and known.image in lost and found.stat.unchanged(known.stat):
                seen.lost.add(found.path)
            elif known:
                seen.changed.add(found.path)
        if coverage.seen % 500 == 0:
            yield Progress(coverage.seen, None, coverage)
    if found_again:
        store.found(found_again)


def _settle(store: Store, loss: Loss, moved: Collection[int], options: IngestOptions, coverage: Coverage) -> None:
    """Take files out of the answers that are not below a root any more, unless it looks as if their drive is away."""
    away = {known.id for known in (() if options.accept_missing else loss.away(moved))}
    if away:
        store.missing(away)
        coverage.missing += len(away)
        coverage.notes.append(
            f"{len(away)} of {loss.held} files below {ascii(loss.root.path)} are missing; is a drive away?"
            " They stay in the answers, marked. If they are deleted, run again with --accept-missing"
        )
    gone = [known.id for known in loss.vanished if known.id not in away and known.id not in moved]
    coverage.gone += len(gone)
    coverage.left_out += len(loss.left_out)
    store.remove(gone + loss.left_out)


def _settle_absent(store: Store, root: Root, remembered: Sequence[Root], options: IngestOptions, coverage: Coverage) -> None:
    """Mark the files of a root that is away, or forget it with them when that was asked for by its name."""
    held = [known.id for known in held_by(store, root, remembered)]
    if root.path in options.forget:
        store.remove(held)
        store.forget(root.path)
        coverage.gone += len(held)
    else:
        store.missing(held)
        coverage.missing += len(held)
        coverage.absent_roots.append(root.path)


class Writer:
    """Gathers results, embeds pictures in batches, commits now and then, and counts files as they are committed."""

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        options: IngestOptions,
        coverage: Coverage,
        seen: _Seen | None = None,
        losses: Sequence[Loss] = (),
    ) -> None:
        """Write to `store`; what a scan has `seen`, and the `losses` of its roots, tell changes and moves from new files."""
        self.moved: set[int] = set()  # files of `losses` whose content came under a new path
        self._store, self._embedder, self._options, self._coverage, self._seen = store, embedder, options, coverage, seen or _Seen()
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

    def stop(self) -> None:
        """Commit what is embedded; what is not, only where that costs no money."""
        if self._paid:
            self._pictures = []
        self.flush()

    def flush(self) -> None:
        """Embed what is left and commit."""
        self._embed()
        batch = Batch()
        for source, image, row in self._embedded:
            batch.images.append((image, row))
            self._coverage.noted.update(image.notes)
            batch.files.append(self._file(source, image.hash))
        new = {image.hash for _, image, _ in self._embedded}
        known = self._store.catalog.image_ids([file.hash for file in self._waiting if file.hash not in new])
        waiting = []
        for file in self._waiting:
            if file.hash in known or file.hash in new:
                batch.files.append(self._file(file.source, file.hash, batch.moved, self._vanished.get(known.get(file.hash, 0))))
            elif failure := self._failed.get(file.hash):
                self._failures.append(replace(failure, source=file.source))
            else:
                waiting.append(file)
        for failure in self._failures:
            batch.files.append(File(failure.source.path, failure.source.stat, None, failure.reason, failure.detail))
            self._coverage.count(failure.reason)
        self._embedded, self._waiting, self._failures = [], waiting, []
        if batch.files:
            self._store.add(batch)
        self.moved.update(batch.moved)
        with self._asked:
            self._claimed -= new
        self._committed = time.monotonic()

    def _embed(self) -> None:
        """Embed the first picture with its pixels; others share its vector. What is not answered is left to the next run."""
        pictures, self._pictures = self._pictures, []  # whatever happens, none is asked for twice
        has_vector = set(self._store.catalog.vectors_with_pixels([picture.image.pixels for picture in pictures]))
        has_vector.update(image.pixels for _, image, row in self._embedded if row is not None)
        shown: dict[bytes, Decoded] = {}
        for picture in pictures:
            if not picture.image.featureless and picture.image.pixels not in has_vector:
                shown.setdefault(picture.image.pixels, picture)
        calls = self._embedder.calls(len(shown))
        if calls and self._options.max_calls is not None and self._calls + calls > self._options.max_calls:
            raise TooManyCalls(f"{self._calls:,} paid requests were made, as --max-calls says; the same command goes on from there")
        self._calls += calls
        unanswered = None
        try:
            found = embed(self._embedder, [picture.view for picture in shown.values()])
            rows = dict(zip(shown, found, strict=True))
        except Unanswered as error:
            unanswered, asked = error, list(shown)
            rows = {asked[number]: row for number, row in error.rows.items()}
        left = set(shown) - set(rows)
        self._coverage.embedded += len(rows)
        for picture in pictures:
            if picture.image.pixels not in left:
                self._embedded.append((picture.source, picture.image, rows.pop(picture.image.pixels, None)))
        if unanswered:
            raise unanswered

    def _file(self, source: SourceFile, hash_: bytes, moved: list[int] | None = None, vanished: list[int] | None = None) -> File:
        """The file, counted as unchanged, changed, moved or new; a move takes one of those that `vanished` with its content along."""
        if source.path in self._seen.lost:
            self._coverage.unchanged += 1
        elif source.path in self._seen.changed:
            self._coverage.changed += 1
        elif vanished and moved is not None:
            moved.append(vanished.pop())
            self._coverage.moved += 1
        else:
            self._coverage.new += 1
        return File(source.path, source.stat, hash_)
