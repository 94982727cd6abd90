"""Pairs of pictures with truth from many independent generators, to fit a judge of pairs.

Copies come from several generators, so that what is fitted on them is not fitted to one; so do
pairs that are no copies although they agree in many places. The second picture of a pair has been
encoded again, and often resized, as on its way through apps and websites.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from pipeline.calibrate.synthetic_copies import Edit
from scripts.generators import graphic, lettering, photo_edits, photographic, redaction

# Photos are shrunk to this; verification compares thumbnails of 448 pixels.
MAX_SIDE_PX = 960

# Encoders of apps and websites.
MIN_JPEG_QUALITY = 60
MAX_JPEG_QUALITY = 95

# Half of the altered pictures keep their size, the others shrink to this share or more.
MIN_SHRUNK_SHARE = 0.4

# A pair below this is a thumbnail with nothing to verify.
MIN_SIDE_PX = 96


class Truth(StrEnum):
    """Relation of the two pictures of a pair.

    COPY: one was made from the other. OTHER: another content, often in one template. OVERLAP:
    each shows a part that the other lacks.
    """

    COPY = "copy"
    OTHER = "other"
    OVERLAP = "overlap"


@dataclass(frozen=True)
class MadePair:
    """Two RGB images of a generator, `source`; `kind` is what it did."""

    source: str
    kind: str
    truth: Truth
    first: Image.Image
    second: Image.Image


# From two photos: the truth and the two images, before they are encoded again.
MakeImages = Callable[
    [Image.Image, Image.Image, random.Random], tuple[Truth, Image.Image, Image.Image]
]


def apply_edit(
    photo: Image.Image, other: Image.Image, rng: random.Random, edit: Edit
) -> tuple[Truth, Image.Image, Image.Image]:
    """Pair a photo with its edited copy."""
    return Truth.COPY, photo, edit(photo, other, rng)


def adapt_edits(edits: dict[str, Edit]) -> dict[str, MakeImages]:
    """Turn the edits of a generator into makers of pairs."""
    return {kind: partial(apply_edit, edit=edit) for kind, edit in edits.items()}


SOURCES: dict[str, dict[str, MakeImages]] = {
    "graphic": adapt_edits(graphic.EDITS),
    "photographic": adapt_edits(photographic.EDITS),
    "lettering": adapt_edits(lettering.EDITS),
    "redaction": adapt_edits(redaction.EDITS),
    "photo edits": adapt_edits(photo_edits.EDITS),
}


def load_photo(path: Path) -> Image.Image:
    """Load a photo upright as RGB, at most MAX_SIDE_PX a side."""
    with Image.open(path) as image:
        image.draft("RGB", (MAX_SIDE_PX, MAX_SIDE_PX))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if max(upright.size) > MAX_SIDE_PX:
        upright.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    return upright


def encode_again(image: Image.Image, rng: random.Random) -> Image.Image:
    """Shrink a picture in half of all cases, encode it as JPEG, and decode it."""
    share = rng.choice([1.0, rng.uniform(MIN_SHRUNK_SHARE, 1)])
    share = min(1.0, max(share, MIN_SIDE_PX / min(image.size)))
    if share < 1:
        size = round(image.width * share), round(image.height * share)
        resampling = rng.choice([Image.Resampling.LANCZOS, Image.Resampling.BILINEAR])
        image = image.resize(size, resampling)
    buffer = io.BytesIO()
    quality = rng.randint(MIN_JPEG_QUALITY, MAX_JPEG_QUALITY)
    image.save(buffer, "JPEG", quality=quality, subsampling=rng.choice([0, 2, 2]))
    return Image.open(buffer).convert("RGB")


def make_pair(photos: Sequence[Path], rng: random.Random, source: str, kind: str) -> MadePair:
    """Make a pair of a kind from two photos that `rng` draws."""
    photo, other = (load_photo(path) for path in rng.sample(photos, 2))
    truth, first, second = SOURCES[source][kind](photo, other, rng)
    return MadePair(source, kind, truth, first, encode_again(second, rng))


def make_pairs(
    photos: Sequence[Path], seed: int, count: int, sources: Collection[str] = ()
) -> Iterator[MadePair]:
    """Make `count` pairs from `photos`, two or more that all differ.

    The sources, all or those that are named, take turns, and so do the kinds of each. A pair
    depends on the photos, `seed`, the sources and its number only, not on `count`. Raises
    KeyError for a source that is unknown.
    """
    names = list(sources or SOURCES)
    kinds = {name: list(SOURCES[name]) for name in names}
    for name in names:
        random.Random(f"{seed} {name}").shuffle(kinds[name])
    for number in range(count):
        turn, index = divmod(number, len(names))
        source = names[index]
        kind = kinds[source][turn % len(kinds[source])]
        yield make_pair(photos, random.Random(f"{seed} {number} {source} {kind}"), source, kind)
