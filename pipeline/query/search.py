"""Second step of a query: stored images near a file's image, by vectors, crops and pixel hashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.caches.crops import CropCache
from indexes.metadata import NO_METADATA, ImageMetadata
from indexes.records import Image, Space
from indexes.store import Store
from indexes.vectors.scores import compute_cosines
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import get_exact_relation
from pipeline.query.files import load_files
from pipeline.query.identify import NewQuery, Query, QueryEmbedding, StoredQuery
from pipeline.query.thresholds import Thresholds, resolve_thresholds
from pipeline.verify.relation import UNREPORTED_RELATIONS
from pipeline.verify.verdict import Verdict, decode_verdict


@dataclass(frozen=True, slots=True)
class NearImage:
    """A stored image near a query: its id, cosine and metadata, and at least one of its files."""

    image_id: int
    score: float
    files: Sequence[LibraryFile]
    metadata: ImageMetadata = NO_METADATA

    @property
    def image(self) -> Image:
        """The image that the files hold."""
        return self.files[0].image


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
    queries: Sequence[Query], store: Store, threshold: float | None, min_agreement: float | None
) -> list[Searched]:
    """Find the stored images near each query, in one catalog snapshot.

    These are the images whose cosine reaches the search threshold (`>=`), with crops also those
    found by a crop, and all with the same pixels, at a score of 1. Raises SpaceMismatch if a
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
        image_ids = {image_id for own in scores for image_id in own}
        files = load_files(store, list(image_ids))
        metadata = dict(store.catalog.metadata.get(image_ids))
    return [
        Searched(query, _make_near_images(own_scores, files, metadata), thresholds, own_verdicts)
        for query, own_scores, own_verdicts in zip(queries, scores, verdicts, strict=True)
    ]


def _make_near_images(
    scores: Mapping[int, float],
    files: Mapping[int, Sequence[LibraryFile]],
    metadata: Mapping[int, ImageMetadata],
) -> list[NearImage]:
    return [
        NearImage(image_id, score, files[image_id], metadata.get(image_id, NO_METADATA))
        for image_id, score in scores.items()
        if image_id in files
    ]


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
