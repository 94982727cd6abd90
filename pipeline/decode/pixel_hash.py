"""When two pictures are the same in all pixels: hashes that are equal only then."""

from __future__ import annotations

from blake3 import blake3
from PIL import Image as Pillow

from pipeline.decode.color import get_icc_profile, split_into_strips

MODES_HASHED_NATIVELY = {"CMYK", "LAB"}  # modes whose pixels are hashed as they are


def hash_pixels(upright: Pillow.Image, eight_bit: Pillow.Image) -> bytes:
    """The blake3 of all upright pixels with their size and colour profile.

    Grey of more than 8 bits, CMYK and CIELAB count as they are, so that they never equal the RGB that they are shown as.
    """
    if upright.mode in MODES_HASHED_NATIVELY or upright.mode.startswith(("I", "F")):
        hashed = upright
    else:
        hashed = eight_bit if eight_bit.mode in ("RGB", "RGBA") else eight_bit.convert("RGB")
    profile = blake3(get_icc_profile(upright)).hexdigest()
    digest = blake3(f"{hashed.mode} {hashed.width} {hashed.height} {profile} ".encode())
    for box in split_into_strips(hashed):
        digest.update(hashed.crop(box).tobytes())
    return digest.digest()


def hash_jpeg_stream(data: bytes, image: Pillow.Image, orientation: int) -> bytes:
    """The blake3 of a JPEG without its metadata: equal only if the decoded pixels are, and no full decode is needed to know.

    Application and comment segments before the scan are left out, but for those that change how pixels are shown: whether there is a
    JFIF segment, Adobe's colour transform (APP14), the ICC profile and the EXIF orientation.
    """
    digest = blake3(
        b"jpeg %d %d " % (orientation, "jfif" in image.info)
        + blake3(get_icc_profile(image)).digest()
    )
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
