"""Relations of the two pictures of a made pair, and the functions that make them."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum
from functools import partial

from PIL import Image

from pipeline.calibrate.synthetic_copies import Edit


class MadeTruth(StrEnum):
    """Relation of the two pictures of a pair.

    COPY: one was made from the other, or both from one. OTHER: another content, often in one
    template. OVERLAP: each shows a part that the other lacks.
    """

    COPY = "copy"
    OTHER = "other"
    OVERLAP = "overlap"


MadeImages = tuple[MadeTruth, Image.Image, Image.Image]

# From two photos that differ: the truth and the two images, before they are encoded again.
MakeImages = Callable[[Image.Image, Image.Image, random.Random], MadeImages]


def apply_edit(
    photo: Image.Image, other: Image.Image, rng: random.Random, edit: Edit
) -> MadeImages:
    """Pair a photo with its edited copy."""
    return MadeTruth.COPY, photo, edit(photo, other, rng)


def adapt_edits(edits: dict[str, Edit]) -> dict[str, MakeImages]:
    """Turn the edits of a generator into makers of pairs."""
    return {kind: partial(apply_edit, edit=edit) for kind, edit in edits.items()}
