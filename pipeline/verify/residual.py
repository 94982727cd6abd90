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

from pipeline.verify.homography import SQUARE, Matrix, fit, inverse, least_squares, moved, scale_of, slopes_of

Grey = NDArray[np.float32]
Map = NDArray[np.float32]  # a number for each tile, (rows, columns)

TILE = 24  # pixels of a side
CELL, ROUGH = 8, 0.5  # pixels of a cell's side, and what it always may differ by, in squared grey levels
TEXTURE = 4.0  # grey levels, as a standard deviation, below which a tile tells nothing
DROWNED = 0.42  # of the noise: SOFT leaves .28 of it, and a tile with 1.5 times as much texture still agrees by more than .8
SOFT = 1.0  # pixels of blur before anything is compared: noise and codecs live below it
EDGE = 2.0  # pixels inside a picture's outline to which the blur brings what lies beyond: a border there, nothing here
FLAT = 1.0  # the variance, in grey levels, of what shows nothing: below it rounding would tell how tiles agree
SHARPER = 0.7  # a picture with less than this share of the other's sharpness is the softer one, and the other is blurred to match
BLURS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # pixels, tried in turn
ROUNDS, BENDS, STEPS = 6, 8, 4  # of refining: the transform, a bend of it, and each tile's own place, at most
CERTAIN = 0.97  # the correlation of a tile that would be no better elsewhere
FAR = 8.0  # pixels that a tile may move
BLACK, WHITE = -118.0, 112.0  # from the middle grey: tones that cannot get much darker, or brighter
STILL = 0.05  # pixels; when four of five tiles move less, nothing more is to be refined


@dataclass(frozen=True, slots=True)
class Residual:
    """All maps are (rows, columns) of tiles over the first picture, beginning at `origin` (x, y).

    `agrees`: the correlation of each tile with what lies below it, -1 to 1; `nearby`: the best when it may move, and `moves` (rows,
    columns, 2) by how many pixels. `told`: whether a tile lies on the other picture with all of itself, and shows enough to be compared;
    `both`: whether it does on both.
    `matrix` takes the first picture's pixels to the second's; a smooth bend may have been added to it.
    """

    agrees: Map
    nearby: Map
    moves: NDArray[np.float32]
    told: NDArray[np.bool_]
    both: NDArray[np.bool_]
    origin: tuple[int, int]
    matrix: Matrix
    _look: _Look
    _ground: _Ground

    def odd(self) -> float:
        """How many times as much the cell that differs most does so as that which 95 of 100 stay below. One letter that is another is a
        cell or two; codecs spoil all alike.
        """
        in_place = self._ground.at(np.zeros((2, 1, 1, 1), np.float32))
        above, below = (some[self.told] - some[self.told].mean(axis=1, keepdims=True) for some in (self._look.tiles, in_place))
        gain = (above * below).sum(axis=1, keepdims=True) / np.maximum((below * below).sum(axis=1, keepdims=True), FLAT)
        count, unlike = TILE // CELL, (above - gain * below) ** 2
        cells = unlike.reshape(-1, count, CELL, count, CELL).mean(axis=(2, 4))
        return float(cells.max() / (np.percentile(cells, 95) + ROUGH))


def residual(one: NDArray[np.uint8], other: NDArray[np.uint8], matrix: Matrix, noise: float) -> Residual | None:
    """Compare two grey pictures; `matrix` takes pixels of `one` to those of `other`, and does not make them smaller (swap the two if so).
    `noise`: the standard deviation of that of the noisier one, in grey levels.

    None where not one tile of `one` fits on `other`.
    """
    origin, (columns, rows) = _grid(matrix, one.shape, other.shape)
    if not rows or not columns:
        return None
    shifted = np.array([[1.0, 0.0, origin[0]], [0.0, 1.0, origin[1]], [0.0, 0.0, 1.0]])
    matrix, scale = matrix @ shifted, max(1.0, scale_of(matrix))
    above = _soft(one, SOFT)[origin[1] : origin[1] + rows * TILE, origin[0] : origin[0] + columns * TILE]
    below = _soft(other, SOFT * scale)
    covered = _covered(matrix, above.shape, other.shape)
    if not covered.any():
        return None
    above, below = _as_soft(above, below, matrix, covered, scale)
    look = _Look(above)
    matrix, seen = _refined(look, below, matrix)
    covered = _covered(matrix, above.shape, other.shape) & _as_far(matrix, origin, look.texture.shape, one.shape, other.shape)
    least = max(TEXTURE, DROWNED * noise)
    told = covered & ((look.texture > least) | (seen.texture > 2 * least))
    told &= ~_burnt(look, seen, told)
    ground = _Ground(below, matrix, told.shape)
    seen = _bent(look, ground, seen, told)
    nearby, moves = _each_moved(look, ground, seen, told)
    both = told & (look.texture > least) & (seen.texture > least)
    return Residual(seen.agrees, nearby, moves, told, both, origin, matrix @ np.linalg.inv(shifted), look, ground)


