"""A picture of why two photos are what they are to each other: side by side, one laid on the other, what differs, and tile by tile."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.decode.read import Failure
from pipeline.query.compare import Comparison
from pipeline.verify.features import features_from_pixels
from pipeline.verify.homography import (
    UNIT_CORNERS,
    apply_homography,
    invert_homography,
    unit_to_pixels,
)
from pipeline.verify.residual import TILE_SIDE_PX
from pipeline.verify.verify import verify_tiles

Pixels = NDArray[np.uint8]
AGREEING_COLOR, DISPLACED_COLOR, DIFFERING_COLOR = (
    (40, 160, 80),
    (240, 160, 30),
    (220, 50, 50),
)  # tiles that agree, that agree after they moved, and that do not
BACKGROUND_COLOR, TEXT_COLOR, MARGIN_PX, CAPTION_HEIGHT_PX = (
    (255, 255, 255),
    (30, 30, 30),
    14,
    24,
)  # colours; pixels around a picture, and of a line of words


def draw_comparison(comparison: Comparison) -> Image.Image | None:
    """The first two files of a comparison: both pictures with what they share outlined; the second laid on the first; how far they differ;
    and the tiles that were compared. None where one of them could not be looked at.
    """
    first, second = comparison.images[:2]
    if (
        isinstance(first, Failure)
        or isinstance(second, Failure)
        or not {0, 1} <= comparison.thumbnail_pixels.keys()
    ):
        return None
    one, other = comparison.thumbnail_pixels[0], comparison.thumbnail_pixels[1]
    evidence, tiles = verify_tiles(
        features_from_pixels(one, (first.width, first.height)),
        features_from_pixels(other, (second.width, second.height)),
    )
    panels = [("first", _draw_outline(one, None)), ("second", _draw_outline(other, None))]
    if evidence.homography:
        matrix = evidence.homography_matrix
        pixels = unit_to_pixels(other.shape) @ matrix @ np.linalg.inv(unit_to_pixels(one.shape))
        panels = [
            (
                "first",
                _draw_outline(one, apply_homography(invert_homography(matrix), UNIT_CORNERS)),
            ),
            ("second", _draw_outline(other, apply_homography(matrix, UNIT_CORNERS))),
        ]
        size = (one.shape[1], one.shape[0])
        laid = np.asarray(
            cv2.warpPerspective(other, pixels, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP),
            np.uint8,
        )
        every = np.ones(other.shape[:2], np.uint8)
        on = (
            cv2.warpPerspective(every, pixels, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
            > 0
        )
        panels.append(
            (
                "the second laid on the first",
                np.where(on[..., None], (one // 2 + laid // 2), one // 3 + 150).astype(np.uint8),
            )
        )
        grey, below = (
            cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) for rgb in (one, laid)
        )
        if on.any():  # tones set aside, as they are where the pictures are compared
            gain = float(grey[on].std()) / max(float(below[on].std()), 1.0)
            below = (below - below[on].mean()) * gain + grey[on].mean()
        apart = 255 - np.where(on, np.abs(grey - below) * 2, 0).clip(0, 255).astype(np.uint8)
        panels.append(("difference, tones set aside", np.repeat(apart[..., None], 3, axis=2)))
    if tiles is not None:
        base = (other if tiles.is_swapped else one).copy()
        for row, column in zip(*np.nonzero(tiles.valid), strict=True):
            tint = (
                AGREEING_COLOR
                if tiles.agreeing[row, column]
                else DISPLACED_COLOR
                if tiles.displaced[row, column]
                else DIFFERING_COLOR
            )
            x, y = tiles.origin[0] + column * TILE_SIDE_PX, tiles.origin[1] + row * TILE_SIDE_PX
            cell = base[y + 1 : y + TILE_SIDE_PX - 1, x + 1 : x + TILE_SIDE_PX - 1]
            cell[:] = cell // 2 + np.array(tint, np.uint8) // 2
        where = "second" if tiles.is_swapped else "first"
        panels.append((f"tiles of the {where}: green agree, amber moved, red differ", base))
    return _compose_sheet(panels)


def _draw_outline(pixels: Pixels, outline: NDArray[np.float64] | None) -> Pixels:
    if outline is None:
        return pixels
    drawn = Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    corners = [(float(x), float(y)) for x, y in (outline * [width, height]).clip(-1e4, 1e4)]
    ImageDraw.Draw(drawn).line([*corners, corners[0]], fill=AGREEING_COLOR, width=3)
    return np.asarray(drawn)


def _compose_sheet(panels: list[tuple[str, Pixels]]) -> Image.Image:
    """Panels in two columns, each with its words above."""
    wide = max(picture.shape[1] for _, picture in panels)
    rows = [panels[at : at + 2] for at in range(0, len(panels), 2)]
    heights = [
        max(picture.shape[0] for _, picture in row) + CAPTION_HEIGHT_PX + MARGIN_PX for row in rows
    ]
    sheet = Image.new(
        "RGB", (2 * (wide + MARGIN_PX) + MARGIN_PX, sum(heights) + MARGIN_PX), BACKGROUND_COLOR
    )
    draw, top = ImageDraw.Draw(sheet), MARGIN_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (words, picture) in enumerate(row):
            left = MARGIN_PX + column * (wide + MARGIN_PX)
            draw.text((left, top), words, fill=TEXT_COLOR, font_size=15)
            sheet.paste(Image.fromarray(picture), (left, top + CAPTION_HEIGHT_PX))
        top += height
    return sheet
