"""Features of drawn images, and the edits of drawn copies, for tests of verification."""

from __future__ import annotations

import io
import random
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS
from pipeline.decode.preprocess import VERIFY_INPUT
from pipeline.verify.features import ImageFeatures, convert_to_gray, extract_features
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Edits
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image

COPIES = {Relation.SAME_PICTURE, Relation.DERIVED}
ALL_EDITS = EVERYDAY_EDITS | HARD_EDITS
PHOTO, OTHER_PHOTO = draw_textured_image(1), draw_textured_image(2)
# The edits of a copy that differs in nothing.
PLAIN_COPY = Edits(
    mirrored=False,
    quarter_turn_deg=0,
    rotation_deg=0.0,
    anisotropic=False,
    scale=1.0,
    overlap=(1.0, 1.0),
    embedded_side=None,
    plain_background=False,
    grayscale_side=None,
    recolored=False,
    changed_regions=(),
    derived_side=None,
)


def load_photos() -> list[Image.Image]:
    """Load the two photos that scikit-learn ships."""
    folder = files("sklearn.datasets.images")
    return [
        Image.open(io.BytesIO(folder.joinpath(name).read_bytes())).convert("RGB")
        for name in ("china.jpg", "flower.jpg")
    ]


def extract(image: Image.Image) -> ImageFeatures:
    """Extract the features of an image from its thumbnail."""
    thumbnail = image.convert("RGB")
    thumbnail.thumbnail((VERIFY_INPUT.size, VERIFY_INPUT.size), Image.Resampling.BICUBIC)
    return build_features_from_pixels(np.asarray(thumbnail), image.size)


def edit_photo(image: Image.Image, kind: str, seed: int | str) -> Image.Image:
    """Make a synthetic copy; edits that need a second image use OTHER_PHOTO."""
    return ALL_EDITS[kind](image, OTHER_PHOTO, random.Random(seed))


def edits_of(first: Image.Image, second: Image.Image) -> Edits:
    """Return the edits between two images, which must be verified as copies."""
    verdict = verify(extract(first), extract(second))
    assert verdict.relation in COPIES, verdict
    assert verdict.edits is not None
    return verdict.edits


def build_features_from_pixels(rgb: NDArray[np.uint8], size: tuple[int, int]) -> ImageFeatures:
    """Build the features of a thumbnail (height, width, 3) that no JPEG was made of."""
    return ImageFeatures(lambda: convert_to_gray(rgb), lambda: rgb, extract_features(rgb), size)
