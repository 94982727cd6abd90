"""Pixel hashes are equal only where the upright pixels are."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from pipeline.decode.metadata.exif import ORIENTATION_TAG
from tests.support.images import (
    decode_file,
    draw_scene,
    encode_jpeg,
    save_image,
)


def test_pixel_hash_differs_between_similar_pixels(tmp_path: Path) -> None:
    scene = draw_scene(10)
    as_png = decode_file(save_image(tmp_path / "a.png", scene))
    as_bmp = decode_file(save_image(tmp_path / "a.bmp", scene))
    as_webp = decode_file(save_image(tmp_path / "a.webp", scene, lossless=True))
    assert as_png.image.pixel_hash == as_bmp.image.pixel_hash == as_webp.image.pixel_hash
    assert len({as_png.image.hash, as_bmp.image.hash, as_webp.image.hash}) == 3
    changed = scene.copy()
    changed.putpixel((5, 5), (1, 2, 3))
    assert (
        decode_file(save_image(tmp_path / "b.png", changed)).image.pixel_hash
        != as_png.image.pixel_hash
    )
    assert (
        decode_file(
            save_image(tmp_path / "c.png", scene.transpose(Image.Transpose.ROTATE_90))
        ).image.pixel_hash
        != as_png.image.pixel_hash
    )


def test_pixel_hash_covers_depth_profile_and_inks(tmp_path: Path) -> None:
    """Samples of 16 bits, color profiles and CMYK that look equal in 8 bits of RGB."""
    scene = draw_scene(10, (64, 48))
    levels = np.asarray(scene.convert("L")).astype(np.uint16) * 257
    deep = decode_file(save_image(tmp_path / "deep.png", Image.fromarray(levels)))
    assert (
        deep.image.pixel_hash
        != decode_file(save_image(tmp_path / "shallow.png", scene.convert("L"))).image.pixel_hash
    )
    assert (
        deep.image.pixel_hash
        == decode_file(save_image(tmp_path / "deep.tiff", Image.fromarray(levels))).image.pixel_hash
    )
    assert (
        deep.image.pixel_hash
        != decode_file(
            save_image(tmp_path / "deeper.png", Image.fromarray(levels | 1))
        ).image.pixel_hash
    )
    raw = b"".join(
        bytes([red, 0, green, 0, blue, 0])
        for red, green, blue in np.asarray(scene).reshape(-1, 3).tolist()
    )
    (tmp_path / "deep rgb.png").write_bytes(make_16_bit_png(scene.size, raw))
    assert (
        decode_file(tmp_path / "deep rgb.png").image.pixel_hash
        != decode_file(save_image(tmp_path / "rgb.png", scene)).image.pixel_hash
    )
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in ("png", "jpg"):
        plain = decode_file(save_image(tmp_path / f"plain.{suffix}", scene)).image.pixel_hash
        assert (
            plain
            != decode_file(
                save_image(tmp_path / f"profiled.{suffix}", scene, icc_profile=profile)
            ).image.pixel_hash
        )
    black, mixed = (
        Image.new("CMYK", (8, 8), (0, 0, 0, 255)),
        Image.new("CMYK", (8, 8), (255, 255, 255, 0)),
    )
    assert (
        decode_file(save_image(tmp_path / "k.tiff", black)).image.pixel_hash
        != decode_file(save_image(tmp_path / "cmy.tiff", mixed)).image.pixel_hash
    )


def make_16_bit_png(size: tuple[int, int], rgb: bytes) -> bytes:
    """Write a PNG with two bytes a sample, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + rgb[6 * size[0] * y : 6 * size[0] * (y + 1)] for y in range(size[1]))
    header = struct.pack(">IIBBBBB", *size, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_pixel_hash_of_reduced_jpegs_ignores_metadata(tmp_path: Path) -> None:
    scene = draw_scene(11, (1600, 1200))
    exif = Image.Exif()
    exif[0x010E] = "a holiday"
    plain, described = tmp_path / "plain.jpg", tmp_path / "described.jpg"
    plain.write_bytes(encode_jpeg(scene))
    described.write_bytes(encode_jpeg(scene, exif=exif, comment=b"hello"))
    assert decode_file(plain).image.pixel_hash == decode_file(described).image.pixel_hash
    assert decode_file(plain).image.hash != decode_file(described).image.hash
    turned, other_quality = tmp_path / "turned.jpg", tmp_path / "other_quality.jpg"
    exif[ORIENTATION_TAG] = 6
    turned.write_bytes(encode_jpeg(scene, exif=exif))
    other_quality.write_bytes(encode_jpeg(scene, quality=89))
    profiled = tmp_path / "profiled.jpg"
    profiled.write_bytes(
        encode_jpeg(
            scene, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        )
    )
    assert (
        len(
            {
                decode_file(path).image.pixel_hash
                for path in (plain, turned, other_quality, profiled)
            }
        )
        == 4
    )
    inverted = tmp_path / "inverted.jpg"  # Adobe's segment names the color transform
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    inverted.write_bytes(encode_jpeg(scene)[:2] + adobe + encode_jpeg(scene)[2:])
    assert decode_file(inverted).image.pixel_hash != decode_file(plain).image.pixel_hash
