"""Second step of a query: stored images near a file's image, by vectors, crops and pixel hashes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.caches.crops import CropCache
from indexes.metadata import NO_METADATA, ImageMetadata
from indexes.records import Image, Space
from indexes.store import Store
from indexes.vectors.scores import compute_cosines
from pipeline.grouping.decisions import NO_DECISIONS, Decisions
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import get_exact_relation
from pipeline.query.decided_pairs import find_decided_images
from pipeline.query.files import load_files
from pipeline.query.identify import NewQuery, Query, QueryEmbedding, StoredQuery
from pipeline.query.thresholds import Thresholds, resolve_thresholds
from pipeline.verify.relation import UNREPORTED_RELATIONS
from pipeline.verify.verdict import Verdict, decode_verdict


@dataclass(frozen=True, slots=True)
class NearImage:
    """A stored image near a query: its id, cosine and metadata, and its files.

    A decided image may have no file any more: it matches nothing, but its decision counts.
    """

    image_id: int
    image: Image
    score: float
    files: Sequence[LibraryFile]
    metadata: ImageMetadata = NO_METADATA


@dataclass(frozen=True, slots=True)
class Searched:
    """A query with the stored images near it, in no order, and the thresholds of the search.

    `verdicts` are the stored ones on a stored query, by the pixel hash of the other image, with the
    query as the first of the pair; a new query has none.
    """

    query: Query
    near_images: Sequence[NearImage]
    thresholds: Thresholds
    verdicts: Mapping[bytes, Verdict]

    @property
    def unverified_images(self) -> Sequence[NearImage]:
        """The near images that pixels must decide on: those of a new query that hashes do not."""
        if isinstance(self.query, StoredQuery) or self.query.embedding is None:
            return ()
        image = self.query.image
        return [near for near in self.near_images if not get_exact_relation(near.image, image)]


def search_store(
    queries: Sequence[Query],
    store: Store,
    threshold: float | None,
    min_agreement: float | None,
    decisions: Decisions = NO_DECISIONS,
) -> list[Searched]:
    """Find the stored images near each query, in one catalog snapshot.

    These are the images whose cosine reaches the search threshold (`>=`), with crops also those
    found by a crop, all with the same pixels, at a score of 1, and those that are decided to be the
    same as the query. Raises SpaceMismatch if a
    migration has replaced the space of the new queries.
    """
    with store.catalog.snapshot():
        embeddings = [query.embedding for query in queries if isinstance(query, NewQuery)]
        for embedding in embeddings:
            if embedding:
                store.require_space(embedding.space)
        space = store.space
        assert space is not None  # a store that was bound once stays bound
        thresholds = resolve_thresholds(store, space, threshold, min_agreement)
        vectors = _load_vectors(queries, store)
        verdicts = [_load_verdicts(query, store) for query in queries]
        scores = _search_vectors(vectors, store, thresholds.search, len(queries))
        if thresholds.with_crops:
            for position, image_ids in _search_crops(queries, verdicts, store, space).items():
                if position in vectors:
                    further = image_ids - scores[position].keys()
                    scores[position] |= _score_images(vectors[position], further, store)
        for query, own_scores in zip(queries, scores, strict=True):
            equal_ids = store.catalog.images.find_by_pixel_hash(query.image.pixel_hash)
            own_scores.update(dict.fromkeys(equal_ids, 1.0))
        _add_decided(queries, scores, vectors, store, decisions, thresholds.search)
        image_ids = {image_id for own in scores for image_id in own}
        loaded = _LoadedImages(
            dict(store.catalog.images.get(image_ids)),
            load_files(store, list(image_ids)),
            dict(store.catalog.metadata.get(image_ids)),
            find_decided_images(store, decisions).keys(),
        )
    return [
        Searched(query, loaded.make_near_images(own_scores), thresholds, own_verdicts)
        for query, own_scores, own_verdicts in zip(queries, scores, verdicts, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _LoadedImages:
    """Images near queries by id, with their files and metadata; `decided` need no file."""

    images: Mapping[int, Image]
    files: Mapping[int, Sequence[LibraryFile]]
    metadata: Mapping[int, ImageMetadata]
    decided: Collection[int]

    def make_near_images(self, scores: Mapping[int, float]) -> list[NearImage]:
        """Make the near images of one query, given their scores."""
        return [
            NearImage(
                image_id,
                self.images[image_id],
                score,
                self.files.get(image_id, ()),
                self.metadata.get(image_id, NO_METADATA),
            )
            for image_id, score in scores.items()
            if image_id in self.files or image_id in self.decided
        ]


def _add_decided(
    queries: Sequence[Query],
    scores: Sequence[dict[int, float]],
    vectors: Mapping[int, NDArray[np.float32]],
    store: Store,
    decisions: Decisions,
    min_score: float,
) -> None:
    """Add the decided images that are near a query and have no file, or are the same as it.

    The latter are there at any score, at 0 where one of the two has no vector.
    """
    decided = dict(store.catalog.images.get(find_decided_images(store, decisions)))
    for position, query in enumerate(queries if decided else ()):
        own_root = decisions.find_root(decisions.get_known_hash(query.image))
        missing = decided.keys() - scores[position].keys()
        found = dict[int, float]()
        if position in vectors:
            found = _score_images(vectors[position], missing, store)
        for image_id in missing:
            root = decisions.find_root(decisions.get_known_hash(decided[image_id]))
            if root == own_root or found.get(image_id, -1.0) >= min_score:
                scores[position][image_id] = found.get(image_id, 0.0)


def _load_vectors(queries: Sequence[Query], store: Store) -> dict[int, NDArray[np.float32]]:
    """Return the vectors of queries, by position; featureless images have none."""
    stored_ids = [query.image_id for query in queries if isinstance(query, StoredQuery)]
    stored = store.search.get_vectors(stored_ids)
    vectors = {}
    for position, query in enumerate(queries):
        if isinstance(query, StoredQuery):
            if query.image_id in stored:
                vectors[position] = stored[query.image_id]
        elif query.embedding:
            vectors[position] = query.embedding.vector
    return vectors


def _load_verdicts(query: Query, store: Store) -> dict[bytes, Verdict]:
    """Load the verdicts on a stored image, by the other's pixel hash, with itself as the first."""
    verdicts = dict[bytes, Verdict]()
    if isinstance(query, StoredQuery):
        own_hash = query.image.pixel_hash
        for first, second, stored in store.catalog.verdicts.find_of_image(own_hash):
            verdict = decode_verdict(stored)
            if first == own_hash:
                verdicts[second] = verdict
            else:
                verdicts[first] = verdict.swap_sides()
    return verdicts


