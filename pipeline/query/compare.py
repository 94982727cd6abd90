"""A few files against each other, without a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexes.records import Image
from indexes.vectors.segments import cosines
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.grouping.cluster import exact_relation
from pipeline.query.matches import resolve_source
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.verify.features import ImageFeatures


@dataclass(frozen=True)
class Comparison:
    """A few files against each other: the cosine of each pair as (n, n) float64, 1 on the diagonal, NaN beside a file that failed; the
    pictures that were looked at, rgb (height, width, 3), and what they say of each pair.
    """

    files: tuple[str, ...]
    images: tuple[Image | Failure, ...]
    scores: NDArray[np.float64]
    thumbnail_pixels: dict[int, NDArray[np.uint8]]
    verdicts: dict[tuple[int, int], Verdict]

    def get_relation(self, first: int, second: int, threshold: float) -> Relation | None:
        """What two files are to each other; SIMILAR where pixels cannot tell and they reach the threshold. None when one failed."""
        left, right = self.images[first], self.images[second]
        if isinstance(left, Failure) or isinstance(right, Failure):
            return None
        if found := exact_relation(left, right):
            return found
        evidence = self.verdicts[first, second]
        if left.is_featureless or right.is_featureless:  # as in groups: nothing but exact copies
            return Relation.NOT_VERIFIABLE
        return (
            Relation.SIMILAR
            if evidence.relation == Relation.NOT_VERIFIABLE
            and self.scores[first, second] >= threshold
            else evidence.relation
        )

    def iter_pairs(self) -> Iterator[tuple[int, int]]:
        """The numbers of each pair of files, once."""
        return combinations(range(len(self.files)), 2)

    def list_failures(self) -> list[tuple[str, Failure]]:
        """Files without a picture."""
        return [
            (file, image)
            for file, image in zip(self.files, self.images, strict=True)
            if isinstance(image, Failure)
        ]


def compare(files: Sequence[str], embedder: Embedder) -> Comparison:
    """The cosine of each pair of `files`, as a store would score them, and what their pixels say. No store is needed or written to."""
    from pipeline.thumbnails import decode_thumbnail, encode_thumbnail
    from pipeline.verify.features import features_from_pixels
    from pipeline.verify.upscaling import (
        CENTER_FULL_RES,
        UpscaleCheck,
        spectrum_from_decoded,
    )
    from pipeline.verify.verify import verify

    images: list[Image | Failure] = []
    views: list[NDArray[np.uint8]] = []
    hashes: dict[int, bytes] = {}  # of the files that are pictures, by their number
    pictures: dict[int, NDArray[np.uint8]] = {}
    sketches: dict[int, ImageFeatures] = {}
    found = [
        resolve_source(file) for file in files
    ]  # with their sizes: large ones are held one at a time
    sources = [one.source if isinstance(one, Failure) else one for one in found]
    with DecoderPool() as decoders:
        for number, decoded in enumerate(decoders.stream(sources, embedder.preprocess)):
            assert not isinstance(decoded, AlreadyStored)  # it was not told of any known content
            if isinstance(decoded, Failure):
                images.append(decoded)
            else:
                images.append(decoded.image)
                hashes[number] = decoded.image.hash
                views.append(decoded.pixels)
        at = list(hashes)
        for number, decoded in zip(
            at, decoders.stream([sources[number] for number in at], VERIFY_INPUT), strict=True
        ):
            if (
                isinstance(decoded, Decoded) and decoded.image.hash == hashes[number]
            ):  # it has not changed meanwhile
                pictures[number] = decode_thumbnail(encode_thumbnail(decoded.pixels))
                sketches[number] = features_from_pixels(
                    pictures[number], (decoded.image.width, decoded.image.height)
                )
        evidence = {
            (one, other): verify(sketches[one], sketches[other])
            if one in sketches and other in sketches
            else Verdict(Relation.NOT_VERIFIABLE)
            for one, other in combinations(at, 2)
        }
        check = UpscaleCheck(evidence)
        larger = sorted(check.larger_images)
        stream = decoders.stream([sources[number] for number in larger], CENTER_FULL_RES)
        spectra = {
            number: spectrum_from_decoded(decoded)
            for number, decoded in zip(larger, stream, strict=True)
            if isinstance(decoded, Decoded) and decoded.image.hash == hashes[number]
        }
        evidence = check.apply(spectra)
    stored = embed_all(embedder, views).astype(np.float16)
    scores = np.full((len(files), len(files)), np.nan)
    for row, number in zip(stored, at, strict=True):
        scores[number, at] = cosines(np.broadcast_to(row, stored.shape), stored)
    return Comparison(tuple(files), tuple(images), scores, pictures, evidence)
