"""STAGE 2 for one file, from inside the library or outside: what the store has of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.records import Image, Space
from indexes.store import Store
from indexes.vectors.segments import cosines
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool, count_usable_cores
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from pipeline.decode.read import AlreadyStored, Failure
from pipeline.embed.embedder import Embedder, embed
from pipeline.grouping.cluster import Match, exact_relation, match_rank_key, relation_of
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.query.groups import Thresholds, load_files, resolve_thresholds
from pipeline.scan import UNKNOWN_STAT, SourceFile, to_file_stat
from pipeline.verify.relation import QUERY_RELATIONS, Relation, Side
from pipeline.verify.verdict import Verdict, decode_verdict

if TYPE_CHECKING:
    from pipeline.thumbnails import Thumbnails
    from pipeline.verify.features import ImageFeatures

FILES_PER_BATCH = 32  # files that are embedded and searched together
MAX_IMAGES_IN_MEMORY = 100  # pictures whose sketches are held: up to 80 MB

_FeatureLoader = Callable[
    [Iterable[int]], "list[tuple[Image, ImageFeatures]]"
]  # gives those of stored images


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store has of one file, best first; whether the file itself is one of the store's, and what a person should know of it; or
    why it could not be asked about.
    """

    file: str
    matches: tuple[Match, ...] = ()
    in_library: bool = False
    flags: tuple[str, ...] = ()
    failure: Failure | None = None


def find_matches(
    files: Iterable[str],
    store: Store,
    embedder: Embedder,
    threshold: float | None = None,
    relations: Iterable[Relation] = QUERY_RELATIONS,
    min_agreement: float | None = None,
) -> Iterator[Answer]:
    """For each file, inside the library or outside, what the store has of it: by relation, then by score; never itself.

    `threshold` and `strictness` are those of find_groups(). A file that is new is verified with each picture that it is close to. One whose
    content is known costs no decoding, and no model is loaded for it.
    """
    if store.space is None:
        yield from (Answer(file) for file in files)
        return
    remaining, wanted = iter(files), frozenset(relations)
    with DecoderPool() as decoders, ExitStack() as held:

        @cache
        def open_thumbnails() -> tuple[Thumbnails, ThreadPoolExecutor]:
            from pipeline.thumbnails import (
                Thumbnails,
            )  # loads OpenCV: only when something is to be verified

            thumbs = held.enter_context(ThumbnailCache(store.folder, write=False))
            return Thumbnails(store, thumbs, decoders), held.enter_context(
                ThreadPoolExecutor(count_usable_cores())
            )

        def load_stored_features(image_ids: Iterable[int]) -> list[tuple[Image, ImageFeatures]]:
            pictures, pool = open_thumbnails()
            from pipeline.thumbnails import decode_thumbnail
            from pipeline.verify.features import extract_features
            from pipeline.verify.inputs import features_from_stored_image, load_features

            found, _ = load_features(
                pictures,
                image_ids,
                lambda some: list(
                    pool.map(lambda picture: extract_features(decode_thumbnail(picture)), some)
                ),
            )
            return [
                (image, features_from_stored_image(image, thumb)) for image, thumb in found.values()
            ]

        while some := list(islice(remaining, FILES_PER_BATCH)):
            yield from _answer_batch(
                some,
                store,
                embedder,
                decoders,
                load_stored_features,
                (threshold, min_agreement),
                wanted,
            )


@dataclass
class _Query:
    """A file that is being asked about: its image, the id of that image if it is stored, its pixels or vector, and what it is near to."""

    source: SourceFile
    image: Image
    image_id: int | None = None
    model_input: NDArray[np.uint8] | None = None
    vector: NDArray[np.float32] | None = None
    neighbors: dict[int, float] = field(default_factory=dict)  # stored images with their scores
    thumbnail_pixels: NDArray[np.uint8] | None = (
        None  # its pixels as a thumb has them, once they were asked for
    )
    crop_vectors: NDArray[np.float32] | None = None  # vectors of its parts, where it is large
    verdicts: dict[bytes, Verdict] = field(
        default_factory=dict
    )  # about it and the pictures, by pixels, that were verified with it


