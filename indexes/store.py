"""A store: images, the files that hold them, and their vectors, in one folder.

A store is a catalog and segments, and this module is the only way to change them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from indexes.catalog.verdicts import StoredVerdict
from indexes.coverage import CompactionReport, Coverage
from indexes.decisions import Decision
from indexes.durable.failpoints import failpoint
from indexes.errors import (
    InvalidThreshold,
    SpaceMismatch,
    StoreDamaged,
    StoreLocked,
    StoreVersionMismatch,
)
from indexes.folder import StoreFolder, lock_ingest, lock_writes
from indexes.join.join import JoinProgress, join_new_vectors
from indexes.join.planner import JoinMethod
from indexes.paths import NEXT_STORE_NAME, format_command
from indexes.records import Image, NewFile, Root, RunOutcome, SavedThresholds, Space
from indexes.search import Search
from indexes.upkeep import compaction, migration
from indexes.upkeep.former_caches import adopt_former_caches, has_former_caches
from indexes.upkeep.migration import PendingMigration
from indexes.upkeep.recovery import load_decisions, save_decisions, save_recovery_record
from indexes.upkeep.sweep import sweep
from indexes.vectors import segments
from indexes.vectors.mapped import MappedSegments
from indexes.vectors.placement import Placement, place_vectors
from indexes.vectors.scores import Vector


@dataclass
class Batch:
    """Images and files that one commit makes visible.

    `images` are new or lost their vector, each with its unit vector (dim,). The vector is None for
    a featureless image, and may be None if another image with the same pixels has one. The images
    of `files` are in the batch or in the store. `moved_file_ids` are files of the catalog that are
    among `files` under a new path.
    """

    images: list[tuple[Image, Vector | None]] = field(default_factory=list)
    files: list[NewFile] = field(default_factory=list)
    moved_file_ids: list[int] = field(default_factory=list)


class Store:
    """A store of images, their files, and their vectors. Use it as a context manager.

    Any number of readers may be open beside one writer. `search` finds vectors and pairs, `catalog`
    reads the tables. Each method that changes the store is all or nothing unless it says otherwise.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        """Open the store in `folder`; with `write`, create it if it is missing.

        Raises StoreMissing if there is none, StoreVersionMismatch if another program or a newer
        neardup made it, and StoreDamaged.
        """
        self._opened = StoreFolder(folder, write=write)
        self.folder, self.catalog = folder, self._opened.catalog
        if write and has_former_caches(folder):
            with (
                suppress(StoreLocked),
                self.lock_for_ingest(),
            ):  # if it is locked, prepare() does it
                adopt_former_caches(folder)
        self._mapped = MappedSegments(self._opened.segments, self.catalog)
        self.search = Search(self.catalog, self._mapped)
        # The space of added vectors, since bind() in this process.
        self._bound_space: Space | None = None

    def __enter__(self) -> Store:
        """Return the store itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the catalog and release the mapped segments."""
        self._mapped.close()
        self._opened.close()

    def lock_for_ingest(self, timeout_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Lock the store for the only ingest. Raises StoreLocked after `timeout_seconds`."""
        return lock_ingest(self.folder, timeout_seconds)

    # --- the space ---

    @property
    def space(self) -> Space | None:
        """The vector space the store is bound to; None before the first ingest."""
        return self.search.space

    @property
    def model(self) -> str | None:
        """The name by which the model was requested; None before the first ingest."""
        bound = self.catalog.settings.get_space_and_model()
        return bound[1] if bound else None

    def bind(self, space: Space, model: str) -> None:
        """Bind a store without images to `space`, or check that it is bound to it.

        While it has no images, another process may bind it to another space; add() then refuses the
        vectors of this one. Raises SpaceMismatch.
        """
        # Different: a new store, or the same weights under another name or path.
        if self.catalog.settings.get_space_and_model() != (space, model):
            with self.catalog.transaction():
                self.require_space(space, unless_empty=True)
                bound = self.space
                self.catalog.settings.put_space(bound if bound == space else space, model)
            save_recovery_record(self.folder, self.catalog)
        self._bound_space = space

    def require_space(self, space: Space, *, unless_empty: bool = False) -> None:
        """Check that vectors of `space` can be compared with the stored ones.

        With `unless_empty`, a store without images passes. Raises SpaceMismatch.
        """
        bound = self.space
        if bound is None or bound == space or (unless_empty and self.catalog.is_empty()):
            return
        migrate = format_command(self.folder, "migrate", "--model", "NAME")
        raise SpaceMismatch(
            f"{self.folder} holds vectors of {bound}, not of {space}; leave --model out, name"
            f" another folder with --store, or move it to the other model with `{migrate}`"
        )

    # --- images and files ---

    def find_complete_hashes(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Find which of these hashes (blake3 of a file's bytes) are images that need no embedding.

        They are in the store and did not lose their vector.
        """
        return self.catalog.images.find_complete_hashes(hashes)

    def add(self, batch: Batch) -> None:
        """Make a batch visible. Images that are complete in the store stay as they are.

        Images with the same pixels, or with equal vectors, share a vector. Call it with the ingest
        lock held where other processes may add too. Raises InvalidVector, DiskFull, and
        SpaceMismatch if another process bound the store to another space after bind().
        """
        space = self._bound_space or self.space
        if space is None:
            raise SpaceMismatch(
                f"{self.folder} is not bound to a model yet; bind() it before adding"
            )
        known_ids = self.catalog.images.get_ids([image.hash for image, _ in batch.images])
        complete = self.catalog.images.find_complete_hashes(known_ids)
        images = {
            image.hash: (image, vector)
            for image, vector in batch.images
            if image.hash not in complete
        }
        placement = place_vectors(list(images.values()), space.dim, self.catalog, self._mapped)
        segment_row = None
        if placement.new_vectors:
            block = placement.stack_new_vectors()
            segment_row = segments.write(self._opened.segments, self._opened.scratch, [block])
        with self.catalog.transaction():
            self.require_space(space)
            if segment_row:
                self.catalog.vectors.put_segment(segment_row)
                self.catalog.vectors.put(placement.compute_digests())
            self._put_images([image for image, _ in images.values()], known_ids, placement)
            self.catalog.files.put(batch.files)
            self.catalog.files.remove(batch.moved_file_ids)

    def _put_images(
        self, images: Sequence[Image], known_ids: Mapping[bytes, int], placement: Placement
    ) -> None:
        new_ids = count(self.catalog.images.get_next_id())
        for image, vector_id in zip(images, placement.vector_ids, strict=True):
            image_id = known_ids.get(image.hash)
            if image_id is None:
                image_id = next(new_ids)
                self.catalog.images.put(image_id, image, vector_id)
            else:
                self.catalog.images.update(image_id, image, vector_id)
            if image.metadata is not None:
                self.catalog.metadata.put(image_id, image.metadata)

    def update_metadata(self, images: Mapping[int, Image]) -> None:
        """Write what reading images again, by id, gave: their metadata, dates and flags.

        An image whose pixels are read in another way now loses its vector and its verdicts, to be
        embedded and verified again.
        """
        with self.catalog.transaction():
            known_images = dict(self.catalog.images.get(images))
            for image_id, image in images.items():
                self.catalog.images.update_metadata(image_id, image)
                if not image.is_read_as(known_images[image_id]):
                    self.catalog.images.reset(image_id, image)
                    self.catalog.verdicts.remove_of_image(image_id)
                if image.metadata is not None:
                    self.catalog.metadata.put(image_id, image.metadata)

    def mark_present(self, devices: Mapping[int, int]) -> None:
        """Mark files as present, given their device numbers by their ids in the catalog."""
        with self.catalog.transaction():
            self.catalog.files.mark_present(devices)

    def mark_missing(self, file_ids: Iterable[int]) -> None:
        """Mark files as missing; they stay in the answers, marked."""
        with self.catalog.transaction():
            self.catalog.files.mark_missing(file_ids)

    def remove_files(self, file_ids: Iterable[int]) -> None:
        """Remove files by their ids in the catalog.

        Their images and vectors stay, out of all answers, until a file holds them again.
        """
        with self.catalog.transaction():
            self.catalog.files.remove(file_ids)

    # --- roots and settings ---

    def add_roots(self, roots: Iterable[Root]) -> None:
        """Remember folders that every ingest scans."""
        with self.catalog.transaction():
            for root in roots:
                self.catalog.roots.put(root)
        save_recovery_record(self.folder, self.catalog)

    def remove_root(self, path: str) -> None:
        """Remove the root `path`; its files stay."""
        with self.catalog.transaction():
            self.catalog.roots.remove(path)
        save_recovery_record(self.folder, self.catalog)

    def save_thresholds(self, thresholds: SavedThresholds | None) -> None:
        """Save the default thresholds of answers; None restores those of the model.

        Raises InvalidThreshold below the floor of the space, and without a space.
        """
        with self.catalog.transaction():
            if thresholds:
                if self.space is None:
                    raise InvalidThreshold(
                        "the store has no images yet, so it cannot use a threshold;"
                        " ingest a folder first"
                    )
                self.search.check_threshold(thresholds.threshold)
            self.catalog.settings.put_saved_thresholds(thresholds)

    # --- decisions ---

    def update_decisions(
        self, update: Callable[[Sequence[Decision]], Sequence[Decision]]
    ) -> list[Decision]:
        """Replace all decisions by those that `update` makes of them; returns these.

        `update` gets and returns decisions in any order; an error that it raises changes nothing.
        The copy beside the catalog follows the commit; the next ingest writes it if this is cut
        off. No ingest lock is needed.
        """
        with self.catalog.transaction():
            before = {decision.id: decision for decision in self.catalog.decisions.list()}
            after = {decision.id: decision for decision in update(list(before.values()))}
            self.catalog.decisions.remove(before.keys() - after.keys())
            self.catalog.decisions.put(after[id_] for id_ in after.keys() - before.keys())
        with lock_writes(self.folder):
            save_decisions(self.folder, self.catalog)
        return sorted(after.values(), key=lambda decision: decision.order)

    # --- runs, pairs and verdicts ---

    def begin_run(self) -> int:
        """Record the start of an ingest; returns its number."""
        # Microseconds tell the run from any run of another catalog.
        with self.catalog.transaction():
            return self.catalog.runs.begin(_format_now("microseconds"))

    def end_run(self, run_id: int, outcome: RunOutcome, coverage: Coverage) -> None:
        """Record how an ingest ended, COMPLETE or INTERRUPTED, and its coverage."""
        with self.catalog.transaction():
            self.catalog.runs.end(run_id, _format_now(), outcome, coverage)

    def join(self, method: JoinMethod | None = None) -> Iterator[JoinProgress]:
        """Find the pairs of new vectors and store those at or above a floor.

        It may be stopped at any yield; the next call continues. Nothing is yielded if no vector is
        new. `method` overrides the planner; an exact join after an IVF one starts from the
        beginning. Call it with the ingest lock held.
        """
        space = self.space
        if space is not None:
            yield from join_new_vectors(self.catalog, self._mapped, space, method)

    def save_verdicts(self, verdicts: Iterable[StoredVerdict]) -> None:
        """Save the verdicts of verified pairs of images."""
        with self.catalog.transaction():
            self.catalog.verdicts.put(verdicts)

    # --- upkeep ---

    def check_segments(self) -> None:
        """Verify every segment that is not untouched. Raises StoreDamaged, naming the file."""
        self._mapped.refresh()

    def prepare(self) -> None:
        """Verify every segment that is not untouched, and remove what a killed process left.

        Call it with the ingest lock held. Raises StoreDamaged, naming the file.
        """
        # If the last writer was cut off, what it left is sealed when this one closes.
        if not self.catalog.was_closed_cleanly:
            self.catalog.verify()
        self._mapped.refresh()
        folder = self._opened.segments
        rows = self.catalog.vectors.list_segments()
        # Verified just now, but with another stat: the store was copied, or restored from a backup.
        touched_rows = [row for row in rows if not segments.is_untouched(row, folder)]
        if touched_rows:
            with self.catalog.transaction():
                for row in touched_rows:
                    self.catalog.vectors.put_segment(segments.add_file_stat(row, folder))
        adopt_former_caches(self.folder)
        sweep(self._opened)
        if self.catalog.runs.get_newest_key() is None:
            # The catalog is new: if there are decisions, it takes the place of a lost one.
            with self.catalog.transaction():
                self.catalog.decisions.put(load_decisions(self.folder))
        save_decisions(self.folder, self.catalog)

    def compact(self, *, full: bool = False) -> CompactionReport:
        """Merge small segments and drop tombstones where that is due; with `full`, all of them.

        Answers do not change. Each merge is a commit, so finished merges survive a crash. Call it
        with the ingest lock held.
        """
        space = self.space
        if space is None:
            return CompactionReport(0, 0, 0, 0)
        return compaction.compact(self._opened, self._mapped, space, full=full)

    # --- migration to another space ---

    def begin_migration(self, space: Space, model: str) -> Store:
        """Open the store inside this one that collects vectors of another space, or create it.

        commit_migration() puts them in the place of this store's vectors. Call it with the ingest
        lock held, here and while the inner store is written to. Raises SpaceMismatch if images were
        embedded for a third space.
        """
        restart = format_command(self.folder, "migrate", "--model", model, "--restart")
        try:
            next_store = Store(self.folder / NEXT_STORE_NAME, write=True)
            try:
                self._bind_next_store(next_store, space, model, restart)
                next_store.prepare()
            except BaseException:
                next_store.close()
                raise
        except (StoreDamaged, StoreVersionMismatch) as error:
            raise type(error)(
                f"the vectors embedded for {model} cannot be used ({error});"
                f" start over with `{restart}`"
            ) from error
        return next_store

    def _bind_next_store(self, next_store: Store, space: Space, model: str, restart: str) -> None:
        try:
            next_store.bind(space, model)
        except SpaceMismatch as error:
            resume = format_command(self.folder, "migrate", "--model", next_store.model or model)
            raise SpaceMismatch(
                f"a migration of {self.folder} to {next_store.model} is unfinished; resume it with"
                f" `{resume}`, or start over with `{restart}`"
            ) from error

    def get_pending_migration(self) -> PendingMigration | None:
        """Get the unfinished migration to another space; None if there is none."""
        with self.catalog.snapshot():
            return migration.find_pending_migration(self.folder, self.catalog)

    def commit_migration(self) -> None:
        """Replace the space, vectors and pairs by those of the inner store, which must be closed.

        Files, roots and runs stay. Images that the inner store does not have wait to be embedded.
        Call it with the ingest lock held.
        """
        migration.commit_next_store(self._opened)
        self._bound_space = None
        self._mapped.refresh()
        sweep(self._opened)
        failpoint("migration swept")

    def abort_migration(self) -> None:
        """Remove the inner store with all its vectors. Call it with the ingest lock held."""
        migration.remove_next_store(self.folder)


def _format_now(timespec: str = "seconds") -> str:
    return datetime.now(UTC).isoformat(timespec=timespec)
