"""The samples of a picture, whatever they say, become 8 bits of sRGB."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

BITS_PER_SAMPLE_TAG, PHOTOMETRIC_TAG, SAMPLE_FORMAT_TAG = 0x0102, 0x0106, 0x0153  # TIFF tags
MAX_PROFILE_BYTES = 1 << 22  # bytes; those of printing presses have up to three million
ICC_COLOR_SPACE_BY_MODE = {
    "L": "GRAY",
    "RGB": "RGB ",
    "CMYK": "CMYK",
}  # the profiles that fit a mode
ICC_DEVICE_CLASSES = {
    "mntr",
    "scnr",
    "prtr",
    "spac",
}  # profiles that say what the colours of a picture are; others join or name colours
MAX_SRGB_DEVIATION_LEVELS = (
    2  # grey levels: what rounding and the black of various sRGB profiles make
)


def get_icc_profile(image: Pillow.Image) -> bytes:
    """The ICC profile as it stands in the file, b"" where there is none."""
    profile = image.info.get("icc_profile") or b""
    return (
        profile if isinstance(profile, bytes) else repr(profile).encode()
    )  # a TIFF's tag can be of any type


def convert_to_srgb(image: Pillow.Image, profile: bytes) -> Pillow.Image:
    """L, RGB or CMYK as RGB; by its profile, where that can be used and says anything else than sRGB."""
    to_srgb = _build_srgb_transform(profile, image.mode) if profile else None
    if to_srgb:
        return to_srgb.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(
    maxsize=16
)  # a library has a few profiles, in most of its photos; building one takes milliseconds
def _build_srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What brings pixels to sRGB; None where the profile is broken, huge or made for other colours, or where it changes nothing.

    Relative colorimetric with black-point compensation, the default of most editors: colours that sRGB has stay what they are, so that a
    photo comes out as its copy that was saved as sRGB. Perceptual tables differ from maker to maker, and cameras' and displays' profiles
    have none.
    """
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if (
            given.profile.xcolor_space != ICC_COLOR_SPACE_BY_MODE.get(mode)
            or given.profile.device_class not in ICC_DEVICE_CLASSES
        ):
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
        return to_srgb if np.abs(moved).max() > MAX_SRGB_DEVIATION_LEVELS else None
    except Exception:  # whatever a broken profile makes of it: the picture is shown without
        return None


def convert_to_8_bit(image: Pillow.Image, tags: Mapping[int, Any]) -> Pillow.Image:
    """The picture with 8 bits a sample: L, RGB, RGBA where some of it is transparent, or CMYK that its profile says how to show.

    `tags` are those of a TIFF.
    """
    mode = image.mode
    if mode in ("L", "RGB"):
        return image.convert("RGBA") if "transparency" in image.info else image
    if mode.startswith(("I", "F")):
        return _scale_to_8_bit(image, tags)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or (mode == "P" and "transparency" in image.info):
        rgba = (
            image
            if mode == "RGBA"
            else (image.convert("LA") if mode == "La" else image).convert("RGBA")
        )  # Pillow has no way from La
        return (
            rgba
            if rgba.getchannel("A").histogram()[255] < rgba.width * rgba.height
            else rgba.convert("RGB")
        )
    if mode == "LAB":
        to_srgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        done = ImageCms.applyTransform(image, to_srgb)
        assert done is not None  # only None for in-place work
        return done
    if mode == "CMYK" and _build_srgb_transform(get_icc_profile(image), mode):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def has_unusual_samples(mode: str, tags: Mapping[int, Any]) -> bool:
    """Whether the tags of a TIFF of deep grey say that its samples mean anything else than 0 to 65535."""
    usual = (
        mode == "I;16"
        and _read_int_tag(tags, BITS_PER_SAMPLE_TAG, 16) == 16
        and tags.get(PHOTOMETRIC_TAG) != 0
    )
    return mode.startswith("I") and bool(tags) and not usual


def _scale_to_8_bit(image: Pillow.Image, tags: Mapping[int, Any]) -> Pillow.Image:
    """Grey of 9 to 32 bits or floats, brought to 8 bits by the full range of its samples: 0..1 or 0..255 for floats."""
    bits, signed = (
        _read_int_tag(tags, BITS_PER_SAMPLE_TAG, 16),
        _read_int_tag(tags, SAMPLE_FORMAT_TAG, 1) == 2,
    )
    above = (
        image.mode == "I" and bits == 32 and not signed and SAMPLE_FORMAT_TAG in tags
    )  # Pillow's I is signed
    top = 0.0
    for box in split_into_strips(image):
        samples = np.asarray(image.crop(box))
        top = max(
            top,
            float(
                (samples.view(np.uint32) if above else samples).max(
                    where=np.isfinite(samples), initial=0
                )
            ),
        )
    if image.mode == "F":
        full = 1.0 if top <= 1.0 else 255.0 if top <= 255.0 else top
    elif image.mode == "I" and top <= 255:
        full = 255.0
    else:
        full = 2.0 ** (bits - signed) - 1 if 8 < bits <= 16 else 65535.0
        full = max(full, top)
    done = Pillow.new("L", image.size)
    for box in split_into_strips(image):
        samples = np.asarray(image.crop(box))
        levels = (samples.view(np.uint32) if above else samples).astype(np.float32)
        levels = np.nan_to_num(levels, nan=0.0, posinf=top, neginf=0.0) * np.float32(255.0 / full)
        if tags.get(PHOTOMETRIC_TAG) == 0 and image.mode.startswith(
            "I;16"
        ):  # 0 is white, which Pillow knows of 8 bits alone
            levels = 255 - levels
        done.paste(Pillow.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8)), box[:2])
    return done


def _read_int_tag(tags: Mapping[int, Any], tag: int, default: int) -> int:
    value = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def split_into_strips(image: Pillow.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of a few million pixels that cover a picture from top to bottom."""
    rows = max(1, (1 << 21) // max(1, image.width))
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)
