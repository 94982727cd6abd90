"""Whether photos still give the vectors that the store has of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import eq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.join.exact import pick_evenly
from indexes.store import Store
from indexes.vectors.segments import cosines
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.embed.embedder import Embedder, embed
from pipeline.scan import SourceFile, is_unchanged

MIN_REEMBED_SCORE = 0.999  # float16 and the batch that a picture was in move its vector by less than this (measured: .9999)


@dataclass(frozen=True)
class AuditResult:
    """A photo that was embedded again, and the cosine of its vector with the stored one."""

    path: str
    score: float

    @property
    def is_unchanged(self) -> bool:
        """Whether that is what the store should hold."""
        return self.score >= MIN_REEMBED_SCORE


def sample_images(store: Store, count: int) -> list[int]:
    """Up to `count` images that photos of the store show, spread over it."""
    images = store.catalog.images.list_in_use()
    return [images[row] for row in pick_evenly(len(images), count)]


def reembed(store: Store, embedder: Embedder, images: Sequence[int]) -> Iterator[AuditResult]:
    """Embed photos of `images` again; those that changed, are away or cannot be read are passed over, as are pictures without features.

    Raises SpaceMismatch for an embedder of another space than the store's, and Unanswered where a service stops answering.
    """
    store.require_space(embedder.space)
    with DecoderPool(1) as decoders:
        pictures = _decode_stored_images(store, embedder, decoders, images)
        while some := list(islice(pictures, embedder.batch_size)):
            again = embed(embedder, [view for _, view, _ in some]).astype(np.float16)
            scores = cosines(again, np.stack([stored for _, _, stored in some]))
            yield from (
                AuditResult(path, score)
                for (path, _, _), score in zip(some, scores.tolist(), strict=True)
            )


def _decode_stored_images(
    store: Store, embedder: Embedder, decoders: DecoderPool, images: Sequence[int]
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.floating[Any]]]]:
    """The path and the pixels of a photo of each image, and the vector that the store has of it."""
    for id_, image in store.catalog.images.get(images):
        stored = store.get_vectors([id_]).get(id_)
        wanted = partial(eq, image.hash)  # a file may have been changed behind its times
        for known in store.catalog.files.find_of_images([id_]) if stored is not None else ():
            decoded = (
                decoders.decode(SourceFile(known.path, known.stat), embedder.preprocess, wanted)
                if is_unchanged(known)
                else None
            )
            if isinstance(decoded, Decoded) and stored is not None:
                yield known.path, decoded.pixels, stored
                break
