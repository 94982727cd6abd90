"""Read a file once and decode it to an image, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from indexes.records import Image
from pipeline.decode.formats import SIGNATURE_BYTES, has_raw_signature, has_raw_suffix
from pipeline.decode.memory import hold_file
from pipeline.decode.preprocess import DecodedImage, Preprocess
from pipeline.decode.read import AlreadyStored, Failure, Rejected, read
from pipeline.scan import SourceFile

# The preprocessing, or a function that returns it where that may load a model: it is only called
# when an image is to be decoded.
PreprocessOrLoader = Preprocess | Callable[[], Preprocess]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image: its file, the record that the store keeps, and pixels for the embedder.

    `pixels`, and those of the thumbnail if there is one, are uint8 RGB (height, width, 3).
    """

    source: SourceFile
    image: Image
    pixels: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8] | None = None


def _decode_in_process(
    data: bytes, digest: bytes, preprocess: Preprocess, is_raw: bool
) -> DecodedImage:
    # Loads all decoders, which a process that has other processes decode does not need.
    from pipeline.decode.image import decode_image

    return decode_image(data, digest, preprocess, is_raw)


def decode_source(
    source: SourceFile,
    preprocess: PreprocessOrLoader,
    is_wanted: Callable[[bytes], bool] = lambda hash: True,
    read_slot: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - has no state
    decoder: Callable[[bytes, bytes, Preprocess, bool], DecodedImage] = _decode_in_process,
) -> Decoded | AlreadyStored | Failure:
    """Read a file once, within `read_slot`, and decode it.

    Returns AlreadyStored, without decoding, if `is_wanted` returns False for the blake3 of its
    bytes. `decoder` is decode_image(), or a function that runs it in another process. Never raises
    because of a file's content.
    """
    with hold_file(source.stat.size if source.stat else 0):
        try:
            with read_slot:
                data = read(source)
                digest = blake3(data).digest()
        except Rejected as rejected:
            return Failure(source, rejected.reason, rejected.detail or None)
        if not is_wanted(digest):
            return AlreadyStored(source, digest)
        # A JPEG with the suffix of a raw file is a JPEG.
        is_raw = has_raw_suffix(source.path) and has_raw_signature(data[:SIGNATURE_BYTES])
        try:
            if callable(preprocess):
                preprocess = preprocess()
            decoded = decoder(data, digest, preprocess, is_raw)
        except Rejected as rejected:
            return Failure(source, rejected.reason, rejected.detail or None, digest)
        return Decoded(source, *decoded)
