"""Find images within images: embed crops of large images and compare them with whole images.

A crop, a screenshot or a collage has a vector of its own that says little about the image in it.
Comparing crops with whole images makes a candidate of such a pair.

Measured on 40 images with neardup-1, as the share of pairs that become candidates, without and
with crops: crops to 40 % .58 and .98, collages .68 and 1, images on a background .78 and .98,
screenshots .93 and .98. Of unrelated pairs, whole images propose 4 in 10,000, and crops 3 more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from indexes.caches.crops import ComparedImage, CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.records import Image, Space
from indexes.store import Store
from indexes.vectors.scores import find_pairs_above
from pipeline.decode.pixels.resize import preprocess_image
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.thumbnails import Thumbnails, decode_thumbnail

# Left and top of each crop, in normalized coordinates.
FIVE_CROP = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.25, 0.25))
# Width and height of each crop, in normalized coordinates.
CROP_SIDE_SHARE = 0.5
# A crop must score this much above the floor of the space to match a whole image, because crops
# make ten times as many comparisons.
CROP_FLOOR_MARGIN = 0.1
# Larger stores compare no crops: the work grows with the square of the number of images.
MAX_IMAGES_FOR_CROPS = 100_000
# Images that are embedded, or compared, at a time; bounds the memory.
CROP_BLOCK_IMAGES = 400


def compute_crop_floor(space: Space) -> float:
    """Compute the cosine (>=) that makes a candidate of a crop and a whole image."""
    return min(1.0, space.floor + CROP_FLOOR_MARGIN)


def is_large(image: Image, preprocess: Preprocess) -> bool:
    """Return True if a crop of `image` has at least about as many pixels as the model's input."""
    return min(image.width, image.height) > 2 * preprocess.size


def make_crops(rgb: NDArray[np.uint8], preprocess: Preprocess) -> list[NDArray[np.uint8]]:
    """Cut an image (height, width, 3) into crops, in the order of FIVE_CROP, and preprocess them.

    Pixel coordinates are rounded to the nearest integer.
    """
    image = PillowImage.fromarray(rgb)
    crops = []
    for left, top in FIVE_CROP:
        box = (
            round(left * image.width),
            round(top * image.height),
            round((left + CROP_SIDE_SHARE) * image.width),
            round((top + CROP_SIDE_SHARE) * image.height),
        )
        pixels, _ = preprocess_image(image.crop(box), preprocess)
        crops.append(pixels)
    return crops


def find_images_without_crops(store: Store, crop_cache: CropCache, embedder: Embedder) -> list[int]:
    """Return the ids of images that are large enough for crops but have no crop vectors.

    Of images with equal pixels, only the first is considered. Featureless images have no crops.
    """
    cached_hashes = crop_cache.list_hashes()
    pixel_hashes = set[bytes]()
    image_ids = []
    for image_id, image in store.catalog.images.get(store.catalog.images.list_in_use()):
        needs_crops = is_large(image, embedder.preprocess) and not image.is_featureless
        if needs_crops and image.pixel_hash not in pixel_hashes:
            pixel_hashes.add(image.pixel_hash)
            if image.hash not in cached_hashes:
                image_ids.append(image_id)
    return image_ids


def fill_crop_cache(
    store: Store,
    crop_cache: CropCache,
    embedder: Embedder,
    image_ids: list[int],
    decoders: DecoderPool,
) -> Iterator[int]:
    """Embed the crops of images, cut from their thumbnails; yield how many images are done.

    Skips images whose files are not readable now.
    """
    with ThumbnailCache(store.folder, write=True) as thumbnail_cache:
        thumbnails = Thumbnails(store, thumbnail_cache, decoders)
        for start in range(0, len(image_ids), CROP_BLOCK_IMAGES):
            block = image_ids[start : start + CROP_BLOCK_IMAGES]
            loaded, _ = thumbnails.load(block)
            inputs = (
                crop
                for _, thumbnail in loaded.values()
                for crop in make_crops(decode_thumbnail(thumbnail.jpeg), embedder.preprocess)
            )
            rows = embed_all(embedder, inputs)
            rows = rows.reshape(len(loaded), len(FIVE_CROP), embedder.space.dim)
            hashes = [image.hash for image, _ in loaded.values()]
            crop_cache.put(dict(zip(hashes, rows, strict=True)))
            yield start + len(block)


def load_comparable_images(store: Store, crop_cache: CropCache) -> dict[bytes, ComparedImage]:
    """Return all images that have a vector, by hash, as CropCache records them once compared."""
    cached_hashes = crop_cache.list_hashes()
    return {
        hash_: ComparedImage(vector_id, hash_ in cached_hashes)
        for hash_, vector_id in store.catalog.vectors.stream_by_image_hash()
    }


