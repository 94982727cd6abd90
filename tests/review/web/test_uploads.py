"""Uploads are bounded, whatever a client says of them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.review.web import uploads
from pipeline.review.web.uploads import choose_name
from tests.support.images import draw_textured_image, encode_jpeg
from tests.support.review import RunningReview

QUERY = "/api/v1/query"


def make_png_bomb() -> bytes:
    """Make a small PNG that says it has 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def list_leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("neardup-upload-")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"no photo at all", 422, "the file"),
        (b"\xff\xd8\xff\xe0" + bytes(100), 422, "the file"),
        (make_png_bomb(), 422, "pixels"),
        (encode_jpeg(draw_textured_image(3))[:2000], 422, "the file"),
        (b"P6\n9999999 9999999\n255\n", 422, "the file"),
    ],
)
def test_files_that_are_no_photos_are_refused_with_a_reason(
    review: RunningReview, folder: Path, content: bytes, status: int, words: str
) -> None:
    with review.open_program() as client:
        answer = client.post(QUERY, content=content)
        assert answer.status_code == status
        assert words in answer.json()["detail"]
        assert str(folder) not in answer.text
        assert not list_leftovers(folder)
        good = client.post(QUERY, content=encode_jpeg(draw_textured_image(9)))
    assert good.json()["answers"][0]["standing"] == "new"


def test_body_that_is_too_long_is_refused_before_it_is_read(
    review: RunningReview, folder: Path
) -> None:
    answer = review.send_raw(
        f"POST {QUERY} HTTP/1.1\r\nHost: 127.0.0.1:{review.port}\r\n"
        f"Authorization: Bearer {review.credentials.api_token}\r\n"
        f"Content-Length: {1 << 40}\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.split(b" ", 2)[1] == b"413"
    assert not list_leftovers(folder)


def test_body_that_hides_its_length_is_cut_off(
    review: RunningReview, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOAD_BYTES", 100_000)

    def iter_chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(10_000)

    with review.open_program() as client:
        assert client.post(QUERY, content=iter_chunks()).status_code == 413
        assert client.get("/api/v1/status").status_code == 200
    assert not list_leftovers(folder)


@pytest.mark.parametrize("length", ["-1", "1e3", "٣", "0x10", "99, 3"])
def test_lengths_that_are_none_are_refused(review: RunningReview, length: str) -> None:
    answer = review.send_raw(
        f"POST {QUERY} HTTP/1.1\r\nHost: 127.0.0.1:{review.port}\r\n"
        f"Authorization: Bearer {review.credentials.api_token}\r\n"
        f"Content-Length: {length}\r\n\r\nabc".encode(),
        shut=True,
    )
    assert answer.split(b" ", 2)[1] == b"400"


def test_body_that_ends_early_is_no_upload(review: RunningReview, folder: Path) -> None:
    photo = encode_jpeg(draw_textured_image(9))
    answer = review.send_raw(
        f"POST {QUERY} HTTP/1.1\r\nHost: 127.0.0.1:{review.port}\r\n"
        f"Authorization: Bearer {review.credentials.api_token}\r\n"
        f"Content-Length: {len(photo) + 1}\r\n\r\n".encode()
        + photo,
        shut=True,
    )
    assert b"standing" not in answer and b" 200 " not in answer.split(b"\r\n")[0]
    with review.open_program() as client:
        assert client.get("/api/v1/status").status_code == 200
    assert not list_leftovers(folder)


def test_body_that_stops_is_given_up(
    review: RunningReview, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "STALLED_SECONDS", 0.05)
    answer = review.send_raw(
        f"POST {QUERY} HTTP/1.1\r\nHost: 127.0.0.1:{review.port}\r\n"
        f"Authorization: Bearer {review.credentials.api_token}\r\n"
        "Content-Length: 1000\r\n\r\nabc".encode()
    )
    assert answer.split(b" ", 2)[1] == b"408"


def test_compressed_body_is_refused(review: RunningReview) -> None:
    with review.open_program() as client:
        headers = {"Content-Encoding": "gzip"}
        assert client.post(QUERY, content=b"abc", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "a\0.jpg", "<b>.jpg", "-rf.jpg", "..", "x" * 999]
)
def test_name_of_an_upload_is_only_a_name(
    review: RunningReview, library_photo: bytes, name: str
) -> None:
    with review.open_program() as client:
        answer = client.post(QUERY, content=library_photo, params={"name": name})
        (found,) = answer.json()["answers"]
        assert (found["file"], found["standing"]) == (name, "identical")
        assert client.post(QUERY, content=b"a", params={"name": "x" * 1001}).status_code == 400


@pytest.fixture
def library_photo() -> bytes:
    buffer = io.BytesIO()
    photo = draw_textured_image(1, (900, 600))
    photo.save(buffer, "JPEG", quality=92)
    with Image.open(buffer) as image:
        assert image.size == (900, 600)
    return buffer.getvalue()


@given(st.text(max_size=50).map(lambda text: f"{text}.jpg") | st.text(max_size=50))
def test_names_of_saved_files_stay_in_their_folder(name: str) -> None:
    chosen = choose_name(name)
    assert "/" not in chosen and "\0" not in chosen and not chosen.startswith(".")
    assert 0 < len(os.fsencode(chosen)) <= 255
    assert chosen == name or chosen.startswith("upload")
