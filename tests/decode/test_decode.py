from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from pipeline.decode import exif as exif_module
from pipeline.decode import image as picture_module
from pipeline.decode import memory
from pipeline.decode import read as reading
from pipeline.decode.decode import Decoded, decode
from pipeline.decode.formats import SIGNATURE_BYTES, has_image_signature
from pipeline.decode.preprocess import Preprocess
from pipeline.decode.read import (
    MAX_FILE_BYTES,
    AlreadyStored,
    Failure,
    Rejected,
)
from pipeline.decode.resize import TRANSPOSE_BY_ORIENTATION
from tests.support.images import (
    PREPROCESS,
    decode_file,
    draw_scene,
    encode_jpeg,
    make_source_file,
    measure_difference,
    resize_with_pillow,
    save_image,
)


def failure(path: Path) -> Failure:
    failed = decode(make_source_file(path), PREPROCESS)
    assert isinstance(failed, Failure), failed
    return failed


@pytest.mark.parametrize(
    "suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp", "avif", "heic", "jp2", "j2k", "mpo"]
)
def test_formats_show_the_same_picture(tmp_path: Path, suffix: str) -> None:
    shown = draw_scene(1)
    path = tmp_path / f"a.{suffix}"
    if suffix == "heic":
        pillow_heif.from_pillow(shown).save(path, quality=90)
    else:
        save_image(path, shown)
    decoded = decode_file(path)
    assert (decoded.image.width, decoded.image.height) == shown.size
    assert measure_difference(decoded.pixels, resize_with_pillow(shown)) < 6
    assert not decoded.image.is_featureless


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(320, 240), (1600, 1200)])  # as it is, and drafted
def test_exif_orientation_is_upright(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    upright = draw_scene(2, size)
    turned = upright
    undo = TRANSPOSE_BY_ORIENTATION.get(orientation)
    if undo is not None:
        backwards = {
            Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
            Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
        }
        turned = upright.transpose(backwards.get(undo, undo))
    exif = Image.Exif()
    exif[exif_module.ORIENTATION_TAG] = orientation
    save_image(tmp_path / "a.jpg", turned, quality=95, exif=exif)
    assert np.array_equal(
        np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")).size), upright.size
    )  # the test's own turn is right
    decoded = decode_file(tmp_path / "a.jpg")
    assert (decoded.image.width, decoded.image.height) == upright.size
    assert measure_difference(decoded.pixels, resize_with_pillow(upright)) < 3


def test_a_draft_is_close_to_the_full_picture(tmp_path: Path) -> None:
    shown = draw_scene(3, (4000, 3000))
    path = save_image(tmp_path / "a.jpg", shown, quality=92)
    assert measure_difference(decode_file(path).pixels, resize_with_pillow(Image.open(path))) < 1.5


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    shown = draw_scene(4).convert("RGBA")
    shown.putalpha(Image.linear_gradient("L").resize(shown.size))
    ground = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    for suffix in ("png", "webp", "tiff"):
        path = save_image(
            tmp_path / f"a.{suffix}", shown, **({"lossless": True} if suffix == "webp" else {})
        )
        assert measure_difference(decode_file(path).pixels, resize_with_pillow(ground)) < 1.5
    palette = draw_scene(5).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    clear = save_image(tmp_path / "p.png", palette, transparency=0)
    assert (decode_file(clear).pixels.reshape(-1, 3) == 255).all(axis=1).mean() > 0.02
    opaque = shown.copy()
    opaque.putalpha(255)
    assert (
        decode_file(save_image(tmp_path / "o.png", opaque)).image.pixel_hash
        == decode_file(save_image(tmp_path / "rgb.png", opaque.convert("RGB"))).image.pixel_hash
    )


def test_grey_with_premultiplied_alpha_is_laid_on_white(tmp_path: Path) -> None:
    """As a TIFF of two samples whose second is associated alpha, which Pillow reads and does not write."""
    shown = draw_scene(4, (160, 120)).convert("L")
    alpha = Image.linear_gradient("L").resize(shown.size)
    levels, opacity = np.asarray(shown).astype(np.float64), np.asarray(alpha) / 255.0
    samples = np.stack([(levels * opacity).round(), opacity * 255], axis=-1).astype(np.uint8)
    (tmp_path / "a.tiff").write_bytes(
        tiff(samples.tobytes(), shown.size, {258: (8, 8), 262: (1,), 277: (2,), 338: (1,)})
    )
    with Image.open(tmp_path / "a.tiff") as opened:
        assert opened.mode == "La"
    ground = Image.fromarray((levels * opacity + 255 * (1 - opacity)).round().astype(np.uint8))
    assert (
        measure_difference(decode_file(tmp_path / "a.tiff").pixels, resize_with_pillow(ground)) < 2
    )


def tiff(pixels: bytes, size: tuple[int, int], about: dict[int, tuple[int, ...]]) -> bytes:
    """A small uncompressed TIFF in one strip with these tags, one or two short numbers each."""
    tags = {
        256: (size[0],),
        257: (size[1],),
        259: (1,),
        273: (8,),
        278: (size[1],),
        279: (len(pixels),),
    } | about
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


def test_deep_and_cmyk_pictures_look_right(tmp_path: Path) -> None:
    grey = draw_scene(6).convert("L")
    levels = np.asarray(grey)
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    for suffix in ("png", "tiff"):
        assert (
            measure_difference(
                decode_file(save_image(tmp_path / f"deep.{suffix}", deep)).pixels,
                resize_with_pillow(grey),
            )
            < 1.5
        )
    for scale in (1.0, 255.0):
        floats = Image.fromarray(levels.astype(np.float32) / scale)
        assert (
            measure_difference(
                decode_file(save_image(tmp_path / f"{scale}.tiff", floats)).pixels,
                resize_with_pillow(grey),
            )
            < 1.5
        )
    colour = draw_scene(7)
    for suffix in ("jpg", "tiff"):
        assert (
            measure_difference(
                decode_file(save_image(tmp_path / f"cmyk.{suffix}", colour.convert("CMYK"))).pixels,
                resize_with_pillow(colour),
            )
            < 4
        )
    lab = ImageCms.profileToProfile(
        colour, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert (
        measure_difference(
            decode_file(save_image(tmp_path / "lab.tiff", lab)).pixels, resize_with_pillow(colour)
        )
        < 6
    )


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_the_first_frame_stands_for_an_animation_which_is_not_a_still(
    tmp_path: Path, suffix: str
) -> None:
    first, second = (
        draw_scene(seed).quantize(64) if suffix == "gif" else draw_scene(seed) for seed in (8, 9)
    )
    moving = decode_file(
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
    assert measure_difference(moving.pixels, resize_with_pillow(first)) < 8
    assert moving.image.flags == longer.image.flags == ("animated",)
    assert still.image.flags == ()
    assert len({decoded.image.pixel_hash for decoded in (moving, longer, still)}) == 3


def test_the_first_page_stands_for_a_document_which_is_not_a_photo(tmp_path: Path) -> None:
    pages = decode_file(
        save_image(tmp_path / "a.tiff", draw_scene(8), save_all=True, append_images=[draw_scene(9)])
    )
    page = decode_file(save_image(tmp_path / "b.tiff", draw_scene(8)))
    assert np.array_equal(pages.pixels, page.pixels)
    assert pages.image.flags == ("pages",)
    assert pages.image.pixel_hash != page.image.pixel_hash


def test_the_other_pictures_of_an_mpo_are_left_aside(tmp_path: Path) -> None:
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
def test_jpeg_2000_of_any_size_is_shown(
    tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    shown = draw_scene(3, size)
    for suffix in ("jp2", "j2k"):
        decoded = decode_file(save_image(tmp_path / f"a.{suffix}", shown, **options))
        assert (decoded.image.width, decoded.image.height) == size
        assert measure_difference(decoded.pixels, resize_with_pillow(shown)) < 1.5
    assert failure(cut(tmp_path / "a.j2k", 0.1)).reason in {"damaged", "truncated"}


def test_a_jpeg_2000_is_reduced_before_its_pixels_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.jp2", draw_scene(3, (1024, 768)))
    monkeypatch.setattr(memory, "MAX_PIXELS", 1024 * 768 // 16)
    assert decode_file(path).image.width == 1024
    assert (
        "1024 x 768"
        in failure(
            save_image(tmp_path / "b.jp2", draw_scene(3, (1024, 768)), num_resolutions=1)
        ).detail
    )


def cut(path: Path, share: float) -> Path:
    """The file, of which only the first part is left."""
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize("size", [(320, 240), (1600, 1200)])  # as it is, and drafted
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_whose_end_is_missing_is_shown_and_noted(
    tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    shown = draw_scene(2, size)
    sound = decode_file(save_image(tmp_path / "sound.jpg", shown, quality=90, **options))
    damaged = decode_file(cut(save_image(tmp_path / "a.jpg", shown, quality=90, **options), 0.9))
    assert (damaged.image.flags, damaged.image.is_damaged, sound.image.is_damaged) == (
        ("damaged",),
        True,
        False,
    )
    assert (damaged.image.width, damaged.image.height) == size
    assert damaged.image.size == (tmp_path / "a.jpg").stat().st_size
    assert measure_difference(damaged.pixels[:32], sound.pixels[:32]) < 4
    assert damaged.image.pixel_hash not in (
        sound.image.pixel_hash,
        decode_file(cut(tmp_path / "sound.jpg", 0.95)).image.pixel_hash,
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_which_less_than_half_is_there_is_truncated(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(
        0, 256, (256, 256, len(mode) if mode != "L" else 1), np.uint8
    )
    data = encode_jpeg(Image.frombytes(mode, (256, 256), noise.tobytes()))
    for share, there in ((0.1, False), (0.4, False), (0.6, True), (0.9, True)):
        path.write_bytes(data[: round(len(data) * share)])
        assert isinstance(decode(make_source_file(path), PREPROCESS), Decoded) is there, share


def test_identical_pixels_are_told_from_similar_ones(tmp_path: Path) -> None:
    shown = draw_scene(10)
    as_png = decode_file(save_image(tmp_path / "a.png", shown))
    again = decode_file(save_image(tmp_path / "a.bmp", shown))
    lossless = decode_file(save_image(tmp_path / "a.webp", shown, lossless=True))
    assert as_png.image.pixel_hash == again.image.pixel_hash == lossless.image.pixel_hash
    assert len({as_png.image.hash, again.image.hash, lossless.image.hash}) == 3
    touched = shown.copy()
    touched.putpixel((5, 5), (1, 2, 3))
    assert (
        decode_file(save_image(tmp_path / "b.png", touched)).image.pixel_hash
        != as_png.image.pixel_hash
    )
    assert (
        decode_file(
            save_image(tmp_path / "c.png", shown.transpose(Image.Transpose.ROTATE_90))
        ).image.pixel_hash
        != as_png.image.pixel_hash
    )


def test_identical_pixels_are_not_claimed_where_more_is_there(tmp_path: Path) -> None:
    """Samples of 16 bits, colour profiles and inks that 8 bits of RGB do not show."""
    shown = draw_scene(10, (64, 48))
    levels = np.asarray(shown.convert("L")).astype(np.uint16) * 257
    deep = decode_file(save_image(tmp_path / "deep.png", Image.fromarray(levels)))
    assert (
        deep.image.pixel_hash
        != decode_file(save_image(tmp_path / "shallow.png", shown.convert("L"))).image.pixel_hash
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
        for red, green, blue in np.asarray(shown).reshape(-1, 3).tolist()
    )
    (tmp_path / "deep rgb.png").write_bytes(png_of_16_bits(shown.size, raw))
    assert (
        decode_file(tmp_path / "deep rgb.png").image.pixel_hash
        != decode_file(save_image(tmp_path / "rgb.png", shown)).image.pixel_hash
    )
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in ("png", "jpg"):
        plain = decode_file(save_image(tmp_path / f"plain.{suffix}", shown)).image.pixel_hash
        assert (
            plain
            != decode_file(
                save_image(tmp_path / f"profiled.{suffix}", shown, icc_profile=profile)
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


def png_of_16_bits(size: tuple[int, int], rgb: bytes) -> bytes:
    """A PNG with two bytes a sample, which Pillow reads but does not write."""

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


def test_large_jpegs_with_other_metadata_have_identical_pixels(tmp_path: Path) -> None:
    shown = draw_scene(11, (1600, 1200))
    exif = Image.Exif()
    exif[0x010E] = "a holiday"
    plain, described = tmp_path / "plain.jpg", tmp_path / "described.jpg"
    plain.write_bytes(encode_jpeg(shown))
    described.write_bytes(encode_jpeg(shown, exif=exif, comment=b"hello"))
    assert decode_file(plain).image.pixel_hash == decode_file(described).image.pixel_hash
    assert decode_file(plain).image.hash != decode_file(described).image.hash
    turned, other = tmp_path / "turned.jpg", tmp_path / "other.jpg"
    exif[exif_module.ORIENTATION_TAG] = 6
    turned.write_bytes(encode_jpeg(shown, exif=exif))
    other.write_bytes(encode_jpeg(shown, quality=89))
    profiled = tmp_path / "profiled.jpg"
    profiled.write_bytes(
        encode_jpeg(
            shown, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        )
    )
    assert (
        len({decode_file(path).image.pixel_hash for path in (plain, turned, other, profiled)}) == 4
    )
    inverted = tmp_path / "inverted.jpg"  # Adobe's segment says which colours the numbers are
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    inverted.write_bytes(encode_jpeg(shown)[:2] + adobe + encode_jpeg(shown)[2:])
    assert decode_file(inverted).image.pixel_hash != decode_file(plain).image.pixel_hash


def test_sizes_at_the_edge(tmp_path: Path) -> None:
    for size in ((1, 1), (1, 5000), (5000, 1), (2, 3)):
        decoded = decode_file(save_image(tmp_path / f"{size}.png", Image.new("RGB", size, "red")))
        assert decoded.pixels.shape == (64, 64, 3)
        assert decoded.image.is_featureless
        for fit in ("shortest", "longest"):
            assert decode_file(tmp_path / f"{size}.png", Preprocess(64, fit)).pixels.shape == (
                64,
                64,
                3,
            )


def test_featureless_pictures_are_known(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 300), np.linspace(0, 255, 200))
    noise = np.random.default_rng(0).normal(128, 12, (200, 300, 3)).clip(0, 255)
    for number, array in enumerate(
        [
            np.full((200, 300, 3), 255),
            np.stack([x, y, x], -1),
            np.stack([x * x / 255] * 3, -1),
            noise,
        ]
    ):
        assert decode_file(
            save_image(tmp_path / f"{number}.png", Image.fromarray(array.astype(np.uint8)))
        ).image.is_featureless
    for seed in range(30):
        assert not decode_file(
            save_image(tmp_path / "scene.png", draw_scene(seed))
        ).image.is_featureless
    faint = Image.blend(Image.new("RGB", (320, 240), (128, 128, 128)), draw_scene(1), 0.15)
    assert not decode_file(save_image(tmp_path / "faint.png", faint)).image.is_featureless


def test_a_broken_installation_is_no_damage_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*words: object, **given: object) -> None:
        raise ImportError("half of it is there")

    path = save_image(tmp_path / "a.png", draw_scene(1))
    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(ImportError, match="half"):
        decode(make_source_file(path), PREPROCESS)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.jpg", b"", "empty file"),
        ("text.jpg", b"this is text, whatever its name says", "no picture inside"),
        ("notes.txt", b"this is text", "not a photo"),
        ("film.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "not a photo"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0", "raw photo"),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100, "no picture inside"),
        ("short.jpg", encode_jpeg(draw_scene(1))[:3000], "truncated"),
        ("head.jpg", encode_jpeg(draw_scene(1))[:20], "no picture inside"),
        ("noise.jpg", b"\xff\xd8\xff" + bytes(range(256)) * 4, "no picture inside"),
        ("bm.bmp", b"BM" + bytes(12) + b"\x28" + bytes(60), "damaged"),
        ("BMW.txt", b"BMW is a maker of cars, and this is a text about them", "not a photo"),
        ("a.3fr", b"II*\0\x08\0\0\0", "raw photo"),
    ],
)
def test_what_is_no_sound_photo_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, reason: str
) -> None:
    monkeypatch.setattr(reading, "EXTRA_INSTALLED", {"raw": False, "jxl": False})
    path = tmp_path / name
    path.write_bytes(data)
    failed = failure(path)
    assert failed.reason == reason
    assert (failed.hash is None) == (
        reason in {"empty file", "raw photo", "not a photo"} or name == "text.jpg"
    )


def test_a_name_without_a_suffix_or_with_a_wrong_one_is_no_obstacle(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", draw_scene(1)).rename(tmp_path / "a")
    save_image(tmp_path / "b.png", draw_scene(1)).rename(tmp_path / "b.jpg")
    assert (
        decode_file(tmp_path / "a").image.pixel_hash
        == decode_file(tmp_path / "b.jpg").image.pixel_hash
    )


def test_too_many_pixels_are_refused_from_the_header(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert failure(bomb).reason == "too many pixels"
    assert "20000 x 20000" in failure(bomb).detail


def test_a_200_megapixel_jpeg_is_read(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    draw_scene(12, (400, 300)).resize((16_320, 12_240), Image.Resampling.NEAREST).save(
        path, quality=60
    )
    decoded = decode_file(path)
    assert (decoded.image.width, decoded.image.height) == (16_320, 12_240)
    assert measure_difference(decoded.pixels, resize_with_pillow(draw_scene(12, (400, 300)))) < 6


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """Two small files that want a lot: deep grey of 100 megapixels, and half a gigabyte of nothing."""
    Image.fromarray(np.zeros((9990, 10_000), np.uint16)).save(
        tmp_path / "deep.png", compress_level=9
    )
    with (tmp_path / "sparse.bmp").open("wb") as file:
        file.write(b"BM" + bytes(12) + b"\x28")
        file.truncate(MAX_FILE_BYTES)
    code = (
        "import sys; from pathlib import Path; from pipeline.decode.decode import decode; from pipeline.decode.preprocess import Preprocess\n"
        "from pipeline.scan import SourceFile\n"
        "print(type(decode(SourceFile(sys.argv[1]), Preprocess(192))).__name__)\n"
        # not getrusage: it counts what the process that started this one held
        "print(next(line.split()[1] for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM')))\n"
    )
    for name, outcome in (("deep.png", "Decoded"), ("sparse.bmp", "Failure")):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / name],
            capture_output=True,
            text=True,
            check=True,
        )
        said, peak = done.stdout.split()
        assert said == outcome
        assert int(peak) < 1_000_000  # kB
    with (tmp_path / "sparse.bmp").open("r+b") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert failure(tmp_path / "sparse.bmp").reason == "file too large"


def test_a_progressive_jpeg_is_held_to_its_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.jpg", draw_scene(1, (1600, 1200)), progressive=True)
    decode_file(path)
    monkeypatch.setattr(memory, "MAX_PROGRESSIVE_PIXELS", 1600 * 1200 - 1)
    assert "progressive" in failure(path).detail


def test_a_file_that_changes_meanwhile_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    real = os.pread

    def while_written(descriptor: int, length: int, at: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"more")
        return real(descriptor, length, at)

    monkeypatch.setattr(os, "pread", while_written)
    assert failure(path).reason == "changed while read"


@pytest.mark.parametrize("suffix", ["tga", "ppm", "pcx", "sgi"])
def test_only_listed_formats_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """All of Pillow's decoders are loaded; those that are not on the list are not tried, whatever the first bytes say."""
    Image.init()
    path = save_image(tmp_path / f"a.{suffix}", draw_scene(1))
    Image.open(path).close()
    data = path.read_bytes()
    assert not has_image_signature(data[:SIGNATURE_BYTES])
    assert failure(path).reason == "not a photo"
    monkeypatch.setattr(reading, "has_image_signature", lambda head: True)
    assert failure(path).reason == "no picture inside"
    with pytest.raises(Rejected, match="no decoder knows it"):
        picture_module.decode_image(data, b"", PREPROCESS)


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "avif"])
def test_orientation_in_other_formats(tmp_path: Path, suffix: str) -> None:
    upright = draw_scene(2, (320, 240))
    exif = Image.Exif()
    exif[exif_module.ORIENTATION_TAG] = 6
    path = save_image(
        tmp_path / f"a.{suffix}", upright.transpose(Image.Transpose.ROTATE_90), exif=exif
    )
    decoded = decode_file(path)
    assert (decoded.image.width, decoded.image.height) == upright.size
    assert measure_difference(decoded.pixels, resize_with_pillow(upright)) < 8


def test_grey_of_12_bits_is_not_dark(tmp_path: Path) -> None:
    grey = draw_scene(6).convert("L")
    path = tmp_path / "a.tiff"
    path.write_bytes(tiff_of_12_bits(np.asarray(grey).astype(np.uint16) * 16))
    assert measure_difference(decode_file(path).pixels, resize_with_pillow(grey)) < 3


def tiff_of_12_bits(samples: NDArray[np.uint16]) -> bytes:
    """A grey TIFF with two samples in three bytes, which Pillow reads but does not write."""
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


def test_padding_is_no_feature(tmp_path: Path) -> None:
    white = save_image(tmp_path / "white.png", Image.new("RGB", (400, 200), "white"))
    assert decode_file(white, Preprocess(64, "longest")).image.is_featureless


def test_unreadable_and_special_files(tmp_path: Path) -> None:
    assert failure(tmp_path / "nothing.jpg").reason == "unreadable"
    assert failure(tmp_path / "nul\0.jpg").reason == "unreadable"
    assert failure(tmp_path).reason in {"unreadable", "not a photo"}
    os.mkfifo(tmp_path / "fifo.jpg")
    assert failure(tmp_path / "fifo.jpg").detail == "no regular file"


def test_a_known_content_is_not_decoded(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    asked: list[bytes] = []

    def known(hash_: bytes) -> bool:
        asked.append(hash_)
        return False

    assert isinstance(decode(make_source_file(path), PREPROCESS, known), AlreadyStored)
    assert asked == [decode_file(path).image.hash]


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((400, 200), (32, 64, 3)),
        ((30, 20), (20, 30, 3)),
        ((64, 64), (64, 64, 3)),
        ((1, 1), (1, 1, 3)),
    ],
)
def test_a_view_within_a_size_keeps_the_shape_and_enlarges_nothing(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, ...]
) -> None:
    assert (
        decode_file(
            save_image(tmp_path / "a.png", draw_scene(1, size)), Preprocess(64, "within")
        ).pixels.shape
        == shape
    )


def test_the_metadata_of_a_photo_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x010E] = "Canon", "   \0"  # a description of spaces is none
    exif.get_ifd(0x8769).update({0x9003: "2019:08:03 12:34:56", 0x829A: 0.01})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 1.0, 0.0), 3: "E", 4: (16.0, 0.0, 0.0)})
    (path := tmp_path / "a.jpg").write_bytes(encode_jpeg(draw_scene(1, (300, 200)), exif=exif))
    image = decode_file(path)
    assert image.image.metadata == ("camera", "date", "exposure", "place")
    assert image.image.taken_at == 1564835696
    save_image(tmp_path / "b.heic", draw_scene(1, (300, 200)), format="HEIF", exif=exif.tobytes())
    assert decode_file(tmp_path / "b.heic").image.metadata == (
        "camera",
        "date",
        "exposure",
        "place",
    )
    (bare := tmp_path / "c.jpg").write_bytes(encode_jpeg(draw_scene(1, (300, 200))))
    assert (decode_file(bare).image.metadata, decode_file(bare).image.taken_at) == ((), None)


