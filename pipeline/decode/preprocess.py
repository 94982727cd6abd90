"""What an embedder asks a picture to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.records import Image

PREPROCESS_VERSION = "decode-2"  # part of every space: a change here, in fit.py, picture.py or colour.py that moves pixels needs a new number

DecodedImage = tuple[
    Image, NDArray[np.uint8]
]  # what the store keeps of a picture, and its pixels for the embedder


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes an embedder's input: `size` x `size` pixels, by `fit`, resampled by `resample`.

    squash: both sides to `size`. shortest: the short side to `size`, then the middle cut out. longest: the long side to `size`, on
    `fill` grey. middle: what of it fits into `size` x `size`, as it is. within: its own shape, the long side at most `size`, never
    enlarged; `coarse`: from a JPEG that is decoded at about that size already, which takes half the time.
    """

    size: int
    fit: str = "squash"
    resample: str = "bicubic"
    fill: int = 0
    coarse: bool = False

    def __str__(self) -> str:
        """The view as it stands in a space's preprocessing version."""
        ground = f" fill {self.fill}" if self.fit == "longest" else ""  # the others show none
        return f"{PREPROCESS_VERSION} {self.fit}-{self.size} {self.resample}{ground}"


VERIFY_INPUT = Preprocess(448, "within", coarse=True)  # how pictures are looked at to be verified
