"""Read the frames of an animation, or the pages of a document: how many, how long, their digests.

A file can claim any number of frames, and most formats decode a frame only after all before it. So
what is read is bounded, in frames and in pixels; what lies beyond is only counted.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes.metadata import FRAMES, MAX_DIGESTS, MAX_NUMBER, PAGES, Frames
from indexes.records import FLAG_ANIMATED, FLAG_PAGES
from pipeline.decode.metadata import exif
from pipeline.decode.metadata.frame_digest import (
    FRAME_DIGEST_SIDE,
    STILL_DIGEST_SIDE,
    format_digest,
    parse_digest,
)
from pipeline.decode.pixels.color import convert_to_8_bit, convert_to_srgb, get_icc_profile
from pipeline.decode.pixels.pixel_hash import hash_pixels
from pipeline.decode.pixels.resize import apply_orientation, preprocess_image
from pipeline.decode.preprocess import Preprocess

# Formats whose frames are read, one after the other.
FLAG_BY_FORMAT = {
    "GIF": FLAG_ANIMATED,
    "WEBP": FLAG_ANIMATED,
    "PNG": FLAG_ANIMATED,
    "AVIF": FLAG_ANIMATED,
    "TIFF": FLAG_PAGES,
    "HEIF": FLAG_PAGES,
}
# Formats whose further images are counted alone: decoding one costs as much as a whole photo, and
# in an MPO they are previews, or a second eye's view.
COUNTED_FORMATS = {"HEIF", "MPO"}
# How many frames, and how many pixels, are decoded of a file. 1,000 photos of 320 x 240
# take 0.7 s as a GIF, 0.6 s as a WebP or AVIF, 2.1 s as a PNG.
MAX_DECODED_FRAMES = 1_000
MAX_FRAME_DIGESTS = 32  # of an animation, whose frames are alike; a document has MAX_DIGESTS
CHECKSUM_CHARS = 16  # of the hash of the pixels of a page
MAX_DECODED_PIXELS = 80_000_000
MAX_COUNTED_PAGES = 2_000  # of a TIFF; Pillow's time grows with their square
MAX_DURATION_MS = MAX_NUMBER
NEW_SUBFILE_TYPE_TAG = 254  # TIFF 6.0, section 8
REDUCED_RESOLUTION_BIT = 1
# The greatest standard deviation, in gray levels, of the difference of an image and its preview.
MAX_PREVIEW_DIFFERENCE_LEVELS = 4.0
FRAME_INPUT = Preprocess(192, "squash", "box")


@dataclass(frozen=True)
class FramesRead:
    """The frames of a file, and the position of the one that stands for it.

    That is the first, or where it is featureless the first that is not, of those that have digests.
    """

    frames: Frames
    shown: int = 0


def read_frames(data: bytes, format_: str, allowed_formats: tuple[str, ...]) -> FramesRead:
    """Read the frames of a file whose first frame can be opened; nothing is raised because of it.

    Up to MAX_FRAME_DIGESTS frames, or MAX_DIGESTS pages, evenly placed among the first
    MAX_DECODED_FRAMES, get a digest, as far as MAX_DECODED_PIXELS reach.
    """
    kind = PAGES if FLAG_BY_FORMAT.get(format_) == FLAG_PAGES else FRAMES
    with Pillow.open(io.BytesIO(data), formats=allowed_formats) as image:
        count = _count_frames(image)
        if format_ in COUNTED_FORMATS:
            return FramesRead(Frames(count, kind if format_ in FLAG_BY_FORMAT else None))
        walk = _Walk(image, count, kind == PAGES)
        walk.run()
    if walk.count == 1:
        return FramesRead(Frames(1))
    duration = walk.duration_ms if kind == FRAMES and walk.decoded == walk.count else 0
    frames = Frames(walk.count, kind, duration or None, tuple(walk.digests), tuple(walk.checksums))
    return FramesRead(frames, walk.shown or 0)


def has_more_frames(image: Pillow.Image) -> bool:
    """Tell if more frames follow the first, also where they are broken."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return True


def place_digests(count: int, has_pages: bool = False) -> list[int]:
    """Return the positions of the frames that get a digest: all, or some that are evenly placed."""
    reach = min(count, MAX_DECODED_FRAMES)
    most = MAX_DIGESTS if has_pages else MAX_FRAME_DIGESTS
    if reach <= most:
        return list(range(reach))
    return [round(index * (reach - 1) / (most - 1)) for index in range(most)]


