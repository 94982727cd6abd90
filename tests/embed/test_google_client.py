"""Retries, failures, keys and credentials of requests to Google."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("google.genai", reason="the extra google is not installed")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pipeline.embed.backends import google_client
from pipeline.embed.embedder import embed, load_embedder
from pipeline.errors import MissingExtra, MissingKey, ServiceUnavailable
from tests.support.fake_google import (
    ACCESS_TOKEN,
    API_KEY,
    DESCRIBE_MODEL,
    MODEL,
    FakeGoogle,
    Fault,
    Handler,
    cut_connection,
    make_changed_answer,
    make_late_answer,
    make_noise_inputs,
    make_refusal,
    make_unfinished_answer,
    reset_connection,
    rows_match_requests,
    send_broken_json,
)


def iterate_chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def hides_secrets(error: BaseException) -> bool:
    """Return True if neither key nor token is in an error, its chain or its traceback."""
    text = "".join(traceback.format_exception(error)) + "".join(
        f"{cause} {cause!r} {vars(cause)}" for cause in iterate_chain(error)
    )
    return API_KEY not in text and ACCESS_TOKEN not in text


# Transient faults

TRANSIENT_FAULTS: dict[str, Fault] = {
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


@pytest.mark.parametrize("fault", TRANSIENT_FAULTS.values(), ids=TRANSIENT_FAULTS)
def test_transient_fault_is_retried(
    google: FakeGoogle, backoffs: list[float], fault: Fault
) -> None:
    google.faults.extend([None, fault])
    inputs = make_noise_inputs(14)
    rows = load_embedder(MODEL).encode(inputs)
    assert len(google.requests) == 4
    assert len(backoffs) == 1
    assert sorted(google.answered_jpegs.values()) == [1] * 14
    google.requests.pop(1)
    np.testing.assert_allclose(rows, load_embedder(MODEL).encode(inputs), atol=1e-5)


def test_backoff_doubles_until_the_last_attempt(google: FakeGoogle, backoffs: list[float]) -> None:
    google.choose_fault = lambda: make_refusal(429, "slow down")
    with pytest.raises(
        ServiceUnavailable,
        match=r"429 REFUSED: slow down \(the quota is used up; run again later\); tried 7 times",
    ) as raised:
        load_embedder(MODEL).encode(make_noise_inputs(1))
    assert not raised.value.rows
    assert len(google.requests) == google_client.MAX_ATTEMPTS
    assert len(backoffs) == google_client.MAX_ATTEMPTS - 1
    assert all(0.5 * 2**number <= wait <= 2**number for number, wait in enumerate(backoffs))


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
def test_retry_after_of_a_refusal_is_respected(
    google: FakeGoogle, backoffs: list[float], fault: Callable[[], Fault], least: float
) -> None:
    google.faults.append(fault())  # created now, because one contains a date
    load_embedder(MODEL).encode(make_noise_inputs(1))
    assert least < backoffs[0] <= max(least, 100) + google_client.FIRST_BACKOFF_SECONDS


def test_retry_after_of_hours_is_not_retried(google: FakeGoogle, backoffs: list[float]) -> None:
    google.faults.append(make_refusal(429, "quota by the day", retry_after="7200"))
    with pytest.raises(
        ServiceUnavailable, match="quota by the day.*the service asks to wait 7200 s"
    ):
        load_embedder(MODEL).encode(make_noise_inputs(1))
    assert (len(google.requests), backoffs) == (1, [])


class Deadlines:
    """Stands in for asyncio.timeout: a deadline passes when the test says so."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def start(self, seconds: float) -> asyncio.Timeout:
        """Start a timeout in the running event loop, and record how long it should be."""
        self.seconds.append(seconds)
        self._loop, self._timeout = asyncio.get_running_loop(), asyncio.timeout(None)
        return self._timeout

    def expire(self) -> None:
        """Let the latest deadline pass."""
        self._loop.call_soon_threadsafe(self._timeout.reschedule, 0.0)


