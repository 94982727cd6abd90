"""Convert decoded samples of any mode, depth and color profile to 8 bits of sRGB."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms, TiffImagePlugin

# TIFF tags
BITS_PER_SAMPLE_TAG = 0x0102
PHOTOMETRIC_TAG = 0x0106
PLANAR_CONFIGURATION_TAG = 0x011C
SAMPLE_FORMAT_TAG = 0x0153
WHITE_IS_ZERO = 0  # a value of PHOTOMETRIC_TAG
SAMPLE_KINDS = {1: "whole numbers", 2: "signed numbers", 3: "floats"}  # by SAMPLE_FORMAT_TAG

# Larger profiles are ignored; those of printing presses have up to three million bytes.
MAX_PROFILE_BYTES = 1 << 22
# The color space that a profile must be made for, by the mode of the image.
ICC_COLOR_SPACE_BY_MODE = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
# Profiles that define an image's colors; those of other classes link profiles or name colors.
ICC_DEVICE_CLASSES = {"mntr", "scnr", "prtr", "spac"}
# A profile that moves no color further is taken as sRGB: rounding and the black points of
# different sRGB profiles make differences of that size.
MAX_SRGB_DEVIATION_LEVELS = 2
PROFILE_TEST_STEPS = 6  # a side of the grid of colors on which a profile is tested
MAX_CACHED_TRANSFORMS = 16  # a library has few profiles; building a transform takes milliseconds
MAX_STRIP_PIXELS = 1 << 21  # of a strip that is processed at a time, to bound memory


def get_icc_profile(image: Pillow.Image) -> bytes:
    """Return the ICC profile as it stands in the file, b"" if there is none."""
    profile = image.info.get("icc_profile") or b""
    # A TIFF's tag can be of any type.
    return profile if isinstance(profile, bytes) else repr(profile).encode()


def convert_to_srgb(image: Pillow.Image, profile: bytes) -> Pillow.Image:
    """Convert L, RGB or CMYK to sRGB, by `profile` if it can be used and differs from sRGB."""
    to_srgb = _build_srgb_transform(profile, image.mode) if profile else None
    if to_srgb:
        return to_srgb.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=MAX_CACHED_TRANSFORMS)
def _build_srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB.

    None if the profile is broken, too large, made for other modes, or equal to sRGB.

    Relative colorimetric with black-point compensation, the default of most editors: colors
    inside sRGB stay as they are, so that an image comes out like its copy that was saved as sRGB.
    Perceptual tables differ between makers, and the profiles of cameras and displays have none.
    """
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != ICC_COLOR_SPACE_BY_MODE.get(mode):
            return None
        if source.profile.device_class not in ICC_DEVICE_CLASSES:
            return None
        to_srgb = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode == "CMYK":
            return to_srgb
        # A description that names sRGB proves nothing, so a grid of colors is converted.
        deviation = _measure_deviation(to_srgb, mode)
        return to_srgb if deviation > MAX_SRGB_DEVIATION_LEVELS else None
    except Exception:  # a broken profile can raise anything; the image is shown without it
        return None


