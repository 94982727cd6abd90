"""The part of a store that groups are made of, loaded in one catalog snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from indexes.catalog.verdicts import StoredVerdict
from indexes.metadata import NO_METADATA, Frames
from indexes.store import Store
from pipeline.decided import load_decisions
from pipeline.grouping.decisions import NO_DECISIONS, Decisions
from pipeline.grouping.exposures import Exposures, NamedMetadata
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.query.decided_pairs import (
    find_decided_images,
    find_decided_verdicts,
    score_same_pairs,
)
from pipeline.query.files import load_files
from pipeline.query.thresholds import Thresholds
from pipeline.verify.relation import UNREPORTED_RELATIONS, Relation
from pipeline.verify.verdict import Verdict, decode_verdict


def keep_status(file: LibraryFile) -> LibraryFile:
    """Return a file with its status at the last ingest."""
    return file


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
    `frames` those of the pairs with an animation or a document. `same_scores` holds the cosine of
    images that are decided to be the same. Decided images without a file have verdicts all the
    same, to tell which images are copies of them.
    """

    thresholds: Thresholds
    files: Mapping[bytes, Sequence[LibraryFile]]
    images_by_vector: Mapping[int, Sequence[bytes]]
    scores: Mapping[tuple[int, int], float]
    verdicts: Mapping[tuple[bytes, bytes], ScoredVerdict]
    exposures: Exposures = field(default_factory=lambda: Exposures({}))
    frames: Mapping[bytes, Frames] = field(default_factory=dict)
    decisions: Decisions = NO_DECISIONS
    same_scores: Mapping[tuple[bytes, bytes], float] = field(default_factory=dict)


def load_snapshot(
    store: Store,
    thresholds: Thresholds,
    folders: Sequence[str] = (),
    refresh_status: Callable[[LibraryFile], LibraryFile] = keep_status,
) -> Snapshot:
    """Load what groups are made of; with `folders`, only files below these.

    An image without a scored pair is loaded only if it may have an exact copy, or if a decision is
    about it.
    """
    with store.catalog.snapshot():
        decisions = load_decisions(store)
        scores = store.search.find_candidates(thresholds.search).to_dict()
        if thresholds.with_crops:
            scores |= score_crop_pairs(store, scores, thresholds.search)
        vector_by_image = dict(store.catalog.images.find_with_copies())
        scored_vectors = {vector for pair in scores for vector in pair}
        vector_by_image |= store.catalog.images.find_of_vectors(scored_vectors)
        decided_images = find_decided_images(store, decisions)
        vector_by_image |= decided_images
        files = defaultdict[bytes, list[LibraryFile]](list)
        vector_by_pixel_hash = dict[bytes, int]()
        for image_id, image_files in load_files(store, list(vector_by_image), folders).items():
            pixel_hash, vector = image_files[0].image.pixel_hash, vector_by_image[image_id]
            files[pixel_hash] += map(refresh_status, image_files)
            if vector is not None:
                vector_by_pixel_hash[pixel_hash] = vector
        images_by_vector = defaultdict[int, list[bytes]](list)
        for pixel_hash, vector in vector_by_pixel_hash.items():
            images_by_vector[vector].append(pixel_hash)
        for image_id, image in store.catalog.images.get(decided_images):
            if (vector := decided_images[image_id]) is not None:
                vector_by_pixel_hash.setdefault(image.pixel_hash, vector)
        stored = store.catalog.verdicts.stream_with_pixel_hashes()
        verdicts = _load_verdicts(stored, scores, vector_by_pixel_hash)
        return _complete_snapshot(
            store,
            Snapshot(thresholds, files, images_by_vector, scores, verdicts, decisions=decisions),
            vector_by_pixel_hash,
        )


