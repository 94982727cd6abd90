"""STAGE 2: every stored pair at or above a threshold -> groups; and the same question for one file, or between a few."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations, islice
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from indexes import Image, Known, Scored, Store, cosines
from pipeline.cluster import SIMILAR, Group, Match, Photo, closest_first, group, relation
from pipeline.decoders import Decoders
from pipeline.embedder import Embedder, embed
from pipeline.missing import is_below
from pipeline.reading import Failure, Recognised
from pipeline.scan import NOTHING, SourceFile, stat_of
from pipeline.view import View

BATCH = 32  # files that are embedded and searched together


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store has of one file, best first; whether the file itself is one of the store's; or why it could not be asked about."""

    file: str
    matches: tuple[Match, ...] = ()
    inside: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class Comparison:
    """A few files against each other: the cosine of each pair as (n, n) float64, 1 on the diagonal, NaN beside a file that failed."""

    files: tuple[str, ...]
    images: tuple[Image | Failure, ...]
    scores: NDArray[np.float64]

    def relation(self, one: int, other: int, threshold: float) -> str | None:
        """What two files are to each other; None when they are below the threshold, or one of them failed."""
        left, right = self.images[one], self.images[other]
        if isinstance(left, Failure) or isinstance(right, Failure):
            return None
        found = relation(left, right)
        if found == SIMILAR and (left.featureless or right.featureless):
            return None  # as in groups: nothing but exact copies
        return found if found != SIMILAR or self.scores[one, other] >= threshold else None

    def pairs(self) -> Iterator[tuple[int, int]]:
        """The numbers of each pair of files, once."""
        return combinations(range(len(self.files)), 2)

    def failures(self) -> list[tuple[str, Failure]]:
        """Files without a picture."""
        return [(file, image) for file, image in zip(self.files, self.images, strict=True) if isinstance(image, Failure)]


def find_groups(store: Store, threshold: float | None = None, under: Sequence[str] = (), *, against_all: bool = False) -> list[Group]:
    """Groups of near-duplicates among the files of the store, below the folders `under` when any are given. No photo is read.

    With `against_all`, groups may hold files from anywhere, but at least one from below `under`.
    `threshold` is a cosine (>=), the space's own by default. Each member is at or above it to its keeper. Photos with the same pixels
    count as one picture; pictures without features are grouped with exact copies alone.
    """
    under = [os.path.realpath(folder) for folder in under]
    scope = () if against_all else under
    with store.catalog.snapshot():
        space = store.space
        if space is None:
            return []
        edges = store.pairs(space.threshold if threshold is None else threshold)
        picture_of = _pictures(store, edges)
        photos = _photos(store, list(picture_of), scope)
    pictures: dict[int, list[Photo]] = defaultdict(list)
    for image, some in photos.items():
        pictures[picture_of[image]].extend(some)
    groups = group(pictures, edges)
    if not (against_all and under):
        return groups
    return [one for one in groups if any(is_below(photo.path, under) for photo in (one.keeper, *(member.photo for member in one.members)))]


def _pictures(store: Store, edges: Scored) -> dict[int, int]:
    """The images that can be in a group, each with what it shares with its exact copies: its vector, or, negative, its pixels."""
    ends = set(edges.left.tolist()) | set(edges.right.tolist())
    return dict(store.catalog.images_of(ends)) | dict(store.catalog.images_with_copies())


def _photos(store: Store, images: Sequence[int], under: Sequence[str] = ()) -> dict[int, list[Photo]]:
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


def find_matches(files: Iterable[str], store: Store, embedder: Embedder, threshold: float | None = None) -> Iterator[Answer]:
    """For each file, inside the library or outside, what the store has of it: identical bytes, identical pixels, then by score; never
    itself.

    `threshold` is a cosine (>=), the space's own by default. A file whose content is known costs no decoding, and no model is loaded
    for it.
    """
    if store.space is None:
        yield from (Answer(file) for file in files)
        return
    remaining = iter(files)
    with Decoders() as decoders:
        while some := list(islice(remaining, BATCH)):
            yield from _answers(some, store, embedder, decoders, threshold)


