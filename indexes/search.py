"""What is asked of a store: what is near a vector, and which vectors are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.catalog import Catalog
from indexes.catalog.pairs import Frontier
from indexes.errors import BadThreshold, StoreError
from indexes.join import planner as planning
from indexes.join.exact import Shelf
from indexes.records import Space
from indexes.vectors import segments
from indexes.vectors.segments import Scored, Segment, Vectors, joined


class Search:
    """The catalog of a store and its mapped segments; nothing is written."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        """Ask the store in `folder`, whose catalog is open; no segment is mapped yet."""
        self.folder, self.catalog = folder, catalog
        self._segments: dict[str, Segment] = {}

    @property
    def space(self) -> Space | None:
        """The vector space the store is bound to; None before the first ingest."""
        bound = self.catalog.space()
        return bound[0] if bound else None

    def _mapped(self) -> list[Segment]:
        """The segments of the newest commit, in the order of their ids; each is mapped once."""
        with self.catalog.snapshot():  # a migration changes both
            space, rows = self.space, self.catalog.segments()
        if space:
            folder, held = self.folder / "segments", self._segments
            self._segments = {row.blake3: held.get(row.blake3) or Segment(folder, row, space.dim) for row in rows}
        return list(self._segments.values())

    def vectors(self, images: Sequence[int]) -> dict[int, Vectors]:
        """The stored vectors (float32) of those of `images` that have one."""
        with self.catalog.snapshot():
            vector_of = {image: vector for image, vector in self.catalog.vectors_of(images).items() if vector is not None}
            shelf = Shelf(self._mapped())
        rows = shelf.take(shelf.rows(list(vector_of.values()))).astype(np.float32) if vector_of else ()
        return dict(zip(vector_of, rows, strict=True))

    def within(self, queries: NDArray[np.floating[Any]], min_score: float) -> Scored:
        """Every stored image with score >= min_score to a query row; left numbers the query row, right is an image id. Nothing is capped.

        Exact over all segments. Images that no file holds any more are not among them. Ordered by query row, then best first, then by id.
        """
        with self.catalog.snapshot():
            return self._as_images(self.vectors_within(queries, min_score))

    def vectors_within(self, queries: NDArray[np.floating[Any]], min_score: float, since: int = 0) -> Scored:
        """As `within`, but right is the id of a vector, of those from `since` on, whether a file needs it or not; in no order."""
        parts = []
        with self.catalog.snapshot():
            self.check_score(min_score)
            asked = self._asked(queries)
            for segment in self._mapped():
                if segment.ids[-1] >= since:
                    found = segments.within(asked, segment, min_score)
                    new = segment.ids[found.right] >= since
                    parts.append(Scored(found.left[new], segment.ids[found.right][new], found.score[new]))
        return joined(parts)

    def nearest(self, queries: NDArray[np.floating[Any]], count: int) -> Scored:
        """The `count` stored images nearest to each query row, fewer where the store holds fewer, exact over all segments.

        As `within`: left numbers the query row, right is an image id; by query row, then best first, then by id.
        """
        if count < 1:
            raise StoreError(f"{count} neighbours were asked for; ask for 1 or more")
        with self.catalog.snapshot():
            return self._nearest(self._asked(queries), count)

    def _nearest(self, asked: NDArray[np.float16], count: int) -> Scored:
        mapped, vectors = self._mapped(), count
        while True:
            parts = []
            unasked = np.full(len(asked), -np.inf)  # the best score that a vector which was not looked at may have
            for segment in mapped:
                found = segments.nearest(asked, segment, vectors)
                parts.append(Scored(found.left, segment.ids[found.right], found.score))
                if vectors < len(segment.ids):
                    least = np.full(len(asked), np.inf)
                    np.minimum.at(least, found.left, found.score)
                    unasked = np.maximum(unasked, least)
            images = self._as_images(joined(parts))
            place = np.arange(len(images.left)) - np.searchsorted(images.left, images.left)
            last = np.full(len(asked), -np.inf)
            last[images.left[place == count - 1]] = images.score[place == count - 1]
            if (last >= unasked).all():
                keep = place < count
                return Scored(images.left[keep], images.right[keep], images.score[keep])
            vectors *= 8  # some of those found are in no file any more

    def _asked(self, queries: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
        """Queries as they would be stored, so that an answer is the same before and after."""
        space = self.space
        return segments.as_stored(queries, space.dim) if space else np.empty((0, 0), np.float16)

    def _as_images(self, found: Scored) -> Scored:
        """Pairs of a query and a vector as pairs of the query and each image that has the vector."""
        images = self.catalog.images_of(np.unique(found.right).tolist())
        image, vector = np.array(images, np.int64).reshape(-1, 2).T
        order = np.argsort(vector, kind="stable")
        image, vector = image[order], vector[order]
        first, last = np.searchsorted(vector, found.right), np.searchsorted(vector, found.right, side="right")
        times = last - first
        at = np.repeat(first - np.cumsum(times) + times, times) + np.arange(times.sum())
        return _taken(Scored(np.repeat(found.left, times), image[at], np.repeat(found.score, times)))

    def pairs(self, min_score: float) -> Scored:
        """Every unordered pair of vectors in use with score >= min_score, once, as vector ids, left < right, in order. Nothing is capped.

        From the edges that are kept; what they do not cover is joined now, and not kept.
        """
        with self.catalog.snapshot():
            self.check_score(min_score)
            frontier, rows = self.catalog.frontier(), self.catalog.segments()
            parts = []
            if frontier and min_score >= frontier.floor:
                kind = np.dtype([("left", np.int64), ("right", np.int64), ("score", np.float64)])
                edges = np.fromiter(self.catalog.edges(min_score), kind)
                parts.append(Scored(edges["left"], edges["right"], edges["score"]))
                frontier = replace(frontier, floor=min_score)
            else:
                frontier = Frontier(min_score)
            if rows and rows[-1].last > frontier.through:
                shelf = Shelf(self._mapped())
                parts += [step.found for step in planning.plan(shelf, frontier).steps(shelf)]
            found = joined(parts)
            ends = np.unique(np.concatenate([found.left, found.right]))
            used = np.unique([vector for _, vector in self.catalog.images_of(ends.tolist())])
        keep = np.isin(found.left, used) & np.isin(found.right, used)
        found = Scored(found.left[keep], found.right[keep], found.score[keep])
        order = np.lexsort((found.right, found.left))
        found = Scored(found.left[order], found.right[order], found.score[order])
        # A join by buckets that was cut off has left pairs among the edges that one that goes on finds again.
        once = np.ones(len(order), dtype=bool)
        once[1:] = (np.diff(found.left) != 0) | (np.diff(found.right) != 0)
        return Scored(found.left[once], found.right[once], found.score[once])

    def check_score(self, min_score: float) -> None:
        """Check that the store knows all pairs at or above a score. Raises BadThreshold."""
        space = self.space
        if space is not None and not space.floor <= min_score <= 1.0:
            raise BadThreshold(f"threshold {min_score} is out of range; this store answers from {space.floor} (its floor) to 1")


def _taken(found: Scored) -> Scored:
    order = np.lexsort((found.right, -found.score, found.left))
    return Scored(found.left[order], found.right[order], found.score[order])
