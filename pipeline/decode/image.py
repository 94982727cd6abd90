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

from indexes import Image
from pipeline.decode import exif
from pipeline.decode.color import BITS_PER_SAMPLE, SAMPLE_FORMAT, as_srgb, eight_bit, is_odd, profile_of, strips
from pipeline.decode.container import NotRaw, from_jxl, from_raw, is_jxl
from pipeline.decode.pixel_hash import pixel_hash, stream_hash
from pipeline.decode.preprocess import Picture, View
from pipeline.decode.read import ANIMATED, DAMAGED, HEAD, PAGES, Refused, is_photo
from pipeline.decode.resize import fit, upright

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000")  # an MPO opens as a JPEG
PLUGINS = {"WEBP": "WebP", "JPEG2000": "Jpeg2K"}  # where a plugin's module is not named as its format
MAX_PIXELS = 100_000_000  # after a JPEG's draft; Pillow takes 4 bytes for each, twice while converting
MAX_PROGRESSIVE = 200_000_000  # a progressive JPEG keeps all coefficients, whatever its draft: 3 to 6 bytes a pixel
MAX_CHUNK = 1 << 24  # bytes of a PNG's text or profile; Pillow's own limit of a million refuses pictures with a press's profile
HEAVY_PIXELS = 16_000_000  # what has more is decoded one file at a time, so that memory is bounded by one of them

PLANAR = 0x011C  # a TIFF tag
JPEG, END, J2K = b"\xff\xd8\xff", b"\xff\xd9", b"\xff\x4f\xff\x51"  # how a JPEG begins and ends, and how a JPEG 2000's code begins
# What it is called that a format has more than one frame. An MPO's others are previews, or the same seen by another eye.
FRAMES = {"GIF": ANIMATED, "WEBP": ANIMATED, "PNG": ANIMATED, "AVIF": ANIMATED, "TIFF": PAGES, "HEIF": PAGES}

_heavy = threading.Lock()


@cache
def prepare() -> None:
    """Load the decoders on the list and no others; take over Pillow's pixel limit, which refuses phone photos of 200 megapixels."""
    import pillow_heif

    for name in FORMATS:
        if name != "HEIF":
            import_module(f"PIL.{PLUGINS.get(name, name.title())}ImagePlugin")

    pillow_heif.register_heif_opener(thumbnails=False)
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_CHUNK
    Pillow.MAX_IMAGE_PIXELS = None


def picture(data: bytes, digest: bytes, view: View, raw: bool = False, turn: AbstractContextManager[object] = _heavy) -> Picture:
    """What the bytes of a file, of which `digest` is the blake3, show at `view`; `raw`: its name is that of a raw photo.

    JPEGs and JPEG 2000 are decoded at the smallest scale that is twice the view's size or more, or a coarse view's own, a first frame
    stands for an animation, and the camera's preview for a raw photo. Transparency is laid on white. A JPEG whose end is missing is shown
    when half of its rows are there, and noted as damaged. What needs much memory is decoded within `turn`. Raises Refused, and nothing
    else, for what the bytes are; and ImportError where a decoder is not there.
    """
    prepare()
    try:
        if raw:
            try:
                return _unwrapped(data, digest, view, raw, turn)
            except NotRaw as refused:
                # Whatever it is called: the image is its bytes, and another name may have brought it here, or will.
                if not is_photo(data[:HEAD]):
                    raise
                try:
                    return _whole_or_cut(data, digest, view, turn)
                except UnidentifiedImageError:
                    raise refused from None
        if is_jxl(data):
            return _unwrapped(data, digest, view, raw, turn)
        return _whole_or_cut(data, digest, view, turn)
    except (Refused, ImportError):  # a broken installation says nothing of the file
        raise
    except UnidentifiedImageError as error:
        raise Refused(*_unknown(data)) from error
    except MemoryError as error:
        raise Refused("too much memory", "") from error
    except Exception as error:  # broken files make decoders raise anything; a bug of ours shows in the tests of sound files
        detail = " ".join(str(error).split()) or type(error).__name__
        raise Refused("truncated" if "truncated" in detail.lower() or isinstance(error, EOFError) else "damaged", detail) from error


