"""Tile by tile comparison: textureless tiles, borders, blur and noise."""

from __future__ import annotations

import numpy as np
from PIL import ImageEnhance, ImageFilter, ImageOps

from pipeline.verify.features import build_features_from_pixels
from pipeline.verify.relation import Relation
from pipeline.verify.tile_grid import TILE_SIDE_PX
from pipeline.verify.tiles import compare_tiles
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image
from tests.support.verification import COPIES, PHOTO, edit_photo, extract


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
