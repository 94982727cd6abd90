"""The store: one folder with a catalog and segments, and the one door to both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes import durable, join, segments
from indexes.catalog import Catalog, File, Image, Root, SegmentRow, Space
from indexes.errors import BadVector, SpaceMismatch, StoreError
from indexes.segments import Ids, Scored, Segment, Vectors

OWN = {"segments", "tmp", "thumbs", "ingest.lock", "write.lock"}  # what a store that was cut off while it was made may hold


@dataclass
class Batch:
    """What one commit makes visible: new images, each with its unit vector (dim,) or None; files, whose images are here or in the store
    already; and the ids of known files that are among them under a new path.
    """

    images: list[tuple[Image, Vectors | None]] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)


class Store:
    """A store of images, where they lie, and their vectors. Use it as a context manager.

    Any number of readers may be open beside one writer. Each `add` is all or nothing.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        """Open the store in `folder`; with `write`, make it when it is missing.

        Raises StoreMissing when there is none, StoreVersion when another program or a newer neardup made it.
        """
        self.folder = folder
        self._segments: dict[SegmentRow, Segment] = {}
        if write:
            try:
                held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set[str]()
                if "catalog.db" not in held and held - OWN:
                    raise StoreError(f"{folder} is no store, and holds {ascii(min(held - OWN))}; name a new folder with --store")
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for name in ("segments", "tmp"):
                    (folder / name).mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{folder} cannot be made: {error.strerror}; name a folder you can write to with --store") from error
        self.catalog = Catalog(folder, write=write)

    def __enter__(self) -> Store:
        """The store itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the catalog and of the mapped segments."""
        self._segments = {}
        self.catalog.close()

    def exclusive(self, wait: float = 0.0) -> AbstractContextManager[None]:
        """Be the only ingest of this store for a block; waits up to `wait` seconds, then raises StoreLocked."""
        return durable.lock(self.folder / "ingest.lock", wait)

    # --- the space ---

    @property
    def space(self) -> Space | None:
        """The vector space the store is bound to; None before the first ingest."""
        bound = self.catalog.space()
        return bound[0] if bound else None

    @property
    def model(self) -> str | None:
        """The name by which the model was asked for; None before the first ingest."""
        bound = self.catalog.space()
        return bound[1] if bound else None

    def bind(self, space: Space, model: str) -> None:
        """Bind an empty store to `space`, or check that it is bound to it. Raises SpaceMismatch."""
        self.require(space)
        bound = self.catalog.space()
        if bound is None or bound[1] != model:  # new, or the same weights reached by another name or path
            with self.catalog.transaction():
                self.catalog.put_space(bound[0] if bound else space, model)

    def require(self, space: Space) -> None:
        """Check that vectors of `space` may be compared with those that the store holds. Raises SpaceMismatch."""
        bound = self.space
        if bound is not None and bound != space:
            raise SpaceMismatch(
                f"{self.folder} holds vectors of {bound}, asked for {space}; leave --model out, or name another folder with --store"
            )

    # --- what is there ---

    def has(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Those of `hashes` (blake3 of a file's bytes) that are images of this store."""
        return set(self.catalog.image_ids(hashes))

    # --- change ---

    def remember(self, roots: Iterable[Root]) -> None:
        """Look through these folders from now on."""
        with self.catalog.transaction():
            for root in roots:
                self.catalog.put_root(root)

    def add(self, batch: Batch) -> None:
        """Make a batch visible, all or nothing. Images that the store has already are left as they are."""
        space = self.space
        if space is None:
            raise SpaceMismatch(f"{self.folder} is not bound to a model yet; bind() it before adding")
        known = self.has([image.hash for image, _ in batch.images])
        new = {image.hash: (image, row) for image, row in batch.images if image.hash not in known}
        ids = dict(zip(new, count(self.catalog.next_image()), strict=False))
        rows = {ids[hash_]: row for hash_, (_, row) in new.items() if row is not None}
        if any(row.shape != (space.dim,) for row in rows.values()):
            raise BadVector(f"vectors of {sorted({row.shape for row in rows.values()})}, the store holds {space.dim} dimensions")
        written = None
        if rows:
            order = np.array(list(rows), dtype=np.int64)
            written = segments.write(self.folder / "segments", self.folder / "tmp", order, np.stack(list(rows.values())))
        with self.catalog.transaction():
            segment = self.catalog.put_segment(written.blake3, written.rows, written.size) if written else None
            for hash_, (image, row) in new.items():
                self.catalog.put_image(ids[hash_], image, None if row is None else segment)
            self.catalog.put_files(batch.files)
            self.catalog.remove_files(batch.moved)

    def found(self, devices: Mapping[int, int]) -> None:
        """Note that files, by the ids of their `Known`, are there, on these device numbers."""
        with self.catalog.transaction():
            self.catalog.put_found(devices)

    def missing(self, files: Iterable[int]) -> None:
        """Note that files are not there now; they stay in the answers, marked."""
        with self.catalog.transaction():
            self.catalog.put_missing(files)

    def forget(self, root: str) -> None:
        """Look through the folder `root` no more."""
        with self.catalog.transaction():
            self.catalog.remove_root(root)

    def check(self) -> None:
        """Verify every segment against its hash. Raises StoreDamaged, naming the file."""
        self._mapped()

    def sweep(self) -> None:
        """Remove what a killed ingest left: temporary files, and segments that were never committed. Call it with `exclusive` held."""
        named = {f"{segment.blake3}{segments.SUFFIX}" for segment in self.catalog.segments()}
        left = [file for file in (self.folder / "segments").iterdir() if file.suffix == segments.SUFFIX and file.name not in named]
        for file in (*left, *(self.folder / "tmp").iterdir()):
            file.unlink(missing_ok=True)

    def begin_run(self) -> int:
        """Note that an ingest began; returns its number."""
        with self.catalog.transaction():
            return self.catalog.begin_run(_now())

    def end_run(self, run: int, outcome: str, coverage: dict[str, Any]) -> None:
        """Note how an ingest ended, "complete" or "interrupted", and what it saw."""
        with self.catalog.transaction():
            self.catalog.end_run(run, _now(), outcome, coverage)

    def remove(self, files: Iterable[int]) -> None:
        """Forget files, by the ids of their `Known`. Their images and vectors stay, out of all answers, until a file holds them again."""
        with self.catalog.transaction():
            self.catalog.remove_files(files)

    # --- search ---

    def _mapped(self) -> list[Segment]:
        """The segments of the newest commit, oldest first; each is verified and mapped once."""
        space, rows = self.space, self.catalog.segments()
        if space:
            self._segments = {row: self._segments.get(row) or Segment(self.folder / "segments", row, space.dim) for row in rows}
        return list(self._segments.values())

    def vectors(self, images: Sequence[int]) -> dict[int, Vectors]:
        """The stored vectors (float32) of those of `images` that have one."""
        wanted = np.asarray(images, dtype=np.int64)
        found: dict[int, Vectors] = {}
        for segment in self._mapped():
            for row in np.flatnonzero(np.isin(segment.ids, wanted)):
                found[int(segment.ids[row])] = segment.vectors[row].astype(np.float32)
        return found

    def within(self, queries: NDArray[np.floating[Any]], min_score: float) -> Scored:
        """Every stored image with score >= min_score to a query row; left numbers the query row, right is an image id. Nothing is capped.

        Images that no file holds any more are not among them. Ordered by query row, then best first, then by id.
        """
        self._check_score(min_score)
        if not np.allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-3):  # also catches NaN
            raise BadVector("queries must be rows of length 1; pass them through embed()")
        queries = queries.astype(np.float16)  # as they would be stored, so that an answer is the same before and after
        live = self._live_ids()
        parts = []
        for segment in self._mapped():
            found = segments.range_search(queries, segment.vectors, min_score)
            ids = segment.ids[found.right]
            keep = np.isin(ids, live)
            parts.append(Scored(found.left[keep], ids[keep], found.score[keep]))
        found = _joined(parts)
        return _taken(found, np.lexsort((found.right, -found.score, found.left)))

    def pairs(self, min_score: float, among: Sequence[int] | None = None) -> Scored:
        """Every unordered pair of stored images with score >= min_score, once, left id < right id, ordered by id. Nothing is capped.

        `among` limits it to these images; otherwise all that a file holds.
        """
        self._check_score(min_score)
        wanted = self._live_ids() if among is None else np.unique(np.asarray(among, dtype=np.int64))
        found = _joined(list(join.pairs(self._mapped(), wanted, min_score)))
        return _taken(found, np.lexsort((found.right, found.left)))

    def _live_ids(self) -> Ids:
        return np.array(sorted(id_ for id_, _ in self.catalog.live()), dtype=np.int64)

    def _check_score(self, min_score: float) -> None:
        space = self.space
        if space is not None and not space.floor <= min_score <= 1.0:
            raise StoreError(f"threshold {min_score} is out of range; this store answers from {space.floor} (its floor) to 1")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _joined(parts: Sequence[Scored]) -> Scored:
    left, right, score = (np.concatenate([getattr(part, name) for part in parts] or [[]]) for name in ("left", "right", "score"))
    return Scored(left.astype(np.int64), right.astype(np.int64), score)


def _taken(found: Scored, order: NDArray[np.int64]) -> Scored:
    return Scored(found.left[order], found.right[order], found.score[order])
