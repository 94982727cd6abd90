"""STAGE 1: folders -> files -> pictures -> unit vectors -> store, in batches, safe to stop at any moment and to run again."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from indexes import Batch, File, Known, Root, Store
from pipeline.decode import RETRIED, SKIPPED, Decoded, Failure, Recognised, View, decode
from pipeline.embedder import Embedder, embed
from pipeline.errors import BadRoot
from pipeline.scan import Passed, SourceFile, scan

MISSING_SHARE = 0.2  # of a root's files: when more than this vanish at once, a drive is likelier to be away than they to be deleted
MISSING_FEW = 5  # this many may always vanish: a person tidied up


@dataclass(frozen=True)
class IngestOptions:
    """How an ingest works; the defaults fit a laptop."""

    batch: int = 32  # pictures embedded together
    commit_images: int = 1024  # a crash loses at most this many embeddings ...
    commit_seconds: float = 20.0  # ... or this much time
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    accept_missing: bool = False  # vanished files are deleted ones, however many there are
    wait_lock: float = 0.0  # seconds to wait for another ingest of the same store


@dataclass
class Coverage:
    """What an ingest saw, in files. seen = new + changed + unchanged + moved + those of `skipped` and `failed` that are files."""

    seen: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    moved: int = 0
    gone: int = 0
    missing: int = 0
    embedded: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    absent_roots: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def troubled(self) -> bool:
        """Whether something that a user would expect to be compared was not."""
        return bool(self.failed or self.absent_roots or self.missing)

    def count(self, reason: str) -> None:
        """Count a file without an image."""
        (self.skipped if reason in SKIPPED else self.failed)[reason] += 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON: reasons in alphabetical order."""
        return {**asdict(self), "skipped": dict(sorted(self.skipped.items())), "failed": dict(sorted(self.failed.items()))}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is: `done` of `total` files that must be read; total is None while folders are listed. `failure`: what just
    failed.
    """

    done: int
    total: int | None
    coverage: Coverage
    failure: Failure | None = None


def resolve_roots(store: Store, paths: Sequence[str], excludes: Sequence[str] | None, hidden: bool | None) -> tuple[list[Root], list[str]]:
    """The roots to ingest and those of `paths` that are no folders; with no `paths`, all remembered roots.

    A root that is known keeps its excludes and its view of hidden files unless new ones are given. Raises BadRoot when nothing is left
    to do.
    """
    known = {root.path: root for root in store.catalog.roots()}
    wanted, absent = [], []
    for path in paths:
        real = os.path.realpath(path)
        if not path or (not Path(real).is_dir() and real not in known):
            absent.append(path)
        elif real not in wanted:
            wanted.append(real)
    if not paths:
        wanted = list(known)
    if not wanted:
        raise BadRoot(
            f"{', '.join(map(ascii, absent))} is no folder" if absent else "no folder is remembered yet; name one: `neardup ingest FOLDER`"
        )
    roots = []
    for real in wanted:
        before = known.get(real, Root(real))
        roots.append(Root(real, before.excludes if excludes is None else tuple(excludes), before.hidden if hidden is None else hidden))
    return roots, absent


def ingest_roots(roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions | None = None) -> Iterator[Progress]:
    """Bring the store up to date with the files below `roots`, which are remembered. Safe to stop at any yield and to run again.

    A file is read again only when its size, times or inode changed; content that is known is never embedded again. Files that vanished
    leave the answers, but not those of a root that is away. The last Progress holds the whole coverage. Raises StoreLocked beside
    another ingest.
    """
    options = options or IngestOptions()
    with store.exclusive(options.wait_lock):
        coverage = Coverage()
        store.remember(roots)
        run = store.begin_run()
        outcome = "interrupted"
        try:
            yield from _ingest(roots, store, embedder, options, coverage)
            outcome = "complete"
        finally:
            store.end_run(run, outcome, coverage.as_dict())


def _ingest(roots: Sequence[Root], store: Store, embedder: Embedder, options: IngestOptions, coverage: Coverage) -> Iterator[Progress]:
    present = [root for root in roots if Path(root.path).is_dir()]
    coverage.absent_roots = [root.path for root in roots if root not in present]
    todo: list[SourceFile] = []
    changed: set[str] = set()
    seen: set[int] = set()
    devices: dict[int, int] = {}
    for found in scan(present):
        if isinstance(found, Passed):
            (coverage.failed if found.trouble else coverage.skipped)[found.reason] += 1
            continue
        coverage.seen += 1
        known = store.catalog.known(found.path)
        if known:
            seen.add(known.id)
        if known and found.stat.unchanged(known.stat) and known.reason not in RETRIED:
            if known.image is None:
                coverage.count(known.reason or "damaged")
            else:
                coverage.unchanged += 1
            if found.stat.device != known.stat.device:
                devices[known.id] = found.stat.device
        else:
            todo.append(found)
            if known:
                changed.add(found.path)
        if coverage.seen % 500 == 0:
            yield Progress(coverage.seen, None, coverage)
    if devices:
        store.touch(devices)

    writer = _Writer(store, embedder, options, coverage, changed)
    if todo:
        store.bind(embedder.space, embedder.name)
        yield Progress(0, len(todo), coverage)
        try:
            for done, result in enumerate(_decoded(todo, embedder.view, writer.wanted, options), 1):
                writer.take(result)
                yield Progress(done, len(todo), coverage, result if isinstance(result, Failure) else None)
        finally:
            writer.flush()  # on Ctrl-C too: what is embedded is paid for

    for root in present:
        _settle(store, root, seen | {known.id for known in _read_now(store, todo)}, writer.fresh, options, coverage)
    yield Progress(len(todo), len(todo), coverage)


def _read_now(store: Store, sources: Iterable[SourceFile]) -> Iterator[Known]:
    return (known for source in sources if (known := store.catalog.known(source.path)))


class _Writer:
    """Gathers results, embeds pictures in batches, commits now and then, and counts files as they are committed."""

    def __init__(self, store: Store, embedder: Embedder, options: IngestOptions, coverage: Coverage, changed: set[str]) -> None:
        self.fresh: Counter[bytes] = Counter()  # contents that were known, by how many new paths hold them: perhaps moved
        self._store, self._embedder, self._options, self._coverage, self._changed = store, embedder, options, coverage, changed
        self._asked = threading.Lock()
        self._claimed: set[bytes] = set()  # contents that a decode has been started for and that are not committed
        self._failed: dict[bytes, Failure] = {}
        self._pictures: list[Decoded] = []  # not embedded yet
        self._waiting: list[Recognised] = []  # files whose content is in the store, or is being decoded under another path
        self._batch = Batch()
        self._committed = time.monotonic()

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
                if len(self._pictures) >= self._options.batch:
                    self._embed()
            case Recognised():
                self._waiting.append(result)
            case Failure():
                self._put_failure(result.source, result)
                if result.hash:
                    self._failed[result.hash] = result
        late = time.monotonic() - self._committed > self._options.commit_seconds
        if late or max(len(self._batch.images), len(self._batch.files) // 4, len(self._waiting) // 4) >= self._options.commit_images:
            self.flush()

    def flush(self) -> None:
        """Embed what is left and commit."""
        self._embed()
        new = {image.hash for image in self._batch.images}
        known = self._store.has([file.hash for file in self._waiting if file.hash not in new])
        waiting, self._waiting = self._waiting, []
        for file in waiting:
            if file.hash in known:
                self.fresh[file.hash] += file.source.path not in self._changed
            if file.hash in known or file.hash in new:
                self._put_file(file.source, file.hash)
            elif failure := self._failed.get(file.hash):
                self._put_failure(file.source, failure)
            else:
                self._waiting.append(file)
        batch, self._batch = self._batch, Batch()
        if batch.files:
            self._store.add(batch)
        with self._asked:
            self._claimed -= new
        self._committed = time.monotonic()

    def _embed(self) -> None:
        pictures, self._pictures = self._pictures, []
        shown = [picture for picture in pictures if not picture.image.featureless]
        self._batch.vectors.extend(embed(self._embedder, [picture.view for picture in shown]))
        self._batch.embedded.extend(picture.image.hash for picture in shown)
        self._coverage.embedded += len(shown)
        for picture in pictures:
            self._batch.images.append(picture.image)
            self._put_file(picture.source, picture.image.hash)

    def _put_file(self, source: SourceFile, hash_: bytes) -> None:
        self._batch.files.append(File(source.path, source.stat, hash_))
        if source.path in self._changed:
            self._coverage.changed += 1
        else:
            self._coverage.new += 1

    def _put_failure(self, source: SourceFile, failure: Failure) -> None:
        self._batch.files.append(File(source.path, source.stat, None, failure.reason, failure.detail))
        self._coverage.count(failure.reason)


def _decoded(
    sources: Iterable[SourceFile], view: View, wanted: Callable[[bytes], bool], options: IngestOptions
) -> Iterator[Decoded | Recognised | Failure]:
    """Results in the order of `sources`, decoded by threads a bounded number of files ahead."""
    ahead = options.threads + options.batch
    window: deque[Future[Decoded | Recognised | Failure]] = deque()
    with ThreadPoolExecutor(options.threads, thread_name_prefix="decode") as pool:
        try:
            for source in sources:
                window.append(pool.submit(decode, source, view, wanted))
                if len(window) >= ahead:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            for future in window:
                future.cancel()


def _settle(store: Store, root: Root, seen: set[int], fresh: Counter[bytes], options: IngestOptions, coverage: Coverage) -> None:
    """Take files out of the answers that are not below `root` any more, unless it looks as if their drive is away."""
    held = 0
    vanished: list[Known] = []
    uncovered: list[int] = []
    for known in store.catalog.known_under(root.path):
        held += 1
        if known.id in seen:
            continue
        try:
            os.lstat(known.path)
        except (FileNotFoundError, NotADirectoryError):
            vanished.append(known)
        except OSError:
            continue  # its folder cannot be read now, and was counted as failed
        else:
            uncovered.append(known.id)  # still there: excluded, hidden, or reached by another way
    kept = set() if options.accept_missing else _kept(store, vanished, held)
    if kept:
        coverage.missing += len(kept)
        coverage.notes.append(
            f"{len(kept)} of {held} files below {ascii(root.path)} are missing; is a drive away? They stay in the answers."
            " If they are deleted, run again with --accept-missing"
        )
    removed = [known for known in vanished if known.id not in kept]
    hashes = {id_: image.hash for id_, image in store.catalog.images({known.image for known in removed if known.image is not None})}
    for known in removed:
        hash_ = hashes.get(known.image or 0)
        if hash_ is not None and fresh[hash_] > 0:  # the same content came under a new path
            fresh[hash_] -= 1
            coverage.moved += 1
            coverage.new -= 1
        else:
            coverage.gone += 1
    store.remove([known.id for known in removed] + uncovered)


def _kept(store: Store, vanished: Sequence[Known], held: int) -> set[int]:
    """Which of the files that vanished from a root of `held` files must stay in the answers, because a drive may be away."""
    if len(vanished) == held:
        return {known.id for known in vanished}
    paths = {known.path for known in vanished}
    images = [known.image for known in vanished if known.image is not None]
    elsewhere = {image for image, path, _ in store.catalog.files_of(images) if path not in paths}
    lost = {known.id for known in vanished if known.image is not None and known.image not in elsewhere}
    return lost if len(lost) > max(MISSING_FEW, MISSING_SHARE * held) else set()
