"""What is left between two pictures once one lies on the other: how well they agree, tile by tile, in place and when a tile may move.

The transform that keypoints gave is refined on the pixels first (Lucas and Kanade 1981, for each tile; then the transform that fits the
tiles' steps best). A copy then agrees in place all over, but for what was laid over it. Another shot of a scene agrees where tiles may
move: things at other depths move differently, and no one transform brings all of them home.
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

GrayPixels = NDArray[np.float32]
TileMap = NDArray[np.float32]  # a number for each tile, (rows, columns)

TILE_SIDE_PX = 24  # pixels of a side
CELL_SIDE_PX, MIN_CELL_ERROR = (
    8,
    0.5,
)  # pixels of a cell's side, and what it always may differ by, in squared grey levels
MIN_TEXTURE = 4.0  # grey levels, as a standard deviation, below which a tile tells nothing
MIN_TEXTURE_TO_NOISE = 0.42  # of the noise: SOFT leaves .28 of it, and a tile with 1.5 times as much texture still agrees by more than .8
PREBLUR_SIGMA_PX = 1.0  # pixels of blur before anything is compared: noise and codecs live below it
BORDER_MARGIN_PX = 2.0  # pixels inside a picture's outline to which the blur brings what lies beyond: a border there, nothing here
MIN_VARIANCE = 1.0  # the variance, in grey levels, of what shows nothing: below it rounding would tell how tiles agree
MIN_SHARPNESS_RATIO = 0.7  # a picture with less than this share of the other's sharpness is the softer one, and the other is blurred to match
BLUR_SIGMAS_PX = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # pixels, tried in turn
MAX_HOMOGRAPHY_ITERATIONS, MAX_QUADRATIC_ITERATIONS, MAX_DISPLACEMENT_ITERATIONS = (
    6,
    8,
    4,
)  # of refining: the transform, a bend of it, and each tile's own place, at most
CONFIDENT_NCC = 0.97  # the correlation of a tile that would be no better elsewhere
MAX_DISPLACEMENT_PX = 8.0  # pixels that a tile may move
MAX_BLACK_LEVEL, MIN_WHITE_LEVEL = (
    -118.0,
    112.0,
)  # from the middle grey: tones that cannot get much darker, or brighter
MIN_STEP_PX = 0.05  # pixels; when four of five tiles move less, nothing more is to be refined


@dataclass(frozen=True, slots=True)
class Residual:
    """All maps are (rows, columns) of tiles over the first picture, beginning at `origin` (x, y).

    `agrees`: the correlation of each tile with what lies below it, -1 to 1; `nearby`: the best when it may move, and `moves` (rows,
    columns, 2) by how many pixels. `told`: whether a tile lies on the other picture with all of itself, and shows enough to be compared;
    `both`: whether it does on both.
    `matrix` takes the first picture's pixels to the second's; a smooth bend may have been added to it.
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
        """How many times as much the cell that differs most does so as that which 95 of 100 stay below. One letter that is another is a
        cell or two; codecs spoil all alike.
        """
        in_place = self._target.sample(np.zeros((2, 1, 1, 1), np.float32))
        above, below = (
            some[self.valid] - some[self.valid].mean(axis=1, keepdims=True)
            for some in (self._template.tiles, in_place)
        )
        gain = (above * below).sum(axis=1, keepdims=True) / np.maximum(
            (below * below).sum(axis=1, keepdims=True), MIN_VARIANCE
        )
        count, unlike = TILE_SIDE_PX // CELL_SIDE_PX, (above - gain * below) ** 2
        cells = unlike.reshape(-1, count, CELL_SIDE_PX, count, CELL_SIDE_PX).mean(axis=(2, 4))
        return float(cells.max() / (np.percentile(cells, 95) + MIN_CELL_ERROR))