def _answer_batch(
    files: Sequence[str],
    store: Store,
    embedder: Embedder,
    decoders: DecoderPool,
    load_stored_features: _FeatureLoader,
    requested_thresholds: tuple[float | None, float | None],
    relations: Collection[Relation],
) -> Iterator[Answer]:
    found = _identify_files(files, store, embedder, decoders)
    asked = [one for one in found if isinstance(one, _Query)]
    fresh = [one for one in asked if one.image_id is None and not one.image.is_featureless]
    if fresh:
        store.require_space(embedder.space)
        for one, row in zip(
            fresh,
            embed(embedder, [one.model_input for one in fresh if one.model_input is not None]),
            strict=True,
        ):
            one.vector = row
    if fresh and resolve_thresholds(store, embedder.space, *requested_thresholds).with_crops:
        _embed_query_crops(fresh, store, embedder, decoders)
    with store.catalog.snapshot():
        space = store.space
        if fresh:
            store.require_space(embedder.space)  # a migration may have ended meanwhile
        vectors = store.get_vectors([one.image_id for one in asked if one.image_id is not None])
        for one in asked:
            if one.image_id is not None:
                one.vector = vectors.get(one.image_id)
                one.verdicts = _load_verdicts(store, one.image.pixel_hash)
        within = (
            resolve_thresholds(store, space, *requested_thresholds)
            if space
            else Thresholds(1.0, 1.0, 0.0)
        )
        comparable = [one for one in asked if one.vector is not None]
        if comparable:
            hits = store.find_within(
                np.stack([one.vector for one in comparable if one.vector is not None]),
                within.search,
            )
            for number, image, score in zip(
                hits.left.tolist(), hits.right.tolist(), hits.score.tolist(), strict=True
            ):
                comparable[number].neighbors[image] = score
        if within.with_crops and space:
            _add_crop_neighbors(store, space, comparable)
        for one in asked:
            one.neighbors.update(
                dict.fromkeys(store.catalog.images.find_by_pixel_hash(one.image.pixel_hash), 1.0)
            )
        photos = load_files(store, list({image for one in asked for image in one.neighbors}))
    _verify_new_files(fresh, photos, store, decoders, load_stored_features)
    for file, each in zip(files, found, strict=True):
        if isinstance(each, Failure):
            yield Answer(file, failure=each)
        else:
            yield _build_answer(file, each, photos, within, relations)


def _load_verdicts(store: Store, pixel_hash: bytes) -> dict[bytes, Verdict]:
    """What was found of a picture and others, by their pixels, with itself as the first."""
    found = dict[bytes, Verdict]()
    for first, second, judged in store.catalog.verdicts.find_of_image(pixel_hash):
        evidence = decode_verdict(judged)
        found[second if first == pixel_hash else first] = (
            evidence if first == pixel_hash else evidence.swap_sides()
        )
    return found


def _verify_new_files(
    new_queries: Sequence[_Query],
    files_by_image: Mapping[int, Sequence[LibraryFile]],
    store: Store,
    decoders: DecoderPool,
    load_stored_features: _FeatureLoader,
) -> None:
    """Verify files that are new with the pictures that they are close to."""
    close = [
        [
            id_
            for id_ in one.neighbors
            if id_ in files_by_image and not exact_relation(files_by_image[id_][0].image, one.image)
        ]
        for one in new_queries
    ]
    wanted = [one for one, near in zip(new_queries, close, strict=True) if near]
    if not wanted:
        return
    from pipeline.verify.features import features_from_pixels
    from pipeline.verify.verify import verify

    _load_thumbnail_pixels(wanted, decoders)
    for one, near in zip(wanted, (near for near in close if near), strict=True):
        if one.thumbnail_pixels is not None:
            mine = features_from_pixels(one.thumbnail_pixels, (one.image.width, one.image.height))
            for start in range(0, len(near), MAX_IMAGES_IN_MEMORY):
                one.verdicts |= {
                    image.pixel_hash: verify(mine, other)
                    for image, other in load_stored_features(
                        near[start : start + MAX_IMAGES_IN_MEMORY]
                    )
                }
    _check_upscaling(
        wanted,
        {id_: files_by_image[id_][0].image for near in close for id_ in near},
        store,
        decoders,
    )


