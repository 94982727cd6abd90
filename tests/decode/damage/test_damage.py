"""Damage inside a JPEG or PNG is found, and sound ones are never called damaged."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexes.records import Image as ImageRecord
from pipeline.decode.damage.jpeg_layout import read_jpeg_layout
from pipeline.decode.image import decode_image
from pipeline.decode.preprocess import VERIFY_INPUT
from pipeline.decode.read import Rejected
from tests.support.images import draw_scene, encode_jpeg

SECTOR = 512


def make_photo(seed: int, size: tuple[int, int] = (640, 480), **options: Any) -> bytes:
    """Encode a scene with the noise of a camera, which gives every MCU some bytes."""
    scene = np.asarray(draw_scene(seed, size).convert("RGB"), np.float64)
    noise = np.random.default_rng(seed).normal(0, 6, scene.shape)
    pixels = (scene * 0.8 + 25 + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 85} | options)
    return buffer.getvalue()


def decode(data: bytes) -> ImageRecord:
    return decode_image(data, blake3(data).digest(), VERIFY_INPUT)[0]


def get_scan(data: bytes) -> tuple[int, int]:
    layout = read_jpeg_layout(data)
    assert layout
    return layout.scan_start, layout.scan_end


def overwrite_sectors(data: bytes, content: bytes, share: float = 0.5) -> bytes:
    """Overwrite whole sectors from a share of the scan on."""
    start, end = get_scan(data)
    position = int(start + share * (end - start)) // SECTOR * SECTOR
    return data[:position] + content + data[position + len(content) :]


def replace_tail(data: bytes) -> bytes:
    other = make_photo(8)
    position = len(data) // 2 // SECTOR * SECTOR
    return data[:position] + other[position:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "zeroed sector": lambda data: overwrite_sectors(data, bytes(SECTOR)),
    "zeroed cluster": lambda data: overwrite_sectors(data, bytes(8 * SECTOR)),
    "random sector": lambda data: overwrite_sectors(data, random.Random(1).randbytes(SECTOR)),
    "sector of another JPEG": lambda data: overwrite_sectors(data, make_photo(8)[2048:2560]),
    "lost sector": lambda data: data[:20480] + data[20480 + SECTOR :],
    "tail of another JPEG": replace_tail,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_inside_a_jpeg_is_flagged(damage: Callable[[bytes], bytes]) -> None:
    sound = make_photo(3)
    damaged = decode(damage(sound))
    assert damaged.flags == ("damaged",)
    assert decode(sound).flags == ()
    assert damaged.pixel_hash != decode(sound).pixel_hash


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}], ids=["plain", "restarts"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_zeroed_sector_tells_where_the_damage_begins(share: float, options: dict[str, Any]) -> None:
    image = decode(overwrite_sectors(make_photo(4, **options), bytes(SECTOR), share))
    assert image.metadata is not None
    assert image.metadata.damage_start == pytest.approx(share, abs=0.1)


def test_cut_jpeg_tells_where_the_filler_begins() -> None:
    data = make_photo(5)
    start, end = get_scan(data)
    image = decode(data[: start + (end - start) * 3 // 4])
    assert image.flags == ("damaged",)
    assert image.metadata is not None
    assert image.metadata.damage_start == pytest.approx(0.75, abs=0.1)


def test_wrong_brightness_from_an_mcu_on_is_a_seam() -> None:
    """A wrong DC difference leaves the length of the scan; here the pixels are made so."""
    pixels = np.asarray(Image.open(io.BytesIO(make_photo(6))).convert("RGB")).astype(int)
    pixels[240:] += 25
    pixels[224:240, 320:] += 25
    shifted = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image = decode(encode_jpeg(shifted))
    assert image.flags == ("damaged",)
    assert image.metadata is not None
    assert image.metadata.damage_start == pytest.approx(224 / 480)


def test_horizontal_edge_along_mcus_is_no_seam() -> None:
    pixels = np.asarray(Image.open(io.BytesIO(make_photo(6))).convert("RGB")).astype(int)
    pixels[240:] += 25
    banner = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    assert decode(encode_jpeg(banner)).flags == ()


@pytest.mark.parametrize(
    "trailer",
    [b"\0" * 2000, b"\xff\xd9", make_photo(9)[:3000], b"\0\0\0\x18ftypmp42" + bytes(range(256))],
    ids=["zeros", "second end", "another JPEG", "film"],
)
def test_data_after_the_end_is_no_damage(trailer: bytes) -> None:
    assert decode(make_photo(7) + trailer).flags == ()


def test_padding_before_the_end_marker_is_no_damage() -> None:
    data = make_photo(7)
    assert decode(data[:-2] + b"\xff\xff" + data[-2:]).flags == ()


def test_zeros_within_a_flat_image_are_no_damage() -> None:
    flat = Image.new("L", (4000, 4000), 200)
    buffer = io.BytesIO()
    flat.save(buffer, "JPEG", optimize=True)
    assert bytes(SECTOR) in buffer.getvalue()
    assert decode(buffer.getvalue()).flags == ()


def make_png(**options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(make_photo(3))).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_png_with_a_wrong_checksum_is_flagged_with_its_row() -> None:
    data = bytearray(make_png(compress_level=0))
    middle = len(data) // 2
    data[middle] ^= 1
    image = decode(bytes(data))
    assert image.flags == ("damaged",)
    assert image.metadata is not None
    assert image.metadata.damage_start == pytest.approx(0.5, abs=0.1)
    assert decode(make_png()).flags == ()


@pytest.mark.parametrize("edit", ["cut", "zeros"])
def test_broken_png_is_decoded_as_far_as_it_goes(edit: str) -> None:
    data = make_png()
    position = len(data) * 3 // 4
    rest = b"" if edit == "cut" else bytes(512) + data[position + 512 :]
    image = decode(data[:position] + rest)
    assert image.flags == ("damaged",)
    assert image.metadata is not None
    assert image.metadata.damage_start == pytest.approx(0.75, abs=0.15)


def test_png_with_less_than_half_is_rejected() -> None:
    data = make_png()
    with pytest.raises(Rejected):
        decode(data[: len(data) // 3])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 5),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    options=st.fixed_dictionaries(
        {
            "quality": st.integers(1, 100),
            "subsampling": st.sampled_from([0, 1, 2]),
            "progressive": st.booleans(),
            "optimize": st.booleans(),
            "restart_marker_blocks": st.integers(0, 9),
        }
    ),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
)
def test_no_jpeg_that_pillow_writes_is_damaged(
    seed: int, size: tuple[int, int], options: dict[str, Any], mode: str
) -> None:
    buffer = io.BytesIO()
    draw_scene(seed, (300, 300)).resize(size).convert(mode).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    assert "damaged" not in decode(data).flags
    assert decode_image(data, b"", VERIFY_INPUT)[0].flags == ()


@settings(max_examples=100, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 255)), max_size=20))
def test_no_damage_raises_anything_but_rejected(edits: list[tuple[int, int]]) -> None:
    data = bytearray(make_photo(2, (320, 240)))
    for position, value in edits:
        data[position % len(data)] = value
    try:
        image = decode(bytes(data))
    except Rejected:
        return
    start = image.metadata.damage_start if image.metadata else None
    assert start is None or (0 <= start <= 1 and image.is_damaged)
