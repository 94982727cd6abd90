"""Detect the edits between two copies, and which of the two was made from the other.

Rotation, scale and cropping follow from the homography. Whether an image is embedded in another
or was cropped out of it shows along its outline: an embedded one has a seam there. Colors are
compared on small versions, where the two overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.regions import Box
from pipeline.verify.features import SMALL_RGB_SIDE_PX, ImageFeatures
from pipeline.verify.homography import (
    MAX_ISOTROPIC_RATIO,
    UNIT_CORNERS,
    Homography,
    ImageSizes,
    apply_homography,
    compute_local_jacobian,
    compute_scale,
    invert_homography,
)
from pipeline.verify.order_statistics import compute_median, compute_percentile
from pipeline.verify.relation import Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Edits

MIN_ROTATION_DEG = 1.5  # smaller rotations are reported as none
# Shear or perspective, as shares, up to which a pair may be copies. Beyond, the two are different
# viewpoints, unless one image is shown whole and at least MIN_SKEWED_COPY_OVERLAP of the other.
MAX_COPY_SKEW = 0.01
MIN_SKEWED_COPY_OVERLAP = 0.4
# How far a corner may lie from its affine place, in shares of a side; beyond, it is stretched.
MAX_PERSPECTIVE_SKEW = 0.02
# Distances from an outline, in host pixels: where a seam or a thin line shows, and where neither
# does any more, at two distances.
SEAM_OFFSET_PX = 2.0
CLEAR_OFFSET_PX = 6.0
FAR_OFFSET_PX = 10.0
# An image that another shows at a smaller scale than this was reduced to be embedded there: on a
# plain background, and on any.
MAX_EMBEDDED_SCALE_ON_PLAIN = 0.87
MAX_EMBEDDED_SCALE = 0.75
MIN_SEAM_SIDE_PX = 40.0  # length of a side whose seam counts alone, without the other three
# Points along an outline are this far apart, and at least the second from its corners.
OUTLINE_STEP_PX = 2.0
CORNER_DISTANCE_PX = 4.0
# Share of the surroundings that has one tone, if nothing but a few signs stands there.
MIN_PLAIN_SHARE = 0.95
# A seam jumps by this multiple of the usual contrast there, and by these gray levels beyond it;
# along one side alone by more.
MIN_SEAM_CONTRAST_RATIO = 1.5
MIN_SEAM_CONTRAST_LEVELS = 4.0
MIN_ONE_SIDED_SEAM_CONTRAST_RATIO = 2.5
MIN_ONE_SIDED_SEAM_CONTRAST_LEVELS = 8.0
MAX_PLAIN_VARIATION_LEVELS = 6.0  # gray levels that a plain background varies by
SURROUNDINGS_KERNEL_PX = 7  # side of the erosion that keeps an outline out of its surroundings
# Mean over pixels of the strongest channel minus the weakest, in levels: below the first an image
# is grayscale, and above the second it has colors.
MAX_GRAYSCALE_CHROMA_LEVELS = 4.0
MIN_COLOR_CHROMA_LEVELS = 10.0
OVERLAP_SAMPLES_PER_SIDE = 100  # the overlap is measured on a grid of this many points a side
OVERLAP_MARGIN = 0.005  # share of a side by which a point may lie outside and count as inside
UNIQUE_MARGIN = 0.015  # the same for content that only one image has
UNIQUE_WINDOW_PX = 9  # side of the window in which texture is measured
MIN_UNIQUE_TEXTURE_LEVELS = 4.0  # standard deviation there
# Cells of a small image that blurring mixes colors across; and the share of a side that is left
# out near an outline, at most.
COLOR_MARGIN_CELLS = 2.5
MAX_COLOR_MARGIN = 0.2
CONTRAST_PERCENTILES = (90, 10)  # of brightness; their difference is the contrast
# Beyond any of these a copy is recolored: contrast over contrast, shift of the median brightness
# in levels, and chroma over chroma.
MAX_CONTRAST_RATIO = 1.15
MAX_BRIGHTNESS_SHIFT_LEVELS = 12.0
MIN_CHROMA_RATIO = 0.75
# Added to a contrast or a chroma, in levels, so that the ratio of two small ones says little.
CONTRAST_OFFSET_LEVELS = 1.0
CHROMA_OFFSET_LEVELS = 2.0


@dataclass(frozen=True, slots=True)
class _Decomposition:
    """The geometric edits of a homography; the fields are those of Edits."""

    mirrored: bool
    quarter_turn_deg: int
    rotation_deg: float
    anisotropic: bool
    scale: float


@dataclass(frozen=True, slots=True)
class _Placement:
    """The place of one of two copies in the other; the fields are those of Edits."""

    embedded_side: Side | None
    plain_background: bool
    derived_side: Side | None


# Each image as a host: its gray pixels, and the corners of the other in its normalized coordinates.
_Hosts = dict[Side, tuple[NDArray[np.uint8], NDArray[np.float64]]]


def detect_edits(
    first: ImageFeatures,
    second: ImageFeatures,
    homography: Homography,
    overlap: tuple[float, float],
    changed_regions: tuple[Box, ...],
) -> Edits:
    """Detect the edits between two copies.

    `homography` maps the first image to the second, both in normalized coordinates; `overlap` is
    the share of each that lies on the other. `changed_regions` are boxes on the first image.
    """
    inverse = invert_homography(homography)
    grayscale_side, is_recolored = _compare_colors(
        first.small_rgb, second.small_rgb, homography, changed_regions
    )
    geometry = _decompose_homography(homography, (first.size, second.size))
    hosts = {
        Side.FIRST: (first.gray, apply_homography(inverse, UNIT_CORNERS)),
        Side.SECOND: (second.gray, apply_homography(homography, UNIT_CORNERS)),
    }
    if max(overlap) < MIN_FULL_OVERLAP:
        placement = _find_partial_placement(hosts, grayscale_side)
    else:
        placement = _find_full_placement(hosts, overlap, geometry.scale, grayscale_side)
    return Edits(
        mirrored=geometry.mirrored,
        quarter_turn_deg=geometry.quarter_turn_deg,
        rotation_deg=geometry.rotation_deg,
        anisotropic=geometry.anisotropic,
        scale=geometry.scale,
        overlap=overlap,
        embedded_side=placement.embedded_side,
        plain_background=placement.plain_background,
        grayscale_side=grayscale_side,
        recolored=is_recolored,
        changed_regions=changed_regions,
        derived_side=placement.derived_side,
    )


def _find_partial_placement(hosts: _Hosts, grayscale_side: Side | None) -> _Placement:
    """Find the placement where each image has parts that the other one lacks."""
    first_has_seam, second_has_seam = (_has_one_sided_seam(*hosts[side]) for side in Side)
    embedded_side = None  # lies in the other, which shows a part of it among other things
    if first_has_seam != second_has_seam:
        embedded_side = Side.SECOND if first_has_seam else Side.FIRST
    return _Placement(
        embedded_side, False, embedded_side.other if embedded_side else grayscale_side
    )


def _find_full_placement(
    hosts: _Hosts, overlap: tuple[float, float], scale: float, grayscale_side: Side | None
) -> _Placement:
    """Find the placement where one image shows all of the other, the smaller one.

    `scale` is that of the second image relative to the first.
    """
    smaller = Side.FIRST if overlap[0] > overlap[1] else Side.SECOND
    # The scale at which the larger image shows the smaller one.
    scale_in_larger = scale if smaller == Side.FIRST else 1.0 / scale
    has_seam, is_plain = (
        _detect_seam_and_background(*hosts[smaller.other])
        if min(overlap) < MIN_FULL_OVERLAP
        else (False, False)
    )
    max_embedded_scale = MAX_EMBEDDED_SCALE_ON_PLAIN if is_plain else MAX_EMBEDDED_SCALE
    if min(overlap) >= MIN_FULL_OVERLAP:
        derived_side: Side | None = grayscale_side
    elif has_seam or scale_in_larger < max_embedded_scale:
        derived_side = smaller.other  # the smaller was embedded in it at a reduced scale
    elif is_plain or scale_in_larger < MAX_EMBEDDED_SCALE_ON_PLAIN:
        derived_side = None  # a margin was added that the image blends into, or was cropped off
    else:
        derived_side = smaller  # it was cropped out of the other
    has_bare_margin = (
        is_plain
        and not has_seam
        and not derived_side
        and _has_plain_background(*hosts[smaller.other])
    )
    return _Placement(
        smaller if has_seam else None, has_bare_margin or (has_seam and is_plain), derived_side
    )


def mark_altered_side(edits: Edits, side: Side) -> Edits:
    """Mark the image that was altered in places as derived, unless a side is already.

    Lettering, a sticker or a blur lies on it. Only for two images that show all of each other.
    """
    if edits.derived_side or min(edits.overlap) < MIN_FULL_OVERLAP:
        return edits
    return replace(edits, derived_side=side)


def is_viewpoint_change(edits: Edits, skew: float) -> bool:
    """Return True if the two images are shots from two viewpoints rather than copies.

    An edit keeps angles, or stretches along a side. A perspective edit shows most of the image, or
    embeds it in another. Of 2,394 copies of 60 images without a perspective edit, only crops to
    40 % were skewed, one in a hundred of them; copies with one show at least 57 % of the image.
    """
    if edits.embedded_side or (
        max(edits.overlap) >= MIN_FULL_OVERLAP and min(edits.overlap) >= MIN_SKEWED_COPY_OVERLAP
    ):
        return False
    return skew > MAX_COPY_SKEW


def compute_skew(homography: Homography, sizes: ImageSizes) -> float:
    """Compute the larger of shear and perspective, which no crop, turn or stretch makes."""
    center, unit_jacobian, pixel_jacobian = compute_local_jacobian(homography, sizes)
    scales = np.linalg.svd(pixel_jacobian)[1]
    # The second smallest entry is 0 where sides stay parallel to sides.
    off_axis = np.sort(np.abs(pixel_jacobian), axis=None)[1] / np.sqrt(scales[0] * scales[1])
    shear = min(scales[0] / scales[1] - 1.0, off_axis)
    return float(max(shear, _compute_perspective_skew(homography, center, unit_jacobian)))


def _compute_perspective_skew(
    homography: Homography, center: NDArray[np.float64], unit_jacobian: NDArray[np.float64]
) -> float:
    """Compute how far a corner is, at most, from where an affine map would put it, normalized."""
    affine_corners = (
        apply_homography(homography, center[None, :]) + (UNIT_CORNERS - center) @ unit_jacobian.T
    )
    offset = float(np.abs(apply_homography(homography, UNIT_CORNERS) - affine_corners).max())
    return offset * min(1.0, 1.0 / float(np.abs(unit_jacobian).max()))


def _decompose_homography(homography: Homography, sizes: ImageSizes) -> _Decomposition:
    """Decompose the Jacobian at the center of the second image, mapped back onto the first."""
    center, unit_jacobian, pixel_jacobian = compute_local_jacobian(homography, sizes)
    mirrored = bool(np.linalg.det(pixel_jacobian) < 0)
    if mirrored:
        pixel_jacobian = pixel_jacobian * np.array([-1.0, 1.0])  # mirrored left to right first
    left, scales, right = np.linalg.svd(pixel_jacobian)
    rotation = left @ right
    angle = float(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0])))  # clockwise: y runs down
    quarter_turn_deg = round(angle / 90.0) * 90
    anisotropic = bool(
        scales[0] > MAX_ISOTROPIC_RATIO * scales[1]
        or _compute_perspective_skew(homography, center, unit_jacobian) > MAX_PERSPECTIVE_SKEW
    )
    rotation_deg = angle - quarter_turn_deg
    scale = round(float(np.sqrt(scales[0] * scales[1])), 4)
    return _Decomposition(
        mirrored,
        quarter_turn_deg % 360,
        round(rotation_deg, 1) if abs(rotation_deg) > MIN_ROTATION_DEG else 0.0,
        anisotropic,
        scale,
    )


def measure_overlap(homography: Homography) -> float:
    """Measure the share of an image that a homography maps into the other, on a grid of points."""
    x, y, w = homography @ _compute_unit_grid(OVERLAP_SAMPLES_PER_SIDE)
    low, high = -OVERLAP_MARGIN * w, (1.0 + OVERLAP_MARGIN) * w
    # Empty where w is negative, behind the camera: there low > high.
    is_inside = (x > low) & (x < high) & (y > low) & (y < high)
    return round(float(np.count_nonzero(is_inside)) / OVERLAP_SAMPLES_PER_SIDE**2, 4)


def measure_unique_content(image: ImageFeatures, homography: Homography) -> float:
    """Measure the share of an image that is textured and does not lie on the other.

    `homography` maps the image to the other one, both in normalized coordinates.
    """
    x, y, w = homography @ _compute_unit_grid(OVERLAP_SAMPLES_PER_SIDE)
    low, high = -UNIQUE_MARGIN * w, (1.0 + UNIQUE_MARGIN) * w
    is_outside = ~((x > low) & (x < high) & (y > low) & (y < high))
    if not is_outside.any():
        return 0.0
    size = (OVERLAP_SAMPLES_PER_SIDE, OVERLAP_SAMPLES_PER_SIDE)
    gray = image.gray.astype(np.float32)
    mean, square = (
        cv2.resize(cv2.blur(pixels, (UNIQUE_WINDOW_PX, UNIQUE_WINDOW_PX)), size)
        for pixels in (gray, gray * gray)
    )
    is_textured = square - mean**2 > MIN_UNIQUE_TEXTURE_LEVELS**2
    return float((is_outside.reshape(size) & is_textured).mean())


@cache
def _compute_unit_grid(side: int) -> NDArray[np.float64]:
    """Compute cell centers (x, y, 1) of a grid over the unit square, (3, side * side), by rows."""
    y, x = (np.mgrid[0:side, 0:side].reshape(2, -1) + 0.5) / side
    return np.stack([x, y, np.ones_like(x)])


def _detect_seam_and_background(
    host: NDArray[np.uint8], outline: NDArray[np.float64]
) -> tuple[bool, bool]:
    """Detect a seam along an outline, and a plain background around it.

    `outline` is (4, 2) in the host's normalized coordinates. Where it coincides with the host's own
    edge it is ignored. An image that was cropped out of the host has no seam: pixels change across
    its outline as much as they do a little further in and out.
    """
    sides = _measure_outline_sides(host, outline)
    if not sides:
        return False, False
    jumps, changes_outside, changes_inside, variations = zip(*sides, strict=True)
    usual_change = float(np.concatenate(changes_outside + changes_inside).mean())
    mean_jump = float(np.concatenate(jumps).mean())
    has_seam = mean_jump > MIN_SEAM_CONTRAST_RATIO * usual_change + MIN_SEAM_CONTRAST_LEVELS
    return has_seam, float(np.median(variations)) < MAX_PLAIN_VARIATION_LEVELS


def _has_plain_background(host: NDArray[np.uint8], outline: NDArray[np.float64]) -> bool:
    """Return True if nearly all of the host outside of an outline has one tone."""
    outside = np.full(host.shape[:2], 255, np.uint8)
    corners = outline * np.array(host.shape[1::-1]) - 0.5
    cv2.fillConvexPoly(outside, np.round(corners).astype(np.int32), 0)
    kernel = np.ones((SURROUNDINGS_KERNEL_PX, SURROUNDINGS_KERNEL_PX), np.uint8)
    tones = host[cv2.erode(outside, kernel) > 0].astype(np.float64)
    return len(tones) > 0 and bool(
        (np.abs(tones - np.median(tones)) <= MAX_PLAIN_VARIATION_LEVELS).mean() >= MIN_PLAIN_SHARE
    )


def _has_one_sided_seam(host: NDArray[np.uint8], outline: NDArray[np.float64]) -> bool:
    """Return True if a seam runs along any long side of an outline.

    The other sides may lie elsewhere if the image was cropped to fit in. Of 195 pairs of crops
    that overlap 1 % have such a side, of 140 images that were cropped to stand beside another 79 %.
    """
    long_sides = [
        (jumps.mean(), changes_inside.mean())
        for jumps, _, changes_inside, _ in _measure_outline_sides(host, outline)
        if OUTLINE_STEP_PX * len(jumps) >= MIN_SEAM_SIDE_PX
    ]
    return any(
        jump > MIN_ONE_SIDED_SEAM_CONTRAST_RATIO * usual_change + MIN_ONE_SIDED_SEAM_CONTRAST_LEVELS
        for jump, usual_change in long_sides
    )


def _measure_outline_sides(
    host: NDArray[np.uint8], outline: NDArray[np.float64]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float]]:
    """Measure contrasts along each side of an outline that lies within the host.

    Each side has the absolute changes across it, a little further outside, and a little further
    inside, (n,) each, and the standard deviation of the tones outside.
    """
    height, width = host.shape[:2]
    pixels = host.astype(np.float32)
    corners = outline * np.array([width, height]) - 0.5
    sides = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.linalg.norm(end - start))
        along = (end - start) / max(length, 1e-6)
        outward = np.array([along[1], -along[0]])
        if outward @ (start - corners.mean(axis=0)) < 0:
            outward = -outward
        last = max(length - CORNER_DISTANCE_PX, CORNER_DISTANCE_PX)
        points = start + along * np.arange(CORNER_DISTANCE_PX, last, OUTLINE_STEP_PX)[:, None]
        outside = points + outward * CLEAR_OFFSET_PX
        is_on_host = (outside >= 0).all(axis=1) & (outside <= [width - 1.0, height - 1.0]).all(
            axis=1
        )
        points = points[is_on_host]
        if not len(points):
            continue
        far_outside, clear_outside, just_outside, just_inside, clear_inside = (
            _sample(pixels, points + outward * offset)
            for offset in (
                FAR_OFFSET_PX,
                CLEAR_OFFSET_PX,
                SEAM_OFFSET_PX,
                -SEAM_OFFSET_PX,
                -CLEAR_OFFSET_PX,
            )
        )
        sides.append(
            (
                np.abs(just_outside - just_inside),
                np.abs(far_outside - clear_outside),
                np.abs(just_inside - clear_inside),
                float(clear_outside.std()),
            )
        )
    return sides


def _sample(pixels: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sample pixels bilinearly at points (n, 2); (n,) or (n, channels)."""
    x, y = (points[:, axis].astype(np.float32)[:, None] for axis in (0, 1))
    return np.asarray(
        cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0], np.float32
    )


