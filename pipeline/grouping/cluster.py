"""Pairs in, groups out: a keeper and its members, each of them matched with the keeper itself. Nothing is chained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any

from indexes import Image
from pipeline.grouping.keep_rules import Keep, Photo, Said
from pipeline.verify.edits import STRETCHED, growths
from pipeline.verify.verdict import ALL, DERIVED, FIRST, SAME, SCENE, SECOND, UNKNOWN, UNRELATED, Evidence

IDENTICAL_BYTES, IDENTICAL_PIXELS, SIMILAR = "identical bytes", "identical pixels", "similar"
RELATIONS = (IDENTICAL_BYTES, IDENTICAL_PIXELS, SAME, DERIVED, SCENE, SIMILAR)  # closest first
COPIES = frozenset({IDENTICAL_BYTES, IDENTICAL_PIXELS, SAME, DERIVED})  # what is grouped unless more is asked for
TOLD = COPIES | {SIMILAR}  # what is told of a file that is asked about
# The least scale at which a copy tells two shots of a burst apart: of frames 1/15 s apart, 480 pixels wide, no copy passes for one of the
# next frame, of half that size 63 % do. At .8, .9 and .97 the groups of bench_bursts.py and bench_copies.py are the same.
FULL = 0.9


@dataclass(frozen=True, slots=True)
class Edge:
    """Two pictures, by the hashes of their pixels: what they are to each other, their cosine, and the evidence, about `left` and `right`.

    SIMILAR is what nobody could verify, with evidence that says why, or without any where it was not looked at.
    """

    left: bytes
    right: bytes
    relation: str
    score: float
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that matches another, the keeper of a group or a file that was asked about: what it is to it, and their cosine. The evidence,
    where there is any, has that other as the first.
    """

    photo: Photo
    relation: str
    score: float
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Related:
    """A photo that is close to one of a group, what it is to that one, and their cosine; but it is no match of the keeper."""

    photo: Photo
    to: Photo
    relation: str
    score: float


@dataclass(frozen=True, slots=True)
class Group:
    """A keeper, the `reason` to keep it, and the photos that match it, closest first; and what is `related` to one of these. The id is the
    keeper's content, so it outlives renames and other ingests.
    """

    id: str
    keeper: Photo
    members: tuple[Match, ...]
    reason: str
    related: tuple[Related, ...] = ()

    @property
    def photos(self) -> tuple[Photo, ...]:
        """The keeper, then the members."""
        return (self.keeper, *(member.photo for member in self.members))


def closest_first(match: Match) -> tuple[int, float, str]:
    """Sorts matches: by relation, then by score, then by path."""
    return (RELATIONS.index(match.relation), -match.score, match.photo.path)


def exact(image: Image, keeper: Image) -> str | None:
    """What two images are to each other, as far as hashes tell; None where they tell nothing."""
    if image.hash == keeper.hash:
        return IDENTICAL_BYTES
    return IDENTICAL_PIXELS if image.pixels == keeper.pixels else None


def verified(evidence: Evidence | None, score: float, least: float, strictness: float = 0.0) -> str:
    """What two pictures are that are not the same by their hashes: as their evidence says, but SIMILAR instead of a copy where fewer than
    the share `strictness` of their tiles agree; SIMILAR where there is none, or it could not tell, and their cosine is at or above `least`.
    """
    if evidence is not None and evidence.relation != UNKNOWN:
        return SIMILAR if evidence.relation in COPIES and evidence.agree < strictness else evidence.relation
    return SIMILAR if score >= least else UNRELATED


def group(
    pictures: Mapping[bytes, Sequence[Photo]], edges: Iterable[Edge], relations: Iterable[str] = COPIES, keep: Keep | None = None
) -> list[Group]:
    """Groups of `pictures` (photos by the hash of their pixels) that have one of `relations` to a keeper; ordered by keeper path.

    Pictures are taken in the order of the rules to `keep` by, each by the best of the photos that show it. One that is still free becomes a
    keeper and takes its free neighbours, but for those that are rather copies of another shot of its scene: these it takes in the end,
    where that went into another's group without them. So every photo is in at most one group, no other picture in it is better than the
    keeper, whatever is in no group has its copies in others', and the order of edges does not matter. What else is close to a photo of a
    group is related to it.
    """
    wanted, keep = frozenset(relations), keep or Keep()
    near: dict[bytes, list[tuple[bytes, Edge]]] = defaultdict(list)
    for edge in edges:
        if edge.left in pictures and edge.right in pictures:
            near[edge.left].append((edge.right, edge))
            near[edge.right].append((edge.left, edge))
    best = {pixels: min(photos, key=keep.original_first) for pixels, photos in pictures.items()}
    worths = {pixels: keep.worth(best[pixels], _said(pixels, near[pixels], wanted, best)) for pixels in pictures}

    groups = list[Group]()
    for pixels, taken in _taken(near, worths, wanted).items():
        keeper = best[pixels]
        members = _matches(keeper, pictures[pixels], None)
        for other, edge in taken:
            members += _matches(keeper, pictures[other], edge)
        members = [match for match in members if match.relation in wanted]
        if not members:
            continue
        members.sort(key=closest_first)
        if taken:
            reason = keep.reason(worths[pixels], [worths[other] for other, _ in taken])
        else:
            equals = [keep.original_first(photo) for photo in pictures[pixels] if photo is not keeper]
            reason = keep.reason(keep.original_first(keeper), equals, equals=True)
        inside = {pixels, *(other for other, _ in taken)}
        groups.append(Group(keeper.image.hash.hex()[:16], keeper, tuple(members), reason, _related(inside, near, best)))
    return sorted(groups, key=lambda group: group.keeper.path)


