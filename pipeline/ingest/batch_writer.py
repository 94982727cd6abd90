"""Embed decoded images in batches, commit them with their files, and count what was committed."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from indexes.caches.thumbnails import Thumbnail, ThumbnailCache
from indexes.coverage import Coverage
from indexes.records import Image, NewFile
from indexes.store import Batch, Store
from pipeline.decode.decode import Decoded
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.embed.embedder import Embedder, embed
from pipeline.embed.paid_calls import PaidCallBudget, PaidCallEstimate
from pipeline.errors import ServiceUnavailable
from pipeline.ingest.coverage import IngestOptions, count_without_image, is_failure
from pipeline.ingest.reconcile import RootDiff
from pipeline.scan import SourceFile

# Files without an embedding of their own that weigh as much as one embedding in a commit.
LIGHT_FILES_PER_IMAGE = 4


@dataclass(frozen=True)
class FileHistory:
    """The history of the files to read; tells changed and moved files from new ones."""

    # Paths in the catalog whose size, times or inode differ now.
    changed_paths: Collection[str] = frozenset()
    # Paths in the catalog that are unchanged, and whose image has no vector.
    unembedded_paths: Collection[str] = frozenset()
    # Paths that had no image before, and (inode, size, time of modification) of such files that
    # have vanished: if they fail, there or where they were moved, it is not new.
    failed_paths: Collection[str] = frozenset()
    moved_failures: Collection[tuple[int, int, int]] = frozenset()
    # The vanished files of each root; a new file with the content of one of them was moved.
    root_diffs: Sequence[RootDiff] = ()


class BatchWriter:
    """A buffer of decoded images that embeds and commits them in batches.

    Use it as a context manager: at the end of the block the rest is embedded and committed. A
    block that raises commits what was embedded, and embeds the rest only if that is free.
    """

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        options: IngestOptions,
        coverage: Coverage,
        history: FileHistory | None = None,
        thumbnails: ThumbnailCache | None = None,
    ) -> None:
        """Write to `store`, and the thumbnails of embedded images to `thumbnails`.

        What was committed is counted in `coverage`.
        """
        self.batch_size = options.batch_size or embedder.batch_size
        # Vanished files whose content was found under a new path.
        self.moved_file_ids: set[int] = set()
        self._store = store
        self._embedder = embedder
        self._options = options
        self._coverage = coverage
        self._history = history or FileHistory()
        self._thumbnails = thumbnails
        self._vanished_by_image = _group_vanished_by_image(self._history.root_diffs)
        self._budget = PaidCallBudget(
            embedder, options.max_paid_calls, is_cost_accepted=options.accept_paid_calls
        )
        # Contents whose decoding has started and that are not committed.
        self._claimed_hashes: set[bytes] = set()
        self._claim_lock = threading.Lock()
        self._failure_by_hash: dict[bytes, Failure] = {}
        self._unembedded: list[Decoded] = []
        # Without pixels, which would take 100 MB; without a vector where the image needs none of
        # its own.
        self._uncommitted: list[tuple[SourceFile, Image, NDArray[np.float32] | None]] = []
        self._failures: list[Failure] = []
        # Files whose content is in the store, or is being decoded under another path.
        self._duplicates: list[AlreadyStored] = []
        self._last_commit_time = time.monotonic()

    def __enter__(self) -> BatchWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Embed the rest unless that costs money after an error, and commit."""
        if error is not None and self._budget.is_paid:
            self._unembedded = []
        self.flush()

    def require_consent(self, file_count: int) -> PaidCallEstimate:
        """Estimate the paid requests of files. Raises PaidCallLimit without consent."""
        estimate = self._budget.estimate(file_count)
        self._budget.require_consent(
            estimate, "--max-calls N to make N now and the rest another time"
        )
        return estimate

    def claim(self, hash_: bytes) -> bool:
        """Return True if the caller has to decode a content; only the first caller has to.

        Called by the threads that decode.
        """
        with self._claim_lock:
            if hash_ in self._claimed_hashes or self._store.find_complete_hashes([hash_]):
                return False
            self._claimed_hashes.add(hash_)
            return True

    def add(self, result: Decoded | AlreadyStored | Failure) -> None:
        """Add the result of one file; embed and commit if enough are waiting."""
        match result:
            case Decoded():
                self._unembedded.append(result)
                if len(self._unembedded) >= self.batch_size:
                    self._embed()
                    if self._budget.is_paid:
                        self.flush()  # a crash must not lose what was paid for
            case AlreadyStored():
                self._duplicates.append(result)
            case Failure():
                self._failures.append(result)
                if result.hash:
                    self._failure_by_hash[result.hash] = result
        if self._is_commit_due():
            self.flush()

    def flush(self) -> None:
        """Embed what is waiting and commit; if embedding fails, commit what was embedded."""
        try:
            self._embed()
        finally:
            self._commit()

    def _is_commit_due(self) -> bool:
        waiting = (
            len(self._uncommitted)
            + len(self._duplicates) // LIGHT_FILES_PER_IMAGE
            + len(self._failures) // LIGHT_FILES_PER_IMAGE
        )
        if waiting >= self._options.commit_images:
            return True
        # Flushing embeds a part of a batch, which would waste a paid request.
        is_late = time.monotonic() - self._last_commit_time > self._options.commit_seconds
        return is_late and not self._budget.is_paid

    def _embed(self) -> None:
        """Embed one waiting image of each pixel hash; images with equal pixels share its vector.

        Images that a service does not answer, or that the limit of paid requests excludes, are
        left to the next run. Raises ServiceUnavailable and PaidCallLimit after adding the others
        to the uncommitted.
        """
        # Cleared first: whatever fails below, no image is sent twice.
        waiting, self._unembedded = self._unembedded, []
        inputs = self._select_inputs(waiting)
        selected = list(inputs)[: self._budget.reserve(len(inputs))]
        outage = None
        try:
            rows = embed(self._embedder, [inputs[pixel_hash].pixels for pixel_hash in selected])
            vectors = dict(zip(selected, rows, strict=True))
        except ServiceUnavailable as error:
            outage = error
            vectors = {selected[number]: row for number, row in error.rows.items()}
        embedded = [inputs[pixel_hash] for pixel_hash in vectors]
        postponed = set(inputs) - set(vectors)
        for decoded in waiting:
            pixel_hash = decoded.image.pixel_hash
            if pixel_hash not in postponed:
                # Only the first image takes the vector; the store finds it for the others.
                vector = vectors.pop(pixel_hash, None)
                self._uncommitted.append((decoded.source, decoded.image, vector))
        self._save_thumbnails(embedded)  # last: whatever fails here, no vector is lost
        if outage:
            raise outage
        if len(selected) < len(inputs):
            self._budget.raise_limit_reached()

    def _save_thumbnails(self, embedded: Sequence[Decoded]) -> None:
        """Save the thumbnails that were made of the pixels that were decoded for the embedder."""
        if self._thumbnails:
            from pipeline.thumbnails import encode_thumbnail  # loads Pillow

            pixels = {item.image.hash: item.thumbnail for item in embedded}
            known = self._thumbnails.get(pixels)  # with features, after a loss of vectors
            self._thumbnails.put(
                {
                    hash_: Thumbnail(encode_thumbnail(thumbnail), b"")
                    for hash_, thumbnail in pixels.items()
                    if thumbnail is not None and hash_ not in known
                }
            )

    def _select_inputs(self, waiting: Sequence[Decoded]) -> dict[bytes, Decoded]:
        """Return by pixel hash the first image that needs a vector of its own."""
        pixel_hashes = [decoded.image.pixel_hash for decoded in waiting]
        embedded = set(self._store.catalog.vectors.find_by_pixel_hash(pixel_hashes))
        embedded.update(
            image.pixel_hash for _, image, vector in self._uncommitted if vector is not None
        )
        inputs: dict[bytes, Decoded] = {}
        for decoded in waiting:
            if not decoded.image.is_featureless and decoded.image.pixel_hash not in embedded:
                inputs.setdefault(decoded.image.pixel_hash, decoded)
        return inputs

    def _commit(self) -> None:
        """Commit all uncommitted images, duplicates and failures, then count them."""
        batch, counts = Batch(), Coverage()
        for source, image, vector in self._uncommitted:
            batch.images.append((image, vector))
            batch.files.append(self._record_file(counts, source, image.hash))
            counts.embedded += vector is not None
            counts.flagged.update(image.flags)
        new_hashes = {image.hash for _, image, _ in self._uncommitted}
        undecided = self._record_duplicates(batch, counts, new_hashes)
        for failure in self._failures:
            batch.files.append(_record_failure(failure))
            count_without_image(counts, failure.reason)
            counts.new_problems += self._is_new_problem(failure)
        self._uncommitted, self._duplicates, self._failures = [], undecided, []
        if batch.files:
            self._store.add(batch)
        self._coverage.include(counts)
        self.moved_file_ids.update(batch.moved_file_ids)
        with self._claim_lock:
            self._claimed_hashes -= new_hashes
        self._last_commit_time = time.monotonic()

    def _is_new_problem(self, failure: Failure) -> bool:
        """Tell if a file failed that a user should act on, and had not failed before."""
        stat = failure.source.require_stat()
        return (
            is_failure(failure.reason)
            and failure.source.path not in self._history.failed_paths
            and (stat.inode, stat.size, stat.mtime_ns) not in self._history.moved_failures
        )

    def _record_duplicates(
        self, batch: Batch, counts: Coverage, new_hashes: Collection[bytes]
    ) -> list[AlreadyStored]:
        """Add the files of images that are stored or in `batch`; return those still being decoded.

        A file whose content failed under another path is added to the failures.
        """
        stored_ids = self._store.catalog.images.get_ids(
            [file.hash for file in self._duplicates if file.hash not in new_hashes]
        )
        undecided = []
        for file in self._duplicates:
            if file.hash in stored_ids or file.hash in new_hashes:
                vanished = self._vanished_by_image.get(stored_ids.get(file.hash, 0), [])
                moved = batch.moved_file_ids
                batch.files.append(
                    self._record_file(counts, file.source, file.hash, vanished, moved)
                )
            elif failure := self._failure_by_hash.get(file.hash):
                self._failures.append(replace(failure, source=file.source))
            else:
                undecided.append(file)
        return undecided

    def _record_file(
        self,
        counts: Coverage,
        source: SourceFile,
        hash_: bytes,
        vanished_file_ids: list[int] | None = None,
        moved_file_ids: list[int] | None = None,
    ) -> NewFile:
        """Record a file with an image, and count it as unchanged, changed, moved or new.

        A moved file takes one id from `vanished_file_ids` to `moved_file_ids`.
        """
        if source.path in self._history.unembedded_paths:
            counts.unchanged += 1
        elif source.path in self._history.changed_paths:
            counts.changed += 1
        elif vanished_file_ids and moved_file_ids is not None:
            moved_file_ids.append(vanished_file_ids.pop())
            counts.moved += 1
        else:
            counts.new += 1
        return NewFile(source.path, source.require_stat(), hash_)


def _group_vanished_by_image(root_diffs: Sequence[RootDiff]) -> dict[int, list[int]]:
    """Group the ids of vanished files by the id of their image."""
    by_image: dict[int, list[int]] = defaultdict(list)
    for diff in root_diffs:
        for file in diff.vanished:
            if file.image_id is not None:
                by_image[file.image_id].append(file.id)
    return by_image


def _record_failure(failure: Failure) -> NewFile:
    source = failure.source
    return NewFile(source.path, source.require_stat(), None, failure.reason, failure.detail)
