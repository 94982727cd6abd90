"""Groups of near-duplicates in a store: one snapshot of the catalog, its edges, star clustering."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import Any

import numpy as np

from indexes.catalog.verdicts import MAX_IMAGES_PER_VECTOR, StoredVerdict
from indexes.metadata import NO_METADATA, Frames
from indexes.store import Store
from indexes.vectors.scores import compute_cosines
from pipeline.grouping.assets import AssetPart, are_of_equal_size
from pipeline.grouping.cluster import Group, form_groups
from pipeline.grouping.edges import Edge
from pipeline.grouping.exposures import Exposures, NamedMetadata
from pipeline.grouping.frames import relate_frames
from pipeline.grouping.keep_rules import KeepRules, LibraryFile
from pipeline.grouping.match import decide_relation
from pipeline.grouping.provenance import Provenance
from pipeline.query.assets import (
    LibraryAssets,
    find_asset_folders,
    mark_without_counterpart,
    select_primary_files,
)
from pipeline.query.files import load_files
from pipeline.query.thresholds import Thresholds, resolve_thresholds
from pipeline.scan import is_below
from pipeline.verify.relation import COPY_RELATIONS, UNREPORTED_RELATIONS, Relation
from pipeline.verify.verdict import Verdict, decode_verdict


def _keep_status(file: LibraryFile) -> LibraryFile:
    return file


@dataclass(frozen=True)
class GroupOptions:
    """Less common options of find_groups().

    `against_all`: with folders, groups may hold files from anywhere, but at least one from below
    these. `against`, real paths: groups hold files from below the folders and from below these, at
    least one of each. `keep_rules` choose the keeper of a group. `refresh_status` returns a file
    with its present status on disk; by default the status of the last ingest stands.
    `have_equal_content` tells if a part of the keeper's asset, its second argument, is a copy of
    that of a member; by default by their hashes, else by their sizes.
    """

    against_all: bool = False
    against: Sequence[str] = ()
    keep_rules: KeepRules = field(default_factory=KeepRules)
    refresh_status: Callable[[LibraryFile], LibraryFile] = _keep_status
    have_equal_content: Callable[[AssetPart, AssetPart], bool] = are_of_equal_size


@dataclass(frozen=True, slots=True)
class ScoredVerdict:
    """A verdict on two images, by pixel hash, with their cosine; None for UNRELATED."""

    left: bytes
    right: bytes
    score: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Snapshot:
    """The part of a store that groups are made of, loaded in one catalog snapshot.

    Images are known by their pixel hash: all files with the same pixels are one. `images_by_vector`
    lists the images of each vector id; an image without features has no vector. `scores` holds the
    cosine of pairs of vectors, the smaller id first, `verdicts` the newest verdict on each pair of
    images with a score, the smaller pixel hash first. `exposures` knows the images of these pairs,
    `frames` those of the pairs with an animation or a document.
    """

    thresholds: Thresholds
    files: Mapping[bytes, Sequence[LibraryFile]]
    images_by_vector: Mapping[int, Sequence[bytes]]
    scores: Mapping[tuple[int, int], float]
    verdicts: Mapping[tuple[bytes, bytes], ScoredVerdict]
    exposures: Exposures
    frames: Mapping[bytes, Frames]


def find_groups(
    store: Store,
    threshold: float | None = None,
    folders: Sequence[str] = (),
    *,
    relations: Iterable[Relation] = COPY_RELATIONS,
    min_agreement: float | None = None,
    options: GroupOptions | None = None,
) -> list[Group]:
    """Group the near-duplicates among the files of the store; with `folders`, among those below.

    No file is read. Each member has one of `relations` to its keeper. Pairs with a cosine below
    `threshold` are ignored (`>=`; None: as saved for the store, else down to its floor). A pair
    that pixels cannot decide is SIMILAR from the threshold of the space on, or from the requested
    one. At any score, one in doubt by the judge is SIMILAR, and a copy whose share of agreeing
    tiles is below `min_agreement`. Images without features are grouped with exact copies alone.
    Of an asset only the primary file is in a group, with its parts. Groups are sorted by the path
    of their keeper.
    """
    options = options or GroupOptions()
    folders = [os.path.realpath(folder) for folder in folders]
    with store.catalog.snapshot():
        if store.space is None:
            return []
        thresholds = resolve_thresholds(store, store.space, threshold, min_agreement)
        scope = () if options.against_all else (*folders, *options.against)
        snapshot = load_snapshot(store, thresholds, scope, options.refresh_status)
        snapshot = _select_primary_files(snapshot, LibraryAssets(store, find_asset_folders(store)))
    edges = build_edges(snapshot, options.keep_rules)
    groups = form_groups(snapshot.files, edges, relations, options.keep_rules, snapshot.exposures)
    for side in (folders, options.against) if options.against else (folders,):
        groups = [group for group in groups if _has_file_below(group, side)]
    return [mark_without_counterpart(group, options.have_equal_content) for group in groups]


def _has_file_below(group: Group, folders: Sequence[str]) -> bool:
    """Tell if a group has a file below one of the folders, or there are none."""
    return not folders or any(is_below(file.path, folders) for file in group.files)


def _select_primary_files(snapshot: Snapshot, assets: LibraryAssets) -> Snapshot:
    """Leave the parts of assets out of a snapshot: they are in no group by themselves."""
    files = select_primary_files(snapshot.files, assets)
    images_by_vector = {
        vector: [image for image in images if image in files]
        for vector, images in snapshot.images_by_vector.items()
    }
    return replace(snapshot, files=files, images_by_vector=images_by_vector)


def load_snapshot(
    store: Store,
    thresholds: Thresholds,
    folders: Sequence[str] = (),
    refresh_status: Callable[[LibraryFile], LibraryFile] = _keep_status,
) -> Snapshot:
    """Load what groups are made of; with `folders`, only files below these.

    An image without a scored pair is loaded only if it may have an exact copy.
    """
    with store.catalog.snapshot():
        scores = store.search.find_candidates(thresholds.search).to_dict()
        if thresholds.with_crops:
            scores |= score_crop_pairs(store, scores, thresholds.search)
        vector_by_image = dict(store.catalog.images.find_with_copies())
        scored_vectors = {vector for pair in scores for vector in pair}
        vector_by_image |= store.catalog.images.find_of_vectors(scored_vectors)
        files = defaultdict[bytes, list[LibraryFile]](list)
        vector_by_pixel_hash = dict[bytes, int]()
        for image_id, image_files in load_files(store, list(vector_by_image), folders).items():
            pixel_hash, vector = image_files[0].image.pixel_hash, vector_by_image[image_id]
            files[pixel_hash] += map(refresh_status, image_files)
            if vector is not None:
                vector_by_pixel_hash[pixel_hash] = vector
        verdicts = _load_verdicts(store, scores, vector_by_pixel_hash)
        metadata = _load_metadata(store, files, verdicts.values())
    frames = {
        pixel_hash: record.metadata.frames
        for pixel_hash, records in metadata.items()
        for record in records
        if record.metadata.frames
    }
    images_by_vector = defaultdict[int, list[bytes]](list)
    for pixel_hash, vector in vector_by_pixel_hash.items():
        images_by_vector[vector].append(pixel_hash)
    return Snapshot(
        thresholds, files, images_by_vector, scores, verdicts, Exposures(metadata), frames
    )


def _load_verdicts(
    store: Store, scores: Mapping[tuple[int, int], float], vector_by_pixel_hash: Mapping[bytes, int]
) -> dict[tuple[bytes, bytes], ScoredVerdict]:
    """Load the newest verdict on each pair of images that has a score."""
    verdicts = {}
    for left, right, score, stored in iter_scored_verdicts(store, scores, vector_by_pixel_hash):
        # Most pairs are unrelated, and decoding is what takes time.
        is_related = stored.relation != Relation.UNRELATED
        verdict = decode_verdict(stored) if is_related else None
        verdicts[_sort_pair(left, right)] = ScoredVerdict(left, right, score, verdict)
    return verdicts


def _load_metadata(
    store: Store,
    files: Mapping[bytes, Sequence[LibraryFile]],
    verdicts: Iterable[ScoredVerdict],
) -> dict[bytes, list[NamedMetadata]]:
    """Load the metadata of the images that a verdict relates, and of pairs with an animation."""

    def has_frames(pixel_hash: bytes) -> bool:
        return any(file.image.has_frames for file in files.get(pixel_hash, ()))

    pixel_hashes = {
        pixel_hash
        for pair in verdicts
        if pair.verdict is not None or has_frames(pair.left) or has_frames(pair.right)
        for pixel_hash in (pair.left, pair.right)
    }
    files_by_hash = defaultdict[bytes, list[LibraryFile]](list)
    for pixel_hash in pixel_hashes:
        for file in files.get(pixel_hash, ()):
            files_by_hash[file.image.hash].append(file)
    ids = store.catalog.images.get_ids(list(files_by_hash))
    metadata = dict(store.catalog.metadata.get(ids.values()))
    by_pixel_hash = defaultdict[bytes, list[NamedMetadata]](list)
    for hash_, image_id in ids.items():
        paths = [file.path for file in files_by_hash[hash_]]
        named = NamedMetadata(metadata.get(image_id, NO_METADATA), paths)
        by_pixel_hash[files_by_hash[hash_][0].image.pixel_hash].append(named)
    return by_pixel_hash


def build_edges(snapshot: Snapshot, keep_rules: KeepRules) -> list[Edge]:
    """Return the edges between images: verified ones, and SIMILAR ones that nothing has verified.

    UNRELATED pairs have no edge.
    """
    thresholds = snapshot.thresholds
    edges = []
    for pair in snapshot.verdicts.values():
        relation = Relation.UNRELATED
        if pair.verdict is not None:
            relation = decide_relation(
                pair.verdict,
                pair.score,
                thresholds.similar,
                thresholds.min_agreement,
                exposure_difference=snapshot.exposures.find_difference(pair.left, pair.right),
            )
        frames = snapshot.frames.get(pair.left), snapshot.frames.get(pair.right)
        relation = relate_frames(relation, *frames)
        if relation != Relation.UNRELATED:
            edges.append(Edge(pair.left, pair.right, relation, pair.score, pair.verdict))
    similar = dict[tuple[bytes, bytes], Edge]()
    for left, right, score in _iter_similar_pairs(snapshot, keep_rules):
        pair_key = _sort_pair(left, right)
        if pair_key not in snapshot.verdicts and pair_key not in similar:
            similar[pair_key] = Edge(*pair_key, Relation.SIMILAR, score)
    return [*edges, *similar.values()]


def _iter_similar_pairs(
    snapshot: Snapshot, keep_rules: KeepRules
) -> Iterator[tuple[bytes, bytes, float]]:
    """Yield (left, right, score) of pairs of images whose vectors reach the similar threshold.

    Images of one vector are pairs too, at a score of 1. If the model cannot tell many images
    apart, only the MAX_IMAGES_PER_VECTOR best by `keep_rules` meet all others, because the keeper
    is one of these. A pair may come twice.
    """
    images = snapshot.images_by_vector
    best = {vector: _select_best(hashes, snapshot, keep_rules) for vector, hashes in images.items()}
    similar = snapshot.thresholds.similar
    vector_pairs = [(*pair, score) for pair, score in snapshot.scores.items() if score >= similar]
    vector_pairs += [(vector, vector, 1.0) for vector, hashes in images.items() if len(hashes) > 1]
    for first, second, score in vector_pairs:
        if first in images and second in images:
            for left, right in chain(
                product(best[first], images[second]), product(images[first], best[second])
            ):
                if left != right:
                    yield left, right, score


def _select_best(
    pixel_hashes: Sequence[bytes], snapshot: Snapshot, keep_rules: KeepRules
) -> Sequence[bytes]:
    """Return the MAX_IMAGES_PER_VECTOR images that the keep rules rank first."""

    def get_rank_key(pixel_hash: bytes) -> tuple[Any, ...]:
        files = snapshot.files[pixel_hash]
        return min(keep_rules.make_rank_key(file, Provenance()) for file in files)

    if len(pixel_hashes) <= MAX_IMAGES_PER_VECTOR:
        return pixel_hashes
    return sorted(pixel_hashes, key=get_rank_key)[:MAX_IMAGES_PER_VECTOR]


def _sort_pair(left: bytes, right: bytes) -> tuple[bytes, bytes]:
    return (left, right) if left < right else (right, left)


def iter_scored_verdicts(
    store: Store, scores: Mapping[tuple[int, int], float], vector_by_pixel_hash: Mapping[bytes, int]
) -> Iterator[tuple[bytes, bytes, float, StoredVerdict]]:
    """Yield (left, right, score, verdict) of each verdict on two images that have a score.

    Images are given by pixel hash. `scores` are those of pairs of vectors, the smaller id first;
    two images of one vector score 1.
    Verdicts of a newer version come after older ones on the same pair.
    """
    for left, right, stored in store.catalog.verdicts.stream_with_pixel_hashes():
        left_vector, right_vector = vector_by_pixel_hash.get(left), vector_by_pixel_hash.get(right)
        if left == right or left_vector is None or right_vector is None:
            continue
        vectors = min(left_vector, right_vector), max(left_vector, right_vector)
        score = 1.0 if left_vector == right_vector else scores.get(vectors)
        if score is not None:
            yield left, right, score, stored


def score_crop_pairs(
    store: Store, scores: Mapping[tuple[int, int], float], floor: float
) -> dict[tuple[int, int], float]:
    """Return the cosines, below `floor`, of related pairs of vectors that are not among `scores`.

    These are pairs that a crop proposed: one image embedded in another, or cropped from it.
    `scores` are the candidates from the floor up; other pairs from there up are left out.
    """
    related = store.catalog.verdicts.find_related_vectors(UNREPORTED_RELATIONS)
    candidates = sorted(
        (left, right) for left, right in related.tolist() if (left, right) not in scores
    )
    vectors = {vector for pair in candidates for vector in pair}
    image_by_vector = {
        vector: image_id for image_id, vector in store.catalog.images.find_of_vectors(vectors)
    }
    pairs = [
        (left, right)
        for left, right in candidates
        if left in image_by_vector and right in image_by_vector
    ]
    if not pairs:
        return {}
    rows = store.search.get_vectors(list(image_by_vector.values()))
    left_rows, right_rows = (
        np.stack([rows[image_by_vector[pair[side]]] for pair in pairs]).astype(np.float16)
        for side in (0, 1)
    )
    cosines = compute_cosines(left_rows, right_rows).tolist()
    return {pair: score for pair, score in zip(pairs, cosines, strict=True) if score < floor}