def _taken(
    near: Mapping[bytes, Sequence[tuple[bytes, Edge]]], worths: Mapping[bytes, Any], wanted: Collection[str]
) -> dict[bytes, list[tuple[bytes, Edge]]]:
    """Those that nobody takes, each with what it takes: first what is rather its own, then what it left to a shot that went elsewhere."""
    in_full = _in_full(edge for close in near.values() for _, edge in close)
    free = set(worths)
    taken: dict[bytes, list[tuple[bytes, Edge]]] = {}
    for choosy, pixels in product((True, False), sorted(worths, key=worths.__getitem__)):
        if pixels not in free and pixels not in taken:
            continue
        mine = [
            (other, edge) for other, edge in near[pixels] if other in free and worths[pixels] < worths[other] and edge.relation in wanted
        ]
        if choosy and SCENE not in wanted:
            shots = _shots(pixels, near, in_full)
            mine = [(other, edge) for other, edge in mine if not _is_rather_of(shots, other, edge, near[other], worths, wanted)]
        if mine or not choosy:
            taken.setdefault(pixels, []).extend(mine)
            free -= {pixels, *(other for other, _ in mine)}
    return taken


def _in_full(edges: Iterable[Edge]) -> Mapping[bytes, set[bytes]]:
    """For each picture, its copies that show it no smaller than it is."""
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for edge in edges:
        changes = edge.evidence.changes if edge.evidence else None
        if changes and changes.scale >= FULL:
            found[edge.left].add(edge.right)
        if changes and changes.scale <= 1 / FULL:
            found[edge.right].add(edge.left)
    return found


def _shots(pixels: bytes, near: Mapping[bytes, Iterable[tuple[bytes, Edge]]], in_full: Mapping[bytes, set[bytes]]) -> set[bytes]:
    """Other shots of a picture's scene. What has a copy in common with it that is no smaller than either is none, but much edited."""
    return {other for other, edge in near[pixels] if edge.relation == SCENE and in_full[pixels].isdisjoint(in_full[other])}


def _is_rather_of(
    shots: Collection[bytes],
    copy: bytes,
    edge: Edge,
    near: Iterable[tuple[bytes, Edge]],
    worths: Mapping[bytes, Any],
    wanted: Collection[str],
) -> bool:
    """Whether a `copy` of a keeper, by `edge`, is rather one of other `shots` of the keeper's scene. Of a burst, what is small agrees with
    several shots; with its own in a larger share of tiles than with others, or in the same, and by more keypoints.
    """
    return bool(shots) and any(
        shot in shots
        and worths[shot] < worths[copy]
        and its.relation in wanted
        and its.evidence is not None
        and edge.evidence is not None
        and (its.evidence.agree, its.evidence.keypoints) > (edge.evidence.agree, edge.evidence.keypoints)
        for shot, its in near
    )


def _said(pixels: bytes, close: Iterable[tuple[bytes, Edge]], wanted: Collection[str], best: Mapping[bytes, Photo]) -> Said:
    """What its copies say of a picture. It was made of another where more of them say so than say that they were made of it: one of them
    that is taken in by its margin, or by a picture within it, says little.
    """
    made_of = made_from = enlarged = margin = 0
    counted = inf
    for _, edge in close:
        evidence = edge.evidence
        changes = evidence.changes if evidence and edge.relation in wanted else None
        if evidence and changes:
            mine = FIRST if pixels == edge.left else SECOND
            made_of += changes.derived == mine
            made_from += changes.derived not in ("", mine)
            enlarged += changes.enlarged == mine
            margin += changes.plain and not changes.inside and changes.covers[mine == SECOND] < ALL
            if changes.stretched and min(changes.covers) >= ALL:
                counted = min(counted, _unstretched(evidence, mine, best[edge.left].image, best[edge.right].image))
    return Said(made_of > made_from, enlarged > 0, margin > 0, counted)


def _unstretched(evidence: Evidence, mine: str, first: Image, second: Image) -> float:
    """How many pixels count of the one of a stretched pair that has more: as many as the other has, unless it is larger along all
    directions. Which of the two was stretched, nobody can tell.
    """
    most, least = growths(evidence.transform, ((first.width, first.height), (second.width, second.height)))
    larger, other = (least, first) if mine == SECOND else (1.0 / most, second)
    return other.width * other.height * (larger**2 if larger > STRETCHED else 1.0)


def _related(
    inside: Collection[bytes], near: Mapping[bytes, Sequence[tuple[bytes, Edge]]], best: Mapping[bytes, Photo]
) -> tuple[Related, ...]:
    """What is close to those inside a group, once, as it is to the one that it is closest to."""
    found: dict[bytes, tuple[tuple[int, float, str], Related]] = {}
    for one in inside:
        for other, edge in near[one]:
            if other not in inside:
                order = (RELATIONS.index(edge.relation), -edge.score, best[one].path)
                if other not in found or order < found[other][0]:
                    found[other] = order, Related(best[other], best[one], edge.relation, edge.score)
    return tuple(related for _, related in sorted(found.values(), key=lambda one: (one[0], one[1].photo.path)))


def _matches(keeper: Photo, photos: Iterable[Photo], edge: Edge | None) -> list[Match]:
    """`photos` beside the keeper: exact copies where there is no edge."""
    return [
        Match(photo, edge.relation, edge.score, _about(edge, keeper))
        if edge
        else Match(photo, exact(photo.image, keeper.image) or SIMILAR, 1.0)
        for photo in photos
        if photo is not keeper
    ]


def _about(edge: Edge, first: Photo) -> Evidence | None:
    """The evidence of an edge, told from one of its ends."""
    if edge.evidence is None or first.image.pixels == edge.left:
        return edge.evidence
    return edge.evidence.turned_round()
