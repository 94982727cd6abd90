"""Find out, from all copies of an image together, how it was edited.

A verdict on two images says how they differ, but often not which of them was edited. Over a
cluster of copies it shows: what most others agree on is the photo, and what stands against most of
them is an edit. Of 44 copies of a photo that were edited in 44 ways, each differs from most others
in its own edit, and the photo from few in any.

Images that show all of each other have one extent. An extent with a seam around what others show is
that of images that were framed; one that others show more around was cut.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from math import log2
from statistics import median

from pipeline.grouping.copy_views import CopyView, Views
from pipeline.verify.verdict import MIN_FULL_OVERLAP

# An image was edited in a way if more than the first share of its copies differ from it in that
# way, and if the share is larger than that of one of its copies by the second.
MIN_ODD_SHARE = 0.65
MIN_ODD_LEAD = 0.3
# Share of an image that changed from which it counts, too small for a pair alone, and the copies
# of its extent from which it does: a line of text shows in most of them. Of 18 photos with some 30
# such copies each, all medians are below 0.0005; in families of seven, the first copy can have one
# line and all others come from that.
MIN_REPEATED_CHANGE = 0.001
MIN_REPEATING_COPIES = 8
# Median of the log ratios of gradients, of the copies over the image, beyond which it was smoothed
# or sharpened; and up to which a copy was not.
MIN_FILTERED_GAIN = 0.25
MAX_UNFILTERED_GAIN = 0.125
# Weights of a hint that an image was put into another, or cut out of it.
SEAM_VOTES = 2.0
CUT_VOTES = 1.0
SCALE_VOTES = 0.5
VOTES_PER_DOUBLING = 0.25  # for the extent that twice as many images have
MIN_EXTENT_LEAD = 0.3  # of the mean vote of all pairs of two extents, below which nothing tells
MIN_COPIES = 3  # that a median gain is taken over


class Alteration(StrEnum):
    """A way in which an image was edited; the values are the words for people."""

    FRAMED = "inside another picture"
    CUT = "cropped"
    TURNED = "turned"
    STRETCHED = "stretched"
    GRAYSCALE = "in grayscale"
    RECOLORED = "recolored"
    COVERED = "covered in places"
    FILTERED = "smoothed or sharpened"


def find_alterations(
    views: Views, camera_images: Collection[bytes]
) -> dict[bytes, frozenset[Alteration]]:
    """Find how each image was edited, by its extent and by the consensus of its copies."""
    gains = {image: _measure_gain(own_views) for image, own_views in views.items()}
    shares: dict[Alteration, dict[bytes, float | None]] = {
        alteration: {
            image: _measure_share(own_views, alteration) for image, own_views in views.items()
        }
        for alteration in Alteration
        if alteration not in (Alteration.FRAMED, Alteration.CUT, Alteration.FILTERED)
    }
    extent_of = _find_extents(views)
    altered = _find_altered_extents(views, extent_of)
    found = {}
    for image, own_views in views.items():
        alterations = {
            alteration
            for alteration in shares
            if _is_odd(image, own_views, shares[alteration])
            and (alteration is not Alteration.RECOLORED or _has_tones_apart(own_views, views))
        }
        alterations |= {name for name, extents in altered.items() if extent_of[image] in extents}
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


def _measure_share(views: Sequence[CopyView], alteration: Alteration) -> float | None:
    """Measure the share of the copies that an image differs from by an alteration; None if none
    can show it.
    """
    if alteration is Alteration.COVERED:
        views = [view for view in views if view.has_same_extent]
        is_repeated = len(views) >= MIN_REPEATING_COPIES
        count = sum(_is_changed(view, with_small_changes=is_repeated) for view in views)
        return count / len(views) if views else None
    if alteration is Alteration.RECOLORED:
        # Copies that were made from the image say nothing of its own tones.
        views = [view for view in views if view.edits.derived_side is not view.side.other]
    count = sum(_shows_alteration(view, alteration) for view in views)
    return count / len(views) if views else None


def _is_changed(view: CopyView, *, with_small_changes: bool) -> bool:
    """Tell if an image differs from a copy in places, and the copy is not the altered one."""
    edits = view.edits
    is_changed = edits.is_covered or (
        with_small_changes and edits.changed_share >= MIN_REPEATED_CHANGE
    )
    return is_changed and view.verdict.altered_side is not view.side.other


def _shows_alteration(view: CopyView, alteration: Alteration) -> bool:
    """Tell if an image and a copy differ by an alteration; of one with a side, by the image's."""
    edits = view.edits
    match alteration:
        case Alteration.TURNED:
            return edits.is_turned
        case Alteration.STRETCHED:
            return edits.anisotropic
        case Alteration.GRAYSCALE:
            return edits.grayscale_side is view.side
        case _:
            return edits.recolored


