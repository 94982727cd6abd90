"""What one picture is beside another that it is a copy of: turned, cropped, framed, toned, laid over; and which was made of which."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.verify.features import SMALL_RGB_SIDE_PX, ImageFeatures
from pipeline.verify.homography import (
    UNIT_CORNERS,
    Homography,
    apply_homography,
    compute_scale,
    invert_homography,
    jacobian,
)
from pipeline.verify.relation import Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Box, Edits

MIN_ROTATION_DEG = 1.5  # degrees that a turn may be off
MAX_COPY_SKEW, MIN_SKEWED_COPY_OVERLAP = (
    0.01,
    0.4,
)  # how far angles may be off in a copy; unless it shows all of one picture and this share of the other
MAX_ISOTROPIC_RATIO, MAX_PERSPECTIVE_SKEW = (
    1.03,
    0.02,
)  # one direction's growth over the other's, and how far a corner is from where no perspective would put it
SEAM_OFFSET_PX, CLEAR_OFFSET_PX, FAR_OFFSET_PX = (
    2.0,
    6.0,
    10.0,
)  # pixels off an outline: where a seam or a thin line shows, and where neither does any more
MAX_EMBEDDED_SCALE_ON_PLAIN, MAX_EMBEDDED_SCALE = (
    0.87,
    0.75,
)  # the scales below which what lies on a plain ground, and on any, was made smaller for it
MIN_SEAM_SIDE_PX = 40.0  # pixels of an outline's side that tell of a seam along it alone
MIN_PLAIN_SHARE = 0.95  # the share of what lies around a picture that has one tone, if there is nothing there but a few signs
MIN_SEAM_CONTRAST_LEVELS, MAX_PLAIN_VARIATION_LEVELS = (
    4.0,
    6.0,
)  # grey levels that a seam jumps beyond what is usual there; and that a plain ground varies by
MAX_GRAYSCALE_CHROMA_LEVELS, MIN_COLOR_CHROMA_LEVELS = (
    4.0,
    10.0,
)  # levels between a pixel's strongest and weakest colour, on the mean
OVERLAP_SAMPLES_PER_SIDE = (
    100  # points of a side that are looked at to know how much of a picture lies on another
)
MAX_CONTRAST_RATIO, MAX_BRIGHTNESS_SHIFT_LEVELS, MIN_CHROMA_RATIO = (
    1.15,
    12.0,
    0.75,
)  # contrast, levels of brightness and colourfulness, beyond which tones are others


def detect_edits(
    first: ImageFeatures,
    second: ImageFeatures,
    homography: Homography,
    changed_regions: tuple[Box, ...],
) -> Edits:
    """What the pixels of a copy show. `matrix` (3, 3) takes places, as shares of a picture's sides, from the first to the second."""
    back = invert_homography(homography)
    covers = _measure_overlap(homography), _measure_overlap(back)
    smaller = Side.FIRST if covers[0] > covers[1] else Side.SECOND
    grey, toned = _compare_colors(first.small_rgb, second.small_rgb, homography, changed_regions)
    turn = _decompose_homography(homography, (first.size, second.size))
    shown = (
        turn[-1] if smaller == Side.FIRST else 1.0 / turn[-1]
    )  # by how much the larger shows the smaller's pixels larger
    hosts = {
        Side.FIRST: (first.gray, apply_homography(back, UNIT_CORNERS)),
        Side.SECOND: (second.gray, apply_homography(homography, UNIT_CORNERS)),
    }  # with the other's outline
    if max(covers) < MIN_FULL_OVERLAP:
        seams = _has_one_sided_seam(*hosts[Side.FIRST]), _has_one_sided_seam(*hosts[Side.SECOND])
        host = (
            None if seams[0] == seams[1] else Side.FIRST if seams[0] else Side.SECOND
        )  # which shows the other, cut, among other things
        return Edits(
            *turn,
            covers,
            host.other if host else None,
            False,
            grey,
            toned,
            changed_regions,
            host or grey,
        )
    seam, plain = (
        _detect_seam_and_background(*hosts[smaller.other])
        if min(covers) < MIN_FULL_OVERLAP
        else (False, False)
    )
    if min(covers) >= MIN_FULL_OVERLAP:
        derived: Side | None = grey
    elif seam or shown < (MAX_EMBEDDED_SCALE_ON_PLAIN if plain else MAX_EMBEDDED_SCALE):
        derived = smaller.other  # it was put into the other, which shows less of it
    elif plain or shown < MAX_EMBEDDED_SCALE_ON_PLAIN:
        derived = None  # a margin was added that the picture runs into, or cut off: who could tell
    else:
        derived = smaller  # it was cut out
    bare = plain and not seam and not derived and _has_plain_background(*hosts[smaller.other])
    return Edits(
        *turn,
        covers,
        smaller if seam else None,
        bare or (seam and plain),
        grey,
        toned,
        changed_regions,
        derived,
    )


