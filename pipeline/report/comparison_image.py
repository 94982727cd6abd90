"""Draw how two images are related: side by side, overlaid, their difference, and their tiles."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin

from pipeline.decode.formats import OWN_MARK, OWN_PNG_TEXT_KEY, mark_jpeg
from pipeline.decode.metadata.exif import SOFTWARE_TAG
from pipeline.errors import OutputNotWritable
from pipeline.query.compare import Comparison
from pipeline.report.output import make_output_error, require_writable_folder
from pipeline.verify.homography import (
    UNIT_CORNERS,
    Homography,
    apply_homography,
    build_unit_to_pixels,
    invert_homography,
)
from pipeline.verify.tile_grid import TILE_SIDE_PX
from pipeline.verify.verify import TileMasks

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB


class Panel(StrEnum):
    """One picture of a drawing; the values are its names in the HTTP API."""

    FIRST = "first"  # with the area that both share outlined
    SECOND = "second"
    OVERLAY = "overlay"
    DIFFERENCE = "difference"
    TILES = "tiles"


# RGB colors: of tiles by how they compare, of the sheet, of its captions.
AGREEING_COLOR = (40, 160, 80)
DISPLACED_COLOR = (240, 160, 30)
DIFFERING_COLOR = (220, 50, 50)
BACKGROUND_COLOR = (255, 255, 255)
TEXT_COLOR = (30, 30, 30)
MARGIN_PX = 14  # around each panel
CAPTION_LINE_PX = 20
CAPTION_GAP_PX = 4  # between a caption and its panel
CAPTION_FONT_PX = 15
OUTLINE_WIDTH_PX = 3
MAX_OUTLINE_PX = 1e4  # corners of an outline may lie far outside; farther ones overflow in Pillow
DIFFERENCE_GAIN = 2  # gray levels drawn for one level of difference, so that faint ones show
MATCHING_BLUR_PX = 2.0  # before contrasts are compared: a resized copy lost finer ones
MIN_DEVIATION_LEVELS = 1.0  # below it, a ratio of contrasts is noise
CAPTIONS = {
    Panel.FIRST: "first",
    Panel.SECOND: "second",
    Panel.OVERLAY: "the second overlaid on the first",
    Panel.DIFFERENCE: "difference, brightness and contrast matched",
    Panel.TILES: "tiles on the first: green agree, amber displaced,\n"
    "red differ; without color: not compared",
}


def require_writable_image(path: Path) -> None:
    """Raise OutputNotWritable if a file exists, has no image format, or its folder is read-only."""
    advice = "choose a .png or .jpg in a folder that exists and is writable"
    if os.path.lexists(path):
        raise OutputNotWritable(f"{path} already exists and is not replaced; choose a new file")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise OutputNotWritable(f"{path} cannot be written; {advice}")
    require_writable_folder(path, advice)


def save_comparison_image(comparison: Comparison, path: Path) -> bool:
    """Draw the first two files of a comparison into a file; False if one could not be read.

    Raises OutputNotWritable.
    """
    drawing = draw_comparison(comparison)
    if drawing is None:
        return False
    try:
        _save_marked(drawing, path)
    except (OSError, ValueError) as error:
        raise make_output_error(
            path, error, "choose a .png or .jpg in a folder that exists and is writable"
        ) from error
    return True


def _save_marked(drawing: Image.Image, path: Path) -> None:
    """Save a picture with the mark by which an ingest passes it over, if its format has room."""
    mark = OWN_MARK.decode()
    text, exif = PngImagePlugin.PngInfo(), Image.Exif()
    text.add_text(OWN_PNG_TEXT_KEY, mark)
    exif[SOFTWARE_TAG] = mark
    if Image.registered_extensions()[path.suffix.lower()] == "JPEG":
        encoded = io.BytesIO()
        drawing.save(encoded, "JPEG")
        path.write_bytes(mark_jpeg(encoded.getvalue()))
    else:
        drawing.save(path, pnginfo=text, exif=exif, comment=mark)  # a format ignores what it lacks


def draw_comparison(comparison: Comparison) -> Image.Image | None:
    """Draw the first two files of a comparison; None if one of them could not be read.

    Both images with the area that they share outlined; then, on the first, the second, their
    difference, and the tiles that were compared.
    """
    panels = draw_panels(comparison)
    if not panels:
        return None
    return _compose_sheet([(CAPTIONS[panel], pixels) for panel, pixels in panels.items()])


def draw_panels(comparison: Comparison) -> dict[Panel, Pixels]:
    """Draw the panels of the first two files of a comparison, in the order of their sheet.

    Only the two themselves if nothing aligns them; none if one of them could not be read.
    """
    if not {0, 1} <= comparison.thumbnail_pixels.keys():
        return {}
    first, second = comparison.thumbnail_pixels[0], comparison.thumbnail_pixels[1]
    verdict = comparison.verdicts[0, 1]
    if not verdict.homography:
        return {Panel.FIRST: first, Panel.SECOND: second}
    homography, tiles = verdict.homography_matrix, comparison.tiles.get((0, 1))
    panels = _draw_alignment(first, second, homography, tiles)
    if tiles:
        panels[Panel.TILES] = _tint_tiles(first, second, homography, tiles)
    return panels


def _draw_alignment(
    first: Pixels, second: Pixels, homography: Homography, tiles: TileMasks | None
) -> dict[Panel, Pixels]:
    """Draw what a homography from the first to the second image (unit squares) aligns."""
    first_outline = apply_homography(invert_homography(homography), UNIT_CORNERS)
    second_outline = apply_homography(homography, UNIT_CORNERS)
    warped, covered = _warp_onto(second, first, homography)
    blended = np.where(covered[..., None], first // 2 + warped // 2, first // 3 + 150)
    gain, offset = _match_tones(first, second, homography, tiles)
    difference = _draw_difference(first, warped, covered, gain, offset)
    return {
        Panel.FIRST: _draw_outline(first, first_outline),
        Panel.SECOND: _draw_outline(second, second_outline),
        Panel.OVERLAY: blended.astype(np.uint8),
        Panel.DIFFERENCE: difference,
    }


def _warp_onto(
    source: Pixels, target: Pixels, homography: Homography
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Warp `source` to the pixels of `target`, by a homography from target to source.

    Returns the warped pixels and a mask (height, width) of those that `source` covers.
    """
    pixel_homography = (
        build_unit_to_pixels(source.shape)
        @ homography
        @ np.linalg.inv(build_unit_to_pixels(target.shape))
    )
    size = (target.shape[1], target.shape[0])
    warped = cv2.warpPerspective(
        source, pixel_homography, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    ones = np.ones(source.shape[:2], np.uint8)
    covered = cv2.warpPerspective(
        ones, pixel_homography, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    return np.asarray(warped, np.uint8), np.asarray(covered) > 0


def _match_tones(
    first: Pixels, second: Pixels, homography: Homography, tiles: TileMasks | None
) -> tuple[float, float]:
    """Return the gain and the offset that bring the gray levels of the second to the first.

    They match mean and deviation of the median tile among those that agree, so that what covers
    one image does not count; without such tiles, those of all pixels that both images show.
    """
    left, right = (
        np.asarray(cv2.GaussianBlur(_to_gray(pixels), (0, 0), MATCHING_BLUR_PX), np.uint8)
        for pixels in (first, second)
    )
    if tiles is None or not tiles.agreeing.any():
        warped, covered = _warp_onto(right, left, homography)
        samples = [(left[covered], warped[covered])] if covered.any() else []
    elif tiles.is_swapped:
        warped, _ = _warp_onto(left, right, invert_homography(homography))
        samples = _cut_agreeing_tiles(warped, right, tiles)
    else:
        warped, _ = _warp_onto(right, left, homography)
        samples = _cut_agreeing_tiles(left, warped, tiles)
    if not samples:
        return 1.0, 0.0
    deviations = np.array([[pixels.std() for pixels in pair] for pair in samples])
    means = np.array([[pixels.mean() for pixels in pair] for pair in samples])
    gains = deviations[:, 0] / np.maximum(deviations[:, 1], MIN_DEVIATION_LEVELS)
    gain = float(np.median(gains))
    return gain, float(np.median(means[:, 0] - gain * means[:, 1]))


def _cut_agreeing_tiles(
    first: NDArray[np.uint8], second: NDArray[np.uint8], tiles: TileMasks
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Cut the tiles that agree out of two images on the pixels where tiles lie."""
    cuts = [_locate_tile(tiles, *place) for place in np.argwhere(tiles.agreeing).tolist()]
    return [(first[cut], second[cut]) for cut in cuts]


def _locate_tile(tiles: TileMasks, row: int, column: int) -> tuple[slice, slice]:
    """Return the rows and columns of pixels of a tile, on the image where tiles lie."""
    x, y = tiles.origin[0] + column * TILE_SIDE_PX, tiles.origin[1] + row * TILE_SIDE_PX
    return slice(y, y + TILE_SIDE_PX), slice(x, x + TILE_SIDE_PX)


def _to_gray(pixels: Pixels) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _draw_difference(
    first: Pixels, warped: Pixels, covered: NDArray[np.bool_], gain: float, offset: float
) -> Pixels:
    """Draw the difference of two images on white, by the gray levels of the second matched.

    Verification ignores brightness and contrast too.
    """
    matched = _to_gray(warped) * gain + offset
    difference = np.abs(_to_gray(first) - matched.clip(0, 255)) * DIFFERENCE_GAIN
    darkness = np.where(covered, difference, 0).clip(0, 255).astype(np.uint8)
    return np.repeat((255 - darkness)[..., None], 3, axis=2)


def _tint_tiles(first: Pixels, second: Pixels, homography: Homography, tiles: TileMasks) -> Pixels:
    """Tint each tile that was compared by its result, on the first, with a gap around it."""
    base = second if tiles.is_swapped else first
    tint, opacity = np.zeros_like(base), np.zeros_like(base)
    for row, column in np.argwhere(tiles.valid).tolist():
        rows, columns = _locate_tile(tiles, row, column)
        inner = slice(rows.start + 1, rows.stop - 1), slice(columns.start + 1, columns.stop - 1)
        tint[inner], opacity[inner] = _get_tile_color(tiles, row, column), 255
    if tiles.is_swapped:  # interpolated alike, both fade out together at the sides of a tile
        tint, opacity = (_warp_onto(layer, first, homography)[0] for layer in (tint, opacity))
    tinted = first * (1 - opacity / 510) + tint / 2
    return np.asarray(tinted.round().astype(np.uint8))


def _get_tile_color(tiles: TileMasks, row: int, column: int) -> tuple[int, int, int]:
    if tiles.agreeing[row, column]:
        return AGREEING_COLOR
    return DISPLACED_COLOR if tiles.displaced[row, column] else DIFFERING_COLOR


def _draw_outline(pixels: Pixels, outline: NDArray[np.float64]) -> Pixels:
    """Draw a closed outline, given by its corners (n, 2) in normalized coordinates."""
    image = Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    in_pixels = (outline * [width, height]).clip(-MAX_OUTLINE_PX, MAX_OUTLINE_PX)
    corners = [(float(x), float(y)) for x, y in in_pixels]
    ImageDraw.Draw(image).line([*corners, corners[0]], fill=AGREEING_COLOR, width=OUTLINE_WIDTH_PX)
    return np.asarray(image)


def _compose_sheet(panels: Sequence[tuple[str, Pixels]]) -> Image.Image:
    """Arrange panels in two columns, each below its caption, of a line or more."""
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines = [line for caption, _ in panels for line in caption.splitlines()]
    caption_width = max(measure.textlength(line, font_size=CAPTION_FONT_PX) for line in lines)
    widest = max(*(pixels.shape[1] for _, pixels in panels), math.ceil(caption_width))
    column_width = widest + MARGIN_PX
    rows = [panels[start : start + 2] for start in range(0, len(panels), 2)]
    caption_heights = [
        max(len(caption.splitlines()) for caption, _ in row) * CAPTION_LINE_PX + CAPTION_GAP_PX
        for row in rows
    ]
    heights = [
        max(pixels.shape[0] for _, pixels in row) + caption_height + MARGIN_PX
        for row, caption_height in zip(rows, caption_heights, strict=True)
    ]
    size = (2 * column_width + MARGIN_PX, sum(heights) + MARGIN_PX)
    sheet = Image.new("RGB", size, BACKGROUND_COLOR)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN_PX
    for row, caption_height, height in zip(rows, caption_heights, heights, strict=True):
        for column, (caption, pixels) in enumerate(row):
            left = MARGIN_PX + column * column_width
            for number, line in enumerate(caption.splitlines()):
                place = left, top + number * CAPTION_LINE_PX
                draw.text(place, line, fill=TEXT_COLOR, font_size=CAPTION_FONT_PX)
            sheet.paste(Image.fromarray(pixels), (left, top + caption_height))
        top += height
    return sheet
