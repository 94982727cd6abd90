"""Statistics of the tiles of the base, and their comparison with the target under each tile.

Image gradients give the step by which a tile would agree best (Lucas and Kanade 1981), once the
target has the mean and the contrast of the base there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.tile_grid import (
    SAMPLE_PITCH_PX,
    SAMPLES_PER_SIDE,
    GrayPixels,
    TileMap,
    average_rows,
    split_into_tiles,
)

MIN_VARIANCE = 1.0  # lower bound of a variance in a ratio; below it rounding would decide
# Damping of a Lucas-Kanade step: a share of the squared gradients, and a constant beside it.
RELATIVE_DAMPING = 0.02
ABSOLUTE_DAMPING = 1.0
# Contrast of the base over that of the target, as far as a step takes it into account.
MIN_GAIN = 0.2
MAX_GAIN = 5.0


@dataclass(frozen=True, slots=True)
class TileStats:
    """The target under each tile: NCC with the base, mean, texture, and Lucas-Kanade step.

    `texture` is the standard deviation in gray levels; `steps` (..., 2) are in samples of the base.
    """

    ncc: TileMap
    mean: TileMap
    texture: TileMap
    steps: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BaseTiles:
    """Tiles of the base with the statistics that comparisons share.

    The first axes are (rows, columns), or (n,) for a selection. `channels` (..., 3, p): the p
    samples of a tile and their gradients along x and y; one product with the target gives all sums
    that a comparison needs. `means` (..., 3) are those of the channels, `gradients` (..., 2) the
    means of a sample times its gradient. `texture` is a standard deviation in gray levels, without
    that of an even slope.
    """

    channels: GrayPixels
    means: NDArray[np.float32]
    variance: TileMap
    texture: TileMap
    gradients: NDArray[np.float32]
    inverse_hessian: NDArray[np.float32]

    @classmethod
    def from_pixels(cls, pixels: GrayPixels, pitch: int = SAMPLE_PITCH_PX) -> BaseTiles:
        """Sample pixels (height, width) at every `pitch`-th; compute the statistics of tiles."""
        rows, columns = (side // pitch // SAMPLES_PER_SIDE for side in pixels.shape)
        size = SAMPLES_PER_SIDE**2
        channels = np.empty((rows, columns, 3, size), np.float32)
        for number, channel in enumerate((pixels, *compute_gradients(pixels, pitch))):
            channels[:, :, number] = split_into_tiles(channel[::pitch, ::pitch])
        means = average_rows(channels)
        products = np.vecdot(channels, channels[:, :, :1]) / size
        variance = np.maximum(products[..., 0] - means[..., 0] ** 2, 0.0)
        slope_variance = np.vecdot(means[..., 1:], means[..., 1:]) * (size - 1) / 12
        dx, dy = channels[:, :, 1], channels[:, :, 2]
        xx, xy, yy = (np.vecdot(a, b) / size for a, b in ((dx, dx), (dx, dy), (dy, dy)))
        damping = RELATIVE_DAMPING * (xx + yy) + ABSOLUTE_DAMPING
        inverse_hessian = np.stack([yy + damping, -xy, -xy, xx + damping], axis=-1)
        inverse_hessian /= ((xx + damping) * (yy + damping) - xy * xy)[..., None]
        return cls(
            channels,
            means,
            variance,
            np.sqrt(np.maximum(variance - slope_variance, 0.0)),
            products[..., 1:],
            inverse_hessian.reshape(*xx.shape, 2, 2),
        )

    def select(self, mask: NDArray[np.bool_]) -> BaseTiles:
        """Return the tiles where a mask (rows, columns) is set."""
        return BaseTiles(*(getattr(self, field.name)[mask] for field in fields(self)))

    def compare(self, target_tiles: GrayPixels) -> TileStats:
        """Compute NCC and Lucas-Kanade steps of all tiles against target samples (..., p)."""
        size = target_tiles.shape[-1]
        mean = average_rows(target_tiles)
        variance = np.maximum(np.vecdot(target_tiles, target_tiles) / size - mean**2, 0.0)
        products = np.vecdot(self.channels, target_tiles[..., None, :]) / size
        covariances = products - self.means * mean[..., None]
        covariance = covariances[..., 0]
        floored_variance = np.maximum(variance, MIN_VARIANCE)
        ncc = covariance / np.sqrt(np.maximum(self.variance, MIN_VARIANCE) * floored_variance)
        gain = (covariance / floored_variance).clip(MIN_GAIN, MAX_GAIN)
        error_gradient = (
            self.gradients
            - self.means[..., :1] * self.means[..., 1:]
            - gain[..., None] * covariances[..., 1:]
        )
        steps = np.einsum("...ij,...j->...i", self.inverse_hessian, error_gradient)
        return TileStats(ncc.clip(-1.0, 1.0), mean, np.sqrt(variance), steps)


def compute_gradients(gray: GrayPixels, pitch: int = 1) -> tuple[GrayPixels, GrayPixels]:
    """Compute the derivatives along x and y by Sobel filters, in gray levels for `pitch` pixels."""
    dx, dy = (
        cv2.Sobel(gray, cv2.CV_32F, 1, 0, scale=pitch / 8),
        cv2.Sobel(gray, cv2.CV_32F, 0, 1, scale=pitch / 8),
    )
    return np.asarray(dx, np.float32), np.asarray(dy, np.float32)


def measure_gradient(gray: GrayPixels) -> GrayPixels:
    """Measure the magnitude of the gradient, in gray levels a pixel."""
    return np.asarray(cv2.magnitude(*compute_gradients(gray)), np.float32)
