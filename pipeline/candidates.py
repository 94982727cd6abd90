"""STAGE 1, its end: candidates that nobody has looked at yet are verified, and what was found is kept.

Pictures are verified as they are kept in the store's thumbs: the same pixels, whenever a pair comes up, and no photo is read twice.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from threadpoolctl import threadpool_limits

from indexes import Image, Store, Thumbs
from pipeline.decode import Decoded
from pipeline.decoders import Decoders, usable_cores
from pipeline.detail import CLOSE, Spectrum, is_enlarged, spectrum
from pipeline.evidence import FIRST, SECOND, Evidence, kept
from pipeline.reading import Failure
from pipeline.scan import SourceFile
from pipeline.sketch import Sketch, sketch
from pipeline.verify import verify
from pipeline.view import SIGHT, View

BLOCK = 400  # pairs that are verified together, and kept in one commit
LIKE = 0.87  # the scale from which on two pictures count as of one size
HELD = 1200  # sketches that are held at a time: 300 MB
QUALITY = 88  # of the JPEG that a thumb is: 448 pixels then take about 40 kB


@dataclass
class Looked:
    """How far it is: pairs `done` of `total`, those with each relation, and why others could not be looked at."""

    done: int
    total: int
    found: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)


def verify_candidates(store: Store, pairs: Sequence[tuple[int, int]], count: int | None = None, readers: int = 1) -> Iterator[Looked]:
    """Look at pairs of the store's images, by id, on `count` cores; all by default.

    A pair whose photos are away, or changed since they were ingested, stays for the next time. Stop it at any yield: what was yielded is
    kept. Call it with `store.exclusive` held.
    """
    looked, cores = Looked(0, len(pairs)), count or usable_cores()
    with Decoders(count, readers) as decoders, closing(Thumbs(store.folder, write=True)) as thumbs, ThreadPoolExecutor(cores) as pool:
        sketches, details = Sketches(store, thumbs, decoders, pool), _Details(store, decoders)
        with threadpool_limits(1):
            todo = iter(pairs)
            while block := list(islice(todo, BLOCK)):
                held, failed = sketches.of({image for pair in block for image in pair})
                ready = [pair for pair in block if held.keys() >= set(pair)]
                why = [failed[pair[0] if pair[0] in failed else pair[1]] for pair in block if not failed.keys().isdisjoint(pair)]
                found = details.of(list(pool.map(lambda pair, held=held: _looked(held, *pair), ready)))
                store.judge(kept(*one) for one in found)
                looked.done += len(block)
                looked.found.update(evidence.relation for _, _, evidence in found)
                looked.unseen.update(why)
                yield looked


def _looked(held: Mapping[int, tuple[Image, Sketch]], one: int, other: int) -> tuple[int, int, Evidence]:
    """By the order of contents, not of their coming, so that evidence does not depend on it."""
    first, second = sorted((one, other), key=lambda image: held[image][0].hash)
    return first, second, verify(held[first][1], held[second][1])


class _Details:
    """Which of two copies was only made larger, by a closer look at the larger one's file; nothing is said where that is away."""

    def __init__(self, store: Store, decoders: Decoders) -> None:
        self._store, self._decoders = store, decoders
        self._waves: dict[int, tuple[Spectrum, float]] = {}  # and by how much the file was made smaller for it

    def of(self, looked: Sequence[tuple[int, int, Evidence]]) -> list[tuple[int, int, Evidence]]:
        """The same, with what is known of it."""
        larger = {
            number: second if evidence.changes.scale > 1 else first
            for number, (first, second, evidence) in enumerate(looked)
            if evidence.changes and not LIKE < evidence.changes.scale < 1 / LIKE
        }
        self._read({image for image in larger.values() if image not in self._waves})
        done = list(looked)
        for number, image in larger.items():
            first, second, evidence = looked[number]
            if evidence.changes and image in self._waves:
                waves, shown = self._waves[image]
                if is_enlarged(waves, min(evidence.changes.scale, 1 / evidence.changes.scale) / shown):
                    changes = replace(evidence.changes, enlarged=SECOND if image == second else FIRST)
                    done[number] = first, second, replace(evidence, changes=changes)
        return done

    def _read(self, images: Collection[int]) -> None:
        about = dict(self._store.catalog.images(images))
        for id_, result in read_images(self._store, self._decoders, about, CLOSE):
            if isinstance(result, Decoded):
                grey = np.asarray(Pillow.fromarray(result.view).convert("L"))
                self._waves[id_] = spectrum(grey), result.view.shape[1] / about[id_].width


