"""Samples and color profiles, against the definitions of their color spaces."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline.decode.pixels.color import MAX_PROFILE_BYTES
from tests.support.images import (
    decode_failure,
    decode_file,
    draw_scene,
    encode_jpeg,
    measure_decoding_error,
    measure_difference,
    resize_with_pillow,
    save_image,
)

# Columns: red, green and blue at full, as XYZ under D50.
ADOBE = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def build_icc_profile(
    space: bytes, kind: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ "
) -> bytes:
    """Build an ICC profile of version 2."""
    at, body, table = 132 + 12 * len(tags), b"", struct.pack(">I", len(tags))
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s28sIII",
        at + len(body),
        bytes(4),
        0x02100000,
        kind,
        space,
        connection,
        bytes(12),
        b"acsp",
        bytes(28),
        0xF6D6,
        0x10000,
        0xD32D,
    )
    return header.ljust(128, b"\0") + table + body


def encode_xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def encode_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def build_rgb_profile(primaries: NDArray[np.float64], gamma: float = 2.2) -> bytes:
    columns = {
        name + b"XYZ": encode_xyz(column)
        for name, column in zip((b"r", b"g", b"b"), primaries.T, strict=True)
    }
    return build_icc_profile(
        b"RGB ",
        b"mntr",
        columns
        | {b"wtpt": encode_xyz(SRGB.sum(axis=1))}
        | {name + b"TRC": encode_curve(gamma) for name in (b"r", b"g", b"b")},
    )


def build_cmyk_profile() -> bytes:
    """Build a profile of an ideal press without color: L is 100 (1-K)(1-(C+M+Y)/3)."""
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    light = [(1 - k) * (1 - (c + m + y) / 3) for c, m, y, k in corners]
    table = b"".join(struct.pack(">3H", round(value * 0xFF00), 0x8000, 0x8000) for value in light)
    identity = struct.pack(">9i", *(65536 * (at % 4 == 0) for at in range(9)))
    ends = struct.pack(">2H", 0, 0xFFFF)
    lut = (
        b"mft2\0\0\0\0"
        + bytes([4, 3, 2, 0])
        + identity
        + struct.pack(">2H", 2, 2)
        + ends * 4
        + table
        + ends * 3
    )
    return build_icc_profile(
        b"CMYK",
        b"prtr",
        {b"A2B0": lut, b"A2B1": lut, b"wtpt": encode_xyz(SRGB.sum(axis=1))},
        b"Lab ",
    )


def convert_with_numpy(
    levels: NDArray[np.uint8], primaries: NDArray[np.float64], gamma: float = 2.2
) -> NDArray[np.uint8]:
    """Convert RGB of a profile to sRGB, by the definition of both."""
    linear = (levels / 255.0) ** gamma @ (np.linalg.inv(SRGB) @ primaries).T
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray((255 * encoded).round().astype(np.uint8))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "avif"])
def test_wide_gamut_image_is_converted_to_srgb(tmp_path: Path, suffix: str) -> None:
    scene = draw_scene(1)
    path = save_image(
        tmp_path / f"a.{suffix}", scene, quality=95, icc_profile=build_rgb_profile(ADOBE)
    )
    wide = Image.fromarray(convert_with_numpy(np.asarray(scene), ADOBE))
    assert (
        measure_decoding_error(path, wide)
        < 4
        < measure_difference(resize_with_pillow(scene), resize_with_pillow(wide)) - 4
    )


@pytest.mark.parametrize("size", [(320, 240), (1600, 1200)])  # at full size, and reduced
def test_copy_saved_as_srgb_has_same_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    scene = draw_scene(2, size)
    wide = save_image(
        tmp_path / "wide.jpg",
        scene,
        quality=95,
        subsampling=0,
        icc_profile=build_rgb_profile(ADOBE),
    )
    copy = save_image(
        tmp_path / "copy.jpg",
        Image.fromarray(convert_with_numpy(np.asarray(scene), ADOBE)),
        quality=95,
        subsampling=0,
    )
    assert measure_difference(decode_file(wide).pixels, decode_file(copy).pixels) < 2
    assert decode_file(wide).image.pixel_hash != decode_file(copy).image.pixel_hash


def test_transparency_with_profile_is_composited_on_white(tmp_path: Path) -> None:
    scene = draw_scene(3, (64, 64)).convert("RGBA")
    scene.putalpha(Image.new("L", scene.size, 0))
    assert (
        decode_file(
            save_image(tmp_path / "a.png", scene, icc_profile=build_rgb_profile(ADOBE))
        ).pixels
        >= 254
    ).all()


def test_gray_is_converted_by_its_profile(tmp_path: Path) -> None:
    gray = draw_scene(4, (64, 64)).convert("L")
    linear = build_icc_profile(
        b"GRAY", b"mntr", {b"kTRC": encode_curve(1.0), b"wtpt": encode_xyz(SRGB.sum(axis=1))}
    )
    as_rgb = convert_with_numpy(np.asarray(gray.convert("RGB")), SRGB, 1.0)
    assert (
        measure_difference(
            decode_file(save_image(tmp_path / "a.png", gray, icc_profile=linear)).pixels, as_rgb
        )
        < 1
    )
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    assert (
        measure_difference(
            decode_file(save_image(tmp_path / "deep.tiff", deep, icc_profile=linear)).pixels, as_rgb
        )
        < 1
    )


def test_cmyk_is_converted_by_its_profile(tmp_path: Path) -> None:
    cmyk = np.zeros((64, 64, 4), np.uint8)
    cmyk[:, 32:, 0] = 255  # cyan: by the profile, a third of the light is lost
    cmyk[32:, :, 3] = 128
    scene = Image.frombytes("CMYK", (64, 64), cmyk.tobytes())
    for suffix in ("tiff", "jpg"):
        view = decode_file(
            save_image(tmp_path / f"a.{suffix}", scene, icc_profile=build_cmyk_profile())
        ).pixels
        assert measure_difference(view[4:28, 4:28], np.full((24, 24, 3), 255, np.uint8)) < 2
        assert (
            measure_difference(view[4:28, 36:60], np.full((24, 24, 3), 162, np.uint8)) < 3
        )  # L of 66.7
        assert (
            measure_difference(view[36:60, 4:28], np.full((24, 24, 3), 118, np.uint8)) < 3
        )  # L of 49.8
    plain = decode_file(save_image(tmp_path / "plain.tiff", scene)).pixels
    assert measure_difference(plain[4:28, 36:60], np.full((24, 24, 3), (0, 255, 255), np.uint8)) < 1


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(b"not a profile", id="noise"),
        pytest.param(build_rgb_profile(ADOBE)[:200], id="cut"),
        pytest.param(build_rgb_profile(ADOBE)[:132] + bytes(400), id="zeros"),
        pytest.param(build_cmyk_profile(), id="of CMYK"),
        pytest.param(
            build_icc_profile(
                b"GRAY",
                b"mntr",
                {b"kTRC": encode_curve(1.0), b"wtpt": encode_xyz(SRGB.sum(axis=1))},
            ),
            id="of gray",
        ),
        pytest.param(build_icc_profile(b"RGB ", b"link", {}), id="link"),
        pytest.param(build_rgb_profile(ADOBE) + bytes(MAX_PROFILE_BYTES), id="huge"),
    ],
)
def test_unusable_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    scene = draw_scene(5, (64, 64))
    profiled = decode_file(save_image(tmp_path / "a.png", scene, icc_profile=profile))
    plain = decode_file(save_image(tmp_path / "b.png", scene))
    assert np.array_equal(profiled.pixels, plain.pixels)
    assert profiled.image.pixel_hash != plain.image.pixel_hash


def test_srgb_profile_of_any_name_changes_no_pixel(tmp_path: Path) -> None:
    scene = draw_scene(6)
    plain = decode_file(save_image(tmp_path / "plain.png", scene)).pixels
    assert np.array_equal(
        decode_file(save_image(tmp_path / "srgb.png", scene, icc_profile=PROFILE)).pixels, plain
    )
    renamed = PROFILE.replace("sRGB".encode("utf-16-be"), "gbRs".encode("utf-16-be"))
    assert renamed != PROFILE
    assert np.array_equal(
        decode_file(save_image(tmp_path / "renamed.png", scene, icc_profile=renamed)).pixels, plain
    )
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(
        decode_file(
            save_image(
                tmp_path / "lab.jpg",
                Image.open(save_image(tmp_path / "b.png", scene)),
                quality=95,
                icc_profile=wide,
            )
        ).pixels,
        decode_file(save_image(tmp_path / "c.jpg", scene, quality=95)).pixels,
    )


def test_featureless_is_measured_after_color_conversion(tmp_path: Path) -> None:
    """A gamma of 9 turns all dark levels black."""
    faint = Image.blend(Image.new("RGB", (64, 64), (40, 40, 40)), draw_scene(7, (64, 64)), 0.1)
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(faint, quality=100, icc_profile=build_rgb_profile(SRGB, 9.0)))
    assert decode_file(path).image.is_featureless
    path.write_bytes(encode_jpeg(faint, quality=100))
    assert not decode_file(path).image.is_featureless


def make_tiff(
    samples: NDArray[Any],
    photometric: int,
    order: Literal["<", ">"] = "<",
    planar: int = 1,
    extra: int | None = None,
) -> bytes:
    """Write an uncompressed TIFF of any samples; Pillow does not write most of them."""
    height, width = samples.shape[:2]
    planes = samples.reshape(height, width, -1)
    count, bits, kind = (
        planes.shape[2],
        8 * samples.dtype.itemsize,
        {"u": 1, "i": 2, "f": 3}[samples.dtype.kind],
    )
    stored = planes.astype(samples.dtype.newbyteorder(order))
    strips = (
        [stored.tobytes()]
        if planar == 1
        else [stored[..., plane].tobytes() for plane in range(count)]
    )
    starts = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    lengths = [len(strip) for strip in strips]
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * count),
        259: ("H", [1]),
        262: ("H", [photometric]),
    }
    tags |= {
        273: ("I", starts),
        277: ("H", [count]),
        278: ("I", [height]),
        279: ("I", lengths),
        284: ("H", [planar]),
    }
    tags |= ({338: ("H", [extra])} if extra is not None else {}) | {339: ("H", [kind] * count)}
    at = 8 + sum(lengths)
    directory, long_values = struct.pack(order + "H", len(tags)), b""
    for tag, (format_, values) in tags.items():
        value = struct.pack(f"{order}{len(values)}{format_}", *values)
        if len(value) > 4:
            long_values, value = (
                long_values + value,
                struct.pack(order + "I", at + 6 + 12 * len(tags) + len(long_values)),
            )
        directory += struct.pack(
            order + "HHI", tag, {"H": 3, "I": 4}[format_], len(values)
        ) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    return head + b"".join(strips) + directory + bytes(4) + long_values


SCENE = np.asarray(draw_scene(1))
GRAY = np.asarray(draw_scene(1).convert("L"))
ALPHA = np.asarray(Image.linear_gradient("L").resize((320, 240)))[..., None]
ON_WHITE = (SCENE * (ALPHA / 255.0) + (255.0 - ALPHA)).round().astype(np.uint8)


def deep(levels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Convert levels to 16 bits, with low bytes that differ from the high ones."""
    return levels.astype(np.uint16) * 256 + levels[::-1, ::-1] // 2


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("samples", "layout", "scene"),  # layout: photometric, planar, extra
    [
        pytest.param(deep(SCENE), (2, 1, None), SCENE, id="rgb"),
        pytest.param(deep(SCENE), (2, 2, None), SCENE, id="rgb in planes"),
        pytest.param(np.dstack([deep(SCENE), deep(ALPHA)]), (2, 1, 2), ON_WHITE, id="rgba"),
        pytest.param(
            np.dstack([deep(SCENE), deep(ALPHA)]), (2, 2, 2), ON_WHITE, id="rgba in planes"
        ),
        pytest.param(
            np.dstack([deep(SCENE), deep(ALPHA)]), (2, 1, 0), SCENE, id="rgb and an unknown sample"
        ),
        pytest.param(
            (np.dstack([SCENE * (ALPHA / 255.0), ALPHA]) * 257).astype(np.uint16),
            (2, 1, 1),
            ON_WHITE,
            id="premultiplied rgba",
        ),
        pytest.param(255 - GRAY, (0, 1, None), GRAY, id="white is 0"),
        pytest.param(deep(GRAY), (1, 1, None), GRAY, id="gray"),
        pytest.param(GRAY.astype(np.int16) * 128, (1, 1, None), GRAY, id="signed gray"),
        pytest.param((GRAY / 255).astype(np.float32), (1, 1, None), GRAY, id="floats"),
    ],
)
def test_tiff_of_any_samples_decodes_to_its_colors(
    tmp_path: Path,
    samples: NDArray[Any],
    layout: tuple[int, int, int | None],
    scene: NDArray[np.uint8],
    order: Literal["<", ">"],
) -> None:
    photometric, planar, extra = layout
    path = tmp_path / "a.tiff"
    path.write_bytes(make_tiff(samples, photometric, order, planar, extra))
    assert measure_decoding_error(path, Image.fromarray(scene)) < 1


