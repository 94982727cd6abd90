"""Tell what an image lost, whatever format it is kept in now: colors, depth, detail.

It compares the fidelity that was measured at decoding; an unknown value never counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexes.metadata import Fidelity, ImageMetadata
from indexes.records import FLAG_PREVIEW, Image
from pipeline.grouping.copy_views import Views

# Blockiness from which an image was compressed strongly, now or before it was saved again. Of 60
# photos compressed at quality 12, 43 have it when saved as PNG, 38 as HEIC, 41 as AVIF, 37 as WebP;
# at quality 25, 31, 2, 7 and 7. Of 1,231 photos, frames and screenshots as they came, 5 have it:
# three frames of videos, and two photos with visible blocks.
MIN_STRONG_BLOCKINESS = 0.25
MAX_STRONG_QUALITY = 20  # of a JPEG; of one at this quality, about as many have that blockiness
# Blockiness from which an image in another format holds what was a JPEG, so that a JPEG of good
# quality beside it was there before. Of 150 photos saved as PNG after a quality of 25, 60 and 80,
# .92, .63 and .26 have it, after a WebP of 50 .30; of the photos made smaller, which has no traces,
# .03.
MIN_RESAVED_BLOCKINESS = 0.08
JPEG_BIT_DEPTH = 8
# Formats of files that are larger than the lossy file that they were saved from.
LOSSLESS_FORMATS = {"PNG", "BMP", "GIF", "TIFF", "PPM"}
# Formats whose files, as a rule, do not hold all that was encoded.
LOSSY_FORMATS = {"JPEG", "MPO", "HEIF", "AVIF", "WEBP", "JXL", "JPEG2000"}
MIN_GOOD_QUALITY = 80  # of a JPEG
# Colors, or gray levels, up to which an image has few: a palette, a fax. MIN_COLOR_RATIO times as
# many are counted.
MAX_FEW_COLORS = 256
MAX_FEW_GRAY_LEVELS = 64
MIN_COLOR_RATIO = 3  # of the colors of a copy to those of an image that lost some
# The share of equal neighbors up to which an image is a photo or a scan, whose many colors are its
# own. The JPEG of a drawing has many by its artifacts. Of 300 photos 275 have no more, of 120 JPEGs
# of screenshots and playing cards none: 0.37 is the least.
MAX_PHOTO_EVEN_SHARE = 0.33
# Bytes of one image over those of another from which it is compressed less: in one format; where
# the other is in a format that needs half the bytes of a JPEG; and where the image is lossless,
# which takes some five times the bytes of a good JPEG.
MIN_BYTES_RATIO = 1.25
MIN_BYTES_RATIO_TO_EFFICIENT = 2.5
MIN_BYTES_RATIO_OF_LOSSLESS = 8.0
EFFICIENT_FORMATS = {"HEIF", "AVIF", "WEBP", "JXL"}


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of an image.

    `is_strongly_compressed`: now, or before it was saved in its format. `has_lost_colors`: it has
    few, and a copy of the same extent that is a photo or a scan has many. `lost_bits`: how many
    more bits a sample of the deepest copy of the same extent has. `is_resaved`: it has traces of a
    JPEG and is none, and a copy of the same extent, with as many pixels, is a JPEG of good quality.
    `is_lossless_copy`: it has no traces, but is a photo in a lossless format beside such a JPEG.
    """

    is_strongly_compressed: bool = False
    is_resaved: bool = False
    is_lossless_copy: bool = False
    has_lost_colors: bool = False
    lost_bits: int = 0


NO_LOSSES = Losses()


def find_losses(
    views: Views,
    images: Mapping[bytes, Image],
    metadata: Mapping[bytes, Sequence[ImageMetadata]],
) -> dict[bytes, Losses]:
    """Find the losses of each of `images`; `metadata` is that of all contents with its pixels."""
    return {
        image: _compare(
            image,
            metadata.get(image, ()),
            [view.copy for view in views[image] if view.has_same_extent],
            images,
            metadata,
        )
        for image in images
    }


def is_compressed_less(image: Image, other: Image) -> bool:
    """Tell if an image has at least as many pixels as another, and is compressed much less.

    It has that many more bytes, as far as two formats can be compared.
    """
    ratio = MIN_BYTES_RATIO
    if image.format in LOSSLESS_FORMATS and other.format not in LOSSLESS_FORMATS:
        ratio = MIN_BYTES_RATIO_OF_LOSSLESS
    elif other.format in EFFICIENT_FORMATS and image.format not in EFFICIENT_FORMATS:
        ratio = MIN_BYTES_RATIO_TO_EFFICIENT
    return image.pixel_count >= other.pixel_count and image.size > ratio * other.size


