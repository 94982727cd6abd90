from __future__ import annotations

import asyncio
import gc
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode.decode import Decoded, decode
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends import google_client as google_line
from pipeline.embed.backends.google import PROMPT
from pipeline.embed.embedder import Embedder, embed, load_embedder
from pipeline.errors import MissingExtra, MissingKey, ServiceUnavailable, UnknownModel
from pipeline.scan import SourceFile
from tests.support.fake_google import (
    ACCESS_TOKEN,
    API_KEY,
    FakeGoogle,
    Fault,
    Handler,
    Request,
    cut_connection,
    decode_pixels,
    embed_content,
    make_changed_answer,
    make_late_answer,
    make_refusal,
    reset_connection,
    send_broken_json,
    send_slowly,
)
from tests.support.images import draw_scene, save_image

MODEL, DESCRIBE = (
    "google:gemini-embedding-2@128",
    "google-describe:gemini-3-flash+gemini-embedding-001@128",
)
Views = list[NDArray[np.uint8]]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, none of which is waited for."""
    noted: list[float] = []

    async def sleep(seconds: float) -> None:
        noted.append(seconds)

    monkeypatch.setattr(google_line, "sleep", sleep)
    return noted


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[FakeGoogle]:
    """The server, which the environment leads to, with a key."""
    for name in os.environ:
        if name.upper().startswith(("GOOGLE", "GEMINI")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with FakeGoogle().serve() as server:
        monkeypatch.setenv("GEMINI_API_KEY", API_KEY)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        yield server


def noise(count: int, seed: int = 0) -> Views:
    """Tiny pictures, each of its own."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


def rows_are_in_order(rows: NDArray[np.float32], requests: Sequence[Request], views: Views) -> bool:
    """Whether row n is the vector of the JPEG that shows picture n."""
    jpegs = [jpeg for request in requests for jpeg in request.jpegs]
    seen = np.array([decode_pixels(jpeg) for jpeg in jpegs])
    sent = np.array([view.ravel() / 255 for view in views])
    nearest = (
        ((seen[:, None] - sent[None]) ** 2).sum(axis=2).argmin(axis=1)
    )  # which picture each JPEG shows
    expected = {
        int(at): content
        for at, content in zip(nearest, (c for r in requests for c in r.contents), strict=True)
    }
    return all(
        np.allclose(rows[at], embed_content(expected[at], 128), atol=1e-3)
        for at in range(len(views))
    )


