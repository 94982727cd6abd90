"""Tell, from all verified copies of an image together, what was done to it.

A verdict on two images says how they differ, but often not which of them was edited. Over a
cluster of copies it shows: what most others agree on is the photo, and what stands against most of
them is an edit. Of 44 copies of a photo that were edited in 44 ways, each differs from most others
in its own edit, and the photo from few in any. Evidence counts in this order:

1. Metadata. A file with the fields that a camera writes, and no sign of an editor, is the camera's.
2. Frames. Images that show all of each other have one frame. A frame with a seam around what others
   show was put around it; one that others show more around was cut.
3. Consensus. An image that most copies differ from in one way, though they agree among each other,
   was edited in that way: turned, stretched, toned, or covered in places.
4. The hints of single pairs: colors lost, smoothed areas, enlargement without detail.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import fsum, inf, log2
from statistics import median
from typing import NamedTuple

from indexes.metadata import ImageMetadata
from indexes.records import Image
from pipeline.grouping.edges import Neighbor
from pipeline.verify.homography import MAX_ISOTROPIC_RATIO, compute_principal_scales
from pipeline.verify.judgement import UNKNOWN_NOISE
from pipeline.verify.relation import Relation, Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Edits, Verdict

# An image was edited in a way if more than the first share of its copies differ from it in that
# way, and if the share is larger than that of one of its copies by the second.
MIN_ODD_SHARE = 0.65
MIN_ODD_LEAD = 0.3
MIN_CHANGED_SHARE = 0.005  # of the pixels, in which a covered image differs
# Median of the log ratios of gradients, of the copies over the image, beyond which it was smoothed
# or sharpened; and up to which a copy was not.
MIN_FILTERED_GAIN = 0.25
MAX_UNFILTERED_GAIN = 0.125
# Weights of a hint that an image was put into another, or cut out of it.
SEAM_VOTES = 2.0
CUT_VOTES = 1.0
SCALE_VOTES = 0.5
VOTES_PER_DOUBLING = 0.25  # for the frame that twice as many images have
MIN_FRAME_LEAD = 0.3  # of the mean vote of all pairs of two frames, below which nothing tells
MAX_SIZE_RATIO = 1.1  # of two numbers of pixels that count as one size
# An image is nearer to the photo than another one if its noise correlates more with that of their
# copies, in the mean: all copies have the noise of the photo, and each has some of its own. Of 20
# photos with 60 copies each, the photo is nearer than every copy that was encoded again, blurred,
# sharpened or enlarged. Copies with more pixels than either are left out, as more pixels have more
# noise of their own.
MIN_NOISE_LEAD = 0.003
MIN_COMMON_COPIES = 3
# Or it is nearer by this to the detail of most copies, which counts first: an image without noise
# of its own correlates well with all. The median gain of the photo is 0.013 at most.
MIN_GAIN_LEAD = 0.02
MAX_RIVALS = 5  # images with the highest means that others are compared with
# A larger image with less detail than this, that is not nearest to the photo, is upscaled. Of 20
# photos that were enlarged 1.7 times, 19 have less, and 5 of the photos have less beyond a copy of
# half their size.
MAX_DOUBTFUL_DETAIL = 0.25
# Words in the software field of programs that edit photos. Cameras write their firmware there.
EDITOR_WORDS = (
    "acdsee",
    "affinity",
    "aperture",
    "camera raw",
    "canva",
    "capture one",
    "darktable",
    "digikam",
    "dxo",
    "facebook",
    "gimp",
    "imagemagick",
    "instagram",
    "irfanview",
    "lightroom",
    "luminar",
    "meitu",
    "paint",
    "photofiltre",
    "photoscape",
    "photoshop",
    "picasa",
    "picsart",
    "pixelmator",
    "pixlr",
    "polarr",
    "rawtherapee",
    "snapseed",
    "vsco",
    "xnview",
)


class Alteration(StrEnum):
    """What was done to an image; the values are the words for people."""

    FRAMED = "inside another picture"
    CUT = "cropped"
    TURNED = "turned"
    STRETCHED = "stretched"
    GRAYSCALE = "in grayscale"
    RECOLORED = "recolored"
    COVERED = "covered in places"
    FILTERED = "smoothed or sharpened"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the copies of an image, and its metadata, say of where it comes from.

    `alterations`: what was done to it. `is_from_camera`: its file is as a camera wrote it, by its
    metadata. `is_secondhand`: another unaltered copy is nearer to the photo. `is_derived`: more of
    the pairs with its copies say that it was made from the other than say the opposite.
    `is_upscaled`: enlarged without new detail. `is_padded`: with a plain margin around it.
    `max_pixel_count`: an upper bound on its effective pixels, where it may be a stretched version
    of a copy.
    """

    alterations: frozenset[Alteration] = frozenset()
    is_from_camera: bool = False
    is_secondhand: bool = False
    is_derived: bool = False
    is_upscaled: bool = False
    is_padded: bool = False
    max_pixel_count: float = inf


