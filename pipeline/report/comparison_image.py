"""Draw how two images are related: side by side, overlaid, their difference, and their tiles."""

from __future__ import annotations

import io
import os
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
Panel = tuple[str, Pixels]  # a caption and the pixels below it

# RGB colors: of tiles by how they compare, of the sheet, of its captions.
AGREEING_COLOR = (40, 160, 80)
DISPLACED_COLOR = (240, 160, 30)
DIFFERING_COLOR = (220, 50, 50)
BACKGROUND_COLOR = (255, 255, 255)
TEXT_COLOR = (30, 30, 30)
MARGIN_PX = 14  # around each panel
CAPTION_HEIGHT_PX = 24
CAPTION_FONT_PX = 15
OUTLINE_WIDTH_PX = 3
MAX_OUTLINE_PX = 1e4  # corners of an outline may lie far outside; farther ones overflow in Pillow
DIFFERENCE_GAIN = 2  # gray levels drawn for one level of difference, so that faint ones show


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

    Both images with the area that they share outlined; the second warped onto the first; their
    difference; and the tiles that were compared.
    """
    if not {0, 1} <= comparison.thumbnail_pixels.keys():
        return None
    first, second = comparison.thumbnail_pixels[0], comparison.thumbnail_pixels[1]
    verdict = comparison.verdicts[0, 1]
    if verdict.homography:
        panels = _draw_alignment(first, second, verdict.homography_matrix)
    else:
        panels = [("first", first), ("second", second)]
    if tiles := comparison.tiles.get((0, 1)):
        side, base = ("second", second) if tiles.is_swapped else ("first", first)
        caption = f"tiles of the {side}: green agree, amber displaced, red differ"
        panels.append((caption, _tint_tiles(base, tiles)))
    return _compose_sheet(panels)


def _draw_alignment(first: Pixels, second: Pixels, homography: Homography) -> list[Panel]:
    """Draw what a homography from the first to the second image (unit squares) aligns."""
    first_outline = apply_homography(invert_homography(homography), UNIT_CORNERS)
    second_outline = apply_homography(homography, UNIT_CORNERS)
    warped, covered = _warp_onto(second, first, homography)
    blended = np.where(covered[..., None], first // 2 + warped // 2, first // 3 + 150)
    return [
        ("first", _draw_outline(first, first_outline)),
        ("second", _draw_outline(second, second_outline)),
        ("the second overlaid on the first", blended.astype(np.uint8)),
        ("difference, brightness and contrast matched", _draw_difference(first, warped, covered)),
    ]


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


def _draw_difference(first: Pixels, warped: Pixels, covered: NDArray[np.bool_]) -> Pixels:
    """Draw the difference of two images on white, after matching mean and deviation of their gray.

    Verification ignores brightness and contrast too.
    """
    first_gray, warped_gray = (
        cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) for pixels in (first, warped)
    )
    if covered.any():
        inside_first, inside_warped = first_gray[covered], warped_gray[covered]
        gain = float(inside_first.std()) / max(float(inside_warped.std()), 1.0)
        warped_gray = (warped_gray - inside_warped.mean()) * gain + inside_first.mean()
    difference = np.abs(first_gray - warped_gray) * DIFFERENCE_GAIN
    darkness = np.where(covered, difference, 0).clip(0, 255).astype(np.uint8)
    return np.repeat((255 - darkness)[..., None], 3, axis=2)


def _tint_tiles(pixels: Pixels, tiles: TileMasks) -> Pixels:
    """Tint each tile that was compared by its result, with a pixel left free around it."""
    tinted = pixels.copy()
    left, top = tiles.origin
    for row, column in zip(*np.nonzero(tiles.valid), strict=True):
        x, y = left + column * TILE_SIDE_PX, top + row * TILE_SIDE_PX
        tile = tinted[y + 1 : y + TILE_SIDE_PX - 1, x + 1 : x + TILE_SIDE_PX - 1]
        tile[:] = tile // 2 + np.array(_get_tile_color(tiles, row, column), np.uint8) // 2
    return tinted


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


def _compose_sheet(panels: list[Panel]) -> Image.Image:
    """Arrange panels in two columns, each below its caption."""
    column_width = max(pixels.shape[1] for _, pixels in panels) + MARGIN_PX
    rows = [panels[start : start + 2] for start in range(0, len(panels), 2)]
    heights = [
        max(pixels.shape[0] for _, pixels in row) + CAPTION_HEIGHT_PX + MARGIN_PX for row in rows
    ]
    size = (2 * column_width + MARGIN_PX, sum(heights) + MARGIN_PX)
    sheet = Image.new("RGB", size, BACKGROUND_COLOR)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (caption, pixels) in enumerate(row):
            left = MARGIN_PX + column * column_width
            draw.text((left, top), caption, fill=TEXT_COLOR, font_size=CAPTION_FONT_PX)
            sheet.paste(Image.fromarray(pixels), (left, top + CAPTION_HEIGHT_PX))
        top += height
    return sheet
