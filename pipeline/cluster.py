"""Pairs in, groups out: a keeper and its members, each of them matched with the keeper itself. Nothing is chained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexes import Image, Stat
from pipeline.evidence import DERIVED, FIRST, SAME, SCENE, SECOND, UNKNOWN, UNRELATED, Changes, Evidence

IDENTICAL_BYTES, IDENTICAL_PIXELS, SIMILAR = "identical bytes", "identical pixels", "similar"
RELATIONS = (IDENTICAL_BYTES, IDENTICAL_PIXELS, SAME, DERIVED, SCENE, SIMILAR)  # closest first
COPIES = frozenset({IDENTICAL_BYTES, IDENTICAL_PIXELS, SAME, DERIVED})  # what is grouped unless more is asked for
TOLD = COPIES | {SIMILAR}  # what is told of a file that is asked about
LOSSLESS = {"PNG", "BMP", "GIF", "TIFF"}


@dataclass(frozen=True, slots=True)
class Photo:
    """A file with the image that it holds; `missing` when it was not there the last time, but perhaps only its drive was away."""

    path: str
    stat: Stat
    image: Image
    missing: bool = False


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


# Why a photo is kept, by the first number of rank(), with what group() puts in, or of original_first() in which it is better than the next.
BETTER = (
    "it is there",
    "it is whole",
    "not made of another",
    "not only enlarged",
    "most pixels",
    "most bytes",
    "oldest",
    "shortest path",
    "first by its path",
)
MORE_ORIGINAL = ("it is there", "not a lossless copy", "oldest", "shortest path", "first by its path")


def rank(photo: Photo) -> tuple[bool, bool, int, int, int, int, str]:
    """Sorts the photo to keep first: one that is there, a whole one, then by pixels, bytes, age, shorter path, path itself."""
    area = photo.image.width * photo.image.height
    return (photo.missing, photo.image.damaged, -area, -photo.image.size, photo.stat.mtime_ns, len(photo.path), photo.path)


def original_first(photo: Photo) -> tuple[bool, bool, int, int, str]:
    """Sorts photos with the same pixels: one that is there, in a lossy format (a lossless one is a re-save of it), older, shorter path."""
    return (photo.missing, photo.image.format in LOSSLESS, photo.stat.mtime_ns, len(photo.path), photo.path)


def closest_first(match: Match) -> tuple[int, float, str]:
    """Sorts matches: by relation, then by score, then by path."""
    return (RELATIONS.index(match.relation), -match.score, match.photo.path)


def exact(image: Image, keeper: Image) -> str | None:
    """What two images are to each other, as far as hashes tell; None where they tell nothing."""
    if image.hash == keeper.hash:
        return IDENTICAL_BYTES
    return IDENTICAL_PIXELS if image.pixels == keeper.pixels else None


def verified(evidence: Evidence | None, score: float, least: float) -> str:
    """What two pictures are that are not the same by their hashes: as their evidence says; SIMILAR where there is none, or it could not
    tell, and their cosine is at or above `least`.
    """
    if evidence is not None and evidence.relation != UNKNOWN:
        return evidence.relation
    return SIMILAR if score >= least else UNRELATED


def group(pictures: Mapping[bytes, Sequence[Photo]], edges: Iterable[Edge], relations: Iterable[str] = COPIES) -> list[Group]:
    """Groups of `pictures` (photos by the hash of their pixels) that have one of `relations` to a keeper; ordered by keeper path.

    Pictures are taken best first, each by its best photo, or a more original one with the same pixels; one that was made of another, or
    only enlarged, as pixels show, after those of which nothing says so. One that is still free becomes a keeper and takes its free
    neighbours; so every photo is in at most one group, no other picture in it is better than the keeper, and the order of edges does not
    matter. What else is close to a photo of a group is related to it.
    """
    wanted = frozenset(relations)
    near: dict[bytes, list[tuple[bytes, Edge]]] = defaultdict(list)
    for edge in edges:
        if edge.left in pictures and edge.right in pictures:
            near[edge.left].append((edge.right, edge))
            near[edge.right].append((edge.left, edge))
    best = {pixels: _best(photos) for pixels, photos in pictures.items()}

    def is_said(pixels: bytes, what: Callable[[Changes], str]) -> bool:
        """Whether one of its copies says something of a picture."""
        said = ((edge, edge.evidence.changes) for _, edge in near[pixels] if edge.relation in wanted and edge.evidence)
        return any(changes is not None and what(changes) == (FIRST if pixels == edge.left else SECOND) for edge, changes in said)

    def worth(pixels: bytes) -> tuple[Any, ...]:
        missing, damaged, *rest = rank(best[pixels])
        made, enlarged = is_said(pixels, lambda changes: changes.derived), is_said(pixels, lambda changes: changes.enlarged)
        return (missing, damaged, made, enlarged, *rest)

    worths = {pixels: worth(pixels) for pixels in pictures}
    free = set(pictures)
    groups = []
    for pixels in sorted(pictures, key=worths.__getitem__):
        if pixels not in free:
            continue
        taken = [(other, edge) for other, edge in near[pixels] if other in free and edge.relation in wanted]
        inside = {pixels, *(other for other, _ in taken)}
        free -= inside
        keeper = best[pixels]
        members = _matches(keeper, pictures[pixels], None)
        for other, edge in taken:
            members += _matches(keeper, pictures[other], edge)
        members = [match for match in members if match.relation in wanted]
        if members:
            members.sort(key=closest_first)
            reason = _reason(keeper, pictures[pixels], worths[pixels], [worths[other] for other in inside if other != pixels])
            groups.append(Group(keeper.image.hash.hex()[:16], keeper, tuple(members), reason, _related(inside, near, best)))
    return sorted(groups, key=lambda group: group.keeper.path)


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


def _reason(keeper: Photo, equals: Sequence[Photo], worth: tuple[Any, ...], others: Sequence[tuple[Any, ...]]) -> str:
    """The rules by which the keeper is better than each other picture or, where all are one, than each other photo of it."""
    if others:
        return ", ".join(BETTER[number] for number in sorted({_first_better(worth, other) for other in others}))
    own = original_first(keeper)
    better = {_first_better(own, original_first(photo)) for photo in equals if photo is not keeper}
    return ", ".join(MORE_ORIGINAL[number] for number in sorted(better))


def _first_better(one: tuple[Any, ...], other: tuple[Any, ...]) -> int:
    return next(number for number, (mine, its) in enumerate(zip(one, other, strict=True)) if mine != its)


def _best(photos: Sequence[Photo]) -> Photo:
    return min(photos, key=original_first)


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
