"""STAGE 2: every stored pair at or above a threshold -> groups."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np

from indexes.catalog.verdicts import MAX_IMAGES_PER_VECTOR, StoredVerdict
from indexes.records import CatalogFile, Space
from indexes.store import Store
from indexes.vectors.segments import cosines
from pipeline.grouping.cluster import Edge, Group, form_groups, relation_of
from pipeline.grouping.keep_rules import CopyHints, KeepRules, LibraryFile
from pipeline.scan import is_below
from pipeline.verify.relation import COPY_RELATIONS, Relation
from pipeline.verify.verdict import decode_verdict


@dataclass(frozen=True)
class Thresholds:
    """From which cosine on pairs are looked at, and from which on what nobody could verify is SIMILAR; and the share of tiles that must
    agree in a copy; >= all.
    """

    search: float
    similar: float
    min_agreement: float
    with_crops: bool = False  # copies count whose whole pictures are less alike than that, too: pictures within pictures


def get_effective_floor(store: Store, space: Space) -> float:
    """The cosine down to which the store knows all pairs: the space's floor, or a higher one where there would be too many."""
    frontier = store.catalog.pairs.get_watermark()
    return max(space.floor, frontier.floor) if frontier else space.floor


def resolve_thresholds(
    store: Store, space: Space, threshold: float | None = None, min_agreement: float | None = None
) -> Thresholds:
    """As given; else as was chosen for the store, down to where it knows all pairs at most; SIMILAR from the space's own threshold on, or
    from a given one.
    """
    choice = store.catalog.settings.get_saved_thresholds()
    if min_agreement is None:
        min_agreement = choice.min_agreement if choice else 0.0
    if threshold is not None:
        return Thresholds(threshold, threshold, min_agreement)
    floor = get_effective_floor(store, space)
    lowest = max(floor, choice.threshold if choice else floor)
    return Thresholds(
        lowest, max(lowest, space.threshold), min_agreement, with_crops=lowest <= floor
    )


def find_groups(
    store: Store,
    threshold: float | None = None,
    folders: Sequence[str] = (),
    *,
    against_all: bool = False,
    relations: Iterable[Relation] = COPY_RELATIONS,
    keep_rules: KeepRules | None = None,
    min_agreement: float | None = None,
    refresh_status: Callable[[LibraryFile], LibraryFile] = lambda photo: photo,
) -> list[Group]:
    """Groups of near-duplicates among the files of the store, below the folders `under` when any are given. No photo is read; `look` may
    say what became of each.

    With `against_all`, groups may hold files from anywhere, but at least one from below `under`. Each member has one of `relations` to its
    keeper. Pairs whose cosine is below `threshold` (>=; else what was chosen for the store, if anything) are left aside. SIMILAR is what
    nobody could verify, at or above the space's own threshold, or the given one, and copies of whose tiles fewer than `strictness` agree.
    Photos with the same pixels count as one picture; pictures without features are grouped with exact copies alone. `keep` says which
    photo of a group is kept.
    """
    folders = [os.path.realpath(folder) for folder in folders]
    scope = () if against_all else folders
    with store.catalog.snapshot():
        space = store.space
        if space is None:
            return []
        within = resolve_thresholds(store, space, threshold, min_agreement)
        found = store.find_pairs(within.search)
        images: dict[int, int | None] = dict(store.catalog.images.find_with_copies())
        images |= dict(
            store.catalog.images.find_of_vectors(
                set(found.left.tolist()) | set(found.right.tolist())
            )
        )
        scores = found.to_dict()
        if within.with_crops:
            apart = score_crop_pairs(store, scores)
            images |= dict(
                store.catalog.images.find_of_vectors({vector for pair in apart for vector in pair})
            )
            scores |= apart
        photos = {
            id_: list(map(refresh_status, some))
            for id_, some in load_files(store, list(images), scope).items()
        }
        pictures: dict[bytes, list[LibraryFile]] = defaultdict(list)
        for some in photos.values():
            pictures[some[0].image.pixel_hash].extend(some)
        pixels = {id_: some[0].image.pixel_hash for id_, some in photos.items()}
        keep_rules = keep_rules or KeepRules()
        edges = _build_edges(store, scores, images, pixels, pictures, keep_rules, within)
    groups = form_groups(pictures, edges, relations, keep_rules)
    if not (against_all and folders):
        return groups
    return [one for one in groups if any(is_below(photo.path, folders) for photo in one.files)]


