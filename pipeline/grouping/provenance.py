"""Tell which of several copies the others were made of.

Evidence counts in this order: how each was edited, as all copies together show (alterations);
whether its file is as a camera wrote it, by its metadata; the pairs that say that it was made from
the other; how near its detail and its noise are to those of most copies; and the hints of single
pairs, as of enlargement without new detail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf

from indexes.metadata import ImageMetadata
from indexes.records import Image
from pipeline.grouping.alterations import Alteration, find_alterations
from pipeline.grouping.camera_files import is_camera_file
from pipeline.grouping.copy_views import CopyView, Views
from pipeline.grouping.losses import NO_LOSSES, Losses, find_losses
from pipeline.verify.homography import MAX_ISOTROPIC_RATIO, compute_principal_scales
from pipeline.verify.judgement import UNKNOWN_NOISE
from pipeline.verify.verdict import MIN_FULL_OVERLAP

MAX_SIZE_RATIO = 1.1  # of two numbers of pixels that count as one size
# Of two images the one is nearer to the photo that is nearer to most of their common copies: by the
# log ratio of their gradients, or else by the correlation of their noise. A copy that tells them
# apart by less does not vote. All copies have the noise of the photo, and each has some of its own;
# those with more pixels than either do not vote, as more pixels have more noise of their own. Only
# what was made from a copy is nearer to it than to the photo, so the majority must be large. Of
# 122 photos with 1 to 55 copies, many made from one another, 87 are kept so; 77 by means over all
# copies instead of votes.
MIN_GAIN_LEAD = 0.02
MIN_NOISE_LEAD = 0.02
MIN_VOTES = 3
MIN_VOTING_SHARE = 0.3  # of the common copies: a few of many differ by chance
MIN_VOTE_SHARE = 0.8
# A larger image with less detail than this, that is not nearest to the photo, is upscaled. Of 20
# photos that were enlarged 1.7 times, 19 have less, and 5 of the photos have less beyond a copy of
# half their size.
MAX_DOUBTFUL_DETAIL = 0.25
# Detail of a larger image, for a pair alone too much to call it upscaled, up to which it counts if
# most of its copies show it, and how many of them have to.
MAX_REPEATED_DETAIL = 0.125
MIN_SMALLER_COPIES = 8
# Copies smaller than an image that all have to look upscaled, too, so that the photo is soft.
MIN_SOFT_COPIES = 2
# Share of the pairs of an image that say that it was made from the other. An edited image differs
# so from all copies that lack the edit, but not from those that were made from it.
MIN_DERIVED_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Provenance:
    """The history of an image, as far as its copies and its metadata tell it.

    `alterations`: how it was edited. `is_from_camera`: its file is as a camera wrote it, by its
    metadata. `is_secondhand`: another unaltered copy is nearer to the photo. `is_derived`: at least
    MIN_DERIVED_SHARE of the pairs with its copies say that it was made from the other, or, without
    a copy of the same extent, those in doubt say that it was altered in places.
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
    alterations = find_alterations(views, camera_images)
    secondhand = _find_secondhand(
        {image: own_views for image, own_views in views.items() if not alterations[image]},
        images,
    )
    upscaled = {
        image
        for image in images
        if any(view.edits.upscaled_side is view.side for view in views[image])
        or _lacks_detail_of_most(image, views[image], images)
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


def _find_secondhand(views: Views, images: Mapping[bytes, Image]) -> set[bytes]:
    """Find the images that are farther from the photo than one of their copies in `views`.

    The other one has as many pixels, or the image has no detail beyond it.
    """
    full_views = {
        image: {view.copy: view for view in own_views if view.has_same_extent}
        for image, own_views in views.items()
    }
    return {
        image
        for image, own_views in full_views.items()
        if any(
            copy in full_views
            and (
                images[copy].pixel_count * MAX_SIZE_RATIO >= images[image].pixel_count
                or _lacks_detail(view)
            )
            and _is_nearer(copy, image, full_views, images)
            for copy, view in own_views.items()
        )
    }


def _lacks_detail_of_most(
    image: bytes, views: Iterable[CopyView], images: Mapping[bytes, Image]
) -> bool:
    """Tell if an image has little detail beyond most of its many copies, which all are smaller."""
    pixel_count = images[image].pixel_count
    copies = [view for view in views if view.has_same_extent]
    details = [
        view.edits.fine_detail
        for view in copies
        if view.edits.fine_detail is not None and images[view.copy].pixel_count < pixel_count
    ]
    return len(details) >= MIN_SMALLER_COPIES and 2 * sum(
        detail < MAX_REPEATED_DETAIL for detail in details
    ) > len(copies)


def _lacks_detail(view: CopyView) -> bool:
    """Tell if an image with more pixels than its copy has little detail beyond it."""
    detail = view.edits.fine_detail
    return detail is not None and detail < MAX_DOUBTFUL_DETAIL


def _is_nearer(
    first: bytes,
    second: bytes,
    views: Mapping[bytes, Mapping[bytes, CopyView]],
    images: Mapping[bytes, Image],
) -> bool:
    """Tell if the first image is nearer to most common copies than the second.

    Detail decides before noise: an image without noise of its own correlates well with all.
    """
    common = views[first].keys() & views[second].keys()
    pairs = [(views[first][copy], views[second][copy]) for copy in common]
    by_detail = _count_votes(
        (abs(other.detail_gain) - abs(view.detail_gain) for view, other in pairs), MIN_GAIN_LEAD
    )
    if by_detail:
        return by_detail > 0
    max_pixels = MAX_SIZE_RATIO * min(images[image].pixel_count for image in (first, second))
    noises = [
        (_get_noise(view), _get_noise(other))
        for view, other in pairs
        if images[view.copy].pixel_count <= max_pixels
    ]
    leads = (own - others for own, others in noises if min(own, others) > UNKNOWN_NOISE)
    return _count_votes(leads, MIN_NOISE_LEAD) > 0


def _count_votes(leads: Iterable[float], min_lead: float) -> int:
    """Count votes by their leads: 1 for a large majority of positive ones, -1 of negative, else 0.

    A lead below `min_lead` is no vote.
    """
    all_leads = list(leads)
    votes = [lead > 0 for lead in all_leads if abs(lead) >= min_lead]
    if len(votes) < max(MIN_VOTES, MIN_VOTING_SHARE * len(all_leads)):
        return 0
    share = sum(votes) / len(votes)
    return int(share >= MIN_VOTE_SHARE) - int(share <= 1 - MIN_VOTE_SHARE)


def _get_noise(view: CopyView) -> float:
    judgement = view.verdict.judgement
    return judgement.noise_ncc if judgement else UNKNOWN_NOISE


def _is_derived(views: Sequence[CopyView]) -> bool:
    """Tell if several of the pairs of an image say that it was made from its copy."""
    derived = sum(view.edits.derived_side is view.side for view in views)
    return derived > 0 and derived >= MIN_DERIVED_SHARE * len(views)


def _is_marked(views: Iterable[CopyView], marks: int) -> bool:
    """Tell if pairs in doubt say that an image was altered, and no copy with its extent tells more.

    One pair in 16 says it of the wrong side, and would outrank a photo that many copies agree with.
    """
    return marks > 0 and not any(view.has_same_extent for view in views)


def _is_soft(
    image: bytes,
    views: Iterable[CopyView],
    upscaled: AbstractSet[bytes],
    images: Mapping[bytes, Image],
) -> bool:
    """Tell if the copies of an upscaled image look upscaled, too: then the photo is soft.

    Half of those in its size are enough; without any, all smaller ones have to, but for those by
    which it looks upscaled. What an image was enlarged from does not look upscaled.
    """
    pixel_count = images[image].pixel_count
    peers, smaller = list[bytes](), list[bytes]()
    for view in views:
        ratio = images[view.copy].pixel_count / pixel_count
        if view.has_same_extent and 1 / MAX_SIZE_RATIO < ratio < MAX_SIZE_RATIO:
            peers.append(view.copy)
        elif ratio < 1 and view.edits.upscaled_side is not view.side:
            smaller.append(view.copy)
    if peers:
        return 2 * sum(peer in upscaled for peer in peers) >= len(peers)
    return len(smaller) >= MIN_SOFT_COPIES and upscaled >= set(smaller)


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
    return other.pixel_count * factor
