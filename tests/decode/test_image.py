"""Decode every format that Pillow reads: frames, orientation, reduced sizes, damage."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.formats import (
    SIGNATURE_BYTES,
    has_image_signature,
)
from pipeline.decode.image import decode_image
from pipeline.decode.metadata.exif import ORIENTATION_TAG
from pipeline.decode.pixels.resize import TRANSPOSE_BY_ORIENTATION
from pipeline.decode.read import Rejected
from tests.support.images import (
    PREPROCESS,
    decode_failure,
    decode_file,
    draw_scene,
    encode_jpeg,
    make_source_file,
    measure_decoding_error,
    measure_difference,
    resize_with_pillow,
    save_image,
)


@pytest.mark.parametrize(
    "suffix",
    ["jpg", "png", "webp", "gif", "tiff", "bmp", "avif", "heic", "jp2", "j2k", "mpo", "ppm"],
)
def test_image_in_any_format_decodes_to_same_pixels(tmp_path: Path, suffix: str) -> None:
    scene = draw_scene(1)
    path = tmp_path / f"a.{suffix}"
    if suffix == "heic":
        pillow_heif.from_pillow(scene).save(path, quality=90)
    else:
        save_image(path, scene)
    decoded = decode_file(path)
    assert (decoded.image.width, decoded.image.height) == scene.size
    assert measure_difference(decoded.pixels, resize_with_pillow(scene)) < 6
    assert not decoded.image.is_featureless


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(320, 240), (1600, 1200)])  # at full size, and reduced
def test_jpeg_with_orientation_is_decoded_upright(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    upright = draw_scene(2, size)
    stored = upright
    undo = TRANSPOSE_BY_ORIENTATION.get(orientation)
    if undo is not None:
        inverse = {
            Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
            Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
        }
        stored = upright.transpose(inverse.get(undo, undo))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    save_image(tmp_path / "a.jpg", stored, quality=95, exif=exif)
    assert np.array_equal(
        np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")).size), upright.size
    )  # the test's own transpose is right
    decoded = decode_file(tmp_path / "a.jpg")
    assert (decoded.image.width, decoded.image.height) == upright.size
    assert measure_difference(decoded.pixels, resize_with_pillow(upright)) < 3


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "avif"])
def test_other_format_with_orientation_is_decoded_upright(tmp_path: Path, suffix: str) -> None:
    upright = draw_scene(2, (320, 240))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    path = save_image(
        tmp_path / f"a.{suffix}", upright.transpose(Image.Transpose.ROTATE_90), exif=exif
    )
    decoded = decode_file(path)
    assert (decoded.image.width, decoded.image.height) == upright.size
    assert measure_difference(decoded.pixels, resize_with_pillow(upright)) < 8


def test_reduced_jpeg_is_close_to_full_size(tmp_path: Path) -> None:
    scene = draw_scene(3, (4000, 3000))
    path = save_image(tmp_path / "a.jpg", scene, quality=92)
    assert measure_difference(decode_file(path).pixels, resize_with_pillow(Image.open(path))) < 1.5


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    scene = draw_scene(4).convert("RGBA")
    scene.putalpha(Image.linear_gradient("L").resize(scene.size))
    on_white = Image.alpha_composite(Image.new("RGBA", scene.size, "white"), scene)
    for suffix in ("png", "webp", "tiff"):
        path = save_image(
            tmp_path / f"a.{suffix}", scene, **({"lossless": True} if suffix == "webp" else {})
        )
        assert measure_decoding_error(path, on_white) < 1.5
    palette = draw_scene(5).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    clear = save_image(tmp_path / "p.png", palette, transparency=0)
    assert (decode_file(clear).pixels.reshape(-1, 3) == 255).all(axis=1).mean() > 0.02
    opaque = scene.copy()
    opaque.putalpha(255)
    assert (
        decode_file(save_image(tmp_path / "o.png", opaque)).image.pixel_hash
        == decode_file(save_image(tmp_path / "rgb.png", opaque.convert("RGB"))).image.pixel_hash
    )


def make_tiff(
    pixels: bytes, size: tuple[int, int], extra_tags: dict[int, tuple[int, ...]]
) -> bytes:
    """A small uncompressed TIFF in one strip with extra tags of short integers."""
    tags = {
        256: (size[0],),
        257: (size[1],),
        259: (1,),
        273: (8,),
        278: (size[1],),
        279: (len(pixels),),
    } | extra_tags
    entries = b"".join(
        struct.pack(f"<HHI{len(value)}H", tag, 3, len(value), *value).ljust(12, b"\0")
        for tag, value in sorted(tags.items())
    )
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(pixels))
        + pixels
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def test_gray_with_premultiplied_alpha_is_composited_on_white(tmp_path: Path) -> None:
    """The second sample of the TIFF is associated alpha, which Pillow reads and does not write."""
    scene = draw_scene(4, (160, 120)).convert("L")
    alpha = Image.linear_gradient("L").resize(scene.size)
    levels, opacity = np.asarray(scene).astype(np.float64), np.asarray(alpha) / 255.0
    samples = np.stack([(levels * opacity).round(), opacity * 255], axis=-1).astype(np.uint8)
    (tmp_path / "a.tiff").write_bytes(
        make_tiff(samples.tobytes(), scene.size, {258: (8, 8), 262: (1,), 277: (2,), 338: (1,)})
    )
    with Image.open(tmp_path / "a.tiff") as opened:
        assert opened.mode == "La"
    on_white = Image.fromarray((levels * opacity + 255 * (1 - opacity)).round().astype(np.uint8))
    assert measure_decoding_error(tmp_path / "a.tiff", on_white) < 2


def test_deep_cmyk_and_lab_samples_decode_to_their_colors(tmp_path: Path) -> None:
    gray = draw_scene(6).convert("L")
    levels = np.asarray(gray)
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    for suffix in ("png", "tiff"):
        assert measure_decoding_error(save_image(tmp_path / f"deep.{suffix}", deep), gray) < 1.5
    for scale in (1.0, 255.0):
        floats = Image.fromarray(levels.astype(np.float32) / scale)
        assert measure_decoding_error(save_image(tmp_path / f"{scale}.tiff", floats), gray) < 1.5
    color = draw_scene(7)
    for suffix in ("jpg", "tiff"):
        path = save_image(tmp_path / f"cmyk.{suffix}", color.convert("CMYK"))
        assert measure_decoding_error(path, color) < 4
    lab = ImageCms.profileToProfile(
        color, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert measure_decoding_error(save_image(tmp_path / "lab.tiff", lab), color) < 6


def encode_pnm(kind: int, samples: NDArray[Any], white: int) -> bytes:
    """Encode samples (height, width[, 3]) from 0 to `white` as a PBM, PGM or PPM, kind 1 to 6."""
    header = f"P{kind}\n# a comment\n{samples.shape[1]} {samples.shape[0]}\n"
    header += "" if kind in (1, 4) else f"{white}\n"
    if kind <= 3:
        return header.encode() + " ".join(map(str, samples.ravel())).encode()
    if kind == 4:
        return header.encode() + np.packbits(samples.astype(bool), axis=1).tobytes()
    return header.encode() + samples.astype(">u2" if white > 255 else np.uint8).tobytes()


@pytest.mark.parametrize("name", ["a.pbm", "a.pgm", "a.ppm", "a.pnm"])
@pytest.mark.parametrize("kind", range(1, 7))
def test_pnm_of_every_kind_decodes_to_its_pixels(tmp_path: Path, kind: int, name: str) -> None:
    scene = draw_scene(6, (400, 300)).convert("RGB" if kind in (3, 6) else "L")
    levels = np.asarray(scene).astype(np.int64)
    if kind in (1, 4):  # one is black
        scene = scene.point(lambda level: 255 * (level > 127))
        levels = (np.asarray(scene) == 0).astype(np.int64)
    path = tmp_path / name
    path.write_bytes(encode_pnm(kind, levels, 255))
    assert measure_decoding_error(path, scene) < 1.5
    decoded = decode_file(path)
    as_png = decode_file(save_image(tmp_path / "a.png", scene))
    assert (decoded.image.format, decoded.image.width, decoded.image.height) == ("PPM", 400, 300)
    assert decoded.image.pixel_hash == as_png.image.pixel_hash
    path.write_bytes(path.read_bytes()[:500])
    assert decode_failure(path).reason in ("truncated", "damaged")


def test_pnm_of_deep_samples_uses_full_range_and_equals_no_image_of_8_bits(tmp_path: Path) -> None:
    for kind, mode in ((5, "L"), (6, "RGB")):
        scene = draw_scene(6).convert(mode)
        as_png = decode_file(save_image(tmp_path / f"{mode}.png", scene))
        for white in (4095, 65535):
            samples = np.asarray(scene).astype(np.int64) * white // 255
            path = tmp_path / f"{kind}-{white}.pnm"
            path.write_bytes(encode_pnm(kind, samples, white))
            assert measure_decoding_error(path, scene) < 1.5
            assert decode_file(path).image.pixel_hash != as_png.image.pixel_hash


def test_dark_pgm_of_16_bits_stays_dark_and_equals_its_png(tmp_path: Path) -> None:
    samples = np.asarray(draw_scene(6).convert("L")).astype(np.uint16)  # of 65,535
    (tmp_path / "a.pgm").write_bytes(encode_pnm(5, samples.astype(np.int64), 65535))
    pgm = decode_file(tmp_path / "a.pgm")
    assert pgm.pixels.max() <= 1
    png = decode_file(save_image(tmp_path / "a.png", Image.fromarray(samples)))
    assert pgm.image.pixel_hash == png.image.pixel_hash


@pytest.mark.parametrize(
    ("header", "limit"),
    [
        (b"P6\n20000 20000\n255\n", "the limit is 100 megapixels"),
        (b"P3\n5000 5000\n255\n", "5000 x 5000 as text; the limit is 16 megapixels"),
        (b"P1\n999999999 9\n", "megapixels"),
    ],
)
def test_pnm_of_too_many_pixels_is_rejected_by_its_header(
    tmp_path: Path, header: bytes, limit: str
) -> None:
    path = tmp_path / "a.pnm"
    path.write_bytes(header + b"1 " * 1000)
    failure = decode_failure(path)
    assert failure.reason == "too many pixels"
    assert limit in (failure.detail or "")


def test_gray_of_12_bits_uses_full_range(tmp_path: Path) -> None:
    gray = draw_scene(6).convert("L")
    path = tmp_path / "a.tiff"
    path.write_bytes(make_12_bit_tiff(np.asarray(gray).astype(np.uint16) * 16))
    assert measure_decoding_error(path, gray) < 3


def make_12_bit_tiff(samples: NDArray[np.uint16]) -> bytes:
    """A gray TIFF with two samples in three bytes, which Pillow reads but does not write."""
    left, right = samples[:, ::2], samples[:, 1::2]
    packed = (
        np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=-1)
        .astype(np.uint8)
        .tobytes()
    )
    height, width = samples.shape
    tags = [
        (256, width),
        (257, height),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(packed)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags
    )
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_animation_is_decoded_as_first_frame_and_flagged(tmp_path: Path, suffix: str) -> None:
    first, second = (
        draw_scene(seed).quantize(64) if suffix == "gif" else draw_scene(seed) for seed in (8, 9)
    )
    animated = decode_file(
        save_image(
            tmp_path / f"a.{suffix}", first, save_all=True, append_images=[second], duration=100
        )
    )
    longer = decode_file(
        save_image(
            tmp_path / f"b.{suffix}",
            first,
            save_all=True,
            append_images=[second, first],
            duration=100,
        )
    )
    still = decode_file(save_image(tmp_path / f"c.{suffix}", first))
    assert measure_difference(animated.pixels, resize_with_pillow(first)) < 8
    assert animated.image.flags == longer.image.flags == ("animated",)
    assert still.image.flags == ()
    assert len({decoded.image.pixel_hash for decoded in (animated, longer, still)}) == 3


def test_multipage_tiff_is_decoded_as_first_page_and_flagged(tmp_path: Path) -> None:
    pages = decode_file(
        save_image(tmp_path / "a.tiff", draw_scene(8), save_all=True, append_images=[draw_scene(9)])
    )
    page = decode_file(save_image(tmp_path / "b.tiff", draw_scene(8)))
    assert np.array_equal(pages.pixels, page.pixels)
    assert pages.image.flags == ("pages",)
    assert pages.image.pixel_hash != page.image.pixel_hash


def test_mpo_is_decoded_as_its_first_image(tmp_path: Path) -> None:
    path = save_image(
        tmp_path / "a.mpo", draw_scene(8), save_all=True, append_images=[draw_scene(9)], quality=90
    )
    decoded = decode_file(path)
    assert (decoded.image.format, decoded.image.flags) == ("MPO", ())
    assert measure_difference(decoded.pixels, resize_with_pillow(draw_scene(8))) < 3


@pytest.mark.parametrize("size", [(1601, 1203), (999, 777), (64, 64), (70, 900)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile_size": (256, 256)},
        {"num_resolutions": 2},
        {"offset": (3, 5), "tile_size": (4096, 4096)},
        {"irreversible": True},
    ],
)
def test_jpeg_2000_of_any_size_is_decoded(
    tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    scene = draw_scene(3, size)
    for suffix in ("jp2", "j2k"):
        decoded = decode_file(save_image(tmp_path / f"a.{suffix}", scene, **options))
        assert (decoded.image.width, decoded.image.height) == size
        assert measure_difference(decoded.pixels, resize_with_pillow(scene)) < 1.5
    assert decode_failure(truncate_file(tmp_path / "a.j2k", 0.1)).reason in {"damaged", "truncated"}


def truncate_file(path: Path, share: float) -> Path:
    """Keep only the first `share` of a file."""
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize("size", [(320, 240), (1600, 1200)])  # at full size, and reduced
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_without_end_is_decoded_and_flagged_as_damaged(
    tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    scene = draw_scene(2, size)
    sound = decode_file(save_image(tmp_path / "sound.jpg", scene, quality=90, **options))
    damaged = decode_file(
        truncate_file(save_image(tmp_path / "a.jpg", scene, quality=90, **options), 0.9)
    )
    assert (damaged.image.flags, damaged.image.is_damaged, sound.image.is_damaged) == (
        ("damaged",),
        True,
        False,
    )
    # It is known by its sound rows, if it is not progressive.
    width, height = damaged.image.width, damaged.image.height
    assert width == size[0]
    assert height == size[1] if options.get("progressive") else height < size[1]
    assert height > 0.75 * size[1]
    assert damaged.image.size == (tmp_path / "a.jpg").stat().st_size
    part = save_image(tmp_path / "part.png", scene.crop((0, 0, width, height)))
    assert measure_difference(damaged.pixels[:-20], decode_file(part).pixels[:-20]) < 4
    assert damaged.image.pixel_hash not in (
        sound.image.pixel_hash,
        decode_file(truncate_file(tmp_path / "sound.jpg", 0.95)).image.pixel_hash,
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_with_less_than_half_is_rejected_as_truncated(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(
        0, 256, (256, 256, len(mode) if mode != "L" else 1), np.uint8
    )
    data = encode_jpeg(Image.frombytes(mode, (256, 256), noise.tobytes()))
    for share, is_decoded in ((0.1, False), (0.4, False), (0.6, True), (0.9, True)):
        path.write_bytes(data[: round(len(data) * share)])
        assert (
            isinstance(decode_source(make_source_file(path), PREPROCESS), Decoded) is is_decoded
        ), share


def test_missing_decoder_raises_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_import_error(*args: object, **kwargs: object) -> None:
        raise ImportError("half installed")

    path = save_image(tmp_path / "a.png", draw_scene(1))
    monkeypatch.setattr(Image, "open", raise_import_error)
    with pytest.raises(ImportError, match="half installed"):
        decode_source(make_source_file(path), PREPROCESS)


@pytest.mark.parametrize("suffix", ["tga", "pcx", "sgi"])
def test_format_outside_the_allow_list_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """All of Pillow's decoders are loaded; those that are not allowed are not tried."""
    Image.init()
    path = save_image(tmp_path / f"a.{suffix}", draw_scene(1))
    Image.open(path).close()
    data = path.read_bytes()
    assert not has_image_signature(data[:SIGNATURE_BYTES])
    assert decode_failure(path).reason == "not a photo"
    monkeypatch.setattr("pipeline.decode.read.has_image_signature", lambda head: True)
    assert decode_failure(path).reason == "no picture inside"
    with pytest.raises(Rejected, match="no decoder knows it"):
        decode_image(data, b"", PREPROCESS)
