"""A file is read once, and becomes a picture or the reason why there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from indexes import Image
from pipeline.decode.preprocess import Picture, View
from pipeline.decode.read import HEAD, Failure, Recognised, Refused, is_raw, is_raw_photo, read
from pipeline.scan import SourceFile

HEAVY_FILE = 1 << 25  # bytes; files that are larger are held one at a time, so that memory is bounded by one of them

_heavy = threading.Lock()

AnyView = View | Callable[[], View]  # or what gives it, where that may cost loading a model: asked when a picture is wanted


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture: the file it came from, what the store keeps of it, and uint8 pixels (height, width, 3) for the embedder."""

    source: SourceFile
    image: Image
    view: NDArray[np.uint8]


def _here(data: bytes, digest: bytes, view: View, raw: bool) -> Picture:
    from pipeline.decode.image import picture  # with all decoders, which who has it run elsewhere does not need

    return picture(data, digest, view, raw)


def decode(
    source: SourceFile,
    view: AnyView,
    wanted: Callable[[bytes], bool] = lambda hash: True,
    reading: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - has no state
    shown: Callable[[bytes, bytes, View, bool], Picture] = _here,
) -> Decoded | Recognised | Failure:
    """Read a file once, within `reading`, and give its picture; stops after hashing, as Recognised, when `wanted` says no to the hash.

    `shown` is picture(), or a way to have it run elsewhere. Never raises for what a file holds.
    """
    with _heavy if source.stat.size > HEAVY_FILE else nullcontext():
        try:
            with reading:
                data = read(source)
                digest = blake3(data).digest()
        except Refused as refused:
            return Failure(source, refused.reason, refused.detail)
        if not wanted(digest):
            return Recognised(source, digest)
        raw = is_raw(source.path) and is_raw_photo(data[:HEAD])  # a JPEG with such a name is a JPEG
        try:
            return Decoded(source, *shown(data, digest, view() if callable(view) else view, raw))
        except Refused as refused:
            return Failure(source, refused.reason, refused.detail, digest)
