"""The reader of the formats that Pillow decodes: one frame, at a reduced size where that works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

from PIL import Image as Pillow
from PIL import PngImagePlugin

from indexes.metadata import Frames, ImageMetadata
from indexes.records import FLAG_DAMAGED
from pipeline.decode.damage.damage import JPEG_SIGNATURE, load_and_check, open_stream
from pipeline.decode.formats import FailureReason
from pipeline.decode.memory import MemoryBudget
from pipeline.decode.metadata import exif
from pipeline.decode.metadata.frames import (
    COUNTED_FORMATS,
    FLAG_BY_FORMAT,
    has_more_frames,
    read_frames,
)
from pipeline.decode.metadata.image_metadata import read_metadata
from pipeline.decode.pixels.bit_depth import has_reduced_depth, read_bit_depth
from pipeline.decode.pixels.color import (
    fix_16_bit_planes,
    has_unusual_samples,
)
from pipeline.decode.pixels.reduction import (
    choose_jpeg2000_factor,
    has_same_jpeg_scale,
    reduce_jpeg,
    reduce_jpeg2000,
)
from pipeline.decode.pixels.truncation import JPEG_END_MARKER, is_mostly_filler
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
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
# Share of its rows above the damage from which an image is known by them.
MIN_SOUND_SHARE = 0.25


@dataclass(frozen=True)
class OpenImage:
    """An image as its reader decoded it: not turned, in its own mode."""

    image: Pillow.Image
    size: tuple[int, int]  # width and height of the image, upright
    orientation: int  # EXIF orientation that is still to be applied
    format: str
    flags: tuple[str, ...]
    exif_tags: Mapping[int, Any]
    metadata: ImageMetadata
    tiff_tags: Mapping[int, Any]
    bit_depth: int | None  # of the samples in the file, 8 for fewer; None if not known
    # The decoded pixels are fewer, or less precise, than those of the file: an image that equals
    # no other, so that its pixel hash is the hash of its bytes.
    is_partial: bool
    # The bytes of a JPEG that was decoded at a reduced size: they are hashed, not the pixels.
    reduced_jpeg: bytes | None = None
    # The decoded pixels are those that would be decoded for VERIFY_INPUT.
    suits_thumbnail: bool = True


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


@contextmanager
def open_with_pillow(
    data: bytes, preprocess: Preprocess, budget: MemoryBudget, default_orientation: int = 1
) -> Iterator[OpenImage]:
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
        opened = _crop_to_sound_part(opened)
        orientation = exif.read_orientation(opened.exif_tags, default_orientation)
        if orientation in (5, 6, 7, 8):
            opened = replace(opened, size=(opened.size[1], opened.size[0]))
        yield replace(opened, orientation=orientation)


def _crop_to_sound_part(opened: OpenImage) -> OpenImage:
    """Cut off the rows from which on an image is damaged, if enough of it is left.

    The rest says nothing of the image: it would keep a damaged copy from its sound one.
    """
    start = opened.metadata.damage_start
    if start is None or not MIN_SOUND_SHARE <= start < 1:
        return opened
    width, height = opened.image.size
    rows, full_rows = round(height * start), round(opened.size[1] * start)
    if not rows or not full_rows:
        return opened
    sound = opened.image.crop((0, 0, width, rows))
    return replace(opened, image=sound, size=(opened.size[0], full_rows))


def _load_with_pillow(
    data: bytes,
    preprocess: Preprocess,
    budget: MemoryBudget,
    held: ExitStack,
    is_cut: bool = False,
) -> OpenImage:
    """Decode an image, its first frame, at a reduced size where its format can.

    The result lives, and its memory is reserved, until `held` is closed. `is_cut`: the end of a
    JPEG was missing.
    """
    stream = open_stream(data)
    image = held.enter_context(Pillow.open(stream, formats=ALLOWED_FORMATS))
    size, format_ = image.size, image.format or "?"
    _require_readable_pnm(image)
    can_reduce = preprocess.fit != "middle"  # which crops the pixels of the file
    is_jpeg, is_jpeg2000 = format_ in ("JPEG", "MPO"), format_ == "JPEG2000"
    is_reduced_jpeg = can_reduce and is_jpeg and reduce_jpeg(image, preprocess)
    reduction = reduce_jpeg2000(image, data, preprocess) if can_reduce and is_jpeg2000 else 1
    has_same_scale = True
    if is_jpeg:
        has_same_scale = can_reduce and has_same_jpeg_scale(size, preprocess, VERIFY_INPUT)
    elif is_jpeg2000:
        has_same_scale = reduction == choose_jpeg2000_factor(size, data, VERIFY_INPUT)
    flags, frames = _show_representative_frame(image, data, budget)
    if frames:
        size = image.size
    tiff_tags = getattr(image, "tag_v2", {})
    fix_16_bit_planes(image, tiff_tags)
    # A JPEG 2000 can have a profile that Pillow does not report.
    bit_depth = read_bit_depth(image, data)
    has_all_samples = not has_unusual_samples(image.mode, tiff_tags) and not has_reduced_depth(
        image.mode, bit_depth
    )
    is_partial = bool(flags) or is_jpeg2000 or not has_all_samples
    progressive_pixels = size[0] * size[1] if _is_progressive(image) else 0
    held.enter_context(budget.reserve(image.width, image.height, reduction, progressive_pixels))
    damage = load_and_check(image, stream, is_cut)
    exif_tags = _read_tags_of_others(image)
    start = damage.start if damage else None
    metadata = replace(read_metadata(image, exif_tags), frames=frames, damage_start=start)
    return OpenImage(
        # Pillow's mode for the 16 bits of a PGM does not say how many they are.
        image=image.convert("I;16") if format_ == "PPM" and image.mode == "I" else image,
        size=size,
        orientation=1,
        format=format_,
        flags=(*flags, FLAG_DAMAGED) if damage else flags,
        exif_tags=exif_tags,
        metadata=metadata,
        tiff_tags=tiff_tags,
        bit_depth=bit_depth,
        is_partial=is_partial or damage is not None,
        reduced_jpeg=data if is_reduced_jpeg else None,
        suits_thumbnail=has_same_scale,
    )


def _is_progressive(image: Pillow.Image) -> bool:
    return bool(image.info.get("progressive") or image.info.get("progression"))


def _read_tags_of_others(image: Pillow.Image) -> dict[int, Any]:
    """Read the EXIF tags of an image; raise Rejected if neardup made it."""
    tags = exif.read_tags(image)
    if exif.is_own_picture(tags, image.info.get("comment")):
        raise Rejected(FailureReason.MADE_BY_NEARDUP)
    return tags


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
    return (flag,) if flag and read.frames.count > 1 else (), read.frames


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
