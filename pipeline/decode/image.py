"""Decode the bytes of a file to upright sRGB pixels at an embedder's size.

Files are hostile input. Only formats on an allow-list are opened, an image's size is checked from
its header before a pixel is decoded, and anything that a decoder raises becomes the reason why the
file is rejected.

Each family of formats has a reader: Pillow's here, LibRaw's in raw, libjxl's in jxl. decode_image()
takes what a reader opened, converts its colors, resizes it and hashes its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from typing import Any

from PIL import Image as Pillow
from PIL import PngImagePlugin, UnidentifiedImageError

from indexes.metadata import Frames, ImageMetadata
from indexes.records import Image
from pipeline.decode import exif
from pipeline.decode.damage import JPEG_SIGNATURE, load_and_check, open_stream
from pipeline.decode.formats import (
    FLAG_DAMAGED,
    SIGNATURE_BYTES,
    ExtractedImage,
    FailureReason,
    has_image_signature,
    has_jxl_signature,
)
from pipeline.decode.frames import (
    COUNTED_FORMATS,
    FLAG_BY_FORMAT,
    FRAME_INPUT,
    add_still_digest,
    has_more_frames,
    read_frames,
)
from pipeline.decode.jxl import extract_from_jxl
from pipeline.decode.memory import MemoryBudget
from pipeline.decode.metadata import read_metadata
from pipeline.decode.pixels.color import (
    convert_to_8_bit,
    convert_to_srgb,
    describe_unsupported_tiff,
    fix_16_bit_planes,
    get_icc_profile,
    has_reduced_depth,
    has_unusual_samples,
)
from pipeline.decode.pixels.pixel_hash import hash_jpeg_stream, hash_pixels
from pipeline.decode.pixels.reduction import reduce_jpeg, reduce_jpeg2000
from pipeline.decode.pixels.resize import apply_orientation, preprocess_image
from pipeline.decode.pixels.truncation import JPEG_END_MARKER, is_mostly_filler
from pipeline.decode.preprocess import DecodedImage, Preprocess
from pipeline.decode.raw import NotRaw, extract_from_raw
from pipeline.decode.read import Rejected

ALLOWED_FORMATS = (  # an MPO opens as a JPEG, a PBM or PGM as a PPM
    *("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000", "PPM"),
)
# Plugins of Pillow whose modules are not named like their formats.
PLUGIN_MODULE_BY_FORMAT = {"WEBP": "WebP", "JPEG2000": "Jpeg2K"}
# Of a PNG's text or profile. Pillow's own limit of 2^20 rejects images with a press's profile.
MAX_PNG_CHUNK_BYTES = 1 << 24
# Of a PNM whose samples are text: Pillow reads 1 to 2 million a second, and a file has a minute.
MAX_PLAIN_PNM_PIXELS = 16_000_000


@dataclass(frozen=True)
class _OpenImage:
    """An image as its reader decoded it: not turned, in its own mode."""

    image: Pillow.Image
    size: tuple[int, int]  # width and height of the image, upright
    orientation: int  # EXIF orientation that is still to be applied
    format: str
    flags: tuple[str, ...]
    exif_tags: Mapping[int, Any]
    metadata: ImageMetadata
    tiff_tags: Mapping[int, Any]
    # The decoded pixels are fewer, or less precise, than those of the file: an image that equals
    # no other, so that its pixel hash is the hash of its bytes.
    is_partial: bool
    # The bytes of a JPEG that was decoded at a reduced size: they are hashed, not the pixels.
    reduced_jpeg: bytes | None = None


@cache
def load_format_plugins() -> None:
    """Load the decoders of the allowed formats and no others.

    Lifts Pillow's pixel limit, which rejects 200 megapixels from a phone; see MemoryBudget.
    """
    import pillow_heif

    for name in ALLOWED_FORMATS:
        if name != "HEIF":
            import_module(f"PIL.{PLUGIN_MODULE_BY_FORMAT.get(name, name.title())}ImagePlugin")

    pillow_heif.register_heif_opener(thumbnails=False)
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_PNG_CHUNK_BYTES
    Pillow.MAX_IMAGE_PIXELS = None


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
    opened: _OpenImage, data: bytes, digest: bytes, preprocess: Preprocess
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
        metadata=replace(opened.metadata, frames=add_still_digest(opened.metadata.frames, small)),
    )
    return image, pixels


def _open_image(
    data: bytes, preprocess: Preprocess, is_raw: bool, budget: MemoryBudget
) -> AbstractContextManager[_OpenImage]:
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
    return _open_with_pillow(data, preprocess, budget)


@contextmanager
def _open_misnamed(
    data: bytes, preprocess: Preprocess, budget: MemoryBudget, not_raw: NotRaw
) -> Iterator[_OpenImage]:
    """Open a file that has the suffix of a raw file and is none; raise `not_raw` if it fails."""
    with ExitStack() as held:
        try:
            opened = held.enter_context(_open_with_pillow(data, preprocess, budget))
        except UnidentifiedImageError:
            raise not_raw from None
        yield opened


@contextmanager
def _open_raw(
    data: bytes, extracted: ExtractedImage, preprocess: Preprocess, budget: MemoryBudget
) -> Iterator[_OpenImage]:
    """Open what LibRaw extracted, with the metadata of the raw photo: its preview may have none."""
    with _open_extracted(extracted, preprocess, budget) as opened:
        tags = {**opened.exif_tags, **exif.read_raw_tags(data)}
        yield replace(opened, exif_tags=tags, metadata=read_metadata(opened.image, tags))


@contextmanager
def _open_extracted(
    extracted: ExtractedImage, preprocess: Preprocess, budget: MemoryBudget
) -> Iterator[_OpenImage]:
    """Open what LibRaw or libjxl extracted: a JPEG stream or pixels. It equals no other image."""
    content = extracted.content
    if not isinstance(content, bytes):
        tags = exif.read_tags(content)
        metadata = read_metadata(content, tags)
        upright = apply_orientation(content, extracted.orientation)
        size = extracted.full_size or upright.size
        yield _OpenImage(
            image=upright,
            size=size,
            orientation=1,
            format=extracted.format,
            flags=extracted.flags,
            exif_tags=tags,
            metadata=metadata,
            tiff_tags={},
            is_partial=True,
        )
        return
    if not content.startswith(JPEG_SIGNATURE):
        raise Rejected(FailureReason.DAMAGED, "the embedded preview is no JPEG")
    with _open_with_pillow(content, preprocess, budget, extracted.orientation) as opened:
        yield replace(
            opened,
            size=extracted.full_size or opened.size,
            format=extracted.format,
            flags=(*extracted.flags, *opened.flags),
            is_partial=True,
        )


@contextmanager
def _open_with_pillow(
    data: bytes, preprocess: Preprocess, budget: MemoryBudget, default_orientation: int = 1
) -> Iterator[_OpenImage]:
    """Open an image with Pillow; a JPEG whose end is missing as far as it goes.

    `default_orientation` is that of an image whose EXIF has none.
    """
    with ExitStack() as held:
        try:
            opened = _load_with_pillow(data, preprocess, budget, held)
        except OSError as error:
            if not data.startswith(JPEG_SIGNATURE) or "truncated" not in str(error):
                raise
            held.close()
            # With an end marker, libjpeg fills the missing rest with gray.
            data += JPEG_END_MARKER
            opened = _load_with_pillow(data, preprocess, budget, held, is_cut=True)
            if is_mostly_filler(opened.image):
                raise Rejected(FailureReason.TRUNCATED, "less than half of it is there") from error
        orientation = exif.read_orientation(opened.exif_tags, default_orientation)
        if orientation in (5, 6, 7, 8):
            opened = replace(opened, size=(opened.size[1], opened.size[0]))
        yield replace(opened, orientation=orientation)


def _load_with_pillow(
    data: bytes,
    preprocess: Preprocess,
    budget: MemoryBudget,
    held: ExitStack,
    is_cut: bool = False,
) -> _OpenImage:
    """Decode an image, its first frame, at a reduced size where its format can.

    The result lives, and its memory is reserved, until `held` is closed. `is_cut`: the end of a
    JPEG was missing.
    """
    stream = open_stream(data)
    image = held.enter_context(Pillow.open(stream, formats=ALLOWED_FORMATS))
    size, format_ = image.size, image.format or "?"
    _require_readable_pnm(image)
    can_reduce = preprocess.fit != "middle"  # which crops the pixels of the file
    is_reduced_jpeg = can_reduce and format_ in ("JPEG", "MPO") and reduce_jpeg(image, preprocess)
    is_jpeg2000 = format_ == "JPEG2000"
    reduction = reduce_jpeg2000(image, data, preprocess) if can_reduce and is_jpeg2000 else 1
    flags, frames = _show_representative_frame(image, data, budget)
    if frames:
        size = image.size
    tiff_tags = getattr(image, "tag_v2", {})
    fix_16_bit_planes(image, tiff_tags)
    # A JPEG 2000 can have a profile that Pillow does not report.
    is_partial = (
        bool(flags)
        or is_jpeg2000
        or has_unusual_samples(image.mode, tiff_tags)
        or has_reduced_depth(image)
    )
    is_progressive = bool(image.info.get("progressive") or image.info.get("progression"))
    progressive_pixels = size[0] * size[1] if is_progressive else 0
    held.enter_context(budget.reserve(image.width, image.height, reduction, progressive_pixels))
    damage = load_and_check(image, stream, is_cut)
    decoded: Pillow.Image = image
    if format_ == "PPM" and image.mode == "I":  # Pillow's mode for 16 bits, which does not say so
        decoded = image.convert("I;16")
    exif_tags = exif.read_tags(image)
    if exif.is_own_picture(exif_tags, image.info.get("comment")):
        raise Rejected(FailureReason.MADE_BY_NEARDUP)
    metadata = replace(read_metadata(image, exif_tags), frames=frames)
    if damage:
        flags = (*flags, FLAG_DAMAGED)
        metadata = replace(metadata, damage_start=damage.start)
    return _OpenImage(
        image=decoded,
        size=size,
        orientation=1,
        format=format_,
        flags=flags,
        exif_tags=exif_tags,
        metadata=metadata,
        tiff_tags=tiff_tags,
        is_partial=is_partial or damage is not None,
        reduced_jpeg=data if is_reduced_jpeg else None,
    )


def _show_representative_frame(
    image: Pillow.Image, data: bytes, budget: MemoryBudget
) -> tuple[tuple[str, ...], Frames | None]:
    """Seek the frame that stands for an animation or a document; return its flags and frames."""
    format_ = image.format or "?"
    flag = FLAG_BY_FORMAT.get(format_)
    if not ((flag or format_ in COUNTED_FORMATS) and has_more_frames(image)):
        return (), None
    with budget.reserve(*image.size):
        read = read_frames(data, format_, ALLOWED_FORMATS)
    if read.shown:
        image.seek(read.shown)
    return (flag,) if flag else (), read.frames


def _require_readable_pnm(image: Pillow.Image) -> None:
    """Raise Rejected for a PNM of so many samples in text that decoding would take too long."""
    tile = image.tile  # type: ignore[attr-defined] # of images opened from a file
    is_plain = bool(tile) and tile[0].codec_name == "ppm_plain"
    if is_plain and image.width * image.height > MAX_PLAIN_PNM_PIXELS:
        raise Rejected(
            FailureReason.TOO_MANY_PIXELS,
            f"{image.width} x {image.height} as text; the limit is"
            f" {MAX_PLAIN_PNM_PIXELS // 1_000_000} megapixels",
        )
