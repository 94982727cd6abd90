"""Read a file once: which files are rejected, and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.decode.decode import decode_source
from pipeline.decode.formats import (
    RETRY_REASONS,
    SKIP_REASONS,
)
from pipeline.decode.read import AlreadyStored
from tests.support.images import (
    PREPROCESS,
    decode_failure,
    decode_file,
    draw_scene,
    encode_jpeg,
    make_source_file,
    save_image,
)
from tests.support.raw_and_jxl import save_dng, save_jxl


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
        ("P6.txt", b"P6 is the name of a form, and this is a text about it", "not a photo"),
        ("table.txt", b"P2 10 20 30", "not a photo"),
        ("text.ppm", b"this is text", "no picture inside"),
        ("head.ppm", b"P3\n4 4\n255\n1 2", "damaged"),
        ("cut.jpg", b"P6\n4 4\n255\n12", "truncated"),
        ("a.3fr", b"II*\0\x08\0\0\0", "raw photo"),
    ],
)
def test_file_without_image_fails_with_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, reason: str
) -> None:
    monkeypatch.setattr("pipeline.decode.read.EXTRA_INSTALLED", {"raw": False, "jxl": False})
    path = tmp_path / name
    path.write_bytes(data)
    failed = decode_failure(path)
    assert failed.reason == reason
    assert (failed.hash is None) == (
        reason in {"empty file", "raw photo", "not a photo"} or name in {"text.jpg", "text.ppm"}
    )


def test_missing_or_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", draw_scene(1)).rename(tmp_path / "a")
    save_image(tmp_path / "b.png", draw_scene(1)).rename(tmp_path / "b.jpg")
    assert (
        decode_file(tmp_path / "a").image.pixel_hash
        == decode_file(tmp_path / "b.jpg").image.pixel_hash
    )


def test_file_that_changes_while_read_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    pread = os.pread

    def append_and_read(descriptor: int, length: int, offset: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"more")
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", append_and_read)
    assert decode_failure(path).reason == "changed while read"


def test_unreadable_or_special_file_fails(tmp_path: Path) -> None:
    assert decode_failure(tmp_path / "nothing.jpg").reason == "unreadable"
    assert decode_failure(tmp_path / "nul\0.jpg").reason == "unreadable"
    assert decode_failure(tmp_path).reason in {"unreadable", "not a photo"}
    os.mkfifo(tmp_path / "fifo.jpg")
    assert decode_failure(tmp_path / "fifo.jpg").detail == "no regular file"


def test_unwanted_content_is_not_decoded(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", draw_scene(1))
    hashes: list[bytes] = []

    def is_wanted(hash_: bytes) -> bool:
        hashes.append(hash_)
        return False

    assert isinstance(decode_source(make_source_file(path), PREPROCESS, is_wanted), AlreadyStored)
    assert hashes == [decode_file(path).image.hash]


@pytest.mark.parametrize(("name", "reason"), [("a.dng", "raw photo"), ("a.jxl", "no decoder")])
def test_photo_without_its_extra_fails_and_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    pytest.importorskip("rawpy")
    pytest.importorskip("pillow_jxl")
    path = tmp_path / name
    if name == "a.dng":
        save_dng(path, draw_scene(1), draw_scene(1))
    else:
        save_jxl(path, draw_scene(1))
    assert reason in RETRY_REASONS  # an ingest reads it again, once the extra is installed
    monkeypatch.setattr("pipeline.decode.read.EXTRA_INSTALLED", {"raw": False, "jxl": False})
    failed = decode_failure(path)
    assert failed.reason == reason
    assert f"neardup[{path.suffix == '.dng' and 'raw' or 'jxl'}]" in str(failed.detail)
    assert reason in SKIP_REASONS
