"""Limits of pixels and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import memory
from pipeline.decode.read import MAX_FILE_BYTES
from tests.support.images import (
    decode_failure,
    decode_file,
    draw_scene,
    measure_difference,
    resize_with_pillow,
    save_image,
)


def test_too_many_pixels_are_rejected_from_the_header(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert decode_failure(bomb).reason == "too many pixels"
    assert "20000 x 20000" in str(decode_failure(bomb).detail)


def test_jpeg_of_200_megapixels_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    draw_scene(12, (400, 300)).resize((16_320, 12_240), Image.Resampling.NEAREST).save(
        path, quality=60
    )
    decoded = decode_file(path)
    assert (decoded.image.width, decoded.image.height) == (16_320, 12_240)
    assert measure_difference(decoded.pixels, resize_with_pillow(draw_scene(12, (400, 300)))) < 6


def test_small_file_with_large_content_keeps_memory_bounded(tmp_path: Path) -> None:
    """Deep gray of 100 megapixels, and a sparse file of half a gigabyte."""
    Image.fromarray(np.zeros((9990, 10_000), np.uint16)).save(
        tmp_path / "deep.png", compress_level=9
    )
    with (tmp_path / "sparse.bmp").open("wb") as file:
        file.write(b"BM" + bytes(12) + b"\x28")
        file.truncate(MAX_FILE_BYTES)
    code = """
import sys
from pathlib import Path
from pipeline.decode.decode import decode_source
from pipeline.decode.preprocess import Preprocess
from pipeline.scan import SourceFile

print(type(decode_source(SourceFile(sys.argv[1]), Preprocess(192))).__name__)
# Not getrusage: it counts what the parent process held.
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
    for name, outcome in (("deep.png", "Decoded"), ("sparse.bmp", "Failure")):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / name],
            capture_output=True,
            text=True,
            check=True,
        )
        result, peak = done.stdout.split()
        assert result == outcome
        assert int(peak) < 1_000_000  # kB
    with (tmp_path / "sparse.bmp").open("r+b") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert decode_failure(tmp_path / "sparse.bmp").reason == "file too large"


def test_progressive_jpeg_is_limited_at_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.jpg", draw_scene(1, (1600, 1200)), progressive=True)
    decode_file(path)
    monkeypatch.setattr(memory, "MAX_PROGRESSIVE_PIXELS", 1600 * 1200 - 1)
    assert "progressive" in str(decode_failure(path).detail)


def test_jpeg_2000_is_limited_at_reduced_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.jp2", draw_scene(3, (1024, 768)))
    monkeypatch.setattr(memory, "MAX_PIXELS", 1024 * 768 // 16)
    assert decode_file(path).image.width == 1024
    full = save_image(tmp_path / "b.jp2", draw_scene(3, (1024, 768)), num_resolutions=1)
    assert "1024 x 768" in str(decode_failure(full).detail)
