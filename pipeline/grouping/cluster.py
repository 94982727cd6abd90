"""Pairs in, groups out: a keeper and its members, each of them matched with the keeper itself. Nothing is chained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any

from indexes.records import Image
from pipeline.grouping.keep_rules import CopyHints, KeepRules, LibraryFile
from pipeline.verify.edits import MAX_ISOTROPIC_RATIO, principal_scales
from pipeline.verify.relation import COPY_RELATIONS, REPORTED_RELATIONS, Relation, Side
from pipeline.verify.verdict import MIN_FULL_OVERLAP, Verdict

# The least scale at which a copy tells two shots of a burst apart: of frames 1/15 s apart, 480 pixels wide, no copy passes for one of the
# next frame, of half that size 63 % do. At .8, .9 and .97 the groups of bench_bursts.py and bench_copies.py are the same.
MIN_FULL_SIZE_SCALE = 0.9


@dataclass(frozen=True, slots=True)
class Edge:
    """Two pictures, by the hashes of their pixels: what they are to each other, their cosine, and the evidence, about `left` and `right`.

    SIMILAR is what nobody could verify, with evidence that says why, or without any where it was not looked at.
    """

    left: bytes
    right: bytes
    relation: Relation
    score: float
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that matches another, the keeper of a group or a file that was asked about: what it is to it, and their cosine. The evidence,
    where there is any, has that other as the first.
    """

    file: LibraryFile
    relation: Relation
    score: float
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class RelatedFile:
    """A photo that is close to one of a group, what it is to that one, and their cosine; but it is no match of the keeper."""

    file: LibraryFile
    member: LibraryFile
    relation: Relation
    score: float


@dataclass(frozen=True, slots=True)
class Group:
    """A keeper, the `reason` to keep it, and the photos that match it, closest first; and what is `related` to one of these. The id is the
    keeper's content, so it outlives renames and other ingests.
    """

    id: str
    keeper: LibraryFile
    members: tuple[Match, ...]
    reason: str
    related: tuple[RelatedFile, ...] = ()

    @property
    def files(self) -> tuple[LibraryFile, ...]:
        """The keeper, then the members."""
        return (self.keeper, *(member.file for member in self.members))


def match_rank_key(match: Match) -> tuple[int, float, str]:
    """Sorts matches: by relation, then by score, then by path."""
    return (REPORTED_RELATIONS.index(match.relation), -match.score, match.file.path)


def exact_relation(image: Image, keeper: Image) -> Relation | None:
    """What two images are to each other, as far as hashes tell; None where they tell nothing."""
    if image.hash == keeper.hash:
        return Relation.IDENTICAL_BYTES
    return Relation.IDENTICAL_PIXELS if image.pixel_hash == keeper.pixel_hash else None


def relation_of(
    verdict: Verdict | None, score: float, similar_threshold: float, min_agreement: float = 0.0
) -> Relation:
    """What two pictures are that are not the same by their hashes: as their evidence says, but SIMILAR instead of a copy where fewer than
    the share `strictness` of their tiles agree; SIMILAR where there is none, or it could not tell, and their cosine is at or above `least`.
    """
    if verdict is not None and verdict.relation != Relation.NOT_VERIFIABLE:
        return (
            Relation.SIMILAR
            if verdict.relation in COPY_RELATIONS and verdict.agreeing_share < min_agreement
            else verdict.relation
        )
    return Relation.SIMILAR if score >= similar_threshold else Relation.UNRELATED


