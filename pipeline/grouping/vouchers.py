"""Vouchers: members of a group that are copies of an image, whatever its pair with the keeper says.

A pair with a much altered side can be in doubt, or was never compared; the other copies of both
tell more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from math import inf

from pipeline.grouping.edges import Edge, Neighbor, make_neighbor_key
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import MIN_FULL_OVERLAP

# Members of a group that have to be copies of an image whose pair with the keeper is in doubt.
MIN_VOUCHERS = 3
# The same if they only share a template, as an image does with a strongly toned copy.
MIN_TEMPLATE_VOUCHERS = 8
# Copies of an image from which its pair with the keeper may have been left out: not compared.
MIN_CROWD = 24


def find_vouched(
    keeper: bytes,
    members: Sequence[Neighbor],
    shots: Collection[bytes],
    neighbors: Mapping[bytes, Sequence[Neighbor]],
    relations: Collection[Relation],
) -> list[Neighbor]:
    """Find images that no verdict relates to a keeper, but that most of their copies belong to.

    Enough members are copies of such an image (see _count_needed_vouchers), and more than half of
    all its copies are members, unless it has MIN_CROWD, so that its pair with the keeper may have
    been left out. None of its copies is in `shots`, the other shots of the keeper's scene. A member
    that shows more than the keeper does not count: two photos of one collage are no copies of each
    other. `members` are those that the keeper has already.
    """
    direct_members = [member for member in members if not member.edge.voucher]
    group = {keeper, *(member.pixel_hash for member in direct_members)}
    able = [member.pixel_hash for member in direct_members if _lies_on_keeper(keeper, member.edge)]
    if len(able) < MIN_VOUCHERS:
        return []
    unable = group.difference(able)
    known = {neighbor.pixel_hash: neighbor.edge for neighbor in neighbors[keeper]}
    vouchers = defaultdict[bytes, list[Neighbor]](list)
    for member in able:
        for neighbor in neighbors[member]:
            image, edge = neighbor.pixel_hash, neighbor.edge
            if edge.relation in relations and image not in group:
                vouchers[image].append(Neighbor(member, edge))
    found = []
    for image, own_vouchers in vouchers.items():
        copies = {
            neighbor.pixel_hash
            for neighbor in neighbors[image]
            if neighbor.edge.relation in relations and neighbor.pixel_hash not in unable
        }
        direct = known.get(image)
        if (
            (2 * len(own_vouchers) > len(copies) or (direct is None and len(copies) >= MIN_CROWD))
            and copies.isdisjoint(shots)
            and len(own_vouchers) >= _count_needed_vouchers(direct)
        ):
            closest = min(own_vouchers, key=make_neighbor_key)
            relation, score = closest.edge.relation, direct.score if direct else closest.edge.score
            vouched = Edge(keeper, image, relation, score, None, closest.pixel_hash)
            found.append(Neighbor(image, vouched))
    return found


def _count_needed_vouchers(direct: Edge | None) -> float:
    """Return how many vouchers an image needs, by its edge to the keeper; infinite if none count.

    Of another shot all copies at a small size can be copies of both.
    """
    if direct is None or direct.relation in (Relation.SIMILAR, Relation.OVERLAPS):
        return MIN_VOUCHERS
    return MIN_TEMPLATE_VOUCHERS if direct.relation is Relation.SAME_TEMPLATE else inf


def _lies_on_keeper(keeper: bytes, edge: Edge) -> bool:
    """Tell if all of a member lies on its keeper, as far as their verdict says."""
    if edge.verdict is None or edge.verdict.edits is None:
        return True
    first, second = edge.verdict.edits.overlap
    return (second if edge.left == keeper else first) >= MIN_FULL_OVERLAP