def _search_vectors(
    vectors: Mapping[int, NDArray[np.float32]], store: Store, min_score: float, query_count: int
) -> list[dict[int, float]]:
    """Return, for each query, the scores of the stored images with cosine >= `min_score`, by id."""
    scores: list[dict[int, float]] = [{} for _ in range(query_count)]
    if not vectors:
        return scores
    positions = list(vectors)
    hits = store.search.find_within(np.stack(list(vectors.values())), min_score)
    columns = hits.left.tolist(), hits.right.tolist(), hits.score.tolist()
    for row, image_id, score in zip(*columns, strict=True):
        scores[positions[row]][image_id] = score
    return scores


def _search_crops(
    queries: Sequence[Query],
    verdicts: Sequence[Mapping[bytes, Verdict]],
    store: Store,
    space: Space,
) -> dict[int, set[int]]:
    """Return the ids of the stored images that crops find, by the position of the query.

    The crops of a stored query were searched by the ingest: its verdicts name what was found.
    """
    image_ids = {
        position: _find_verified_images(verdicts[position], store)
        for position, query in enumerate(queries)
        if isinstance(query, StoredQuery)
    }
    embeddings = {
        position: query.embedding
        for position, query in enumerate(queries)
        if isinstance(query, NewQuery) and query.embedding
    }
    return image_ids | _match_new_crops(embeddings, store, space)


def _find_verified_images(verdicts: Mapping[bytes, Verdict], store: Store) -> set[int]:
    """Return the ids of the images that a positive verdict relates to a stored query."""
    return {
        image_id
        for pixel_hash, verdict in verdicts.items()
        if verdict.relation not in UNREPORTED_RELATIONS
        for image_id in store.catalog.images.find_by_pixel_hash(pixel_hash)
    }


def _match_new_crops(
    embeddings: Mapping[int, QueryEmbedding], store: Store, space: Space
) -> dict[int, set[int]]:
    """Match new images with stored ones by the crops and regions of both."""
    if not embeddings:
        return {}
    with CropCache(store.folder, space, write=False) as crop_cache:
        if not crop_cache.has_compared_images:
            return {}
        from pipeline.embed.crop_matches import match_crops

        vectors = [(embedding.vector, embedding.crop_vectors) for embedding in embeddings.values()]
        matched = match_crops(store, crop_cache, vectors)
    return dict(zip(embeddings, matched, strict=True))


def _score_images(
    vector: NDArray[np.float32], image_ids: Iterable[int], store: Store
) -> dict[int, float]:
    """Return the cosine of `vector` with each of these stored images that has a vector."""
    rows = store.search.get_vectors(sorted(image_ids))
    if not rows:
        return {}
    stored = np.stack(list(rows.values())).astype(np.float16)
    own = np.broadcast_to(vector.astype(np.float16), stored.shape)
    return dict(zip(rows, compute_cosines(own, stored).tolist(), strict=True))
