"""Match images by the vectors of crops and regions: with whole images, and regions with regions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.caches.crops import ComparedImage, CropCache, CropVectors
from indexes.records import Space
from indexes.store import Store
from indexes.vectors.scores import ScoredPairs, find_pairs_above

# A crop or region must score this much above the floor of the space to match a whole image,
# because crops make ten times as many comparisons.
CROP_FLOOR_MARGIN = 0.1
# Two regions must score higher: at .1 they propose twice as many unrelated pairs as at .15 (5.2 and
# 2.4 in 10,000 pairs of hosts), and as many pairs of two hosts of one photo (.98).
REGION_FLOOR_MARGIN = 0.15
# Images that are compared at a time; bounds the memory.
CROP_BLOCK_IMAGES = 400
REGION_BLOCK_IMAGES = 4_000  # with at most 25 MB of vectors

Owned = tuple[int, NDArray[np.float16]]  # a number that stands for an image, and its rows
VectorIdPairs = NDArray[np.int64]  # (n, 2), the smaller id first


def compute_crop_floor(space: Space) -> float:
    """Compute the cosine (>=) that makes a candidate of a crop or region and a whole image."""
    return min(1.0, space.floor + CROP_FLOOR_MARGIN)


def compute_region_floor(space: Space) -> float:
    """Compute the cosine (>=) that makes a candidate of two images by a region of each."""
    return min(1.0, space.floor + REGION_FLOOR_MARGIN)


def load_comparable_images(store: Store, crop_cache: CropCache) -> dict[bytes, ComparedImage]:
    """Return all images that have a vector, by hash, as CropCache records them once compared."""
    cached_hashes = crop_cache.list_hashes()
    return {
        hash_: ComparedImage(vector_id, hash_ in cached_hashes)
        for hash_, vector_id in store.catalog.vectors.stream_by_image_hash()
    }


def propose_pairs(
    store: Store, crop_cache: CropCache, images: Mapping[bytes, ComparedImage]
) -> Iterator[VectorIdPairs]:
    """Find the pairs of `images`, not compared before, that match by crops or regions.

    A pair matches by a crop or region of one and the whole other image, or by a region of each.
    `images` is the result of `load_comparable_images`. Yields pairs of vector ids (n, 2), the
    smaller id first, a block of images at a time; a pair may come more than once.
    """
    space = store.space
    compared_images = crop_cache.get_compared_images()
    new_hashes = {hash_ for hash_, record in images.items() if compared_images.get(hash_) != record}
    if not new_hashes:
        return
    assert space is not None
    yield from _propose_by_crops(store, crop_cache, images, new_hashes)
    yield from _propose_by_regions(crop_cache, images, new_hashes, compute_region_floor(space))


def _propose_by_crops(
    store: Store,
    crop_cache: CropCache,
    images: Mapping[bytes, ComparedImage],
    new_hashes: set[bytes],
) -> Iterator[VectorIdPairs]:
    new_vectors = np.unique(np.array([images[hash_].vector_id for hash_ in new_hashes], np.int64))
    for block in crop_cache.stream(CROP_BLOCK_IMAGES):
        new_crops, old_crops = list[Owned](), list[Owned]()
        for hash_, vectors in block:
            if hash_ in images:
                crops = new_crops if hash_ in new_hashes else old_crops
                crops.append((images[hash_].vector_id, vectors.concat()))
        pairs = _match_stored_vectors(store, new_crops, 0)
        old_pairs = _match_stored_vectors(store, old_crops, int(new_vectors[0]))
        old_pairs = old_pairs[np.isin(old_pairs, new_vectors).any(axis=1)]
        yield np.unique(np.concatenate([pairs, old_pairs]), axis=0)


def _match_stored_vectors(store: Store, crops: list[Owned], min_vector_id: int) -> VectorIdPairs:
    """Find the stored vectors with id >= `min_vector_id` that match crops of other images.

    `crops` holds the vector id of each image with the vectors of its crops and regions.
    """
    space = store.space
    assert space is not None
    if not crops:
        return np.empty((0, 2), np.int64)
    owners, queries = _stack(crops, space.dim)
    matches = store.search.find_vectors_within(queries, compute_crop_floor(space), min_vector_id)
    return _sort_pairs(owners[matches.left], matches.right)


def _propose_by_regions(
    crop_cache: CropCache,
    images: Mapping[bytes, ComparedImage],
    new_hashes: set[bytes],
    min_score: float,
) -> Iterator[VectorIdPairs]:
    """Compare the regions of new images with those of all images."""

    def select(
        block: list[tuple[bytes, NDArray[np.float16]]], only: Iterable[bytes]
    ) -> list[Owned]:
        return [(images[hash_].vector_id, rows) for hash_, rows in block if hash_ in only]

    for block in crop_cache.stream_regions(REGION_BLOCK_IMAGES):
        new_regions = select(block, new_hashes)
        if not new_regions:
            continue
        dim = new_regions[0][1].shape[1]
        owners, rows = _stack(new_regions, dim)
        for other_block in crop_cache.stream_regions(REGION_BLOCK_IMAGES):
            other_owners, other_rows = _stack(select(other_block, images), dim)
            hits = find_pairs_above(rows, other_rows, min_score)
            yield _sort_pairs(owners[hits.left], other_owners[hits.right])


def _stack(owned: Sequence[Owned], dim: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Concatenate rows, (n, dim); also return the owner of each row, (n,)."""
    owners = np.array([owner for owner, _ in owned], np.int64)
    counts = [len(rows) for _, rows in owned]
    blocks = [rows.astype(np.float16) for _, rows in owned]
    return np.repeat(owners, counts), np.concatenate([np.empty((0, dim), np.float16), *blocks])


