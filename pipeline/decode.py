"""One read of a file: its hash, its upright sRGB pixels at the embedder's size, or the reason why there are none.

Photos are hostile input. What is opened is on an allow-list of formats, its size is checked from the header before a pixel is decoded, and
whatever a decoder raises becomes a Failure of that file.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import PurePath

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms, UnidentifiedImageError

from indexes import Image
from pipeline.scan import SourceFile

VERSION = "decode-1"  # part of every space: a change here that moves pixels needs a new number
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")  # an MPO opens as a JPEG
PLUGINS = {"WEBP": "WebP"}  # where a plugin's module is not named as its format
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2", b"avif", b"avis", b"miaf"}
PHOTO_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib"),
    *(".avif", ".heic", ".heif", ".hif"),
}
RAW_SUFFIXES = {".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"}
MAX_FILE = 1 << 30  # bytes
MAX_PIXELS = 100_000_000  # after a JPEG's draft; Pillow takes 4 bytes for each, twice while converting
MAX_PROGRESSIVE = 200_000_000  # a progressive JPEG keeps all coefficients, whatever its draft: 3 to 6 bytes a pixel
CELLS, FEATURELESS = 32, 2.0  # see is_featureless
HEAVY_PIXELS = 16_000_000  # pictures above this are decoded one at a time, so that memory is bounded by one of them

TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on broken files, as met in tens of thousands of mutated ones. A bug of ours shows in tests of sound files.
BROKEN = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError)
ORIENTATION = 0x0112  # the EXIF tag

_heavy = threading.Lock()


@dataclass(frozen=True)
class View:
    """How a picture becomes an embedder's input: `size` x `size` pixels, by `fit`, resampled by `resample`.

    squash: both sides to `size`. shortest: the short side to `size`, then the middle cut out. longest: the long side to `size`, on
    `fill` grey.
    """

    size: int
    fit: str = "squash"
    resample: str = "bicubic"
    fill: int = 0

    def __str__(self) -> str:
        """The view as it stands in a space's preprocessing version."""
        return f"{VERSION} {self.fit}-{self.size} {self.resample}"


@dataclass(frozen=True, slots=True)
class Failure:
    """A file without an image: `reason` is one of a few words to count by, `detail` what was met, `hash` its content where it was read."""

    source: SourceFile
    reason: str
    detail: str = ""
    hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file whose content is known already, so that it was not decoded."""

    source: SourceFile
    hash: bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture: the file it came from, what the store keeps of it, and uint8 pixels (size, size, 3) for the embedder."""

    source: SourceFile
    image: Image
    view: NDArray[np.uint8]


SKIPPED = {"not a photo", "raw photo"}  # reasons that nobody needs to mend
RETRIED = {"unreadable", "changed while read"}  # reasons that may be gone the next time, with the file as it is


class _Refused(Exception):
    """Carries a reason and a detail from where a file is refused to where its Failure is made."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def decode(source: SourceFile, view: View, wanted: Callable[[bytes], bool] = lambda hash: True) -> Decoded | Recognised | Failure:
    """Read a file once and give its picture at `view`; stops after hashing, as Recognised, when `wanted` says no to the hash.

    Never raises for what a file holds. JPEGs are decoded at the smallest scale that is twice the view's size or more, and a first
    frame stands for an animation. Transparency is laid on white.
    """
    digest = None
    try:
        data = read(source)
        digest = blake3(data).digest()
        if not wanted(digest):
            return Recognised(source, digest)
        return _picture(source, data, digest, view)
    except _Refused as refused:
        return Failure(source, refused.reason, refused.detail, digest)


def content_hash(source: SourceFile) -> bytes | Failure:
    """The blake3 of a file's bytes, without decoding it."""
    try:
        return blake3(read(source)).digest()
    except _Refused as refused:
        return Failure(source, refused.reason, refused.detail)