def _is_inside_margin(points: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Return which unit points (n, 2) lie inside by more than `margin`, a share of a side."""
    return np.asarray(((points > margin) & (points < 1.0 - margin)).all(axis=1))


def _coarsen(rgb: NDArray[np.uint8], cells: float) -> NDArray[np.float32]:
    """Blur a small RGB image to the resolution of another one.

    `cells`: how many of its cells, along a side, a cell of the other covers. A coarser image has
    less contrast. Both images are blurred by a cell of the coarser one, so that the position of
    the cells does not matter.
    """
    cells = max(1.0, cells)
    return np.asarray(
        cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), np.sqrt(1.25 * cells**2 - 0.25)),
        np.float32,
    )


def _measure_contrast(brightness: NDArray[np.float32]) -> float:
    high, low = (compute_percentile(brightness, percentile) for percentile in CONTRAST_PERCENTILES)
    return high - low + CONTRAST_OFFSET_LEVELS


def _compare_colors(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    homography: Homography,
    changed_regions: tuple[Box, ...],
) -> tuple[Side | None, bool]:
    """Compare colors where the images overlap and neither is covered.

    Returns the side that is grayscale while the other has colors, and whether colors differ.
    `first` and `second` are (48, 48, 3).
    """
    points = _compute_unit_grid(SMALL_RGB_SIDE_PX)[:2].T
    mapped = apply_homography(homography, points)
    scale = compute_scale(compute_local_jacobian(homography, ((1, 1), (1, 1)))[1])
    cell_ratios = 1.0 / scale, scale  # own cells that a cell of the other covers, along a side
    # Near an outline, blurring mixes in pixels from beyond.
    margins = [
        min(COLOR_MARGIN_CELLS * max(1.0, ratio) / SMALL_RGB_SIDE_PX, MAX_COLOR_MARGIN)
        for ratio in cell_ratios
    ]
    is_compared = _is_inside_margin(points, margins[0]) & _is_inside_margin(mapped, margins[1])
    for box in changed_regions:
        is_compared &= ~((points >= box[:2]) & (points <= box[2:])).all(axis=1)
    if not is_compared.any():
        return None, False
    first_colors, second_colors = (
        _sample(_coarsen(rgb, ratio), where[is_compared] * len(rgb) - 0.5)
        for rgb, ratio, where in zip((first, second), cell_ratios, (points, mapped), strict=True)
    )
    # By channel: along an axis of three numbers NumPy takes ten times as long.
    colors = [np.ascontiguousarray(rows.T) for rows in (first_colors, second_colors)]
    chroma = [
        float(
            (
                np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
            ).mean()
        )
        for red, green, blue in colors
    ]
    grayscale_side = None
    if chroma[0] < MAX_GRAYSCALE_CHROMA_LEVELS and chroma[1] > MIN_COLOR_CHROMA_LEVELS:
        grayscale_side = Side.FIRST
    elif chroma[1] < MAX_GRAYSCALE_CHROMA_LEVELS and chroma[0] > MIN_COLOR_CHROMA_LEVELS:
        grayscale_side = Side.SECOND
    brightness = [(red + green + blue) / 3 for red, green, blue in colors]
    contrast = [_measure_contrast(rows) for rows in brightness]
    shift = abs(compute_median(brightness[0] - brightness[1]))
    lower_chroma, higher_chroma = (level + CHROMA_OFFSET_LEVELS for level in sorted(chroma))
    is_paler = lower_chroma < MIN_CHROMA_RATIO * higher_chroma
    is_recolored = (
        grayscale_side is not None
        or max(contrast) > MAX_CONTRAST_RATIO * min(contrast)
        or shift > MAX_BRIGHTNESS_SHIFT_LEVELS
        or is_paler
    )
    return grayscale_side, is_recolored