def _sort_pairs(first: NDArray[np.int64], second: NDArray[np.int64]) -> VectorIdPairs:
    """Return unique pairs of different ids, the smaller id first."""
    pairs = np.sort(np.stack([first, second], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def match_crops(
    store: Store,
    crop_cache: CropCache,
    queries: Sequence[tuple[NDArray[np.float32], CropVectors | None]],
) -> list[set[int]]:
    """Find the stored images that match each query by crops or regions, as `propose_pairs` does.

    A query is the vector of an image (dim,) with its crops and regions, or None if it has neither.
    Returns a set of image ids for each query, in order.
    """
    space = store.space
    matches = [set[int]() for _ in queries]
    if space is None or not queries:
        return matches
    crop_floor, region_floor = compute_crop_floor(space), compute_region_floor(space)
    with_crops = [(index, crops) for index, (_, crops) in enumerate(queries) if crops is not None]
    owners, rows = _stack([(index, crops.concat()) for index, crops in with_crops], space.dim)
    region_owners, region_rows = _stack(
        [(index, crops.regions) for index, crops in with_crops], space.dim
    )
    if len(rows):
        hits = store.search.find_within(rows, crop_floor)
        for query, image_id in zip(owners[hits.left].tolist(), hits.right.tolist(), strict=True):
            matches[query].add(image_id)
    wholes = np.stack([row for row, _ in queries]).astype(np.float16)
    for block in crop_cache.stream(CROP_BLOCK_IMAGES):
        stored, stored_rows = _stack(
            [(index, vectors.concat()) for index, (_, vectors) in enumerate(block)], space.dim
        )
        stored_regions, stored_region_rows = _stack(
            [(index, vectors.regions) for index, (_, vectors) in enumerate(block)], space.dim
        )
        by_crop = find_pairs_above(stored_rows, wholes, crop_floor)
        by_region = find_pairs_above(stored_region_rows, region_rows, region_floor)
        found = np.concatenate([stored[by_crop.left], stored_regions[by_region.left]])
        found_queries = np.concatenate([by_crop.right, region_owners[by_region.right]])
        ids = store.catalog.images.get_ids([block[index][0] for index in np.unique(found)])
        for index, query in zip(found.tolist(), found_queries.tolist(), strict=True):
            if (hash_ := block[index][0]) in ids:
                matches[query].add(ids[hash_])
    return matches


def is_crop_match(
    first: tuple[NDArray[np.floating[Any]], CropVectors | None],
    second: tuple[NDArray[np.floating[Any]], CropVectors | None],
    space: Space,
) -> bool:
    """Tell if two images match by crops or regions, as `propose_pairs` does.

    An image is given by its vector (dim,) with its crops and regions, or None if it has neither.
    """
    (whole, crops), (other_whole, other_crops) = first, second
    crop_floor = compute_crop_floor(space)
    scored = list[ScoredPairs]()
    if crops is not None:
        other_row = other_whole[None].astype(np.float16)
        scored.append(find_pairs_above(crops.concat(), other_row, crop_floor))
    if other_crops is not None:
        row = whole[None].astype(np.float16)
        scored.append(find_pairs_above(other_crops.concat(), row, crop_floor))
    if crops is not None and other_crops is not None:
        region_floor = compute_region_floor(space)
        scored.append(find_pairs_above(crops.regions, other_crops.regions, region_floor))
    return any(len(pairs.left) for pairs in scored)