def compute_residual(
    template_gray: NDArray[np.uint8],
    target_gray: NDArray[np.uint8],
    homography: Homography,
    noise: float,
) -> Residual | None:
    """Compare two grey pictures; `matrix` takes pixels of `one` to those of `other`, and does not make them smaller (swap the two if so).
    `noise`: the standard deviation of that of the noisier one, in grey levels.

    None where not one tile of `one` fits on `other`.
    """
    origin, (columns, rows) = _place_tile_grid(homography, template_gray.shape, target_gray.shape)
    if not rows or not columns:
        return None
    shifted = np.array([[1.0, 0.0, origin[0]], [0.0, 1.0, origin[1]], [0.0, 0.0, 1.0]])
    homography, scale = homography @ shifted, max(1.0, compute_scale(homography))
    above = _blur(template_gray, PREBLUR_SIGMA_PX)[
        origin[1] : origin[1] + rows * TILE_SIDE_PX, origin[0] : origin[0] + columns * TILE_SIDE_PX
    ]
    below = _blur(target_gray, PREBLUR_SIGMA_PX * scale)
    covered = _overlapping_tiles(homography, above.shape, target_gray.shape)
    if not covered.any():
        return None
    above, below = _match_sharpness(above, below, homography, covered, scale)
    look = _Template(above)
    homography, seen = _refine_homography(look, below, homography)
    covered = _overlapping_tiles(
        homography, above.shape, target_gray.shape
    ) & _find_border_safe_tiles(
        homography, origin, look.texture.shape, template_gray.shape, target_gray.shape
    )
    least = max(MIN_TEXTURE, MIN_TEXTURE_TO_NOISE * noise)
    told = covered & ((look.texture > least) | (seen.texture > 2 * least))
    told &= ~_clipped_tiles(look, seen, told)
    ground = _Target(below, homography, told.shape)
    seen = _refine_quadratic(look, ground, seen, told)
    nearby, moves = _search_displacement(look, ground, seen, told)
    both = told & (look.texture > least) & (seen.texture > least)
    return Residual(
        seen.ncc,
        nearby,
        moves,
        told,
        both,
        origin,
        homography @ np.linalg.inv(shifted),
        look,
        ground,
    )


@dataclass(frozen=True, slots=True)
class _TileStats:
    ncc: TileMap
    mean: TileMap  # of what lies below
    texture: TileMap
    steps: NDArray[np.float32]  # (rows, columns, 2): how far each tile would have to go


class _Template:
    """The picture above, and what is to be known of it once. Pixels go by tiles here: (rows, columns, TILE * TILE)."""

    def __init__(self, pixels: GrayPixels) -> None:
        self.shape = pixels.shape
        # The picture and its slopes, (rows, columns, 3, TILE * TILE): one product with what lies below tells all that is asked.
        self._pixels_and_gradients = np.stack(
            [_split_into_tiles(grey) for grey in (pixels, *_gradients(pixels))], axis=2
        )
        self.tiles: GrayPixels = self._pixels_and_gradients[:, :, 0]
        means, products = (
            self._pixels_and_gradients.mean(axis=3),
            np.matmul(self._pixels_and_gradients, np.swapaxes(self._pixels_and_gradients, 2, 3))
            / TILE_SIDE_PX**2,
        )
        self.mean, self._mean_gradient = means[..., 0], means[..., 1:]
        self._variance = np.maximum(products[..., 0, 0] - self.mean**2, 0.0)
        graded = (
            (self._mean_gradient**2).sum(axis=-1) * (TILE_SIDE_PX**2 - 1) / 12
        )  # the variance of an even slope, which tells nothing
        self.texture: TileMap = np.sqrt(np.maximum(self._variance - graded, 0.0))
        self._mean_pixel_gradient = products[..., 0, 1:]
        xx, xy, yy = products[..., 1, 1], products[..., 1, 2], products[..., 2, 2]
        easing = 0.02 * (xx + yy) + 1.0
        xx, yy = xx + easing, yy + easing
        self._inverse_hessian = (
            np.stack([np.stack([yy, -xy], -1), np.stack([-xy, xx], -1)], -2)
            / (xx * yy - xy * xy)[..., None, None]
        )

    def compare(self, target_tiles: GrayPixels) -> _TileStats:
        """How the tiles agree with what lies below them, brightness and contrast of each set aside, and where each would go."""
        mean = target_tiles.mean(axis=2)
        variance = np.maximum(
            np.einsum("rcp,rcp->rc", target_tiles, target_tiles) / TILE_SIDE_PX**2 - mean**2, 0.0
        )
        products = (
            np.matmul(self._pixels_and_gradients, target_tiles[..., None])[..., 0] / TILE_SIDE_PX**2
        )
        common = products[..., 0] - self.mean * mean
        agrees = np.clip(
            common
            / np.sqrt(
                np.maximum(self._variance, MIN_VARIANCE) * np.maximum(variance, MIN_VARIANCE)
            ),
            -1.0,
            1.0,
        )
        gain = np.clip(common / np.maximum(variance, MIN_VARIANCE), 0.2, 5.0)[..., None]
        pull = (
            self._mean_pixel_gradient
            - self.mean[..., None] * self._mean_gradient
            - gain * (products[..., 1:] - mean[..., None] * self._mean_gradient)
        )
        return _TileStats(
            agrees, mean, np.sqrt(variance), np.einsum("rcij,rcj->rci", self._inverse_hessian, pull)
        )


