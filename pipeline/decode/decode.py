"""A file is read once, and becomes a picture or the reason why there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from indexes.records import Image
from pipeline.decode.preprocess import DecodedImage, Preprocess
from pipeline.decode.read import (
    SIGNATURE_BYTES,
    AlreadyStored,
    Failure,
    Rejected,
    has_raw_signature,
    has_raw_suffix,
    read,
)
from pipeline.scan import SourceFile

MAX_PARALLEL_FILE_BYTES = (
    1 << 25
)  # bytes; files that are larger are held one at a time, so that memory is bounded by one of them

_large_file_lock = threading.Lock()

PreprocessOrLoader = (
    Preprocess | Callable[[], Preprocess]
)  # or what gives it, where that may cost loading a model: asked when a picture is wanted


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture: the file it came from, what the store keeps of it, and uint8 pixels (height, width, 3) for the embedder."""

    source: SourceFile
    image: Image
    pixels: NDArray[np.uint8]


def _decode_in_process(
    data: bytes, digest: bytes, preprocess: Preprocess, is_raw: bool
) -> DecodedImage:
    from pipeline.decode.image import (
        decode_image,
    )  # with all decoders, which who has it run elsewhere does not need

    return decode_image(data, digest, preprocess, is_raw)


def decode(
    source: SourceFile,
    preprocess: PreprocessOrLoader,
    is_wanted: Callable[[bytes], bool] = lambda hash: True,
    read_slot: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - has no state
    decoder: Callable[[bytes, bytes, Preprocess, bool], DecodedImage] = _decode_in_process,
) -> Decoded | AlreadyStored | Failure:
    """Read a file once, within `reading`, and give its picture; stops after hashing, as Recognised, when `wanted` says no to the hash.

    `shown` is picture(), or a way to have it run elsewhere. Never raises for what a file holds.
    """
    with _large_file_lock if (source.stat.size if source.stat else 0) > MAX_PARALLEL_FILE_BYTES else nullcontext():
        try:
            with read_slot:
                data = read(source)
                digest = blake3(data).digest()
        except Rejected as refused:
            return Failure(source, refused.reason, refused.detail)
        if not is_wanted(digest):
            return AlreadyStored(source, digest)
        raw = has_raw_suffix(source.path) and has_raw_signature(
            data[:SIGNATURE_BYTES]
        )  # a JPEG with such a name is a JPEG
        try:
            return Decoded(
                source,
                *decoder(data, digest, preprocess() if callable(preprocess) else preprocess, raw),
            )
        except Rejected as refused:
            return Failure(source, refused.reason, refused.detail, digest)
