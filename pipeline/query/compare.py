"""A few files against each other, without a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexes import Image, cosines
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import Decoders
from pipeline.decode.preprocess import SIGHT
from pipeline.decode.read import Failure, Recognised
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.grouping.cluster import SIMILAR, exact
from pipeline.query.matches import listed
from pipeline.verify.verdict import SECOND, UNKNOWN, Evidence

if TYPE_CHECKING:
    from pipeline.verify.features import Sketch


@dataclass(frozen=True)
class Comparison:
    """A few files against each other: the cosine of each pair as (n, n) float64, 1 on the diagonal, NaN beside a file that failed; the
    pictures that were looked at, rgb (height, width, 3), and what they say of each pair.
    """

    files: tuple[str, ...]
    images: tuple[Image | Failure, ...]
    scores: NDArray[np.float64]
    pictures: dict[int, NDArray[np.uint8]]
    evidence: dict[tuple[int, int], Evidence]

    def relation(self, one: int, other: int, threshold: float) -> str | None:
        """What two files are to each other; SIMILAR where pixels cannot tell and they reach the threshold. None when one failed."""
        left, right = self.images[one], self.images[other]
        if isinstance(left, Failure) or isinstance(right, Failure):
            return None
        if found := exact(left, right):
            return found
        evidence = self.evidence[one, other]
        if left.featureless or right.featureless:  # as in groups: nothing but exact copies
            return UNKNOWN
        return SIMILAR if evidence.relation == UNKNOWN and self.scores[one, other] >= threshold else evidence.relation

    def pairs(self) -> Iterator[tuple[int, int]]:
        """The numbers of each pair of files, once."""
        return combinations(range(len(self.files)), 2)

    def failures(self) -> list[tuple[str, Failure]]:
        """Files without a picture."""
        return [(file, image) for file, image in zip(self.files, self.images, strict=True) if isinstance(image, Failure)]


def compare(files: Sequence[str], embedder: Embedder) -> Comparison:
    """The cosine of each pair of `files`, as a store would score them, and what their pixels say. No store is needed or written to."""
    from pipeline.thumbnails import shown, thumb
    from pipeline.verify.features import sketch
    from pipeline.verify.upscaling import CLOSE, detailed, larger, seen
    from pipeline.verify.verify import verify

    images: list[Image | Failure] = []
    views: list[NDArray[np.uint8]] = []
    hashes: dict[int, bytes] = {}  # of the files that are pictures, by their number
    pictures: dict[int, NDArray[np.uint8]] = {}
    sketches: dict[int, Sketch] = {}
    found = [listed(file) for file in files]  # with their sizes: large ones are held one at a time
    sources = [one.source if isinstance(one, Failure) else one for one in found]
    with Decoders() as decoders:
        for number, decoded in enumerate(decoders.stream(sources, embedder.view)):
            assert not isinstance(decoded, Recognised)  # it was not told of any known content
            if isinstance(decoded, Failure):
                images.append(decoded)
            else:
                images.append(decoded.image)
                hashes[number] = decoded.image.hash
                views.append(decoded.view)
        at = list(hashes)
        for number, decoded in zip(at, decoders.stream([sources[number] for number in at], SIGHT), strict=True):
            if isinstance(decoded, Decoded) and decoded.image.hash == hashes[number]:  # it has not changed meanwhile
                pictures[number] = shown(thumb(decoded.view))
                sketches[number] = sketch(pictures[number], (decoded.image.width, decoded.image.height))
        evidence = {
            (one, other): verify(sketches[one], sketches[other]) if one in sketches and other in sketches else Evidence(UNKNOWN)
            for one, other in combinations(at, 2)
        }
        sides = {pair: side for pair, one in evidence.items() if (side := larger(one))}
        close = sorted({pair[side == SECOND] for pair, side in sides.items()})
        for number, decoded in zip(close, decoders.stream([sources[number] for number in close], CLOSE), strict=True):
            if isinstance(decoded, Decoded) and decoded.image.hash == hashes[number]:
                detail = seen(decoded.view, (decoded.image.width, decoded.image.height))
                evidence |= {pair: detailed(evidence[pair], side, detail) for pair, side in sides.items() if pair[side == SECOND] == number}
    stored = embed_all(embedder, views).astype(np.float16)
    scores = np.full((len(files), len(files)), np.nan)
    for row, number in zip(stored, at, strict=True):
        scores[number, at] = cosines(np.broadcast_to(row, stored.shape), stored)
    return Comparison(tuple(files), tuple(images), scores, pictures, evidence)