@dataclass(frozen=True, slots=True)
class _View:
    """A verified copy as one image sees it.

    `own_overlap` is the share of the image that lies on the copy, `other_overlap` the reverse.
    """

    copy: bytes
    side: Side
    verdict: Verdict
    edits: Edits
    own_overlap: float
    other_overlap: float

    @property
    def has_same_frame(self) -> bool:
        """True if each shows all of the other."""
        return min(self.own_overlap, self.other_overlap) >= MIN_FULL_OVERLAP

    @property
    def shows_more(self) -> bool:
        """True if the image shows all of the copy, and more."""
        return self.own_overlap < MIN_FULL_OVERLAP <= self.other_overlap


_Views = Mapping[bytes, Sequence[_View]]


class _Share(NamedTuple):
    """The share of the copies that an image differs from in some way, and how many there are."""

    value: float
    copies: int


def trace_provenance(
    neighbors: Mapping[bytes, Sequence[Neighbor]],
    relations: Collection[Relation],
    images: Mapping[bytes, Image],
    metadata: Mapping[bytes, Sequence[ImageMetadata]],
) -> dict[bytes, Provenance]:
    """Trace the provenance of each of `images` from its verified copies and its metadata.

    Copies are the neighbors by an edge of one of `relations` whose verdict has edits. `metadata`
    is that of all contents with these pixels. The order of neighbors does not matter.
    """
    views = {
        image: [
            view
            for neighbor in neighbors[image]
            if neighbor.edge.relation in relations and (view := _make_view(image, neighbor))
        ]
        for image in images
    }
    camera_images = {
        image
        for image in images
        if any(is_camera_file(item, images[image]) for item in metadata.get(image, ()))
    }
    gains = {image: _measure_gain(own_views) for image, own_views in views.items()}
    alterations = _find_alterations(views, camera_images, gains)
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
    return {
        image: Provenance(
            alterations[image],
            image in camera_images,
            image in secondhand,
            _is_derived(views[image]),
            image in upscaled and not _is_soft(image, views[image], upscaled, images),
            _is_padded(views[image]),
            _limit_pixel_count(image, views[image], images),
        )
        for image in images
    }


def is_camera_file(metadata: ImageMetadata, image: Image) -> bool:
    """Tell if a file is as a camera wrote it, as far as its metadata says.

    It has the model and the settings of the exposure, no sign of an editor, and the size that its
    EXIF states, if it states one.
    """
    capture, software = metadata.capture, (metadata.software or "").casefold()
    has_settings = any((capture.exposure_time, capture.aperture, capture.iso))
    is_edited = any(word in software for word in EDITOR_WORDS) or (
        metadata.jpeg is not None and metadata.jpeg.origin == "editor"
    )
    stated = {metadata.stated_width, metadata.stated_height}
    has_stated_size = None in stated or stated == {image.width, image.height}
    return bool(capture.model) and has_settings and not is_edited and has_stated_size


def _make_view(image: bytes, neighbor: Neighbor) -> _View | None:
    edge, verdict = neighbor.edge, neighbor.edge.verdict
    if verdict is None or verdict.edits is None:
        return None
    side = Side.FIRST if image == edge.left else Side.SECOND
    first, second = verdict.edits.overlap
    own, other = (first, second) if side is Side.FIRST else (second, first)
    return _View(neighbor.pixel_hash, side, verdict, verdict.edits, own, other)


