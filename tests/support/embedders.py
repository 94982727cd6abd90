"""Embedders that count images or paid requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import ServiceUnavailable, load_embedder


class CountingEmbedder:
    """An embedder, the default one unless named, that counts the images it embeds."""

    def __init__(self, model: str | None = None) -> None:
        self._real = load_embedder(model) if model else load_embedder()
        self.name, self.space, self.preprocess = (
            self._real.name,
            self._real.space,
            self._real.preprocess,
        )
        self.embedded, self.batch_size = 0, 32

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.embedded += len(inputs)
        return self._real.encode(inputs)

    def count_paid_calls(self, image_count: int) -> int:
        return 0


class PaidEmbedder(CountingEmbedder):
    """An embedder with a paid request for each image.

    It stops answering after `patience` images, even in the middle of a batch. `answered` counts
    the answers for each input.
    """

    def __init__(self, patience: int, model: str | None = None) -> None:
        super().__init__(model)
        self.patience, self.answered = patience, Counter[bytes]()

    def count_paid_calls(self, image_count: int) -> int:
        return image_count

    def encode(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        answered = inputs[: self.patience]
        self.patience -= len(answered)
        self.answered.update(pixels.tobytes() for pixels in answered)
        rows = super().encode(answered) if answered else np.empty((0, self.space.dim), np.float32)
        if len(answered) < len(inputs):
            raise ServiceUnavailable("it does not answer", dict(enumerate(rows)))
        return rows
