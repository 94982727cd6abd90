"""The size and shape that an embedder, or verification, needs an image in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexes.records import Image

# Part of every vector space. A change here, in image.py, or in readers or pixels that
# changes pixels needs a new number.
PREPROCESS_VERSION = "decode-2"


class DecodedImage(NamedTuple):
    """The record that the store keeps of an image, and its pixels for the embedder.

    `pixels`, and those of the thumbnail if there is one, are uint8 RGB (height, width, 3).
    """

    image: Image
    pixels: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing that makes of an image an embedder's input of `size` x `size` pixels.

    `fit` is one of

    - squash: resize both sides to `size`;
    - shortest: resize the short side to `size`, then crop the center;
    - longest: resize the long side to `size`, then pad with `fill` gray;
    - middle: crop the center, at most `size` x `size`, without resizing;
    - within: keep the shape, resize the long side to at most `size`, never enlarge.

    `resample` names one of Pillow's filters. With `coarse`, a JPEG is decoded at about `size`
    already, which takes half the time. With `with_thumbnail`, a thumbnail at VERIFY_INPUT is made
    of the same decoded pixels, unless another reduction would be decoded for it.
    """

    size: int
    fit: str = "squash"
    resample: str = "bicubic"
    fill: int = 0
    coarse: bool = False
    with_thumbnail: bool = False

    def __str__(self) -> str:
        """Return the preprocessing version that a space records."""
        fill = f" fill {self.fill}" if self.fit == "longest" else ""  # the others never pad
        return f"{PREPROCESS_VERSION} {self.fit}-{self.size} {self.resample}{fill}"


VERIFY_INPUT = Preprocess(448, "within", coarse=True)  # thumbnails, from which pairs are verified
