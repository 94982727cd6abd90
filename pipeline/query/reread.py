"""Read again files whose images are known, at another size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

from indexes.records import Image
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from pipeline.scan import SourceFile


def reread_images(
    files: Mapping[int, tuple[SourceFile, Image]], preprocess: Preprocess, decoders: DecoderPool
) -> Iterator[tuple[int, Decoded]]:
    """Decode files again; yield (key, Decoded) of those that still hold the same image, in order.

    Read the iterator to its end: closing it earlier ends the processes of `decoders`.
    """
    sources = [source for source, _ in files.values()]
    with closing(decoders.stream(sources, preprocess)) as stream:
        for (key, (_, image)), decoded in zip(files.items(), stream, strict=True):
            if isinstance(decoded, Decoded) and decoded.image.hash == image.hash:
                yield key, decoded


def reread_thumbnails(
    files: Mapping[int, tuple[SourceFile, Image]], decoders: DecoderPool
) -> dict[int, bytes]:
    """Make the thumbnails, as JPEG, of files that still hold the same image, by key."""
    from pipeline.thumbnails import encode_thumbnail

    return {
        key: encode_thumbnail(decoded.pixels)
        for key, decoded in reread_images(files, VERIFY_INPUT, decoders)
    }
