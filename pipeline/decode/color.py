"""The samples of a picture, whatever they say, become 8 bits of sRGB."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 0x0102, 0x0106, 0x0153  # TIFF tags
MAX_PROFILE = 1 << 22  # bytes; those of printing presses have up to three million
SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}  # the profiles that fit a mode
DEVICES = {"mntr", "scnr", "prtr", "spac"}  # profiles that say what the colours of a picture are; others join or name colours
ROUNDED = 2  # grey levels: what rounding and the black of various sRGB profiles make


def profile_of(picture: Pillow.Image) -> bytes:
    """The ICC profile as it stands in the file, b"" where there is none."""
    profile = picture.info.get("icc_profile") or b""
    return profile if isinstance(profile, bytes) else repr(profile).encode()  # a TIFF's tag can be of any type


def as_srgb(picture: Pillow.Image, profile: bytes) -> Pillow.Image:
    """L, RGB or CMYK as RGB; by its profile, where that can be used and says anything else than sRGB."""
    to_srgb = _to_srgb(profile, picture.mode) if profile else None
    if to_srgb:
        return to_srgb.apply(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


@lru_cache(maxsize=16)  # a library has a few profiles, in most of its photos; building one takes milliseconds
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What brings pixels to sRGB; None where the profile is broken, huge or made for other colours, or where it changes nothing.

    Relative colorimetric with black-point compensation, the default of most editors: colours that sRGB has stay what they are, so that a
    photo comes out as its copy that was saved as sRGB. Perceptual tables differ from maker to maker, and cameras' and displays' profiles
    have none.
    """
    if not profile or len(profile) > MAX_PROFILE:
        return None
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space != SPACES.get(mode) or given.profile.device_class not in DEVICES:
            return None
        to_srgb = ImageCms.buildTransform(
            given,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode == "CMYK":
            return to_srgb
        # A description that says sRGB proves nothing, so it is tried on colours from all over the cube.
        levels = np.linspace(0, 255, 6).round().astype(np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        tried = Pillow.fromarray(colours).convert(mode)
        moved = np.asarray(to_srgb.apply(tried), dtype=np.int16) - np.asarray(tried.convert("RGB"))
        return to_srgb if np.abs(moved).max() > ROUNDED else None
    except Exception:  # whatever a broken profile makes of it: the picture is shown without
        return None


def eight_bit(picture: Pillow.Image, tags: Mapping[int, Any]) -> Pillow.Image:
    """The picture with 8 bits a sample: L, RGB, RGBA where some of it is transparent, or CMYK that its profile says how to show.

    `tags` are those of a TIFF.
    """
    mode = picture.mode
    if mode in ("L", "RGB"):
        return picture.convert("RGBA") if "transparency" in picture.info else picture
    if mode.startswith(("I", "F")):
        return _from_deep(picture, tags)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or (mode == "P" and "transparency" in picture.info):
        rgba = (
            picture if mode == "RGBA" else (picture.convert("LA") if mode == "La" else picture).convert("RGBA")
        )  # Pillow has no way from La
        return rgba if rgba.getchannel("A").histogram()[255] < rgba.width * rgba.height else rgba.convert("RGB")
    if mode == "LAB":
        to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        done = ImageCms.applyTransform(picture, to_srgb)
        assert done is not None  # only None for in-place work
        return done
    if mode == "CMYK" and _to_srgb(profile_of(picture), mode):
        return picture
    return picture.convert("L" if mode == "1" else "RGB")


def is_odd(mode: str, tags: Mapping[int, Any]) -> bool:
    """Whether the tags of a TIFF of deep grey say that its samples mean anything else than 0 to 65535."""
    usual = mode == "I;16" and _first(tags, BITS_PER_SAMPLE, 16) == 16 and tags.get(PHOTOMETRIC) != 0
    return mode.startswith("I") and bool(tags) and not usual


def _from_deep(picture: Pillow.Image, tags: Mapping[int, Any]) -> Pillow.Image:
    """Grey of 9 to 32 bits or floats, brought to 8 bits by the full range of its samples: 0..1 or 0..255 for floats."""
    bits, signed = _first(tags, BITS_PER_SAMPLE, 16), _first(tags, SAMPLE_FORMAT, 1) == 2
    above = picture.mode == "I" and bits == 32 and not signed and SAMPLE_FORMAT in tags  # Pillow's I is signed
    top = 0.0
    for box in strips(picture):
        samples = np.asarray(picture.crop(box))
        top = max(top, float((samples.view(np.uint32) if above else samples).max(where=np.isfinite(samples), initial=0)))
    if picture.mode == "F":
        full = 1.0 if top <= 1.0 else 255.0 if top <= 255.0 else top
    elif picture.mode == "I" and top <= 255:
        full = 255.0
    else:
        full = 2.0 ** (bits - signed) - 1 if 8 < bits <= 16 else 65535.0
        full = max(full, top)
    done = Pillow.new("L", picture.size)
    for box in strips(picture):
        samples = np.asarray(picture.crop(box))
        levels = (samples.view(np.uint32) if above else samples).astype(np.float32)
        levels = np.nan_to_num(levels, nan=0.0, posinf=top, neginf=0.0) * np.float32(255.0 / full)
        if tags.get(PHOTOMETRIC) == 0 and picture.mode.startswith("I;16"):  # 0 is white, which Pillow knows of 8 bits alone
            levels = 255 - levels
        done.paste(Pillow.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8)), box[:2])
    return done


def _first(tags: Mapping[int, Any], tag: int, otherwise: int) -> int:
    value = tags.get(tag, otherwise)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else otherwise


def strips(picture: Pillow.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of a few million pixels that cover a picture from top to bottom."""
    rows = max(1, (1 << 21) // max(1, picture.width))
    for top in range(0, picture.height, rows):
        yield 0, top, picture.width, min(top + rows, picture.height)
