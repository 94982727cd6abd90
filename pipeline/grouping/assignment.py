"""Assign images to keepers: greedy star clustering in keeper order.

A group is a star: a keeper and its neighbors, each joined to the keeper itself, so groups do not
chain. The keep rules rank all images. In this order each image that is still free becomes a keeper
and takes its free neighbors. This is the star clustering of Aslam, Pelekhov and Rus (The star
clustering algorithm for static and dynamic information organization, JGAA 8(1), 2004, 95-129) with
the rank of the keep rules instead of the degree, and with one more pass for bursts: in the first, a
keeper leaves a copy that fits another shot of its scene better to that shot, and a page leaves the
copies of the photo on it to the photo; in the second, it takes back what these did not take.

Images that people decided to be the same are one here, see units.py.

Invariants, which test_laws and test_no_group_holds_two_exposures in
tests/grouping/test_cluster.py, and those in test_decisions.py, check on random graphs:
- every file is in at most one group;
- every member has an edge of a wanted relation to its keeper, or equal pixels, or MIN_VOUCHERS
  members with such an edge to it, if its pair with the keeper is in doubt;
- no two images of a group are two exposures by their metadata, unless scenes are wanted;
- no two images of a group are on different sides of a decision (see units.py), and no image that a
  person decided to keep is a member of one whose keeper is not kept, unless it is missing;
- the keep rules rank no member with an edge to its keeper before it;
- every related file is outside the group and has an edge to a member;
- no edge of a wanted relation joins two keepers, or a member and the keeper of an earlier group,
  but for other exposures, for members that fit another shot of that keeper's scene better, and for
  copies of the photo on a page, if that keeper is the page. One between a member and a later keeper
  is that of a collage: the keepers are no copies of each other;
- no edge of a wanted relation joins two images that are both in no group, and no keeper has such
  an edge to a lower-ranked image that is in no group, but for other exposures;
- the order of files and edges, and the direction of an edge, do not change the groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pipeline.grouping.edges import Edge, Neighbor, make_neighbor_key
from pipeline.grouping.exposures import Exposures
from pipeline.grouping.units import Separations
from pipeline.grouping.vouchers import find_vouched
from pipeline.verify.judgement import UNKNOWN_NOISE
from pipeline.verify.relation import (
    COPY_RELATIONS,
    SCENE_RELATIONS,
    Relation,
)
from pipeline.verify.verdict import Verdict

# Scale, along a side, from which a copy differs from a copy of the next shot of a burst. Of
# frames 1/15 s apart and 480 pixels wide, no copy at full size passes for a copy of the next frame;
# at half the size 63 % do. The groups of bench_bursts.py and bench_copies.py are the same at 0.8,
# 0.9 and 0.97.
MIN_FULL_SIZE_SCALE = 0.9
# Difference of two correlations of noise from which it decides between two shots. Of 100 copies of
# video frames, compared with their own frame and the next, noise alone is right in .87; from .1 on
# it is right in all 29, and tiles are in .97 of the others.
MIN_NOISE_GAIN = 0.1


def assign_to_keepers(
    neighbors: Mapping[bytes, Sequence[Neighbor]],
    rank_keys: Mapping[bytes, Any],
    relations: Collection[Relation],
    separations: Separations | Exposures,
    kept: Collection[bytes] = (),
) -> dict[bytes, list[Neighbor]]:
    """Assign images to keepers greedily, in the order of `rank_keys`; each keeper with its images.

    A keeper does not take two images that `separations` keeps apart. Pass 1 leaves copies that fit
    another shot better to that shot, pass 2 assigns those that are still free: they become no
    keepers before, for they are copies of one. An image that neither takes nor is taken is a group
    of its own. Those of `kept`, which a person decided to keep, are members of better ones only.
    """
    full_size_copies = _find_full_size_copies(
        neighbor.edge for image_neighbors in neighbors.values() for neighbor in image_neighbors
    )
    in_keeper_order = sorted(rank_keys, key=rank_keys.__getitem__)
    free = set(rank_keys)
    taken: dict[bytes, list[Neighbor]] = {}
    left_to_shots = set[bytes]()
    for is_first_pass in (True, False):
        for pixel_hash in in_keeper_order:
            if pixel_hash not in free and pixel_hash not in taken:
                continue
            if is_first_pass and pixel_hash in left_to_shots:
                continue
            copies = [
                neighbor
                for neighbor in neighbors[pixel_hash]
                if neighbor.pixel_hash in free
                and rank_keys[pixel_hash] < rank_keys[neighbor.pixel_hash]
                and neighbor.edge.relation in relations
            ]
            shots = set[bytes]()
            if SCENE_RELATIONS.isdisjoint(relations):
                shots = _find_other_shots(pixel_hash, neighbors, full_size_copies, separations)
            if is_first_pass:
                left = {
                    copy.pixel_hash
                    for copy in copies
                    if _fits_other_shot_better(shots, copy, neighbors, rank_keys, relations)
                }
                left |= _find_copies_of_photo(pixel_hash, copies, neighbors, rank_keys, relations)
                copies = [copy for copy in copies if copy.pixel_hash not in left]
                left_to_shots |= left
            earlier = taken.get(pixel_hash, [])
            copies = _drop_other_exposures(pixel_hash, copies, earlier, separations)
            vouched = [
                neighbor
                for neighbor in find_vouched(
                    pixel_hash, [*earlier, *copies], shots, neighbors, relations
                )
                if neighbor.pixel_hash in free
                and (
                    neighbor.pixel_hash not in kept
                    or rank_keys[pixel_hash] < rank_keys[neighbor.pixel_hash]
                )
            ]
            copies += _drop_other_exposures(pixel_hash, vouched, [*earlier, *copies], separations)
            if copies or not is_first_pass:
                taken.setdefault(pixel_hash, []).extend(copies)
                free -= {pixel_hash, *(copy.pixel_hash for copy in copies)}
    return taken


def _drop_other_exposures(
    keeper: bytes,
    copies: Sequence[Neighbor],
    earlier: Sequence[Neighbor],
    separations: Separations | Exposures,
) -> list[Neighbor]:
    """Return the copies that are no other exposure than the keeper, than those that it took
    earlier, or than a closer copy.
    """
    kept = separations.select_distinct([keeper, *(neighbor.pixel_hash for neighbor in earlier)])
    accepted = []
    for copy in sorted(copies, key=make_neighbor_key):
        if not any(separations.are_apart(copy.pixel_hash, other) for other in kept):
            kept = separations.select_distinct([*kept, copy.pixel_hash])
            accepted.append(copy)
    return accepted


def _find_full_size_copies(edges: Iterable[Edge]) -> Mapping[bytes, set[bytes]]:
    """Return, for each image, its copies that have it at MIN_FULL_SIZE_SCALE or larger."""
    copies = defaultdict[bytes, set[bytes]](set)
    for edge in edges:
        edits = edge.verdict.edits if edge.verdict else None
        if edits and edits.scale >= MIN_FULL_SIZE_SCALE:
            copies[edge.left].add(edge.right)
        if edits and edits.scale <= 1 / MIN_FULL_SIZE_SCALE:
            copies[edge.right].add(edge.left)
    return copies


def _find_other_shots(
    pixel_hash: bytes,
    neighbors: Mapping[bytes, Iterable[Neighbor]],
    full_size_copies: Mapping[bytes, set[bytes]],
    separations: Separations | Exposures,
) -> set[bytes]:
    """Return the other shots of an image's scene.

    Another shot by its pixels that shares a full-size copy with the image is the same shot, but
    heavily edited: that copy would tell two shots apart. Metadata tells them apart for sure.
    """
    return {
        neighbor.pixel_hash
        for neighbor in neighbors[pixel_hash]
        if neighbor.edge.relation == Relation.ANOTHER_SHOT
        and (
            separations.are_apart(pixel_hash, neighbor.pixel_hash)
            or _is_copy_by_pixels(neighbor.edge)
            or full_size_copies[pixel_hash].isdisjoint(full_size_copies[neighbor.pixel_hash])
        )
    }


def _is_copy_by_pixels(edge: Edge) -> bool:
    return edge.verdict is not None and edge.verdict.relation in COPY_RELATIONS


def _fits_other_shot_better(
    shots: Collection[bytes],
    copy: Neighbor,
    neighbors: Mapping[bytes, Iterable[Neighbor]],
    rank_keys: Mapping[bytes, Any],
    relations: Collection[Relation],
) -> bool:
    """Check whether a keeper's copy agrees better with one of the other shots of its scene.

    Only a shot that ranks before the copy can take it.
    """
    own_verdict = copy.edge.verdict
    if not shots or own_verdict is None:
        return False
    for neighbor in neighbors[copy.pixel_hash]:
        verdict = neighbor.edge.verdict
        if (
            neighbor.pixel_hash in shots
            and rank_keys[neighbor.pixel_hash] < rank_keys[copy.pixel_hash]
            and neighbor.edge.relation in relations
            and verdict is not None
            and _agrees_better(verdict, own_verdict)
        ):
            return True
    return False


def _find_copies_of_photo(
    keeper: bytes,
    copies: Sequence[Neighbor],
    neighbors: Mapping[bytes, Sequence[Neighbor]],
    rank_keys: Mapping[bytes, Any],
    relations: Collection[Relation],
) -> set[bytes]:
    """Find the copies that a page leaves to the photo that a part of it shows.

    Such a page overlaps with the photo, so it is no copy of it, and may have more pixels. At least
    half of its copies are also copies of the photo, which has at least twice as many.
    """
    own = {copy.pixel_hash for copy in copies}
    left = set[bytes]()
    for neighbor in neighbors[keeper] if own else ():
        if neighbor.edge.relation is not Relation.OVERLAPS:
            continue
        photo = neighbor.pixel_hash
        of_photo = {
            other.pixel_hash for other in neighbors[photo] if other.edge.relation in relations
        }
        common = {copy for copy in own & of_photo if rank_keys[photo] < rank_keys[copy]}
        if 2 * len(common) >= len(own) and len(of_photo) >= 2 * len(own):
            left |= common
    return left


def _agrees_better(verdict: Verdict, other: Verdict) -> bool:
    """Check whether a copy belongs to the shot of one verdict rather than to that of another.

    A small image agrees with several shots of a burst, but shares its noise with its own alone.
    Where noise does not tell, it agrees with its own in more tiles, or in as many with more
    inliers.
    """
    noise = [
        item.judgement.noise_ncc if item.judgement else UNKNOWN_NOISE for item in (verdict, other)
    ]
    if min(noise) > UNKNOWN_NOISE and abs(noise[0] - noise[1]) >= MIN_NOISE_GAIN:
        return noise[0] > noise[1]
    first, second = ((item.agreeing_share, item.inliers) for item in (verdict, other))
    return first > second
