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

from indexes import Image, Parts, Space, Store, Thumbs, alike
from pipeline.decode.pool import Decoders
from pipeline.decode.preprocess import View
from pipeline.decode.resize import fit
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.thumbnails import Pictures, shown

# Left and top of each part, as shares of a picture's sides; all are half as wide and half as high.
WINDOWS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.25, 0.25))
ABOVE = 0.1  # by how much more than the floor a part must be like a whole picture: there are ten times as many chances
MOST = 100_000  # pictures of a store in which parts are looked for: the work grows with their square
BLOCK = 400  # pictures that are embedded, or compared, at a time


def least(space: Space) -> float:
    """The cosine from which on (>=) a part of a picture and a whole one are looked at."""
    return min(1.0, space.floor + ABOVE)


def is_large(image: Image, view: View) -> bool:
    """Whether a part of it has about as many pixels as the model looks at."""
    return min(image.width, image.height) > 2 * view.size


def parts_of(rgb: NDArray[np.uint8], view: View) -> list[NDArray[np.uint8]]:
    """The parts of a picture (height, width, 3) as a model wants to see them, in the order of WINDOWS."""
    picture = Pillow.fromarray(rgb)
    width, height = picture.size
    boxes = [(left * width, top * height, (left + 0.5) * width, (top + 0.5) * height) for left, top in WINDOWS]
    return [fit(picture.crop((round(left), round(top), round(right), round(bottom))), view)[0] for left, top, right, bottom in boxes]


def lacking(store: Store, parts: Parts, embedder: Embedder) -> list[int]:
    """Images that are large enough for parts and have none, by id; of those with the same pixels, one."""
    there, seen = parts.hashes(), set[bytes]()
    found = []
    for id_, image in store.catalog.images(store.catalog.live()):
        if is_large(image, embedder.view) and not image.featureless and image.pixels not in seen:
            seen.add(image.pixels)
            if image.hash not in there:
                found.append(id_)
    return found


def embed_parts(store: Store, parts: Parts, embedder: Embedder, images: list[int], decoders: Decoders) -> Iterator[int]:
    """Embed the parts of images, by id, as they are kept among the thumbs; yields how many are done. Those that are away are left out."""
    with Thumbs(store.folder, write=True) as thumbs:
        pictures = Pictures(store, thumbs, decoders)
        for start in range(0, len(images), BLOCK):
            some = images[start : start + BLOCK]
            found, _ = pictures.of(some)
            views = (view for _, thumb in found.values() for view in parts_of(shown(thumb.picture), embedder.view))
            rows = embed_all(embedder, views).reshape(len(found), len(WINDOWS), embedder.space.dim)
            parts.put({image.hash: own for (image, _), own in zip(found.values(), rows, strict=True)})
            yield start + len(some)


def wanted(store: Store, parts: Parts) -> dict[bytes, tuple[int, bool]]:
    """All images that some file holds and that have a vector, as Parts.compared() tells of them when they were compared."""
    there, vectors = parts.hashes(), dict(store.catalog.vectors_by_hash())
    return {hash_: (vector, hash_ in there) for hash_, vector in vectors.items()}


def propose(store: Store, parts: Parts, images: Mapping[bytes, tuple[int, bool]]) -> Iterator[NDArray[np.int64]]:
    """Pairs of vectors (n, 2), the smaller id first, of those of `images` of which a part of one is like the other, and that were not
    compared before; a block at a time.
    """
    before = parts.compared()
    new = {hash_ for hash_, about in images.items() if before.get(hash_) != about}
    vectors = np.unique(np.array([images[hash_][0] for hash_ in new], np.int64))
    if not len(vectors):
        return
    for some in parts.stream(BLOCK):
        fresh = [(images[hash_][0], rows) for hash_, rows in some if hash_ in new]
        known = [(images[hash_][0], rows) for hash_, rows in some if hash_ in images and hash_ not in new]
        found = [_pairs(store, fresh, 0)] if fresh else []
        if known:
            pairs = _pairs(store, known, int(vectors[0]))
            found.append(pairs[np.isin(pairs, vectors).any(axis=1)])
        yield np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)


def _pairs(store: Store, known: list[tuple[int, NDArray[np.float16]]], since: int) -> NDArray[np.int64]:
    space = store.space
    assert space is not None
    own = np.repeat([vector for vector, _ in known], [len(rows) for _, rows in known])
    found = store.vectors_within(np.concatenate([rows for _, rows in known]), least(space), since)
    pairs = np.sort(np.stack([own[found.left], found.right], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def embedded(asked: Sequence[tuple[Image, NDArray[np.uint8]]], embedder: Embedder) -> list[NDArray[np.float32] | None]:
    """The vectors of the parts (parts, dim) of each picture that is asked about, by its pixels as a thumb has them; None of small ones."""
    views = [parts_of(rgb, embedder.view) if is_large(image, embedder.view) else [] for image, rgb in asked]
    rows = iter(embed_all(embedder, (view for some in views for view in some)))
    return [np.stack([next(rows) for _ in some]) if some else None for some in views]


def near(store: Store, parts: Parts, asked: Sequence[tuple[NDArray[np.float32], NDArray[np.float32] | None]]) -> list[set[int]]:
    """For each picture that is asked about, its vector and those of its parts, the images that are like a part of it, or of which a part is
    like it, by id.
    """
    space, found = store.space, [set[int]() for _ in asked]
    if space is None or not asked:
        return found
    own = [(number, row) for number, (_, rows) in enumerate(asked) for row in (rows if rows is not None else ())]
    if own:
        hits = store.within(np.stack([row for _, row in own]), least(space))
        for row, id_ in zip(hits.left.tolist(), hits.right.tolist(), strict=True):
            found[own[row][0]].add(id_)
    whole = np.stack([row for row, _ in asked]).astype(np.float16)
    for some in parts.stream(BLOCK):
        image = np.repeat(np.arange(len(some)), [len(its) for _, its in some])
        hits = alike(np.concatenate([its for _, its in some]), whole, least(space))
        ids = store.catalog.image_ids([some[at][0] for at in np.unique(image[hits.left])])
        for at, number in zip(image[hits.left].tolist(), hits.right.tolist(), strict=True):
            if (hash_ := some[at][0]) in ids:
                found[number].add(ids[hash_])
    return found
