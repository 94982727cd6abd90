"""Check on a sample that files still give the vectors that the store has of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.store import Store
from indexes.vectors.rows import pick_evenly
from indexes.vectors.scores import compute_cosines
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.embed.embedder import Embedder, embed
from pipeline.scan import is_unchanged
from pipeline.thumbnails import read_images

# float16, and the batch that an image is embedded in, move its vector by less (measured: 0.9999).
MIN_REEMBED_SCORE = 0.999


@dataclass(frozen=True)
class AuditResult:
    """A file that was embedded again, and the cosine of its new vector with the stored one."""

    path: str
    score: float

    @property
    def is_unchanged(self) -> bool:
        """True if the score is >= MIN_REEMBED_SCORE."""
        return self.score >= MIN_REEMBED_SCORE


@dataclass(frozen=True, slots=True)
class _Sample:
    """A file to embed again, with its stored vector."""

    path: str
    pixels: NDArray[np.uint8]
    vector: NDArray[np.floating[Any]]


def sample_images(store: Store, count: int) -> list[int]:
    """Return up to `count` ids of images that a file holds, evenly spread."""
    images = store.catalog.images.list_in_use()
    return [images[row] for row in pick_evenly(len(images), count)]


def reembed(store: Store, embedder: Embedder, images: Sequence[int]) -> Iterator[AuditResult]:
    """Embed a file of each image again and compare it with the stored vector.

    Skips images without a vector, and those whose files are all changed, away or unreadable.
    Raises SpaceMismatch for an embedder of another space than the store's, and ServiceUnavailable
    if a service stops answering.
    """
    store.require_space(embedder.space)
    with DecoderPool(1) as decoders:
        samples = _decode_stored_images(store, embedder, decoders, images)
        while batch := list(islice(samples, embedder.batch_size)):
            rows = embed(embedder, [sample.pixels for sample in batch]).astype(np.float16)
            scores = compute_cosines(rows, np.stack([sample.vector for sample in batch]))
            for sample, score in zip(batch, scores.tolist(), strict=True):
                yield AuditResult(sample.path, score)


def _decode_stored_images(
    store: Store, embedder: Embedder, decoders: DecoderPool, image_ids: Sequence[int]
) -> Iterator[_Sample]:
    """Decode each image that has a vector, from its first unchanged file that still holds it."""
    vectors = store.search.get_vectors(image_ids)
    for id_, image in store.catalog.images.get(image_ids):
        if id_ not in vectors:
            continue
        images = {id_: image}  # one at a time, so that results keep the order of the images
        ((_, result),) = read_images(store, decoders, images, embedder.preprocess, is_unchanged)
        if isinstance(result, Decoded):
            yield _Sample(result.source.path, result.pixels, vectors[id_])