def _measure_deviation(to_srgb: ImageCms.ImageCmsTransform, mode: str) -> int:
    """Measure by how many gray levels, at most, a transform moves the colors of a grid."""
    levels = np.linspace(0, 255, PROFILE_TEST_STEPS).round().astype(np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    before = Pillow.fromarray(colors).convert(mode)
    after = np.asarray(to_srgb.apply(before), dtype=np.int16)
    return int(np.abs(after - np.asarray(before.convert("RGB"))).max())


def convert_to_8_bit(image: Pillow.Image, tags: Mapping[int, Any]) -> Pillow.Image:
    """Convert an image to 8 bits a sample.

    Returns L, RGB, RGBA if any pixel is transparent, or CMYK if its profile can convert it.
    `tags` are those of a TIFF, empty for other formats.
    """
    mode = image.mode
    if mode in ("L", "RGB"):
        return image.convert("RGBA") if "transparency" in image.info else image
    if mode.startswith(("I", "F")):
        return _scale_to_8_bit(image, tags)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or (mode == "P" and "transparency" in image.info):
        return _convert_alpha(image)
    if mode == "LAB":
        to_srgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        converted = ImageCms.applyTransform(image, to_srgb)
        assert converted is not None  # None only if it works in place
        return converted
    if mode == "CMYK" and _build_srgb_transform(get_icc_profile(image), mode):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _convert_alpha(image: Pillow.Image) -> Pillow.Image:
    """Convert an image with an alpha channel to RGBA, or to RGB if all of it is opaque."""
    if image.mode == "La":
        image = image.convert("LA")  # Pillow does not convert La to RGBA
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    opaque_pixels = rgba.getchannel("A").histogram()[255]
    return rgba if opaque_pixels < rgba.width * rgba.height else rgba.convert("RGB")


def _scale_to_8_bit(image: Pillow.Image, tags: Mapping[int, Any]) -> Pillow.Image:
    """Scale gray of 9 to 32 bits, or floats, to 8 bits by the full range of its samples."""
    bits = _read_int_tag(tags, BITS_PER_SAMPLE_TAG, 16)
    is_signed = _read_int_tag(tags, SAMPLE_FORMAT_TAG, 1) == 2
    # Pillow's mode I is signed, also where the file is not.
    is_uint32 = image.mode == "I" and bits == 32 and not is_signed and SAMPLE_FORMAT_TAG in tags

    def read_samples(box: tuple[int, int, int, int]) -> NDArray[Any]:
        samples = np.asarray(image.crop(box))
        return samples.view(np.uint32) if is_uint32 else samples

    highest = 0.0
    for box in split_into_strips(image):
        samples = read_samples(box)
        highest = max(highest, float(samples.max(where=np.isfinite(samples), initial=0)))
    white = _find_white_level(image.mode, highest, bits, is_signed)
    # Pillow inverts such images itself only if they have 8 bits.
    is_inverted = tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO and image.mode.startswith("I;16")
    scaled = Pillow.new("L", image.size)
    for box in split_into_strips(image):
        levels = read_samples(box).astype(np.float32)
        levels = np.nan_to_num(levels, nan=0.0, posinf=highest, neginf=0.0)
        levels = levels * np.float32(255.0 / white)
        if is_inverted:
            levels = 255 - levels
        scaled.paste(Pillow.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8)), box[:2])
    return scaled


def _find_white_level(mode: str, highest: float, bits: int, is_signed: bool) -> float:
    """Return the sample value that stands for white; `highest` is the highest in the image."""
    if mode == "F":
        return next((white for white in (1.0, 255.0) if highest <= white), highest)
    if mode == "I" and highest <= 255:
        return 255.0
    full_scale = 2.0 ** (bits - is_signed) - 1 if 8 < bits <= 16 else 65535.0
    return max(highest, full_scale)


def _read_int_tag(tags: Mapping[int, Any], tag: int, default: int) -> int:
    value = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def split_into_strips(image: Pillow.Image) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes (left, top, right, bottom) that cover an image from top to bottom."""
    rows = max(1, MAX_STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def has_unusual_samples(mode: str, tags: Mapping[int, Any]) -> bool:
    """Tell if the samples of a TIFF of deep gray mean anything but 0 (black) to 65535 (white)."""
    is_usual = (
        mode == "I;16"
        and _read_int_tag(tags, BITS_PER_SAMPLE_TAG, 16) == 16
        and tags.get(PHOTOMETRIC_TAG) != WHITE_IS_ZERO
    )
    return mode.startswith("I") and bool(tags) and not is_usual


def fix_16_bit_planes(image: Pillow.Image, tags: Mapping[int, Any]) -> None:
    """Make Pillow decode the uncompressed planes of a TIFF as 16 bits; it assumes 8: noise.

    The image must be open and not loaded yet.
    """
    if tags.get(PLANAR_CONFIGURATION_TAG) != 2 or set(tags.get(BITS_PER_SAMPLE_TAG, ())) != {16}:
        return
    prefix = tags.prefix  # type: ignore[attr-defined] # Pillow's own mapping
    suffix = ";16" + ("B" if prefix == b"MM" else "L")
    image.tile = [  # type: ignore[attr-defined] # of images opened from a file
        tile._replace(args=(tile.args[0] + suffix, *tile.args[1:]))
        if tile.codec_name == "raw"
        else tile
        for tile in image.tile  # type: ignore[attr-defined] # as above
    ]


def describe_unsupported_tiff(data: bytes) -> str | None:
    """Describe the samples of a TIFF that is sound but of a kind that Pillow does not read.

    None for other data.
    """
    if not data.startswith((b"II", b"MM")):
        return None
    file = io.BytesIO(data)
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(directory.next)
        directory.load(file)
        bits = directory[BITS_PER_SAMPLE_TAG]
        sample_format = directory.get(SAMPLE_FORMAT_TAG, (1,))[0]
        TiffImagePlugin.TiffImageFile(io.BytesIO(data)).close()
    except Exception as error:
        if "unknown pixel mode" in str(error):
            kind = SAMPLE_KINDS.get(sample_format, "samples")
            return f"a TIFF with {bits[0]}-bit {kind}, {len(bits)} a pixel"
    return None