def _find_alterations(
    views: _Views, camera_images: Collection[bytes], gains: Mapping[bytes, float | None]
) -> dict[bytes, frozenset[Alteration]]:
    """Find what was done to each image, by its frame and by the consensus of its copies."""
    shares: dict[Alteration, dict[bytes, _Share]] = {
        alteration: {
            image: _measure_share(own_views, alteration) for image, own_views in views.items()
        }
        for alteration in Alteration
        if alteration not in (Alteration.FRAMED, Alteration.CUT, Alteration.FILTERED)
    }
    frame_of = _find_frames(views)
    placed = _find_placed_frames(views, frame_of)
    found = {}
    for image, own_views in views.items():
        alterations = {
            alteration
            for alteration in shares
            if _is_odd(image, own_views, shares[alteration])
            and (alteration is not Alteration.RECOLORED or _has_tones_apart(own_views, views))
        }
        alterations |= {name for name, frames in placed.items() if frame_of[image] in frames}
        if _is_filtered(image, own_views, gains):
            alterations.add(Alteration.FILTERED)
        found[image] = frozenset(alterations)
    # A camera's file is the photo, whatever most copies of an edit say, unless there is another.
    return {
        image: frozenset()
        if image in camera_images and not any(view.copy in camera_images for view in views[image])
        else alterations
        for image, alterations in found.items()
    }


def _measure_share(views: Sequence[_View], alteration: Alteration) -> _Share:
    """Measure the share of the copies that an image differs from by an alteration."""
    if alteration is Alteration.COVERED:
        views = [view for view in views if view.has_same_frame]
    count = sum(_shows_alteration(view, alteration) for view in views)
    return _Share(count / len(views) if views else 0.0, len(views))


def _shows_alteration(view: _View, alteration: Alteration) -> bool:
    """Tell if an image and a copy differ by an alteration; of one with a side, by the image's."""
    edits = view.edits
    match alteration:
        case Alteration.TURNED:
            return bool(edits.mirrored or edits.quarter_turn_deg or edits.rotation_deg)
        case Alteration.STRETCHED:
            return edits.anisotropic
        case Alteration.GRAYSCALE:
            return edits.grayscale_side is view.side
        case Alteration.RECOLORED:
            return edits.recolored
        case _:
            return bool(edits.changed_regions) or edits.changed_share >= MIN_CHANGED_SHARE


def _is_odd(image: bytes, views: Sequence[_View], shares: Mapping[bytes, _Share]) -> bool:
    """Tell if an image differs from most copies, and one of these from clearly fewer."""
    share = shares[image]
    if share.value <= MIN_ODD_SHARE:
        return False
    return any(
        shares[view.copy].copies and shares[view.copy].value <= share.value - MIN_ODD_LEAD
        for view in views
    )


def _has_tones_apart(own_views: Iterable[_View], views: _Views) -> bool:
    """Tell if the copies with other tones than an image have other tones among each other.

    If they all agree, either the image or one copy that the others came from was toned.
    """
    others = {view.copy for view in own_views if view.edits.recolored}
    return any(
        view.edits.recolored and view.copy in others for other in others for view in views[other]
    )


def _measure_gain(views: Sequence[_View]) -> float | None:
    """Measure the median gain in detail from an image to its copies; None for a few copies."""
    gains = [
        view.edits.detail_gain if view.side is Side.FIRST else -view.edits.detail_gain
        for view in views
        if view.has_same_frame
    ]
    return median(gains) if len(gains) >= MIN_COMMON_COPIES else None


def _is_filtered(image: bytes, views: Iterable[_View], gains: Mapping[bytes, float | None]) -> bool:
    """Tell if most copies are plainly sharper or softer than an image, but not than one of them."""
    gain = gains[image]
    return (
        gain is not None
        and abs(gain) > MIN_FILTERED_GAIN
        and any(
            other is not None and abs(other) <= MAX_UNFILTERED_GAIN
            for view in views
            if view.has_same_frame
            for other in [gains[view.copy]]
        )
    )


def _find_frames(views: _Views) -> dict[bytes, bytes]:
    """Find the frame of each image: the least pixel hash of those that have it."""
    frame_of = {image: image for image in views}

    def find(image: bytes) -> bytes:
        while frame_of[image] != image:
            frame_of[image] = frame_of[frame_of[image]]
            image = frame_of[image]
        return image

    for image, own_views in views.items():
        for view in own_views:
            if view.has_same_frame:
                low, high = sorted((find(image), find(view.copy)))
                frame_of[high] = low
    return {image: find(image) for image in views}