def _unwrapped(data: bytes, digest: bytes, view: View, raw: bool, turn: AbstractContextManager[object]) -> Picture:
    """As picture(), for what holds a JPEG or pixels that are not Pillow's to decode. It equals nothing but itself."""

    def room(width: int, height: int) -> AbstractContextManager[object]:
        if width * height > MAX_PIXELS:
            raise _too_many(width, height)
        return turn if width * height > HEAVY_PIXELS else nullcontext()

    inside = from_raw(data, room, view.size) if raw else from_jxl(data, room)
    if isinstance(inside.shown, bytes):
        if not inside.shown.startswith(JPEG):
            raise Refused("damaged", "no JPEG is where there should be one")
        image, fitted = _whole_or_cut(inside.shown, digest, view, turn, inside.orientation)
        size, featureless, notes = inside.size or (image.width, image.height), image.featureless, (*inside.notes, *image.notes)
        about = image.metadata, image.taken
    else:
        profile = profile_of(inside.shown)
        fitted, featureless = fit(eight_bit(inside.shown, {}), view, lambda small: as_srgb(small, profile))
        size, notes = inside.size or inside.shown.size, inside.notes
        told = exif.tags_of(inside.shown)
        about = exif.metadata(told), exif.taken(told)
    return Image(digest, digest, *size, inside.format, len(data), featureless, notes, *about), fitted


def _whole_or_cut(data: bytes, digest: bytes, view: View, turn: AbstractContextManager[object], orientation: int = 1) -> Picture:
    try:
        return _shown(data, digest, view, turn, orientation)
    except OSError as error:
        if not data.startswith(JPEG) or "truncated" not in str(error):
            raise
    return _shown(data + END, digest, view, turn, orientation, damaged=True)


def _shown(
    data: bytes, digest: bytes, view: View, turn: AbstractContextManager[object], orientation: int, damaged: bool = False
) -> Picture:
    """As picture(), with the `orientation` of what says none itself.

    `damaged`: the data had no end, and was given one, so that libjpeg fills the rest with grey.
    """
    with Pillow.open(io.BytesIO(data), formats=FORMATS) as opened:
        width, height = opened.size
        format_ = opened.format or "?"
        smaller = view.fit != "middle"  # that is wanted as the file has it
        drafted = smaller and format_ in ("JPEG", "MPO") and _draft(opened, view)
        scale = _reduce(opened, data, view) if smaller and format_ == "JPEG2000" else 1
        frames = FRAMES[format_] if format_ in FRAMES and _has_more(opened) else None
        tags = getattr(opened, "tag_v2", {})
        _mend_planes(opened, tags)
        # What was decoded is less than what is there, or than what it was: it equals nothing but itself. A JPEG 2000 may have a profile
        # that Pillow does not tell of, and what the numbers of deep grey mean is in its tags.
        alone = damaged or frames or format_ == "JPEG2000" or is_odd(opened.mode, tags) or _is_reduced(opened)
        with turn if _is_heavy(opened, width * height, scale) else nullcontext():
            opened.load()
            if damaged and _is_filler(opened):
                raise Refused("truncated", "less than half of it is there")
            told = exif.tags_of(opened)
            orientation = exif.orientation(told, orientation)
            turned = upright(opened, orientation)
            if orientation in (5, 6, 7, 8):
                width, height = height, width
            plain = eight_bit(turned, tags)
            if alone:
                pixels = digest
            elif drafted:
                pixels = stream_hash(data, opened, orientation)
            else:
                pixels = pixel_hash(turned, plain)
            profile = profile_of(turned)
            fitted, featureless = fit(plain, view, lambda small: as_srgb(small, profile))
    notes = tuple(note for note in (frames, DAMAGED if damaged else None) if note)
    size = len(data) - len(END) * damaged
    return Image(digest, pixels, width, height, format_, size, featureless, notes, exif.metadata(told), exif.taken(told)), fitted


def _unknown(data: bytes) -> tuple[str, str]:
    """Reason and detail for what no decoder opens."""
    if data.startswith((b"II", b"MM")):
        file = io.BytesIO(data)
        try:
            directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
            bits, kind = directory[BITS_PER_SAMPLE], directory.get(SAMPLE_FORMAT, (1,))[0]
            TiffImagePlugin.TiffImageFile(io.BytesIO(data)).close()
        except Exception as error:
            if "unknown pixel mode" in str(error):  # sound, but not among those that Pillow reads
                what = {1: "whole numbers", 2: "signed numbers", 3: "floats"}.get(kind, "samples")
                return "not supported", f"a TIFF with {bits[0]}-bit {what}, {len(bits)} a pixel"
    return "no picture inside", "no decoder knows it"


