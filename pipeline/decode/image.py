"""The bytes of a file become its upright sRGB pixels at the embedder's size, or the reason why there are none.

Photos are hostile input. What is opened is on an allow-list of formats, its size is checked from the header before a pixel is decoded, and
whatever a decoder raises becomes the reason why that file is refused.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from math import ceil
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from indexes.records import Image
from pipeline.decode import exif
from pipeline.decode.color import (
    BITS_PER_SAMPLE_TAG,
    SAMPLE_FORMAT_TAG,
    convert_to_8_bit,
    convert_to_srgb,
    get_icc_profile,
    has_unusual_samples,
    split_into_strips,
)
from pipeline.decode.container import NotRaw, extract_from_jxl, extract_from_raw, is_jxl
from pipeline.decode.pixel_hash import hash_jpeg_stream, hash_pixels
from pipeline.decode.preprocess import DecodedImage, Preprocess
from pipeline.decode.read import (
    FLAG_ANIMATED,
    FLAG_DAMAGED,
    FLAG_PAGES,
    SIGNATURE_BYTES,
    Rejected,
    has_image_signature,
)
from pipeline.decode.resize import apply_orientation, preprocess_image

ALLOWED_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "AVIF",
    "HEIF",
    "JPEG2000",
)  # an MPO opens as a JPEG
PLUGIN_MODULE_BY_FORMAT = {
    "WEBP": "WebP",
    "JPEG2000": "Jpeg2K",
}  # where a plugin's module is not named as its format
MAX_PIXELS = (
    100_000_000  # after a JPEG's draft; Pillow takes 4 bytes for each, twice while converting
)
MAX_PROGRESSIVE_PIXELS = 200_000_000  # a progressive JPEG keeps all coefficients, whatever its draft: 3 to 6 bytes a pixel
MAX_PNG_CHUNK_BYTES = (
    1 << 24
)  # bytes of a PNG's text or profile; Pillow's own limit of a million refuses pictures with a press's profile
MAX_PARALLEL_PIXELS = 16_000_000  # what has more is decoded one file at a time, so that memory is bounded by one of them

PLANAR_CONFIGURATION_TAG = 0x011C  # a TIFF tag
JPEG_SIGNATURE, JPEG_END_MARKER, JPEG2000_CODESTREAM_START = (
    b"\xff\xd8\xff",
    b"\xff\xd9",
    b"\xff\x4f\xff\x51",
)  # how a JPEG begins and ends, and how a JPEG 2000's code begins
# What it is called that a format has more than one frame. An MPO's others are previews, or the same seen by another eye.
MULTIFRAME_FLAG_BY_FORMAT = {
    "GIF": FLAG_ANIMATED,
    "WEBP": FLAG_ANIMATED,
    "PNG": FLAG_ANIMATED,
    "AVIF": FLAG_ANIMATED,
    "TIFF": FLAG_PAGES,
    "HEIF": FLAG_PAGES,
}

_memory_lock = threading.Lock()


@cache
def load_format_plugins() -> None:
    """Load the decoders on the list and no others; take over Pillow's pixel limit, which refuses phone photos of 200 megapixels."""
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
    memory_lock: AbstractContextManager[object] = _memory_lock,
) -> DecodedImage:
    """What the bytes of a file, of which `digest` is the blake3, show at `view`; `raw`: its name is that of a raw photo.

    JPEGs and JPEG 2000 are decoded at the smallest scale that is twice the view's size or more, or a coarse view's own, a first frame
    stands for an animation, and the camera's preview for a raw photo. Transparency is laid on white. A JPEG whose end is missing is shown
    when half of its rows are there, and noted as damaged. What needs much memory is decoded within `turn`. Raises Refused, and nothing
    else, for what the bytes are; and ImportError where a decoder is not there.
    """
    load_format_plugins()
    try:
        if is_raw:
            try:
                return _decode_container(data, digest, preprocess, is_raw, memory_lock)
            except NotRaw as refused:
                # Whatever it is called: the image is its bytes, and another name may have brought it here, or will.
                if not has_image_signature(data[:SIGNATURE_BYTES]):
                    raise
                try:
                    return _decode_or_salvage(data, digest, preprocess, memory_lock)
                except UnidentifiedImageError:
                    raise refused from None
        if is_jxl(data):
            return _decode_container(data, digest, preprocess, is_raw, memory_lock)
        return _decode_or_salvage(data, digest, preprocess, memory_lock)
    except (Rejected, ImportError):  # a broken installation says nothing of the file
        raise
    except UnidentifiedImageError as error:
        raise Rejected(*_explain_unidentified(data)) from error
    except MemoryError as error:
        raise Rejected("too much memory", "") from error
    except Exception as error:  # broken files make decoders raise anything; a bug of ours shows in the tests of sound files
        detail = " ".join(str(error).split()) or type(error).__name__
        raise Rejected(
            "truncated"
            if "truncated" in detail.lower() or isinstance(error, EOFError)
            else "damaged",
            detail,
        ) from error


