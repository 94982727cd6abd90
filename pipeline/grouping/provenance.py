"""Tell which of several copies the others were made of.

Evidence counts in this order: how each was edited, as all copies together show (alterations);
whether its file is as a camera wrote it, by its metadata; how near its noise and its detail are to
those of all copies; and the hints of single pairs, as of enlargement without new detail.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf

from indexes.metadata import ImageMetadata
from indexes.records import Image
from pipeline.grouping.alterations import Alteration, find_alterations, measure_gains
from pipeline.grouping.camera_files import is_camera_file
from pipeline.grouping.copy_views import CopyView, Views
from pipeline.grouping.losses import NO_LOSSES, Losses, find_losses
from pipeline.verify.homography import MAX_ISOTROPIC_RATIO, compute_principal_scales
from pipeline.verify.judgement import UNKNOWN_NOISE
from pipeline.verify.verdict import MIN_FULL_OVERLAP

MAX_SIZE_RATIO = 1.1  # of two numbers of pixels that count as one size
# An image is nearer to the photo than another one if its noise correlates more with that of their
# copies, in the mean: all copies have the noise of the photo, and each has some of its own. Of 20
# photos with 60 copies each, the photo is nearer than every copy that was encoded again, blurred,
# sharpened or enlarged. Copies with more pixels than either are left out, as more pixels have more
# noise of their own.
MIN_NOISE_LEAD = 0.005
MIN_COMMON_COPIES = 3
# Or it is nearer by this to the detail of most copies, which counts first: an image without noise
# of its own correlates well with all. The median gain of the photo is 0.013 at most.
MIN_GAIN_LEAD = 0.02
MAX_RIVALS = 5  # images with the highest means that others are compared with
# A larger image with less detail than this, that is not nearest to the photo, is upscaled. Of 20
# photos that were enlarged 1.7 times, 19 have less, and 5 of the photos have less beyond a copy of
# half their size.
MAX_DOUBTFUL_DETAIL = 0.25


@dataclass(frozen=True, slots=True)
class Provenance:
    """The history of an image, as far as its copies and its metadata tell it.

    `alterations`: how it was edited. `is_from_camera`: its file is as a camera wrote it, by its
    metadata. `is_secondhand`: another unaltered copy is nearer to the photo. `is_derived`: more of
    the pairs with its copies say that it was made from the other than say the opposite, or,
    without a copy of the same extent, those in doubt say that it was altered in places.
    `is_upscaled`: enlarged without new detail. `is_padded`: with a plain margin around it.
    `max_pixel_count`: an upper bound on its effective pixels, where it may be a stretched version
    of a copy. `losses`: what it lost compared with its copies.
    """

    alterations: frozenset[Alteration] = frozenset()
    is_from_camera: bool = False
    is_secondhand: bool = False
    is_derived: bool = False
    is_upscaled: bool = False
    is_padded: bool = False
    max_pixel_count: float = inf
    losses: Losses = NO_LOSSES


def trace_provenance(
    views: Views,
    images: Mapping[bytes, Image],
    metadata: Mapping[bytes, Sequence[ImageMetadata]],
    marks: Mapping[bytes, int],
) -> dict[bytes, Provenance]:
    """Trace the provenance of each of `images` from its verified copies and its metadata.

    `metadata` is that of all contents with the pixels of an image, `marks` what count_marks()
    counts for it. The order of views does not matter.
    """
    camera_images = {
        image
        for image in images
        if any(is_camera_file(item, images[image]) for item in metadata.get(image, ()))
    }
    gains = measure_gains(views)
    alterations = find_alterations(views, camera_images, gains)
    secondhand = _find_secondhand(
        {image: own_views for image, own_views in views.items() if not alterations[image]},
        images,
        gains,
    )
    upscaled = {
        image
        for image in images
        if any(view.edits.upscaled_side is view.side for view in views[image])
    }
    losses = find_losses(views, images, metadata)
    return {
        image: Provenance(
            alterations[image],
            image in camera_images,
            image in secondhand,
            _is_derived(views[image]) or _is_marked(views[image], marks[image]),
            image in upscaled and not _is_soft(image, views[image], upscaled, images),
            _is_padded(views[image]),
            _limit_pixel_count(image, views[image], images),
            losses[image],
        )
        for image in images
    }


def _find_secondhand(
    views: Views, images: Mapping[bytes, Image], gains: Mapping[bytes, float | None]
) -> set[bytes]:
    """Find the images that are farther from the photo than one of their copies in `views`.

    The other one has as many pixels, or the image has no detail beyond it.
    """
    noise = {
        image: {
            view.copy: view.verdict.judgement.noise_ncc
            for view in own_views
            if view.has_same_extent
            and view.verdict.judgement
            and view.verdict.judgement.noise_ncc > UNKNOWN_NOISE
        }
        for image, own_views in views.items()
    }
    means = {image: fsum(row.values()) / len(row) for image, row in noise.items() if row}
    found = set[bytes]()
    for image, own_views in views.items():
        rivals = [
            view
            for view in own_views
            if view.copy in means
            and view.has_same_extent
            and (
                _count_pixels(images[view.copy]) * MAX_SIZE_RATIO >= _count_pixels(images[image])
                or _lacks_detail(view)
            )
        ]
        rivals.sort(key=lambda view: (-means[view.copy], view.copy))
        if any(
            _has_usual_detail(view.copy, image, gains)
            or (
                not _has_usual_detail(image, view.copy, gains)
                and _shares_noise(view.copy, image, noise, images)
            )
            for view in rivals[:MAX_RIVALS]
        ):
            found.add(image)
    return found


def _lacks_detail(view: CopyView) -> bool:
    """Tell if an image with more pixels than its copy has little detail beyond it."""
    detail = view.edits.fine_detail
    return detail is not None and detail < MAX_DOUBTFUL_DETAIL


def _has_usual_detail(first: bytes, second: bytes, gains: Mapping[bytes, float | None]) -> bool:
    """Tell if the detail of the first image is nearer to that of most copies than the second's."""
    first_gain, second_gain = gains[first], gains[second]
    return (
        first_gain is not None
        and second_gain is not None
        and abs(first_gain) + MIN_GAIN_LEAD < abs(second_gain)
    )