def test_pixel_hash_of_inverted_deep_gray_differs(tmp_path: Path) -> None:
    (tmp_path / "black.tiff").write_bytes(make_tiff(deep(GRAY), 1))
    (tmp_path / "white.tiff").write_bytes(make_tiff(deep(GRAY), 0))
    black, white = decode_file(tmp_path / "black.tiff"), decode_file(tmp_path / "white.tiff")
    assert measure_difference(white.pixels, 255 - black.pixels) < 1
    assert white.image.pixel_hash != black.image.pixel_hash


@pytest.mark.parametrize(
    ("samples", "detail"),
    [
        ((SCENE / 255).astype(np.float32), "a TIFF with 32-bit floats, 3 a pixel"),
        ((GRAY / 255).astype(np.float16), "a TIFF with 16-bit floats, 1 a pixel"),
        (np.dstack([deep(GRAY), deep(GRAY)]), "a TIFF with 16-bit whole numbers, 2 a pixel"),
    ],
)
def test_unsupported_samples_are_named(tmp_path: Path, samples: NDArray[Any], detail: str) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(make_tiff(samples, 2 if "3 a" in detail else 1))
    failed = decode_failure(path)
    assert (failed.reason, failed.detail) == ("not supported", detail)


@pytest.mark.parametrize("suffix", ["png", "gif", "tiff", "bmp"])
@pytest.mark.parametrize("color_count", [2, 16, 256])
def test_palette_decodes_to_its_colors(tmp_path: Path, suffix: str, color_count: int) -> None:
    scene = draw_scene(2).quantize(color_count)
    assert (
        measure_decoding_error(save_image(tmp_path / f"a.{suffix}", scene), scene.convert("RGB"))
        < 0.5
    )
    assert (
        decode_file(tmp_path / f"a.{suffix}").image.pixel_hash
        == decode_file(save_image(tmp_path / "rgb.png", scene.convert("RGB"))).image.pixel_hash
    )


def test_gray_alpha_and_transparent_color_are_composited_on_white(tmp_path: Path) -> None:
    gray = Image.fromarray(np.dstack([GRAY, ALPHA]))
    on_white = (GRAY * (ALPHA[..., 0] / 255.0) + (255.0 - ALPHA[..., 0])).round().astype(np.uint8)
    for suffix in ("png", "tiff"):
        path = save_image(tmp_path / f"a.{suffix}", gray)
        assert measure_decoding_error(path, Image.fromarray(on_white)) < 1
    keyed = Image.fromarray(np.where(GRAY[..., None] < 100, np.array([1, 2, 3], np.uint8), SCENE))
    scene = np.asarray(
        decode_file(save_image(tmp_path / "keyed.png", keyed, transparency=(1, 2, 3))).pixels
    )
    composited = np.where(GRAY[..., None] < 100, np.uint8(255), SCENE)
    assert (
        measure_difference(scene, resize_with_pillow(Image.fromarray(composited))) < 3
    )  # fully transparent colors do not bleed
