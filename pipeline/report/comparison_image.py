"""A picture of why two photos are what they are to each other: side by side, one laid on the other, what differs, and tile by tile."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.decode.read import Failure
from pipeline.query.compare import Comparison
from pipeline.verify.features import sketch
from pipeline.verify.homography import SQUARE, in_pixels, inverse, moved
from pipeline.verify.residual import TILE
from pipeline.verify.verify import looked

Pixels = NDArray[np.uint8]
AGREES, MOVED, OTHER = (40, 160, 80), (240, 160, 30), (220, 50, 50)  # tiles that agree, that agree after they moved, and that do not
GROUND, INK, MARGIN, LINE = (255, 255, 255), (30, 30, 30), 14, 24  # colours; pixels around a picture, and of a line of words


def explained(comparison: Comparison) -> Image.Image | None:
    """The first two files of a comparison: both pictures with what they share outlined; the second laid on the first; how far they differ;
    and the tiles that were compared. None where one of them could not be looked at.
    """
    first, second = comparison.images[:2]
    if isinstance(first, Failure) or isinstance(second, Failure) or not {0, 1} <= comparison.pictures.keys():
        return None
    one, other = comparison.pictures[0], comparison.pictures[1]
    evidence, tiles = looked(sketch(one, (first.width, first.height)), sketch(other, (second.width, second.height)))
    panels = [("first", _outlined(one, None)), ("second", _outlined(other, None))]
    if evidence.matrix:
        matrix = evidence.transform
        pixels = in_pixels(other.shape) @ matrix @ np.linalg.inv(in_pixels(one.shape))
        panels = [("first", _outlined(one, moved(inverse(matrix), SQUARE))), ("second", _outlined(other, moved(matrix, SQUARE)))]
        size = (one.shape[1], one.shape[0])
        laid = np.asarray(cv2.warpPerspective(other, pixels, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.uint8)
        every = np.ones(other.shape[:2], np.uint8)
        on = cv2.warpPerspective(every, pixels, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
        panels.append(("the second laid on the first", np.where(on[..., None], (one // 2 + laid // 2), one // 3 + 150).astype(np.uint8)))
        grey, below = (cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) for rgb in (one, laid))
        if on.any():  # tones set aside, as they are where the pictures are compared
            gain = float(grey[on].std()) / max(float(below[on].std()), 1.0)
            below = (below - below[on].mean()) * gain + grey[on].mean()
        apart = 255 - np.where(on, np.abs(grey - below) * 2, 0).clip(0, 255).astype(np.uint8)
        panels.append(("difference, tones set aside", np.repeat(apart[..., None], 3, axis=2)))
    if tiles is not None:
        base = (other if tiles.swapped else one).copy()
        for row, column in zip(*np.nonzero(tiles.told), strict=True):
            tint = AGREES if tiles.same[row, column] else MOVED if tiles.moved[row, column] else OTHER
            x, y = tiles.origin[0] + column * TILE, tiles.origin[1] + row * TILE
            cell = base[y + 1 : y + TILE - 1, x + 1 : x + TILE - 1]
            cell[:] = cell // 2 + np.array(tint, np.uint8) // 2
        where = "second" if tiles.swapped else "first"
        panels.append((f"tiles of the {where}: green agree, amber moved, red differ", base))
    return _sheet(panels)


def _outlined(picture: Pixels, outline: NDArray[np.float64] | None) -> Pixels:
    if outline is None:
        return picture
    drawn = Image.fromarray(picture)
    height, width = picture.shape[:2]
    corners = [(float(x), float(y)) for x, y in (outline * [width, height]).clip(-1e4, 1e4)]
    ImageDraw.Draw(drawn).line([*corners, corners[0]], fill=AGREES, width=3)
    return np.asarray(drawn)


def _sheet(panels: list[tuple[str, Pixels]]) -> Image.Image:
    """Panels in two columns, each with its words above."""
    wide = max(picture.shape[1] for _, picture in panels)
    rows = [panels[at : at + 2] for at in range(0, len(panels), 2)]
    heights = [max(picture.shape[0] for _, picture in row) + LINE + MARGIN for row in rows]
    sheet = Image.new("RGB", (2 * (wide + MARGIN) + MARGIN, sum(heights) + MARGIN), GROUND)
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, (words, picture) in enumerate(row):
            left = MARGIN + column * (wide + MARGIN)
            draw.text((left, top), words, fill=INK, font_size=15)
            sheet.paste(Image.fromarray(picture), (left, top + LINE))
        top += height
    return sheet