def _mend_planes(picture: Pillow.Image, tags: Mapping[int, Any]) -> None:
    """Tell Pillow that the planes of a TIFF have 16 bits: uncompressed ones it takes for 8, and shows noise."""
    if tags.get(PLANAR) == 2 and set(tags.get(BITS_PER_SAMPLE, ())) == {16}:
        kind = ";16" + ("B" if tags.prefix == b"MM" else "L")  # type: ignore[attr-defined] # Pillow's own mapping
        picture.tile = [  # type: ignore[attr-defined] # as below
            tile._replace(args=(tile.args[0] + kind, *tile.args[1:])) if tile.codec_name == "raw" else tile
            for tile in picture.tile  # type: ignore[attr-defined]
        ]


def _is_reduced(picture: Pillow.Image) -> bool:
    """Whether Pillow will give 8 bits of colour samples that have more."""
    arguments = picture.tile[0].args if picture.tile else ""  # type: ignore[attr-defined] # of every picture that was opened from a file
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    deep = isinstance(raw_mode, str) and "16" in raw_mode and not picture.mode.startswith("I")
    return deep or int(picture.info.get("bit_depth") or 8) > 8


def _draft(picture: Pillow.Image, view: View) -> bool:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where that still leaves twice the view's size, or the pixels of a coarse one."""
    before, twice = picture.size, 2 * view.size
    ratio = view.size / max(before)
    picture.draft("RGB", (ceil(ratio * before[0]), ceil(ratio * before[1])) if view.coarse else (twice, twice))
    return picture.size != before


def _reduce(picture: Pillow.Image, data: bytes, view: View) -> int:
    """Let OpenJPEG decode a JPEG 2000 at 1/2, 1/4 ... where that leaves twice the view's size; returns what sides are divided by."""
    at = data.find(J2K)
    if at < 0 or any(data[at + 16 : at + 24]):  # a picture that does not begin at 0, 0 has other sizes
        return 1
    at += 2
    while at + 10 <= len(data) and data[at + 1] not in (0x52, 0x90):  # how it is coded, or the first tile
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    levels = data[at + 9] if at + 10 <= len(data) and data[at + 1] == 0x52 else 0
    # Pillow rounds a size where OpenJPEG takes the next whole number: only where both agree.
    scales = [1 << level for level in range(min(levels, 8) + 1)]
    right = [
        scale
        for scale in scales
        if min(picture.size) >= 2 * view.size * scale and all(side % scale == 0 or side % scale * 2 >= scale for side in picture.size)
    ]
    scale = max(right, default=1)
    picture.reduce = scale.bit_length() - 1  # type: ignore[method-assign, assignment] # the plugin's own
    return scale


def _has_more(picture: Pillow.Image) -> bool:
    """Whether more frames follow the first; also when they are broken."""
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:
        return True


def _is_filler(picture: Pillow.Image) -> bool:
    """Whether more than half of a picture is the grey that libjpeg fills in for what is missing.

    Half: then most of what is seen is the picture. Measured on 200 photos with neardup-0, whose threshold is .85: no two that are cut at
    half come above .73, and .82 at a quarter; a cut photo matches the whole one in 0 of 100 at a quarter, 26 at half, 95 at three quarters.
    """
    filled = 0
    for box in strips(picture):
        near = np.asarray(picture.crop(box)) - np.uint8(127) <= 2  # below 127 it wraps around
        filled += int(np.count_nonzero(near if near.ndim == 2 else near.all(axis=2)))
    return 2 * filled > picture.width * picture.height


def _is_heavy(picture: Pillow.Image, full: int, scale: int) -> bool:
    """Whether it takes much memory, when its sides are divided by `scale`; refuses what would take too much."""
    pixels = picture.width * picture.height // scale**2
    progressive = bool(picture.info.get("progressive") or picture.info.get("progression"))
    if pixels > MAX_PIXELS:
        raise _too_many(picture.width, picture.height)
    if progressive and full > MAX_PROGRESSIVE:
        raise Refused("too many pixels", f"a progressive JPEG of {full:,} pixels; the limit is {MAX_PROGRESSIVE // 1_000_000} megapixels")
    return max(pixels, full if progressive else 0) > HEAVY_PIXELS


def _too_many(width: int, height: int) -> Refused:
    return Refused("too many pixels", f"{width} x {height}; the limit is {MAX_PIXELS // 1_000_000} megapixels")
