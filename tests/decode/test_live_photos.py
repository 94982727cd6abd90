"""The content identifier of the film of a live photo."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.decode.formats import FailureReason
from pipeline.decode.live_photos import CONTENT_ID_KEY, LIVE_VIDEO_DETAIL, parse_content_id
from tests.support.films import make_box, make_film
from tests.support.images import decode_failure

CONTENT_ID = b"570F1469-2C1A-4B9E-8F6B-2F1D3A5E7C90"


def read_content_id(path: Path, film: bytes) -> str | None:
    path.write_bytes(film)
    failure = decode_failure(path)
    assert failure.reason == FailureReason.NOT_A_PHOTO
    return parse_content_id(failure.detail)


@pytest.mark.parametrize("name", ["a.mov", "A.MOV", "a.mp4"])
def test_content_identifier_is_read(tmp_path: Path, name: str) -> None:
    assert read_content_id(tmp_path / name, make_film(CONTENT_ID)) == CONTENT_ID.decode()


def test_size_of_64_bits_is_read(tmp_path: Path) -> None:
    """The frames of a long film have one."""
    frames = (1).to_bytes(4, "big") + b"mdat" + (116).to_bytes(8, "big") + bytes(100)
    film = make_film(CONTENT_ID, frame_bytes=0).replace(make_box(b"mdat", b""), frames)
    assert read_content_id(tmp_path / "a.mov", film) == CONTENT_ID.decode()


@pytest.mark.parametrize(
    "film",
    [
        make_film(),
        make_film(b"caf\xe9"),
        make_film(b"\x1b[31m"),
        make_film(b"x" * 65),
        make_film(b""),
        make_film(CONTENT_ID)[:-70],
        make_box(b"moov", b"keys" + bytes(8) + CONTENT_ID_KEY),
        make_box(b"free", b"") * 100 + make_film(CONTENT_ID),
        (1).to_bytes(4, "big") + b"mdat" + b"\xff" * 8,
    ],
)
def test_film_without_a_valid_identifier_has_none(tmp_path: Path, film: bytes) -> None:
    assert read_content_id(tmp_path / "a.mov", film) is None


def test_broken_films_are_no_photos(tmp_path: Path) -> None:
    rng = random.Random(1)
    film = make_film(CONTENT_ID, frame_bytes=10)
    for _ in range(300):
        broken = bytearray(film)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(len(broken))] = rng.choice([0, 1, 255, rng.randrange(256)])
        found = read_content_id(tmp_path / "a.mov", bytes(broken[: rng.randrange(60, 400)]))
        assert found is None or found.isprintable()


def test_detail_of_other_files_has_no_identifier() -> None:
    assert parse_content_id(None) is None
    assert parse_content_id("no regular file") is None
    assert parse_content_id(f"{LIVE_VIDEO_DETAIL}1") == "1"