def _build_edges(
    store: Store,
    scores: Mapping[tuple[int, int], float],
    vector_by_image: Mapping[int, int | None],
    pixel_hashes: Mapping[int, bytes],
    files_by_pixel_hash: Mapping[bytes, Sequence[LibraryFile]],
    keep_rules: KeepRules,
    thresholds: Thresholds,
) -> list[Edge]:
    """What the pictures of pairs of vectors, by the cosine of each, and those that share one, are to each other: as it was verified, or
    SIMILAR.

    `vector_of`: the images that matter, with their vectors, negative or None where there is none; `pixels`: of those of them that are
    asked about; `pictures`: their photos, by these.
    """

    def best_rank_key(pixel_hash: bytes) -> tuple[Any, ...]:
        return min(
            keep_rules.rank_key(photo, CopyHints()) for photo in files_by_pixel_hash[pixel_hash]
        )

    vector_by: dict[bytes, int] = {}
    sharing: dict[int, dict[bytes, None]] = defaultdict(dict)  # the pictures of each vector
    for id_, its in pixel_hashes.items():
        if (vector := vector_by_image[id_] or 0) > 0:
            vector_by[its] = vector
            sharing[vector][its] = None
    # Of many that the model cannot tell apart, any may be the keeper, but it is one of the best.
    few = {
        vector: sorted(some, key=best_rank_key)[:MAX_IMAGES_PER_VECTOR]
        if len(some) > MAX_IMAGES_PER_VECTOR
        else list(some)
        for vector, some in sharing.items()
    }

    edges: dict[tuple[bytes, bytes], Edge] = {}
    for left, right, cosine, judged in iter_scored_verdicts(store, scores, vector_by):
        evidence = (
            decode_verdict(judged) if judged.relation != Relation.UNRELATED else None
        )  # most are, and each costs
        relation = (
            relation_of(evidence, cosine, thresholds.similar, thresholds.min_agreement)
            if evidence
            else Relation.UNRELATED
        )
        edges[min(left, right), max(left, right)] = Edge(left, right, relation, cosine, evidence)
    pairs = [(pair, cosine) for pair, cosine in scores.items() if cosine >= thresholds.similar]
    pairs += [((vector, vector), 1.0) for vector, some in sharing.items() if len(some) > 1]
    for (one, other), cosine in pairs:
        if one in sharing and other in sharing:
            for left, right in chain(
                product(few[one], sharing[other]), product(sharing[one], few[other])
            ):
                key = min(left, right), max(left, right)
                if left != right and key not in edges:
                    edges[key] = Edge(*key, Relation.SIMILAR, cosine)
    return [edge for edge in edges.values() if edge.relation != Relation.UNRELATED]


def iter_scored_verdicts(
    store: Store, scores: Mapping[tuple[int, int], float], vector_by_pixel_hash: Mapping[bytes, int]
) -> Iterator[tuple[bytes, bytes, float, StoredVerdict]]:
    """What was found of pictures that have a vector in `vector_by`, by their pixels, with their cosine, where `scores` has it; what a newer
    judge found of the same two comes later.
    """
    for left, right, judged in store.catalog.verdicts.stream_with_pixel_hashes():
        one, other = vector_by_pixel_hash.get(left), vector_by_pixel_hash.get(right)
        if left != right and one is not None and other is not None:
            cosine = 1.0 if one == other else scores.get((min(one, other), max(one, other)))
            if cosine is not None:
                yield left, right, cosine, judged


def score_crop_pairs(
    store: Store, scores: Mapping[tuple[int, int], float]
) -> dict[tuple[int, int], float]:
    """The cosines of the vectors of related pictures that are not among `scores`: those of pictures within pictures."""
    related = map(
        tuple,
        store.catalog.verdicts.find_related_vectors(
            (Relation.UNRELATED, Relation.NOT_VERIFIABLE)
        ).tolist(),
    )
    pairs = sorted(pair for pair in related if pair not in scores)
    image_of = {
        vector: image
        for image, vector in store.catalog.images.find_of_vectors(
            {vector for pair in pairs for vector in pair}
        )
    }
    pairs = [(one, other) for one, other in pairs if one in image_of and other in image_of]
    if not pairs:
        return {}
    rows = store.get_vectors(list(image_of.values()))
    left, right = (
        np.stack([rows[image_of[pair[side]]] for pair in pairs]).astype(np.float16)
        for side in (0, 1)
    )
    return dict(zip(pairs, cosines(left, right).tolist(), strict=True))


def load_files(
    store: Store, image_ids: Sequence[int], folders: Sequence[str] = ()
) -> dict[int, list[LibraryFile]]:
    """The files of `images`; one that is reached by several paths (hard links, links to folders) only once, by its shortest."""
    about = dict(store.catalog.images.get(image_ids))
    found: dict[int, dict[tuple[int, int], CatalogFile]] = defaultdict(dict)
    for known in store.catalog.files.find_of_images(image_ids):
        if known.image_id is not None and (not folders or is_below(known.path, folders)):
            inode = (known.stat.device, known.stat.inode)
            before = found[known.image_id].get(inode)
            if before is None or (before.is_missing, len(before.path), before.path) > (
                known.is_missing,
                len(known.path),
                known.path,
            ):
                found[known.image_id][inode] = known
    return {
        image: [
            LibraryFile(known.path, known.stat, about[image], known.is_missing)
            for known in files.values()
        ]
        for image, files in found.items()
    }