def chained(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def no_secret_in(error: BaseException) -> bool:
    """Whether neither key nor token shows in an error, in those behind it, or in its traceback."""
    shown = "".join(traceback.format_exception(error)) + "".join(
        f"{one} {one!r} {vars(one)}" for one in chained(error)
    )
    return API_KEY not in shown and ACCESS_TOKEN not in shown


# What is sent, and what comes back


def test_each_picture_goes_as_one_content_and_six_in_a_request(google: FakeGoogle) -> None:
    views = noise(14)
    embedder = load_embedder(MODEL)
    rows = embedder.encode(views)
    assert rows.shape == (14, 128)
    assert rows.dtype == np.float32
    assert sorted(len(request.contents) for request in google.requests) == [2, 6, 6]
    assert all(
        len(content["parts"]) == 1 for request in google.requests for content in request.contents
    )
    assert {request.dim for request in google.requests} == {128}
    assert {request.path for request in google.requests} == {
        "/v1/models/gemini-embedding-2:batchEmbedContents"
    }
    assert embedder.count_paid_calls(14) == 3 == len(google.requests)
    assert rows_are_in_order(rows, google.requests, views)


def test_photos_are_sent_small_and_without_metadata(google: FakeGoogle, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "SECRET PLACE", 6
    exif.get_ifd(0x8825)[1] = "N"
    path = save_image(
        tmp_path / "photo.jpg",
        draw_scene(1, (1600, 1200)),
        exif=exif,
        comment=b"SECRET COMMENT",
        icc_profile=b"SECRET PROFILE",
    )
    embedder = load_embedder(MODEL)
    assert embedder.preprocess == Preprocess(768, "within")
    decoded = decode(SourceFile(str(path)), embedder.preprocess)
    assert isinstance(decoded, Decoded)
    embedder.encode([decoded.pixels])
    ((jpeg,),) = [request.jpegs for request in google.requests]
    picture = Image.open(io.BytesIO(jpeg))
    assert (picture.format, picture.size) == ("JPEG", (576, 768))  # upright
    assert not picture.getexif()
    assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"SECRET" not in jpeg
    assert b"Exif" not in jpeg
    assert str(tmp_path) not in json.dumps(google.requests[0].body)


@pytest.mark.parametrize("name", [MODEL, DESCRIBE])
def test_a_row_depends_on_its_picture_alone(google: FakeGoogle, name: str) -> None:
    views = [
        *noise(7),
        np.full((8, 8, 3), 128, np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.full((1, 500, 3), 255, np.uint8),
    ]
    rows = embed(load_embedder(name), views)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(embed(load_embedder(name), views), rows)
    embedder = load_embedder(name)
    np.testing.assert_allclose(
        np.concatenate([embed(embedder, [view]) for view in views]), rows, atol=1e-5
    )
    np.testing.assert_allclose(embed(embedder, views[::-1])[::-1], rows, atol=1e-5)


def test_nothing_is_asked_for_no_pictures(google: FakeGoogle) -> None:
    embedder = load_embedder(MODEL)
    assert embedder.encode([]).shape == (0, 128)
    assert embedder.count_paid_calls(0) == len(google.requests) == 0


def test_no_more_than_four_requests_are_on_their_way(google: FakeGoogle) -> None:
    four = threading.Barrier(4)

    def together(handler: Handler, good: dict[str, Any]) -> None:
        four.wait(10)
        handler.send(json.dumps(good).encode())

    google.faults.extend([together] * 8)
    embedder, views = load_embedder(MODEL), noise(48)
    with ThreadPoolExecutor(
        2
    ) as threads:  # the limit holds for the embedder, not for each encode()
        list(threads.map(embedder.encode, [views[:24], views[24:]]))
    assert (google.max_concurrent, len(google.requests)) == (4, 8)


def test_it_may_be_asked_where_an_event_loop_runs(google: FakeGoogle) -> None:
    async def cell() -> NDArray[np.float32]:
        return load_embedder(MODEL).encode(noise(2))

    assert asyncio.run(cell()).shape == (2, 128)


def test_it_hangs_up_when_it_is_collected(google: FakeGoogle) -> None:
    before = set(threading.enumerate())
    embedder = load_embedder(MODEL)
    embedder.encode(noise(1))
    (thread,) = [
        thread for thread in set(threading.enumerate()) - before if thread.name == "google"
    ]
    del embedder
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


# Faults that pass

PASSING: dict[str, Fault] = {
    "429": make_refusal(429),
    "429 with a wait": make_refusal(429, retry_after="7"),
    "408": make_refusal(408),
    "500": make_refusal(500),
    "503, not JSON": lambda handler, good: handler.send(b"<html>busy</html>", 503),
    "reset": reset_connection,
    "cut": cut_connection,
    "broken JSON": send_broken_json,
    "too few": make_changed_answer(lambda good: good["embeddings"].pop()),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_asked_again(
    google: FakeGoogle, waits: list[float], fault: Fault
) -> None:
    google.faults.extend([None, fault])
    views = noise(14)
    rows = load_embedder(MODEL).encode(views)
    assert len(google.requests) == 4
    assert len(waits) == 1
    assert sorted(google.answered_jpegs.values()) == [1] * 14
    google.requests.pop(1)
    np.testing.assert_allclose(rows, load_embedder(MODEL).encode(views), atol=1e-5)


def test_waits_grow_and_end(google: FakeGoogle, waits: list[float]) -> None:
    google.choose_fault = lambda: make_refusal(429, "slow down")
    with pytest.raises(
        ServiceUnavailable,
        match=r"429 REFUSED: slow down \(the quota is used up; run again later\); tried 7 times",
    ) as failed:
        load_embedder(MODEL).encode(noise(1))
    assert not failed.value.rows
    assert len(google.requests) == google_line.MAX_ATTEMPTS
    assert len(waits) == google_line.MAX_ATTEMPTS - 1
    assert all(0.5 * 2**number <= wait <= 2**number for number, wait in enumerate(waits))


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (lambda: make_refusal(429, retry_after="30"), 30),
        (
            lambda: make_refusal(
                503,
                retry_after=format_datetime(
                    datetime.now(UTC) + timedelta(seconds=100), usegmt=True
                ),
            ),
            30,
        ),
        (
            lambda: make_refusal(
                429,
                details=[
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
                ],
            ),
            34.5,
        ),
        (lambda: make_refusal(429, retry_after="soon"), 0),
        (lambda: make_refusal(429, retry_after="-5"), 0),
    ],
)
def test_a_wait_that_is_asked_for_is_kept(
    google: FakeGoogle, waits: list[float], fault: Callable[[], Fault], least: float
) -> None:
    google.faults.append(fault())  # made now: one of them holds a date
    load_embedder(MODEL).encode(noise(1))
    assert least < waits[0] <= max(least, 100) + google_line.FIRST_BACKOFF_SECONDS


def test_a_wait_of_hours_is_a_failure(google: FakeGoogle, waits: list[float]) -> None:
    google.faults.append(make_refusal(429, "quota by the day", retry_after="7200"))
    with pytest.raises(
        ServiceUnavailable, match="quota by the day.*the service asks to wait 7200 s"
    ):
        load_embedder(MODEL).encode(noise(1))
    assert (len(google.requests), waits) == (1, [])


def test_an_answer_that_drips_in_is_given_up(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_line, "REQUEST_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(google_line, "MAX_ATTEMPTS", 2)
    google.faults.extend([send_slowly, send_slowly])
    with pytest.raises(
        ServiceUnavailable, match=r"no complete answer within 0\.2 s; tried 2 times"
    ):
        load_embedder(MODEL).encode(noise(1))
    assert len(google.requests) == 2


# Faults that do not


def set_value(value: object, good: dict[str, Any]) -> None:
    good["embeddings"][1]["values"][3] = value


VALUES = {"NaN": math.nan, "infinity": math.inf, "null": None, "too large": 1e300, "a word": "many"}
USELESS: dict[str, tuple[Fault, str]] = {
    "too few": (
        make_changed_answer(lambda good: good["embeddings"].pop()),
        "1 vectors instead of 2",
    ),
    "too many": (
        make_changed_answer(lambda good: good["embeddings"].append(good["embeddings"][0])),
        "3 vectors instead of 2",
    ),
    "merged": (
        make_changed_answer(lambda good: good.update(embeddings=good["embeddings"][:1])),
        "1 vectors instead of 2",
    ),
    "none": (make_changed_answer(lambda good: good.clear()), "0 vectors instead of 2"),
    "short": (
        make_changed_answer(lambda good: good["embeddings"][1]["values"].pop()),
        "127 numbers instead of 128; .* gemini-embedding-2@127",
    ),
    "zero": (
        make_changed_answer(lambda good: good["embeddings"][1].update(values=[0.0] * 128)),
        "zero or not finite",
    ),
    "not an object": (lambda handler, good: handler.send(b"[1, 2]"), "unreadable answer|0 vectors"),
    "no vectors": (
        make_changed_answer(lambda good: good.update(embeddings="none today")),
        "unreadable answer",
    ),
    "broken JSON": (send_broken_json, "unreadable answer"),
    "empty": (lambda handler, good: handler.send(b""), "0 vectors instead of 2"),
    **{
        name: (
            make_changed_answer(partial(set_value, value)),
            "zero or not finite|unreadable answer",
        )
        for name, value in VALUES.items()
    },
}


@pytest.mark.parametrize(("fault", "said"), USELESS.values(), ids=USELESS)
def test_a_useless_answer_is_paid_for_twice_at_most(
    google: FakeGoogle, fault: Fault, said: str
) -> None:
    google.choose_fault = lambda: fault
    with pytest.raises(ServiceUnavailable, match=f"unusable answer: .*({said})|({said})") as failed:
        load_embedder(MODEL).encode(noise(2))
    assert len(google.requests) == 2
    assert not failed.value.rows


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (400, "refuse the whole request"),
        (401, "check the key"),
        (403, "check the key"),
        (404, "check the model name"),
        (418, ""),
    ],
)
def test_a_refusal_is_not_asked_again(
    google: FakeGoogle, waits: list[float], code: int, advice: str
) -> None:
    google.faults.append(make_refusal(code, "never"))
    with pytest.raises(
        ServiceUnavailable,
        match=rf"^{MODEL}: no vectors for images 1 to 2 of 2: {code} REFUSED: never.*{advice}",
    ) as failed:
        load_embedder(MODEL).encode(noise(2))
    assert failed.value.exit_code == 6
    assert (len(google.requests), waits) == (1, [])


def test_rows_that_came_are_kept_and_no_request_starts_after_a_failure(google: FakeGoogle) -> None:
    failed, four = threading.Event(), threading.Barrier(4)

    def refuse(handler: Handler, good: dict[str, Any]) -> None:
        four.wait(10)
        make_refusal(403, "no more")(handler, good)
        failed.set()

    def late(handler: Handler, good: dict[str, Any]) -> None:
        four.wait(10)
        make_late_answer(failed)(handler, good)

    google.faults.extend([None, None, refuse, late, late, late])
    views, embedder = noise(60), load_embedder(MODEL)
    with pytest.raises(ServiceUnavailable, match="no more") as stopped:
        embed(embedder, views)
    came = stopped.value.rows
    assert len(google.requests) == 6  # of 10
    assert len(came) == 30

    google.requests.clear()
    rest = [at for at in range(60) if at not in came]
    rows = np.empty((60, 128), np.float32)
    rows[rest], rows[list(came)] = embed(embedder, [views[at] for at in rest]), list(came.values())
    np.testing.assert_allclose(rows, embed(load_embedder(MODEL), views), atol=1e-6)


def test_a_failure_ends_the_waits_of_other_requests(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        google_line, "sleep", lambda seconds: asyncio.sleep(0.2)
    )  # so long that the refusal is there before its end
    three = threading.Barrier(3)

    def together(fault: Fault, handler: Handler, good: dict[str, Any]) -> None:
        three.wait(10)
        fault(handler, good)

    google.faults.extend(partial(together, make_refusal(code)) for code in (403, 429, 429))
    with pytest.raises(ServiceUnavailable, match="403"):
        load_embedder(MODEL).encode(noise(18))
    assert len(google.requests) == 3


def test_ctrl_c_gives_up_what_is_on_its_way(
    google: FakeGoogle, request: pytest.FixtureRequest
) -> None:
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell has what it runs in the background ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    main, four, over = threading.main_thread().ident, threading.Barrier(4), threading.Event()
    assert main

    def waiting(handler: Handler, good: dict[str, Any]) -> None:
        if four.wait(10) == 0:
            signal.pthread_kill(main, signal.SIGINT)
        make_late_answer(over)(handler, good)

    google.faults.extend([waiting] * 4)
    embedder = load_embedder(MODEL)
    with pytest.raises(KeyboardInterrupt):
        embedder.encode(noise(60))
    over.set()
    assert embedder.encode(noise(3)).shape == (3, 128)
    assert len(google.requests) == 4 + 1


# Keys


@pytest.mark.parametrize(
    "echo",
    [
        API_KEY,
        f"https://host/v1?key={API_KEY}&alt=json",
        f"Authorization: Bearer {API_KEY}",
        f"x{API_KEY}x" * 9,
    ],
)
@pytest.mark.parametrize("code", [400, 403, 500])
def test_no_error_shows_the_key(google: FakeGoogle, echo: str, code: int) -> None:
    google.choose_fault = lambda: make_refusal(code, f"not with {echo}", details=[{"header": echo}])
    with pytest.raises(ServiceUnavailable, match=r"not with .*\*\*\*") as failed:
        embed(load_embedder(MODEL), noise(2))
    assert no_secret_in(failed.value)


def test_no_error_shows_a_key_in_an_answer(google: FakeGoogle) -> None:
    google.choose_fault = lambda: make_changed_answer(
        lambda good: good.update(embeddings=[API_KEY, {"values": API_KEY}])
    )
    with pytest.raises(ServiceUnavailable) as failed:
        embed(load_embedder(MODEL), noise(2))
    assert no_secret_in(failed.value)


def test_no_error_shows_another_s_key(google: FakeGoogle) -> None:
    google.faults.append(
        make_refusal(403, "at https://host/v1?alt=json&key=ANOTHER-KEY, Bearer ANOTHER-TOKEN")
    )
    with pytest.raises(ServiceUnavailable, match=r"key=\*\*\* Bearer \*\*\*") as failed:
        embed(load_embedder(MODEL), noise(2))
    assert "ANOTHER" not in str(failed.value)


def test_a_key_is_no_part_of_an_embedder(google: FakeGoogle) -> None:
    embedder = load_embedder(MODEL)
    embedder.encode(noise(1))
    assert google.requests[0].headers["x-goog-api-key"] == API_KEY
    assert API_KEY not in google.requests[0].path
    assert (
        API_KEY
        not in f"{embedder!r} {embedder.space!r} {embedder.name} {vars(embedder)} {vars(vars(embedder)['_client'])}"
    )


def test_a_missing_key_is_named_with_what_to_do(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    embedder = load_embedder(MODEL)
    assert embedder.space.dim == 128
    with pytest.raises(
        MissingKey,
        match="set GEMINI_API_KEY .* GOOGLE_GENAI_USE_VERTEXAI=true and GOOGLE_CLOUD_PROJECT",
    ):
        embedder.encode(noise(1))
    monkeypatch.setenv("GOOGLE_API_KEY", API_KEY)
    assert embedder.encode(noise(1)).shape == (1, 128)


@pytest.mark.parametrize("module", ["google.genai", "google.auth"])
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"\({module}\); run `pip install 'neardup\[google\]'`"):
        load_embedder(MODEL).encode(noise(1))


def test_loading_imports_nothing_of_google() -> None:
    look = f"import sys; from pipeline import load_embedder as load; load({MODEL!r}).space; load({DESCRIBE!r}); print('google' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", look],
        cwd=Path(__file__).resolve().parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "False", done.stderr


