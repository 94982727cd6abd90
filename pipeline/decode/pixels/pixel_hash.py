"""Hashes that two images share only if their upright pixels are equal."""

from __future__ import annotations

from blake3 import blake3
from PIL import Image as Pillow

from pipeline.decode.pixels.color import get_icc_profile, split_into_strips

MODES_HASHED_NATIVELY = {"CMYK", "LAB"}  # hashed without a conversion to RGB
JPEG_SCAN_MARKER = 0xDA
JPEG_ADOBE_MARKER = 0xEE
JPEG_COMMENT_MARKER = 0xFE
JPEG_APPLICATION_MARKERS = range(0xE0, 0xF0)


def hash_pixels(upright: Pillow.Image, eight_bit: Pillow.Image) -> bytes:
    """Hash all upright pixels with their size and color profile, by blake3.

    `eight_bit` is the same image at 8 bits a sample. Gray of more than 8 bits, CMYK and CIELAB are
    hashed as they are, so that they never equal the RGB that they are converted to.
    """
    if upright.mode in MODES_HASHED_NATIVELY or upright.mode.startswith(("I", "F")):
        image = upright
    else:
        image = eight_bit if eight_bit.mode in ("RGB", "RGBA") else eight_bit.convert("RGB")
    profile = blake3(get_icc_profile(upright)).hexdigest()
    digest = blake3(f"{image.mode} {image.width} {image.height} {profile} ".encode())
    for box in split_into_strips(image):
        digest.update(image.crop(box).tobytes())
    return digest.digest()


def hash_jpeg_stream(data: bytes, image: Pillow.Image, orientation: int) -> bytes:
    """Hash a JPEG without its metadata: equal only if the decoded pixels are; needs no full decode.

    Application and comment segments before the scan are left out, but for those that change how
    pixels are shown: whether there is a JFIF segment, Adobe's color transform (APP14), the ICC
    profile and the EXIF orientation.
    """
    profile = blake3(get_icc_profile(image)).digest()
    digest = blake3(b"jpeg %d %d " % (orientation, "jfif" in image.info) + profile)
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if marker == JPEG_SCAN_MARKER:
            break
        if marker == 0xFF:  # padding
            start += 1
            continue
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        is_metadata = marker in JPEG_APPLICATION_MARKERS or marker == JPEG_COMMENT_MARKER
        if marker == JPEG_ADOBE_MARKER or not is_metadata:
            digest.update(data[start:end])
        start = end
    digest.update(data[start:])
    return digest.digest()
