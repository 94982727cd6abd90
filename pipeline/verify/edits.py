"""Detect the edits between two copies, and which of the two was made from the other.

Rotation, scale and cropping follow from the homography. Whether an image is embedded in another
or was cropped out of it shows along its outline (outlines). Colors are compared where the two
overlap (colors).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.regions import Box
from pipeline.verify.colors import compare_colors
from pipeline.verify.features import ImageFeatures
from pipeline.verify.homography import (
    MAX_ISOTROPIC_RATIO,
    UNIT_CORNERS,
    Homography,
    ImageSizes,
    apply_homography,
    compute_local_jacobian,
    compute_unit_grid,
    invert_homography,
)
from pipeline.verify.outlines import (
    detect_seam_and_background,
    has_one_sided_seam,
    has_plain_background,
)
from pipeline.verify.relation import Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Edits

MIN_ROTATION_DEG = 1.5  # smaller rotations are reported as none
# Shear or perspective, as shares, up to which a pair may be copies. Beyond, the two are different
# viewpoints, unless one image is shown whole and at least MIN_SKEWED_COPY_OVERLAP of the other.
MAX_COPY_SKEW = 0.01
MIN_SKEWED_COPY_OVERLAP = 0.4
# How far a corner may lie from its affine place, in shares of a side; beyond, it is stretched.
MAX_PERSPECTIVE_SKEW = 0.02
# An image that another shows on plain ground at a smaller scale than this was reduced to be
# embedded there. On other ground an embedded image has a seam: of 123 photos that show a copy
# without one, all were cropped to that copy; but 11, at a smaller scale than the second, to one
# that was enlarged, which only the upscale check can tell from an embedded image without a seam.
MAX_EMBEDDED_SCALE_ON_PLAIN = 0.87
MAX_UNCLEAR_SCALE = 0.75
OVERLAP_SAMPLES_PER_SIDE = 100  # the overlap is measured on a grid of this many points a side
OVERLAP_MARGIN = 0.005  # share of a side by which a point may lie outside and count as inside
UNIQUE_MARGIN = 0.015  # the same for content that only one image has
UNIQUE_WINDOW_PX = 9  # side of the window in which texture is measured
MIN_UNIQUE_TEXTURE_LEVELS = 4.0  # standard deviation there


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
    grayscale_side, is_recolored = compare_colors(
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
    first_has_seam, second_has_seam = (has_one_sided_seam(*hosts[side]) for side in Side)
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
        detect_seam_and_background(*hosts[smaller.other])
        if min(overlap) < MIN_FULL_OVERLAP
        else (False, False)
    )
    if min(overlap) >= MIN_FULL_OVERLAP:
        derived_side: Side | None = grayscale_side
    elif has_seam or (is_plain and scale_in_larger < MAX_EMBEDDED_SCALE_ON_PLAIN):
        derived_side = smaller.other  # the smaller was embedded in it
    elif is_plain or scale_in_larger < MAX_UNCLEAR_SCALE:
        derived_side = None  # a margin was added that the image blends into, or was cropped off
    else:
        derived_side = smaller  # it was cropped out of the other, and perhaps enlarged
    has_bare_margin = (
        is_plain
        and not has_seam
        and not derived_side
        and has_plain_background(*hosts[smaller.other])
    )
    return _Placement(
        smaller if has_seam else None, has_bare_margin or (has_seam and is_plain), derived_side
    )


def mark_altered_side(edits: Edits, side: Side) -> Edits:
    """Mark the image that was altered as derived, unless a side is already.

    Lettering, a sticker or a blur lies on it, or its tones were clipped. Only for two images that
    show all of each other.
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
    x, y, w = homography @ compute_unit_grid(OVERLAP_SAMPLES_PER_SIDE)
    low, high = -OVERLAP_MARGIN * w, (1.0 + OVERLAP_MARGIN) * w
    # Empty where w is negative, behind the camera: there low > high.
    is_inside = (x > low) & (x < high) & (y > low) & (y < high)
    return round(float(np.count_nonzero(is_inside)) / OVERLAP_SAMPLES_PER_SIDE**2, 4)


def measure_unique_content(image: ImageFeatures, homography: Homography) -> float:
    """Measure the share of an image that is textured and does not lie on the other.

    `homography` maps the image to the other one, both in normalized coordinates.
    """
    x, y, w = homography @ compute_unit_grid(OVERLAP_SAMPLES_PER_SIDE)
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