def test_unfinished_answer_times_out_as_a_whole(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines = Deadlines()
    monkeypatch.setattr(google_client, "timeout", deadlines.start)
    monkeypatch.setattr(google_client, "MAX_ATTEMPTS", 2)
    google.faults.extend([make_unfinished_answer(deadlines.expire)] * 2)
    with pytest.raises(ServiceUnavailable, match=r"no complete answer within 120 s; tried 2 times"):
        load_embedder(MODEL).encode(make_noise_inputs(1))
    assert len(google.requests) == 2
    assert deadlines.seconds == [120, 120]


# Permanent faults


def set_value(value: object, good: dict[str, Any]) -> None:
    good["embeddings"][1]["values"][3] = value


INVALID_VALUES = {
    "NaN": math.nan,
    "infinity": math.inf,
    "null": None,
    "too large": 1e300,
    "a word": "many",
}
UNUSABLE_ANSWERS: dict[str, tuple[Fault, str]] = {
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
        for name, value in INVALID_VALUES.items()
    },
}


@pytest.mark.parametrize(("fault", "message"), UNUSABLE_ANSWERS.values(), ids=UNUSABLE_ANSWERS)
def test_unusable_answer_is_requested_at_most_twice(
    google: FakeGoogle, fault: Fault, message: str
) -> None:
    google.choose_fault = lambda: fault
    with pytest.raises(
        ServiceUnavailable, match=f"unusable answer: .*({message})|({message})"
    ) as raised:
        load_embedder(MODEL).encode(make_noise_inputs(2))
    assert len(google.requests) == 2
    assert not raised.value.rows


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (400, "refuse the whole request"),
        (401, "check the key"),
        (403, "check the key"),
        (404, "check the model name"),
        (418, ""),
    ],
)
def test_permanent_refusal_is_not_retried_and_has_a_hint(
    google: FakeGoogle, backoffs: list[float], code: int, hint: str
) -> None:
    google.faults.append(make_refusal(code, "never"))
    with pytest.raises(
        ServiceUnavailable,
        match=rf"^{MODEL}: no vectors for images 1 to 2 of 2: {code} REFUSED: never.*{hint}",
    ) as raised:
        load_embedder(MODEL).encode(make_noise_inputs(2))
    assert raised.value.exit_code == 6
    assert (len(google.requests), backoffs) == (1, [])


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that is set when a request has failed for good.

    The client notes the failure in the same step of its event loop, before any later event.
    """
    event, call_with_retries = threading.Event(), google_client.RequestBatch.call_with_retries

    async def call_and_signal(
        batch: google_client.RequestBatch,
        send: Any,  # noqa: ANN401 - a coroutine function of the client
    ) -> object:
        try:
            return await call_with_retries(batch, send)
        except google_client.RequestFailed:
            event.set()
            raise

    monkeypatch.setattr(google_client.RequestBatch, "call_with_retries", call_and_signal)
    return event


def test_failure_keeps_arrived_rows_and_starts_no_request(
    google: FakeGoogle, failed: threading.Event
) -> None:
    barrier = threading.Barrier(4)

    def refuse(handler: Handler, good: dict[str, Any]) -> None:
        barrier.wait(10)
        make_refusal(403, "no more")(handler, good)

    def answer_late(handler: Handler, good: dict[str, Any]) -> None:
        barrier.wait(10)
        make_late_answer(failed)(handler, good)

    google.faults.extend([None, None, refuse, answer_late, answer_late, answer_late])
    inputs, embedder = make_noise_inputs(60), load_embedder(MODEL)
    with pytest.raises(ServiceUnavailable, match="no more") as raised:
        embed(embedder, inputs)
    arrived = raised.value.rows
    assert len(google.requests) == 6  # of 10
    assert len(arrived) == 30

    google.requests.clear()
    remaining = [at for at in range(60) if at not in arrived]
    rows = np.empty((60, 128), np.float32)
    rows[remaining], rows[list(arrived)] = (
        embed(embedder, [inputs[at] for at in remaining]),
        list(arrived.values()),
    )
    np.testing.assert_allclose(rows, embed(load_embedder(MODEL), inputs), atol=1e-6)


def test_failure_stops_retries_of_other_requests(
    google: FakeGoogle, failed: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        google_client, "sleep", lambda seconds: asyncio.to_thread(failed.wait, 10)
    )  # whichever answer arrives first
    barrier = threading.Barrier(3)

    def fail_together(fault: Fault, handler: Handler, good: dict[str, Any]) -> None:
        barrier.wait(10)
        fault(handler, good)

    google.faults.extend(partial(fail_together, make_refusal(code)) for code in (403, 429, 429))
    with pytest.raises(ServiceUnavailable, match="403"):
        load_embedder(MODEL).encode(make_noise_inputs(18))
    assert len(google.requests) == 3


def test_ctrl_c_cancels_requests_in_flight(
    google: FakeGoogle, request: pytest.FixtureRequest
) -> None:
    old_handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell makes background processes ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, old_handler))
    main, barrier, interrupted = (
        threading.main_thread().ident,
        threading.Barrier(4),
        threading.Event(),
    )
    assert main

    def interrupt_and_answer_late(handler: Handler, good: dict[str, Any]) -> None:
        if barrier.wait(10) == 0:
            signal.pthread_kill(main, signal.SIGINT)
        make_late_answer(interrupted)(handler, good)

    google.faults.extend([interrupt_and_answer_late] * 4)
    embedder = load_embedder(MODEL)
    with pytest.raises(KeyboardInterrupt):
        embedder.encode(make_noise_inputs(60))
    interrupted.set()
    assert embedder.encode(make_noise_inputs(3)).shape == (3, 128)
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
def test_refusal_that_repeats_the_key_is_redacted(google: FakeGoogle, echo: str, code: int) -> None:
    google.choose_fault = lambda: make_refusal(code, f"not with {echo}", details=[{"header": echo}])
    with pytest.raises(ServiceUnavailable, match=r"not with .*\*\*\*") as raised:
        embed(load_embedder(MODEL), make_noise_inputs(2))
    assert hides_secrets(raised.value)


def test_unreadable_answer_with_the_key_is_redacted(google: FakeGoogle) -> None:
    google.choose_fault = lambda: make_changed_answer(
        lambda good: good.update(embeddings=[API_KEY, {"values": API_KEY}])
    )
    with pytest.raises(ServiceUnavailable) as raised:
        embed(load_embedder(MODEL), make_noise_inputs(2))
    assert hides_secrets(raised.value)


def test_refusal_with_a_foreign_key_is_redacted(google: FakeGoogle) -> None:
    google.faults.append(
        make_refusal(403, "at https://host/v1?alt=json&key=ANOTHER-KEY, Bearer ANOTHER-TOKEN")
    )
    with pytest.raises(ServiceUnavailable, match=r"key=\*\*\* Bearer \*\*\*") as raised:
        embed(load_embedder(MODEL), make_noise_inputs(2))
    assert "ANOTHER" not in str(raised.value)


def test_key_is_sent_in_a_header_and_not_part_of_the_embedder(google: FakeGoogle) -> None:
    embedder = load_embedder(MODEL)
    embedder.encode(make_noise_inputs(1))
    assert google.requests[0].headers["x-goog-api-key"] == API_KEY
    assert API_KEY not in google.requests[0].path
    client = vars(embedder)["_client"]
    public = [repr(embedder), repr(embedder.space), embedder.name, vars(embedder), vars(client)]
    assert API_KEY not in " ".join(map(str, public))


def test_missing_key_is_explained(google: FakeGoogle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    embedder = load_embedder(MODEL)
    assert embedder.space.dim == 128
    with pytest.raises(
        MissingKey,
        match="set GEMINI_API_KEY .* GOOGLE_GENAI_USE_VERTEXAI=true and GOOGLE_CLOUD_PROJECT",
    ):
        embedder.encode(make_noise_inputs(1))
    monkeypatch.setenv("GOOGLE_API_KEY", API_KEY)
    assert embedder.encode(make_noise_inputs(1)).shape == (1, 128)


@pytest.mark.parametrize("module", ["google.genai", "google.auth"])
def test_missing_package_is_named_with_the_install_command(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"\({module}\); run `pip install 'neardup\[google\]'`"):
        load_embedder(MODEL).encode(make_noise_inputs(1))


def test_load_embedder_does_not_import_google() -> None:
    code = (
        "import sys; from pipeline import load_embedder;"
        f" load_embedder({MODEL!r}).space; load_embedder({DESCRIBE_MODEL!r});"
        " print('google' in sys.modules)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert completed.stdout.strip() == "False", completed.stderr


# Vertex AI


@pytest.fixture
def vertex(google: FakeGoogle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGoogle:
    """The server, named by the environment with a service account whose tokens it issues."""
    private_key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "a@b.example",
        "private_key": private_key.decode(),
        "token_uri": f"{google.url}/token",
    }
    path = tmp_path / "account.json"
    path.write_text(json.dumps({**account, "project_id": "of-the-account"}))
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", google.url)
    return google


def test_vertex_requests_use_a_token_and_the_project(
    vertex: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
    monkeypatch.setenv("GOOGLE_API_KEY", "not for this")
    inputs = make_noise_inputs(7)
    rows = load_embedder(MODEL).encode(inputs)
    models = "/v1beta1/projects/mine/locations/europe-west4/publishers/google/models"
    assert {(len(request.contents), request.path) for request in vertex.requests} == {
        (6, f"{models}/gemini-embedding-2:batchEmbedContents"),
        (1, f"{models}/gemini-embedding-2:embedContent"),
    }
    assert {request.headers["authorization"] for request in vertex.requests} == {
        f"Bearer {ACCESS_TOKEN}"
    }
    assert not any("x-goog-api-key" in request.headers for request in vertex.requests)
    assert rows_match_requests(rows, vertex.requests, inputs)


def test_vertex_describe_uses_the_project_of_the_account(vertex: FakeGoogle) -> None:
    assert load_embedder(DESCRIBE_MODEL).encode(make_noise_inputs(3)).shape == (3, 128)
    assert {request.path.split("/")[3] for request in vertex.requests} == {"of-the-account"}
    assert {request.path.split("/")[5] for request in vertex.requests} == {"global"}


def test_refusal_that_repeats_the_token_is_redacted(vertex: FakeGoogle) -> None:
    vertex.choose_fault = lambda: make_refusal(
        403, f"not with {ACCESS_TOKEN}, nor Bearer {ACCESS_TOKEN}"
    )
    with pytest.raises(ServiceUnavailable, match=r"not with \*\*\*, nor Bearer \*\*\*") as raised:
        load_embedder(MODEL).encode(make_noise_inputs(1))
    assert hides_secrets(raised.value)


def test_missing_credentials_are_explained(
    vertex: FakeGoogle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(MissingKey, match="gcloud auth application-default login"):
        load_embedder(MODEL).encode(make_noise_inputs(1))


def test_refused_token_is_not_retried(
    vertex: FakeGoogle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account = json.loads((tmp_path / "account.json").read_text())
    (tmp_path / "account.json").write_text(
        json.dumps({**account, "token_uri": f"{vertex.url}/v1/nothing"})
    )
    with pytest.raises(ServiceUnavailable, match="no token for the credentials") as raised:
        load_embedder(MODEL).encode(make_noise_inputs(1))
    assert hides_secrets(raised.value)
