"""STAGE 2: every stored pair at or above a threshold -> groups."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np

from indexes import CROWD, Judged, Known, Space, Store, cosines
from pipeline.grouping.cluster import COPIES, SIMILAR, Edge, Group, group, verified
from pipeline.grouping.keep_rules import Keep, Photo, Said
from pipeline.scan import is_below
from pipeline.verify.verdict import UNKNOWN, UNRELATED, evidence_of


@dataclass(frozen=True)
class Limits:
    """From which cosine on pairs are looked at, and from which on what nobody could verify is SIMILAR; and the share of tiles that must
    agree in a copy; >= all.
    """

    lowest: float
    least: float
    strictness: float
    inside: bool = False  # copies count whose whole pictures are less alike than that, too: pictures within pictures


def floor_of(store: Store, space: Space) -> float:
    """The cosine down to which the store knows all pairs: the space's floor, or a higher one where there would be too many."""
    frontier = store.catalog.frontier()
    return max(space.floor, frontier.floor) if frontier else space.floor


def limits(store: Store, space: Space, threshold: float | None = None, strictness: float | None = None) -> Limits:
    """As given; else as was chosen for the store, down to where it knows all pairs at most; SIMILAR from the space's own threshold on, or
    from a given one.
    """
    choice = store.catalog.choice()
    if strictness is None:
        strictness = choice.strictness if choice else 0.0
    if threshold is not None:
        return Limits(threshold, threshold, strictness)
    floor = floor_of(store, space)
    lowest = max(floor, choice.threshold if choice else floor)
    return Limits(lowest, max(lowest, space.threshold), strictness, inside=lowest <= floor)


def find_groups(
    store: Store,
    threshold: float | None = None,
    under: Sequence[str] = (),
    *,
    against_all: bool = False,
    relations: Iterable[str] = COPIES,
    keep: Keep | None = None,
    strictness: float | None = None,
    look: Callable[[Photo], Photo] = lambda photo: photo,
) -> list[Group]:
    """Groups of near-duplicates among the files of the store, below the folders `under` when any are given. No photo is read; `look` may
    say what became of each.

    With `against_all`, groups may hold files from anywhere, but at least one from below `under`. Each member has one of `relations` to its
    keeper. Pairs whose cosine is below `threshold` (>=; else what was chosen for the store, if anything) are left aside. SIMILAR is what
    nobody could verify, at or above the space's own threshold, or the given one, and copies of whose tiles fewer than `strictness` agree.
    Photos with the same pixels count as one picture; pictures without features are grouped with exact copies alone. `keep` says which
    photo of a group is kept.
    """
    under = [os.path.realpath(folder) for folder in under]
    scope = () if against_all else under
    with store.catalog.snapshot():
        space = store.space
        if space is None:
            return []
        within = limits(store, space, threshold, strictness)
        found = store.pairs(within.lowest)
        images: dict[int, int | None] = dict(store.catalog.images_with_copies())
        images |= dict(store.catalog.images_of(set(found.left.tolist()) | set(found.right.tolist())))
        scores = found.by_pair()
        if within.inside:
            apart = pairs_inside(store, scores)
            images |= dict(store.catalog.images_of({vector for pair in apart for vector in pair}))
            scores |= apart
        photos = {id_: list(map(look, some)) for id_, some in photos_of(store, list(images), scope).items()}
        pictures: dict[bytes, list[Photo]] = defaultdict(list)
        for some in photos.values():
            pictures[some[0].image.pixels].extend(some)
        pixels = {id_: some[0].image.pixels for id_, some in photos.items()}
        keep = keep or Keep()
        edges = _edges(store, scores, images, pixels, pictures, keep, within)
    groups = group(pictures, edges, relations, keep)
    if not (against_all and under):
        return groups
    return [one for one in groups if any(is_below(photo.path, under) for photo in one.photos)]