def _decode_container(
    data: bytes,
    digest: bytes,
    preprocess: Preprocess,
    is_raw: bool,
    memory_lock: AbstractContextManager[object],
) -> DecodedImage:
    """As picture(), for what holds a JPEG or pixels that are not Pillow's to decode. It equals nothing but itself."""

    def room(width: int, height: int) -> AbstractContextManager[object]:
        if width * height > MAX_PIXELS:
            raise _make_pixel_limit_error(width, height)
        return memory_lock if width * height > MAX_PARALLEL_PIXELS else nullcontext()

    inside = (
        extract_from_raw(data, room, preprocess.size) if is_raw else extract_from_jxl(data, room)
    )
    if isinstance(inside.jpeg_or_image, bytes):
        if not inside.jpeg_or_image.startswith(JPEG_SIGNATURE):
            raise Rejected("damaged", "no JPEG is where there should be one")
        image, fitted = _decode_or_salvage(
            inside.jpeg_or_image, digest, preprocess, memory_lock, inside.orientation
        )
        size, featureless, notes = (
            inside.full_size or (image.width, image.height),
            image.is_featureless,
            (*inside.flags, *image.flags),
        )
        about = image.metadata, image.taken_at
    else:
        profile = get_icc_profile(inside.jpeg_or_image)
        fitted, featureless = preprocess_image(
            convert_to_8_bit(inside.jpeg_or_image, {}),
            preprocess,
            lambda small: convert_to_srgb(small, profile),
        )
        size, notes = inside.full_size or inside.jpeg_or_image.size, inside.flags
        told = exif.read_tags(inside.jpeg_or_image)
        about = exif.find_metadata_kinds(told), exif.read_date_taken(told)
    return Image(
        digest, digest, *size, inside.format, len(data), featureless, notes, *about
    ), fitted


def _decode_or_salvage(
    data: bytes,
    digest: bytes,
    preprocess: Preprocess,
    memory_lock: AbstractContextManager[object],
    orientation: int = 1,
) -> DecodedImage:
    try:
        return _decode_with_pillow(data, digest, preprocess, memory_lock, orientation)
    except OSError as error:
        if not data.startswith(JPEG_SIGNATURE) or "truncated" not in str(error):
            raise
    return _decode_with_pillow(
        data + JPEG_END_MARKER, digest, preprocess, memory_lock, orientation, is_damaged=True
    )