@pytest.mark.parametrize(
    ("tag", "value", "kinds"),
    [
        (0x9286, b"ASCII\0\0\0" + b"\0" * 200, ()),
        (0x9286, b"ASCII\0\0\0our garden", ("words",)),
        (0x9C9B, b"\0\0", ()),
        (0x9C9B, "Garten".encode("utf-16-le"), ("words",)),
        (0x4746, 0, ()),
        (0x4746, 4, ("words",)),
        (0x010E, "   ", ()),
        (0x8825, {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, ()),
        (0x8825, {2: (48.0, 1.0, 0.0), 4: (16.0, 0.0, 0.0)}, ("place",)),
        (0x8825, {2: (float("nan"),) * 3, 4: (float("nan"),) * 3}, ()),
        (0x9003, "0001:01:01 00:00:00", ()),
    ],
)
def test_metadata_that_says_nothing_is_none(
    tag: int, value: object, kinds: tuple[str, ...]
) -> None:
    assert exif_module.find_metadata_kinds({tag: value}) == kinds


def test_the_orientation_is_that_of_the_first_directory(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[exif_module.ORIENTATION_TAG] = 1
    exif.get_ifd(0x8769)[exif_module.ORIENTATION_TAG] = 6
    (path := tmp_path / "a.jpg").write_bytes(encode_jpeg(draw_scene(1, (300, 200)), exif=exif))
    assert (decode_file(path).image.width, decode_file(path).image.height) == (300, 200)


@pytest.mark.parametrize(
    "moment",
    [
        "0000:00:00 00:00:00",
        "2019:13:01 00:00:00",
        "yesterday",
        "",
        "2019-08-03",
        "99999:01:01 00:00:00",
    ],
)
def test_a_moment_that_cannot_be_is_none(moment: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: moment})
    (path := tmp_path / "a.jpg").write_bytes(encode_jpeg(draw_scene(1, (300, 200)), exif=exif))
    assert (decode_file(path).image.metadata, decode_file(path).image.taken_at) == ((), None)


@pytest.mark.parametrize("at", range(6, 120, 3))
def test_broken_exif_is_no_reason_to_refuse_a_photo(at: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    exif.get_ifd(0x8769).update({0x9003: "2019:08:03 12:34:56"})
    raw = bytearray(exif.tobytes())
    raw[at : at + 3] = b"\xff\xff\xff"
    (path := tmp_path / "a.jpg").write_bytes(
        encode_jpeg(draw_scene(1, (300, 200)), exif=bytes(raw))
    )
    assert decode_file(path).image.width in (300, 200)
