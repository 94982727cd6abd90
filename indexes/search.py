"""What is asked of a store: what is near a vector, and which vectors are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.catalog import Catalog
from indexes.catalog.pairs import JoinWatermark
from indexes.errors import InvalidThreshold, StoreError
from indexes.join import planner as planning
from indexes.join.exact import VectorRows
from indexes.records import Space
from indexes.vectors import segments
from indexes.vectors.segments import ScoredPairs, Segment, Vector, concat_pairs


class Search:
    """The catalog of a store and its mapped segments; nothing is written."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        """Ask the store in `folder`, whose catalog is open; no segment is mapped yet."""
        self.folder, self.catalog = folder, catalog
        self._mapped_segments: dict[str, Segment] = {}

    @property
    def space(self) -> Space | None:
        """The vector space the store is bound to; None before the first ingest."""
        bound = self.catalog.settings.get_space_and_model()
        return bound[0] if bound else None

    def _map_segments(self) -> list[Segment]:
        """The segments of the newest commit, in the order of their ids; each is mapped once."""
        with self.catalog.snapshot():  # a migration changes both
            space, rows = self.space, self.catalog.vectors.list_segments()
        if space:
            folder, held = self.folder / "segments", self._mapped_segments
            self._mapped_segments = {
                row.blake3: held.get(row.blake3) or Segment(folder, row, space.dim) for row in rows
            }
        return list(self._mapped_segments.values())

    def get_vectors(self, image_ids: Sequence[int]) -> dict[int, Vector]:
        """The stored vectors (float32) of those of `images` that have one."""
        with self.catalog.snapshot():
            vector_of = {
                image: vector
                for image, vector in self.catalog.vectors.find_of_images(image_ids).items()
                if vector is not None
            }
            shelf = VectorRows(self._map_segments())
        rows = (
            shelf.gather(shelf.find_rows(list(vector_of.values()))).astype(np.float32)
            if vector_of
            else ()
        )
        return dict(zip(vector_of, rows, strict=True))

    def find_within(self, queries: NDArray[np.floating[Any]], min_score: float) -> ScoredPairs:
        """Every stored image with score >= min_score to a query row; left numbers the query row, right is an image id. Nothing is capped.

        Exact over all segments. Images that no file holds any more are not among them. Ordered by query row, then best first, then by id.
        """
        with self.catalog.snapshot():
            return self._expand_to_images(self.find_vectors_within(queries, min_score))

    def find_vectors_within(
        self, queries: NDArray[np.floating[Any]], min_score: float, min_vector_id: int = 0
    ) -> ScoredPairs:
        """As `within`, but right is the id of a vector, of those from `since` on, whether a file needs it or not; in no order."""
        parts = []
        with self.catalog.snapshot():
            self.check_threshold(min_score)
            asked = self._convert_queries(queries)
            for segment in self._map_segments():
                if segment.ids[-1] >= min_vector_id:
                    found = segments.find_within(asked, segment, min_score)
                    new = segment.ids[found.right] >= min_vector_id
                    parts.append(
                        ScoredPairs(
                            found.left[new], segment.ids[found.right][new], found.score[new]
                        )
                    )
        return concat_pairs(parts)

    def find_nearest(self, queries: NDArray[np.floating[Any]], count: int) -> ScoredPairs:
        """The `count` stored images nearest to each query row, fewer where the store holds fewer, exact over all segments.

        As `within`: left numbers the query row, right is an image id; by query row, then best first, then by id.
        """
        if count < 1:
            raise StoreError(f"{count} neighbours were asked for; ask for 1 or more")
        with self.catalog.snapshot():
            return self._find_nearest(self._convert_queries(queries), count)

    def _find_nearest(self, queries: NDArray[np.float16], count: int) -> ScoredPairs:
        mapped, vectors = self._map_segments(), count
        while True:
            parts = []
            unasked = np.full(
                len(queries), -np.inf
            )  # the best score that a vector which was not looked at may have
            for segment in mapped:
                found = segments.find_nearest(queries, segment, vectors)
                parts.append(ScoredPairs(found.left, segment.ids[found.right], found.score))
                if vectors < len(segment.ids):
                    least = np.full(len(queries), np.inf)
                    np.minimum.at(least, found.left, found.score)
                    unasked = np.maximum(unasked, least)
            images = self._expand_to_images(concat_pairs(parts))
            place = np.arange(len(images.left)) - np.searchsorted(images.left, images.left)
            last = np.full(len(queries), -np.inf)
            last[images.left[place == count - 1]] = images.score[place == count - 1]
            if (last >= unasked).all():
                keep = place < count
                return ScoredPairs(images.left[keep], images.right[keep], images.score[keep])
            vectors *= 8  # some of those found are in no file any more

    def _convert_queries(self, queries: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
        """Queries as they would be stored, so that an answer is the same before and after."""
        space = self.space
        return (
            segments.to_stored_vectors(queries, space.dim)
            if space
            else np.empty((0, 0), np.float16)
        )

    def _expand_to_images(self, hits: ScoredPairs) -> ScoredPairs:
        """Pairs of a query and a vector as pairs of the query and each image that has the vector."""
        images = self.catalog.images.find_of_vectors(np.unique(hits.right).tolist())
        image, vector = np.array(images, np.int64).reshape(-1, 2).T
        order = np.argsort(vector, kind="stable")
        image, vector = image[order], vector[order]
        first, last = (
            np.searchsorted(vector, hits.right),
            np.searchsorted(vector, hits.right, side="right"),
        )
        times = last - first
        at = np.repeat(first - np.cumsum(times) + times, times) + np.arange(times.sum())
        return _sort_best_first(
            ScoredPairs(np.repeat(hits.left, times), image[at], np.repeat(hits.score, times))
        )

    def find_pairs(self, min_score: float) -> ScoredPairs:
        """Every unordered pair of vectors in use with score >= min_score, once, as vector ids, left < right, in order. Nothing is capped.

        From the edges that are kept; what they do not cover is joined now, and not kept.
        """
        with self.catalog.snapshot():
            self.check_threshold(min_score)
            frontier, rows = (
                self.catalog.pairs.get_watermark(),
                self.catalog.vectors.list_segments(),
            )
            parts = []
            if frontier and min_score >= frontier.floor:
                kind = np.dtype([("left", np.int64), ("right", np.int64), ("score", np.float64)])
                edges = np.fromiter(self.catalog.pairs.stream(min_score), kind)
                parts.append(ScoredPairs(edges["left"], edges["right"], edges["score"]))
                frontier = replace(frontier, floor=min_score)
            else:
                frontier = JoinWatermark(min_score)
            if rows and rows[-1].last_id > frontier.done:
                shelf = VectorRows(self._map_segments())
                parts += [
                    step.new_pairs for step in planning.plan_join(shelf, frontier).execute(shelf)
                ]
            found = concat_pairs(parts)
            ends = np.unique(np.concatenate([found.left, found.right]))
            used = np.unique(
                [vector for _, vector in self.catalog.images.find_of_vectors(ends.tolist())]
            )
        keep = np.isin(found.left, used) & np.isin(found.right, used)
        found = ScoredPairs(found.left[keep], found.right[keep], found.score[keep])
        order = np.lexsort((found.right, found.left))
        found = ScoredPairs(found.left[order], found.right[order], found.score[order])
        # A join by buckets that was cut off has left pairs among the edges that one that goes on finds again.
        once = np.ones(len(order), dtype=bool)
        once[1:] = (np.diff(found.left) != 0) | (np.diff(found.right) != 0)
        return ScoredPairs(found.left[once], found.right[once], found.score[once])

    def check_threshold(self, threshold: float) -> None:
        """Check that the store knows all pairs at or above a score. Raises BadThreshold."""
        space = self.space
        if space is not None and not space.floor <= threshold <= 1.0:
            raise InvalidThreshold(
                f"threshold {threshold} is out of range; this store answers from {space.floor} (its floor) to 1"
            )


def _sort_best_first(hits: ScoredPairs) -> ScoredPairs:
    order = np.lexsort((hits.right, -hits.score, hits.left))
    return ScoredPairs(hits.left[order], hits.right[order], hits.score[order])
