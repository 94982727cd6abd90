"""Pairs of pictures with truth from many independent generators, to fit a judge of pairs.

Copies come from several generators, so that a model does not learn the traces of one; so do pairs
that are no copies although they agree in many places. The second picture of a pair has been
encoded again, and often resized, as on its way through apps and websites.
"""

from __future__ import annotations

import io
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from scripts.generators import (
    graphic,
    lettering,
    neighbors,
    page_pairs,
    phone_copies,
    photo_edits,
    photographic,
    redaction,
    scrolled,
)
from scripts.generators.browser import is_available, render_layout
from scripts.generators.drawing import draw_layout
from scripts.generators.truth import MadeTruth, MakeImages, adapt_edits

# Its pages are rendered by Chromium.
BROWSER_SOURCE = "browser"

# Photos are shrunk to this; verification compares thumbnails of 448 pixels.
MAX_SIDE_PX = 960

# Encoders of apps and websites, and in a fifth of all cases those of old phones and mail programs.
MIN_JPEG_QUALITY = 60
MAX_JPEG_QUALITY = 95
MIN_POOR_QUALITY = 8
POOR_SHARE = 0.2

# Half of the altered pictures keep their size, the others shrink to this share or more.
MIN_SHRUNK_SHARE = 0.4

# A pair below this is a thumbnail with nothing to verify.
MIN_SIDE_PX = 96


@dataclass(frozen=True)
class MadePair:
    """Two RGB images of a generator, `source`; `kind` is what it did."""

    source: str
    kind: str
    truth: MadeTruth
    first: Image.Image
    second: Image.Image


SOURCES: dict[str, dict[str, MakeImages]] = {
    "graphic": adapt_edits(graphic.EDITS),
    "photographic": adapt_edits(photographic.EDITS),
    "lettering": adapt_edits(lettering.EDITS),
    "redaction": adapt_edits(redaction.EDITS),
    "phone copies": adapt_edits(phone_copies.EDITS),
    "photo edits": adapt_edits(photo_edits.EDITS),
    "drawn screens": page_pairs.make_screen_makers(draw_layout),
    "templates": page_pairs.make_template_makers(draw_layout),
    "neighbors": neighbors.MAKERS | scrolled.make_makers(draw_layout),
    BROWSER_SOURCE: page_pairs.make_screen_makers(render_layout)
    | page_pairs.make_template_makers(render_layout),
}


def list_sources() -> list[str]:
    """List the sources that work here: without Chromium, all but the pages of a browser."""
    return [name for name in SOURCES if name != BROWSER_SOURCE or is_available()]


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
    is_poor = rng.random() < POOR_SHARE
    least, most = (
        (MIN_POOR_QUALITY, MIN_JPEG_QUALITY) if is_poor else (MIN_JPEG_QUALITY, MAX_JPEG_QUALITY)
    )
    quality = rng.randint(least, most)
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

    The sources, those that are named or all of list_sources(), take turns, and so do the kinds of
    each. A pair depends on the photos, `seed`, the sources and its number, not on `count`. Raises
    KeyError for a source that is unknown.
    """
    names = list(sources or list_sources())
    kinds = {name: list(SOURCES[name]) for name in names}
    for name in names:
        random.Random(f"{seed} {name}").shuffle(kinds[name])
    for number in range(count):
        turn, index = divmod(number, len(names))
        source = names[index]
        kind = kinds[source][turn % len(kinds[source])]
        yield make_pair(photos, random.Random(f"{seed} {number} {source} {kind}"), source, kind)
