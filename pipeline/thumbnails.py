"""Thumbnails of a store's images: from the cache or, if one is not there yet, from a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes.caches.thumbnails import Thumbnail, ThumbnailCache
from indexes.records import CatalogFile, Image
from indexes.store import Store
from pipeline.decode.decode import Decoded
from pipeline.decode.formats import FailureReason
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from pipeline.decode.read import Failure
from pipeline.name_rules import SkipReason
from pipeline.scan import SourceFile

THUMBNAIL_JPEG_QUALITY = 88  # a photo of 448 pixels then takes about 36 kB


class UnavailableReason(StrEnum):
    """Why no file gave an image of the store; the reason of a Failure can take its place."""

    AWAY = "away"  # no file that holds it is present
    CHANGED = "changed"  # its last file holds other bytes now


@dataclass(frozen=True, slots=True)
class ImageUnavailable:
    """An image of the store that no file gave; `reason` may be that of its last file's Failure."""

    reason: UnavailableReason | FailureReason | SkipReason


class Thumbnails:
    """Thumbnails of a store's images, by image id; new ones are saved if the cache is writable."""

    def __init__(self, store: Store, cache: ThumbnailCache, decoders: DecoderPool) -> None:
        """Use `cache`, and `decoders` for images that it lacks; read nothing yet."""
        self._store, self._cache, self._decoders = store, cache, decoders

    def load(
        self, image_ids: Iterable[int]
    ) -> tuple[dict[int, tuple[Image, Thumbnail]], dict[int, str]]:
        """Load thumbnails, with features where the cache has them.

        The second dictionary has the reason for each image that has no thumbnail and whose files
        give none; see ImageUnavailable.
        """
        images = dict(self._store.catalog.images.get(image_ids))
        thumbnails = self._cache.get(image.hash for image in images.values())
        missing = {id_: image for id_, image in images.items() if image.hash not in thumbnails}
        new: dict[bytes, Thumbnail] = {}
        failed: dict[int, str] = {}
        for id_, result in read_images(self._store, self._decoders, missing, VERIFY_INPUT):
            if isinstance(result, Decoded):
                new[images[id_].hash] = Thumbnail(encode_thumbnail(result.pixels), b"")
            else:
                failed[id_] = result.reason
        self._cache.put(new)
        thumbnails |= new
        loaded = {
            id_: (image, thumbnails[image.hash])
            for id_, image in images.items()
            if image.hash in thumbnails
        }
        return loaded, failed

    def save(self, thumbnails: Mapping[bytes, Thumbnail]) -> None:
        """Save thumbnails, by the hash of their image, if the cache is writable."""
        self._cache.put(thumbnails)


def encode_thumbnail(rgb: NDArray[np.uint8]) -> bytes:
    """Encode pixels at VERIFY_INPUT, uint8 (height, width, 3), as the JPEG that is stored.

    Huffman tables of its own save a twentieth of the bytes, and do not change its pixels.
    """
    try:
        return _encode_jpeg(rgb, optimize=True)
    except OSError:
        # Pillow gives an optimized JPEG a byte a pixel; noise can need more.
        return _encode_jpeg(rgb, optimize=False)


def _encode_jpeg(rgb: NDArray[np.uint8], *, optimize: bool) -> bytes:
    buffer = io.BytesIO()
    image = Pillow.fromarray(rgb)
    image.save(buffer, "JPEG", quality=THUMBNAIL_JPEG_QUALITY, optimize=optimize)
    return buffer.getvalue()


def decode_thumbnail(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode a thumbnail to RGB pixels, uint8 (height, width, 3)."""
    with Pillow.open(io.BytesIO(jpeg), formats=("JPEG",)) as opened:
        return np.asarray(opened.convert("RGB"))


def _is_present(file: CatalogFile) -> bool:
    return not file.is_missing


def read_images(
    store: Store,
    decoders: DecoderPool,
    images: Mapping[int, Image],
    preprocess: Preprocess,
    is_candidate: Callable[[CatalogFile], bool] = _is_present,
) -> Iterator[tuple[int, Decoded | ImageUnavailable]]:
    """Decode images, by id, each from the first of its files that still holds it.

    Only files for which `is_candidate` returns True are read; by default those that were present at
    the last ingest. Read the iterator to its end: closing it earlier ends the processes of
    `decoders`.
    """
    sources: dict[int, list[SourceFile]] = {}
    for file in store.catalog.files.find_of_images(images):
        if file.image_id is not None and is_candidate(file):
            sources.setdefault(file.image_id, []).append(SourceFile(file.path, file.stat))
    yield from (
        (id_, ImageUnavailable(UnavailableReason.AWAY)) for id_ in images if id_ not in sources
    )
    while sources:
        first_sources = {id_: files[0] for id_, files in sources.items()}
        later_sources = {id_: files[1:] for id_, files in sources.items()}
        with closing(decoders.stream(first_sources.values(), preprocess)) as results:
            for id_, result in zip(first_sources, results, strict=True):
                if isinstance(result, Decoded) and result.image.hash == images[id_].hash:
                    del later_sources[id_]
                    yield id_, result
                elif not later_sources[id_] and isinstance(result, Failure):
                    yield id_, ImageUnavailable(result.reason)
                elif not later_sources[id_]:
                    yield id_, ImageUnavailable(UnavailableReason.CHANGED)
        sources = {id_: files for id_, files in later_sources.items() if files}
