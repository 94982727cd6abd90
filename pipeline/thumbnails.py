"""The small pictures of a store's images: from its thumbs or, where one is not there yet, from a file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes import Image, Store, Thumb, Thumbs
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import Decoders
from pipeline.decode.preprocess import SIGHT, View
from pipeline.decode.read import Failure
from pipeline.scan import SourceFile

QUALITY = 88  # of the JPEG that a thumb is: 448 pixels then take about 40 kB


class Pictures:
    """Pictures of a store's images, by id. What is made here is kept among the thumbs, where those can be written."""

    def __init__(self, store: Store, thumbs: Thumbs, decoders: Decoders) -> None:
        """Nothing is read yet."""
        self._store, self._thumbs, self._decoders = store, thumbs, decoders

    def of(self, images: Iterable[int]) -> tuple[dict[int, tuple[Image, Thumb]], dict[int, str]]:
        """Those of some images, with features where these are kept; and for images that have none and whose files cannot be read, why."""
        about = dict(self._store.catalog.images(images))
        kept = self._thumbs.get(image.hash for image in about.values())
        missing = {id_: image for id_, image in about.items() if image.hash not in kept}
        made, failed = dict[bytes, Thumb](), dict[int, str]()
        for id_, result in read_images(self._store, self._decoders, missing, SIGHT):
            if isinstance(result, Decoded):
                made[about[id_].hash] = Thumb(thumb(result.view), b"")
            else:
                failed[id_] = result
        self._thumbs.put(made)
        kept |= made
        return {id_: (image, kept[image.hash]) for id_, image in about.items() if image.hash in kept}, failed

    def keep(self, made: Mapping[bytes, Thumb]) -> None:
        """Keep thumbs, by the hash of their image, where they can be written."""
        self._thumbs.put(made)


def thumb(rgb: NDArray[np.uint8]) -> bytes:
    """A picture at SIGHT as it is kept."""
    buffer = io.BytesIO()
    Pillow.fromarray(rgb).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def shown(picture: bytes) -> NDArray[np.uint8]:
    """A thumb's pixels, rgb (height, width, 3)."""
    with Pillow.open(io.BytesIO(picture), formats=("JPEG",)) as opened:
        return np.asarray(opened.convert("RGB"))


def read_images(store: Store, decoders: Decoders, about: Mapping[int, Image], view: View) -> Iterator[tuple[int, Decoded | str]]:
    """The pictures of images, by id, from the first file of each that still has it; or why none has, "away" or a failure's reason. To be
    read to its end: closed before, it ends the decoders.
    """
    there: dict[int, list[SourceFile]] = {}
    for known in store.catalog.files_of(about):
        if known.image is not None and not known.missing:
            there.setdefault(known.image, []).append(SourceFile(known.path, known.stat))
    yield from ((id_, "away") for id_ in about if id_ not in there)
    while there:
        first, there = {id_: sources[0] for id_, sources in there.items()}, {id_: sources[1:] for id_, sources in there.items()}
        for id_, result in zip(first, decoders.stream(first.values(), view), strict=True):
            if isinstance(result, Decoded) and result.image.hash == about[id_].hash:
                there[id_] = []
                yield id_, result
            elif not there[id_]:
                yield id_, result.reason if isinstance(result, Failure) else "changed"
        there = {id_: sources for id_, sources in there.items() if sources}