def _decode_with_pillow(
    data: bytes,
    digest: bytes,
    preprocess: Preprocess,
    memory_lock: AbstractContextManager[object],
    orientation: int,
    is_damaged: bool = False,
) -> DecodedImage:
    """As picture(), with the `orientation` of what says none itself.

    `damaged`: the data had no end, and was given one, so that libjpeg fills the rest with grey.
    """
    with Pillow.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as opened:
        width, height = opened.size
        format_ = opened.format or "?"
        smaller = preprocess.fit != "middle"  # that is wanted as the file has it
        drafted = smaller and format_ in ("JPEG", "MPO") and _draft_jpeg(opened, preprocess)
        scale = (
            _reduce_jpeg2000(opened, data, preprocess) if smaller and format_ == "JPEG2000" else 1
        )
        frames = (
            MULTIFRAME_FLAG_BY_FORMAT[format_]
            if format_ in MULTIFRAME_FLAG_BY_FORMAT and _has_more_frames(opened)
            else None
        )
        tags = getattr(opened, "tag_v2", {})
        _fix_16_bit_planes(opened, tags)
        # What was decoded is less than what is there, or than what it was: it equals nothing but itself. A JPEG 2000 may have a profile
        # that Pillow does not tell of, and what the numbers of deep grey mean is in its tags.
        alone = (
            is_damaged
            or frames
            or format_ == "JPEG2000"
            or has_unusual_samples(opened.mode, tags)
            or _has_reduced_depth(opened)
        )
        with memory_lock if _is_memory_heavy(opened, width * height, scale) else nullcontext():
            opened.load()
            if is_damaged and _is_mostly_filler(opened):
                raise Rejected("truncated", "less than half of it is there")
            told = exif.read_tags(opened)
            orientation = exif.read_orientation(told, orientation)
            turned = apply_orientation(opened, orientation)
            if orientation in (5, 6, 7, 8):
                width, height = height, width
            plain = convert_to_8_bit(turned, tags)
            if alone:
                pixels = digest
            elif drafted:
                pixels = hash_jpeg_stream(data, opened, orientation)
            else:
                pixels = hash_pixels(turned, plain)
            profile = get_icc_profile(turned)
            fitted, featureless = preprocess_image(
                plain, preprocess, lambda small: convert_to_srgb(small, profile)
            )
    notes = tuple(note for note in (frames, FLAG_DAMAGED if is_damaged else None) if note)
    size = len(data) - len(JPEG_END_MARKER) * is_damaged
    return Image(
        digest,
        pixels,
        width,
        height,
        format_,
        size,
        featureless,
        notes,
        exif.find_metadata_kinds(told),
        exif.read_date_taken(told),
    ), fitted


def _explain_unidentified(data: bytes) -> tuple[str, str]:
    """Reason and detail for what no decoder opens."""
    if data.startswith((b"II", b"MM")):
        file = io.BytesIO(data)
        try:
            directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
            bits, kind = directory[BITS_PER_SAMPLE_TAG], directory.get(SAMPLE_FORMAT_TAG, (1,))[0]
            TiffImagePlugin.TiffImageFile(io.BytesIO(data)).close()
        except Exception as error:
            if "unknown pixel mode" in str(error):  # sound, but not among those that Pillow reads
                what = {1: "whole numbers", 2: "signed numbers", 3: "floats"}.get(kind, "samples")
                return "not supported", f"a TIFF with {bits[0]}-bit {what}, {len(bits)} a pixel"
    return "no picture inside", "no decoder knows it"


def _fix_16_bit_planes(image: Pillow.Image, tags: Mapping[int, Any]) -> None:
    """Tell Pillow that the planes of a TIFF have 16 bits: uncompressed ones it takes for 8, and shows noise."""
    if tags.get(PLANAR_CONFIGURATION_TAG) == 2 and set(tags.get(BITS_PER_SAMPLE_TAG, ())) == {16}:
        kind = ";16" + ("B" if tags.prefix == b"MM" else "L")  # type: ignore[attr-defined] # Pillow's own mapping
        image.tile = [  # type: ignore[attr-defined] # as below
            tile._replace(args=(tile.args[0] + kind, *tile.args[1:]))
            if tile.codec_name == "raw"
            else tile
            for tile in image.tile  # type: ignore[attr-defined]
        ]


