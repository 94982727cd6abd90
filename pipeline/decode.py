"""A file's bytes become its upright sRGB pixels at the embedder's size, or the reason why there are none.

Photos are hostile input. What is opened is on an allow-list of formats, its size is checked from the header before a pixel is decoded, and
whatever a decoder raises becomes a Failure of that file.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import PngImagePlugin, UnidentifiedImageError

from indexes import Image
from pipeline.colour import as_srgb, eight_bit, profile_of, strips
from pipeline.reading import Failure, Recognised, Refused, read
from pipeline.scan import SourceFile
from pipeline.view import View, fit

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")  # an MPO opens as a JPEG
PLUGINS = {"WEBP": "WebP"}  # where a plugin's module is not named as its format
MAX_PIXELS = 100_000_000  # after a JPEG's draft; Pillow takes 4 bytes for each, twice while converting
MAX_PROGRESSIVE = 200_000_000  # a progressive JPEG keeps all coefficients, whatever its draft: 3 to 6 bytes a pixel
MAX_CHUNK = 1 << 24  # bytes of a PNG's text or profile; Pillow's own limit of a million refuses pictures with a press's profile
# What is larger than these is decoded one file at a time, so that memory is bounded by one of them.
HEAVY_FILE, HEAVY_PIXELS = 1 << 25, 16_000_000

TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112  # an EXIF tag
NATIVE = {"CMYK", "LAB"}  # modes whose pixels are hashed as they are

_heavy = threading.RLock()

Picture = tuple[Image, NDArray[np.uint8]]  # what the store keeps of a picture, and its pixels for the embedder


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture: the file it came from, what the store keeps of it, and uint8 pixels (height, width, 3) for the embedder."""

    source: SourceFile
    image: Image
    view: NDArray[np.uint8]


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


def picture(data: bytes, digest: bytes, view: View, turn: AbstractContextManager[object] = _heavy) -> Picture:
    """What the bytes of a file, of which `digest` is the blake3, show at `view`.

    JPEGs are decoded at the smallest scale that is twice the view's size or more, and a first frame stands for an animation.
    Transparency is laid on white. What needs much memory is decoded within `turn`. Raises Refused, and nothing else, for what the bytes
    are.
    """
    prepare()
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            format_ = opened.format or "?"
            drafted = format_ in ("JPEG", "MPO") and _draft(opened, view)
            reduced = _is_reduced(opened)
            with turn if _is_heavy(opened, width * height) else nullcontext():
                opened.load()
                orientation = _orientation(opened)
                upright = opened.transpose(TURNS[orientation]) if orientation in TURNS else opened
                if orientation in TURNS and orientation >= 5:
                    width, height = height, width
                plain = eight_bit(upright)
                if reduced:
                    pixels = digest  # what was decoded is less than what is there: it equals nothing but itself
                elif drafted:
                    pixels = _stream_hash(data, opened, orientation)
                else:
                    pixels = _pixel_hash(upright, plain)
                profile = profile_of(upright)
                fitted, featureless = fit(plain, view, lambda small: as_srgb(small, profile))
    except Refused:
        raise
    except UnidentifiedImageError as error:
        raise Refused("no picture inside", "no decoder knows it") from error
    except MemoryError as error:
        raise Refused("too much memory", "") from error
    except Exception as error:  # broken files make decoders raise anything; a bug of ours shows in the tests of sound files
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise Refused("truncated" if "truncated" in detail.lower() or isinstance(error, EOFError) else "damaged", detail) from error
    return Image(digest, pixels, width, height, format_, len(data), featureless), fitted


def decode(
    source: SourceFile,
    view: View,
    wanted: Callable[[bytes], bool] = lambda hash: True,
    reading: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - has no state
    shown: Callable[[bytes, bytes, View], Picture] = picture,
) -> Decoded | Recognised | Failure:
    """Read a file once, within `reading`, and give its picture; stops after hashing, as Recognised, when `wanted` says no to the hash.

    `shown` is picture(), or a way to have it run elsewhere. Never raises for what a file holds.
    """
    digest = None
    try:
        with _heavy if source.stat.size > HEAVY_FILE else nullcontext():
            with reading:
                data = read(source)
                digest = blake3(data).digest()
            if not wanted(digest):
                return Recognised(source, digest)
            return Decoded(source, *shown(data, digest, view))
    except Refused as refused:
        return Failure(source, refused.reason, refused.detail, digest)


def _is_reduced(picture: Pillow.Image) -> bool:
    """Whether Pillow will give 8 bits of colour samples that have more."""
    arguments = picture.tile[0].args if picture.tile else ""  # type: ignore[attr-defined] # of every picture that was opened from a file
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    deep = isinstance(raw_mode, str) and "16" in raw_mode and not picture.mode.startswith("I")
    return deep or int(picture.info.get("bit_depth") or 8) > 8


def _draft(picture: Pillow.Image, view: View) -> bool:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where that still leaves twice the view's size; whether it will."""
    before = picture.size
    picture.draft("RGB", (2 * view.size, 2 * view.size))
    return picture.size != before


def _is_heavy(picture: Pillow.Image, full: int) -> bool:
    """Whether it takes much memory; refuses what would take too much."""
    pixels = picture.width * picture.height
    progressive = bool(picture.info.get("progressive") or picture.info.get("progression"))
    if pixels > MAX_PIXELS:
        raise Refused("too many pixels", f"{picture.width} x {picture.height}; the limit is {MAX_PIXELS // 1_000_000} megapixels")
    if progressive and full > MAX_PROGRESSIVE:
        raise Refused("too many pixels", f"a progressive JPEG of {full:,} pixels; the limit is {MAX_PROGRESSIVE // 1_000_000} megapixels")
    return max(pixels, full if progressive else 0) > HEAVY_PIXELS


def _orientation(picture: Pillow.Image) -> int:
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _pixel_hash(upright: Pillow.Image, plain: Pillow.Image) -> bytes:
    """The blake3 of all upright pixels with their size and colour profile.

    Grey of more than 8 bits, CMYK and CIELAB count as they are, so that they never equal the RGB that they are shown as.
    """
    if upright.mode in NATIVE or upright.mode.startswith(("I", "F")):
        hashed = upright
    else:
        hashed = plain if plain.mode in ("RGB", "RGBA") else plain.convert("RGB")
    profile = blake3(profile_of(upright)).hexdigest()
    digest = blake3(f"{hashed.mode} {hashed.width} {hashed.height} {profile} ".encode())
    for box in strips(hashed):
        digest.update(hashed.crop(box).tobytes())
    return digest.digest()


def _stream_hash(data: bytes, picture: Pillow.Image, orientation: int) -> bytes:
    """The blake3 of a JPEG without its metadata: equal only if the decoded pixels are, and no full decode is needed to know.

    Application and comment segments before the scan are left out, but for those that change how pixels are shown: whether there is a
    JFIF segment, Adobe's colour transform (APP14), the ICC profile and the EXIF orientation.
    """
    digest = blake3(b"jpeg %d %d " % (orientation, "jfif" in picture.info) + blake3(profile_of(picture)).digest())
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:  # the scan
            break
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xEE or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            digest.update(data[at : at + 2 + length])
        at += 2 + length
    digest.update(data[at:])
    return digest.digest()
