"""Decode the bytes of a file to upright sRGB pixels at an embedder's size.

Files are hostile input. Only formats on an allow-list are opened, an image's size is checked from
its header before a pixel is decoded, and anything that a decoder raises becomes the reason why the
file is rejected.

Each family of formats has a reader, see the package readers. decode_image() takes what it
opened, converts its colors, resizes it and hashes its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from indexes.metadata import Fidelity
from indexes.records import Image
from pipeline.decode.damage.damage import JPEG_SIGNATURE
from pipeline.decode.formats import (
    SIGNATURE_BYTES,
    ExtractedImage,
    FailureReason,
    has_image_signature,
    has_jxl_signature,
)
from pipeline.decode.memory import MemoryBudget
from pipeline.decode.metadata import exif
from pipeline.decode.metadata.frames import (
    FRAME_INPUT,
    add_still_digest,
)
from pipeline.decode.metadata.image_metadata import read_metadata
from pipeline.decode.pixels.color import (
    convert_to_8_bit,
    convert_to_srgb,
    describe_unsupported_tiff,
    get_icc_profile,
)
from pipeline.decode.pixels.fidelity import measure_fidelity
from pipeline.decode.pixels.pixel_hash import hash_jpeg_stream, hash_pixels
from pipeline.decode.pixels.resize import apply_orientation, preprocess_image
from pipeline.decode.preprocess import VERIFY_INPUT, DecodedImage, Preprocess
from pipeline.decode.read import Rejected
from pipeline.decode.readers.jxl import extract_from_jxl
from pipeline.decode.readers.pillow import OpenImage, load_format_plugins, open_with_pillow
from pipeline.decode.readers.raw import RAW_FORMAT, NotRaw, extract_from_raw


def decode_image(
    data: bytes,
    digest: bytes,
    preprocess: Preprocess,
    is_raw: bool = False,
    large_image_lock: AbstractContextManager[object] | None = None,
) -> DecodedImage:
    """Decode the bytes of a file, whose blake3 is `digest`; `is_raw` if it has a raw suffix.

    JPEG and JPEG 2000 are decoded at the smallest scale that leaves at least twice the size of
    `preprocess`, or for coarse preprocessing just its size. The first frame that is not featureless
    stands for an animation, the camera's preview for a raw file. Transparency is composited on
    white, or on black if nothing shows on white. A JPEG whose end is missing is decoded if half of
    its rows are there, and flagged as damaged; so is one with damage inside. Large images are
    decoded within `large_image_lock`, by default one at a time in this process.

    Raises Rejected, and nothing else, because of the bytes; ImportError if a decoder is missing.
    """
    load_format_plugins()
    budget = MemoryBudget(large_image_lock) if large_image_lock else MemoryBudget()
    try:
        with _open_image(data, preprocess, is_raw, budget) as opened:
            return _finish_image(opened, data, digest, preprocess)
    except (Rejected, ImportError):  # a broken installation is not the file's fault
        raise
    except UnidentifiedImageError as error:
        if tiff := describe_unsupported_tiff(data):
            raise Rejected(FailureReason.NOT_SUPPORTED, tiff) from error
        raise Rejected(FailureReason.NO_PICTURE_INSIDE, "no decoder knows it") from error
    except MemoryError as error:
        raise Rejected(FailureReason.TOO_MUCH_MEMORY, "") from error
    except Exception as error:
        # Broken files make decoders raise anything. Our own bugs show in tests of sound files.
        detail = " ".join(str(error).split()) or type(error).__name__
        is_truncated = "truncated" in detail.lower() or isinstance(error, EOFError)
        raise Rejected(
            FailureReason.TRUNCATED if is_truncated else FailureReason.DAMAGED, detail
        ) from error


def _finish_image(
    opened: OpenImage, data: bytes, digest: bytes, preprocess: Preprocess
) -> DecodedImage:
    """Turn an image upright, convert its colors, resize it and hash its pixels."""
    upright = apply_orientation(opened.image, opened.orientation)
    eight_bit = convert_to_8_bit(upright, opened.tiff_tags)
    if opened.is_partial:
        pixel_hash = digest
    elif opened.reduced_jpeg is not None:
        pixel_hash = hash_jpeg_stream(opened.reduced_jpeg, opened.image, opened.orientation)
    else:
        pixel_hash = hash_pixels(upright, eight_bit)
    profile = get_icc_profile(upright)
    to_rgb = partial(convert_to_srgb, profile=profile)
    pixels, is_featureless = preprocess_image(eight_bit, preprocess, to_rgb)
    shows_all = preprocess.fit in ("squash", "within")
    small = pixels if shows_all else preprocess_image(eight_bit, FRAME_INPUT, to_rgb)[0]
    width, height = opened.size
    metadata = replace(
        opened.metadata,
        frames=add_still_digest(opened.metadata.frames, small),
        fidelity=_measure_fidelity(opened, eight_bit, small),
    )
    image = Image(
        hash=digest,
        pixel_hash=pixel_hash,
        width=width,
        height=height,
        format=opened.format,
        size=len(data),
        is_featureless=is_featureless,
        flags=opened.flags,
        metadata_kinds=exif.find_metadata_kinds(opened.exif_tags),
        taken_at=exif.read_date_taken(opened.exif_tags),
        metadata=metadata,
    )
    thumbnail = None
    if preprocess.with_thumbnail and opened.suits_thumbnail:
        thumbnail, _ = preprocess_image(eight_bit, VERIFY_INPUT, to_rgb)
    return DecodedImage(image, pixels, thumbnail)


def _measure_fidelity(
    opened: OpenImage, eight_bit: Pillow.Image, small: NDArray[np.uint8]
) -> Fidelity | None:
    """Measure the fidelity of an image; None for a raw photo, which holds more than is decoded."""
    if opened.format == RAW_FORMAT:
        return None
    # The tables of a JPEG tell how strongly it was compressed, in less time than its pixels.
    with_blocks = opened.metadata.jpeg is None and eight_bit.size == opened.size
    return measure_fidelity(eight_bit, small, opened.bit_depth, with_blocks)


def _open_image(
    data: bytes, preprocess: Preprocess, is_raw: bool, budget: MemoryBudget
) -> AbstractContextManager[OpenImage]:
    """Open the bytes of a file with the reader of its family."""
    if is_raw:
        try:
            extracted = extract_from_raw(data, budget, preprocess.size)
        except NotRaw as not_raw:
            # An image is its bytes, whichever suffix the file has that was read first.
            if not has_image_signature(data[:SIGNATURE_BYTES]):
                raise
            return _open_misnamed(data, preprocess, budget, not_raw)
        return _open_raw(data, extracted, preprocess, budget)
    if has_jxl_signature(data):
        return _open_extracted(extract_from_jxl(data, budget), preprocess, budget)
    return open_with_pillow(data, preprocess, budget)


@contextmanager
def _open_misnamed(
    data: bytes, preprocess: Preprocess, budget: MemoryBudget, not_raw: NotRaw
) -> Iterator[OpenImage]:
    """Open a file that has the suffix of a raw file and is none; raise `not_raw` if it fails."""
    with ExitStack() as held:
        try:
            opened = held.enter_context(open_with_pillow(data, preprocess, budget))
        except UnidentifiedImageError:
            raise not_raw from None
        yield opened


@contextmanager
def _open_raw(
    data: bytes, extracted: ExtractedImage, preprocess: Preprocess, budget: MemoryBudget
) -> Iterator[OpenImage]:
    """Open what LibRaw extracted, with the metadata of the raw photo: its preview may have none."""
    with _open_extracted(extracted, preprocess, budget) as opened:
        tags = {**opened.exif_tags, **exif.read_raw_tags(data)}
        # The preview that is decoded depends on the size that is needed.
        yield replace(
            opened,
            exif_tags=tags,
            metadata=read_metadata(opened.image, tags),
            suits_thumbnail=False,
        )


@contextmanager
def _open_extracted(
    extracted: ExtractedImage, preprocess: Preprocess, budget: MemoryBudget
) -> Iterator[OpenImage]:
    """Open what LibRaw or libjxl extracted: a JPEG stream or pixels. It equals no other image."""
    content = extracted.content
    if not isinstance(content, bytes):
        tags = exif.read_tags(content)
        metadata = read_metadata(content, tags)
        upright = apply_orientation(content, extracted.orientation)
        size = extracted.full_size or upright.size
        yield OpenImage(
            image=upright,
            size=size,
            orientation=1,
            format=extracted.format,
            flags=extracted.flags,
            exif_tags=tags,
            metadata=metadata,
            tiff_tags={},
            bit_depth=None,
            is_partial=True,
        )
        return
    if not content.startswith(JPEG_SIGNATURE):
        raise Rejected(FailureReason.DAMAGED, "the embedded preview is no JPEG")
    with open_with_pillow(content, preprocess, budget, extracted.orientation) as opened:
        yield replace(
            opened,
            size=extracted.full_size or opened.size,
            format=extracted.format,
            flags=(*extracted.flags, *opened.flags),
            is_partial=True,
        )