@dataclass
class _Asked:
    """A file that is being asked about: its image, the id of that image if it is stored, its pixels or vector, and what it is near to."""

    source: SourceFile
    image: Image
    stored: int | None = None
    view: NDArray[np.uint8] | None = None
    vector: NDArray[np.float32] | None = None
    near: dict[int, float] = field(default_factory=dict)  # stored images with their scores


def _answers(files: Sequence[str], store: Store, embedder: Embedder, decoders: Decoders, threshold: float | None) -> Iterator[Answer]:
    found = _identify(files, store, embedder, decoders)
    asked = [one for one in found if isinstance(one, _Asked)]
    fresh = [one for one in asked if one.stored is None and not one.image.featureless]
    if fresh:
        store.require(embedder.space)
        for one, row in zip(fresh, embed(embedder, [one.view for one in fresh if one.view is not None]), strict=True):
            one.vector = row
    with store.catalog.snapshot():
        space = store.space
        if fresh:
            store.require(embedder.space)  # a migration may have ended meanwhile
        vectors = store.vectors([one.stored for one in asked if one.stored is not None])
        for one in asked:
            if one.stored is not None:
                one.vector = vectors.get(one.stored)
        comparable = [one for one in asked if one.vector is not None]
        if comparable and space:
            least = space.threshold if threshold is None else threshold
            hits = store.within(np.stack([one.vector for one in comparable if one.vector is not None]), least)
            for number, image, score in zip(hits.left.tolist(), hits.right.tolist(), hits.score.tolist(), strict=True):
                comparable[number].near[image] = score
        for one in asked:
            one.near.update(dict.fromkeys(store.catalog.images_with_pixels(one.image.pixels), 1.0))
        answers = [
            _answer(file, each, store) if isinstance(each, _Asked) else Answer(file, failure=each)
            for file, each in zip(files, found, strict=True)
        ]
    yield from answers


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
            source = _listed(file)
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


def _listed(file: str) -> SourceFile | Failure:
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


def _answer(file: str, asked: _Asked, store: Store) -> Answer:
    found = [(photo, asked.near[image]) for image, photos in _photos(store, list(asked.near)).items() for photo in photos]
    others = [(photo, score) for photo, score in found if not _same_file(photo, asked.source)]
    matches = [Match(photo, relation(photo.image, asked.image), score) for photo, score in others]
    matches.sort(key=closest_first)
    return Answer(file, tuple(matches), inside=len(others) < len(found))


def _same_file(photo: Photo, source: SourceFile) -> bool:
    return photo.path == source.path or (photo.stat.inode, photo.stat.device) == (source.stat.inode, source.stat.device)


def compare(files: Sequence[str], embedder: Embedder) -> Comparison:
    """The cosine of each pair of `files`, as a store would score them; no store is needed, and nothing is written."""
    images: list[Image | Failure] = []
    views: list[NDArray[np.uint8]] = []
    at: list[int] = []
    listed = [_listed(file) for file in files]  # with their sizes: large ones are held one at a time
    sources = [one.source if isinstance(one, Failure) else one for one in listed]
    with Decoders() as decoders:
        for number, decoded in enumerate(decoders.stream(sources, embedder.view)):
            assert not isinstance(decoded, Recognised)  # it was not told of any known content
            if isinstance(decoded, Failure):
                images.append(decoded)
            else:
                images.append(decoded.image)
                views.append(decoded.view)
                at.append(number)
    rows = [embed(embedder, views[start : start + BATCH]) for start in range(0, len(views), BATCH)]
    scores = np.full((len(files), len(files)), np.nan)
    if rows:
        stored = np.concatenate(rows).astype(np.float16)
        for row, number in zip(stored, at, strict=True):
            scores[number, at] = cosines(np.broadcast_to(row, stored.shape), stored)
    return Comparison(tuple(files), tuple(images), scores)
