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

from indexes import Store, cosines
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import Decoders
from pipeline.embed.embedder import Embedder, embed, is_agreed
from pipeline.errors import TooManyCalls
from pipeline.scan import SourceFile, untouched

UNMOVED = 0.999  # float16 and the batch that a picture was in move its vector by less than this (measured: .9999)


@dataclass(frozen=True)
class Audited:
    """A photo that was embedded again, and the cosine of its vector with the stored one."""

    path: str
    score: float

    @property
    def same(self) -> bool:
        """Whether that is what the store should hold."""
        return self.score >= UNMOVED


def sample(store: Store, count: int) -> list[int]:
    """Up to `count` images that photos of the store show, spread over it."""
    return spread(store.catalog.live(), count)


def spread(images: Sequence[int], count: int) -> list[int]:
    """Up to `count` of some images, evenly from the first to the last."""
    return [images[int(at)] for at in np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))]


def agreed(embedder: Embedder, photos: int, max_calls: int | None = None, yes: bool = False) -> int:
    """How many paid requests it takes at most to embed so many photos again. Raises TooManyCalls when nobody agreed to that: a part of a
    sample would answer another question than was asked.
    """
    calls = embedder.calls(photos)
    needed = f"{photos:,} photos take up to {calls:,} paid requests to {embedder.name}"
    if max_calls is not None and calls > max_calls:
        raise TooManyCalls(f"{needed}, and --max-calls allows {max_calls:,}, so none was made; name a smaller --sample, or a higher limit")
    if not is_agreed(calls, max_calls, yes):
        raise TooManyCalls(f"{needed}; say --yes to make them, or name a smaller --sample")
    return calls


def reembed(store: Store, embedder: Embedder, images: Sequence[int]) -> Iterator[Audited]:
    """Embed photos of `images` again; those that changed, are away or cannot be read are passed over, as are pictures without features.

    Raises SpaceMismatch for an embedder of another space than the store's, and Unanswered where a service stops answering.
    """
    store.require(embedder.space)
    with Decoders(1) as decoders:
        pictures = _pictures(store, embedder, decoders, images)
        while some := list(islice(pictures, embedder.batch)):
            again = embed(embedder, [view for _, view, _ in some]).astype(np.float16)
            scores = cosines(again, np.stack([stored for _, _, stored in some]))
            yield from (Audited(path, score) for (path, _, _), score in zip(some, scores.tolist(), strict=True))


def _pictures(
    store: Store, embedder: Embedder, decoders: Decoders, images: Sequence[int]
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.floating[Any]]]]:
    """The path and the pixels of a photo of each image, and the vector that the store has of it."""
    for id_, image in store.catalog.images(images):
        stored = store.vectors([id_]).get(id_)
        wanted = partial(eq, image.hash)  # a file may have been changed behind its times
        for known in store.catalog.files_of([id_]) if stored is not None else ():
            decoded = decoders.decode(SourceFile(known.path, known.stat), embedder.view, wanted) if untouched(known) else None
            if isinstance(decoded, Decoded) and stored is not None:
                yield known.path, decoded.view, stored
                break
