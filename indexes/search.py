"""Search a store: the vectors near a query, and the pairs of vectors near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.candidates import select_candidates
from indexes.catalog.catalog import Catalog
from indexes.catalog.pairs import JoinWatermark
from indexes.errors import InvalidThreshold, StoreError
from indexes.join.planner import plan_join
from indexes.records import Space
from indexes.vectors import segment_search
from indexes.vectors.mapped import MappedSegments
from indexes.vectors.scores import (
    ScoredPairs,
    Vector,
    compute_cosines,
    concat_pairs,
    convert_to_stored_vectors,
)
from indexes.vectors.segments import Segment

# By how much a search for the nearest images grows where many vectors have no file any more.
NEAREST_GROWTH = 8


class Search:
    """Exact search over the vectors of a store; nothing is written."""

    def __init__(self, catalog: Catalog, mapped: MappedSegments) -> None:
        """Search the segments that `catalog` names."""
        self._catalog, self._mapped = catalog, mapped

    @property
    def space(self) -> Space | None:
        """The vector space the store is bound to; None before the first ingest."""
        bound = self._catalog.settings.get_space_and_model()
        return bound[0] if bound else None

    def check_threshold(self, threshold: float) -> None:
        """Check that the store knows all pairs at or above a score. Raises InvalidThreshold."""
        space = self.space
        if space is not None and not space.floor <= threshold <= 1.0:
            raise InvalidThreshold(
                f"threshold {threshold} is out of range; this store answers from {space.floor}"
                " (its floor) to 1"
            )

    def get_vectors(self, image_ids: Sequence[int]) -> dict[int, Vector]:
        """Get the stored vectors (float32) of those images that have one, by image id."""
        with self._catalog.snapshot():
            found = self._catalog.vectors.find_of_images(image_ids)
            vector_of = {image: vector for image, vector in found.items() if vector is not None}
            rows = self._mapped.get_rows()
        if not vector_of:
            return {}
        vectors = rows.gather(rows.find_rows(list(vector_of.values()))).astype(np.float32)
        return dict(zip(vector_of, vectors, strict=True))

    def score_vector_pairs(self, pairs: Sequence[tuple[int, int]]) -> list[float]:
        """Compute the cosine of each pair of stored vectors, by id; tombstones are included."""
        if not pairs:
            return []
        with self._catalog.snapshot():
            rows = self._mapped.get_rows()
        left, right = (
            rows.gather(rows.find_rows([pair[side] for pair in pairs])) for side in (0, 1)
        )
        scores: list[float] = compute_cosines(left, right).tolist()
        return scores

    def find_within(self, queries: NDArray[np.floating[Any]], min_score: float) -> ScoredPairs:
        """Find every stored image with score >= min_score to a query row (n, dim).

        Left is the query row, right an image id. Exact over all segments, nothing is capped; images
        without a file are left out. Ordered by query row, then best first, then by id. Raises
        InvalidThreshold and InvalidVector.
        """
        with self._catalog.snapshot():
            return self._expand_to_images(self.find_vectors_within(queries, min_score))

    def find_vectors_within(
        self, queries: NDArray[np.floating[Any]], min_score: float, min_vector_id: int = 0
    ) -> ScoredPairs:
        """Find every stored vector with score >= min_score to a query row (n, dim), in no order.

        Right is a vector id >= min_vector_id; tombstones are included. Raises InvalidThreshold and
        InvalidVector.
        """
        pair_sets = []
        with self._catalog.snapshot():
            self.check_threshold(min_score)
            stored_queries = self._round_queries(queries)
            for segment in self._mapped.refresh():
                if segment.ids[-1] >= min_vector_id:
                    hits = segment_search.find_within(stored_queries, segment, min_score)
                    hits = _replace_rows_by_ids(hits, segment)
                    pair_sets.append(hits.select(hits.right >= min_vector_id))
        return concat_pairs(pair_sets)

    def find_nearest(self, queries: NDArray[np.floating[Any]], count: int) -> ScoredPairs:
        """Find the `count` stored images nearest to each query row (n, dim), or all if fewer.

        Exact over all segments. Left is the query row, right an image id; ordered by query row,
        then best first, then by id. Raises InvalidVector, and StoreError for a count below 1.
        """
        if count < 1:
            raise StoreError(f"{count} neighbors were requested; request 1 or more")
        with self._catalog.snapshot():
            return self._find_nearest(self._round_queries(queries), count)

    def _find_nearest(self, queries: NDArray[np.float16], count: int) -> ScoredPairs:
        segments, vector_count = self._mapped.refresh(), count
        while True:
            pair_sets = []
            # The best score that a vector which no segment returned may have, for each query.
            best_unreturned = np.full(len(queries), -np.inf)
            for segment in segments:
                hits = segment_search.find_nearest(queries, segment, vector_count)
                pair_sets.append(_replace_rows_by_ids(hits, segment))
                if vector_count < len(segment.ids):
                    worst_returned = np.full(len(queries), np.inf)
                    np.minimum.at(worst_returned, hits.left, hits.score)
                    best_unreturned = np.maximum(best_unreturned, worst_returned)
            images = self._expand_to_images(concat_pairs(pair_sets))
            ranks = np.arange(len(images.left)) - np.searchsorted(images.left, images.left)
            last_scores = np.full(len(queries), -np.inf)
            is_last = ranks == count - 1
            last_scores[images.left[is_last]] = images.score[is_last]
            if (last_scores >= best_unreturned).all():
                return images.select(ranks < count)
            vector_count *= NEAREST_GROWTH  # returned vectors without a file left too few images

    def _round_queries(self, queries: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
        """Round queries as stored vectors are: the answer is the same before and after an add."""
        space = self.space
        return (
            convert_to_stored_vectors(queries, space.dim) if space else np.empty((0, 0), np.float16)
        )

    def _expand_to_images(self, hits: ScoredPairs) -> ScoredPairs:
        """Replace each pair of a query and a vector by pairs with all images of the vector."""
        found = self._catalog.images.find_of_vectors(np.unique(hits.right).tolist())
        images, vectors = np.array(found, np.int64).reshape(-1, 2).T
        order = np.argsort(vectors, kind="stable")
        images, vectors = images[order], vectors[order]
        starts = np.searchsorted(vectors, hits.right)
        counts = np.searchsorted(vectors, hits.right, side="right") - starts
        # The positions starts[i], starts[i] + 1, ... of each hit i, counts[i] of them.
        offsets = np.repeat(starts - np.cumsum(counts) + counts, counts)
        positions = offsets + np.arange(counts.sum())
        expanded = ScoredPairs(
            np.repeat(hits.left, counts), images[positions], np.repeat(hits.score, counts)
        )
        return expanded.select(np.lexsort((expanded.right, -expanded.score, expanded.left)))

    def find_pairs(self, min_score: float) -> ScoredPairs:
        """Find every unordered pair of vectors in use with score >= min_score.

        Pairs are vector ids, left < right, each once, in order; nothing is capped. They come from
        the stored edges. Pairs that the edges do not cover are joined now, and not stored. Raises
        InvalidThreshold.
        """
        with self._catalog.snapshot():
            self.check_threshold(min_score)
            pairs = self._collect_pairs(min_score)
            vector_ids = np.unique(np.concatenate([pairs.left, pairs.right])).tolist()
            images = self._catalog.images.find_of_vectors(vector_ids)
            in_use = np.unique([vector for _, vector in images])
        pairs = pairs.select(np.isin(pairs.left, in_use) & np.isin(pairs.right, in_use))
        pairs = pairs.select(np.lexsort((pairs.right, pairs.left)))
        # An IVF join that was cut off left pairs among the edges that its next run finds again.
        is_first_occurrence = np.ones(len(pairs.left), dtype=bool)
        is_first_occurrence[1:] = (np.diff(pairs.left) != 0) | (np.diff(pairs.right) != 0)
        return pairs.select(is_first_occurrence)

    def find_candidates(self, min_score: float) -> ScoredPairs:
        """Find the candidates among the pairs of vectors in use, with score >= min_score.

        They are chosen among all pairs that the store knows, see select_candidates: a higher
        `min_score` leaves some of them out, and adds none. Otherwise like find_pairs().
        """
        with self._catalog.snapshot():
            watermark = self._catalog.pairs.get_watermark()
            pairs = self.find_pairs(min(min_score, watermark.floor) if watermark else min_score)
            vector_pairs = np.stack([pairs.left, pairs.right], axis=1)
            pairs = pairs.select(select_candidates(self._catalog, vector_pairs, pairs.score))
        return pairs.select(pairs.score >= min_score)

    def _collect_pairs(self, min_score: float) -> ScoredPairs:
        """Collect the stored edges, and join what they do not cover."""
        watermark = self._catalog.pairs.get_watermark()
        segment_rows = self._catalog.vectors.list_segments()
        pair_sets = []
        if watermark and min_score >= watermark.floor:
            pair_sets.append(ScoredPairs.from_edges(self._catalog.pairs.stream(min_score)))
            watermark = replace(watermark, floor=min_score)
        else:
            watermark = JoinWatermark(min_score)
        if segment_rows and segment_rows[-1].last_id > watermark.done:
            vectors = self._mapped.get_rows()
            plan = plan_join(vectors, watermark)
            pair_sets += [step.new_pairs for step in plan.execute(vectors)]
        return concat_pairs(pair_sets)


def _replace_rows_by_ids(hits: ScoredPairs, segment: Segment) -> ScoredPairs:
    """Replace the rows of a segment, on the right, by their ids."""
    return ScoredPairs(hits.left, segment.ids[hits.right], hits.score)
