"""Compare two aligned gray images tile by tile, after refining their alignment on the pixels.

NCC. The first image, the template, is cut into tiles of 24 x 24 pixels. Each is compared with the
pixels of the second, the target, that the homography maps it to, by zero-mean normalized
cross-correlation: brightness and contrast of a tile do not matter. Both images are brought to the
same sharpness before.

Lucas-Kanade for each tile. Image gradients give the step by which a tile would agree best (Lucas
and Kanade 1981), once the target has the mean and the contrast of the template there.

IRLS refinement. A homography is fitted to the steps of all tiles by iteratively reweighted least
squares, and the tiles are compared again until they stop moving. Where tiles still move, a
quadratic warp is added: lenses, and warps that are not projective.

Displacement. Finally each tile may move by itself. A copy agrees in place all over, except where
something covers it. Another shot of a scene agrees only where tiles may move, because parallax
moves things at other depths differently, and no homography aligns all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.homography import (
    UNIT_CORNERS,
    Homography,
    apply_homography,
    compute_scale,
    fit_homography,
    invert_homography,
    jacobian,
    robust_lstsq,
)

GrayPixels = NDArray[np.float32]  # gray levels minus 128
TileMap = NDArray[np.float32]  # a number for each tile, (rows, columns)

TILE_SIDE_PX = 24
CELL_SIDE_PX = 8  # a tile has 3 x 3 cells, the unit in which a changed letter shows
MIN_CELL_ERROR = 0.5  # added to the usual error of a cell, in squared gray levels
MIN_TEXTURE = 4.0  # standard deviation in gray levels below which a tile cannot be compared
# The same as a multiple of the noise. The blur leaves 0.28 of it, and a tile with 1.5 times as
# much texture still agrees with an NCC above 0.8.
MIN_TEXTURE_TO_NOISE = 0.42
PREBLUR_SIGMA_PX = 1.0  # blur of both images before comparison: noise and codecs live below it
# The blur mixes in pixels from beyond an outline this far: a border in one image, none in the
# other.
BORDER_MARGIN_PX = 2.0
MIN_VARIANCE = 1.0  # lower bound of a variance in a ratio; below it rounding would decide
# An image with less than this share of the other's sharpness is the softer one, and the other is
# blurred to match.
MIN_SHARPNESS_RATIO = 0.7
BLUR_SIGMAS_PX = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # tried in turn to match sharpness
MAX_HOMOGRAPHY_ITERATIONS = 6
MAX_QUADRATIC_ITERATIONS = 8
MAX_DISPLACEMENT_ITERATIONS = 4
CONFIDENT_NCC = 0.97  # if all tiles reach it in place, none is moved
MAX_DISPLACEMENT_PX = 8.0  # of a tile along x and along y
# Gray levels minus 128 that cannot get much darker, or brighter.
MAX_BLACK_LEVEL = -118.0
MIN_WHITE_LEVEL = 112.0
MIN_STEP_PX = 0.05  # refinement ends when four of five tiles would move less


@dataclass(frozen=True, slots=True)
class Residual:
    """The comparison of a template with a target; maps are (rows, columns) of tiles.

    The tiles lie on the template, the first at `origin`, (x, y) in pixels. `ncc`: -1 to 1 in place;
    `best_ncc`: the best when a tile may move, by `displacement` (rows, columns, 2) template pixels.
    `valid`: the tile lies on the target completely, and one of the two has enough texture to be
    compared; `textured_in_both`: both have. `homography` maps template to target pixels; a
    quadratic warp may have been added to it.
    """

    ncc: TileMap
    best_ncc: TileMap
    displacement: NDArray[np.float32]
    valid: NDArray[np.bool_]
    textured_in_both: NDArray[np.bool_]
    origin: tuple[int, int]
    homography: Homography
    _template: _Template
    _target: _Target

    def cell_outlier_ratio(self) -> float:
        """Compute the error of the worst cell over the 95th percentile of all cells.

        One changed letter is a cell or two, while codecs add errors everywhere.
        """
        in_place = self._target.sample(np.zeros((2, 1, 1, 1), np.float32))
        template, target = (
            tiles[self.valid] - tiles[self.valid].mean(axis=1, keepdims=True)
            for tiles in (self._template.tiles, in_place)
        )
        gain = (template * target).sum(axis=1, keepdims=True) / np.maximum(
            (target * target).sum(axis=1, keepdims=True), MIN_VARIANCE
        )
        cells_per_side, errors = TILE_SIDE_PX // CELL_SIDE_PX, (template - gain * target) ** 2
        cell_errors = errors.reshape(
            -1, cells_per_side, CELL_SIDE_PX, cells_per_side, CELL_SIDE_PX
        ).mean(axis=(2, 4))
        return float(cell_errors.max() / (np.percentile(cell_errors, 95) + MIN_CELL_ERROR))


def compute_residual(
    template_gray: NDArray[np.uint8],
    target_gray: NDArray[np.uint8],
    homography: Homography,
    noise: float,
) -> Residual | None:
    """Compare two gray images (height, width) under a homography from template to target pixels.

    The homography must not reduce the template; swap the two if it does. `noise` is the standard
    deviation of the noise of the noisier image, in gray levels. None if no tile of the template
    fits on the target.
    """
    origin, (columns, rows) = _place_tile_grid(homography, template_gray.shape, target_gray.shape)
    if not rows or not columns:
        return None
    grid_to_template = np.array([[1.0, 0.0, origin[0]], [0.0, 1.0, origin[1]], [0.0, 0.0, 1.0]])
    homography, scale = homography @ grid_to_template, max(1.0, compute_scale(homography))
    template_pixels = _blur(template_gray, PREBLUR_SIGMA_PX)[
        origin[1] : origin[1] + rows * TILE_SIDE_PX, origin[0] : origin[0] + columns * TILE_SIDE_PX
    ]
    target_pixels = _blur(target_gray, PREBLUR_SIGMA_PX * scale)
    is_overlapping = _overlapping_tiles(homography, template_pixels.shape, target_gray.shape)
    if not is_overlapping.any():
        return None
    template_pixels, target_pixels = _match_sharpness(
        template_pixels, target_pixels, homography, is_overlapping, scale
    )
    template = _Template(template_pixels)
    homography, stats = _refine_homography(template, target_pixels, homography)
    is_overlapping = _overlapping_tiles(
        homography, template_pixels.shape, target_gray.shape
    ) & _find_border_safe_tiles(
        homography, origin, template.texture.shape, template_gray.shape, target_gray.shape
    )
    min_texture = max(MIN_TEXTURE, MIN_TEXTURE_TO_NOISE * noise)
    valid = is_overlapping & ((template.texture > min_texture) | (stats.texture > 2 * min_texture))
    valid &= ~_clipped_tiles(template, stats, valid)
    target = _Target(target_pixels, homography, valid.shape)
    stats = _refine_quadratic(template, target, stats, valid)
    best_ncc, displacement = _search_displacement(template, target, stats, valid)
    textured_in_both = valid & (template.texture > min_texture) & (stats.texture > min_texture)
    return Residual(
        stats.ncc,
        best_ncc,
        displacement,
        valid,
        textured_in_both,
        origin,
        homography @ np.linalg.inv(grid_to_template),
        template,
        target,
    )


@dataclass(frozen=True, slots=True)
class _TileStats:
    """The target under each tile: NCC with the template, mean, texture, and Lucas-Kanade step.

    `texture` is the standard deviation in gray levels; `steps` (rows, columns, 2) are in template
    pixels.
    """

    ncc: TileMap
    mean: TileMap
    texture: TileMap
    steps: NDArray[np.float32]


class _Template:
    """The template image with the statistics that comparisons share.

    Pixels are stored by tiles, (rows, columns, TILE_SIDE_PX ** 2).
    """

    def __init__(self, pixels: GrayPixels) -> None:
        """Precompute means, textures and inverse Hessians of all tiles."""
        self.shape = pixels.shape
        # Pixels and gradients, (rows, columns, 3, TILE_SIDE_PX ** 2): one product with the target
        # gives all sums that a comparison needs.
        self._pixels_and_gradients = np.stack(
            [_split_into_tiles(channel) for channel in (pixels, *_gradients(pixels))], axis=2
        )
        self.tiles: GrayPixels = self._pixels_and_gradients[:, :, 0]
        means, products = (
            self._pixels_and_gradients.mean(axis=3),
            np.matmul(self._pixels_and_gradients, np.swapaxes(self._pixels_and_gradients, 2, 3))
            / TILE_SIDE_PX**2,
        )
        self.mean, self._mean_gradient = means[..., 0], means[..., 1:]
        self._variance = np.maximum(products[..., 0, 0] - self.mean**2, 0.0)
        # The variance of an even slope is no texture.
        slope_variance = (self._mean_gradient**2).sum(axis=-1) * (TILE_SIDE_PX**2 - 1) / 12
        self.texture: TileMap = np.sqrt(np.maximum(self._variance - slope_variance, 0.0))
        self._mean_pixel_gradient = products[..., 0, 1:]
        xx, xy, yy = products[..., 1, 1], products[..., 1, 2], products[..., 2, 2]
        damping = 0.02 * (xx + yy) + 1.0
        xx, yy = xx + damping, yy + damping
        self._inverse_hessian = (
            np.stack([np.stack([yy, -xy], -1), np.stack([-xy, xx], -1)], -2)
            / (xx * yy - xy * xy)[..., None, None]
        )

    def compare(self, target_tiles: GrayPixels) -> _TileStats:
        """Compute NCC and Lucas-Kanade steps of all tiles against target pixels by tiles."""
        mean = target_tiles.mean(axis=2)
        variance = np.maximum(
            np.einsum("rcp,rcp->rc", target_tiles, target_tiles) / TILE_SIDE_PX**2 - mean**2, 0.0
        )
        products = (
            np.matmul(self._pixels_and_gradients, target_tiles[..., None])[..., 0] / TILE_SIDE_PX**2
        )
        covariance = products[..., 0] - self.mean * mean
        ncc = np.clip(
            covariance
            / np.sqrt(
                np.maximum(self._variance, MIN_VARIANCE) * np.maximum(variance, MIN_VARIANCE)
            ),
            -1.0,
            1.0,
        )
        gain = np.clip(covariance / np.maximum(variance, MIN_VARIANCE), 0.2, 5.0)[..., None]
        error_gradient = (
            self._mean_pixel_gradient
            - self.mean[..., None] * self._mean_gradient
            - gain * (products[..., 1:] - mean[..., None] * self._mean_gradient)
        )
        steps = np.einsum("rcij,rcj->rci", self._inverse_hessian, error_gradient)
        return _TileStats(ncc, mean, np.sqrt(variance), steps)


def _clipped_tiles(
    template: _Template, stats: _TileStats, valid: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Find tiles that are clipped to black or white in one image but not in the other.

    They are predicted by the gain and offset of the tiles that agree.
    """
    is_reliable = valid & (stats.ncc > 0.8)
    if np.count_nonzero(is_reliable) < 4:
        return np.zeros_like(valid)
    gain = float(
        np.median(stats.texture[is_reliable] / np.maximum(template.texture[is_reliable], 1e-3))
    )
    offset = float(np.median(stats.mean[is_reliable] - gain * template.mean[is_reliable]))
    expected_target = gain * template.mean + offset
    expected_template = (stats.mean - offset) / max(gain, 1e-3)
    clipped_in_target = _is_clipped(expected_target) & (stats.texture < MIN_TEXTURE)
    clipped_in_template = _is_clipped(expected_template) & (template.texture < MIN_TEXTURE)
    return np.asarray(clipped_in_target | clipped_in_template)


