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

from indexes import Image, Parts, Space, Store, Thumbs, cosines
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import Decoders, usable_cores
from pipeline.decode.preprocess import SIGHT, View
from pipeline.decode.read import Failure, Recognised
from pipeline.embed.embedder import Embedder, embed
from pipeline.grouping.cluster import TOLD, Match, closest_first, exact, verified
from pipeline.grouping.keep_rules import Photo
from pipeline.query.groups import Limits, limits, photos_of
from pipeline.scan import NOTHING, SourceFile, stat_of
from pipeline.verify.verdict import FIRST, SECOND, UNKNOWN, UNRELATED, Evidence, evidence_of

if TYPE_CHECKING:
    from pipeline.thumbnails import Pictures
    from pipeline.verify.features import Sketch

BATCH = 32  # files that are embedded and searched together
SKETCHED = 100  # pictures whose sketches are held: up to 80 MB

_Sketched = Callable[[Iterable[int]], "list[tuple[Image, Sketch]]"]  # gives those of stored images


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store has of one file, best first; whether the file itself is one of the store's, and what a person should know of it; or
    why it could not be asked about.
    """

    file: str
    matches: tuple[Match, ...] = ()
    inside: bool = False
    notes: tuple[str, ...] = ()
    failure: Failure | None = None


def find_matches(
    files: Iterable[str],
    store: Store,
    embedder: Embedder,
    threshold: float | None = None,
    relations: Iterable[str] = TOLD,
    strictness: float | None = None,
) -> Iterator[Answer]:
    """For each file, inside the library or outside, what the store has of it: by relation, then by score; never itself.

    `threshold` and `strictness` are those of find_groups(). A file that is new is verified with each picture that it is close to. One whose
    content is known costs no decoding, and no model is loaded for it.
    """
    if store.space is None:
        yield from (Answer(file) for file in files)
        return
    remaining, wanted = iter(files), frozenset(relations)
    with Decoders() as decoders, ExitStack() as held:

        @cache
        def opened() -> tuple[Pictures, ThreadPoolExecutor]:
            from pipeline.thumbnails import Pictures  # loads OpenCV: only when something is to be verified

            thumbs = held.enter_context(Thumbs(store.folder, write=False))
            return Pictures(store, thumbs, decoders), held.enter_context(ThreadPoolExecutor(usable_cores()))

        def load_sketches(images: Iterable[int]) -> list[tuple[Image, Sketch]]:
            pictures, pool = opened()
            from pipeline.thumbnails import shown
            from pipeline.verify.features import features
            from pipeline.verify.inputs import sketch_of, sketched

            found, _ = sketched(pictures, images, lambda some: list(pool.map(lambda picture: features(shown(picture)), some)))
            return [(image, sketch_of(image, thumb)) for image, thumb in found.values()]

        while some := list(islice(remaining, BATCH)):
            yield from _answers(some, store, embedder, decoders, load_sketches, (threshold, strictness), wanted)


@dataclass
class _Asked:
    """A file that is being asked about: its image, the id of that image if it is stored, its pixels or vector, and what it is near to."""

    source: SourceFile
    image: Image
    stored: int | None = None
    view: NDArray[np.uint8] | None = None
    vector: NDArray[np.float32] | None = None
    near: dict[int, float] = field(default_factory=dict)  # stored images with their scores
    sight: NDArray[np.uint8] | None = None  # its pixels as a thumb has them, once they were asked for
    parts: NDArray[np.float32] | None = None  # vectors of its parts, where it is large
    evidence: dict[bytes, Evidence] = field(default_factory=dict)  # about it and the pictures, by pixels, that were verified with it


def _answers(
    files: Sequence[str],
    store: Store,
    embedder: Embedder,
    decoders: Decoders,
    sketched: _Sketched,
    given: tuple[float | None, float | None],
    relations: Collection[str],
) -> Iterator[Answer]:
    found = _identify(files, store, embedder, decoders)
    asked = [one for one in found if isinstance(one, _Asked)]
    fresh = [one for one in asked if one.stored is None and not one.image.featureless]
    if fresh:
        store.require(embedder.space)
        for one, row in zip(fresh, embed(embedder, [one.view for one in fresh if one.view is not None]), strict=True):
            one.vector = row
    if fresh and limits(store, embedder.space, *given).inside:
        _see_parts(fresh, store, embedder, decoders)
    with store.catalog.snapshot():
        space = store.space
        if fresh:
            store.require(embedder.space)  # a migration may have ended meanwhile
        vectors = store.vectors([one.stored for one in asked if one.stored is not None])
        for one in asked:
            if one.stored is not None:
                one.vector = vectors.get(one.stored)
                one.evidence = _known(store, one.image.pixels)
        within = limits(store, space, *given) if space else Limits(1.0, 1.0, 0.0)
        comparable = [one for one in asked if one.vector is not None]
        if comparable:
            hits = store.within(np.stack([one.vector for one in comparable if one.vector is not None]), within.lowest)
            for number, image, score in zip(hits.left.tolist(), hits.right.tolist(), hits.score.tolist(), strict=True):
                comparable[number].near[image] = score
        if within.inside and space:
            _add_inside(store, space, comparable)
        for one in asked:
            one.near.update(dict.fromkeys(store.catalog.images_with_pixels(one.image.pixels), 1.0))
        photos = photos_of(store, list({image for one in asked for image in one.near}))
    _look(fresh, photos, store, decoders, sketched)
    for file, each in zip(files, found, strict=True):
        if isinstance(each, Failure):
            yield Answer(file, failure=each)
        else:
            yield _answer(file, each, photos, within, relations)


def _known(store: Store, pixels: bytes) -> dict[bytes, Evidence]:
    """What was found of a picture and others, by their pixels, with itself as the first."""
    found = dict[bytes, Evidence]()
    for first, second, judged in store.catalog.evidence_about(pixels):
        evidence = evidence_of(judged)
        found[second if first == pixels else first] = evidence if first == pixels else evidence.turned_round()
    return found


def _look(fresh: Sequence[_Asked], photos: Mapping[int, Sequence[Photo]], store: Store, decoders: Decoders, sketched: _Sketched) -> None:
    """Verify files that are new with the pictures that they are close to."""
    close = [[id_ for id_ in one.near if id_ in photos and not exact(photos[id_][0].image, one.image)] for one in fresh]
    wanted = [one for one, near in zip(fresh, close, strict=True) if near]
    if not wanted:
        return
    from pipeline.verify.features import sketch
    from pipeline.verify.verify import verify

    _see(wanted, decoders)
    for one, near in zip(wanted, (near for near in close if near), strict=True):
        if one.sight is not None:
            mine = sketch(one.sight, (one.image.width, one.image.height))
            for start in range(0, len(near), SKETCHED):
                one.evidence |= {image.pixels: verify(mine, other) for image, other in sketched(near[start : start + SKETCHED])}
    _look_close(wanted, {id_: photos[id_][0].image for near in close for id_ in near}, store, decoders)


def _look_close(asked: Sequence[_Asked], near: Mapping[int, Image], store: Store, decoders: Decoders) -> None:
    """See whether files, or the stored images `near` to them that they are copies of, were only enlarged."""
    from pipeline.thumbnails import read_images
    from pipeline.verify.upscaling import CLOSE, detailed, larger, seen

    for one, view in _read([one for one in asked if FIRST in map(larger, one.evidence.values())], CLOSE, decoders):
        detail = seen(view, (one.image.width, one.image.height))
        one.evidence = {pixels: detailed(evidence, FIRST, detail) for pixels, evidence in one.evidence.items()}
    larger_than = {pixels for one in asked for pixels, evidence in one.evidence.items() if larger(evidence) == SECOND}
    stored = {image.pixels: id_ for id_, image in near.items() if image.pixels in larger_than}
    for id_, result in read_images(store, decoders, {id_: near[id_] for id_ in stored.values()}, CLOSE):
        if isinstance(result, Decoded):
            image = near[id_]
            detail = seen(result.view, (image.width, image.height))
            for one in asked:
                if image.pixels in one.evidence:
                    one.evidence[image.pixels] = detailed(one.evidence[image.pixels], SECOND, detail)


def _see(asked: Sequence[_Asked], decoders: Decoders) -> None:
    """Read files to look at their pixels; those that changed meanwhile are not seen."""
    from pipeline.thumbnails import shown, thumb

    for one, view in _read([one for one in asked if one.sight is None], SIGHT, decoders):
        one.sight = shown(thumb(view))


def _read(asked: Sequence[_Asked], view: View, decoders: Decoders) -> Iterator[tuple[_Asked, NDArray[np.uint8]]]:
    """Files as a view shows them, but for those that changed since they were identified."""
    with closing(decoders.stream([one.source for one in asked], view)) as stream:
        for one, decoded in zip(asked, stream, strict=True):
            if isinstance(decoded, Decoded) and decoded.image.hash == one.image.hash:
                yield one, decoded.view


def _see_parts(fresh: Sequence[_Asked], store: Store, embedder: Embedder, decoders: Decoders) -> None:
    """Embed the parts of files that are new, where the store has some of its pictures to compare them with."""
    with Parts(store.folder, embedder.space, write=False) as parts:
        if not parts.are_compared:
            return
    from pipeline.embed.crops import embedded

    _see(fresh, decoders)
    seen = [one for one in fresh if one.sight is not None]
    told = embedded([(one.image, one.sight) for one in seen if one.sight is not None], embedder)
    for one, rows in zip(seen, told, strict=True):
        one.parts = rows


def _add_inside(store: Store, space: Space, asked: Sequence[_Asked]) -> None:
    """Add to what files are near to what lies within them, and what they lie within: of stored ones, what was found of them."""
    fresh = [one for one in asked if one.stored is None]
    far: list[tuple[_Asked, set[int]]] = []
    for one in asked:
        if one.stored is not None:
            others = [pixels for pixels, evidence in one.evidence.items() if evidence.relation not in (UNRELATED, UNKNOWN)]
            far.append((one, {image for pixels in others for image in store.catalog.images_with_pixels(pixels)}))
    with Parts(store.folder, space, write=False) as parts:
        if fresh and parts.are_compared:
            from pipeline.embed.crops import near

            far += zip(fresh, near(store, parts, [(one.vector, one.parts) for one in fresh if one.vector is not None]), strict=True)
    for one, images in far:
        rows = store.vectors(sorted(images - one.near.keys()))
        if rows and one.vector is not None:
            stacked = np.stack(list(rows.values())).astype(np.float16)
            scores = cosines(np.broadcast_to(one.vector.astype(np.float16), stacked.shape), stacked)
            one.near.update(zip(rows, scores.tolist(), strict=True))


def _identify(files: Sequence[str], store: Store, embedder: Embedder, decoders: Decoders) -> list[_Asked | Failure]:
    """The stored image that each file holds, by its path if it is unchanged, else by its bytes; or its picture, when the bytes are new."""
    lock = Lock()  # one connection to the catalog, and one model, for all threads that read

    def is_new(hash_: bytes) -> bool:
        with lock:
            return not store.catalog.image_ids([hash_])

    def view() -> View:  # may cost loading the model: only asked for pictures that are new, and while no snapshot is open
        with lock:
            return embedder.view

    found: list[_Asked | Failure | None] = []
    unread: dict[int, SourceFile] = {}
    with store.catalog.snapshot():
        for number, file in enumerate(files):
            source = listed(file)
            known = store.catalog.known(source.path) if isinstance(source, SourceFile) else None
            if isinstance(source, Failure):
                found.append(source)
            elif known and known.image is not None and source.stat.unchanged(known.stat):
                found.append(_stored(source, store, known.image))
            else:
                found.append(None)
                unread[number] = source
    with closing(decoders.stream(unread.values(), view, is_new)) as stream:
        read = dict(zip(unread, stream, strict=True))
    known_hashes = [one.hash for one in read.values() if isinstance(one, Recognised)]
    with store.catalog.snapshot():
        images = store.catalog.image_ids(known_hashes)
        for number, one in read.items():
            if isinstance(one, Recognised) and one.hash in images:
                found[number] = _stored(one.source, store, images[one.hash])
    for number, one in read.items():
        if found[number] is None:
            if isinstance(one, Recognised):  # an ingest has let go of it since
                one = decoders.decode(one.source, view)
                assert not isinstance(one, Recognised)  # it was not told of any known content
            found[number] = one if isinstance(one, Failure) else _Asked(one.source, one.image, view=one.view)
    return [one for one in found if one is not None]


def listed(file: str) -> SourceFile | Failure:
    """A file as it is on disk."""
    path = file
    try:
        path = os.path.realpath(file)
        status = os.stat(path)  # noqa: PTH116 - a path that may be no UTF-8, as it was given
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return Failure(SourceFile(path, NOTHING), "unreadable", getattr(error, "strerror", None) or str(error))
    source = SourceFile(path, stat_of(status))
    return source if stat.S_ISREG(status.st_mode) else Failure(source, "not a photo", "no regular file")


def _stored(source: SourceFile, store: Store, image: int) -> _Asked:
    return _Asked(source, dict(store.catalog.images([image]))[image], image)


def _answer(file: str, asked: _Asked, photos: Mapping[int, Sequence[Photo]], within: Limits, relations: Collection[str]) -> Answer:
    inside, matches = False, []
    for id_, score in asked.near.items():
        for photo in photos.get(id_, ()):
            if _same_file(photo, asked):
                inside = True
                continue
            evidence = asked.evidence.get(photo.image.pixels)
            relation = exact(photo.image, asked.image) or verified(evidence, score, within.least, within.strictness)
            if relation in relations:
                matches.append(Match(photo, relation, score, evidence))
    matches.sort(key=closest_first)
    return Answer(file, tuple(matches), inside, asked.image.notes)


def _same_file(photo: Photo, asked: _Asked) -> bool:
    linked = (photo.stat.inode, photo.stat.device) == (asked.source.stat.inode, asked.source.stat.device)
    # Both numbers are given again to other files, once a file is deleted or a drive is away.
    return photo.path == asked.source.path or (linked and not photo.missing and photo.image.hash == asked.image.hash)