def was_strongly_compressed(metadata: ImageMetadata, image: Image) -> bool:
    """Tell if a file, or what it was saved from, is compressed strongly, as far as is known."""
    if FLAG_PREVIEW in image.flags:  # the raw photo is not
        return False
    blockiness = metadata.fidelity.blockiness if metadata.fidelity else None
    return (blockiness is not None and blockiness >= MIN_STRONG_BLOCKINESS) or (
        metadata.jpeg is not None and metadata.jpeg.quality <= MAX_STRONG_QUALITY
    )


def is_untouched_by_jpeg(image: Image, metadata: ImageMetadata) -> bool:
    """Tell if an image is in a lossless format and has no traces of a JPEG, as far as is known."""
    blockiness = metadata.fidelity.blockiness if metadata.fidelity else None
    return image.format in LOSSLESS_FORMATS and (blockiness or 0.0) < MIN_RESAVED_BLOCKINESS


def _compare(
    image: bytes,
    own_metadata: Sequence[ImageMetadata],
    copies: Sequence[bytes],
    images: Mapping[bytes, Image],
    metadata: Mapping[bytes, Sequence[ImageMetadata]],
) -> Losses:
    """Compare an image with its copies of the same extent."""
    own = [item.fidelity for item in own_metadata if item.fidelity]
    of_copies = [
        item.fidelity for copy in copies for item in metadata.get(copy, ()) if item.fidelity
    ]
    pixel_count = images[image].pixel_count
    copy_quality = max(
        (
            _get_quality(metadata.get(copy, ()))
            for copy in copies
            if images[copy].pixel_count >= pixel_count
        ),
        default=0,
    )
    # If a content with these pixels is a JPEG, the others were saved from that one.
    has_good_jpeg = not _get_quality(own_metadata) and copy_quality >= MIN_GOOD_QUALITY
    return Losses(
        any(was_strongly_compressed(item, images[image]) for item in own_metadata),
        has_good_jpeg and any(_has_traces_of_jpeg(item) for item in own),
        has_good_jpeg
        and images[image].format in LOSSLESS_FORMATS
        and any(_can_be_of_jpeg(item) for item in own),
        any(_has_fewer_colors(fidelity, copy) for fidelity in own for copy in of_copies),
        max(0, _find_depth(of_copies) - _find_depth(own)) if _find_depth(own) else 0,
    )


def _get_quality(metadata: Iterable[ImageMetadata]) -> int:
    """Return the best JPEG quality among contents with the same pixels; 0 if none is a JPEG."""
    return max((item.jpeg.quality for item in metadata if item.jpeg), default=0)


def _has_traces_of_jpeg(fidelity: Fidelity) -> bool:
    """Tell if a photo or scan has the blocks of a JPEG, and no more bits than one."""
    return _can_be_of_jpeg(fidelity) and (fidelity.blockiness or 0.0) >= MIN_RESAVED_BLOCKINESS


def _can_be_of_jpeg(fidelity: Fidelity) -> bool:
    """Tell if an image is a photo or a scan with no more bits than a JPEG.

    A page can have a grid of its own, and is saved as a JPEG afterwards, if ever.
    """
    return (
        fidelity.even_share <= MAX_PHOTO_EVEN_SHARE
        and (fidelity.bit_depth or JPEG_BIT_DEPTH) <= JPEG_BIT_DEPTH
    )


def _find_depth(fidelities: Iterable[Fidelity]) -> int:
    """Return the greatest bit depth that is known; 0 if none is."""
    return max((fidelity.bit_depth or 0 for fidelity in fidelities), default=0)


def _has_fewer_colors(own: Fidelity, copy: Fidelity) -> bool:
    """Tell if an image has few colors and its copy, a photograph, has many.

    That an image is gray is found by its pair, not here.
    """
    return (
        own.color_count <= (MAX_FEW_GRAY_LEVELS if own.is_gray else MAX_FEW_COLORS)
        and copy.color_count >= MIN_COLOR_RATIO * own.color_count
        and (own.is_gray or not copy.is_gray)
        and copy.even_share <= MAX_PHOTO_EVEN_SHARE
    )