# Vertex AI


@pytest.fixture
def vertex(google: FakeGoogle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGoogle:
    """The server, which the environment leads to by way of a service account, whose tokens come from there, too."""
    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "a@b.example",
        "private_key": private.decode(),
        "token_uri": f"{google.url}/token",
    }
    path = tmp_path / "account.json"
    path.write_text(json.dumps({**account, "project_id": "of-the-account"}))
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", google.url)
    return google


def test_vertex_is_asked_with_a_token_for_the_project(
    vertex: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
    monkeypatch.setenv("GOOGLE_API_KEY", "not for this")
    views = noise(7)
    rows = load_embedder(MODEL).encode(views)
    models = "/v1beta1/projects/mine/locations/europe-west4/publishers/google/models"
    assert {(len(request.contents), request.path) for request in vertex.requests} == {
        (6, f"{models}/gemini-embedding-2:batchEmbedContents"),
        (1, f"{models}/gemini-embedding-2:embedContent"),
    }
    assert {request.headers["authorization"] for request in vertex.requests} == {
        f"Bearer {ACCESS_TOKEN}"
    }
    assert not any("x-goog-api-key" in request.headers for request in vertex.requests)
    assert rows_are_in_order(rows, vertex.requests, views)


def test_vertex_describes(vertex: FakeGoogle) -> None:
    assert load_embedder(DESCRIBE).encode(noise(3)).shape == (3, 128)
    assert {request.path.split("/")[3] for request in vertex.requests} == {"of-the-account"}
    assert {request.path.split("/")[5] for request in vertex.requests} == {"global"}


def test_no_error_shows_the_token(vertex: FakeGoogle) -> None:
    vertex.choose_fault = lambda: make_refusal(
        403, f"not with {ACCESS_TOKEN}, nor Bearer {ACCESS_TOKEN}"
    )
    with pytest.raises(ServiceUnavailable, match=r"not with \*\*\*, nor Bearer \*\*\*") as failed:
        load_embedder(MODEL).encode(noise(1))
    assert no_secret_in(failed.value)


def test_missing_credentials_are_named_with_what_to_do(
    vertex: FakeGoogle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(MissingKey, match="gcloud auth application-default login"):
        load_embedder(MODEL).encode(noise(1))


def test_a_token_that_is_refused_is_a_failure(
    vertex: FakeGoogle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account = json.loads((tmp_path / "account.json").read_text())
    (tmp_path / "account.json").write_text(
        json.dumps({**account, "token_uri": f"{vertex.url}/v1/nothing"})
    )
    with pytest.raises(ServiceUnavailable, match="no token for the credentials") as failed:
        load_embedder(MODEL).encode(noise(1))
    assert no_secret_in(failed.value)


# A whole run


def as_ingest_does(embedder: Embedder, views: Views) -> tuple[NDArray[np.float32], int, int]:
    """The rows of all, asked for in batches of 32, a failure's rows being kept; how many calls that allows, and how many failures."""
    rows, calls, failures = np.zeros((len(views), 128), np.float32), 0, 0
    todo = list(range(len(views)))
    while todo:
        batch = todo[:32]
        calls += embedder.count_paid_calls(len(batch))
        try:
            came = dict(enumerate(embed(embedder, [views[at] for at in batch])))
        except ServiceUnavailable as unanswered:
            came, failures = dict(unanswered.rows), failures + 1
        for number, row in came.items():
            rows[batch[number]] = row
        todo = sorted({*batch} - {batch[number] for number in came}) + todo[32:]
    return rows, calls, failures


@pytest.mark.parametrize("fatal", [False, True])
def test_of_2000_pictures_each_is_embedded_once_whatever_fails(
    google: FakeGoogle, fatal: bool
) -> None:
    rng, faults = (
        random.Random(5),
        [
            make_refusal(429),
            make_refusal(500),
            make_refusal(503, retry_after="3"),
            reset_connection,
            cut_connection,
        ],
    )
    faults += (
        [send_broken_json, PASSING["too few"], make_refusal(400), make_refusal(403)]
        if fatal
        else []
    )
    google.choose_fault = lambda: rng.choice(faults) if rng.random() < 0.05 else None
    views = noise(2000)
    rows, calls, failures = as_ingest_does(load_embedder(MODEL), views)
    assert len(google.answered_jpegs) == 2000
    assert set(google.answered_jpegs.values()) == {1}
    google.choose_fault = lambda: None
    np.testing.assert_allclose(rows[::97], embed(load_embedder(MODEL), views[::97]), atol=1e-6)
    if fatal:
        assert failures
    else:
        asked = sum(len(request.jpegs) > 0 for request in google.requests) - math.ceil(
            len(views[::97]) / 6
        )
        assert failures == 0
        assert calls == 62 * 6 + 3
        assert asked > calls


# Names and spaces


@pytest.mark.parametrize(
    ("name", "kept", "dim"),
    [
        ("google:gemini-embedding-2", "google:gemini-embedding-2", 3072),
        ("google:gemini-embedding-2@3072", "google:gemini-embedding-2", 3072),
        ("google:gemini-embedding-3.1-preview@768", "google:gemini-embedding-3.1-preview@768", 768),
        ("google-describe:a-1.5+b", "google-describe:a-1.5+b", 3072),
        ("google-describe:a+b@256", "google-describe:a+b@256", 256),
    ],
)
def test_a_name_is_kept_and_loads_again(name: str, kept: str, dim: int) -> None:
    embedder = load_embedder(name)
    assert (embedder.name, embedder.space.dim) == (kept, dim)
    assert load_embedder(embedder.name).space == embedder.space


def test_google_alone_is_its_model_of_today() -> None:
    assert load_embedder("google").name == "google:gemini-embedding-2"


def test_spaces_differ_by_model_and_length() -> None:
    names = [
        "google:gemini-embedding-2",
        "google:gemini-embedding-2@768",
        "google:gemini-embedding-3",
        "google-describe:a+b",
        "google-describe:a+c",
    ]
    assert len({load_embedder(name).space for name in names}) == len(names)


@pytest.mark.parametrize(
    "name",
    [
        "google:",
        "google:gemini-embedding-2@",
        "google:gemini-embedding-2@127",
        "google:gemini-embedding-2@3073",
        "google:gemini-embedding-001",  # texts alone
        "google:text-embedding-005",
        "google:multimodalembedding@001",  # its pictures are lost on the way
        "google:gemini-embedding-2+gemini-embedding-2",
        "google:gemini-embedding-2:batch?x=",
        "google-describe:",
        "google-describe:a",
        "google-describe:+b",
        "google-describe:a+",
        "google-describe:a+b+c",
        "google-describe:a@128+b",
    ],
)
def test_a_name_of_no_known_form_is_refused_at_once(name: str) -> None:
    with pytest.raises(UnknownModel, match="MODEL"):
        load_embedder(name)


# Words


def test_each_picture_is_described_and_its_words_are_embedded(google: FakeGoogle) -> None:
    embedder, views = load_embedder(DESCRIBE), noise(18)
    rows = embedder.encode(views)
    described = [request for request in google.requests if request.jpegs]
    embedded = [request for request in google.requests if not request.jpegs]
    assert {request.path for request in described} == {"/v1/models/gemini-3-flash:generateContent"}
    assert {request.path for request in embedded} == {
        "/v1/models/gemini-embedding-001:batchEmbedContents"
    }
    assert {request.body["generationConfig"]["temperature"] for request in described} == {0}
    assert [
        part.get("text") for request in described for part in request.contents[0]["parts"]
    ].count(PROMPT) == 18
    assert sorted(len(request.contents) for request in embedded) == [2, 8, 8]
    assert embedder.count_paid_calls(18) == 21 == len(google.requests)
    assert rows.shape == (18, 128)
    for request in embedded:
        for content in request.contents:
            assert re.fullmatch(
                r"(word\d+ ){9}word\d+", content["parts"][0]["text"]
            )  # ten, though the model gave twelve
            assert np.isclose(rows, embed_content(content, 128), atol=1e-5).all(axis=1).sum() == 1


def test_pictures_that_the_model_refuses_match_nothing_and_stop_nothing(
    google: FakeGoogle, caplog: pytest.LogCaptureFixture
) -> None:
    views = noise(20)
    load_embedder(MODEL).encode(views)
    google.refused_jpegs = set(random.Random(1).sample(sorted(google.answered_jpegs), 9))
    rows = embed(load_embedder(DESCRIBE), views)
    scores = rows @ rows.T - np.eye(20)
    assert scores.max() < 0.6  # the random vectors of all words and pixels
    assert (
        sum(int(number) for number in re.findall(r"refused to describe (\d+) of", caplog.text)) == 9
    )
    google.refused_jpegs = set(google.answered_jpegs)
    np.testing.assert_array_equal(
        embed(load_embedder(DESCRIBE), views[:3]), embed(load_embedder(DESCRIBE), views[:3])
    )


def finished(reason: str) -> Fault:
    """A description without words."""
    return lambda handler, good: handler.send(
        json.dumps({"candidates": [{"finishReason": reason}]}).encode()
    )


@pytest.mark.parametrize(
    ("reason", "asked"), [("SAFETY", 1), ("PROHIBITED_CONTENT", 1), ("STOP", 2), ("MAX_TOKENS", 2)]
)
def test_a_verdict_is_taken_and_an_empty_answer_asked_again(
    google: FakeGoogle, reason: str, asked: int
) -> None:
    google.faults.append(finished(reason))
    assert load_embedder(DESCRIBE).encode(noise(1)).shape == (1, 128)
    assert sum(bool(request.jpegs) for request in google.requests) == asked


def test_a_description_is_never_continued(google: FakeGoogle) -> None:
    more = {
        "finishReason": "CONTINUATION",
        "continuationToken": "bW9yZQ==",
        "content": {"parts": [{"text": "a red"}]},
    }
    google.faults.append(
        lambda handler, good: handler.send(json.dumps({"candidates": [more]}).encode())
    )
    load_embedder(DESCRIBE).encode(noise(1))
    assert len(google.requests) == 2  # as calls() said


def test_a_model_without_words_is_a_failure(google: FakeGoogle) -> None:
    google.choose_fault = lambda: finished("STOP")
    with pytest.raises(
        ServiceUnavailable, match="unusable answer: no description of an image; tried 2 times"
    ):
        load_embedder(DESCRIBE).encode(noise(1))
    assert len(google.requests) == 2


def test_a_failure_costs_the_descriptions_of_its_group_alone(google: FakeGoogle) -> None:
    fault: Callable[[], Fault | None] = lambda: (
        make_refusal(403) if len(google.requests) == 30 else None
    )  # noqa: E731 - the type says more
    google.choose_fault = fault
    with pytest.raises(ServiceUnavailable, match="403") as failed:
        load_embedder(DESCRIBE).encode(noise(64))
    assert len(failed.value.rows) >= 24  # those of the three other groups on their way
    assert len(failed.value.rows) % 8 == 0


def test_description_faults_pass_too(google: FakeGoogle) -> None:
    google.faults.extend([make_refusal(429), reset_connection, None, send_broken_json])
    views = noise(5)
    rows = load_embedder(DESCRIBE).encode(views)
    np.testing.assert_allclose(rows, load_embedder(DESCRIBE).encode(views), atol=1e-5)


# A store that holds nothing of it yet


def test_a_store_is_not_bound_to_a_model_that_cannot_be_used(
    google: FakeGoogle, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    monkeypatch.delenv("GEMINI_API_KEY")
    assert run("ingest", photos, "--model", MODEL)[0] == 1
    code, _, err = run("ingest")  # without a model, it is still the one that was asked for
    assert code == 1
    assert "GEMINI_API_KEY" in err
    code, _, err = run("ingest", "--model", "neardup-1")
    assert code == 3, err  # for the broken photo
    assert "5 photos embedded" in err
    assert json.loads(run("status", "--json")[1])["model"] == "neardup-1"
    assert run("ingest", "--model", MODEL)[0] == 2
    assert not google.requests


def test_a_store_is_not_bound_before_somebody_agreed(
    google: FakeGoogle, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 0)
    assert run("ingest", photos, "--model", MODEL)[0] == 7
    assert json.loads(run("status", "--json")[1])["model"] is None
    assert run("ingest")[0] == 0
    assert json.loads(run("status", "--json")[1])["model"] == "neardup-1"


# Asked again


@pytest.fixture
def library(google: FakeGoogle, run: Run, photos: Path) -> FakeGoogle:
    """The server, after a library of five pictures with features and one without was ingested."""
    save_image(photos / "blank.png", Image.new("RGB", (50, 50)))
    assert run("ingest", photos, "--model", MODEL)[0] == 0
    google.requests.clear()
    return google


def test_a_sample_is_asked_for_again_in_few_requests(library: FakeGoogle, run: Run) -> None:
    code, out, err = run("check", "--sample", "9")
    assert code == 0
    assert (
        out
        == "5 photos embedded again, lowest cosine with the stored vector 1.00000\nthe store is sound\n"
    )
    assert "up to 1 paid request for 6 photos" in err
    assert [len(request.contents) for request in library.requests] == [5]
    assert run("check")[0] == 0
    assert len(library.requests) == 1


def test_a_sample_shows_that_another_model_is_behind_the_name(
    library: FakeGoogle, run: Run
) -> None:
    library.faults.append(
        make_changed_answer(lambda good: good["embeddings"][2]["values"].reverse())
    )
    code, out, _ = run("check", "--sample", "9")
    assert code == 4
    assert len(re.findall(r"embedded again, its cosine with the stored vector is", out)) == 1


def test_a_sample_costs_no_more_than_was_agreed(
    library: FakeGoogle, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 0)
    code, _, err = run("check", "--sample", "9")
    assert code == 7
    assert f"6 photos take up to 1 paid request to {MODEL}; add --allow-cost" in err
    assert not library.requests
    for number, words in enumerate(
        (["--allow-cost"], ["--max-calls", "1"], ["--allow-cost", "--max-calls", "1"]), 1
    ):
        assert run("check", "--sample", "9", *words)[0] == 0
        assert len(library.requests) == number


@pytest.mark.parametrize("words", [[], ["--allow-cost"]])
def test_a_sample_beyond_the_limit_is_not_begun(
    google: FakeGoogle, run: Run, photos: Path, words: list[str]
) -> None:
    assert run("ingest", photos, "--model", DESCRIBE)[0] == 0
    google.requests.clear()
    code, _, err = run("check", "--sample", "5", "--max-calls", "5", *words)
    assert code == 7
    assert "5 photos take up to 6 paid requests" in err
    assert "--max-calls allows 5, so none was made" in err
    assert not google.requests
    assert run("check", "--sample", "5", "--max-calls", "6", *words)[0] == 0
    assert len(google.requests) == 6


def test_a_sample_that_is_not_answered(library: FakeGoogle, run: Run) -> None:
    library.faults.append(make_refusal(403, "no more"))
    code, out, err = run("check", "--sample", "9")
    assert (code, out) == (6, "")
    assert "no more" in err


@pytest.mark.parametrize("command", ["query", "compare"])
def test_a_question_costs_no_more_than_was_agreed(
    library: FakeGoogle, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    asked = [save_image(tmp_path / f"{number}.png", draw_scene(90 + number)) for number in range(7)]
    code, _, err = run(command, *asked)
    assert code == 0
    assert "up to 2 paid requests for 7 files" in err
    assert sum(len(request.contents) for request in library.requests) == 7
    library.requests.clear()
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 1)
    code, _, err = run(command, *asked)
    assert code == 7
    assert "add --allow-cost to make them, or ask about fewer files" in err
    assert not library.requests
    assert run(command, *asked, "--allow-cost")[0] == 0