def _shares_noise(
    first: bytes,
    second: bytes,
    noise: Mapping[bytes, Mapping[bytes, float]],
    images: Mapping[bytes, Image],
) -> bool:
    """Tell if the first image shares more noise with the copies of both than the second does."""
    largest = MAX_SIZE_RATIO * min(_count_pixels(images[image]) for image in (first, second))
    leads = [
        noise[first][copy] - noise[second][copy]
        for copy in noise[first].keys() & noise[second].keys()
        if _count_pixels(images[copy]) <= largest
    ]
    return len(leads) >= MIN_COMMON_COPIES and fsum(leads) / len(leads) >= MIN_NOISE_LEAD


def _count_pixels(image: Image) -> int:
    return image.width * image.height


def _is_derived(views: Iterable[CopyView]) -> bool:
    """Tell if more pairs say that an image was made from its copy than say the opposite."""
    sides = [(view.edits.derived_side, view.side) for view in views]
    return sum(side is own for side, own in sides) > sum(side is own.other for side, own in sides)


def _is_marked(views: Iterable[CopyView], marks: int) -> bool:
    """Tell if pairs in doubt say that an image was altered, and no copy with its extent tells more.

    One pair in 16 says it of the wrong side, and would outrank a photo that many copies agree with.
    """
    return marks > 0 and not any(view.has_same_extent for view in views)


def _is_soft(
    image: bytes,
    views: Iterable[CopyView],
    upscaled: Collection[bytes],
    images: Mapping[bytes, Image],
) -> bool:
    """Tell if the copies of an upscaled image in its size look upscaled, too: the photo is soft."""
    pixel_count = _count_pixels(images[image])
    peers = [
        view.copy
        for view in views
        if view.has_same_extent
        and 1 / MAX_SIZE_RATIO < _count_pixels(images[view.copy]) / pixel_count < MAX_SIZE_RATIO
    ]
    return 2 * sum(peer in upscaled for peer in peers) >= len(peers) > 0


def _is_padded(views: Sequence[CopyView]) -> bool:
    """Tell if most pairs say that an image is its copy with a plain margin around it."""
    padded = sum(
        view.edits.plain_background
        and not view.edits.embedded_side
        and view.own_overlap < MIN_FULL_OVERLAP
        for view in views
    )
    return 2 * padded > len(views)


def _limit_pixel_count(
    image: bytes, views: Sequence[CopyView], images: Mapping[bytes, Image]
) -> float:
    """Return the least effective pixel count that stretched pairs leave an image.

    Infinite unless most pairs are stretched.
    """
    counts = [
        _count_unstretched_pixels(image, view, images)
        for view in views
        if view.edits.anisotropic and min(view.edits.overlap) >= MIN_FULL_OVERLAP
    ]
    return min(counts) if 2 * len(counts) > len(views) else inf


def _count_unstretched_pixels(image: bytes, view: CopyView, images: Mapping[bytes, Image]) -> float:
    """Return the effective pixel count of one image of a stretched pair.

    Which of the two was stretched cannot be known. So an image counts for as many pixels as the
    other one has, or for more if it is larger in all directions: then the least of its principal
    scales, squared, is the factor.
    """
    own, other = images[image], images[view.copy]
    first, second = (own, other) if view.is_first else (other, own)
    sizes = (first.width, first.height), (second.width, second.height)
    largest, smallest = compute_principal_scales(view.verdict.homography_matrix, sizes)
    scale = 1.0 / largest if view.is_first else smallest
    factor = scale**2 if scale > MAX_ISOTROPIC_RATIO else 1.0
    return other.width * other.height * factor