def _check_upscaling(
    queries: Sequence[_Query],
    neighbor_images: Mapping[int, Image],
    store: Store,
    decoders: DecoderPool,
) -> None:
    """See whether files, or the stored images `near` to them that they are copies of, were only enlarged."""
    from pipeline.thumbnails import read_images
    from pipeline.verify.upscaling import (
        CENTER_FULL_RES,
        larger_side,
        radial_spectrum,
        with_upscaling,
    )

    for one, view in _decode_unchanged_files(
        [one for one in queries if Side.FIRST in map(larger_side, one.verdicts.values())],
        CENTER_FULL_RES,
        decoders,
    ):
        detail = radial_spectrum(view, (one.image.width, one.image.height))
        one.verdicts = {
            pixels: with_upscaling(evidence, Side.FIRST, detail)
            for pixels, evidence in one.verdicts.items()
        }
    larger_than = {
        pixels
        for one in queries
        for pixels, evidence in one.verdicts.items()
        if larger_side(evidence) == Side.SECOND
    }
    stored = {
        image.pixel_hash: id_
        for id_, image in neighbor_images.items()
        if image.pixel_hash in larger_than
    }
    for id_, result in read_images(
        store, decoders, {id_: neighbor_images[id_] for id_ in stored.values()}, CENTER_FULL_RES
    ):
        if isinstance(result, Decoded):
            image = neighbor_images[id_]
            detail = radial_spectrum(result.pixels, (image.width, image.height))
            for one in queries:
                if image.pixel_hash in one.verdicts:
                    one.verdicts[image.pixel_hash] = with_upscaling(
                        one.verdicts[image.pixel_hash], Side.SECOND, detail
                    )


def _load_thumbnail_pixels(queries: Sequence[_Query], decoders: DecoderPool) -> None:
    """Read files to look at their pixels; those that changed meanwhile are not seen."""
    from pipeline.thumbnails import decode_thumbnail, encode_thumbnail

    for one, view in _decode_unchanged_files(
        [one for one in queries if one.thumbnail_pixels is None], VERIFY_INPUT, decoders
    ):
        one.thumbnail_pixels = decode_thumbnail(encode_thumbnail(view))


def _decode_unchanged_files(
    queries: Sequence[_Query], preprocess: Preprocess, decoders: DecoderPool
) -> Iterator[tuple[_Query, NDArray[np.uint8]]]:
    """Files as a view shows them, but for those that changed since they were identified."""
    with closing(decoders.stream([one.source for one in queries], preprocess)) as stream:
        for one, decoded in zip(queries, stream, strict=True):
            if isinstance(decoded, Decoded) and decoded.image.hash == one.image.hash:
                yield one, decoded.pixels


def _embed_query_crops(
    new_queries: Sequence[_Query], store: Store, embedder: Embedder, decoders: DecoderPool
) -> None:
    """Embed the parts of files that are new, where the store has some of its pictures to compare them with."""
    with CropCache(store.folder, embedder.space, write=False) as parts:
        if not parts.has_compared_images:
            return
    from pipeline.embed.crops import embed_crops

    _load_thumbnail_pixels(new_queries, decoders)
    seen = [one for one in new_queries if one.thumbnail_pixels is not None]
    told = embed_crops(
        [(one.image, one.thumbnail_pixels) for one in seen if one.thumbnail_pixels is not None],
        embedder,
    )
    for one, rows in zip(seen, told, strict=True):
        one.crop_vectors = rows


def _add_crop_neighbors(store: Store, space: Space, queries: Sequence[_Query]) -> None:
    """Add to what files are near to what lies within them, and what they lie within: of stored ones, what was found of them."""
    fresh = [one for one in queries if one.image_id is None]
    far: list[tuple[_Query, set[int]]] = []
    for one in queries:
        if one.image_id is not None:
            others = [
                pixels
                for pixels, evidence in one.verdicts.items()
                if evidence.relation not in (Relation.UNRELATED, Relation.NOT_VERIFIABLE)
            ]
            far.append(
                (
                    one,
                    {
                        image
                        for pixels in others
                        for image in store.catalog.images.find_by_pixel_hash(pixels)
                    },
                )
            )
    with CropCache(store.folder, space, write=False) as parts:
        if fresh and parts.has_compared_images:
            from pipeline.embed.crops import match_crops

            far += zip(
                fresh,
                match_crops(
                    store,
                    parts,
                    [(one.vector, one.crop_vectors) for one in fresh if one.vector is not None],
                ),
                strict=True,
            )
    for one, images in far:
        rows = store.get_vectors(sorted(images - one.neighbors.keys()))
        if rows and one.vector is not None:
            stacked = np.stack(list(rows.values())).astype(np.float16)
            scores = cosines(np.broadcast_to(one.vector.astype(np.float16), stacked.shape), stacked)
            one.neighbors.update(zip(rows, scores.tolist(), strict=True))


