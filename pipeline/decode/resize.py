"""How a picture becomes an embedder's input, and whether it shows anything at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode.preprocess import Preprocess

FEATURELESS_GRID_SIDE, MAX_FEATURELESS_STD_LEVELS = 32, 2.0  # see is_featureless
TRANSPOSE_BY_ORIENTATION = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is to be seen, by its EXIF orientation."""
    return (
        image.transpose(TRANSPOSE_BY_ORIENTATION[orientation])
        if orientation in TRANSPOSE_BY_ORIENTATION
        else image
    )


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def preprocess_image(
    image: Image.Image,
    preprocess: Preprocess,
    to_rgb: Callable[[Image.Image], Image.Image] = _convert_to_rgb,
) -> tuple[NDArray[np.uint8], bool]:
    """The picture as (height, width, 3) uint8, transparency laid on white; and whether what it shows is featureless.

    It is L, RGB, RGBA, or anything that `shown` makes RGB of. That is asked when the picture has its size, because colours cost more.
    """
    size, resample = preprocess.size, Image.Resampling[preprocess.resample.upper()]
    width, height = image.size
    if preprocess.fit == "squash":
        target = (size, size)
    elif (
        preprocess.fit == "shortest"
    ):  # the rounding of torchvision's Resize and, below, of open_clip's ResizeKeepRatio
        short = min(width, height)
        target = (int(size * width / short), int(size * height / short))
    elif preprocess.fit == "middle":
        target = (min(width, size), min(height, size))
        image = _center_crop_or_pad(image, target)
    else:
        ratio = max(width, height) / size
        if preprocess.fit == "within":
            ratio = max(1.0, ratio)
        target = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    if max(target) > 64 * size:  # a strip: as much of its middle as can show at all
        image = _center_crop_or_pad(image, (min(width, 64 * height), min(height, 64 * width)))
        return preprocess_image(image, preprocess, to_rgb)
    resized = image if image.size == target else image.resize(target, resample, reducing_gap=3.0)
    if resized.mode == "RGBA":
        ground = Image.new("RGBA", resized.size, (255, 255, 255, 255))
        resized = Image.alpha_composite(ground, resized).convert("RGB")
    rgb = to_rgb(resized)
    if preprocess.fit == "shortest":
        rgb = _center_crop_or_pad(rgb, (size, size))
    featureless = is_featureless(rgb)
    return np.asarray(
        _center_crop_or_pad(rgb, (size, size), preprocess.fill)
        if preprocess.fit == "longest"
        else rgb
    ), featureless


def _center_crop_or_pad(image: Image.Image, size: tuple[int, int], fill: int = 0) -> Image.Image:
    """The middle of a picture, on `fill` grey where it is smaller than `size`."""
    if image.width < size[0] or image.height < size[1]:
        ground = Image.new("RGB", size, (fill, fill, fill))
        ground.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
        return ground
    left, top = round((image.width - size[0]) / 2.0), round((image.height - size[1]) / 2.0)
    return image.crop((left, top, left + size[0], top + size[1]))


def is_featureless(image: Image.Image) -> bool:
    """Whether a picture shows nothing to recognise: one colour, or a smooth change between colours.

    What is left of 32 x 32 cells after the best surface of second degree is taken away, as a standard deviation in grey levels, in the
    channel that has most. Measured: 0 to 1.5 for blank, noisy and graded pictures, 3.3 and up for 4,700 photos, drawings and patches
    of cloth.
    """
    cells = np.asarray(
        image.resize((FEATURELESS_GRID_SIDE, FEATURELESS_GRID_SIDE), Image.Resampling.BOX),
        dtype=np.float64,
    ).reshape(FEATURELESS_GRID_SIDE * FEATURELESS_GRID_SIDE, 3)
    surface = _build_quadratic_basis()
    return bool(
        (cells - surface @ (surface.T @ cells)).std(axis=0).max() < MAX_FEATURELESS_STD_LEVELS
    )


@cache
def _build_quadratic_basis() -> NDArray[np.float64]:
    """An orthonormal basis of 1, x, y, x2, xy, y2 over the cells, as columns."""
    y, x = (
        grid.ravel()
        for grid in np.mgrid[
            -1 : 1 : FEATURELESS_GRID_SIDE * 1j, -1 : 1 : FEATURELESS_GRID_SIDE * 1j
        ]
    )
    return np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1))[0]
