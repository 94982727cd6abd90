"""Compare two aligned gray images tile by tile, after refining their alignment on the pixels.

The first image, the base, is cut into tiles of 24 x 24 pixels. Each is compared with the pixels of
the second, the target, that the homography maps it to, by zero-mean normalized cross-correlation
(NCC): brightness and contrast of a tile do not matter. Both images are brought to the same
sharpness before, and `refinement` improves the homography.

A copy agrees in place all over, except where something covers it. Another shot of a scene agrees
only where tiles may move, because parallax moves things at other depths differently, and no
homography aligns all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.base_tiles import MIN_VARIANCE, BaseTiles, TileStats
from pipeline.verify.displacement import Target, refine_quadratic, search_displacement
from pipeline.verify.homography import Homography, compute_scale, invert_matrix
from pipeline.verify.refinement import (
    MIN_TEXTURE,
    UNSAMPLING,
    is_near,
    measure_reliable_share,
    refine_at_half_size,
    refine_homography,
)
from pipeline.verify.sharpness import match_sharpness
from pipeline.verify.tile_grid import (
    SAMPLE_PITCH_PX,
    SAMPLING,
    TILE_SIDE_PX,
    GrayPixels,
    TileMap,
    find_border_safe_tiles,
    find_overlapping_tiles,
    place_tile_grid,
    split_into_tiles,
    warp_to_tiles,
)

# With a smaller share of tiles that could be aligned nothing is refined: of 2,196 pairs of copies
# one begins with 0.46, the others with 0.55 or more, while most false alignments have less.
MIN_RELIABLE_SHARE = 0.4
MIN_SHARP_NCC = 0.98  # of all tiles, from which the sharpness of the images is not matched
PATCH_SIDE_PX = 8  # a tile has 3 x 3 patches, the unit in which a changed letter shows
MIN_PATCH_ERROR = 0.5  # added to the usual error of a patch, in squared gray levels
# MIN_TEXTURE as a multiple of the noise. The blur leaves 0.28 of the noise, and a tile with 1.5
# times as much texture still agrees with an NCC above 0.8.
MIN_TEXTURE_TO_NOISE = 0.42
PREBLUR_SIGMA_PX = 1.0  # blur of both images before comparison: noise and codecs live below it
# Gray levels minus 128 that cannot get much darker, or brighter.
MAX_BLACK_LEVEL = -118.0
MIN_WHITE_LEVEL = 112.0
# Clipping is predicted from tiles with at least this NCC, if there are so many of them.
MIN_CLIPPING_NCC = 0.8
MIN_CLIPPING_TILES = 4
MIN_DIVISOR = 1e-3  # of a gain or texture in a ratio
# The target alone makes a tile valid from this multiple of the texture that the base needs.
TARGET_TEXTURE_FACTOR = 2
PATCH_ERROR_PERCENTILE = 95  # of all patches, which the worst is compared with


@dataclass(frozen=True, slots=True)
class TileComparison:
    """The comparison of a base with a target; maps are (rows, columns) of tiles.

    The tiles lie on the base, the first at `origin`, (x, y) in pixels. `ncc`: -1 to 1 in place;
    `best_ncc`: the best when a tile may move, by `displacement` (rows, columns, 2) base pixels.
    `valid`: the tile lies on the target completely, and one of the two has enough texture to be
    compared; `textured_in_both`: both have. `homography` maps base to target pixels; a
    quadratic warp may have been added to it.
    """

    ncc: TileMap
    best_ncc: TileMap
    displacement: NDArray[np.float32]
    valid: NDArray[np.bool_]
    textured_in_both: NDArray[np.bool_]
    origin: tuple[int, int]
    homography: Homography
    _base_pixels: GrayPixels
    _target: Target

    def get_matched_samples(self) -> tuple[GrayPixels, GrayPixels]:
        """Return every second pixel of both images under the tiles, with one sharpness.

        They are (height / 2, width / 2), gray levels minus 128.
        """
        base = self._base_pixels[::SAMPLE_PITCH_PX, ::SAMPLE_PITCH_PX]
        return np.ascontiguousarray(base), self._target.sample_grid()

    def compute_patch_outlier_ratio(self) -> float:
        """Compute the error of the worst patch over that at PATCH_ERROR_PERCENTILE.

        One changed letter is a patch or two, while codecs add errors everywhere.
        """
        base, target = (
            tiles[self.valid] - tiles[self.valid].mean(axis=1, keepdims=True)
            for tiles in (
                split_into_tiles(self._base_pixels, TILE_SIDE_PX),
                self._target.sample_pixels(),
            )
        )
        gain = (base * target).sum(axis=1, keepdims=True) / np.maximum(
            (target * target).sum(axis=1, keepdims=True), MIN_VARIANCE
        )
        patches_per_side, errors = TILE_SIDE_PX // PATCH_SIDE_PX, (base - gain * target) ** 2
        patch_errors = errors.reshape(
            -1, patches_per_side, PATCH_SIDE_PX, patches_per_side, PATCH_SIDE_PX
        ).mean(axis=(2, 4))
        usual_error = np.percentile(patch_errors, PATCH_ERROR_PERCENTILE) + MIN_PATCH_ERROR
        return float(patch_errors.max() / usual_error)


def compare_tiles(
    base_gray: NDArray[np.uint8],
    target_gray: NDArray[np.uint8],
    homography: Homography,
    noise: float,
) -> TileComparison | None:
    """Compare two gray images (height, width) under a homography from base to target pixels.

    The homography must not reduce the base; swap the two if it does. `noise` is the standard
    deviation of the noise of the noisier image, in gray levels. None if no tile of the base
    fits on the target.
    """
    origin, (columns, rows) = place_tile_grid(homography, base_gray.shape, target_gray.shape)
    if not rows or not columns:
        return None
    grid_to_base = np.array([[1.0, 0.0, origin[0]], [0.0, 1.0, origin[1]], [0.0, 0.0, 1.0]])
    homography = homography @ grid_to_base
    base_pixels = _blur(base_gray, PREBLUR_SIGMA_PX)[
        origin[1] : origin[1] + rows * TILE_SIDE_PX, origin[0] : origin[0] + columns * TILE_SIDE_PX
    ]
    target_pixels = _blur(target_gray, PREBLUR_SIGMA_PX * max(1.0, compute_scale(homography)))
    aligned = _refine(base_pixels, target_pixels, homography)
    if aligned is None:
        return None
    base_pixels, target_pixels, base, homography, stats = aligned
    valid = find_overlapping_tiles(homography, (rows, columns), target_gray.shape)
    valid &= find_border_safe_tiles(
        homography, origin, valid.shape, base_gray.shape, target_gray.shape
    )
    min_texture = max(MIN_TEXTURE, MIN_TEXTURE_TO_NOISE * noise)
    valid = _drop_flat_and_clipped_tiles(base, stats, valid, min_texture)
    target = Target(target_pixels, homography @ SAMPLING, valid.shape)
    best_ncc, displacement = stats.ncc, np.zeros_like(stats.steps)
    if measure_reliable_share(stats, valid) >= MIN_RELIABLE_SHARE:
        target, stats = refine_quadratic(base, target, stats, valid)
        best_ncc, displacement = search_displacement(base, target, stats, valid)
    textured_in_both = valid & (base.texture > min_texture) & (stats.texture > min_texture)
    return TileComparison(
        stats.ncc,
        best_ncc,
        displacement,
        valid,
        textured_in_both,
        origin,
        homography @ invert_matrix(grid_to_base),
        base_pixels,
        target,
    )


def _refine(
    base_pixels: GrayPixels, target_pixels: GrayPixels, homography: Homography
) -> tuple[GrayPixels, GrayPixels, BaseTiles, Homography, TileStats] | None:
    """Refine a homography between pixels; None if no tile fits on the target.

    It stays as it is if too few tiles agree to begin with. Sharpness is matched only if some tile
    does not agree well without.
    """
    base = BaseTiles.from_pixels(base_pixels)
    grid_shape, is_textured = base.texture.shape, base.texture > MIN_TEXTURE
    start = base.compare(
        split_into_tiles(warp_to_tiles(target_pixels, homography @ SAMPLING, grid_shape))
    )
    is_overlapping = find_overlapping_tiles(homography, grid_shape, target_pixels.shape)
    if not is_overlapping.any():
        return None
    if measure_reliable_share(start, is_overlapping & is_textured) < MIN_RELIABLE_SHARE:
        return base_pixels, target_pixels, base, homography, start
    stats: TileStats | None = start
    if not is_near(start, is_overlapping & is_textured):
        homography, stats = refine_at_half_size(base_pixels, target_pixels, homography), None
    sampled, stats = refine_homography(base, target_pixels, homography @ SAMPLING, stats)
    is_overlapping = find_overlapping_tiles(sampled @ UNSAMPLING, grid_shape, target_pixels.shape)
    if (is_overlapping & is_textured & (stats.ncc < MIN_SHARP_NCC)).any():
        matched = match_sharpness(base_pixels, target_pixels, sampled @ UNSAMPLING, is_overlapping)
        if matched:
            base_pixels, target_pixels = matched
            base = BaseTiles.from_pixels(base_pixels)
            sampled, stats = refine_homography(base, target_pixels, sampled)
    return base_pixels, target_pixels, base, sampled @ UNSAMPLING, stats


def _drop_flat_and_clipped_tiles(
    base: BaseTiles, stats: TileStats, valid: NDArray[np.bool_], min_texture: float
) -> NDArray[np.bool_]:
    min_target_texture = TARGET_TEXTURE_FACTOR * min_texture
    is_textured = (base.texture > min_texture) | (stats.texture > min_target_texture)
    valid = valid & is_textured
    return np.asarray(valid & ~_find_clipped_tiles(base, stats, valid))


def _find_clipped_tiles(
    base: BaseTiles, stats: TileStats, valid: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Find tiles that are clipped to black or white in one image but not in the other.

    They are predicted by the gain and offset of the tiles that agree.
    """
    is_flat = valid & ((stats.texture < MIN_TEXTURE) | (base.texture < MIN_TEXTURE))
    is_reliable = valid & (stats.ncc > MIN_CLIPPING_NCC)
    if not is_flat.any() or np.count_nonzero(is_reliable) < MIN_CLIPPING_TILES:
        return np.zeros_like(valid)
    base_texture = np.maximum(base.texture[is_reliable], MIN_DIVISOR)
    base_mean = base.means[..., 0]
    gain = float(np.median(stats.texture[is_reliable] / base_texture))
    offset = float(np.median(stats.mean[is_reliable] - gain * base_mean[is_reliable]))
    expected_target = gain * base_mean + offset
    expected_base = (stats.mean - offset) / max(gain, MIN_DIVISOR)
    clipped_in_target = _is_clipped(expected_target) & (stats.texture < MIN_TEXTURE)
    clipped_in_base = _is_clipped(expected_base) & (base.texture < MIN_TEXTURE)
    return np.asarray(clipped_in_target | clipped_in_base)


def _is_clipped(levels: TileMap) -> NDArray[np.bool_]:
    return np.asarray((levels > MIN_WHITE_LEVEL) | (levels < MAX_BLACK_LEVEL))


def _blur(gray: NDArray[np.uint8], sigma: float) -> GrayPixels:
    """Blur gray levels by a Gaussian of `sigma` pixels, and subtract 128."""
    kernel = cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F)
    return np.asarray(cv2.sepFilter2D(gray, cv2.CV_32F, kernel, kernel, delta=-128.0), np.float32)
