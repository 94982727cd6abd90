"""STAGE 1, beside its end: pictures within pictures. Parts of each large picture are embedded too, and compared with whole pictures, so
that a crop, a screenshot or a collage is proposed whose own vector says little of the picture in it.

Measured on 40 photos, with neardup-1, as shares proposed without and with parts: crops to 40 % .58 and .98, collages .68 and 1, pictures
on others .78 and .98, screenshots .93 and .98; of pairs of strangers 3 in 10,000 more, where whole pictures propose 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.records import Image, Space
from indexes.store import Store
from indexes.vectors.segments import pairs_above
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.resize import preprocess_image
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.thumbnails import Thumbnails, decode_thumbnail

# Left and top of each part, as shares of a picture's sides; all are half as wide and half as high.
FIVE_CROP = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.25, 0.25))
CROP_FLOOR_MARGIN = 0.1  # by how much more than the floor a part must be like a whole picture: there are ten times as many chances
MAX_IMAGES_FOR_CROPS = (
    100_000  # pictures of a store in which parts are looked for: the work grows with their square
)
IMAGES_PER_BLOCK = 400  # pictures that are embedded, or compared, at a time


def get_crop_floor(space: Space) -> float:
    """The cosine from which on (>=) a part of a picture and a whole one are looked at."""
    return min(1.0, space.floor + CROP_FLOOR_MARGIN)


def is_large(image: Image, preprocess: Preprocess) -> bool:
    """Whether a part of it has about as many pixels as the model looks at."""
    return min(image.width, image.height) > 2 * preprocess.size


def make_crops(rgb: NDArray[np.uint8], preprocess: Preprocess) -> list[NDArray[np.uint8]]:
    """The parts of a picture (height, width, 3) as a model wants to see them, in the order of WINDOWS."""
    picture = Pillow.fromarray(rgb)
    width, height = picture.size
    boxes = [
        (left * width, top * height, (left + 0.5) * width, (top + 0.5) * height)
        for left, top in FIVE_CROP
    ]
    return [
        preprocess_image(
            picture.crop((round(left), round(top), round(right), round(bottom))), preprocess
        )[0]
        for left, top, right, bottom in boxes
    ]


def images_without_crops(store: Store, crop_cache: CropCache, embedder: Embedder) -> list[int]:
    """Images that are large enough for parts and have none, by id; of those with the same pixels, one."""
    there, seen = crop_cache.list_hashes(), set[bytes]()
    found = []
    for id_, image in store.catalog.images.get(store.catalog.images.list_in_use()):
        if (
            is_large(image, embedder.preprocess)
            and not image.is_featureless
            and image.pixel_hash not in seen
        ):
            seen.add(image.pixel_hash)
            if image.hash not in there:
                found.append(id_)
    return found


def fill_crop_cache(
    store: Store,
    crop_cache: CropCache,
    embedder: Embedder,
    images: list[int],
    decoders: DecoderPool,
) -> Iterator[int]:
    """Embed the parts of images, by id, as they are kept among the thumbs; yields how many are done. Those that are away are left out."""
    with ThumbnailCache(store.folder, write=True) as thumbs:
        pictures = Thumbnails(store, thumbs, decoders)
        for start in range(0, len(images), IMAGES_PER_BLOCK):
            some = images[start : start + IMAGES_PER_BLOCK]
            found, _ = pictures.load(some)
            views = (
                view
                for _, thumb in found.values()
                for view in make_crops(decode_thumbnail(thumb.jpeg), embedder.preprocess)
            )
            rows = embed_all(embedder, views).reshape(
                len(found), len(FIVE_CROP), embedder.space.dim
            )
            crop_cache.put(
                {image.hash: own for (image, _), own in zip(found.values(), rows, strict=True)}
            )
            yield start + len(some)


def load_comparable_images(store: Store, crop_cache: CropCache) -> dict[bytes, tuple[int, bool]]:
    """All images that some file holds and that have a vector, as Parts.compared() tells of them when they were compared."""
    there, vectors = crop_cache.list_hashes(), dict(store.catalog.vectors.stream_by_image_hash())
    return {hash_: (vector, hash_ in there) for hash_, vector in vectors.items()}


def propose(
    store: Store, crop_cache: CropCache, images: Mapping[bytes, tuple[int, bool]]
) -> Iterator[NDArray[np.int64]]:
    """Pairs of vectors (n, 2), the smaller id first, of those of `images` of which a part of one is like the other, and that were not
    compared before; a block at a time.
    """
    before = crop_cache.get_compared_images()
    new = {hash_ for hash_, about in images.items() if before.get(hash_) != about}
    vectors = np.unique(np.array([images[hash_][0] for hash_ in new], np.int64))
    if not len(vectors):
        return
    for some in crop_cache.stream(IMAGES_PER_BLOCK):
        fresh = [(images[hash_][0], rows) for hash_, rows in some if hash_ in new]
        known = [
            (images[hash_][0], rows) for hash_, rows in some if hash_ in images and hash_ not in new
        ]
        found = [_find_pairs(store, fresh, 0)] if fresh else []
        if known:
            pairs = _find_pairs(store, known, int(vectors[0]))
            found.append(pairs[np.isin(pairs, vectors).any(axis=1)])
        yield np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)


def _find_pairs(
    store: Store, crops: list[tuple[int, NDArray[np.float16]]], since: int
) -> NDArray[np.int64]:
    space = store.space
    assert space is not None
    own = np.repeat([vector for vector, _ in crops], [len(rows) for _, rows in crops])
    found = store.find_vectors_within(
        np.concatenate([rows for _, rows in crops]), get_crop_floor(space), since
    )
    pairs = np.sort(np.stack([own[found.left], found.right], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def embed_crops(
    images: Sequence[tuple[Image, NDArray[np.uint8]]], embedder: Embedder
) -> list[NDArray[np.float32] | None]:
    """The vectors of the parts (parts, dim) of each picture that is asked about, by its pixels as a thumb has them; None of small ones."""
    views = [
        make_crops(rgb, embedder.preprocess) if is_large(image, embedder.preprocess) else []
        for image, rgb in images
    ]
    rows = iter(embed_all(embedder, (view for some in views for view in some)))
    return [np.stack([next(rows) for _ in some]) if some else None for some in views]


def match_crops(
    store: Store,
    crop_cache: CropCache,
    queries: Sequence[tuple[NDArray[np.float32], NDArray[np.float32] | None]],
) -> list[set[int]]:
    """For each picture that is asked about, its vector and those of its parts, the images that are like a part of it, or of which a part is
    like it, by id.
    """
    space, found = store.space, [set[int]() for _ in queries]
    if space is None or not queries:
        return found
    own = [
        (number, row)
        for number, (_, rows) in enumerate(queries)
        for row in (rows if rows is not None else ())
    ]
    if own:
        hits = store.find_within(np.stack([row for _, row in own]), get_crop_floor(space))
        for row, id_ in zip(hits.left.tolist(), hits.right.tolist(), strict=True):
            found[own[row][0]].add(id_)
    whole = np.stack([row for row, _ in queries]).astype(np.float16)
    for some in crop_cache.stream(IMAGES_PER_BLOCK):
        image = np.repeat(np.arange(len(some)), [len(its) for _, its in some])
        hits = pairs_above(np.concatenate([its for _, its in some]), whole, get_crop_floor(space))
        ids = store.catalog.images.get_ids([some[at][0] for at in np.unique(image[hits.left])])
        for at, number in zip(image[hits.left].tolist(), hits.right.tolist(), strict=True):
            if (hash_ := some[at][0]) in ids:
                found[number].add(ids[hash_])
    return found
