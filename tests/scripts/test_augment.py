"""The augmentation of training images, on drawn scenes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from scripts.augment import (
    FRAME_WEIGHTS,
    Frame,
    apply_edits,
    apply_frame,
    apply_light_edits,
    pick_frame,
)
from tests.support.images import draw_scene


@pytest.mark.parametrize("kind", [kind for kind, _ in FRAME_WEIGHTS])
def test_apply_frame_with_one_frame_differs_by_the_image_alone(kind: str) -> None:
    image, another = draw_scene(1, (120, 90)), draw_scene(2, (120, 90))
    frame = Frame(kind, 7)
    framed, framed_again, another_framed = (
        np.asarray(apply_frame(content, draw_scene(3), frame))
        for content in (image, image, another)
    )
    assert np.array_equal(framed, framed_again)
    assert framed.shape == another_framed.shape
    assert not np.array_equal(framed, another_framed)


@pytest.mark.parametrize("size", [(120, 90), (48, 48), (400, 50), (1, 1), (3, 300)])
def test_apply_edits_on_any_size_returns_an_rgb_image(size: tuple[int, int]) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        frame = pick_frame(rng) if seed % 2 else None
        lightly_edited = apply_light_edits(draw_scene(seed, size), rng)
        view = apply_edits(lightly_edited, draw_scene(seed + 1, (64, 48)), rng, frame)
        assert view.mode == "RGB"
        assert min(view.size) >= 1