def form_groups(
    files_by_pixel_hash: Mapping[bytes, Sequence[LibraryFile]],
    edges: Iterable[Edge],
    relations: Iterable[Relation] = COPY_RELATIONS,
    keep_rules: KeepRules | None = None,
) -> list[Group]:
    """Groups of `pictures` (photos by the hash of their pixels) that have one of `relations` to a keeper; ordered by keeper path.

    Pictures are taken in the order of the rules to `keep` by, each by the best of the photos that show it. One that is still free becomes a
    keeper and takes its free neighbours, but for those that are rather copies of another shot of its scene: these it takes in the end,
    where that went into another's group without them. So every photo is in at most one group, no other picture in it is better than the
    keeper, whatever is in no group has its copies in others', and the order of edges does not matter. What else is close to a photo of a
    group is related to it.
    """
    wanted, keep_rules = frozenset(relations), keep_rules or KeepRules()
    near: dict[bytes, list[tuple[bytes, Edge]]] = defaultdict(list)
    for edge in edges:
        if edge.left in files_by_pixel_hash and edge.right in files_by_pixel_hash:
            near[edge.left].append((edge.right, edge))
            near[edge.right].append((edge.left, edge))
    best = {
        pixels: min(photos, key=keep_rules.rank_key_equal_pixels)
        for pixels, photos in files_by_pixel_hash.items()
    }
    worths = {
        pixels: keep_rules.rank_key(best[pixels], _copy_hints(pixels, near[pixels], wanted, best))
        for pixels in files_by_pixel_hash
    }

    groups = list[Group]()
    for pixels, taken in _assign_to_keepers(near, worths, wanted).items():
        keeper = best[pixels]
        members = _build_matches(keeper, files_by_pixel_hash[pixels], None)
        for other, edge in taken:
            members += _build_matches(keeper, files_by_pixel_hash[other], edge)
        members = [match for match in members if match.relation in wanted]
        if not members:
            continue
        members.sort(key=match_rank_key)
        if taken:
            reason = keep_rules.explain_choice(
                worths[pixels], [worths[other] for other, _ in taken]
            )
        else:
            equals = [
                keep_rules.rank_key_equal_pixels(photo)
                for photo in files_by_pixel_hash[pixels]
                if photo is not keeper
            ]
            reason = keep_rules.explain_choice(
                keep_rules.rank_key_equal_pixels(keeper), equals, equal_pixels=True
            )
        inside = {pixels, *(other for other, _ in taken)}
        groups.append(
            Group(
                keeper.image.hash.hex()[:16],
                keeper,
                tuple(members),
                reason,
                _find_related_files(inside, near, best),
            )
        )
    return sorted(groups, key=lambda group: group.keeper.path)


def _assign_to_keepers(
    neighbors: Mapping[bytes, Sequence[tuple[bytes, Edge]]],
    rank_keys: Mapping[bytes, Any],
    relations: Collection[Relation],
) -> dict[bytes, list[tuple[bytes, Edge]]]:
    """Those that nobody takes, each with what it takes: first what is rather its own, then what it left to a shot that went elsewhere."""
    in_full = _find_full_size_copies(edge for close in neighbors.values() for _, edge in close)
    free = set(rank_keys)
    taken: dict[bytes, list[tuple[bytes, Edge]]] = {}
    for choosy, pixels in product((True, False), sorted(rank_keys, key=rank_keys.__getitem__)):
        if pixels not in free and pixels not in taken:
            continue
        mine = [
            (other, edge)
            for other, edge in neighbors[pixels]
            if other in free and rank_keys[pixels] < rank_keys[other] and edge.relation in relations
        ]
        if choosy and Relation.SAME_SCENE not in relations:
            shots = _find_other_shots(pixels, neighbors, in_full)
            mine = [
                (other, edge)
                for other, edge in mine
                if not _fits_other_shot_better(
                    shots, other, edge, neighbors[other], rank_keys, relations
                )
            ]
        if mine or not choosy:
            taken.setdefault(pixels, []).extend(mine)
            free -= {pixels, *(other for other, _ in mine)}
    return taken


def _find_full_size_copies(edges: Iterable[Edge]) -> Mapping[bytes, set[bytes]]:
    """For each picture, its copies that show it no smaller than it is."""
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for edge in edges:
        changes = edge.verdict.edits if edge.verdict else None
        if changes and changes.scale >= MIN_FULL_SIZE_SCALE:
            found[edge.left].add(edge.right)
        if changes and changes.scale <= 1 / MIN_FULL_SIZE_SCALE:
            found[edge.right].add(edge.left)
    return found


def _find_other_shots(
    pixel_hash: bytes,
    neighbors: Mapping[bytes, Iterable[tuple[bytes, Edge]]],
    full_size_copies: Mapping[bytes, set[bytes]],
) -> set[bytes]:
    """Other shots of a picture's scene. What has a copy in common with it that is no smaller than either is none, but much edited."""
    return {
        other
        for other, edge in neighbors[pixel_hash]
        if edge.relation == Relation.SAME_SCENE
        and full_size_copies[pixel_hash].isdisjoint(full_size_copies[other])
    }