def load_linked_snapshot(
    store: Store,
    thresholds: Thresholds,
    links: Mapping[tuple[bytes, bytes], float],
    pixel_hashes: Collection[bytes],
    refresh_status: Callable[[LibraryFile], LibraryFile] = keep_status,
) -> Snapshot:
    """Load what the groups of these images are made of, which nothing links to any other image.

    `links` are the cosines of those pairs of images that an edge connected when all were loaded.
    """
    with store.catalog.snapshot():
        decisions = load_decisions(store)
        image_ids = dict(store.catalog.images.find_of_pixel_hashes(pixel_hashes))
        vector_by_image = store.catalog.vectors.find_of_images(image_ids)
        files = defaultdict[bytes, list[LibraryFile]](list)
        for image_id, image_files in load_files(store, sorted(image_ids)).items():
            files[image_ids[image_id]] += map(refresh_status, image_files)
        decided = {content.pixel_hash for item in decisions.all for content in item.contents}
        decided |= {
            image_ids[id_]
            for id_ in store.catalog.decisions.find_images().values()
            if id_ in image_ids
        }
        vector_by_pixel_hash = dict[bytes, int]()
        for image_id, pixel_hash in image_ids.items():
            vector = vector_by_image[image_id]
            if vector is not None and (pixel_hash in files or pixel_hash in decided):
                vector_by_pixel_hash[pixel_hash] = vector
        images_by_vector = defaultdict[int, list[bytes]](list)
        for pixel_hash in files:
            if (vector := vector_by_pixel_hash.get(pixel_hash)) is not None:
                images_by_vector[vector].append(pixel_hash)
        scores = _convert_links(links, vector_by_pixel_hash)
        stored = (
            verdict
            for pixel_hash in pixel_hashes
            for verdict in store.catalog.verdicts.find_of_image(pixel_hash)
        )
        verdicts = _load_verdicts(stored, scores, vector_by_pixel_hash)
        return _complete_snapshot(
            store,
            Snapshot(thresholds, files, images_by_vector, scores, verdicts, decisions=decisions),
            vector_by_pixel_hash,
        )


def _convert_links(
    links: Mapping[tuple[bytes, bytes], float], vector_by_pixel_hash: Mapping[bytes, int]
) -> dict[tuple[int, int], float]:
    """Return the cosine of each two vectors of linked images, the smaller id first."""
    scores = dict[tuple[int, int], float]()
    for (left, right), score in links.items():
        first, second = vector_by_pixel_hash.get(left), vector_by_pixel_hash.get(right)
        if first is not None and second is not None and first != second:
            scores[min(first, second), max(first, second)] = score
    return scores


def _complete_snapshot(
    store: Store, snapshot: Snapshot, vector_by_pixel_hash: Mapping[bytes, int]
) -> Snapshot:
    """Add what decisions ask for and what metadata tells of the pairs of a snapshot."""
    decisions, verdicts = snapshot.decisions, dict(snapshot.verdicts)
    for found in find_decided_verdicts(store, decisions, vector_by_pixel_hash):
        verdicts.setdefault(sort_pair(*found[:2]), _decode(*found))
    same_scores = score_same_pairs(store, decisions, vector_by_pixel_hash)
    metadata = _load_metadata(store, snapshot.files, verdicts.values())
    frames = {
        pixel_hash: record.metadata.frames
        for pixel_hash, records in metadata.items()
        for record in records
        if record.metadata.frames
    }
    return replace(
        snapshot,
        verdicts=verdicts,
        exposures=Exposures(metadata),
        frames=frames,
        same_scores=same_scores,
    )


def _load_verdicts(
    stored: Iterable[tuple[bytes, bytes, StoredVerdict]],
    scores: Mapping[tuple[int, int], float],
    vector_by_pixel_hash: Mapping[bytes, int],
) -> dict[tuple[bytes, bytes], ScoredVerdict]:
    """Load the newest verdict on each pair of images that has a score."""
    found = iter_scored_verdicts(stored, scores, vector_by_pixel_hash)
    return {sort_pair(*item[:2]): _decode(*item) for item in found}


def _decode(left: bytes, right: bytes, score: float, stored: StoredVerdict) -> ScoredVerdict:
    # Most pairs are unrelated, and decoding is what takes time.
    is_related = stored.relation != Relation.UNRELATED
    return ScoredVerdict(left, right, score, decode_verdict(stored) if is_related else None)


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


def sort_pair(left: bytes, right: bytes) -> tuple[bytes, bytes]:
    """Return two images, by pixel hash, with the smaller hash first."""
    return (left, right) if left < right else (right, left)


def iter_scored_verdicts(
    stored_verdicts: Iterable[tuple[bytes, bytes, StoredVerdict]],
    scores: Mapping[tuple[int, int], float],
    vector_by_pixel_hash: Mapping[bytes, int],
) -> Iterator[tuple[bytes, bytes, float, StoredVerdict]]:
    """Yield (left, right, score, verdict) of each verdict on two images that have a score.

    Images are given by pixel hash. `scores` are those of pairs of vectors, the smaller id first;
    two images of one vector score 1. The order is that of the verdicts: newer versions come after
    older ones on the same pair.
    """
    for left, right, stored in stored_verdicts:
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
    in_use = {vector for _, vector in store.catalog.images.find_of_vectors(vectors)}
    pairs = [pair for pair in candidates if in_use.issuperset(pair)]
    cosines = store.search.score_vector_pairs(pairs)
    return {pair: score for pair, score in zip(pairs, cosines, strict=True) if score < floor}
