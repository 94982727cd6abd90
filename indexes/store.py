"""The store: one folder with a catalog and segments, and the one door to both."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.catalog.catalog import Catalog
from indexes.catalog.pairs import JoinWatermark
from indexes.catalog.vectors import Ids, SegmentRow
from indexes.catalog.verdicts import StoredVerdict
from indexes.durable import locks
from indexes.durable.failpoints import failpoint
from indexes.errors import (
    InvalidThreshold,
    InvalidVector,
    SpaceMismatch,
    StoreDamaged,
    StoreError,
    StoreVersionMismatch,
)
from indexes.join import planner as planning
from indexes.join.exact import Recall, VectorRows
from indexes.join.planner import JoinMethod, JoinPlan
from indexes.paths import format_command
from indexes.records import Image, NewFile, Root, SavedThresholds, Space
from indexes.search import Search
from indexes.upkeep import compaction as compact
from indexes.upkeep import migration as switch
from indexes.upkeep import repair as damage
from indexes.upkeep.compaction import CompactionReport
from indexes.upkeep.former_caches import adopt_former_caches
from indexes.upkeep.migration import PendingMigration
from indexes.upkeep.repair import Finding, RepairReport
from indexes.vectors import segments
from indexes.vectors.segments import ScoredPairs, Vector, concat_pairs

# What a store that was cut off while it was made, or that lost its catalog, may hold.
STORE_ENTRY_NAMES = {
    *("segments", "tmp", "caches", "thumbs", "backup", "quarantine", switch.NEXT_STORE_NAME),
    *(
        "ingest.lock",
        "write.lock",
        "readers.lock",
        damage.RECOVERY_FILE_NAME,
        *damage.CATALOG_FILE_NAMES,
    ),
}
MAX_UNCOMMITTED_SECONDS, MAX_UNCOMMITTED_PAIRS = (
    5.0,
    1 << 20,
)  # of a join: what a kill loses at most


@dataclass
class Batch:
    """What one commit makes visible: images that are new or lost their vector, each with its unit vector (dim,); files, whose images are
    here or in the store already; and the ids of known files that are among them under a new path.

    The vector is None for an image without features, and may be None where another image with the same pixels has one.
    """

    images: list[tuple[Image, Vector | None]] = field(default_factory=list)
    files: list[NewFile] = field(default_factory=list)
    moved_file_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class JoinProgress:
    """How far a join is: `done` of `total` in its own units, pairs that it found so far, and, at the end of one by buckets, its recall."""

    plan: JoinPlan
    done: int
    total: int
    pair_count: int
    recall: Recall | None = None


class Store(Search):
    """A store of images, where they lie, and their vectors. Use it as a context manager.

    Any number of readers may be open beside one writer. Each `add` is all or nothing.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        """Open the store in `folder`; with `write`, make it when it is missing.

        Raises StoreMissing when there is none, StoreVersion when another program or a newer neardup made it.
        """
        if write:
            try:
                held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set[str]()
                if "catalog.db" not in held and held - STORE_ENTRY_NAMES:
                    raise StoreError(
                        f"{folder} is no store, and holds {ascii(min(held - STORE_ENTRY_NAMES))}; name a new folder with --store"
                    )
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for name in ("segments", "tmp"):
                    (folder / name).mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"{folder} cannot be made: {error.strerror}; name a folder you can write to with --store"
                ) from error
        # Whoever is present may still need a segment that was merged. Where there is no store, no lock is left.
        self._reader_lock = locks.ReaderLock(
            folder / "readers.lock" if write or (folder / "catalog.db").exists() else None
        )
        try:
            super().__init__(folder, Catalog(folder, write=write))
            self._bound_space: Space | None = None  # of what is added here, once bind() has said so
        except BaseException:
            self._reader_lock.release()
            raise

    def __enter__(self) -> Store:
        """The store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the catalog and of the mapped segments."""
        self._mapped_segments = {}
        try:
            self.catalog.close()
        finally:
            self._reader_lock.release()

    def lock_for_ingest(self, timeout_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Be the only ingest of this store for a block; waits up to `wait` seconds, then raises StoreLocked."""
        return locks.lock(self.folder / "ingest.lock", timeout_seconds)

    # --- the space ---

    @property
    def model(self) -> str | None:
        """The name by which the model was asked for; None before the first ingest."""
        bound = self.catalog.settings.get_space_and_model()
        return bound[1] if bound else None

    def bind(self, space: Space, model: str) -> None:
        """Bind a store that has no image yet to `space`, or check that it is bound to it. Raises SpaceMismatch.

        Until it has one, the next may bind it to another space, which add() then tells the first.
        """
        if self.catalog.settings.get_space_and_model() != (
            space,
            model,
        ):  # new, or the same weights reached by another name or path
            with self.catalog.transaction():
                self.require_space(space, unless_empty=True)
                bound = self.space
                self.catalog.settings.put_space(bound if bound == space else space, model)
            self._write_recovery_record()
        self._bound_space = space

    def _write_recovery_record(self) -> None:
        damage.write_recovery_record(
            self.folder, damage.RecoveryRecord(self.catalog.roots.list(), self.model)
        )

    def require_space(self, space: Space, *, unless_empty: bool = False) -> None:
        """Check that vectors of `space` may be compared with those that the store holds. Raises SpaceMismatch.

        With `unless_empty`, a store that has no image yet may be bound to another space.
        """
        bound = self.space
        if bound is not None and bound != space and not (unless_empty and self.catalog.is_empty()):
            raise SpaceMismatch(
                f"{self.folder} holds vectors of {bound}, asked for {space}; leave --model out, name another folder with --store, or"
                f" bring it to the other model with `{format_command(self.folder, 'migrate', '--model', 'NAME')}`"
            )

    # --- what is there ---

    def find_complete_hashes(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Those of `hashes` (blake3 of a file's bytes) that are images of this store, and did not lose their vector."""
        return self.catalog.images.find_complete_hashes(hashes)

    # --- change ---

    def add_roots(self, roots: Iterable[Root]) -> None:
        """Look through these folders from now on."""
        with self.catalog.transaction():
            for root in roots:
                self.catalog.roots.put(root)
        self._write_recovery_record()

    def add(self, batch: Batch) -> None:
        """Make a batch visible, all or nothing. Images that the store has already are left as they are, but for a vector that was lost.

        Images with the same pixels, or with equal vectors, share one. Call it with `exclusive` held where others may add too.
        Raises BadVector, NoSpace, and SpaceMismatch where another has bound the store to another space after bind().
        """
        space = self._bound_space or self.space
        if space is None:
            raise SpaceMismatch(
                f"{self.folder} is not bound to a model yet; bind() it before adding"
            )
        known = self.catalog.images.get_ids([image.hash for image, _ in batch.images])
        whole = self.catalog.images.find_complete_hashes(known)
        new = {image.hash: (image, row) for image, row in batch.images if image.hash not in whole}
        vectors, fresh = self._assign_vectors(list(new.values()), space.dim)
        row = None
        if fresh:
            part = (np.array(list(fresh), np.int64), np.stack(list(fresh.values())))
            row = segments.write(self.folder / "segments", self.folder / "tmp", [part])
        with self.catalog.transaction():
            self.require_space(space)
            if row:
                self.catalog.vectors.put_segment(row)
                self.catalog.vectors.put(
                    {id_: _compute_digest(code) for id_, code in fresh.items()}
                )
            ids = count(self.catalog.images.get_next_id())
            for (hash_, (image, _)), vector in zip(new.items(), vectors, strict=True):
                if hash_ not in known:
                    self.catalog.images.put(next(ids), image, vector)
                else:
                    self.catalog.images.update(known[hash_], image, vector)
            self.catalog.files.put(batch.files)
            self.catalog.files.remove(batch.moved_file_ids)

    def _assign_vectors(
        self, images: Sequence[tuple[Image, Vector | None]], dim: int
    ) -> tuple[list[int | None], dict[int, NDArray[np.float16]]]:
        """The vector of each image, by id, and those that are new, with their ids."""
        given = [row for _, row in images if row is not None]
        if any(row.shape != (dim,) for row in given):
            raise InvalidVector(
                f"vectors of {sorted({row.shape for row in given})}, the store holds {dim} dimensions"
            )
        stored = iter(segments.to_stored_vectors(np.stack(given), dim) if given else ())
        rows: list[NDArray[np.float16] | None] = [
            None if row is None else next(stored) for _, row in images
        ]
        by_pixels = self.catalog.vectors.find_by_pixel_hash(
            [image.pixel_hash for image, _ in images]
        )
        by_code = self.catalog.vectors.find_by_digest(
            {_compute_digest(row) for row in rows if row is not None}
        )
        shelf = VectorRows(self._map_segments()) if by_code else None
        ids, fresh, equal = (
            count(self.catalog.vectors.get_next_id()),
            dict[int, NDArray[np.float16]](),
            dict[bytes, int](),
        )
        placed: list[int | None] = []
        for (image, _), row in zip(images, rows, strict=True):
            id_ = None if image.is_featureless else by_pixels.get(image.pixel_hash)
            if id_ is None and row is not None:
                id_ = equal.get(row.tobytes())
                alike = by_code.get(_compute_digest(row))
                if (
                    id_ is None
                    and shelf
                    and alike
                    and (shelf.gather(shelf.find_rows([alike])) == row).all()
                ):
                    id_ = alike
                if id_ is None:
                    id_ = next(ids)
                    fresh[id_] = row
                equal[row.tobytes()] = by_pixels[image.pixel_hash] = id_
            if id_ is None and not image.is_featureless:
                raise InvalidVector(
                    f"image {image.hash.hex()} has features but no vector; embed it first"
                )
            placed.append(id_)
        return placed, fresh

    def mark_present(self, devices: Mapping[int, int]) -> None:
        """Note that files, by the ids of their `Known`, are there, on these device numbers."""
        with self.catalog.transaction():
            self.catalog.files.mark_present(devices)

    def mark_missing(self, file_ids: Iterable[int]) -> None:
        """Note that files are not there now; they stay in the answers, marked."""
        with self.catalog.transaction():
            self.catalog.files.mark_missing(file_ids)

    def remove_root(self, path: str) -> None:
        """Look through the folder `root` no more."""
        with self.catalog.transaction():
            self.catalog.roots.remove(path)
        self._write_recovery_record()

    def verify(self) -> None:
        """Verify every segment that is not untouched. Raises StoreDamaged, naming the file."""
        self._map_segments()

    def prepare(self) -> None:
        """Verify every segment that is not untouched, and remove what a killed process left. Call it with `exclusive` held.

        Raises StoreDamaged, naming the file.
        """
        if (
            not self.catalog.was_closed_cleanly
        ):  # the last writer was cut off: what it left is sealed when this one ends
            self.catalog.verify()
        self._map_segments()
        folder = self.folder / "segments"
        rows = self.catalog.vectors.list_segments()
        if moved := [
            row for row in rows if not segments.is_untouched(row, folder)
        ]:  # the store was copied, or came from a backup
            with self.catalog.transaction():
                for row in moved:
                    self.catalog.vectors.put_segment(segments.with_file_stat(row, folder))
        adopt_former_caches(self.folder)
        self._sweep()

    def _sweep(self) -> None:
        """Remove temporary files, and segments that no catalog names, unless somebody who came before may still read them."""
        begun = switch.read_migration_target(self.folder)
        if begun and begun[0] == self.space:  # it took the place of this one's vectors already
            self._write_recovery_record()
            switch.remove_next_store(self.folder)
        named = {f"{row.blake3}{segments.SUFFIX}" for row in self.catalog.vectors.list_segments()}
        left = [
            file
            for file in (self.folder / "segments").iterdir()
            if file.suffix == segments.SUFFIX and file.name not in named
        ]
        with self._reader_lock.try_exclusive() as alone:
            for file in left if alone else ():
                file.unlink(missing_ok=True)
        with locks.lock(self.folder / "write.lock", 60.0):  # others write there with this lock held
            for file in (self.folder / "tmp").iterdir():
                if file.is_dir():
                    shutil.rmtree(file)
                else:
                    file.unlink(missing_ok=True)

    # --- another space ---

    def begin_migration(self, space: Space, model: str) -> Store:
        """A store inside this one for vectors of another space, which succeed() lets take the place of this one's; what was begun goes on.

        Call it with `exclusive` held, here and while the other is written to. Raises SpaceMismatch where images were embedded for a third.
        """
        again = f"begin anew with `{format_command(self.folder, 'migrate', '--model', model, '--restart')}`"
        try:
            made = Store(self.folder / switch.NEXT_STORE_NAME, write=True)
            try:
                try:
                    made.bind(space, model)
                except SpaceMismatch as error:
                    on = format_command(self.folder, "migrate", "--model", made.model or model)
                    raise SpaceMismatch(
                        f"{self.folder} is on its way to {made.model}; go on with `{on}`, or {again}"
                    ) from error
                made.prepare()
            except BaseException:
                made.close()
                raise
        except (StoreDamaged, StoreVersionMismatch) as error:
            raise type(error)(
                f"what was embedded for {model} cannot be used ({error}); {again}"
            ) from error
        return made

    def get_pending_migration(self) -> PendingMigration | None:
        """The migration to another space that was begun and has not ended; None where nothing says so."""
        with self.catalog.snapshot():
            return switch.find_pending_migration(self.folder, self.catalog)

    def commit_migration(self) -> None:
        """Let the space, vectors and pairs of the successor, which must be closed, take the place of this one's, all at once.

        Files, roots and runs stay. Images that the successor does not have wait to be embedded again. Call it with `exclusive` held.
        """
        switch.commit_next_store(self.folder, self.catalog)
        self._bound_space = None
        self._map_segments()
        self._sweep()
        failpoint("migration swept")

    def abort_migration(self) -> None:
        """Drop the successor, with all that was embedded for it. Call it with `exclusive` held."""
        switch.remove_next_store(self.folder)

    def compact(self, *, full: bool = False) -> CompactionReport:
        """Merge small segments, and drop vectors that no file needs any more, where that is due; with `full`, as far as it goes.

        Answers stay the same. Call it with `exclusive` held. Each merge is a commit: what was done stays when it is cut off.
        """
        rows, space = self.catalog.vectors.list_segments(), self.space
        if space is None:
            return CompactionReport(0, 0, 0, 0)
        dead = {row.blake3: self._find_tombstones(row) for row in rows}
        counts = {name: len(ids) for name, ids in dead.items()}
        dropped = written = 0
        for run in compact.plan_merges(
            rows, counts, self.catalog.vectors.get_next_id() - 1, space.dim, full=full
        ):
            made = self._merge_segments(run, dead)
            with self.catalog.transaction():
                self.catalog.vectors.remove_segments([row.blake3 for row in run])
                self.catalog.vectors.delete_tombstones(
                    np.concatenate([dead[row.blake3] for row in run])
                )
                if made:
                    self.catalog.vectors.put_segment(made)
            failpoint("compaction committed")
            dropped += sum(counts[row.blake3] for row in run)
            written += made.size if made else 0
        self._map_segments()
        self._sweep()
        if dropped:
            with (
                ThumbnailCache(self.folder, write=True) as thumbs,
                CropCache(self.folder, space, write=True) as parts,
            ):
                thumbs.keep_only(self.catalog.images.stream_hashes_in_use())
                parts.keep_only(self.catalog.images.stream_hashes_in_use())
        failpoint("compaction swept")
        return CompactionReport(
            len(rows), len(self.catalog.vectors.list_segments()), dropped, written
        )

    def _find_tombstones(self, row: SegmentRow) -> Ids:
        return np.setdiff1d(
            self.catalog.vectors.list_ids(row.first_id, row.last_id),
            self.catalog.vectors.list_in_use(row.first_id, row.last_id),
            assume_unique=True,
        )

    def _merge_segments(
        self, rows: Sequence[SegmentRow], tombstones: Mapping[str, Ids]
    ) -> SegmentRow | None:
        mapped = {
            row.blake3: segment
            for row, segment in zip(
                self.catalog.vectors.list_segments(), self._map_segments(), strict=True
            )
        }

        def read_live_rows() -> Iterator[tuple[Ids, NDArray[np.float16]]]:
            for row in rows:
                segment = mapped[row.blake3]
                keep = np.isin(segment.ids, tombstones[row.blake3], invert=True)
                if keep.any():
                    yield segment.ids[keep], segment.vectors[keep]

        if sum(row.vector_count - len(tombstones[row.blake3]) for row in rows) == 0:
            return None
        rewrites = (
            max(row.rewrites for row in rows if len(tombstones[row.blake3]) < row.vector_count) + 1
        )
        return segments.write(
            self.folder / "segments", self.folder / "tmp", read_live_rows(), rewrites
        )

    def save_verdicts(self, verdicts: Iterable[StoredVerdict]) -> None:
        """Keep what pairs of images were found to be to each other."""
        with self.catalog.transaction():
            self.catalog.verdicts.put(verdicts)

    def save_thresholds(self, thresholds: SavedThresholds | None) -> None:
        """Let answers go by this threshold and strictness from now on, None for those of the model. Raises BadThreshold below the space's
        floor, or without a space.
        """
        with self.catalog.transaction():
            if thresholds:
                if self.space is None:
                    raise InvalidThreshold(
                        "the store has no photo yet, so no threshold means anything to it; ingest a folder first"
                    )
                self.check_threshold(thresholds.threshold)
            self.catalog.settings.put_saved_thresholds(thresholds)

    def begin_run(self) -> int:
        """Note that an ingest began; returns its number."""
        with self.catalog.transaction():
            return self.catalog.runs.begin(
                _format_now("microseconds")
            )  # which tells it from any run of another catalog

    def end_run(self, run_id: int, outcome: str, coverage: dict[str, Any]) -> None:
        """Note how an ingest ended, "complete" or "interrupted", and what it saw."""
        with self.catalog.transaction():
            self.catalog.runs.end(run_id, _format_now(), outcome, coverage)

    def remove_files(self, file_ids: Iterable[int]) -> None:
        """Forget files, by the ids of their `Known`. Their images and vectors stay, out of all answers, until a file holds them again."""
        with self.catalog.transaction():
            self.catalog.files.remove(file_ids)

    def join(self, method: JoinMethod | None = None) -> Iterator[JoinProgress]:
        """Find the pairs that new vectors make, and keep them down to a floor; stop it at any yield, the next call goes on from there.

        Nothing is yielded where nothing is new. `way` takes the choice from the planner; an exact join that is asked for where pairs were
        found by buckets begins anew. Call it with `exclusive` held.
        """
        space, rows = self.space, self.catalog.vectors.list_segments()
        frontier = self.catalog.pairs.get_watermark() or JoinWatermark(
            space.floor if space else 1.0
        )
        if method is JoinMethod.EXACT and frontier.recall < 1:
            frontier = JoinWatermark(frontier.floor)
        if space is None or not rows or rows[-1].last_id <= frontier.done:
            return
        shelf = VectorRows(self._map_segments())
        frontier = planning.choose_floor(
            shelf, frontier, space.floor, max(space.threshold, frontier.floor)
        )
        plan = planning.plan_join(shelf, frontier, method)
        waiting: list[ScoredPairs] = []
        pairs, committed = 0, time.monotonic()
        yield JoinProgress(plan, 0, 1, 0)
        for step in plan.execute(shelf):
            waiting.append(step.new_pairs)
            pairs += len(step.new_pairs.left)
            last = step.watermark.done >= shelf.ids[-1]
            if (
                last
                or time.monotonic() - committed > MAX_UNCOMMITTED_SECONDS
                or sum(len(part.left) for part in waiting) > MAX_UNCOMMITTED_PAIRS
            ):
                failpoint("join pairs found")
                found = concat_pairs(waiting)
                with self.catalog.transaction():
                    self.catalog.pairs.put(step.watermark, found.left, found.right, found.score)
                waiting, committed = [], time.monotonic()
            yield JoinProgress(plan, step.done, step.total, pairs, step.recall)


def check(folder: Path, *, read_all: bool = False) -> list[Finding]:
    """Everything in the store in `folder` that is not what was written; with `data`, every byte is read. Raises StoreMissing, StoreVersion.

    A catalog that cannot be relied on is one finding, of its file; what it would say of the segments is not asked.
    """
    try:
        with Store(folder) as store:
            return list(damage.find_damage(folder, store.catalog, read_all=read_all))
    except StoreDamaged as error:
        return [Finding(os.fspath(folder / "catalog.db"), str(error))]


def repair(folder: Path, *, read_all: bool = False) -> tuple[list[Finding], RepairReport | None]:
    """Check a store and go on without what is damaged: nothing is deleted, and an ingest embeds again what lost its vector.

    The catalog is saved first. One that is damaged itself goes to quarantine with all segments, and only the roots are kept.
    Returns what was found and what was done, None where there was nothing to do. Raises StoreMissing, StoreVersion, and StoreLocked beside
    an ingest.
    """
    with suppress(StoreDamaged):
        Store(folder).close()  # where there is no store, no lock is made
    with locks.lock(folder / "ingest.lock"):
        found = check(folder, read_all=read_all)
        catalog = os.fspath(folder / "catalog.db")
        if all(finding.location == damage.UNEMBEDDED_LOCATION for finding in found):
            return found, None
        if all(finding.location != catalog for finding in found):
            with Store(folder, write=True) as store:
                return found, damage.quarantine_damage(folder, store.catalog, found)
        with locks.lock(folder / "write.lock", 60.0):
            return found, damage.rebuild_catalog(folder)


def _format_now(timespec: str = "seconds") -> str:
    return datetime.now(UTC).isoformat(timespec=timespec)


def _compute_digest(vector: NDArray[np.float16]) -> int:
    """64 bits of the blake3 of a vector as it is stored, as SQLite keeps them: signed."""
    return int.from_bytes(blake3(vector.tobytes()).digest(8), "little", signed=True)