def read(source: SourceFile) -> bytes:
    """All bytes of a photo; raises _Refused for what is no photo, too large, unreadable, or changes meanwhile."""
    suffix = PurePath(source.path).suffix.lower()
    if suffix in RAW_SUFFIXES:
        raise _Refused("raw photo", "raw files are not read yet")  # most are TIFFs inside, whose first picture is a thumbnail
    try:
        # O_NONBLOCK: what was a file when it was listed may be a FIFO now.
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise _Refused("not a photo", "no regular file")
            if before.st_size == 0:
                raise _Refused("empty file", "0 bytes")
            head = file.read(16)
            if not is_photo(head):
                if suffix in PHOTO_SUFFIXES:
                    raise _Refused("no picture inside", f"begins with {head[:8].hex(' ')}, which no format here does")
                raise _Refused("not a photo", "")
            if before.st_size > MAX_FILE:
                raise _Refused("file too large", f"{before.st_size:,} bytes; the limit is {MAX_FILE:,}")
            data = head + _all(file, before.st_size - len(head))
            after = os.fstat(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise _Refused("unreadable", "gone since it was listed") from error
        raise _Refused("unreadable", error.strerror or str(error)) from error
    if len(data) != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _Refused("changed while read", f"{before.st_size:,} bytes became {after.st_size:,}")
    return data


def _all(file: io.FileIO, size: int) -> bytes:
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def is_photo(head: bytes) -> bool:
    """Whether a file's first 16 bytes are those of a format that is read here."""
    if head.startswith(SIGNATURES):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head[4:8] == b"ftyp" and head[8:12] in BRANDS


@cache
def _prepared() -> None:
    """Load the decoders on the list and no others; take over Pillow's pixel limit, which refuses phone photos of 200 megapixels."""
    import pillow_heif

    for name in FORMATS:
        if name != "HEIF":
            import_module(f"PIL.{PLUGINS.get(name, name.title())}ImagePlugin")

    pillow_heif.register_heif_opener(thumbnails=False)
    Pillow.MAX_IMAGE_PIXELS = None


def _picture(source: SourceFile, data: bytes, digest: bytes, view: View) -> Decoded:
    _prepared()
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            format_ = picture.format or "?"
            drafted = format_ in ("JPEG", "MPO") and _draft(picture, view)
            with _turn_to_decode(picture, width * height, drafted):
                picture.load()
                orientation = _orientation(picture)
                upright = picture.transpose(TURNS[orientation]) if orientation in TURNS else picture
                if orientation in TURNS and orientation >= 5:
                    width, height = height, width
                plain = _eight_bit(upright)
                pixels = _stream_hash(data, picture, orientation) if drafted else _pixel_hash(upright, plain)
                fitted = _fitted(plain, view)
    except _Refused:
        raise
    except UnidentifiedImageError as error:
        raise _Refused("no picture inside", "no decoder knows it") from error
    except (MemoryError, Pillow.DecompressionBombError) as error:
        raise _Refused("too many pixels", str(error) or "out of memory") from error
    except BROKEN as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise _Refused("truncated" if "truncated" in detail.lower() or isinstance(error, EOFError) else "damaged", detail) from error
    return Decoded(source, Image(digest, pixels, width, height, format_, len(data), is_featureless(fitted)), fitted)


def _draft(picture: Pillow.Image, view: View) -> bool:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where that still leaves twice the view's size; whether it will."""
    before = picture.size
    picture.draft("RGB", (2 * view.size, 2 * view.size))
    return picture.size != before


def _turn_to_decode(picture: Pillow.Image, full: int, drafted: bool) -> AbstractContextManager[object]:
    """Refuse what would take too much memory; let what takes much wait for its turn."""
    pixels = picture.width * picture.height
    progressive = bool(picture.info.get("progressive") or picture.info.get("progression"))
    if pixels > MAX_PIXELS:
        raise _Refused("too many pixels", f"{picture.width} x {picture.height}; the limit is {MAX_PIXELS // 1_000_000} megapixels")
    if progressive and full > MAX_PROGRESSIVE:
        raise _Refused("too many pixels", f"a progressive JPEG of {full:,} pixels; the limit is {MAX_PROGRESSIVE // 1_000_000} megapixels")
    return _heavy if max(pixels, full if progressive else 0) > HEAVY_PIXELS else nullcontext()


def _orientation(picture: Pillow.Image) -> int:
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _eight_bit(picture: Pillow.Image) -> Pillow.Image:
    """The picture with 8 bits a sample, as L, RGB, or RGBA where some of it is transparent."""
    mode = picture.mode
    if mode in ("L", "RGB"):
        return picture.convert("RGBA") if "transparency" in picture.info else picture
    if mode.startswith(("I", "F")):
        return _from_deep(picture)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or (mode == "P" and "transparency" in picture.info):
        rgba = picture if mode == "RGBA" else picture.convert("RGBA")
        return rgba if rgba.getchannel("A").histogram()[255] < rgba.width * rgba.height else rgba.convert("RGB")
    if mode == "LAB":
        to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        done = ImageCms.applyTransform(picture, to_srgb)
        assert done is not None  # only None for in-place work
        return done
    return picture.convert("L" if mode == "1" else "RGB")


def _from_deep(picture: Pillow.Image) -> Pillow.Image:
    """Grey of 16 or 32 bits or floats, brought to 8 bits by the full range of its type: 0..1 or 0..255 for floats."""
    samples = np.asarray(picture)
    top = float(np.nan_to_num(samples, nan=0.0, posinf=0.0).max(initial=0))
    if picture.mode == "F":
        scale = 255.0 if top <= 1.0 else 1.0 if top <= 255.0 else 255.0 / top
    else:
        scale = 1.0 if picture.mode == "I" and top <= 255 else 255.0 / 65535.0 if top <= 65535 else 255.0 / top
    levels = np.clip(np.nan_to_num(samples, nan=0.0) * scale + 0.5, 0, 255)
    return Pillow.fromarray(levels.astype(np.uint8))


def _pixel_hash(upright: Pillow.Image, plain: Pillow.Image) -> bytes:
    """The blake3 of all upright pixels with their size; deep samples count in full, so that 16 bits never equal their 8-bit copy."""
    deep = upright.mode.startswith(("I", "F"))
    hashed = upright if deep else plain if plain.mode in ("RGB", "RGBA") else plain.convert("RGB")
    digest = blake3(f"{hashed.mode} {hashed.width} {hashed.height} ".encode())
    rows = max(1, (1 << 22) // max(1, hashed.width))
    for top in range(0, hashed.height, rows):
        digest.update(hashed.crop((0, top, hashed.width, min(top + rows, hashed.height))).tobytes())
    return digest.digest()


def _stream_hash(data: bytes, picture: Pillow.Image, orientation: int) -> bytes:
    """The blake3 of a JPEG without its metadata: equal only if the decoded pixels are, and no full decode is needed to know.

    Application and comment segments before the scan are left out, but for those that change how pixels are shown: Adobe's colour transform
    (APP14), the ICC profile and the EXIF orientation.
    """
    digest = blake3(b"jpeg %d " % orientation + blake3(picture.info.get("icc_profile") or b"").digest())
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


def _fitted(plain: Pillow.Image, view: View) -> NDArray[np.uint8]:
    size, resample = view.size, Pillow.Resampling[view.resample.upper()]
    width, height = plain.size
    if view.fit == "squash":
        target = (size, size)
    elif view.fit == "shortest":  # the rounding of torchvision's Resize and, below, of open_clip's ResizeKeepRatio
        short = min(width, height)
        target = (int(size * width / short), int(size * height / short))
    else:
        ratio = max(width, height) / size
        target = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    if max(target) > 64 * size:  # a strip: as much of its middle as can show at all
        plain = _middle(plain, (min(width, 64 * height), min(height, 64 * width)))
        return _fitted(plain, view)
    resized = plain if plain.size == target else plain.resize(target, resample, reducing_gap=3.0)
    if resized.mode == "RGBA":
        ground = Pillow.new("RGBA", resized.size, (255, 255, 255, 255))
        resized = Pillow.alpha_composite(ground, resized)
    rgb = resized if resized.mode == "RGB" else resized.convert("RGB")
    if view.fit != "squash":
        rgb = _middle(rgb, (size, size), view.fill)
    return np.asarray(rgb)


def _middle(picture: Pillow.Image, size: tuple[int, int], fill: int = 0) -> Pillow.Image:
    """The middle of a picture, on `fill` grey where it is smaller than `size`."""
    if picture.width < size[0] or picture.height < size[1]:
        ground = Pillow.new("RGB", size, (fill, fill, fill))
        ground.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
        return ground
    left, top = round((picture.width - size[0]) / 2.0), round((picture.height - size[1]) / 2.0)
    return picture.crop((left, top, left + size[0], top + size[1]))


def is_featureless(view: NDArray[np.uint8]) -> bool:
    """Whether a picture shows nothing to recognise: one colour, or a smooth change between colours.

    What is left of 32 x 32 cells after the best surface of second degree is taken away, as a standard deviation in grey levels, in the
    channel that has most. Measured: 0 to 1.5 for blank, noisy and graded pictures, 3.3 and up for 4,700 photos, drawings and patches
    of cloth.
    """
    cells = np.asarray(Pillow.fromarray(view).resize((CELLS, CELLS), Pillow.Resampling.BOX), dtype=np.float64).reshape(CELLS * CELLS, 3)
    surface = _surface()
    return bool((cells - surface @ (surface.T @ cells)).std(axis=0).max() < FEATURELESS)


@cache
def _surface() -> NDArray[np.float64]:
    """An orthonormal basis of 1, x, y, x2, xy, y2 over the cells, as columns."""
    y, x = (grid.ravel() for grid in np.mgrid[-1 : 1 : CELLS * 1j, -1 : 1 : CELLS * 1j])
    return np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1))[0]
