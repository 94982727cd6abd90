"""Whether photos still give the vectors that the store has of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from indexes import Known, Store, cosines
from pipeline.decode import Decoded
from pipeline.decoders import Decoders
from pipeline.embedder import Embedder, embed
from pipeline.errors import TooManyCalls
from pipeline.scan import SourceFile, stat_of

SAME = 0.999  # float16 and the batch that a picture was in move its vector by less than this (measured: .9999)


@dataclass(frozen=True)
class Audited:
    """A photo that was embedded again, and the cosine of its vector with the stored one."""

    path: str
    score: float

    @property
    def same(self) -> bool:
        """Whether that is what the store should hold."""
        return self.score >= SAME


def reembed(store: Store, embedder: Embedder, count: int) -> Iterator[Audited]:
    """Embed up to `count` stored photos again, spread over the store; those that changed, are away or cannot be read are passed over.

    Raises TooManyCalls where that costs money.
    """
    if calls := embedder.calls(1) * count:
        raise TooManyCalls(f"{embedder.name} would take {calls:,} paid requests for {count:,} photos; check without --sample")
    images = store.catalog.live()
    with Decoders(1) as decoders:
        yield from _reembedded(store, embedder, decoders, images, count)


def _reembedded(store: Store, embedder: Embedder, decoders: Decoders, images: Sequence[int], count: int) -> Iterator[Audited]:
    for image in [images[int(at)] for at in np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))]:
        stored = store.vectors([image]).get(image)
        for known in store.catalog.files_of([image]) if stored is not None else ():
            decoded = decoders.decode(SourceFile(known.path, known.stat), embedder.view) if untouched(known) else None
            if isinstance(decoded, Decoded):
                again = embed(embedder, [decoded.view]).astype(np.float16)
                yield Audited(known.path, float(cosines(again, np.asarray([stored]))[0]))
                break


def untouched(known: Known) -> bool:
    """Whether a file is there and can be taken for what it was when it was read."""
    try:
        status = os.stat(known.path)  # noqa: PTH116 - a path that may be no UTF-8
    except OSError:
        return False
    return stat_of(status).unchanged(known.stat)