def _count_frames(image: Pillow.Image) -> int:
    """Count the frames of an image, at least one; of a TIFF, at most MAX_COUNTED_PAGES."""
    if image.format != "TIFF":
        try:
            return min(max(1, int(getattr(image, "n_frames", 1))), MAX_NUMBER)
        except Exception:
            return 1
    count = 1
    with suppress(Exception):
        while count < MAX_COUNTED_PAGES:
            image.seek(count)
            count += 1
    return count


def make_digest(rgb: NDArray[np.uint8], side: int) -> str:
    """Make the digest, of `side` x `side` cells, of an RGB image (height, width, 3)."""
    cells = Pillow.fromarray(rgb).resize((side, side), Pillow.Resampling.BOX)
    return format_digest(np.asarray(cells.convert("L")))


def add_still_digest(frames: Frames | None, pixels: NDArray[np.uint8]) -> Frames:
    """Add the digest of the decoded image, whose RGB pixels show all of it, if no frame has one."""
    frames = frames or Frames(1)
    if frames.digests:
        return frames
    return replace(frames, digests=(make_digest(pixels, STILL_DIGEST_SIDE),))


class _Walk:
    """Decodes the frames of an image in their order, and keeps what is known of them."""

    def __init__(self, image: Pillow.Image, count: int, is_random_access: bool) -> None:
        """Start at the first of `count` frames; with random access, a broken one is passed over."""
        self.image, self.count, self.is_random_access = image, count, is_random_access
        self.digests: list[str] = []
        self.checksums: list[str] = []
        self.shown: int | None = None
        self.decoded = 0
        self.duration_ms = 0
        self._pixels = 0
        self._first_size = (0, 0)
        self._orientation: int | None = None

    def run(self) -> None:
        """Decode frames until the last that gets a digest, a broken one, or the limit."""
        positions = place_digests(self.count, self.is_random_access)
        with_digest = set(positions)
        for position in positions if self.is_random_access else range(positions[-1] + 1):
            try:
                if not self._decode(position):
                    break
                if position in with_digest:
                    self._add_digest(position)
            except Exception:
                # Broken files make decoders raise anything.
                if not self.is_random_access:
                    self.count = max(1, position)
                    break
                self.digests.append("")
                self.checksums.append("")

    def _decode(self, position: int) -> bool:
        """Decode a frame; return False, and do not, if it exceeds the limit."""
        self.image.seek(position)
        self._pixels += self.image.width * self.image.height
        if self._pixels > MAX_DECODED_PIXELS and position > 0:
            return False
        self.image.load()
        self.decoded += 1
        duration = self.image.info.get("duration")
        if isinstance(duration, int | float) and 0 <= duration < MAX_DURATION_MS:
            self.duration_ms = min(MAX_DURATION_MS, self.duration_ms + round(duration))
        return True

    def _add_digest(self, position: int) -> None:
        if self._orientation is None:
            self._orientation = exif.read_orientation(exif.read_tags(self.image), 1)
        upright = apply_orientation(self.image, self._orientation)
        profile = get_icc_profile(upright)
        eight_bit = convert_to_8_bit(upright, getattr(self.image, "tag_v2", {}))
        to_rgb = partial(convert_to_srgb, profile=profile)
        pixels, is_featureless = preprocess_image(eight_bit, FRAME_INPUT, to_rgb)
        digest = make_digest(pixels, FRAME_DIGEST_SIDE)
        if position == 0:
            self._first_size = self.image.size
        elif self.is_random_access and self._is_preview(digest):
            self.count -= 1
            return
        self.digests.append(digest)
        if self.is_random_access:
            self.checksums.append(hash_pixels(upright, eight_bit).hex()[:CHECKSUM_CHARS])
        if self.shown is None and not is_featureless:
            self.shown = position

    def _is_preview(self, digest: str) -> bool:
        """Tell if a page says that it is a smaller version of another, or is one of the first."""
        kind = getattr(self.image, "tag_v2", {}).get(NEW_SUBFILE_TYPE_TAG)
        if isinstance(kind, int) and kind & REDUCED_RESOLUTION_BIT:
            return True
        first, own = parse_digest(self.digests[0]), parse_digest(digest)
        if first is None or own is None or self.image.width >= self._first_size[0]:
            return False
        return bool((first - own).std() <= MAX_PREVIEW_DIFFERENCE_LEVELS)