@dataclass(frozen=True, slots=True)
class _Seen:
    agrees: Map
    mean: Map  # of what lies below
    texture: Map
    steps: NDArray[np.float32]  # (rows, columns, 2): how far each tile would have to go


class _Look:
    """The picture above, and what is to be known of it once. Pixels go by tiles here: (rows, columns, TILE * TILE)."""

    def __init__(self, above: Grey) -> None:
        self.shape = above.shape
        # The picture and its slopes, (rows, columns, 3, TILE * TILE): one product with what lies below tells all that is asked.
        self._all = np.stack([_tiled(grey) for grey in (above, *_slopes(above))], axis=2)
        self.tiles: Grey = self._all[:, :, 0]
        means, products = self._all.mean(axis=3), np.matmul(self._all, np.swapaxes(self._all, 2, 3)) / TILE**2
        self.mean, self._slope = means[..., 0], means[..., 1:]
        self._variance = np.maximum(products[..., 0, 0] - self.mean**2, 0.0)
        graded = (self._slope**2).sum(axis=-1) * (TILE**2 - 1) / 12  # the variance of an even slope, which tells nothing
        self.texture: Map = np.sqrt(np.maximum(self._variance - graded, 0.0))
        self._sloped = products[..., 0, 1:]
        xx, xy, yy = products[..., 1, 1], products[..., 1, 2], products[..., 2, 2]
        easing = 0.02 * (xx + yy) + 1.0
        xx, yy = xx + easing, yy + easing
        self._inverse = np.stack([np.stack([yy, -xy], -1), np.stack([-xy, xx], -1)], -2) / (xx * yy - xy * xy)[..., None, None]

    def at(self, below: Grey) -> _Seen:
        """How the tiles agree with what lies below them, brightness and contrast of each set aside, and where each would go."""
        mean = below.mean(axis=2)
        variance = np.maximum(np.einsum("rcp,rcp->rc", below, below) / TILE**2 - mean**2, 0.0)
        products = np.matmul(self._all, below[..., None])[..., 0] / TILE**2
        common = products[..., 0] - self.mean * mean
        agrees = np.clip(common / np.sqrt(np.maximum(self._variance, FLAT) * np.maximum(variance, FLAT)), -1.0, 1.0)
        gain = np.clip(common / np.maximum(variance, FLAT), 0.2, 5.0)[..., None]
        pull = self._sloped - self.mean[..., None] * self._slope - gain * (products[..., 1:] - mean[..., None] * self._slope)
        return _Seen(agrees, mean, np.sqrt(variance), np.einsum("rcij,rcj->rci", self._inverse, pull))


