"""The small pictures of a store's images: from its thumbs or, where one is not there yet, from a file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes.caches.thumbnails import Thumbnail, ThumbnailCache
from indexes.records import Image
from indexes.store import Store
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from pipeline.decode.read import Failure
from pipeline.scan import SourceFile

THUMBNAIL_JPEG_QUALITY = 88  # of the JPEG that a thumb is: 448 pixels then take about 40 kB


class Thumbnails:
    """Pictures of a store's images, by id. What is made here is kept among the thumbs, where those can be written."""

    def __init__(self, store: Store, cache: ThumbnailCache, decoders: DecoderPool) -> None:
        """Nothing is read yet."""
        self._store, self._cache, self._decoders = store, cache, decoders

    def load(
        self, image_ids: Iterable[int]
    ) -> tuple[dict[int, tuple[Image, Thumbnail]], dict[int, str]]:
        """Those of some images, with features where these are kept; and for images that have none and whose files cannot be read, why."""
        about = dict(self._store.catalog.images.get(image_ids))
        kept = self._cache.get(image.hash for image in about.values())
        missing = {id_: image for id_, image in about.items() if image.hash not in kept}
        made, failed = dict[bytes, Thumbnail](), dict[int, str]()
        for id_, result in read_images(self._store, self._decoders, missing, VERIFY_INPUT):
            if isinstance(result, Decoded):
                made[about[id_].hash] = Thumbnail(encode_thumbnail(result.pixels), b"")
            else:
                failed[id_] = result
        self._cache.put(made)
        kept |= made
        return {
            id_: (image, kept[image.hash]) for id_, image in about.items() if image.hash in kept
        }, failed

    def save(self, thumbnails: Mapping[bytes, Thumbnail]) -> None:
        """Keep thumbs, by the hash of their image, where they can be written."""
        self._cache.put(thumbnails)


def encode_thumbnail(rgb: NDArray[np.uint8]) -> bytes:
    """A picture at SIGHT as it is kept."""
    buffer = io.BytesIO()
    Pillow.fromarray(rgb).save(buffer, "JPEG", quality=THUMBNAIL_JPEG_QUALITY)
    return buffer.getvalue()


def decode_thumbnail(jpeg: bytes) -> NDArray[np.uint8]:
    """A thumb's pixels, rgb (height, width, 3)."""
    with Pillow.open(io.BytesIO(jpeg), formats=("JPEG",)) as opened:
        return np.asarray(opened.convert("RGB"))


def read_images(
    store: Store, decoders: DecoderPool, images: Mapping[int, Image], preprocess: Preprocess
) -> Iterator[tuple[int, Decoded | str]]:
    """The pictures of images, by id, from the first file of each that still has it; or why none has, "away" or a failure's reason. To be
    read to its end: closed before, it ends the decoders.
    """
    there: dict[int, list[SourceFile]] = {}
    for known in store.catalog.files.find_of_images(images):
        if known.image_id is not None and not known.is_missing:
            there.setdefault(known.image_id, []).append(SourceFile(known.path, known.stat))
    yield from ((id_, "away") for id_ in images if id_ not in there)
    while there:
        first, there = (
            {id_: sources[0] for id_, sources in there.items()},
            {id_: sources[1:] for id_, sources in there.items()},
        )
        for id_, result in zip(first, decoders.stream(first.values(), preprocess), strict=True):
            if isinstance(result, Decoded) and result.image.hash == images[id_].hash:
                there[id_] = []
                yield id_, result
            elif not there[id_]:
                yield id_, result.reason if isinstance(result, Failure) else "changed"
        there = {id_: sources for id_, sources in there.items() if sources}
