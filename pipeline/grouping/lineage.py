"""Trace which copy each member of a group was made from: a tree whose root is the keeper.

The members are ordered by how many of their pairs say that they were made from the other: each
edit of a chain adds some. Each was made from the nearest image before it, and rather not from one
with an alteration that it lacks: a copy can lose something or get an overlay, and gets nothing
back. With an order, no loop can arise, and the nearest parent of each is the optimum branching.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from math import log

from pipeline.grouping.alterations import Alteration
from pipeline.grouping.copy_views import CopyView, Views
from pipeline.grouping.match import Match
from pipeline.verify.verdict import MIN_FULL_OVERLAP

# Weights of the differences of two copies, fitted on 300 links in two chains of three copies for
# each of 50 photos, where the chains are alone, and on 774 links of 14 photos with 55 copies each:
# .81 and .60 of the links are right.
OVERLAP_WEIGHT = 1.0  # of the share of the one that the other lacks
SCALE_WEIGHT = 0.1  # of the log of the scale
ENLARGEMENT_WEIGHT = 1.8  # more, of the log of the scale of a member larger than its parent
EDIT_WEIGHT = 0.25  # of each kind of edit
CHANGE_WEIGHT = 4.0  # of the share that changed
DETAIL_WEIGHT = 0.7
DISAGREEMENT_WEIGHT = 1.0
NOISE_WEIGHT = 2.0  # of what two noises lack to a correlation of 1
INDIRECTION_WEIGHT = 0.2  # of a parent that is not the root
LOSS_WEIGHT = 0.2  # of each alteration of a parent that the member lacks
MAX_EQUAL_GAIN = 0.12  # of two images with the detail of one filter


def find_parents(
    root: bytes,
    members: Sequence[bytes],
    views: Views,
    alterations: Mapping[bytes, frozenset[Alteration]],
) -> dict[bytes, bytes]:
    """Find the image that each of `members` was made from; the `root` is what all were made from.

    Of members that as many pairs call derived, the ones that come first are tried as parents. One
    without a copy before it has no parent. The order of views does not matter.
    """
    family = {root, *members}
    order = [root, *sorted(members, key=lambda image: _measure_derivation(views[image], family))]
    position = {image: number for number, image in enumerate(order)}
    parents = {}
    for number, image in enumerate(order[1:], start=1):
        costs = [
            (_measure_distance(view, position[view.copy], alterations), position[view.copy])
            for view in views[image]
            if position.get(view.copy, number) < number
        ]
        if costs:
            parents[image] = order[min(costs)[1]]
    return parents


def _measure_derivation(views: Sequence[CopyView], family: Collection[bytes]) -> float:
    """Measure the share of an image's pairs in a family that call it derived, less the others.

    From -1, where all others were made from it, to 1.
    """
    sides = [(view.edits.derived_side, view.side) for view in views if view.copy in family]
    votes = sum((derived is own) - (derived is own.other) for derived, own in sides)
    return votes / len(sides) if sides else 0.0


def walk_tree(members: Sequence[Match]) -> list[tuple[Match, int]]:
    """Order the members of a group by its tree: after each one at once those made from it.

    Returns each member once, with the number of members above it: 0 for one that was made from the
    keeper or whose parent is not known. Of those made from one file, the ones without copies of
    their own come first; beyond that, members keep their order.
    """
    by_path = {member.file.path: member for member in members}
    parents = {
        path: member.made_from.path if member.made_from else None
        for path, member in by_path.items()
    }
    return [(by_path[path], depth) for path, depth in walk_parents(parents)]


def walk_parents(parents: Mapping[str, str | None]) -> list[tuple[str, int]]:
    """Order members, given by their paths with those of what they were made from, as walk_tree()
    does; None is the keeper, or not known.
    """
    copies = defaultdict[str | None, list[str]](list)
    for path, parent in parents.items():
        copies[parent].append(path)
    for siblings in copies.values():
        siblings.sort(key=lambda path: path in copies)
    walk = list[tuple[str, int]]()
    pending = [(path, 0) for path in reversed(copies[None])]
    while pending:
        path, depth = pending.pop()
        walk.append((path, depth))
        pending += [(copy, depth + 1) for copy in reversed(copies.get(path, ()))]
    return walk


def _measure_distance(
    view: CopyView, position: int, alterations: Mapping[bytes, frozenset[Alteration]]
) -> float:
    """Measure how far an image is from a copy that it may have been made from."""
    edits, judgement = view.edits, view.verdict.judgement
    log_scale = log(edits.scale) * (-1 if view.is_first else 1)  # of the image over the copy
    kinds = (
        edits.is_covered,
        edits.recolored,
        edits.grayscale_side is not None,
        edits.is_turned,
        edits.anisotropic,
    )
    noise = max(judgement.noise_ncc, 0.0) if judgement else 0.0
    return (
        OVERLAP_WEIGHT * (1.0 - min(edits.overlap))
        + SCALE_WEIGHT * abs(log_scale)
        + ENLARGEMENT_WEIGHT * max(log_scale, 0.0)
        + EDIT_WEIGHT * sum(kinds)
        + CHANGE_WEIGHT * edits.changed_share
        + DETAIL_WEIGHT * abs(edits.detail_gain)
        + DISAGREEMENT_WEIGHT * (1.0 - view.verdict.agreeing_share)
        + NOISE_WEIGHT * (1.0 - noise)
        + INDIRECTION_WEIGHT * (position > 0)
        + LOSS_WEIGHT * sum(_is_lost(view, alteration) for alteration in alterations[view.copy])
    )


def _is_lost(view: CopyView, alteration: Alteration) -> bool:
    """Tell if an image lacks an alteration of a copy, so that it was not made from it."""
    edits = view.edits
    match alteration:
        case Alteration.FRAMED:
            return view.other_overlap < MIN_FULL_OVERLAP
        case Alteration.CUT:
            return view.own_overlap < MIN_FULL_OVERLAP
        case Alteration.TURNED:
            return edits.is_turned
        case Alteration.STRETCHED:
            return edits.anisotropic
        case Alteration.GRAYSCALE:
            return edits.grayscale_side is not None
        case Alteration.RECOLORED:
            return edits.recolored
        case Alteration.COVERED:
            return edits.is_covered
        case _:
            return abs(edits.detail_gain) > MAX_EQUAL_GAIN
