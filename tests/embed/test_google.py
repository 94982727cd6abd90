"""Embedders that Google computes: requests, rows, names and descriptions."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import math
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends.google import PROMPT
from pipeline.embed.embedder import Embedder, embed, load_embedder
from pipeline.errors import ServiceUnavailable, UnknownModel
from pipeline.scan import SourceFile
from tests.support.fake_google import (
    DESCRIBE_MODEL,
    MODEL,
    FakeGoogle,
    Fault,
    Handler,
    Inputs,
    cut_connection,
    embed_content,
    make_changed_answer,
    make_noise_inputs,
    make_refusal,
    reset_connection,
    rows_match_requests,
    send_broken_json,
)
from tests.support.images import draw_scene, save_image

# Requests and answers


def test_encode_sends_six_images_a_request_each_as_one_content(google: FakeGoogle) -> None:
    inputs = make_noise_inputs(14)
    embedder = load_embedder(MODEL)
    rows = embedder.encode(inputs)
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
    assert rows_match_requests(rows, google.requests, inputs)


def test_images_are_sent_downscaled_and_without_metadata(
    google: FakeGoogle, tmp_path: Path
) -> None:
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
    decoded = decode_source(SourceFile(str(path)), embedder.preprocess)
    assert isinstance(decoded, Decoded)
    embedder.encode([decoded.pixels])
    ((jpeg,),) = [request.jpegs for request in google.requests]
    image = Image.open(io.BytesIO(jpeg))
    assert (image.format, image.size) == ("JPEG", (576, 768))  # upright
    assert not image.getexif()
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"SECRET" not in jpeg
    assert b"Exif" not in jpeg
    assert str(tmp_path) not in json.dumps(google.requests[0].body)


@pytest.mark.parametrize("name", [MODEL, DESCRIBE_MODEL])
def test_row_depends_only_on_its_image(google: FakeGoogle, name: str) -> None:
    inputs = [
        *make_noise_inputs(7),
        np.full((8, 8, 3), 128, np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.full((1, 500, 3), 255, np.uint8),
    ]
    rows = embed(load_embedder(name), inputs)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(embed(load_embedder(name), inputs), rows)
    embedder = load_embedder(name)
    np.testing.assert_allclose(
        np.concatenate([embed(embedder, [pixels]) for pixels in inputs]), rows, atol=1e-5
    )
    np.testing.assert_allclose(embed(embedder, inputs[::-1])[::-1], rows, atol=1e-5)


def test_encode_of_no_images_sends_no_request(google: FakeGoogle) -> None:
    embedder = load_embedder(MODEL)
    assert embedder.encode([]).shape == (0, 128)
    assert embedder.count_paid_calls(0) == len(google.requests) == 0


def test_concurrent_requests_of_all_threads_are_limited_to_four(google: FakeGoogle) -> None:
    barrier = threading.Barrier(4)

    def fail_together(handler: Handler, good: dict[str, Any]) -> None:
        barrier.wait(10)
        handler.send(json.dumps(good).encode())

    google.faults.extend([fail_together] * 8)
    embedder, inputs = load_embedder(MODEL), make_noise_inputs(48)
    with ThreadPoolExecutor(2) as threads:  # the limit holds for the embedder, not for each encode
        list(threads.map(embedder.encode, [inputs[:24], inputs[24:]]))
    assert (google.max_concurrent, len(google.requests)) == (4, 8)


def test_encode_works_inside_an_event_loop(google: FakeGoogle) -> None:
    async def encode_in_loop() -> NDArray[np.float32]:
        return load_embedder(MODEL).encode(make_noise_inputs(2))

    assert asyncio.run(encode_in_loop()).shape == (2, 128)


def test_client_thread_ends_when_the_embedder_is_collected(google: FakeGoogle) -> None:
    old_handler = set(threading.enumerate())
    embedder = load_embedder(MODEL)
    embedder.encode(make_noise_inputs(1))
    (thread,) = [
        thread for thread in set(threading.enumerate()) - old_handler if thread.name == "google"
    ]
    del embedder
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


# Many requests


def embed_in_batches(embedder: Embedder, inputs: Inputs) -> tuple[NDArray[np.float32], int, int]:
    """Embed in batches of 32 until all rows arrived, as ingest does.

    Returns the rows, the paid calls that were estimated, and the number of failures.
    """
    rows, calls, failures = np.zeros((len(inputs), 128), np.float32), 0, 0
    remaining = list(range(len(inputs)))
    while remaining:
        batch = remaining[:32]
        calls += embedder.count_paid_calls(len(batch))
        try:
            arrived = dict(enumerate(embed(embedder, [inputs[at] for at in batch])))
        except ServiceUnavailable as unanswered:
            arrived, failures = dict(unanswered.rows), failures + 1
        for number, row in arrived.items():
            rows[batch[number]] = row
        remaining = sorted({*batch} - {batch[number] for number in arrived}) + remaining[32:]
    return rows, calls, failures


@pytest.mark.parametrize("has_permanent_faults", [False, True])
def test_each_of_2000_images_is_embedded_once_despite_faults(
    google: FakeGoogle, has_permanent_faults: bool
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
        [
            send_broken_json,
            make_changed_answer(lambda good: good["embeddings"].pop()),
            make_refusal(400),
            make_refusal(403),
        ]
        if has_permanent_faults
        else []
    )
    google.choose_fault = lambda: rng.choice(faults) if rng.random() < 0.05 else None
    inputs = make_noise_inputs(2000)
    rows, calls, failures = embed_in_batches(load_embedder(MODEL), inputs)
    assert len(google.answered_jpegs) == 2000
    assert set(google.answered_jpegs.values()) == {1}
    google.choose_fault = lambda: None
    np.testing.assert_allclose(rows[::97], embed(load_embedder(MODEL), inputs[::97]), atol=1e-6)
    if has_permanent_faults:
        assert failures
    else:
        request_count = sum(len(request.jpegs) > 0 for request in google.requests) - math.ceil(
            len(inputs[::97]) / 6
        )
        assert failures == 0
        assert calls == 62 * 6 + 3
        assert request_count > calls


# Names and spaces


@pytest.mark.parametrize(
    ("name", "short_name", "dim"),
    [
        ("google:gemini-embedding-2", "google:gemini-embedding-2", 3072),
        ("google:gemini-embedding-2@3072", "google:gemini-embedding-2", 3072),
        ("google:gemini-embedding-3.1-preview@768", "google:gemini-embedding-3.1-preview@768", 768),
        ("google-describe:a-1.5+b", "google-describe:a-1.5+b", 3072),
        ("google-describe:a+b@256", "google-describe:a+b@256", 256),
    ],
)
def test_name_is_shortened_and_loads_the_same_space(name: str, short_name: str, dim: int) -> None:
    embedder = load_embedder(name)
    assert (embedder.name, embedder.space.dim) == (short_name, dim)
    assert load_embedder(embedder.name).space == embedder.space


def test_google_alone_loads_the_default_model() -> None:
    assert load_embedder("google").name == "google:gemini-embedding-2"


def test_spaces_differ_by_model_and_dimension() -> None:
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
        "google:gemini-embedding-001",  # accepts only text
        "google:text-embedding-005",
        "google:multimodalembedding@001",  # the client drops its images
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
def test_invalid_name_is_refused_without_loading(name: str) -> None:
    with pytest.raises(UnknownModel, match="MODEL"):
        load_embedder(name)


# Descriptions


def test_describe_embeds_ten_words_of_each_image(google: FakeGoogle) -> None:
    embedder, inputs = load_embedder(DESCRIBE_MODEL), make_noise_inputs(18)
    rows = embedder.encode(inputs)
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
            )  # the model answers with twelve
            assert np.isclose(rows, embed_content(content, 128), atol=1e-5).all(axis=1).sum() == 1


def test_refused_images_match_nothing_and_stop_nothing(
    google: FakeGoogle, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = make_noise_inputs(20)
    load_embedder(MODEL).encode(inputs)
    google.refused_jpegs = set(random.Random(1).sample(sorted(google.answered_jpegs), 9))
    rows = embed(load_embedder(DESCRIBE_MODEL), inputs)
    scores = rows @ rows.T - np.eye(20)
    assert scores.max() < 0.6  # of random vectors of descriptions and pixels
    assert (
        sum(int(number) for number in re.findall(r"refused to describe (\d+) of", caplog.text)) == 9
    )
    google.refused_jpegs = set(google.answered_jpegs)
    np.testing.assert_array_equal(
        embed(load_embedder(DESCRIBE_MODEL), inputs[:3]),
        embed(load_embedder(DESCRIBE_MODEL), inputs[:3]),
    )


def make_empty_description(reason: str) -> Fault:
    """Answer without a description."""
    return lambda handler, good: handler.send(
        json.dumps({"candidates": [{"finishReason": reason}]}).encode()
    )


@pytest.mark.parametrize(
    ("reason", "request_count"),
    [("SAFETY", 1), ("PROHIBITED_CONTENT", 1), ("STOP", 2), ("MAX_TOKENS", 2)],
)
def test_refused_description_is_final_and_empty_one_is_retried(
    google: FakeGoogle, reason: str, request_count: int
) -> None:
    google.faults.append(make_empty_description(reason))
    assert load_embedder(DESCRIBE_MODEL).encode(make_noise_inputs(1)).shape == (1, 128)
    assert sum(bool(request.jpegs) for request in google.requests) == request_count


def test_unfinished_description_is_not_continued(google: FakeGoogle) -> None:
    unfinished = {
        "finishReason": "CONTINUATION",
        "continuationToken": "bW9yZQ==",
        "content": {"parts": [{"text": "a red"}]},
    }
    google.faults.append(
        lambda handler, good: handler.send(json.dumps({"candidates": [unfinished]}).encode())
    )
    load_embedder(DESCRIBE_MODEL).encode(make_noise_inputs(1))
    assert len(google.requests) == 2  # as count_paid_calls says


def test_empty_descriptions_raise_service_unavailable(google: FakeGoogle) -> None:
    google.choose_fault = lambda: make_empty_description("STOP")
    with pytest.raises(
        ServiceUnavailable, match="unusable answer: no description of an image; tried 2 times"
    ):
        load_embedder(DESCRIBE_MODEL).encode(make_noise_inputs(1))
    assert len(google.requests) == 2


def test_failure_loses_only_the_descriptions_of_its_group(google: FakeGoogle) -> None:
    def refuse_request_30() -> Fault | None:
        return make_refusal(403) if len(google.requests) == 30 else None

    google.choose_fault = refuse_request_30
    with pytest.raises(ServiceUnavailable, match="403") as raised:
        load_embedder(DESCRIBE_MODEL).encode(make_noise_inputs(64))
    assert len(raised.value.rows) >= 24  # of the three other groups in flight
    assert len(raised.value.rows) % 8 == 0


def test_transient_faults_of_descriptions_are_retried(google: FakeGoogle) -> None:
    google.faults.extend([make_refusal(429), reset_connection, None, send_broken_json])
    inputs = make_noise_inputs(5)
    rows = load_embedder(DESCRIBE_MODEL).encode(inputs)
    np.testing.assert_allclose(rows, load_embedder(DESCRIBE_MODEL).encode(inputs), atol=1e-5)
