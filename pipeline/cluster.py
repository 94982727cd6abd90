"""Pairs in, groups out: a keeper and its members, each of them at or above the threshold to the keeper itself. Nothing is chained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexes import Image, Scored, Stat

IDENTICAL_BYTES, IDENTICAL_PIXELS, SIMILAR = "identical bytes", "identical pixels", "similar"
LOSSLESS = {"PNG", "BMP", "GIF", "TIFF"}
RELATIONS = (IDENTICAL_BYTES, IDENTICAL_PIXELS, SIMILAR)  # closest first


@dataclass(frozen=True, slots=True)
class Photo:
    """A file with the image that it holds; `missing` when it was not there the last time, but perhaps only its drive was away."""

    path: str
    stat: Stat
    image: Image
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that matches another, the keeper of a group or a file that was asked about: what it is to it, and their cosine."""

    photo: Photo
    relation: str
    score: float


@dataclass(frozen=True, slots=True)
class Group:
    """A keeper and the photos that match it, closest first. The id is the keeper's content, so it outlives renames and other ingests."""

    id: str
    keeper: Photo
    members: tuple[Match, ...]


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


def relation(image: Image, keeper: Image) -> str:
    """What two images are to each other, as far as hashes tell."""
    if image.hash == keeper.hash:
        return IDENTICAL_BYTES
    return IDENTICAL_PIXELS if image.pixels == keeper.pixels else SIMILAR


def group(pictures: Mapping[int, Sequence[Photo]], edges: Scored) -> list[Group]:
    """Groups of `pictures` (lists of photos that share a vector, under its id) joined by `edges` between their ids; ordered by keeper path.

    Pictures are taken best first, each by its best photo, or a more original one with the same pixels. One that is still free becomes a
    keeper and takes its free neighbours; so every photo is in at most one group, no other picture in it is better than the keeper, and the
    order of ids or of edges does not matter.
    """
    near: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for left, right, score in zip(edges.left.tolist(), edges.right.tolist(), edges.score.tolist(), strict=True):
        near[left].append((right, score))
        near[right].append((left, score))
    best = {id_: _best(photos) for id_, photos in pictures.items()}
    free = set(pictures)
    groups = []
    for id_ in sorted(pictures, key=lambda id_: rank(best[id_])):
        if id_ not in free:
            continue
        taken = [(other, score) for other, score in near[id_] if other in free]
        free.difference_update([id_], (other for other, _ in taken))
        keeper = best[id_]
        members = [
            *_members(keeper, pictures[id_], 1.0),
            *(member for other, score in taken for member in _members(keeper, pictures[other], score)),
        ]
        if members:
            members.sort(key=closest_first)
            groups.append(Group(keeper.image.hash.hex()[:16], keeper, tuple(members)))
    return sorted(groups, key=lambda group: group.keeper.path)


def _best(photos: Sequence[Photo]) -> Photo:
    by_pixels: dict[bytes, list[Photo]] = defaultdict(list)
    for photo in photos:
        by_pixels[photo.image.pixels].append(photo)
    return min((min(alike, key=original_first) for alike in by_pixels.values()), key=rank)


def _members(keeper: Photo, photos: Iterable[Photo], score: float) -> list[Match]:
    return [Match(photo, relation(photo.image, keeper.image), score) for photo in photos if photo is not keeper]