def _is_clipped(levels: TileMap) -> NDArray[np.bool_]:
    return np.asarray((levels > MIN_WHITE_LEVEL) | (levels < MAX_BLACK_LEVEL))


def _refine_homography(
    template: _Template, target_pixels: GrayPixels, homography: Homography
) -> tuple[Homography, _TileStats]:
    """Refine a homography by IRLS on the Lucas-Kanade steps of the tiles.

    Returns the homography with the largest sum of NCC over all iterations, and its tile stats.
    """
    centers, best_ncc_sum = _compute_tile_centers(*template.texture.shape), -1.0
    for _ in range(MAX_HOMOGRAPHY_ITERATIONS):
        target_tiles = _split_into_tiles(_warp(target_pixels, homography, template.shape))
        stats = template.compare(target_tiles)
        is_textured = _overlapping_tiles(homography, template.shape, target_pixels.shape) & (
            template.texture > MIN_TEXTURE
        )
        ncc_sum = float(np.maximum(stats.ncc[is_textured], 0.0).sum())
        if ncc_sum > best_ncc_sum:
            best, best_ncc_sum = (homography, stats), ncc_sum
        is_reliable = is_textured & (stats.ncc > 0.4)
        if np.count_nonzero(is_reliable) < 4:
            break
        steps, points = np.clip(stats.steps[is_reliable], -4.0, 4.0), centers[is_reliable]
        if np.percentile(np.hypot(*steps.T), 80) < MIN_STEP_PX:
            break
        refined = fit_homography(
            points,
            apply_homography(homography, points + steps),
            stats.ncc[is_reliable].astype(np.float64) ** 2,
        )
        if refined is None:
            break
        homography = refined
    return best


