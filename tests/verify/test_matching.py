"""Alignments that keypoints propose."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from pipeline.verify.matching import propose_alignments
from tests.support.images import draw_textured_image
from tests.support.verification import edits_of, extract


def test_image_that_resembles_its_mirror_image_is_found_mirrored() -> None:
    """Enough of it agrees upright to stop there, if that made a copy."""
    pixels = np.asarray(draw_textured_image(1, (448, 300))).astype(np.float32) * 0.6 + 50
    rng = np.random.default_rng(0)
    for x, y in zip(rng.integers(20, 215, 70), rng.integers(20, 280, 70), strict=True):
        level = rng.choice([0.0, 255.0])
        for column in (x, 447 - x):
            pixels[y - 3 : y + 4, column - 3 : column + 4] = level
    image = Image.fromarray(pixels.astype(np.uint8))
    mirrored = ImageOps.mirror(image)
    alignments = list(propose_alignments(extract(image), extract(mirrored)))
    is_upright = [np.linalg.det(alignment.homography) > 0 for alignment in alignments]
    assert is_upright == [True, False]
    assert edits_of(image, mirrored).mirrored