def is_viewpoint_change(
    edits: Edits, homography: Homography, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> bool:
    """Whether two pictures that agree were taken from two places, or in two directions, rather than one be made of the other.

    Who makes a copy keeps its angles, or stretches all along one side; who leans it shows most of it, and puts it on top of something. Of
    2,394 copies of 60 photos, those that lean aside, none was askew but a crop to 40 % in a hundred; those that lean show 57 % at least.
    """
    if edits.embedded_side or (
        max(edits.overlap) >= MIN_FULL_OVERLAP and min(edits.overlap) >= MIN_SKEWED_COPY_OVERLAP
    ):
        return False
    middle, grown, pixels = _local_jacobian(homography, sizes)
    growth = np.linalg.svd(pixels)[1]
    along = np.sort(np.abs(pixels), axis=None)[1] / np.sqrt(
        growth[0] * growth[1]
    )  # 0 where sides stay along sides
    shear = min(growth[0] / growth[1] - 1.0, along)
    return bool(
        shear > MAX_COPY_SKEW or _perspective_skew(homography, middle, grown) > MAX_COPY_SKEW
    )


def principal_scales(
    homography: Homography, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[float, float]:
    """By how much pixels grow from the first to the second of two pictures, (width, height) each, in the middle of what they share: most,
    and least, along whatever direction.
    """
    most, least = np.linalg.svd(_local_jacobian(homography, sizes)[2])[1]
    return float(most), float(least)


def _local_jacobian(
    homography: Homography, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What pixels do in the middle of what two pictures share: where that is; and the columns to which a step along x, and one along y,
    leads, in shares of the sides and in pixels.
    """
    middle = apply_homography(invert_homography(homography), np.array([[0.5, 0.5]]))[0].clip(
        0.0, 1.0
    )
    grown = jacobian(homography, middle)
    return middle, grown, grown * np.array(sizes[1])[:, None] / np.array(sizes[0])[None, :]


def _perspective_skew(
    homography: Homography, center: NDArray[np.float64], unit_jacobian: NDArray[np.float64]
) -> float:
    """How far a corner is, at most, from where no perspective would put it, as a share of the sides."""
    straight = (
        apply_homography(homography, center[None, :]) + (UNIT_CORNERS - center) @ unit_jacobian.T
    )
    return float(np.abs(apply_homography(homography, UNIT_CORNERS) - straight).max()) * min(
        1.0, 1.0 / float(np.abs(unit_jacobian).max())
    )


def _decompose_homography(
    homography: Homography, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[bool, int, float, bool, float]:
    """Whether it is mirrored, its quarter turns, the degrees that are left, whether it is stretched, and its scale: what pixels do in the
    middle.
    """
    middle, grown, pixels = _local_jacobian(homography, sizes)
    mirrored = bool(np.linalg.det(pixels) < 0)
    if mirrored:
        pixels = pixels * np.array([-1.0, 1.0])  # it was mirrored left to right first
    left, growth, right = np.linalg.svd(pixels)
    pure = left @ right
    angle = float(np.degrees(np.arctan2(pure[1, 0], pure[0, 0])))  # clockwise: y runs down
    turned = round(angle / 90.0) * 90
    stretched = bool(
        growth[0] > MAX_ISOTROPIC_RATIO * growth[1]
        or _perspective_skew(homography, middle, grown) > MAX_PERSPECTIVE_SKEW
    )
    rest = angle - turned
    scale = round(float(np.sqrt(growth[0] * growth[1])), 4)
    return (
        mirrored,
        turned % 360,
        round(rest, 1) if abs(rest) > MIN_ROTATION_DEG else 0.0,
        stretched,
        scale,
    )


def _measure_overlap(homography: Homography) -> float:
    """How much of a picture a transform takes onto another: of points all over it, those that come to lie there."""
    x, y, depth = homography @ _compute_unit_grid(OVERLAP_SAMPLES_PER_SIDE)
    low, high = -0.005 * depth, 1.005 * depth
    there = (
        (x > low) & (x < high) & (y > low) & (y < high)
    )  # none where the depth is negative, behind who looks
    return round(np.count_nonzero(there) / OVERLAP_SAMPLES_PER_SIDE**2, 4)


@cache
def _compute_unit_grid(side: int) -> NDArray[np.float64]:
    """Places (x, y, 1) all over a picture as shares of its sides, (3, side * side), by rows."""
    y, x = (np.mgrid[0:side, 0:side].reshape(2, -1) + 0.5) / side
    return np.stack([x, y, np.ones_like(x)])


def _detect_seam_and_background(
    host: NDArray[np.uint8], outline: NDArray[np.float64]
) -> tuple[bool, bool]:
    """Whether a seam runs along an outline, in shares of the host's sides, where it is not the host's own edge; and whether the ground
    around it is plain.

    A picture that was cut out of the host has none: the pixels change there as much as they do a little further in and out.
    """
    sides = _measure_outline_sides(host, outline)
    if not sides:
        return False, False
    jumps, beyond, within, grounds = zip(*sides, strict=True)
    usual = float(np.concatenate(beyond + within).mean())
    seam = float(np.concatenate(jumps).mean()) > 1.5 * usual + MIN_SEAM_CONTRAST_LEVELS
    return seam, float(np.median(grounds)) < MAX_PLAIN_VARIATION_LEVELS


def _has_plain_background(host: NDArray[np.uint8], outline: NDArray[np.float64]) -> bool:
    """Whether there is next to nothing but one tone around an outline, in shares of the host's sides."""
    around = np.full(host.shape[:2], 255, np.uint8)
    corners = outline * np.array(host.shape[1::-1]) - 0.5
    cv2.fillConvexPoly(around, np.round(corners).astype(np.int32), 0)
    tones = host[cv2.erode(around, np.ones((7, 7), np.uint8)) > 0].astype(np.float64)
    return len(tones) > 0 and bool(
        (np.abs(tones - np.median(tones)) <= MAX_PLAIN_VARIATION_LEVELS).mean() >= MIN_PLAIN_SHARE
    )


def _has_one_sided_seam(host: NDArray[np.uint8], outline: NDArray[np.float64]) -> bool:
    """Whether a seam runs along one side of an outline: the others may lie elsewhere, where a picture was cut to fit in.

    Of 195 pairs of crops that overlap 1 % have such a side, of 140 photos that were cut to lie beside another 79 %.
    """
    long = [
        (jumps.mean(), within.mean())
        for jumps, _, within, _ in _measure_outline_sides(host, outline)
        if 2 * len(jumps) >= MIN_SEAM_SIDE_PX
    ]
    return any(jump > 2.5 * usual + 2 * MIN_SEAM_CONTRAST_LEVELS for jump, usual in long)


def _measure_outline_sides(
    host: NDArray[np.uint8], outline: NDArray[np.float64]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float]]:
    """Of each side of an outline that lies within the host: by how much pixels change across it, at places 2 pixels apart, a little further
    out, and a little further in; and how much the ground beyond it varies.
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
        places = start + along * np.arange(4.0, max(length - 4.0, 4.0), 2.0)[:, None]
        beyond = places + outward * CLEAR_OFFSET_PX
        places = places[
            (beyond >= 0).all(axis=1) & (beyond <= [width - 1.0, height - 1.0]).all(axis=1)
        ]
        if not len(places):
            continue
        farther, far_out, out, within, far_in = (
            _sample(pixels, places + outward * off)
            for off in (
                FAR_OFFSET_PX,
                CLEAR_OFFSET_PX,
                SEAM_OFFSET_PX,
                -SEAM_OFFSET_PX,
                -CLEAR_OFFSET_PX,
            )
        )
        sides.append(
            (
                np.abs(out - within),
                np.abs(farther - far_out),
                np.abs(within - far_in),
                float(far_out.std()),
            )
        )
    return sides


def _sample(pixels: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """What lies at places (n, 2)."""
    x, y = (points[:, axis].astype(np.float32)[:, None] for axis in (0, 1))
    return np.asarray(
        cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0], np.float32
    )


def _is_inside_margin(points: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Which places (n, 2), in shares of a picture's sides, are farther than that from its outline."""
    return np.asarray(((points > margin) & (points < 1.0 - margin)).all(axis=1))


def _coarsen(rgb: NDArray[np.uint8], cells: float) -> NDArray[np.float32]:
    """Colours as coarse as those of a picture of which one covers so many of these `cells`, along a side: contrast is less there. Both are
    blurred by a cell of the coarser one, so that it does not matter where cells lie.
    """
    cells = max(1.0, cells)
    return np.asarray(
        cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), np.sqrt(1.25 * cells**2 - 0.25)),
        np.float32,
    )