def _identify_files(
    files: Sequence[str], store: Store, embedder: Embedder, decoders: DecoderPool
) -> list[_Query | Failure]:
    """The stored image that each file holds, by its path if it is unchanged, else by its bytes; or its picture, when the bytes are new."""
    lock = Lock()  # one connection to the catalog, and one model, for all threads that read

    def is_new(hash_: bytes) -> bool:
        with lock:
            return not store.catalog.images.get_ids([hash_])

    def get_preprocess() -> (
        Preprocess
    ):  # may cost loading the model: only asked for pictures that are new, and while no snapshot is open
        with lock:
            return embedder.preprocess

    found: list[_Query | Failure | None] = []
    unread: dict[int, SourceFile] = {}
    with store.catalog.snapshot():
        for number, file in enumerate(files):
            source = resolve_source(file)
            known = (
                store.catalog.files.get_by_path(source.path)
                if isinstance(source, SourceFile)
                else None
            )
            if isinstance(source, Failure):
                found.append(source)
            elif (
                known and known.image_id is not None and source.stat.is_unchanged_since(known.stat)
            ):
                found.append(_load_stored_query(source, store, known.image_id))
            else:
                found.append(None)
                unread[number] = source
    with closing(decoders.stream(unread.values(), get_preprocess, is_new)) as stream:
        read = dict(zip(unread, stream, strict=True))
    known_hashes = [one.hash for one in read.values() if isinstance(one, AlreadyStored)]
    with store.catalog.snapshot():
        images = store.catalog.images.get_ids(known_hashes)
        for number, one in read.items():
            if isinstance(one, AlreadyStored) and one.hash in images:
                found[number] = _load_stored_query(one.source, store, images[one.hash])
    for number, one in read.items():
        if found[number] is None:
            if isinstance(one, AlreadyStored):  # an ingest has let go of it since
                one = decoders.decode(one.source, get_preprocess)
                assert not isinstance(one, AlreadyStored)  # it was not told of any known content
            found[number] = (
                one
                if isinstance(one, Failure)
                else _Query(one.source, one.image, model_input=one.pixels)
            )
    return [one for one in found if one is not None]


def resolve_source(file: str) -> SourceFile | Failure:
    """A file as it is on disk."""
    path = file
    try:
        path = os.path.realpath(file)
        status = os.stat(path)  # noqa: PTH116 - a path that may be no UTF-8, as it was given
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return Failure(
            SourceFile(path, UNKNOWN_STAT),
            "unreadable",
            getattr(error, "strerror", None) or str(error),
        )
    source = SourceFile(path, to_file_stat(status))
    return (
        source
        if stat.S_ISREG(status.st_mode)
        else Failure(source, "not a photo", "no regular file")
    )


def _load_stored_query(source: SourceFile, store: Store, image_id: int) -> _Query:
    return _Query(source, dict(store.catalog.images.get([image_id]))[image_id], image_id)


def _build_answer(
    path: str,
    query: _Query,
    files_by_image: Mapping[int, Sequence[LibraryFile]],
    thresholds: Thresholds,
    relations: Collection[Relation],
) -> Answer:
    inside, matches = False, []
    for id_, score in query.neighbors.items():
        for photo in files_by_image.get(id_, ()):
            if _is_same_file(photo, query):
                inside = True
                continue
            evidence = query.verdicts.get(photo.image.pixel_hash)
            relation = exact_relation(photo.image, query.image) or relation_of(
                evidence, score, thresholds.similar, thresholds.min_agreement
            )
            if relation in relations:
                matches.append(Match(photo, relation, score, evidence))
    matches.sort(key=match_rank_key)
    return Answer(path, tuple(matches), inside, query.image.flags)


def _is_same_file(file: LibraryFile, query: _Query) -> bool:
    linked = (file.stat.inode, file.stat.device) == (
        query.source.stat.inode,
        query.source.stat.device,
    )
    # Both numbers are given again to other files, once a file is deleted or a drive is away.
    return file.path == query.source.path or (
        linked and not file.is_missing and file.image.hash == query.image.hash
    )
