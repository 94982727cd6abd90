"""Stages of an ingest that compute each result once, for benchmarks that ingest few contents often.

Decoding, embedding and verifying are pure functions of contents, so their results are cached. What
chooses the images and pairs that they run on is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pipeline import regions
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import DecodedImage, Preprocess
from pipeline.decode.read import Rejected
from pipeline.embed import crops
from pipeline.embed.embedder import Embedder
from pipeline.regions import Box
from pipeline.verify.inputs import VerifyInput
from pipeline.verify.pool import VerifierPool
from pipeline.verify.verdict import Verdict


@dataclass
class StageCache:
    """The results that were computed, by all that they depend on."""

    decoded: dict[tuple[bytes, Preprocess, bool], DecodedImage | Rejected] = field(
        default_factory=dict
    )
    rows: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)
    features: dict[bytes, bytes | None] = field(default_factory=dict)
    verdicts: dict[tuple[VerifyInput, VerifyInput], Verdict | None] = field(default_factory=dict)
    regions: dict[bytes, tuple[Box, ...]] = field(default_factory=dict)
    crops: dict[tuple[bytes, tuple[Box, ...], Preprocess], list[tuple[NDArray[np.uint8], bool]]] = (
        field(default_factory=dict)
    )


class CachingEmbedder:
    """An embedder that computes the row of equal pixels once."""

    def __init__(self, embedder: Embedder, cache: StageCache) -> None:
        """Embed what `cache` lacks by `embedder`."""
        self._embedder, self._cache = embedder, cache
        self.name, self.space = embedder.name, embedder.space
        self.preprocess, self.batch_size = embedder.preprocess, embedder.batch_size

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the raw row of each image (height, width, 3), in order: (n, dim)."""
        rows = self._cache.rows
        keys = [_hash_pixels(pixels) for pixels in inputs]
        new = {key: pixels for key, pixels in zip(keys, inputs, strict=True) if key not in rows}
        if new:
            rows |= zip(new, self._embedder.encode(list(new.values())), strict=True)
        return np.stack([rows[key] for key in keys])

    def count_paid_calls(self, image_count: int) -> int:
        """Count the paid requests of the embedder itself."""
        return self._embedder.count_paid_calls(image_count)


class CachingDecoderPool(DecoderPool):
    """A pool that decodes a content once for each preprocessing."""

    def __init__(self, cache: StageCache, *args: Any) -> None:
        """Decode what `cache` lacks."""
        super().__init__(*args)
        self._cache = cache

    def start(self, file_count: int) -> None:
        """Start nothing before a worker is needed."""

    def _decode_in_worker(
        self, data: bytes, digest: bytes, preprocess: Preprocess, is_raw: bool
    ) -> DecodedImage:
        key = digest, preprocess, is_raw
        if key not in self._cache.decoded:
            try:
                answer: DecodedImage | Rejected = super()._decode_in_worker(
                    data, digest, preprocess, is_raw
                )
            except Rejected as rejected:
                answer = rejected
            self._cache.decoded[key] = answer
        answer = self._cache.decoded[key]
        if isinstance(answer, Rejected):
            raise answer
        return answer


class CachingVerifierPool(VerifierPool):
    """A pool that extracts features and verifies a pair once."""

    def __init__(self, cache: StageCache, *args: Any) -> None:
        """Verify what `cache` lacks."""
        super().__init__(*args)
        self._cache = cache

    def extract_features(self, jpegs: Sequence[bytes]) -> list[bytes | None]:
        """Extract the features of thumbnails as the pool does."""
        features = self._cache.features
        new = list(dict.fromkeys(jpeg for jpeg in jpegs if jpeg not in features))
        features.update(zip(new, super().extract_features(new), strict=True))
        return [features[jpeg] for jpeg in jpegs]

    def submit_pairs(
        self, pairs: Sequence[tuple[VerifyInput, VerifyInput]]
    ) -> Callable[[], list[Verdict | None]]:
        """Start to verify pairs as the pool does."""
        verdicts = self._cache.verdicts
        new = [pair for pair in pairs if pair not in verdicts]
        wait = super().submit_pairs(new)

        def wait_for_all() -> list[Verdict | None]:
            verdicts.update(zip(new, wait(), strict=True))
            return [verdicts[pair] for pair in pairs]

        return wait_for_all


def _hash_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Hash pixels (height, width, 3) and their shape."""
    return blake3(pixels.tobytes()).digest() + str(pixels.shape).encode()


@contextmanager
def cache_stages(cache: StageCache) -> Iterator[None]:
    """Have all ingests of this process decode, cut and verify by `cache`."""

    def find_regions(pixels: NDArray[np.uint8]) -> tuple[Box, ...]:
        key = _hash_pixels(pixels)
        if key not in cache.regions:
            cache.regions[key] = regions.find_regions(pixels)
        return cache.regions[key]

    def crop_image(
        pixels: NDArray[np.uint8], boxes: Iterable[Box], preprocess: Preprocess
    ) -> list[tuple[NDArray[np.uint8], bool]]:
        key = _hash_pixels(pixels), tuple(boxes), preprocess
        if key not in cache.crops:
            cache.crops[key] = cut(pixels, key[1], preprocess)
        return cache.crops[key]

    cut = crops.crop_image
    with (
        patch("pipeline.ingest.ingest.DecoderPool", partial(CachingDecoderPool, cache)),
        patch("pipeline.ingest.verify_pairs.VerifierPool", partial(CachingVerifierPool, cache)),
        patch("pipeline.embed.crops.find_regions", find_regions),
        patch("pipeline.embed.crops.crop_image", crop_image),
    ):
        yield