def _compare_colors(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    homography: Homography,
    changed_regions: tuple[Box, ...],
) -> tuple[Side | None, bool]:
    """Which of the two is grey where the other has colours, and whether their tones differ, where they lie on each other and nothing lies
    on them.
    """
    places = _compute_unit_grid(SMALL_RGB_SIDE_PX)[:2].T
    there = apply_homography(homography, places)
    grown = compute_scale(_local_jacobian(homography, ((1, 1), (1, 1)))[1])
    coarse = 1.0 / grown, grown  # cells of each that one cell of the other covers, along a side
    edges = [
        min(2.5 * max(1.0, cells) / SMALL_RGB_SIDE_PX, 0.2) for cells in coarse
    ]  # what lies beyond an outline is mixed in there
    both = _is_inside_margin(places, edges[0]) & _is_inside_margin(there, edges[1])
    for box in changed_regions:
        both &= ~((places >= box[:2]) & (places <= box[2:])).all(axis=1)
    if not both.any():
        return None, False
    alike = (_coarsen(rgb, cells) for rgb, cells in zip((first, second), coarse, strict=True))
    one, other = (
        _sample(rgb, some[both] * len(rgb) - 0.5)
        for rgb, some in zip(alike, (places, there), strict=True)
    )
    colours = [float((rows.max(axis=1) - rows.min(axis=1)).mean()) for rows in (one, other)]
    grey = (
        Side.FIRST
        if colours[0] < MAX_GRAYSCALE_CHROMA_LEVELS and colours[1] > MIN_COLOR_CHROMA_LEVELS
        else Side.SECOND
        if colours[1] < MAX_GRAYSCALE_CHROMA_LEVELS and colours[0] > MIN_COLOR_CHROMA_LEVELS
        else None
    )
    lights = [rows.mean(axis=1) for rows in (one, other)]
    spread = [float(np.subtract(*np.percentile(light, (90, 10)))) + 1.0 for light in lights]
    lift = abs(float(np.median(lights[0] - lights[1])))
    paler = min(colours) + 2.0 < MIN_CHROMA_RATIO * (max(colours) + 2.0)
    return grey, bool(grey) or max(spread) > MAX_CONTRAST_RATIO * min(
        spread
    ) or lift > MAX_BRIGHTNESS_SHIFT_LEVELS or paler