def _fits_other_shot_better(
    shots: Collection[bytes],
    copy: bytes,
    edge: Edge,
    neighbors: Iterable[tuple[bytes, Edge]],
    rank_keys: Mapping[bytes, Any],
    relations: Collection[Relation],
) -> bool:
    """Whether a `copy` of a keeper, by `edge`, is rather one of other `shots` of the keeper's scene. Of a burst, what is small agrees with
    several shots; with its own in a larger share of tiles than with others, or in the same, and by more keypoints.
    """
    return bool(shots) and any(
        shot in shots
        and rank_keys[shot] < rank_keys[copy]
        and its.relation in relations
        and its.verdict is not None
        and edge.verdict is not None
        and (its.verdict.agreeing_share, its.verdict.inliers)
        > (edge.verdict.agreeing_share, edge.verdict.inliers)
        for shot, its in neighbors
    )


def _copy_hints(
    pixel_hash: bytes,
    neighbors: Iterable[tuple[bytes, Edge]],
    relations: Collection[Relation],
    best_files: Mapping[bytes, LibraryFile],
) -> CopyHints:
    """What its copies say of a picture. It was made of another where more of them say so than say that they were made of it: one of them
    that is taken in by its margin, or by a picture within it, says little.
    """
    made_of = made_from = enlarged = margin = 0
    counted = inf
    for _, edge in neighbors:
        evidence = edge.verdict
        changes = evidence.edits if evidence and edge.relation in relations else None
        if evidence and changes:
            mine = Side.FIRST if pixel_hash == edge.left else Side.SECOND
            made_of += changes.derived_side == mine
            made_from += changes.derived_side not in (None, mine)
            enlarged += changes.upscaled_side == mine
            margin += (
                changes.plain_background
                and not changes.embedded_side
                and changes.overlap[mine == Side.SECOND] < MIN_FULL_OVERLAP
            )
            if changes.anisotropic and min(changes.overlap) >= MIN_FULL_OVERLAP:
                counted = min(
                    counted,
                    _count_unstretched_pixels(
                        evidence, mine, best_files[edge.left].image, best_files[edge.right].image
                    ),
                )
    return CopyHints(made_of > made_from, enlarged > 0, margin > 0, counted)


def _count_unstretched_pixels(verdict: Verdict, side: str, first: Image, second: Image) -> float:
    """How many pixels count of the one of a stretched pair that has more: as many as the other has, unless it is larger along all
    directions. Which of the two was stretched, nobody can tell.
    """
    most, least = principal_scales(
        verdict.homography_matrix, ((first.width, first.height), (second.width, second.height))
    )
    larger, other = (least, first) if side == Side.SECOND else (1.0 / most, second)
    return other.width * other.height * (larger**2 if larger > MAX_ISOTROPIC_RATIO else 1.0)


def _find_related_files(
    pixel_hashes: Collection[bytes],
    neighbors: Mapping[bytes, Sequence[tuple[bytes, Edge]]],
    best_files: Mapping[bytes, LibraryFile],
) -> tuple[RelatedFile, ...]:
    """What is close to those inside a group, once, as it is to the one that it is closest to."""
    found: dict[bytes, tuple[tuple[int, float, str], RelatedFile]] = {}
    for one in pixel_hashes:
        for other, edge in neighbors[one]:
            if other not in pixel_hashes:
                order = (REPORTED_RELATIONS.index(edge.relation), -edge.score, best_files[one].path)
                if other not in found or order < found[other][0]:
                    found[other] = (
                        order,
                        RelatedFile(best_files[other], best_files[one], edge.relation, edge.score),
                    )
    return tuple(
        related for _, related in sorted(found.values(), key=lambda one: (one[0], one[1].file.path))
    )


def _build_matches(
    keeper: LibraryFile, files: Iterable[LibraryFile], edge: Edge | None
) -> list[Match]:
    """`photos` beside the keeper: exact copies where there is no edge."""
    return [
        Match(photo, edge.relation, edge.score, _orient_verdict(edge, keeper))
        if edge
        else Match(photo, exact_relation(photo.image, keeper.image) or Relation.SIMILAR, 1.0)
        for photo in files
        if photo is not keeper
    ]


def _orient_verdict(edge: Edge, first_file: LibraryFile) -> Verdict | None:
    """The evidence of an edge, told from one of its ends."""
    if edge.verdict is None or first_file.image.pixel_hash == edge.left:
        return edge.verdict
    return edge.verdict.swap_sides()