def _is_odd(image: bytes, views: Iterable[CopyView], shares: Mapping[bytes, float | None]) -> bool:
    """Tell if an image differs from most copies, and one of these from clearly fewer."""
    share = shares[image]
    if share is None or share <= MIN_ODD_SHARE:
        return False
    return any(
        (other := shares[view.copy]) is not None and other <= share - MIN_ODD_LEAD for view in views
    )


def _has_tones_apart(own_views: Iterable[CopyView], views: Views) -> bool:
    """Tell if the copies with other tones than an image have other tones among each other.

    If they all agree, either the image or one copy that the others came from was toned.
    """
    others = {view.copy for view in own_views if view.edits.recolored}
    return any(
        view.edits.recolored and view.copy in others for other in others for view in views[other]
    )


def _measure_gain(views: Sequence[CopyView]) -> float | None:
    """Measure the median gain in detail from an image to its copies; None for a few copies."""
    gains = [view.detail_gain for view in views if view.has_same_extent]
    return median(gains) if len(gains) >= MIN_COPIES else None


def _is_filtered(
    image: bytes, views: Iterable[CopyView], gains: Mapping[bytes, float | None]
) -> bool:
    """Tell if most copies are plainly sharper or softer than an image, but not than one of them."""
    gain = gains[image]
    return (
        gain is not None
        and abs(gain) > MIN_FILTERED_GAIN
        and any(
            view.has_same_extent
            and (other := gains[view.copy]) is not None
            and abs(other) <= MAX_UNFILTERED_GAIN
            for view in views
        )
    )


def _find_extents(views: Views) -> dict[bytes, bytes]:
    """Find the extent of each image: the least pixel hash of those that have it.

    Two sets of images have one extent if most pairs between them show all of each other. A border
    of the width that a crop had cut off can make one pair look so by chance.
    """
    extent_of = {image: image for image in views}
    members = {image: [image] for image in views}
    same = sorted(
        (-min(view.edits.overlap), min(image, view.copy), max(image, view.copy))
        for image, own_views in views.items()
        for view in own_views
        if view.has_same_extent and view.copy in views
    )
    # Of each two sets: the pairs that show all of each other, less the others.
    leads = {
        image: Counter(
            {
                view.copy: 1 if view.has_same_extent else -1
                for view in own_views
                if view.copy in views
            }
        )
        for image, own_views in views.items()
    }
    for _, first, second in same:
        low, high = sorted((extent_of[first], extent_of[second]))
        if low == high or leads[low][high] <= 0:
            continue
        for image in members[high]:
            extent_of[image] = low
        members[low] += members.pop(high)
        for other, lead in leads.pop(high).items():
            del leads[other][high]
            if other != low:
                leads[low][other] += lead
                leads[other][low] += lead
    return extent_of


def _find_altered_extents(
    views: Views, extent_of: Mapping[bytes, bytes]
) -> dict[Alteration, set[bytes]]:
    """Find the extents of images that were framed, and of those that were cut out of another.

    An extent is cut only out of one that is not framed itself.
    """
    sizes = Counter(extent_of.values())
    votes = defaultdict[tuple[bytes, bytes], list[float]](list)
    for image, view, framed_votes in _iter_views_of_parts(views):
        if (whole := extent_of[image]) != (part := extent_of[view.copy]):
            votes[whole, part].append(framed_votes)
    leads = {
        (whole, part): _decide_extents(counted, sizes[whole], sizes[part])
        for (whole, part), counted in votes.items()
    }
    parts_of = defaultdict[bytes, set[bytes]](set)
    for whole, part in leads:
        parts_of[whole].add(part)
    totals = defaultdict[bytes, float](float)
    for whole, parts in parts_of.items():
        for part in parts:
            # A part cut out of a part has no seam in the whole, whether that was framed or not.
            if not any(leads.get((other, part), 1.0) <= 0 for other in parts):
                totals[whole] += leads[whole, part] * len(votes[whole, part])
    framed = {extent for extent, total in totals.items() if total > 0}
    cut = {part for (whole, part), lead in leads.items() if lead < 0 and whole not in framed}
    return {Alteration.FRAMED: framed, Alteration.CUT: cut}


def _decide_extents(votes: Sequence[float], whole_count: int, part_count: int) -> float:
    """Decide if an extent that shows more than another is that of framed images.

    Positive if it is, negative if the other was cut out of it, 0 if nothing tells. The extent that
    more images have is rather that of the photo.
    """
    lead = sum(votes) / len(votes) + VOTES_PER_DOUBLING * log2(part_count / whole_count)
    return lead if abs(lead) >= MIN_EXTENT_LEAD else 0.0


def _iter_views_of_parts(views: Views) -> Iterator[tuple[bytes, CopyView, float]]:
    """Yield each view in which an image shows more than the copy, or each more than the other.

    With the votes that the image was framed; negative ones say that the copy was cut.
    """
    for image, own_views in views.items():
        for view in own_views:
            if view.own_overlap >= MIN_FULL_OVERLAP:
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