def propose_pairs(
    store: Store, crop_cache: CropCache, images: Mapping[bytes, ComparedImage]
) -> Iterator[NDArray[np.int64]]:
    """Find the pairs of `images`, not compared before, that match by a crop of either of the two.

    `images` is the result of `load_comparable_images`. Yields pairs of vector ids (n, 2), the
    smaller id first, a block of images at a time.
    """
    compared_images = crop_cache.get_compared_images()
    new_hashes = {hash_ for hash_, record in images.items() if compared_images.get(hash_) != record}
    new_vectors = np.unique(np.array([images[hash_].vector_id for hash_ in new_hashes], np.int64))
    if not len(new_vectors):
        return
    for block in crop_cache.stream(CROP_BLOCK_IMAGES):
        new_crops, old_crops = [], []
        for hash_, rows in block:
            if hash_ in new_hashes:
                new_crops.append((images[hash_].vector_id, rows))
            elif hash_ in images:
                old_crops.append((images[hash_].vector_id, rows))
        pairs = [np.empty((0, 2), np.int64)]
        if new_crops:
            pairs.append(_match_stored_vectors(store, new_crops, 0))
        if old_crops:
            matches = _match_stored_vectors(store, old_crops, int(new_vectors[0]))
            pairs.append(matches[np.isin(matches, new_vectors).any(axis=1)])
        yield np.unique(np.concatenate(pairs), axis=0)


def _match_stored_vectors(
    store: Store, crops: list[tuple[int, NDArray[np.float16]]], min_vector_id: int
) -> NDArray[np.int64]:
    """Find the stored vectors with id >= `min_vector_id` that match crops of other images.

    `crops` holds the vector id of each image with the vectors of its crops. Returns unique pairs
    of vector ids (n, 2), the smaller id first.
    """
    space = store.space
    assert space is not None
    own_ids = np.repeat([vector_id for vector_id, _ in crops], [len(rows) for _, rows in crops])
    queries = np.concatenate([rows for _, rows in crops])
    matches = store.search.find_vectors_within(queries, compute_crop_floor(space), min_vector_id)
    pairs = np.sort(np.stack([own_ids[matches.left], matches.right], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def embed_crops(
    images: Sequence[tuple[Image, NDArray[np.uint8]]], embedder: Embedder
) -> list[NDArray[np.float32] | None]:
    """Embed the crops of images, given with their thumbnail pixels (height, width, 3).

    Returns the unit vectors (crops, dim) of each image; None for an image that is not large.
    """
    crops_by_image = [
        make_crops(rgb, embedder.preprocess) if is_large(image, embedder.preprocess) else []
        for image, rgb in images
    ]
    rows = iter(embed_all(embedder, (crop for crops in crops_by_image for crop in crops)))
    return [np.stack([next(rows) for _ in crops]) if crops else None for crops in crops_by_image]


def match_crops(
    store: Store,
    crop_cache: CropCache,
    queries: Sequence[tuple[NDArray[np.float32], NDArray[np.float32] | None]],
) -> list[set[int]]:
    """Find the stored images that match each query by a crop of either of the two.

    A query is the vector of an image (dim,) and those of its crops (crops, dim) or None. Returns
    a set of image ids for each query, in order.
    """
    space = store.space
    matches = [set[int]() for _ in queries]
    if space is None or not queries:
        return matches
    min_score = compute_crop_floor(space)
    query_crops = [
        (query, row)
        for query, (_, rows) in enumerate(queries)
        for row in (rows if rows is not None else ())
    ]
    if query_crops:
        hits = store.search.find_within(np.stack([row for _, row in query_crops]), min_score)
        for crop, image_id in zip(hits.left.tolist(), hits.right.tolist(), strict=True):
            matches[query_crops[crop][0]].add(image_id)
    query_vectors = np.stack([row for row, _ in queries]).astype(np.float16)
    for block in crop_cache.stream(CROP_BLOCK_IMAGES):
        image_of_row = np.repeat(np.arange(len(block)), [len(rows) for _, rows in block])
        block_rows = np.concatenate([rows for _, rows in block])
        hits = find_pairs_above(block_rows, query_vectors, min_score)
        hit_images = image_of_row[hits.left]
        ids = store.catalog.images.get_ids([block[index][0] for index in np.unique(hit_images)])
        for index, query in zip(hit_images.tolist(), hits.right.tolist(), strict=True):
            if (hash_ := block[index][0]) in ids:
                matches[query].add(ids[hash_])
    return matches
