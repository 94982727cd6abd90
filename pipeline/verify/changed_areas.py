"""Find the areas in which two aligned images differ, and map what each image shows by cells."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.base_tiles import measure_gradient
from pipeline.verify.cells import CellMap, CellMask, LocalStats, average_cells

MAX_CHANGED_NCC = 0.6  # below, a textured cell differs
MIN_CHANGED_TEXTURE = 3.5  # standard deviation in gray levels
MIN_CHANGED_LEVELS = 30.0  # a flat cell differs by more, once tones are matched
MIN_AREA_CELLS = 6
# Gradients in gray levels a pixel: below the first a pixel is flat, above the second it lies on a
# hard edge. Photographs have most of their texture in between, graphics have little there.
MIN_PHOTOGRAPHIC_GRADIENT = 1.5
MAX_PHOTOGRAPHIC_GRADIENT = 24.0
GRADIENT_OFFSET = 1.5  # added to gradients in a ratio, in gray levels a pixel


@dataclass(frozen=True, slots=True)
class SideMaps:
    """The content of one image in each cell: its mean gradient, and the shares of its pixels.

    `photographic`: share with a gradient between flat and hard; `hard`: share on hard edges.
    """

    gradient: CellMap
    photographic: CellMap
    hard: CellMap


@dataclass(frozen=True, slots=True)
class ChangedAreas:
    """Areas of adjacent cells that differ; `labels` (rows, columns) is 0 outside, else from 1.

    `cells` (areas,) counts the cells of each; `boxes` (areas, 4) are left, top, width and height.
    """

    labels: NDArray[np.int32]
    cells: NDArray[np.float64]
    boxes: NDArray[np.int32]

    @property
    def mask(self) -> CellMask:
        """The cells of all areas."""
        return np.asarray(self.labels > 0)

    def average(self, values: CellMap) -> NDArray[np.float64]:
        """Average a map over each area, (areas,)."""
        return average_labels(self.labels, values, len(self.cells))


def map_side(gray: NDArray[np.float32]) -> SideMaps:
    """Measure what an image (height, width) shows in each cell."""
    gradient = measure_gradient(gray)
    above_flat, hard = (
        average_cells(np.asarray(cv2.threshold(gradient, level, 1.0, cv2.THRESH_BINARY)[1]))
        for level in (MIN_PHOTOGRAPHIC_GRADIENT, MAX_PHOTOGRAPHIC_GRADIENT)
    )
    return SideMaps(average_cells(gradient), above_flat - hard, hard)


def find_changed_areas(
    local: LocalStats, level_differences: CellMap, inside: CellMask
) -> ChangedAreas:
    """Find areas of MIN_AREA_CELLS or more that differ in texture or, if flat, in level."""
    is_textured = np.maximum(*local.variances) > MIN_CHANGED_TEXTURE**2
    differs = (is_textured & (local.ncc < MAX_CHANGED_NCC)) | (
        level_differences > MIN_CHANGED_LEVELS
    )
    closed = cv2.morphologyEx(
        (inside & differs).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)
    )
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    is_large = stats[:, cv2.CC_STAT_AREA] >= MIN_AREA_CELLS
    is_large[0] = False
    new_labels = np.cumsum(is_large) * is_large
    return ChangedAreas(
        np.asarray(new_labels[labels], np.int32),
        stats[is_large, cv2.CC_STAT_AREA].astype(np.float64),
        stats[is_large, : cv2.CC_STAT_AREA],
    )


def average_labels(
    labels: NDArray[np.int32], values: NDArray[np.floating], count: int
) -> NDArray[np.float64]:
    """Average values over the cells of each label from 1 to `count`; 0 for a label without any."""
    flat = labels.ravel()
    cells = np.bincount(flat, minlength=count + 1)[1:]
    sums = np.bincount(flat, weights=values.ravel(), minlength=count + 1)[1:]
    return np.asarray(sums / np.maximum(cells, 1))