def _has_reduced_depth(image: Pillow.Image) -> bool:
    """Whether Pillow will give 8 bits of colour samples that have more."""
    arguments = image.tile[0].args if image.tile else ""  # type: ignore[attr-defined] # of every picture that was opened from a file
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    deep = isinstance(raw_mode, str) and "16" in raw_mode and not image.mode.startswith("I")
    return deep or int(image.info.get("bit_depth") or 8) > 8


def _draft_jpeg(image: Pillow.Image, preprocess: Preprocess) -> bool:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where that still leaves twice the view's size, or the pixels of a coarse one."""
    before, twice = image.size, 2 * preprocess.size
    ratio = preprocess.size / max(before)
    image.draft(
        "RGB",
        (ceil(ratio * before[0]), ceil(ratio * before[1])) if preprocess.coarse else (twice, twice),
    )
    return image.size != before


def _reduce_jpeg2000(image: Pillow.Image, data: bytes, preprocess: Preprocess) -> int:
    """Let OpenJPEG decode a JPEG 2000 at 1/2, 1/4 ... where that leaves twice the view's size; returns what sides are divided by."""
    at = data.find(JPEG2000_CODESTREAM_START)
    if at < 0 or any(
        data[at + 16 : at + 24]
    ):  # a picture that does not begin at 0, 0 has other sizes
        return 1
    at += 2
    while at + 10 <= len(data) and data[at + 1] not in (
        0x52,
        0x90,
    ):  # how it is coded, or the first tile
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    levels = data[at + 9] if at + 10 <= len(data) and data[at + 1] == 0x52 else 0
    # Pillow rounds a size where OpenJPEG takes the next whole number: only where both agree.
    scales = [1 << level for level in range(min(levels, 8) + 1)]
    right = [
        scale
        for scale in scales
        if min(image.size) >= 2 * preprocess.size * scale
        and all(side % scale == 0 or side % scale * 2 >= scale for side in image.size)
    ]
    scale = max(right, default=1)
    image.reduce = scale.bit_length() - 1  # type: ignore[method-assign, assignment] # the plugin's own
    return scale


def _has_more_frames(image: Pillow.Image) -> bool:
    """Whether more frames follow the first; also when they are broken."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return True


def _is_mostly_filler(image: Pillow.Image) -> bool:
    """Whether more than half of a picture is the grey that libjpeg fills in for what is missing.

    Half: then most of what is seen is the picture. Measured on 200 photos with neardup-0, whose threshold is .85: no two that are cut at
    half come above .73, and .82 at a quarter; a cut photo matches the whole one in 0 of 100 at a quarter, 26 at half, 95 at three quarters.
    """
    filled = 0
    for box in split_into_strips(image):
        near = np.asarray(image.crop(box)) - np.uint8(127) <= 2  # below 127 it wraps around
        filled += int(np.count_nonzero(near if near.ndim == 2 else near.all(axis=2)))
    return 2 * filled > image.width * image.height


def _is_memory_heavy(image: Pillow.Image, full_pixels: int, scale: int) -> bool:
    """Whether it takes much memory, when its sides are divided by `scale`; refuses what would take too much."""
    pixels = image.width * image.height // scale**2
    progressive = bool(image.info.get("progressive") or image.info.get("progression"))
    if pixels > MAX_PIXELS:
        raise _make_pixel_limit_error(image.width, image.height)
    if progressive and full_pixels > MAX_PROGRESSIVE_PIXELS:
        raise Rejected(
            "too many pixels",
            f"a progressive JPEG of {full_pixels:,} pixels; the limit is {MAX_PROGRESSIVE_PIXELS // 1_000_000} megapixels",
        )
    return max(pixels, full_pixels if progressive else 0) > MAX_PARALLEL_PIXELS


def _make_pixel_limit_error(width: int, height: int) -> Rejected:
    return Rejected(
        "too many pixels", f"{width} x {height}; the limit is {MAX_PIXELS // 1_000_000} megapixels"
    )
