"""What a picture's samples mean: colour profiles, against the sums that their definitions give."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline.decode.color import MAX_PROFILE_BYTES
from pipeline.decode.decode import decode
from pipeline.decode.read import Failure
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

# Columns: red, green and blue at full, as XYZ under D50.
ADOBE = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def icc(space: bytes, kind: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2 with these tags."""
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


def xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(primaries: NDArray[np.float64], gamma: float = 2.2) -> bytes:
    columns = {
        name + b"XYZ": xyz(column)
        for name, column in zip((b"r", b"g", b"b"), primaries.T, strict=True)
    }
    return icc(
        b"RGB ",
        b"mntr",
        columns
        | {b"wtpt": xyz(SRGB.sum(axis=1))}
        | {name + b"TRC": curve(gamma) for name in (b"r", b"g", b"b")},
    )


def cmyk_profile() -> bytes:
    """Inks as a press without surprises has them: what is left of L is 100 (1-K)(1-(C+M+Y)/3), and there is no colour."""
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
    return icc(
        b"CMYK", b"prtr", {b"A2B0": lut, b"A2B1": lut, b"wtpt": xyz(SRGB.sum(axis=1))}, b"Lab "
    )


def by_numpy(
    levels: NDArray[np.uint8], primaries: NDArray[np.float64], gamma: float = 2.2
) -> NDArray[np.uint8]:
    """RGB of a profile as sRGB, by the definition of both."""
    linear = (levels / 255.0) ** gamma @ (np.linalg.inv(SRGB) @ primaries).T
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray((255 * encoded).round().astype(np.uint8))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "avif"])
def test_wide_gamut_is_shown_as_srgb(tmp_path: Path, suffix: str) -> None:
    shown = draw_scene(1)
    path = save_image(tmp_path / f"a.{suffix}", shown, quality=95, icc_profile=rgb_profile(ADOBE))
    wide = Image.fromarray(by_numpy(np.asarray(shown), ADOBE))
    assert (
        measure_difference(decode_file(path).pixels, resize_with_pillow(wide))
        < 4
        < measure_difference(resize_with_pillow(shown), resize_with_pillow(wide)) - 4
    )


@pytest.mark.parametrize("size", [(320, 240), (1600, 1200)])  # as it is, and drafted
def test_a_copy_that_was_saved_as_srgb_looks_the_same(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    shown = draw_scene(2, size)
    wide = save_image(
        tmp_path / "wide.jpg", shown, quality=95, subsampling=0, icc_profile=rgb_profile(ADOBE)
    )
    copy = save_image(
        tmp_path / "copy.jpg",
        Image.fromarray(by_numpy(np.asarray(shown), ADOBE)),
        quality=95,
        subsampling=0,
    )
    assert measure_difference(decode_file(wide).pixels, decode_file(copy).pixels) < 2
    assert decode_file(wide).image.pixel_hash != decode_file(copy).image.pixel_hash


def test_transparency_stays_on_white_whatever_the_profile(tmp_path: Path) -> None:
    shown = draw_scene(3, (64, 64)).convert("RGBA")
    shown.putalpha(Image.new("L", shown.size, 0))
    assert (
        decode_file(save_image(tmp_path / "a.png", shown, icc_profile=rgb_profile(ADOBE))).pixels
        >= 254
    ).all()


def test_grey_is_shown_by_its_profile(tmp_path: Path) -> None:
    grey = draw_scene(4, (64, 64)).convert("L")
    linear = icc(b"GRAY", b"mntr", {b"kTRC": curve(1.0), b"wtpt": xyz(SRGB.sum(axis=1))})
    as_rgb = by_numpy(np.asarray(grey.convert("RGB")), SRGB, 1.0)
    assert (
        measure_difference(
            decode_file(save_image(tmp_path / "a.png", grey, icc_profile=linear)).pixels, as_rgb
        )
        < 1
    )
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert (
        measure_difference(
            decode_file(save_image(tmp_path / "deep.tiff", deep, icc_profile=linear)).pixels, as_rgb
        )
        < 1
    )


def test_inks_are_shown_by_their_profile(tmp_path: Path) -> None:
    inks = np.zeros((64, 64, 4), np.uint8)
    inks[:, 32:, 0] = 255  # cyan: here a third of the light is gone
    inks[32:, :, 3] = 128
    shown = Image.frombytes("CMYK", (64, 64), inks.tobytes())
    for suffix in ("tiff", "jpg"):
        view = decode_file(
            save_image(tmp_path / f"a.{suffix}", shown, icc_profile=cmyk_profile())
        ).pixels
        assert measure_difference(view[4:28, 4:28], np.full((24, 24, 3), 255, np.uint8)) < 2
        assert (
            measure_difference(view[4:28, 36:60], np.full((24, 24, 3), 162, np.uint8)) < 3
        )  # L of 66.7
        assert (
            measure_difference(view[36:60, 4:28], np.full((24, 24, 3), 118, np.uint8)) < 3
        )  # L of 49.8
    plain = decode_file(save_image(tmp_path / "plain.tiff", shown)).pixels
    assert measure_difference(plain[4:28, 36:60], np.full((24, 24, 3), (0, 255, 255), np.uint8)) < 1


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(b"not a profile", id="noise"),
        pytest.param(rgb_profile(ADOBE)[:200], id="cut"),
        pytest.param(rgb_profile(ADOBE)[:132] + bytes(400), id="zeros"),
        pytest.param(cmyk_profile(), id="of inks"),
        pytest.param(
            icc(b"GRAY", b"mntr", {b"kTRC": curve(1.0), b"wtpt": xyz(SRGB.sum(axis=1))}),
            id="of grey",
        ),
        pytest.param(icc(b"RGB ", b"link", {}), id="that joins others"),
        pytest.param(rgb_profile(ADOBE) + bytes(MAX_PROFILE_BYTES), id="huge"),
    ],
)
def test_a_profile_that_cannot_be_used_is_left_aside(tmp_path: Path, profile: bytes) -> None:
    shown = draw_scene(5, (64, 64))
    profiled = decode_file(save_image(tmp_path / "a.png", shown, icc_profile=profile))
    plain = decode_file(save_image(tmp_path / "b.png", shown))
    assert np.array_equal(profiled.pixels, plain.pixels)
    assert profiled.image.pixel_hash != plain.image.pixel_hash


