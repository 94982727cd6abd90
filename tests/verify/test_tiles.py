"""Tile by tile comparison: textureless tiles, borders, blur and noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import ImageEnhance, ImageFilter, ImageOps

from pipeline.verify.displacement import Target
from pipeline.verify.homography import apply_homography
from pipeline.verify.relation import Relation
from pipeline.verify.tile_grid import SAMPLING, TILE_SIDE_PX
from pipeline.verify.tiles import compare_tiles
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image
from tests.support.verification import (
    COPIES,
    PHOTO,
    build_features_from_pixels,
    edit_photo,
    extract,
)


@pytest.mark.parametrize("seed", range(4))
def test_compare_tiles_finds_a_homography_from_some_pixels_away(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.asarray(draw_textured_image(seed, (448, 320)).convert("L"))
    corners = np.array([[20.0, 20.0], [420.0, 20.0], [420.0, 300.0], [20.0, 300.0]], np.float32)
    moved = corners + rng.uniform(-15, 15, (4, 2)).astype(np.float32)
    true = cv2.getPerspectiveTransform(corners, moved)
    base = cv2.warpPerspective(
        target, true, (448, 320), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    start = cv2.getPerspectiveTransform(
        corners, moved + rng.uniform(-5, 5, (4, 2)).astype(np.float32)
    )
    comparison = compare_tiles(np.asarray(base, np.uint8), target, start, 0.0)
    assert comparison is not None
    errors = apply_homography(comparison.homography, corners) - apply_homography(true, corners)
    assert np.linalg.norm(errors, axis=1).max() < 0.3
    assert comparison.ncc[comparison.valid].min() > 0.95


def test_quadratic_warps_add_up() -> None:
    pixels = np.asarray(draw_textured_image(1, (240, 192)).convert("L"), np.float32) - 128.0
    target = Target(pixels, SAMPLING, (8, 10))
    first, second = np.random.default_rng(1).uniform(-2.0, 2.0, (2, 6, 2))
    in_steps = target.add_quadratic_warp(first).add_quadratic_warp(second)
    at_once = target.add_quadratic_warp(first + second)
    for warped in (in_steps, at_once):
        assert np.abs(warped.sample() - target.sample()).max() > 1.0
    assert np.allclose(in_steps.sample(), at_once.sample(), atol=0.1)
    assert np.allclose(in_steps.sample_pixels(), at_once.sample_pixels(), atol=0.1)


def test_flat_tile_agrees_with_nothing() -> None:
    """Without variance, rounding alone would decide how a tile agrees, and give a high NCC."""
    features = build_features_from_pixels(np.asarray(PHOTO.resize((448, 300))), PHOTO.size)
    flat = np.full_like(features.gray, 250)
    flat[:48, :48] = features.gray[:48, :48]
    comparison = compare_tiles(features.gray, flat, np.eye(3), 0.0)
    assert comparison is not None
    assert np.abs(comparison.ncc).max() <= 1.0
    assert comparison.ncc[comparison.valid].max() > 0.99
    assert (comparison.ncc[3:, 3:] < 0.5).all()
    assert not comparison.textured_in_both[3:, 3:].any()


def test_border_spoils_no_tile() -> None:
    """The blur mixes pixels from beyond an outline into the tiles at it, in one image only."""
    for seed in range(6):
        textured = draw_textured_image(seed, (240, 168)).filter(ImageFilter.GaussianBlur(3))
        soft = ImageEnhance.Contrast(textured).enhance(0.5)
        bordered = ImageOps.expand(soft, 12, "white")
        verdict = verify(extract(soft), extract(bordered))
        assert verdict.relation in COPIES
        assert verdict.agreeing_share == 1.0, verdict


def test_blurred_copy_agrees_with_its_sharp_original() -> None:
    verdict = verify(extract(PHOTO), extract(PHOTO.filter(ImageFilter.GaussianBlur(4))))
    assert verdict.relation == Relation.SAME_PICTURE
    assert verdict.agreeing_share > 0.95


def test_texture_below_the_noise_is_no_changed_region() -> None:
    for seed in (2, 3):
        faint = ImageEnhance.Contrast(draw_textured_image(seed)).enhance(0.6)
        noisy = edit_photo(faint, "noise", seed)
        assert verify(extract(faint), extract(noisy)).relation == Relation.SAME_PICTURE
        unrelated = draw_textured_image(seed + 50)
        assert verify(extract(unrelated), extract(noisy)).relation not in COPIES


def test_compare_tiles_leaves_out_tiles_that_one_image_clips() -> None:
    """An overexposed copy has lost the texture there, which is no sign of another content."""
    gray = np.asarray(draw_textured_image(3, (480, 480)).convert("L"))
    darker = (gray // 2 + np.linspace(0, 127, 480)).astype(np.uint8)  # brighter to the right
    overexposed = np.clip(darker.astype(np.int32) * 2, 0, 255).astype(np.uint8)
    comparison = compare_tiles(darker, overexposed, np.eye(3), 0.0)
    assert comparison is not None
    rows, columns = comparison.ncc.shape
    tiles = overexposed[: rows * TILE_SIDE_PX, : columns * TILE_SIDE_PX].reshape(
        rows, TILE_SIDE_PX, columns, TILE_SIDE_PX
    )
    is_white = tiles.min(axis=(1, 3)) == 255
    assert is_white.sum() >= 10
    assert not comparison.valid[is_white].any()
    assert comparison.valid[:, : columns // 4].mean() > 0.5