@lru_cache(maxsize=64)
def _compute_pixel_points(rows: int, columns: int) -> NDArray[np.float32]:
    """Compute x and y of each pixel by tiles, (2, rows, columns, TILE_SIDE_PX ** 2)."""
    x, y = (
        np.arange(columns * TILE_SIDE_PX, dtype=np.float32),
        np.arange(rows * TILE_SIDE_PX, dtype=np.float32),
    )
    return np.stack([_split_into_tiles(coordinates) for coordinates in np.meshgrid(x, y)])


@lru_cache(maxsize=64)
def _compute_tile_centers(rows: int, columns: int) -> NDArray[np.float64]:
    """Compute x and y of the center of each tile, (rows, columns, 2)."""
    y, x = np.mgrid[0:rows, 0:columns] * float(TILE_SIDE_PX) + (TILE_SIDE_PX - 1) / 2
    return np.stack([x, y], axis=-1)


class _Target:
    """The target image, sampled through a homography and an offset for each pixel.

    `points` (2, rows, columns, TILE_SIDE_PX ** 2): x and y on the target of each template pixel.
    """

    def __init__(
        self, pixels: GrayPixels, homography: Homography, grid_shape: tuple[int, ...]
    ) -> None:
        """Map the pixels of a grid of tiles (rows, columns) to the target."""
        x, y = _compute_pixel_points(*grid_shape)
        mapped_x, mapped_y, depth = (
            row[0] * x + row[1] * y + row[2] for row in homography.astype(np.float32)
        )
        self._pixels, self.points = pixels, np.stack([mapped_x / depth, mapped_y / depth])
        self._jacobians = jacobian(homography, _compute_tile_centers(*grid_shape)).astype(
            np.float32
        )

    def map_steps(self, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert steps of tiles (rows, columns, 2) from template to target pixels."""
        return np.asarray(np.einsum("rcij,rcj->rci", self._jacobians, steps))

    def sample(self, offsets: NDArray[np.float32]) -> GrayPixels:
        """Sample the target by tiles, at offsets in target pixels.

        `offsets` is (2, rows, columns, TILE_SIDE_PX ** 2), or 1 last for one offset a tile.
        """
        points = self.points + offsets
        x, y = points.reshape(2, -1, TILE_SIDE_PX**2)
        sampled = np.asarray(cv2.remap(self._pixels, x, y, cv2.INTER_LINEAR), np.float32)
        return sampled.reshape(points.shape[1:])


def _refine_quadratic(
    template: _Template, target: _Target, stats: _TileStats, valid: NDArray[np.bool_]
) -> _TileStats:
    """Add the best quadratic warp, if tiles still move and it raises the mean NCC.

    For lens distortion, and warps that are not projective. The target keeps the warp.
    """
    is_aligned = valid & (stats.ncc > 0.5)
    if (
        np.count_nonzero(is_aligned) < 24
        or (np.hypot(*stats.steps[is_aligned].T) > 0.3).mean() < 0.1
    ):
        return stats
    tile_terms, pixel_terms = _compute_quadratic_terms(*valid.shape)
    coefficients, warped_stats, offsets = np.zeros((6, 2)), stats, np.zeros_like(target.points)
    for _ in range(MAX_QUADRATIC_ITERATIONS):
        is_reliable = valid & (warped_stats.ncc > 0.5)
        if np.count_nonzero(is_reliable) < 24:
            return stats
        terms, previous = tile_terms[is_reliable], coefficients
        steps = target.map_steps(np.clip(warped_stats.steps, -3.0, 3.0))[is_reliable]
        wanted = terms @ coefficients + steps
        coefficients = robust_lstsq(terms, wanted, warped_stats.ncc[is_reliable] ** 2)
        offsets = np.tensordot(coefficients.T.astype(np.float32), pixel_terms, 1)
        warped_stats = template.compare(target.sample(offsets))
        if np.abs(terms @ (coefficients - previous)).max() < MIN_STEP_PX:
            break
    if warped_stats.ncc[valid].mean() <= stats.ncc[valid].mean():
        return stats
    target.points = target.points + offsets
    return warped_stats


@lru_cache(maxsize=16)
def _compute_quadratic_terms(
    rows: int, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Compute the six terms of a quadratic polynomial in x and y, scaled to about -1 to 1.

    At the center of each tile (rows, columns, 6), and at each pixel (6, rows, columns,
    TILE_SIDE_PX ** 2).
    """
    half = TILE_SIDE_PX * max(rows, columns) / 2

    def evaluate_terms(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
        x, y = (x - TILE_SIDE_PX * columns / 2) / half, (y - TILE_SIDE_PX * rows / 2) / half
        return np.stack([np.ones_like(x), x, y, x * y, x * x, y * y])

    tile_terms = evaluate_terms(*np.moveaxis(_compute_tile_centers(rows, columns), -1, 0))
    pixel_terms = evaluate_terms(*_compute_pixel_points(rows, columns))
    return np.moveaxis(tile_terms, 0, -1).astype(np.float64), pixel_terms.astype(np.float32)


def _search_displacement(
    template: _Template, target: _Target, stats: _TileStats, valid: NDArray[np.bool_]
) -> tuple[TileMap, NDArray[np.float32]]:
    """Search the offset of each tile with the best NCC by Lucas-Kanade.

    Returns the best NCC and the offset in template pixels (rows, columns, 2). If all tiles reach
    CONFIDENT_NCC in place, none is moved.
    """
    best_ncc, best_offsets = stats.ncc.copy(), np.zeros_like(stats.steps)
    offsets, moved_stats = np.zeros_like(stats.steps), stats
    is_search_needed = (stats.ncc[valid] < CONFIDENT_NCC).any()
    for _ in range(MAX_DISPLACEMENT_ITERATIONS if is_search_needed else 0):
        offsets = np.clip(offsets + moved_stats.steps, -MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX)
        target_offsets = np.moveaxis(target.map_steps(offsets), -1, 0)[..., None]
        moved_stats = template.compare(target.sample(target_offsets))
        is_better = moved_stats.ncc > best_ncc
        best_ncc[is_better] = moved_stats.ncc[is_better]
        best_offsets[is_better] = offsets[is_better]
    return best_ncc, best_offsets


def _match_sharpness(
    template_pixels: GrayPixels,
    target_pixels: GrayPixels,
    homography: Homography,
    mask: NDArray[np.bool_],
    scale: float,
) -> tuple[GrayPixels, GrayPixels]:
    """Blur the sharper image to the sharpness of the other, so that a blurred copy agrees."""
    shape = template_pixels.shape
    template_sharpness = _measure_sharpness(template_pixels, mask)
    target_sharpness = _measure_sharpness(_warp(target_pixels, homography, shape), mask)
    if target_sharpness < MIN_SHARPNESS_RATIO * template_sharpness:
        for sigma in BLUR_SIGMAS_PX:
            blurred = cv2.GaussianBlur(template_pixels, (0, 0), sigma)
            if _measure_sharpness(blurred, mask) <= 1.05 * target_sharpness:
                break
        return blurred, target_pixels
    if template_sharpness < MIN_SHARPNESS_RATIO * target_sharpness:
        for sigma in BLUR_SIGMAS_PX:
            blurred = cv2.GaussianBlur(target_pixels, (0, 0), sigma * scale)
            blurred_sharpness = _measure_sharpness(_warp(blurred, homography, shape), mask)
            if blurred_sharpness <= 1.05 * template_sharpness:
                break
        return template_pixels, blurred
    return template_pixels, target_pixels


def _measure_sharpness(gray: GrayPixels, mask: NDArray[np.bool_]) -> float:
    """Measure the energy of gradients over the variance, which is independent of contrast."""
    dx, dy = _gradients(gray)
    mean = _average_tiles(gray)
    variance = (_average_tiles(gray * gray) - mean**2)[mask].sum()
    return float(_average_tiles(dx**2 + dy**2)[mask].sum() / max(variance, 1e-3))


def _overlapping_tiles(
    homography: Homography, template_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Find the tiles whose four corners all lie on the target, (rows, columns)."""
    rows, columns = template_shape[0] // TILE_SIDE_PX, template_shape[1] // TILE_SIDE_PX
    x, y, depth = np.tensordot(homography, _compute_tile_corners(rows, columns), 1)
    inside = (
        (x >= -depth)
        & (y >= -depth)
        & (x <= target_shape[1] * depth)
        & (y <= target_shape[0] * depth)
        & (depth > 0)
    )
    return np.asarray(inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:])


def _place_tile_grid(
    homography: Homography, template_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Center a grid of tiles on the part of the template that the target covers.

    Returns the upper left corner (x, y) in pixels, and the numbers of columns and rows.
    """
    size, target_corners = np.array(template_shape[1::-1]), UNIT_CORNERS * target_shape[1::-1] - 0.5
    inverse = invert_homography(homography)
    low, high = np.full(2, -0.5), size - 0.5
    if (target_corners @ inverse[2, :2] + inverse[2, 2] > 0).all():
        corners = apply_homography(inverse, target_corners)
        first, last = corners.min(axis=0), corners.max(axis=0)
        # A margin where the outlines differ: there one image continues where the other ends.
        low = np.where(
            np.abs(first - low) > BORDER_MARGIN_PX, np.maximum(low, first) + BORDER_MARGIN_PX, low
        )
        high = np.where(
            np.abs(last - high) > BORDER_MARGIN_PX, np.minimum(high, last) - BORDER_MARGIN_PX, high
        )
    count = np.maximum(0, (high - low + 1e-6) // TILE_SIDE_PX).astype(int)
    start = np.ceil(low + (high - low - count * TILE_SIDE_PX) / 2 - 1e-6).astype(int)
    start = np.clip(start, 0, np.maximum(0, size - count * TILE_SIDE_PX))
    return (int(start[0]), int(start[1])), (int(count[0]), int(count[1]))


def _find_border_safe_tiles(
    homography: Homography,
    origin: tuple[int, int],
    grid_shape: tuple[int, ...],
    template_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
) -> NDArray[np.bool_]:
    """Find the tiles around which both images continue, or both end, (rows, columns).

    Where only one ends, the blur mixes pixels from beyond its outline into the tile.
    """
    y, x = np.mgrid[0 : grid_shape[0], 0 : grid_shape[1]] * float(TILE_SIDE_PX) - 0.5
    surrounding = (
        np.stack([x, y], axis=-1)[:, :, None]
        + UNIT_CORNERS * (TILE_SIDE_PX + 2 * BORDER_MARGIN_PX)
        - BORDER_MARGIN_PX
    ).reshape(-1, 2)
    is_safe = _is_inside(surrounding + origin, template_shape) == _is_inside(
        apply_homography(homography, surrounding), target_shape
    )
    return np.asarray(is_safe.reshape(*grid_shape, len(UNIT_CORNERS)).all(axis=-1))


def _is_inside(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which points (n, 2) lie on an image (height, width)."""
    return np.asarray(((points >= -0.5) & (points <= np.array(shape[::-1]) - 0.5)).all(axis=1))


@lru_cache(maxsize=64)
def _compute_tile_corners(rows: int, columns: int) -> NDArray[np.float64]:
    """Compute the corners (x, y, 1) of all tiles, (3, rows + 1, columns + 1)."""
    y, x = np.mgrid[0 : rows + 1, 0 : columns + 1] * float(TILE_SIDE_PX) - 0.5
    return np.stack([x, y, np.ones_like(x)])


def _blur(gray: NDArray[np.uint8], sigma: float) -> GrayPixels:
    return np.asarray(cv2.GaussianBlur(gray.astype(np.float32) - 128.0, (0, 0), sigma), np.float32)


def _warp(target_pixels: GrayPixels, homography: Homography, shape: tuple[int, ...]) -> GrayPixels:
    return np.asarray(
        cv2.warpPerspective(
            target_pixels,
            homography,
            (shape[1], shape[0]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        ),
        np.float32,
    )


def _gradients(gray: GrayPixels) -> tuple[GrayPixels, GrayPixels]:
    """Compute the derivatives along x and y by Sobel filters, in gray levels a pixel."""
    dx, dy = (
        cv2.Sobel(gray, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(gray, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    return np.asarray(dx, np.float32), np.asarray(dy, np.float32)


def _average_tiles(gray: GrayPixels) -> TileMap:
    """Average each tile, (rows, columns)."""
    return np.asarray(
        cv2.resize(
            gray,
            (gray.shape[1] // TILE_SIDE_PX, gray.shape[0] // TILE_SIDE_PX),
            interpolation=cv2.INTER_AREA,
        ),
        np.float32,
    )


def _split_into_tiles(gray: GrayPixels) -> GrayPixels:
    """Arrange pixels by tiles, (rows, columns, TILE_SIDE_PX ** 2)."""
    rows, columns = gray.shape[0] // TILE_SIDE_PX, gray.shape[1] // TILE_SIDE_PX
    return (
        gray.reshape(rows, TILE_SIDE_PX, columns, TILE_SIDE_PX)
        .swapaxes(1, 2)
        .reshape(rows, columns, TILE_SIDE_PX**2)
    )