def _burnt(look: _Look, seen: _Seen, told: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tiles that one picture shows and the other cannot: by what tones become where they agree, its white, or its black, is full."""
    sure = told & (seen.agrees > 0.8)
    if np.count_nonzero(sure) < 4:
        return np.zeros_like(told)
    gain = float(np.median(seen.texture[sure] / np.maximum(look.texture[sure], 1e-3)))
    lift = float(np.median(seen.mean[sure] - gain * look.mean[sure]))
    below, above = gain * look.mean + lift, (seen.mean - lift) / max(gain, 1e-3)
    full = ((below > WHITE) | (below < BLACK)) & (seen.texture < TEXTURE)
    return np.asarray(full | (((above > WHITE) | (above < BLACK)) & (look.texture < TEXTURE)))


def _refined(look: _Look, below: Grey, matrix: Matrix) -> tuple[Matrix, _Seen]:
    """The transform that brings most tiles home, of those that each tile's step leads to, and what is seen through it."""
    centres, most = _centres(*look.texture.shape), -1.0
    for _ in range(ROUNDS):
        seen = look.at(_tiled(_warped(below, matrix, look.shape)))
        telling = _covered(matrix, look.shape, below.shape) & (look.texture > TEXTURE)
        home = float(np.maximum(seen.agrees[telling], 0.0).sum())
        if home > most:
            best, most = (matrix, seen), home
        sure = telling & (seen.agrees > 0.4)
        if np.count_nonzero(sure) < 4:
            break
        steps, start = np.clip(seen.steps[sure], -4.0, 4.0), centres[sure]
        if np.percentile(np.hypot(*steps.T), 80) < STILL:
            break
        fitted = fit(start, moved(matrix, start + steps), seen.agrees[sure].astype(np.float64) ** 2)
        if fitted is None:
            break
        matrix = fitted
    return best


@lru_cache(maxsize=64)
def _places(rows: int, columns: int) -> NDArray[np.float32]:
    """x and y of each pixel of so many tiles, by tiles: (2, rows, columns, TILE * TILE)."""
    x, y = np.arange(columns * TILE, dtype=np.float32), np.arange(rows * TILE, dtype=np.float32)
    return np.stack([_tiled(places) for places in np.meshgrid(x, y)])


@lru_cache(maxsize=64)
def _centres(rows: int, columns: int) -> NDArray[np.float64]:
    """x and y of the middle of each of so many tiles, (rows, columns, 2)."""
    y, x = np.mgrid[0:rows, 0:columns] * float(TILE) + (TILE - 1) / 2
    return np.stack([x, y], axis=-1)


class _Ground:
    """The picture below, looked at through a transform, away from which each place can be moved."""

    def __init__(self, below: Grey, matrix: Matrix, tiles: tuple[int, ...]) -> None:
        x, y = _places(*tiles)
        first, second, third = (row[0] * x + row[1] * y + row[2] for row in matrix.astype(np.float32))
        self._below, self.places = below, np.stack([first / third, second / third])
        self._slopes = slopes_of(matrix, _centres(*tiles)).astype(np.float32)

    def as_below(self, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where steps above (rows, columns, 2) lead to below."""
        return np.asarray(np.einsum("rcij,rcj->rci", self._slopes, steps))

    def at(self, moves: NDArray[np.float32]) -> Grey:
        """What lies at each place after it was moved; `moves` (2, rows, columns, TILE * TILE, or 1 for all of a tile), in pixels below."""
        places = self.places + moves
        x, y = places.reshape(2, -1, TILE**2)
        return np.asarray(cv2.remap(self._below, x, y, cv2.INTER_LINEAR), np.float32).reshape(places.shape[1:])


def _bent(look: _Look, ground: _Ground, seen: _Seen, told: NDArray[np.bool_]) -> _Seen:
    """With the best smooth bend of second degree, where tiles still move and it brings them home: lenses, and warps that are no projection.

    What lies below stays bent.
    """
    straight = told & (seen.agrees > 0.5)
    if np.count_nonzero(straight) < 24 or (np.hypot(*seen.steps[straight].T) > 0.3).mean() < 0.1:
        return seen
    tiles, pixels = _terms(*told.shape)
    bend, now, moves = np.zeros((6, 2)), seen, np.zeros_like(ground.places)
    for _ in range(BENDS):
        sure = told & (now.agrees > 0.5)
        if np.count_nonzero(sure) < 24:
            return seen
        known, before = tiles[sure], bend
        goal = known @ bend + ground.as_below(np.clip(now.steps, -3.0, 3.0))[sure]
        bend = least_squares(known, goal, now.agrees[sure] ** 2)
        moves = np.tensordot(bend.T.astype(np.float32), pixels, 1)
        now = look.at(ground.at(moves))
        if np.abs(known @ (bend - before)).max() < STILL:
            break
    if now.agrees[told].mean() <= seen.agrees[told].mean():
        return seen
    ground.places = ground.places + moves
    return now


@lru_cache(maxsize=16)
def _terms(rows: int, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Those of a bend of second degree at the middle of each tile (rows, columns, 6), and at each pixel (6, rows, columns, TILE * TILE)."""
    half = TILE * max(rows, columns) / 2

    def terms(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
        x, y = (x - TILE * columns / 2) / half, (y - TILE * rows / 2) / half
        return np.stack([np.ones_like(x), x, y, x * y, x * x, y * y])

    centres = terms(*np.moveaxis(_centres(rows, columns), -1, 0))
    return np.moveaxis(centres, 0, -1).astype(np.float64), terms(*_places(rows, columns)).astype(np.float32)


def _each_moved(look: _Look, ground: _Ground, seen: _Seen, told: NDArray[np.bool_]) -> tuple[Map, NDArray[np.float32]]:
    """The best agreement of each tile when it may move by itself, and the move. Where all agree well in place, none is moved."""
    best, where, moves, now = seen.agrees.copy(), np.zeros_like(seen.steps), np.zeros_like(seen.steps), seen
    for _ in range(STEPS if (seen.agrees[told] < CERTAIN).any() else 0):
        moves = np.clip(moves + now.steps, -FAR, FAR)
        now = look.at(ground.at(np.moveaxis(ground.as_below(moves), -1, 0)[..., None]))
        better = now.agrees > best
        best[better], where[better] = now.agrees[better], moves[better]
    return best, where


def _as_soft(above: Grey, below: Grey, matrix: Matrix, covered: NDArray[np.bool_], scale: float) -> tuple[Grey, Grey]:
    """Both pictures, the sharper one blurred to be as soft as the other; a blurred copy then agrees with its original."""
    one, other = _sharpness(above, covered), _sharpness(_warped(below, matrix, above.shape), covered)
    if other < SHARPER * one:
        for blur in BLURS:
            soft = cv2.GaussianBlur(above, (0, 0), blur)
            if _sharpness(soft, covered) <= 1.05 * other:
                break
        return soft, below
    if one < SHARPER * other:
        for blur in BLURS:
            soft = cv2.GaussianBlur(below, (0, 0), blur * scale)
            if _sharpness(_warped(soft, matrix, above.shape), covered) <= 1.05 * one:
                break
        return above, soft
    return above, below


def _sharpness(grey: Grey, where: NDArray[np.bool_]) -> float:
    """The energy of slopes over that of tones, whatever the contrast."""
    across, down = _slopes(grey)
    mean = _means(grey)
    tones = (_means(grey * grey) - mean**2)[where].sum()
    return float(_means(across**2 + down**2)[where].sum() / max(tones, 1e-3))


def _covered(matrix: Matrix, above: tuple[int, ...], below: tuple[int, ...]) -> NDArray[np.bool_]:
    """The tiles whose corners all lie on the picture below."""
    rows, columns = above[0] // TILE, above[1] // TILE
    x, y, depth = np.tensordot(matrix, _corners(rows, columns), 1)
    inside = (x >= -depth) & (y >= -depth) & (x <= below[1] * depth) & (y <= below[0] * depth) & (depth > 0)
    return np.asarray(inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:])


def _grid(matrix: Matrix, one: tuple[int, ...], other: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where tiles begin on a picture, (x, y), and how many columns and rows of them fill what it shares with another."""
    size, corners = np.array(one[1::-1]), SQUARE * other[1::-1] - 0.5
    back = inverse(matrix)
    low, high = np.full(2, -0.5), size - 0.5
    if (corners @ back[2, :2] + back[2, 2] > 0).all():
        ends = moved(back, corners)
        first, last = ends.min(axis=0), ends.max(axis=0)
        low = np.where(np.abs(first - low) > EDGE, np.maximum(low, first) + EDGE, low)  # one goes on where the other ends
        high = np.where(np.abs(last - high) > EDGE, np.minimum(high, last) - EDGE, high)
    count = np.maximum(0, (high - low + 1e-6) // TILE).astype(int)
    start = np.ceil(low + (high - low - count * TILE) / 2 - 1e-6).astype(int)
    start = np.clip(start, 0, np.maximum(0, size - count * TILE))
    return (int(start[0]), int(start[1])), (int(count[0]), int(count[1]))


def _as_far(
    matrix: Matrix, origin: tuple[int, int], tiles: tuple[int, ...], one: tuple[int, ...], other: tuple[int, ...]
) -> NDArray[np.bool_]:
    """The tiles around which both pictures go on, or neither does: what lies beyond the outline of one alone is blurred into them."""
    y, x = np.mgrid[0 : tiles[0], 0 : tiles[1]] * float(TILE) - 0.5
    around = (np.stack([x, y], axis=-1)[:, :, None] + SQUARE * (TILE + 2 * EDGE) - EDGE).reshape(-1, 2)
    alike = _on(around + origin, one) == _on(moved(matrix, around), other)
    return np.asarray(alike.reshape(*tiles, len(SQUARE)).all(axis=-1))


def _on(places: NDArray[np.float64], picture: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of places (n, 2) lie on a picture (height, width)."""
    return np.asarray(((places >= -0.5) & (places <= np.array(picture[::-1]) - 0.5)).all(axis=1))


@lru_cache(maxsize=64)
def _corners(rows: int, columns: int) -> NDArray[np.float64]:
    """Places (x, y, 1) of the corners of so many tiles, (3, rows + 1, columns + 1)."""
    y, x = np.mgrid[0 : rows + 1, 0 : columns + 1] * float(TILE) - 0.5
    return np.stack([x, y, np.ones_like(x)])


def _soft(grey: NDArray[np.uint8], blur: float) -> Grey:
    return np.asarray(cv2.GaussianBlur(grey.astype(np.float32) - 128.0, (0, 0), blur), np.float32)


def _warped(below: Grey, matrix: Matrix, shape: tuple[int, ...]) -> Grey:
    return np.asarray(cv2.warpPerspective(below, matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.float32)


def _slopes(grey: Grey) -> tuple[Grey, Grey]:
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(across, np.float32), np.asarray(down, np.float32)


def _means(grey: Grey) -> Map:
    """The mean of each tile."""
    return np.asarray(cv2.resize(grey, (grey.shape[1] // TILE, grey.shape[0] // TILE), interpolation=cv2.INTER_AREA), np.float32)


def _tiled(grey: Grey) -> Grey:
    """A picture by tiles, (rows, columns, TILE * TILE)."""
    rows, columns = grey.shape[0] // TILE, grey.shape[1] // TILE
    return grey.reshape(rows, TILE, columns, TILE).swapaxes(1, 2).reshape(rows, columns, TILE**2)
