"""Comparison of a few files with each other, without a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexes.metadata import NO_METADATA, Frames
from indexes.records import Image
from indexes.vectors.scores import compute_cosines
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.grouping.exposures import ExposureDifference, NamedMetadata, compare_files
from pipeline.grouping.frames import find_part_side, relate_frames
from pipeline.grouping.match import decide_relation, get_exact_relation
from pipeline.query.files import resolve_source
from pipeline.query.reread import reread_images, reread_thumbnails
from pipeline.scan import SourceFile
from pipeline.verify.relation import Relation, Side
from pipeline.verify.verdict import Verdict

if TYPE_CHECKING:
    from pipeline.verify.verify import TileMasks


@dataclass(frozen=True)
class Comparison:
    """Scores and verdicts on each pair of a few files; a file is known by its position.

    `scores` are cosines, (n, n) float64, with 1 on the diagonal and NaN for a file that failed.
    `thumbnail_pixels`, uint8 RGB (height, width, 3), are those that were verified. `verdicts` are
    by pair, the lower position first; there is one for each two files that did not fail. `tiles`
    are those of each pair whose tiles were compared.
    """

    files: tuple[str, ...]
    images: tuple[Image | Failure, ...]
    scores: NDArray[np.float64]
    thumbnail_pixels: dict[int, NDArray[np.uint8]]
    verdicts: dict[tuple[int, int], Verdict]
    tiles: dict[tuple[int, int], TileMasks]

    def get_relation(self, first: int, second: int, threshold: float) -> Relation | None:
        """Return the relation of two files, `first` the lower position; None if one failed.

        A pair that pixels cannot decide is SIMILAR if its score is >= `threshold`, unless one of
        the images is featureless; one in doubt by the judge is SIMILAR at any score.
        """
        left, right = self.images[first], self.images[second]
        if isinstance(left, Failure) or isinstance(right, Failure):
            return None
        if exact := get_exact_relation(left, right):
            return exact
        if self.is_featureless(first, second):  # as in groups: exact copies alone count
            return Relation.NOT_VERIFIABLE
        verdict, score = self.verdicts[first, second], self.scores[first, second]
        relation = decide_relation(
            verdict,
            score,
            threshold,
            exposure_difference=self.find_exposure_difference(first, second),
        )
        if verdict.relation == Relation.NOT_VERIFIABLE and relation == Relation.UNRELATED:
            relation = Relation.NOT_VERIFIABLE  # which says more here, where nothing is filtered
        return relate_frames(relation, self.get_frames(first), self.get_frames(second))

    def is_below(self, first: int, second: int, min_score: float | None) -> bool:
        """Tell if a pair is left out: its score is < `min_score`, and it is no exact copy.

        None leaves out nothing; a file that failed has no pairs to leave out.
        """
        left, right = self.images[first], self.images[second]
        if min_score is None or isinstance(left, Failure) or isinstance(right, Failure):
            return False
        is_exact = get_exact_relation(left, right) is not None
        return not is_exact and bool(self.scores[first, second] < min_score)

    def is_featureless(self, first: int, second: int) -> bool:
        """Tell if one of two files is too uniform to be compared by its pixels."""
        pair = self.images[first], self.images[second]
        return any(isinstance(image, Image) and image.is_featureless for image in pair)

    def find_part_side(self, first: int, second: int) -> Side | None:
        """Return which of two files that are related as part and whole is the part."""
        left, right = self.get_frames(first), self.get_frames(second)
        return find_part_side(left, right) if left and right else None

    def get_frames(self, position: int) -> Frames | None:
        """Return the frames of a file; None if it failed."""
        image = self.images[position]
        return None if isinstance(image, Failure) else (image.metadata or NO_METADATA).frames

    def find_exposure_difference(self, first: int, second: int) -> ExposureDifference | None:
        """Return what tells by metadata and names that two files are two exposures, or None."""
        named = [
            NamedMetadata(image.metadata or NO_METADATA, [self.files[position]])
            for position in (first, second)
            if isinstance(image := self.images[position], Image)
        ]
        return compare_files(*named) if len(named) == 2 else None

    def iter_pairs(self) -> Iterator[tuple[int, int]]:
        """Yield the positions of each pair of files once, the lower one first."""
        return combinations(range(len(self.files)), 2)

    def list_failures(self) -> list[tuple[str, Failure]]:
        """Return (file, failure) of each file that has no image."""
        return [
            (file, image)
            for file, image in zip(self.files, self.images, strict=True)
            if isinstance(image, Failure)
        ]


def compare(files: Sequence[str], embedder: Embedder) -> Comparison:
    """Score and verify each pair of files, as a store would. No store is needed or written to."""
    from pipeline.thumbnails import decode_thumbnail

    # The sizes matter: large files are held in memory one at a time.
    resolved = [resolve_source(file) for file in files]
    sources = [item.source if isinstance(item, Failure) else item for item in resolved]
    with DecoderPool() as decoders:
        results = list(_decode_all(sources, embedder.preprocess, decoders))
        images = {
            position: result.image
            for position, result in enumerate(results)
            if isinstance(result, Decoded)
        }
        identified = {position: (sources[position], image) for position, image in images.items()}
        thumbnails = reread_thumbnails(identified, decoders)
        verdicts, tiles = verify_pairs(images, thumbnails)
        verdicts = _check_upscaling(verdicts, identified, decoders)
    inputs = [result.pixels for result in results if isinstance(result, Decoded)]
    stored = embed_all(embedder, inputs).astype(np.float16)
    scores = np.full((len(files), len(files)), np.nan)
    for vector, position in zip(stored, images, strict=True):
        scores[position, list(images)] = compute_cosines(
            np.broadcast_to(vector, stored.shape), stored
        )
    return Comparison(
        tuple(files),
        tuple(result.image if isinstance(result, Decoded) else result for result in results),
        scores,
        {position: decode_thumbnail(jpeg) for position, jpeg in thumbnails.items()},
        verdicts,
        tiles,
    )


def _decode_all(
    sources: Sequence[SourceFile], preprocess: Preprocess, decoders: DecoderPool
) -> Iterator[Decoded | Failure]:
    for result in decoders.stream(sources, preprocess):
        assert not isinstance(result, AlreadyStored)  # only `is_wanted` makes one
        yield result


def verify_pairs(
    images: Mapping[int, Image], thumbnails: Mapping[int, bytes]
) -> tuple[dict[tuple[int, int], Verdict], dict[tuple[int, int], TileMasks]]:
    """Verify each pair of images; NOT_VERIFIABLE if one has no thumbnail.

    The second dict has the masks of the pairs whose tiles were compared.
    """
    from pipeline.verify.inputs import build_features_from_jpeg
    from pipeline.verify.verify import verify_tiles

    features = {
        position: build_features_from_jpeg(jpeg, (images[position].width, images[position].height))
        for position, jpeg in thumbnails.items()
    }
    verdicts, tiles = {}, {}
    for first, second in combinations(images, 2):
        if first in features and second in features:
            verdict, masks = verify_tiles(features[first], features[second])
            verdicts[first, second] = verdict
            if masks is not None:
                tiles[first, second] = masks
        else:
            verdicts[first, second] = Verdict(Relation.NOT_VERIFIABLE)
    return verdicts, tiles


def _check_upscaling(
    verdicts: Mapping[tuple[int, int], Verdict],
    files: Mapping[int, tuple[SourceFile, Image]],
    decoders: DecoderPool,
) -> dict[tuple[int, int], Verdict]:
    """Check the larger image of each copy for upscaling."""
    from pipeline.verify.upscaling import (
        CENTER_FULL_RES,
        UpscaleCheck,
        compute_spectra_from_decoded,
    )

    check = UpscaleCheck(verdicts)
    larger = {position: files[position] for position in sorted(check.larger_images)}
    spectra = {
        position: compute_spectra_from_decoded(decoded)
        for position, decoded in reread_images(larger, CENTER_FULL_RES, decoders)
    }
    return check.apply(spectra)