def _edges(
    store: Store,
    scores: Mapping[tuple[int, int], float],
    vector_of: Mapping[int, int | None],
    pixels: Mapping[int, bytes],
    pictures: Mapping[bytes, Sequence[Photo]],
    keep: Keep,
    within: Limits,
) -> list[Edge]:
    """What the pictures of pairs of vectors, by the cosine of each, and those that share one, are to each other: as it was verified, or
    SIMILAR.

    `vector_of`: the images that matter, with their vectors, negative or None where there is none; `pixels`: of those of them that are
    asked about; `pictures`: their photos, by these.
    """

    def worth(its: bytes) -> tuple[Any, ...]:
        return min(keep.worth(photo, Said()) for photo in pictures[its])

    vector_by: dict[bytes, int] = {}
    sharing: dict[int, dict[bytes, None]] = defaultdict(dict)  # the pictures of each vector
    for id_, its in pixels.items():
        if (vector := vector_of[id_] or 0) > 0:
            vector_by[its] = vector
            sharing[vector][its] = None
    # Of many that the model cannot tell apart, any may be the keeper, but it is one of the best.
    few = {vector: sorted(some, key=worth)[:CROWD] if len(some) > CROWD else list(some) for vector, some in sharing.items()}

    edges: dict[tuple[bytes, bytes], Edge] = {}
    for left, right, cosine, judged in judged_pairs(store, scores, vector_by):
        evidence = evidence_of(judged) if judged.relation != UNRELATED else None  # most are, and each costs
        relation = verified(evidence, cosine, within.least, within.strictness) if evidence else UNRELATED
        edges[min(left, right), max(left, right)] = Edge(left, right, relation, cosine, evidence)
    pairs = [(pair, cosine) for pair, cosine in scores.items() if cosine >= within.least]
    pairs += [((vector, vector), 1.0) for vector, some in sharing.items() if len(some) > 1]
    for (one, other), cosine in pairs:
        if one in sharing and other in sharing:
            for left, right in chain(product(few[one], sharing[other]), product(sharing[one], few[other])):
                key = min(left, right), max(left, right)
                if left != right and key not in edges:
                    edges[key] = Edge(*key, SIMILAR, cosine)
    return [edge for edge in edges.values() if edge.relation != UNRELATED]


def judged_pairs(
    store: Store, scores: Mapping[tuple[int, int], float], vector_by: Mapping[bytes, int]
) -> Iterator[tuple[bytes, bytes, float, Judged]]:
    """What was found of pictures that have a vector in `vector_by`, by their pixels, with their cosine, where `scores` has it; what a newer
    judge found of the same two comes later.
    """
    for left, right, judged in store.catalog.evidence_of_pictures():
        one, other = vector_by.get(left), vector_by.get(right)
        if left != right and one is not None and other is not None:
            cosine = 1.0 if one == other else scores.get((min(one, other), max(one, other)))
            if cosine is not None:
                yield left, right, cosine, judged


def pairs_inside(store: Store, scores: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """The cosines of the vectors of related pictures that are not among `scores`: those of pictures within pictures."""
    related = map(tuple, store.catalog.related((UNRELATED, UNKNOWN)).tolist())
    pairs = sorted(pair for pair in related if pair not in scores)
    image_of = {vector: image for image, vector in store.catalog.images_of({vector for pair in pairs for vector in pair})}
    pairs = [(one, other) for one, other in pairs if one in image_of and other in image_of]
    if not pairs:
        return {}
    rows = store.vectors(list(image_of.values()))
    left, right = (np.stack([rows[image_of[pair[side]]] for pair in pairs]).astype(np.float16) for side in (0, 1))
    return dict(zip(pairs, cosines(left, right).tolist(), strict=True))


def photos_of(store: Store, images: Sequence[int], under: Sequence[str] = ()) -> dict[int, list[Photo]]:
    """The files of `images`; one that is reached by several paths (hard links, links to folders) only once, by its shortest."""
    about = dict(store.catalog.images(images))
    found: dict[int, dict[tuple[int, int], Known]] = defaultdict(dict)
    for known in store.catalog.files_of(images):
        if known.image is not None and (not under or is_below(known.path, under)):
            inode = (known.stat.device, known.stat.inode)
            before = found[known.image].get(inode)
            if before is None or (before.missing, len(before.path), before.path) > (known.missing, len(known.path), known.path):
                found[known.image][inode] = known
    return {
        image: [Photo(known.path, known.stat, about[image], known.missing) for known in files.values()] for image, files in found.items()
    }
