"""Raw photos; the files are written here, because no camera's may be shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import memory
from pipeline.decode.decode import Decoded
from pipeline.decode.pixels.resize import TRANSPOSE_BY_ORIENTATION
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT, Preprocess
from pipeline.decode.read import Failure
from tests.support.images import (
    PREPROCESS,
    decode_failure,
    decode_file,
    draw_scene,
    encode_jpeg,
    make_source_file,
    measure_difference,
    resize_with_pillow,
    save_image,
)
from tests.support.raw_and_jxl import encode_dng, render_mosaic, save_dng, save_jxl

pytest.importorskip("rawpy")
pytest.importorskip("pillow_jxl")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("with_preview", [True, False])
def test_raw_photo_is_decoded_upright(tmp_path: Path, orientation: int, with_preview: bool) -> None:
    scene = draw_scene(1, (640, 480))
    preview = scene.resize((320, 240)) if with_preview else None
    path = save_dng(tmp_path / "a.dng", scene, preview, orientation)
    decoded = decode_file(path)
    upright = scene.transpose(TRANSPOSE_BY_ORIENTATION[orientation]) if orientation != 1 else scene
    assert measure_difference(decoded.pixels, resize_with_pillow(upright)) < (
        4 if with_preview else 20
    )  # LibRaw applies another tone curve
    assert (decoded.image.width, decoded.image.height) == upright.size  # not of the preview
    assert (decoded.image.format, decoded.image.flags) == (
        "RAW",
        ("preview",) if with_preview else (),
    )
    assert decoded.image.size == path.stat().st_size
    assert decoded.image.metadata is not None
    assert decoded.image.metadata.fidelity is None  # the photo holds more than what is decoded


def test_pixel_hash_of_raw_differs_from_its_preview(tmp_path: Path) -> None:
    scene = draw_scene(1, (320, 240))
    raw = decode_file(save_dng(tmp_path / "a.dng", scene, scene))
    preview = decode_file(save_image(tmp_path / "a.jpg", scene, quality=90))
    assert measure_difference(raw.pixels, preview.pixels) < 1
    assert raw.image.pixel_hash != preview.image.pixel_hash


def test_sensor_is_decoded_if_preview_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, path = draw_scene(1, (640, 480)), tmp_path / "a.dng"
    save_dng(path, scene, Image.new("RGB", (80, 60)))
    assert decode_file(path, Preprocess(60)).image.flags == ("preview",)
    larger = decode_file(path, Preprocess(61))
    assert larger.image.flags == ()
    assert measure_difference(larger.pixels, resize_with_pillow(scene, Preprocess(61))) < 20
    small = draw_scene(1, (100, 80))  # at half size, smaller than its preview
    save_dng(path, small, Image.new("RGB", (64, 48)))
    assert decode_file(path).image.flags == ("preview",)
    save_dng(path, scene, Image.new("RGB", (80, 60)))
    monkeypatch.setattr(memory, "MAX_PIXELS", 640 * 480 - 1)  # a small preview is better than none
    assert decode_file(path, Preprocess(61)).image.flags == ("preview",)


def test_no_thumbnail_is_made_of_a_preview_that_suits_the_embedder_alone(tmp_path: Path) -> None:
    """For verification, which needs more pixels than this preview has, the sensor is decoded."""
    preview = Image.new("RGB", (80, 60))
    path = save_dng(tmp_path / "a.dng", draw_scene(1, (640, 480)), preview)
    decoded = decode_file(path, Preprocess(60, with_thumbnail=True))
    assert decoded.image.flags == ("preview",)
    assert decoded.thumbnail is None
    assert decode_file(path, VERIFY_INPUT).image.flags == ()


def test_truncated_preview_is_flagged_as_damaged(tmp_path: Path) -> None:
    scene = draw_scene(1, (320, 240))
    (tmp_path / "a.dng").write_bytes(
        encode_dng(render_mosaic(scene), encode_jpeg(scene)[:-600] + bytes(2), scene.size)
    )
    assert set(decode_file(tmp_path / "a.dng").image.flags) == {"preview", "damaged"}


def test_raw_without_preview_over_pixel_limit_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_dng(tmp_path / "a.dng", draw_scene(1, (640, 480)))
    monkeypatch.setattr(memory, "MAX_PIXELS", 640 * 480 - 1)
    failed = decode_failure(path)
    assert (failed.reason, str(failed.detail)[:9]) == ("too many pixels", "640 x 480")


@pytest.mark.parametrize(
    "name", ["a.dng", "a.cr2", "a.nef", "a.arw", "a.orf", "a.rw2", "a.raf", "a.cr3"]
)
def test_non_raw_file_with_raw_suffix_fails_with_reason(tmp_path: Path, name: str) -> None:
    for data in (
        b"this is text",
        b"II*\0\x08\0\0\0" + bytes(100),
        b"FUJIFILMCCD-RAW " + bytes(200),
        b"\0\0\0\x18ftypcrx " + bytes(200),
    ):
        (tmp_path / name).write_bytes(data)
        failed = decode_failure(tmp_path / name)
        assert failed.reason in {"no picture inside", "damaged"}, failed


@pytest.mark.parametrize("options", [{}, {"compression": "jpeg"}])
def test_tiff_with_raw_suffix_is_same_image_as_with_its_own(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """An image is its bytes, whichever file with them is read first."""
    plain = save_image(tmp_path / "b.tif", draw_scene(1), **options)
    misnamed = tmp_path / "a.dng"
    misnamed.write_bytes(plain.read_bytes())
    expected, decoded = decode_file(plain), decode_file(misnamed)
    assert decoded.image == expected.image
    assert np.array_equal(decoded.pixels, expected.pixels)
    with DecoderPool(1) as decoders:
        for paths in ((plain, misnamed), (misnamed, plain)):
            for result in decoders.stream([make_source_file(path) for path in paths], PREPROCESS):
                assert isinstance(result, Decoded)
                assert result.image == expected.image


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "jxl"])
def test_image_with_raw_suffix_is_decoded(tmp_path: Path, suffix: str) -> None:
    path = (
        save_jxl(tmp_path / "a.jxl", draw_scene(1), use_container=True)
        if suffix == "jxl"
        else save_image(tmp_path / f"a.{suffix}", draw_scene(1))
    )
    scene = decode_file(path)
    assert decode_file(path.rename(tmp_path / "a.raw")).image == scene.image


def test_mutated_raw_and_jxl_files_never_crash_a_worker(tmp_path: Path) -> None:
    """Flip bytes of both, seeded, and decode them in workers."""
    rng = np.random.default_rng(5)
    raw = encode_dng(
        render_mosaic(draw_scene(1, (96, 64))), encode_jpeg(draw_scene(1, (96, 64))), (96, 64)
    )
    bare = encode_dng(render_mosaic(draw_scene(1, (96, 64))), None, (0, 0))
    xl = save_jxl(tmp_path / "sound.jxl", draw_scene(1, (96, 64))).read_bytes()
    paths = []
    for number in range(600):
        suffix, data = (("dng", raw), ("dng", bare), ("jxl", xl))[number % 3]
        mutated = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 8)):
            mutated[at] = rng.integers(256)
        if suffix == "dng":  # most of its bytes are pixels
            mutated[-int(rng.integers(1, 400))] = rng.integers(256)
        paths.append(tmp_path / f"{number}.{suffix}")
        paths[-1].write_bytes(mutated)
    with DecoderPool(2) as decoders:
        results = list(
            decoders.stream([make_source_file(path) for path in paths], PREPROCESS, prefetch=20)
        )
    assert [result.source.path for result in results] == list(map(str, paths))
    assert sum(isinstance(result, Decoded) for result in results) > 100
    assert not [
        result for result in results if isinstance(result, Failure) and result.reason == "poisoned"
    ]