def test_srgb_changes_no_pixel_whatever_its_name(tmp_path: Path) -> None:
    shown = draw_scene(6)
    plain = decode_file(save_image(tmp_path / "plain.png", shown)).pixels
    assert np.array_equal(
        decode_file(save_image(tmp_path / "srgb.png", shown, icc_profile=PROFILE)).pixels, plain
    )
    renamed = PROFILE.replace("sRGB".encode("utf-16-be"), "gbRs".encode("utf-16-be"))
    assert renamed != PROFILE
    assert np.array_equal(
        decode_file(save_image(tmp_path / "renamed.png", shown, icc_profile=renamed)).pixels, plain
    )
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(
        decode_file(
            save_image(
                tmp_path / "lab.jpg",
                Image.open(save_image(tmp_path / "b.png", shown)),
                quality=95,
                icc_profile=wide,
            )
        ).pixels,
        decode_file(save_image(tmp_path / "c.jpg", shown, quality=95)).pixels,
    )


def test_featureless_is_judged_by_what_is_shown(tmp_path: Path) -> None:
    """A gamma of 9 leaves the eye nothing of what is dark."""
    faint = Image.blend(Image.new("RGB", (64, 64), (40, 40, 40)), draw_scene(7, (64, 64)), 0.1)
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(faint, quality=100, icc_profile=rgb_profile(SRGB, 9.0)))
    assert decode_file(path).image.is_featureless
    path.write_bytes(encode_jpeg(faint, quality=100))
    assert not decode_file(path).image.is_featureless


def tiff(
    samples: NDArray[Any],
    photometric: int,
    order: Literal["<", ">"] = "<",
    planar: int = 1,
    extra: int | None = None,
) -> bytes:
    """An uncompressed TIFF of any samples, most of which Pillow does not write."""
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
    directory, far = struct.pack(order + "H", len(tags)), b""
    for tag, (format_, values) in tags.items():
        value = struct.pack(f"{order}{len(values)}{format_}", *values)
        if len(value) > 4:
            far, value = far + value, struct.pack(order + "I", at + 6 + 12 * len(tags) + len(far))
        directory += struct.pack(
            order + "HHI", tag, {"H": 3, "I": 4}[format_], len(values)
        ) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    return head + b"".join(strips) + directory + bytes(4) + far


SCENE = np.asarray(draw_scene(1))
GREY = np.asarray(draw_scene(1).convert("L"))
ALPHA = np.asarray(Image.linear_gradient("L").resize((320, 240)))[..., None]
ON_WHITE = (SCENE * (ALPHA / 255.0) + (255.0 - ALPHA)).round().astype(np.uint8)


