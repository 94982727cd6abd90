"""Pictures are found by ids that were handed out, and are always encoded by the server."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from indexes import Store
from pipeline.decode.formats import OWN_MARK_BYTES, has_own_mark
from pipeline.review.web.credentials import PictureIds, load_api_token
from tests.review.web.conftest import Library, make_library
from tests.support.review import RunningReview, serve_review

HASHES = st.binary(min_size=32, max_size=32)


@pytest.fixture
def browser(review: RunningReview) -> Iterator[httpx.Client]:
    with review.open_browser() as client:
        yield client


def get_id(review: RunningReview, path: Path) -> str:
    return review.service.picture_ids.encode(blake3(path.read_bytes()).digest())


def open_picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert has_own_mark(answer.content[:OWN_MARK_BYTES])  # so that no ingest takes it in
    picture = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == f"image/{str(picture.format).lower()}"
    return picture


@given(HASHES, st.text(min_size=1), st.text(min_size=1))
def test_ids_are_read_by_the_store_that_made_them_alone(
    image_hash: bytes, secret: str, other: str
) -> None:
    ids = PictureIds(secret)
    picture_id = ids.encode(image_hash)
    assert ids.decode(picture_id) == image_hash
    assert image_hash.hex() not in picture_id and len(picture_id) == 64
    assert other == secret or PictureIds(other).decode(picture_id) is None


@given(HASHES, st.integers(0, 63), st.sampled_from("ABCabc019-_"))
def test_changed_ids_name_nothing(image_hash: bytes, position: int, character: str) -> None:
    ids = PictureIds("secret")
    picture_id = ids.encode(image_hash)
    forged = picture_id[:position] + character + picture_id[position + 1 :]
    assert forged == picture_id or ids.decode(forged) is None


@given(st.text())
def test_any_text_is_no_id(text: str) -> None:
    assert PictureIds("secret").decode(text) is None


def test_thumbnails_and_large_pictures_are_kept_by_a_browser(
    review: RunningReview, library: Library, browser: httpx.Client
) -> None:
    picture = f"/pictures/{get_id(review, library.photos / 'a.jpg')}"
    for address, size in (
        (f"{picture}/thumb", (448, 299)),
        (f"{picture}/full", (900, 600)),
        (f"{picture}/full?max=300", (300, 200)),
        (f"{picture}/full?max=1", (64, 43)),
        (f"{picture}/full?max=99999", (900, 600)),
    ):
        answer = browser.get(address)
        assert open_picture(answer).size == size
        assert "immutable" in answer.headers["cache-control"]
        assert "private" in answer.headers["cache-control"]
        tag = answer.headers["etag"]
        again = browser.get(address, headers={"If-None-Match": f'"x", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
    assert browser.get(f"{picture}/full?max=x").status_code == 400
    assert browser.get(f"{picture}/full?max=-1").status_code == 400


def test_ids_of_other_images_and_forged_ones_find_nothing(
    review: RunningReview, browser: httpx.Client
) -> None:
    for picture_id in (
        review.service.picture_ids.encode(secrets.token_bytes(32)),
        "A" * 64,
        "x",
        blake3(b"").hexdigest(),
    ):
        for kind in ("thumb", "full"):
            answer = browser.get(f"/pictures/{picture_id}/{kind}")
            assert answer.status_code == 404
            assert "immutable" not in answer.headers["cache-control"]


def test_pictures_without_their_file_say_so(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    photo = library.photos / "c.jpg"
    with serve_review(library.store, with_listing=False) as running:
        picture = f"/pictures/{get_id(running, photo)}"
        photo.unlink()
        with running.open_browser() as browser:
            assert open_picture(browser.get(f"{picture}/thumb")).size == (448, 299)
            gone = browser.get(f"{picture}/full")
        assert gone.status_code == 404
        assert "no file gives this photo" in gone.text


def test_thumbnail_that_the_cache_lost_is_made_again(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    (library.store / "caches" / "thumbnails.db").unlink()
    with serve_review(library.store, with_listing=False) as running:
        picture = get_id(running, library.photos / "c.jpg")
        with running.open_browser() as browser:
            assert open_picture(browser.get(f"/pictures/{picture}/thumb")).size == (448, 299)


def test_token_of_programs_is_private_and_outlives_the_server(tmp_path: Path) -> None:
    with Store(tmp_path / "store", write=True):
        pass
    token, path = load_api_token(tmp_path / "store")
    assert path is not None and path.read_text().strip() == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_api_token(tmp_path / "store") == (token, path)
    path.chmod(0o640)
    newer, _ = load_api_token(tmp_path / "store")
    assert newer != token and path.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(token)
    elsewhere.chmod(0o600)
    path.unlink()
    path.symlink_to(elsewhere)
    assert load_api_token(tmp_path / "store")[0] not in (token, newer)
    assert elsewhere.read_text() == token and not path.is_symlink()
