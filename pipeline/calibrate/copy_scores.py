"""Make synthetic copies of stored images and score them as a query would."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from indexes.caches.thumbnails import Thumbnail
from indexes.records import Image
from indexes.store import Store
from indexes.vectors.scores import compute_cosines
from pipeline.calibrate.measurement import ScoredCopy
from pipeline.calibrate.synthetic_copies import EDITS
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from pipeline.embed.crop_matches import is_crop_match
from pipeline.embed.crops import embed_crops
from pipeline.embed.embedder import Embedder, embed_all
from pipeline.scan import SourceFile
from pipeline.thumbnails import Thumbnails, decode_thumbnail, encode_thumbnail, read_images
from pipeline.verify.features import has_current_format
from pipeline.verify.inputs import VerifyInput, build_verify_input, load_features
from pipeline.verify.pool import VerifierPool
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict

# The resolution that copies are made from.
COPY_SOURCE = Preprocess(1024, "within")
COPY_JPEG_QUALITY = 85
# The shorter side of an image that copies are made of; smaller ones have too little texture.
MIN_SOURCE_SIDE_PX = 64


def make_copies(
    store: Store, decoders: DecoderPool, image_ids: Sequence[int], folder: Path
) -> Iterator[tuple[int, dict[str, Path]]]:
    """Write a copy of each image by each edit to `folder`; yield the image id and the files.

    The files, keyed by edit, are overwritten by the next image. Edits that need a background get
    the image before, and the first one gets a fractal. Skips images that are not readable or too
    small. Edits are seeded by the image hash and the edit.
    """
    background = PillowImage.effect_mandelbrot((640, 480), (-2.0, -1.5, 1.0, 1.5), 50)
    background = background.convert("RGB")
    images = dict(store.catalog.images.get(image_ids))
    files = {kind: folder / f"{number:02}.jpg" for number, kind in enumerate(EDITS)}
    for image_id, result in read_images(store, decoders, images, COPY_SOURCE):
        if not isinstance(result, Decoded) or min(result.pixels.shape[:2]) < MIN_SOURCE_SIDE_PX:
            continue
        source = PillowImage.fromarray(result.pixels)
        for kind, edit in EDITS.items():
            rng = random.Random(f"{images[image_id].hash.hex()} {kind}")
            copy = edit(source, background, rng)
            copy.save(files[kind], quality=COPY_JPEG_QUALITY)
        background = source
        yield image_id, files


@dataclass(frozen=True)
class _Copy:
    """A decoded copy with its thumbnail and features."""

    image: Image
    thumbnail: Thumbnail


@dataclass(frozen=True)
class _EmbeddedImage:
    """An image with the JPEG of its thumbnail and its vector (dim,)."""

    image: Image
    jpeg: bytes
    vector: NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CopyScorer:
    """Scores copies of stored images by embedding and by verification.

    `crop_score` is the score of a copy that matches only by crops; None if the store compares no
    crops.
    """

    store: Store
    embedder: Embedder
    decoders: DecoderPool
    thumbnails: Thumbnails
    verifiers: VerifierPool
    crop_score: float | None

    def score(self, image_id: int, files: Mapping[str, Path]) -> list[ScoredCopy]:
        """Score the copies of an image, keyed by edit.

        Returns an empty list if the image or one of its copies cannot be embedded or verified.
        """
        originals, _ = load_features(self.thumbnails, [image_id], self.verifiers.extract_features)
        vectors = self.store.search.get_vectors([image_id])
        if image_id not in originals or image_id not in vectors:
            return []
        sources = [SourceFile(str(path)) for path in files.values()]
        inputs = self._decode(sources, self.embedder.preprocess)
        copies = self._prepare(sources)
        if inputs is None or copies is None:
            return []
        image, thumbnail = originals[image_id]
        vector = vectors[image_id].astype(np.float16)
        copy_vectors = embed_all(self.embedder, [decoded.pixels for decoded in inputs])
        copy_vectors = copy_vectors.astype(np.float16)
        scores = compute_cosines(np.broadcast_to(vector, copy_vectors.shape), copy_vectors)
        scores = scores.astype(np.float64)
        agreeing_shares = self._verify(build_verify_input(image, thumbnail), copies)
        scored = [
            ScoredCopy(kind, float(score), agreeing_share)
            for kind, score, agreeing_share in zip(files, scores, agreeing_shares, strict=True)
        ]
        embedded_copies = [
            _EmbeddedImage(copy.image, copy.thumbnail.jpeg, copy_vector)
            for copy, copy_vector in zip(copies, copy_vectors, strict=True)
        ]
        original = _EmbeddedImage(image, thumbnail.jpeg, vector)
        return self._apply_crop_score(original, embedded_copies, scored)

    def _apply_crop_score(
        self,
        original: _EmbeddedImage,
        copies: Sequence[_EmbeddedImage],
        scored: list[ScoredCopy],
    ) -> list[ScoredCopy]:
        """Raise the score of accepted copies below `crop_score` that match by crops."""
        crop_score = self.crop_score
        if crop_score is None:
            return scored
        far = [
            index
            for index, copy in enumerate(scored)
            if copy.score < crop_score and copy.agreeing_share is not None
        ]
        if not far:
            return scored
        matches = _match_by_crops(self.embedder, original, [copies[index] for index in far])
        raised = list(scored)
        for index in np.array(far)[matches]:
            raised[index] = replace(scored[index], score=crop_score)
        return raised

    def _decode(
        self, sources: Sequence[SourceFile], preprocess: Preprocess
    ) -> list[Decoded] | None:
        """Decode files; None if one cannot be decoded."""
        results = self.decoders.stream(sources, preprocess)
        decoded = [result for result in results if isinstance(result, Decoded)]
        return decoded if len(decoded) == len(sources) else None

    def _prepare(self, sources: Sequence[SourceFile]) -> list[_Copy] | None:
        """Decode files for verification; None if one cannot be decoded or has no features."""
        decoded = self._decode(sources, VERIFY_INPUT)
        if decoded is None:
            return None
        jpegs = [encode_thumbnail(result.pixels) for result in decoded]
        features = [features or b"" for features in self.verifiers.extract_features(jpegs)]
        if not all(map(has_current_format, features)):
            return None
        return [
            _Copy(result.image, Thumbnail(jpeg, features_of_copy))
            for result, jpeg, features_of_copy in zip(decoded, jpegs, features, strict=True)
        ]

    def _verify(self, original: VerifyInput, copies: Sequence[_Copy]) -> list[float | None]:
        """Return the share of tiles that agree for each copy; None if it is not accepted."""
        verdicts = self.verifiers.verify(
            [(original, build_verify_input(copy.image, copy.thumbnail)) for copy in copies]
        )
        return [
            verdict.agreeing_share if verdict and _is_accepted(verdict) else None
            for verdict in verdicts
        ]


def _is_accepted(verdict: Verdict) -> bool:
    return verdict.relation in (Relation.SAME_PICTURE, Relation.DERIVED)


def _match_by_crops(
    embedder: Embedder, original: _EmbeddedImage, copies: Sequence[_EmbeddedImage]
) -> NDArray[np.bool_]:
    """Return, for each copy, whether it matches the original by crops or regions."""
    own_crops, *copies_crops = embed_crops(
        [(embedded.image, decode_thumbnail(embedded.jpeg)) for embedded in (original, *copies)],
        embedder,
    )
    return np.array(
        [
            is_crop_match((original.vector, own_crops), (copy.vector, crops), embedder.space)
            for copy, crops in zip(copies, copies_crops, strict=True)
        ]
    )