def deep(levels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The same in 16 bits, with low bytes that are not those of the high ones."""
    return levels.astype(np.uint16) * 256 + levels[::-1, ::-1] // 2


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("samples", "photometric", "planar", "extra", "shown"),
    [
        pytest.param(deep(SCENE), 2, 1, None, SCENE, id="rgb"),
        pytest.param(deep(SCENE), 2, 2, None, SCENE, id="rgb in planes"),
        pytest.param(np.dstack([deep(SCENE), deep(ALPHA)]), 2, 1, 2, ON_WHITE, id="rgba"),
        pytest.param(np.dstack([deep(SCENE), deep(ALPHA)]), 2, 2, 2, ON_WHITE, id="rgba in planes"),
        pytest.param(
            np.dstack([deep(SCENE), deep(ALPHA)]), 2, 1, 0, SCENE, id="rgb and something else"
        ),
        pytest.param(
            (np.dstack([SCENE * (ALPHA / 255.0), ALPHA]) * 257).astype(np.uint16),
            2,
            1,
            1,
            ON_WHITE,
            id="rgb times alpha",
        ),
        pytest.param(255 - GREY, 0, 1, None, GREY, id="white is 0"),
        pytest.param(deep(GREY), 1, 1, None, GREY, id="grey"),
        pytest.param(GREY.astype(np.int16) * 128, 1, 1, None, GREY, id="signed grey"),
        pytest.param((GREY / 255).astype(np.float32), 1, 1, None, GREY, id="floats"),
    ],
)
def test_a_tiff_shows_what_its_samples_say(
    tmp_path: Path,
    samples: NDArray[Any],
    photometric: int,
    planar: int,
    extra: int | None,
    shown: NDArray[np.uint8],
    order: Literal["<", ">"],
) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(tiff(samples, photometric, order, planar, extra))
    assert (
        measure_difference(decode_file(path).pixels, resize_with_pillow(Image.fromarray(shown))) < 1
    )


def test_deep_grey_that_means_something_else_is_never_the_same_pixels(tmp_path: Path) -> None:
    (tmp_path / "black.tiff").write_bytes(tiff(deep(GREY), 1))
    (tmp_path / "white.tiff").write_bytes(tiff(deep(GREY), 0))
    black, white = decode_file(tmp_path / "black.tiff"), decode_file(tmp_path / "white.tiff")
    assert measure_difference(white.pixels, 255 - black.pixels) < 1
    assert white.image.pixel_hash != black.image.pixel_hash


@pytest.mark.parametrize(
    ("samples", "detail"),
    [
        ((SCENE / 255).astype(np.float32), "a TIFF with 32-bit floats, 3 a pixel"),
        ((GREY / 255).astype(np.float16), "a TIFF with 16-bit floats, 1 a pixel"),
        (np.dstack([deep(GREY), deep(GREY)]), "a TIFF with 16-bit whole numbers, 2 a pixel"),
    ],
)
def test_samples_that_cannot_be_read_are_named(
    tmp_path: Path, samples: NDArray[Any], detail: str
) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(tiff(samples, 2 if "3 a" in detail else 1))
    failed = decode(make_source_file(path), PREPROCESS)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail) == ("not supported", detail)


@pytest.mark.parametrize("suffix", ["png", "gif", "tiff", "bmp"])
@pytest.mark.parametrize("colours", [2, 16, 256])
def test_palettes_show_their_colours(tmp_path: Path, suffix: str, colours: int) -> None:
    shown = draw_scene(2).quantize(colours)
    assert (
        measure_difference(
            decode_file(save_image(tmp_path / f"a.{suffix}", shown)).pixels,
            resize_with_pillow(shown.convert("RGB")),
        )
        < 0.5
    )
    assert (
        decode_file(tmp_path / f"a.{suffix}").image.pixel_hash
        == decode_file(save_image(tmp_path / "rgb.png", shown.convert("RGB"))).image.pixel_hash
    )


def test_grey_with_alpha_and_a_transparent_colour_are_laid_on_white(tmp_path: Path) -> None:
    grey = Image.fromarray(np.dstack([GREY, ALPHA]))
    on_white = (GREY * (ALPHA[..., 0] / 255.0) + (255.0 - ALPHA[..., 0])).round().astype(np.uint8)
    for suffix in ("png", "tiff"):
        assert (
            measure_difference(
                decode_file(save_image(tmp_path / f"a.{suffix}", grey)).pixels,
                resize_with_pillow(Image.fromarray(on_white)),
            )
            < 1
        )
    keyed = Image.fromarray(np.where(GREY[..., None] < 100, np.array([1, 2, 3], np.uint8), SCENE))
    shown = np.asarray(
        decode_file(save_image(tmp_path / "keyed.png", keyed, transparency=(1, 2, 3))).pixels
    )
    laid = np.where(GREY[..., None] < 100, np.uint8(255), SCENE)
    assert (
        measure_difference(shown, resize_with_pillow(Image.fromarray(laid))) < 3
    )  # colour under full transparency does not bleed