def _find_placed_frames(
    views: _Views, frame_of: Mapping[bytes, bytes]
) -> dict[Alteration, set[bytes]]:
    """Find the frames that were put around another one, and those that were cut out of one.

    A frame is cut only out of one that is not put around something itself.
    """
    sizes = Counter(frame_of.values())
    votes = defaultdict[tuple[bytes, bytes], list[float]](list)
    for image, view, framed_votes in _iter_views_of_parts(views):
        if (whole := frame_of[image]) != (part := frame_of[view.copy]):
            votes[whole, part].append(framed_votes)
    leads = {
        (whole, part): _decide_frames(counted, sizes[whole], sizes[part])
        for (whole, part), counted in votes.items()
    }
    totals = defaultdict[bytes, float](float)
    for (whole, part), lead in leads.items():
        totals[whole] += lead * len(votes[whole, part])
    framed = {frame for frame, total in totals.items() if total > 0}
    cut = {part for (whole, part), lead in leads.items() if lead < 0 and whole not in framed}
    return {Alteration.FRAMED: framed, Alteration.CUT: cut}


def _decide_frames(votes: Sequence[float], whole_count: int, part_count: int) -> float:
    """Decide if a frame that shows more than another was put around it.

    Positive if it was, negative if the other was cut out of it, 0 if nothing tells. The frame that
    more images have is rather that of the photo.
    """
    lead = sum(votes) / len(votes) + VOTES_PER_DOUBLING * log2(part_count / whole_count)
    return lead if abs(lead) >= MIN_FRAME_LEAD else 0.0


def _iter_views_of_parts(views: _Views) -> Iterator[tuple[bytes, _View, float]]:
    """Yield each view in which an image shows more than the copy, or each more than the other.

    With the votes for what it shows more being a frame; negative ones say that the copy was cut.
    """
    for image, own_views in views.items():
        for view in own_views:
            if view.has_same_frame or view.own_overlap >= MIN_FULL_OVERLAP:
                continue
            edits, other = view.edits, view.side.other
            if edits.embedded_side is other:
                yield image, view, SEAM_VOTES
            elif not view.shows_more:
                continue
            elif edits.derived_side is view.side:
                yield image, view, SCALE_VOTES
            else:
                yield image, view, -CUT_VOTES if edits.derived_side is other else 0.0


def _find_secondhand(
    views: _Views, images: Mapping[bytes, Image], gains: Mapping[bytes, float | None]
) -> set[bytes]:
    """Find the images that are farther from the photo than one of their copies in `views`.

    The other one has as many pixels, or the image has no detail beyond it.
    """
    noise = {
        image: {
            view.copy: view.verdict.judgement.noise_ncc
            for view in own_views
            if view.has_same_frame
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
            and view.has_same_frame
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


def _lacks_detail(view: _View) -> bool:
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


def _is_derived(views: Iterable[_View]) -> bool:
    """Tell if more pairs say that an image was made from its copy than say the opposite."""
    sides = [(view.edits.derived_side, view.side) for view in views]
    return sum(side is own for side, own in sides) > sum(side is own.other for side, own in sides)


def _is_soft(
    image: bytes, views: Iterable[_View], upscaled: Collection[bytes], images: Mapping[bytes, Image]
) -> bool:
    """Tell if the copies of an upscaled image in its size look upscaled, too: the photo is soft."""
    pixel_count = _count_pixels(images[image])
    peers = [
        view.copy
        for view in views
        if view.has_same_frame
        and 1 / MAX_SIZE_RATIO < _count_pixels(images[view.copy]) / pixel_count < MAX_SIZE_RATIO
    ]
    return 2 * sum(peer in upscaled for peer in peers) >= len(peers) > 0


def _is_padded(views: Sequence[_View]) -> bool:
    """Tell if most pairs say that an image is its copy with a plain margin around it."""
    padded = sum(
        view.edits.plain_background
        and not view.edits.embedded_side
        and view.own_overlap < MIN_FULL_OVERLAP
        for view in views
    )
    return 2 * padded > len(views)


def _limit_pixel_count(
    image: bytes, views: Sequence[_View], images: Mapping[bytes, Image]
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


def _count_unstretched_pixels(image: bytes, view: _View, images: Mapping[bytes, Image]) -> float:
    """Return the effective pixel count of one image of a stretched pair.

    Which of the two was stretched cannot be known. So an image counts for as many pixels as the
    other one has, or for more if it is larger in all directions: then the least of its principal
    scales, squared, is the factor.
    """
    own, other = images[image], images[view.copy]
    first, second = (own, other) if view.side is Side.FIRST else (other, own)
    sizes = (first.width, first.height), (second.width, second.height)
    largest, smallest = compute_principal_scales(view.verdict.homography_matrix, sizes)
    scale = 1.0 / largest if view.side is Side.FIRST else smallest
    factor = scale**2 if scale > MAX_ISOTROPIC_RATIO else 1.0
    return other.width * other.height * factor
