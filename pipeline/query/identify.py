"""First step of a query: which image does each file hold, and what is the vector of a new one?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from indexes.caches.crops import CropCache, CropVectors
from indexes.records import Image, Space
from indexes.store import Store
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.embed.embedder import Embedder, embed
from pipeline.query.files import resolve_source
from pipeline.query.reread import reread_thumbnails
from pipeline.scan import SourceFile


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """A file whose image is in the store, and the id of that image."""

    source: SourceFile
    image: Image
    image_id: int


@dataclass(frozen=True, slots=True)
class QueryEmbedding:
    """The unit vector (dim,) of a new image and, if crops are searched, those of its crops.

    `crop_vectors` is None if the image is too small for crops and regions, or if the search does
    not use them.
    """

    space: Space
    vector: NDArray[np.float32]
    crop_vectors: CropVectors | None = None


@dataclass(frozen=True, slots=True)
class NewQuery:
    """A file whose image is not in the store.

    `embedding` is None for a featureless image. `thumbnail` is the JPEG that a store
    would keep, once it is made.
    """

    source: SourceFile
    image: Image
    embedding: QueryEmbedding | None = None
    thumbnail: bytes | None = None


Query = StoredQuery | NewQuery


class _ThreadSafeLookups:
    """Lookups that reader threads make, one at a time: there is one connection and one model."""

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self._store, self._embedder = store, embedder
        self._lock = Lock()

    def is_new(self, image_hash: bytes) -> bool:
        """Check that no stored image has this content."""
        with self._lock:
            return not self._store.catalog.images.get_ids([image_hash])

    def get_preprocess(self) -> Preprocess:
        """Return the model's preprocessing; this may load the model, so only for new images."""
        with self._lock:
            return self._embedder.preprocess


def identify_files(
    files: Sequence[str], store: Store, embedder: Embedder, decoders: DecoderPool
) -> list[StoredQuery | Decoded | Failure]:
    """Find the image of each file: by its path if the file is unchanged, else by its bytes.

    Files with new bytes are decoded for `embedder`. No catalog snapshot is open meanwhile, because
    loading the model may take long.
    """
    with store.catalog.snapshot():
        identified = [_identify_by_path(file, store) for file in files]
    unread = [source for source in identified if isinstance(source, SourceFile)]
    if not unread:
        return [query for query in identified if not isinstance(query, SourceFile)]
    read = iter(_identify_by_content(unread, store, embedder, decoders))
    return [next(read) if isinstance(query, SourceFile) else query for query in identified]


def _identify_by_path(file: str, store: Store) -> StoredQuery | SourceFile | Failure:
    """Look up the image of an unchanged file; a SourceFile if the file must be read."""
    source = resolve_source(file)
    if isinstance(source, Failure):
        return source
    known = store.catalog.files.get_by_path(source.path)
    if known and known.image_id is not None and source.is_unchanged_since(known.stat):
        return _load_stored_query(source, store, known.image_id)
    return source


def _identify_by_content(
    sources: Sequence[SourceFile], store: Store, embedder: Embedder, decoders: DecoderPool
) -> list[StoredQuery | Decoded | Failure]:
    """Read files and look up their hashes; decode those that are not stored."""
    lookups = _ThreadSafeLookups(store, embedder)
    with closing(decoders.stream(sources, lookups.get_preprocess, lookups.is_new)) as stream:
        results = list(stream)
    stored_hashes = [result.hash for result in results if isinstance(result, AlreadyStored)]
    identified: list[StoredQuery | Decoded | AlreadyStored | Failure] = []
    with store.catalog.snapshot():
        image_ids = store.catalog.images.get_ids(stored_hashes)
        for result in results:
            if isinstance(result, AlreadyStored) and result.hash in image_ids:
                image_id = image_ids[result.hash]
                identified.append(_load_stored_query(result.source, store, image_id))
            else:
                identified.append(result)
    return [
        # An ingest has dropped this image since its hash was looked up.
        _decode_new(query.source, lookups, decoders) if isinstance(query, AlreadyStored) else query
        for query in identified
    ]


def _decode_new(
    source: SourceFile, lookups: _ThreadSafeLookups, decoders: DecoderPool
) -> Decoded | Failure:
    """Decode a file whether or not its hash is stored."""
    decoded = decoders.decode(source, lookups.get_preprocess)
    assert not isinstance(decoded, AlreadyStored)  # only `is_wanted` makes one
    return decoded


def _load_stored_query(source: SourceFile, store: Store, image_id: int) -> StoredQuery:
    ((_, image),) = store.catalog.images.get([image_id])
    metadata = dict(store.catalog.metadata.get([image_id]))
    return StoredQuery(source, replace(image, metadata=metadata.get(image_id)), image_id)


def embed_queries(decoded: Sequence[Decoded], embedder: Embedder, store: Store) -> list[NewQuery]:
    """Embed new images, in their order; featureless ones stay without an embedding.

    Raises SpaceMismatch if the store holds vectors of another space.
    """
    inputs = [item.pixels for item in decoded if not item.image.is_featureless]
    if not inputs:
        return [NewQuery(item.source, item.image) for item in decoded]
    space = embedder.space
    store.require_space(space)
    vectors = iter(embed(embedder, inputs))
    return [
        NewQuery(
            item.source,
            item.image,
            None if item.image.is_featureless else QueryEmbedding(space, next(vectors)),
        )
        for item in decoded
    ]


def embed_query_crops(
    queries: Sequence[NewQuery], embedder: Embedder, store: Store, decoders: DecoderPool
) -> list[NewQuery]:
    """Add crop vectors to new images with features, if the store has crops to compare them with.

    Files that changed since they were identified stay without.
    """
    with CropCache(store.folder, embedder.space, write=False) as crop_cache:
        if not crop_cache.has_compared_images:
            return list(queries)
    from pipeline.embed.crops import embed_crops
    from pipeline.thumbnails import decode_thumbnail

    queries = read_thumbnails(queries, decoders)
    images = [
        (query.image, decode_thumbnail(query.thumbnail))
        for query in queries
        if query.thumbnail is not None
    ]
    crop_vectors = iter(embed_crops(images, embedder))
    return [
        _add_crop_vectors(query, next(crop_vectors)) if query.thumbnail is not None else query
        for query in queries
    ]


def _add_crop_vectors(query: NewQuery, crop_vectors: CropVectors | None) -> NewQuery:
    if query.embedding is None:
        return query
    return replace(query, embedding=replace(query.embedding, crop_vectors=crop_vectors))


def read_thumbnails(queries: Sequence[NewQuery], decoders: DecoderPool) -> list[NewQuery]:
    """Make the thumbnails of new images with features that have none yet.

    Files that changed since they were identified stay without.
    """
    unread = {
        position: (query.source, query.image)
        for position, query in enumerate(queries)
        if query.embedding and query.thumbnail is None
    }
    completed = list(queries)
    for position, thumbnail in reread_thumbnails(unread, decoders).items():
        completed[position] = replace(queries[position], thumbnail=thumbnail)
    return completed