def read_images(store: Store, decoders: Decoders, about: Mapping[int, Image], view: View) -> Iterator[tuple[int, Decoded | str]]:
    """The pictures of images, by id, from the first file of each that is there; or why there is none, "away" or a failure's reason."""
    there: dict[int, SourceFile] = {}
    for known in store.catalog.files_of(about):
        if known.image is not None and not known.missing:
            there.setdefault(known.image, SourceFile(known.path, known.stat))
    yield from ((id_, "away") for id_ in about if id_ not in there)
    for id_, result in zip(there, decoders.stream(there.values(), view) if there else (), strict=True):
        if isinstance(result, Decoded) and result.image.hash == about[id_].hash:
            yield id_, result
        else:
            yield id_, result.reason if isinstance(result, Failure) else "changed"


class Sketches:
    """The sketches of a store's images, from their thumbs or, where there is none, from their files; a bounded number of them is held."""

    def __init__(self, store: Store, thumbs: Thumbs, decoders: Decoders, pool: ThreadPoolExecutor) -> None:
        """Nothing is read yet."""
        self._store, self._thumbs, self._decoders, self._pool = store, thumbs, decoders, pool
        self._held: dict[int, tuple[Image, Sketch]] = {}

    def pictures(self, images: Iterable[int]) -> dict[bytes, bytes]:
        """The thumbs of some images, by id, that are there or can be made, by hash."""
        about = dict(self._store.catalog.images(images))
        found = self._thumbs.get(image.hash for image in about.values())
        made, _ = self._read({id_: image for id_, image in about.items() if image.hash not in found})
        return found | made

    def of(self, images: Iterable[int]) -> tuple[dict[int, tuple[Image, Sketch]], dict[int, str]]:
        """Those of some images, by id, and for the others why there is none."""
        wanted = sorted(images)
        found = {id_: self._held.pop(id_) for id_ in wanted if id_ in self._held}
        about = dict(self._store.catalog.images(id_ for id_ in wanted if id_ not in found))
        pictures = self._thumbs.get(image.hash for image in about.values())
        made, failed = self._read({id_: image for id_, image in about.items() if image.hash not in pictures})
        pictures.update(made)
        ready = {id_: image for id_, image in about.items() if image.hash in pictures}
        found.update(zip(ready, self._pool.map(lambda image: (image, drawn(image, pictures[image.hash])), ready.values()), strict=True))
        self._held.update(found)  # what was asked for last goes last
        for id_ in list(islice(self._held, max(0, len(self._held) - HELD))):
            del self._held[id_]
        return found, failed

    def _read(self, about: dict[int, Image]) -> tuple[dict[bytes, bytes], dict[int, str]]:
        """Thumbs made from files, by hash, and kept; and for images of which no file can be read now, why."""
        made, failed = dict[bytes, bytes](), dict[int, str]()
        for id_, result in read_images(self._store, self._decoders, about, SIGHT):
            if isinstance(result, Decoded):
                made[about[id_].hash] = thumb(result.view)
            else:
                failed[id_] = result
        self._thumbs.put(made)
        return made, failed


def thumb(rgb: NDArray[np.uint8]) -> bytes:
    """A picture at SIGHT as it is kept."""
    buffer = io.BytesIO()
    Pillow.fromarray(rgb).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def drawn(image: Image, picture: bytes) -> Sketch:
    """The sketch of an image, from its thumb."""
    return sketch(shown(picture), (image.width, image.height))


def shown(picture: bytes) -> NDArray[np.uint8]:
    """A thumb's pixels, rgb (height, width, 3)."""
    with Pillow.open(io.BytesIO(picture), formats=("JPEG",)) as opened:
        return np.asarray(opened.convert("RGB"))
