"""Turn an image upright, resize it to an embedder's input, and tell if it is featureless."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.decode.preprocess import Preprocess

# The standard deviation of gray levels below which an image is featureless, over a grid of
# 32 x 32 cells; see is_featureless() for the measurement.
MAX_FEATURELESS_STD_LEVELS = 2.0
FEATURELESS_GRID_SIDE = 32
# Spots, such as stars: cells of a finer grid that stand out from those around them, by so many gray
# levels and so many times as much as 95 % of the cells do; see has_spots() for the measurement.
SPOT_GRID_SIDE = 96
SPOT_SURROUNDINGS_SIDE = 5  # cells
MIN_SPOTS = 10
MIN_SPOT_LEVELS = 8.0
MIN_SPOT_TO_NOISE_RATIO = 5.0
NOISE_QUANTILE = 0.95
# A longer strip is cropped at both ends before it is resized, which bounds its long side.
MAX_ASPECT_RATIO = 64
# Pillow shrinks by whole factors first, as long as three times the size is left.
REDUCING_GAP = 3.0
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
    """Turn an image upright by its EXIF orientation; an unknown one changes nothing."""
    transpose = TRANSPOSE_BY_ORIENTATION.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def preprocess_image(
    image: Image.Image,
    preprocess: Preprocess,
    to_rgb: Callable[[Image.Image], Image.Image] = _convert_to_rgb,
) -> tuple[NDArray[np.uint8], bool]:
    """Resize an image to an embedder's input, uint8 RGB (height, width, 3).

    `image` is L, RGB, RGBA, or any mode that `to_rgb` converts to RGB. Transparency is composited
    on white, or on black if nothing shows on white. Colors are converted after resizing, because
    that costs less. The second value tells if the image is featureless.
    """
    size = preprocess.size
    if preprocess.fit == "middle":
        target = min(image.width, size), min(image.height, size)
        image = _center_crop_or_pad(image, target)
    else:
        target = _compute_target_size(image.size, preprocess)
    if max(target) > MAX_ASPECT_RATIO * size:
        max_size = (
            min(image.width, MAX_ASPECT_RATIO * image.height),
            min(image.height, MAX_ASPECT_RATIO * image.width),
        )
        return preprocess_image(_center_crop_or_pad(image, max_size), preprocess, to_rgb)
    if image.size != target:
        resample = Image.Resampling[preprocess.resample.upper()]
        image = image.resize(target, resample, reducing_gap=REDUCING_GAP)
    if image.mode == "RGBA":
        image = composite_transparency(image)
    rgb = to_rgb(image)
    if preprocess.fit == "shortest":
        rgb = _center_crop_or_pad(rgb, (size, size))
    featureless = is_featureless(rgb)  # before padding, which would be a feature
    if preprocess.fit == "longest":
        rgb = _center_crop_or_pad(rgb, (size, size), preprocess.fill)
    return np.asarray(rgb), featureless


def _compute_target_size(image_size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Compute the (width, height) to resize to, before cropping or padding."""
    size, (width, height) = preprocess.size, image_size
    if preprocess.fit == "squash":
        return size, size
    if preprocess.fit == "shortest":  # rounded as by torchvision's Resize
        short = min(width, height)
        return int(size * width / short), int(size * height / short)
    ratio = max(width, height) / size
    if preprocess.fit == "within":
        ratio = max(1.0, ratio)
    # Rounded as by open_clip's ResizeKeepRatio.
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _center_crop_or_pad(image: Image.Image, size: tuple[int, int], fill: int = 0) -> Image.Image:
    """Crop the center of an image, or pad it with `fill` gray where it is smaller than `size`."""
    if image.width < size[0] or image.height < size[1]:
        padded = Image.new("RGB", size, (fill, fill, fill))
        padded.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
        return padded
    left, top = round((image.width - size[0]) / 2.0), round((image.height - size[1]) / 2.0)
    return image.crop((left, top, left + size[0], top + size[1]))


def composite_transparency(image: Image.Image) -> Image.Image:
    """Composite an RGBA image on white; on black if it is featureless on white alone.

    A white drawing on a transparent ground shows on black.
    """
    on_white = _composite(image, "white")
    if not is_featureless(on_white):
        return on_white
    on_black = _composite(image, "black")
    return on_white if is_featureless(on_black) else on_black


def _composite(image: Image.Image, backdrop: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, backdrop), image).convert("RGB")


def is_featureless(image: Image.Image) -> bool:
    """Tell if an RGB image has nothing to recognise: neither shapes nor spots."""
    return not has_shapes(image) and not has_spots(image)


def has_shapes(image: Image.Image) -> bool:
    """Tell if an RGB image is more than one color or a smooth gradient.

    Subtracts the best quadratic surface from a grid of 32 x 32 cells; the residual's standard
    deviation in gray levels, in the channel with the most, must be >= MAX_FEATURELESS_STD_LEVELS.
    Measured: 0 to 1.5 for blank, noisy and graded images, 3.3 and up for 4,700 photographs,
    drawings and patches of cloth.
    """
    side = FEATURELESS_GRID_SIDE
    grid = image.resize((side, side), Image.Resampling.BOX)
    cells = np.asarray(grid, dtype=np.float64).reshape(side * side, 3)
    basis = _build_quadratic_basis()
    residual = cells - basis @ (basis.T @ cells)
    return bool(residual.std(axis=0).max() >= MAX_FEATURELESS_STD_LEVELS)


def has_spots(image: Image.Image) -> bool:
    """Tell if an RGB image has spots on a ground that is calm beside them, as the night sky has.

    Compares the cells of a grid of 96 x 96 with the medians of those around them. Measured at the
    tenth largest difference, in gray levels, and its ratio to the noise: 10 to 17 levels, 10 times
    the noise and more, for stars; 1 to 4 levels for gradients, dust on a blank scan and hot pixels;
    up to 30 levels, but less than twice the noise, for noise of any strength.
    """
    side = SPOT_GRID_SIDE
    grid = image.convert("L").resize((side, side), Image.Resampling.BOX)
    medians = grid.filter(ImageFilter.MedianFilter(SPOT_SURROUNDINGS_SIDE))
    difference = np.abs(np.asarray(grid, np.float64) - np.asarray(medians, np.float64)).ravel()
    noise = max(1.0, float(np.quantile(difference, NOISE_QUANTILE)))
    min_levels = max(MIN_SPOT_LEVELS, MIN_SPOT_TO_NOISE_RATIO * noise)
    return int(np.count_nonzero(difference >= min_levels)) >= MIN_SPOTS


@cache
def _build_quadratic_basis() -> NDArray[np.float64]:
    """Build an orthonormal basis of 1, x, y, x2, xy, y2 over the cells, as columns."""
    coordinates = np.linspace(-1.0, 1.0, FEATURELESS_GRID_SIDE)
    y, x = (grid.ravel() for grid in np.meshgrid(coordinates, coordinates, indexing="ij"))
    return np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1))[0]