def _clipped_tiles(
    template: _Template, stats: _TileStats, valid: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tiles that one picture shows and the other cannot: by what tones become where they agree, its white, or its black, is full."""
    sure = valid & (stats.ncc > 0.8)
    if np.count_nonzero(sure) < 4:
        return np.zeros_like(valid)
    gain = float(np.median(stats.texture[sure] / np.maximum(template.texture[sure], 1e-3)))
    lift = float(np.median(stats.mean[sure] - gain * template.mean[sure]))
    below, above = gain * template.mean + lift, (stats.mean - lift) / max(gain, 1e-3)
    full = ((below > MIN_WHITE_LEVEL) | (below < MAX_BLACK_LEVEL)) & (stats.texture < MIN_TEXTURE)
    return np.asarray(
        full
        | (
            ((above > MIN_WHITE_LEVEL) | (above < MAX_BLACK_LEVEL))
            & (template.texture < MIN_TEXTURE)
        )
    )


def _refine_homography(
    template: _Template, target_pixels: GrayPixels, homography: Homography
) -> tuple[Homography, _TileStats]:
    """The transform that brings most tiles home, of those that each tile's step leads to, and what is seen through it."""
    centres, most = _compute_tile_centers(*template.texture.shape), -1.0
    for _ in range(MAX_HOMOGRAPHY_ITERATIONS):
        seen = template.compare(_split_into_tiles(_warp(target_pixels, homography, template.shape)))
        telling = _overlapping_tiles(homography, template.shape, target_pixels.shape) & (
            template.texture > MIN_TEXTURE
        )
        home = float(np.maximum(seen.ncc[telling], 0.0).sum())
        if home > most:
            best, most = (homography, seen), home
        sure = telling & (seen.ncc > 0.4)
        if np.count_nonzero(sure) < 4:
            break
        steps, start = np.clip(seen.steps[sure], -4.0, 4.0), centres[sure]
        if np.percentile(np.hypot(*steps.T), 80) < MIN_STEP_PX:
            break
        fitted = fit_homography(
            start,
            apply_homography(homography, start + steps),
            seen.ncc[sure].astype(np.float64) ** 2,
        )
        if fitted is None:
            break
        homography = fitted
    return best


@lru_cache(maxsize=64)
def _compute_pixel_points(rows: int, columns: int) -> NDArray[np.float32]:
    """x and y of each pixel of so many tiles, by tiles: (2, rows, columns, TILE * TILE)."""
    x, y = (
        np.arange(columns * TILE_SIDE_PX, dtype=np.float32),
        np.arange(rows * TILE_SIDE_PX, dtype=np.float32),
    )
    return np.stack([_split_into_tiles(places) for places in np.meshgrid(x, y)])


@lru_cache(maxsize=64)
def _compute_tile_centers(rows: int, columns: int) -> NDArray[np.float64]:
    """x and y of the middle of each of so many tiles, (rows, columns, 2)."""
    y, x = np.mgrid[0:rows, 0:columns] * float(TILE_SIDE_PX) + (TILE_SIDE_PX - 1) / 2
    return np.stack([x, y], axis=-1)


class _Target:
    """The picture below, looked at through a transform, away from which each place can be moved."""

    def __init__(
        self, pixels: GrayPixels, homography: Homography, grid_shape: tuple[int, ...]
    ) -> None:
        x, y = _compute_pixel_points(*grid_shape)
        first, second, third = (
            row[0] * x + row[1] * y + row[2] for row in homography.astype(np.float32)
        )
        self._pixels, self.points = pixels, np.stack([first / third, second / third])
        self._jacobians = jacobian(homography, _compute_tile_centers(*grid_shape)).astype(
            np.float32
        )

    def map_steps(self, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where steps above (rows, columns, 2) lead to below."""
        return np.asarray(np.einsum("rcij,rcj->rci", self._jacobians, steps))

    def sample(self, offsets: NDArray[np.float32]) -> GrayPixels:
        """What lies at each place after it was moved; `moves` (2, rows, columns, TILE * TILE, or 1 for all of a tile), in pixels below."""
        places = self.points + offsets
        x, y = places.reshape(2, -1, TILE_SIDE_PX**2)
        return np.asarray(cv2.remap(self._pixels, x, y, cv2.INTER_LINEAR), np.float32).reshape(
            places.shape[1:]
        )


def _refine_quadratic(
    template: _Template, target: _Target, stats: _TileStats, valid: NDArray[np.bool_]
) -> _TileStats:
    """With the best smooth bend of second degree, where tiles still move and it brings them home: lenses, and warps that are no projection.

    What lies below stays bent.
    """
    straight = valid & (stats.ncc > 0.5)
    if np.count_nonzero(straight) < 24 or (np.hypot(*stats.steps[straight].T) > 0.3).mean() < 0.1:
        return stats
    tiles, pixels = _compute_quadratic_terms(*valid.shape)
    bend, now, moves = np.zeros((6, 2)), stats, np.zeros_like(target.points)
    for _ in range(MAX_QUADRATIC_ITERATIONS):
        sure = valid & (now.ncc > 0.5)
        if np.count_nonzero(sure) < 24:
            return stats
        known, before = tiles[sure], bend
        goal = known @ bend + target.map_steps(np.clip(now.steps, -3.0, 3.0))[sure]
        bend = robust_lstsq(known, goal, now.ncc[sure] ** 2)
        moves = np.tensordot(bend.T.astype(np.float32), pixels, 1)
        now = template.compare(target.sample(moves))
        if np.abs(known @ (bend - before)).max() < MIN_STEP_PX:
            break
    if now.ncc[valid].mean() <= stats.ncc[valid].mean():
        return stats
    target.points = target.points + moves
    return now


@lru_cache(maxsize=16)
def _compute_quadratic_terms(
    rows: int, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Those of a bend of second degree at the middle of each tile (rows, columns, 6), and at each pixel (6, rows, columns, TILE * TILE)."""
    half = TILE_SIDE_PX * max(rows, columns) / 2

    def evaluate_terms(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
        x, y = (x - TILE_SIDE_PX * columns / 2) / half, (y - TILE_SIDE_PX * rows / 2) / half
        return np.stack([np.ones_like(x), x, y, x * y, x * x, y * y])

    centres = evaluate_terms(*np.moveaxis(_compute_tile_centers(rows, columns), -1, 0))
    return np.moveaxis(centres, 0, -1).astype(np.float64), evaluate_terms(
        *_compute_pixel_points(rows, columns)
    ).astype(np.float32)


def _search_displacement(
    template: _Template, target: _Target, stats: _TileStats, valid: NDArray[np.bool_]
) -> tuple[TileMap, NDArray[np.float32]]:
    """The best agreement of each tile when it may move by itself, and the move. Where all agree well in place, none is moved."""
    best, where, moves, now = (
        stats.ncc.copy(),
        np.zeros_like(stats.steps),
        np.zeros_like(stats.steps),
        stats,
    )
    for _ in range(MAX_DISPLACEMENT_ITERATIONS if (stats.ncc[valid] < CONFIDENT_NCC).any() else 0):
        moves = np.clip(moves + now.steps, -MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX)
        now = template.compare(
            target.sample(np.moveaxis(target.map_steps(moves), -1, 0)[..., None])
        )
        better = now.ncc > best
        best[better], where[better] = now.ncc[better], moves[better]
    return best, where


def _match_sharpness(
    template_pixels: GrayPixels,
    target_pixels: GrayPixels,
    homography: Homography,
    mask: NDArray[np.bool_],
    scale: float,
) -> tuple[GrayPixels, GrayPixels]:
    """Both pictures, the sharper one blurred to be as soft as the other; a blurred copy then agrees with its original."""
    one, other = (
        _measure_sharpness(template_pixels, mask),
        _measure_sharpness(_warp(target_pixels, homography, template_pixels.shape), mask),
    )
    if other < MIN_SHARPNESS_RATIO * one:
        for blur in BLUR_SIGMAS_PX:
            soft = cv2.GaussianBlur(template_pixels, (0, 0), blur)
            if _measure_sharpness(soft, mask) <= 1.05 * other:
                break
        return soft, target_pixels
    if one < MIN_SHARPNESS_RATIO * other:
        for blur in BLUR_SIGMAS_PX:
            soft = cv2.GaussianBlur(target_pixels, (0, 0), blur * scale)
            if (
                _measure_sharpness(_warp(soft, homography, template_pixels.shape), mask)
                <= 1.05 * one
            ):
                break
        return template_pixels, soft
    return template_pixels, target_pixels


def _measure_sharpness(gray: GrayPixels, mask: NDArray[np.bool_]) -> float:
    """The energy of slopes over that of tones, whatever the contrast."""
    across, down = _gradients(gray)
    mean = _average_tiles(gray)
    tones = (_average_tiles(gray * gray) - mean**2)[mask].sum()
    return float(_average_tiles(across**2 + down**2)[mask].sum() / max(tones, 1e-3))


def _overlapping_tiles(
    homography: Homography, template_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """The tiles whose corners all lie on the picture below."""
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
    """Where tiles begin on a picture, (x, y), and how many columns and rows of them fill what it shares with another."""
    size, corners = np.array(template_shape[1::-1]), UNIT_CORNERS * target_shape[1::-1] - 0.5
    back = invert_homography(homography)
    low, high = np.full(2, -0.5), size - 0.5
    if (corners @ back[2, :2] + back[2, 2] > 0).all():
        ends = apply_homography(back, corners)
        first, last = ends.min(axis=0), ends.max(axis=0)
        low = np.where(
            np.abs(first - low) > BORDER_MARGIN_PX, np.maximum(low, first) + BORDER_MARGIN_PX, low
        )  # one goes on where the other ends
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
    """The tiles around which both pictures go on, or neither does: what lies beyond the outline of one alone is blurred into them."""
    y, x = np.mgrid[0 : grid_shape[0], 0 : grid_shape[1]] * float(TILE_SIDE_PX) - 0.5
    around = (
        np.stack([x, y], axis=-1)[:, :, None]
        + UNIT_CORNERS * (TILE_SIDE_PX + 2 * BORDER_MARGIN_PX)
        - BORDER_MARGIN_PX
    ).reshape(-1, 2)
    alike = _is_inside(around + origin, template_shape) == _is_inside(
        apply_homography(homography, around), target_shape
    )
    return np.asarray(alike.reshape(*grid_shape, len(UNIT_CORNERS)).all(axis=-1))


def _is_inside(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of places (n, 2) lie on a picture (height, width)."""
    return np.asarray(((points >= -0.5) & (points <= np.array(shape[::-1]) - 0.5)).all(axis=1))


@lru_cache(maxsize=64)
def _compute_tile_corners(rows: int, columns: int) -> NDArray[np.float64]:
    """Places (x, y, 1) of the corners of so many tiles, (3, rows + 1, columns + 1)."""
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
    across, down = (
        cv2.Sobel(gray, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(gray, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    return np.asarray(across, np.float32), np.asarray(down, np.float32)


def _average_tiles(gray: GrayPixels) -> TileMap:
    """The mean of each tile."""
    return np.asarray(
        cv2.resize(
            gray,
            (gray.shape[1] // TILE_SIDE_PX, gray.shape[0] // TILE_SIDE_PX),
            interpolation=cv2.INTER_AREA,
        ),
        np.float32,
    )


def _split_into_tiles(gray: GrayPixels) -> GrayPixels:
    """A picture by tiles, (rows, columns, TILE * TILE)."""
    rows, columns = gray.shape[0] // TILE_SIDE_PX, gray.shape[1] // TILE_SIDE_PX
    return (
        gray.reshape(rows, TILE_SIDE_PX, columns, TILE_SIDE_PX)
        .swapaxes(1, 2)
        .reshape(rows, columns, TILE_SIDE_PX**2)
    )
