"""Consent to paid requests, and stores whose model is a paid one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline.embed.paid_calls import MAX_UNCONFIRMED_CALLS, PaidCallBudget
from pipeline.errors import PaidCallLimit
from tests.support.embedders import CountingEmbedder, PaidEmbedder
from tests.support.fake_google import (
    DESCRIBE_MODEL,
    MODEL,
    FakeGoogle,
    make_changed_answer,
    make_refusal,
)
from tests.support.images import draw_scene, save_image

Run = Callable[..., tuple[int, str, str]]


# Budgets


class GroupedEmbedder(PaidEmbedder):
    """An embedder that takes two requests for six images."""

    def count_paid_calls(self, image_count: int) -> int:
        return 2 * math.ceil(image_count / 6)


@pytest.fixture
def paid() -> PaidEmbedder:
    return PaidEmbedder(0)


@pytest.mark.parametrize(
    ("image_count", "noun", "batch_count", "text"),
    [
        (1, "file", 1, "up to 1 paid request for 1 file"),
        (2000, "image", 1, "up to 2,000 paid requests for 2,000 images"),
        (40, "copy", 3, "up to 120 paid requests for 120 copies"),
    ],
)
def test_estimate_names_requests_and_images(
    paid: PaidEmbedder, image_count: int, noun: str, batch_count: int, text: str
) -> None:
    estimate = PaidCallBudget(paid).estimate(image_count, noun, batch_count=batch_count)
    assert estimate.describe() == text


def test_consent_is_needed_only_beyond_the_unconfirmed_calls(paid: PaidEmbedder) -> None:
    budget = PaidCallBudget(paid)
    budget.require_consent(budget.estimate(MAX_UNCONFIRMED_CALLS), "wait")
    with pytest.raises(
        PaidCallLimit,
        match="^1,001 files take up to 1,001 paid requests to neardup-1; add --allow-cost to make"
        " them, or wait$",
    ):
        budget.require_consent(budget.estimate(MAX_UNCONFIRMED_CALLS + 1), "wait")


@pytest.mark.parametrize(("max_calls", "is_cost_accepted"), [(None, True), (7, False), (7, True)])
def test_consent_is_given_by_a_limit_or_by_accepting_the_cost(
    paid: PaidEmbedder, max_calls: int | None, is_cost_accepted: bool
) -> None:
    budget = PaidCallBudget(paid, max_calls, is_cost_accepted=is_cost_accepted)
    budget.require_consent(budget.estimate(10**6), "wait")


@pytest.mark.parametrize("is_cost_accepted", [False, True])
def test_consent_to_all_is_refused_beyond_the_limit(
    paid: PaidEmbedder, is_cost_accepted: bool
) -> None:
    budget = PaidCallBudget(paid, 5, is_cost_accepted=is_cost_accepted)
    budget.require_consent_to_all(budget.estimate(5), "wait")
    with pytest.raises(PaidCallLimit, match="--max-calls allows 5, so none was made; wait, or"):
        budget.require_consent_to_all(budget.estimate(6), "wait")


def test_local_embedder_never_needs_consent() -> None:
    budget = PaidCallBudget(CountingEmbedder(), 0)
    assert not budget.is_paid
    budget.require_consent_to_all(budget.estimate(10**6), "wait")
    assert budget.reserve(10**6) == 10**6


def test_reserve_stops_at_the_limit_over_several_batches() -> None:
    budget = PaidCallBudget(GroupedEmbedder(0), 5)
    assert budget.reserve(4) == 4  # two requests
    assert budget.reserve(13) == 6  # two more; the next would exceed the limit
    assert budget.reserve(1) == 0
    with pytest.raises(PaidCallLimit, match="^4 paid requests were made, as many as --max-calls"):
        budget.raise_limit_reached()


def test_limit_below_the_cost_of_one_photo_is_named() -> None:
    budget = PaidCallBudget(GroupedEmbedder(0), 1)
    assert budget.reserve(20) == 0
    with pytest.raises(
        PaidCallLimit, match="^1 image takes up to 2 paid requests to neardup-1, and --max-calls"
    ):
        budget.raise_limit_reached()


# Binding of a store


def test_ingest_with_an_unusable_model_does_not_bind_the_store(
    google: FakeGoogle, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    monkeypatch.delenv("GEMINI_API_KEY")
    assert run("ingest", photos, "--model", MODEL)[0] == 1
    code, _, err = run("ingest")  # without --model, the model named before applies
    assert code == 1
    assert "GEMINI_API_KEY" in err
    code, _, err = run("ingest", "--model", "neardup-1")
    assert code == 3, err  # because of the broken photo
    assert "5 images embedded" in err
    assert json.loads(run("status", "--json")[1])["model"] == "neardup-1"
    assert run("ingest", "--model", MODEL)[0] == 2
    assert not google.requests


def test_ingest_without_consent_does_not_bind_the_store(
    google: FakeGoogle, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 0)
    assert run("ingest", photos, "--model", MODEL)[0] == 7
    assert json.loads(run("status", "--json")[1])["model"] is None
    assert run("ingest")[0] == 0
    assert json.loads(run("status", "--json")[1])["model"] == "neardup-1"


# Consent


@pytest.fixture
def ingested_library(google: FakeGoogle, run: Run, photos: Path) -> FakeGoogle:
    """The server, after ingest of five textured images and a featureless one."""
    save_image(photos / "blank.png", Image.new("RGB", (50, 50)))
    assert run("ingest", photos, "--model", MODEL)[0] == 0
    google.requests.clear()
    return google


def test_check_sample_embeds_photos_again_in_one_request(
    ingested_library: FakeGoogle, run: Run
) -> None:
    code, out, err = run("check", "--sample", "9")
    assert code == 0
    embedded_again, verdict = out.splitlines()
    assert embedded_again == "5 images embedded again, lowest cosine with the stored vector 1.00000"
    assert verdict == "the store is sound"
    assert "up to 1 paid request for 6 images" in err
    assert [len(request.contents) for request in ingested_library.requests] == [5]
    assert run("check")[0] == 0
    assert len(ingested_library.requests) == 1


def test_check_sample_detects_a_changed_model(ingested_library: FakeGoogle, run: Run) -> None:
    ingested_library.faults.append(
        make_changed_answer(lambda good: good["embeddings"][2]["values"].reverse())
    )
    code, out, _ = run("check", "--sample", "9")
    assert code == 4
    assert len(re.findall(r"embedded again, its cosine with the stored vector is", out)) == 1


def test_check_sample_needs_consent_to_its_cost(
    ingested_library: FakeGoogle, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 0)
    code, _, err = run("check", "--sample", "9")
    assert code == 7
    assert f"6 images take up to 1 paid request to {MODEL}; add --allow-cost" in err
    assert not ingested_library.requests
    for number, options in enumerate(
        (["--allow-cost"], ["--max-calls", "1"], ["--allow-cost", "--max-calls", "1"]), 1
    ):
        assert run("check", "--sample", "9", *options)[0] == 0
        assert len(ingested_library.requests) == number


@pytest.mark.parametrize("options", [[], ["--allow-cost"]])
def test_check_sample_beyond_max_calls_sends_nothing(
    google: FakeGoogle, run: Run, photos: Path, options: list[str]
) -> None:
    assert run("ingest", photos, "--model", DESCRIBE_MODEL)[0] == 0
    google.requests.clear()
    code, _, err = run("check", "--sample", "5", "--max-calls", "5", *options)
    assert code == 7
    assert "5 images take up to 6 paid requests" in err
    assert "--max-calls allows 5, so none was made" in err
    assert not google.requests
    assert run("check", "--sample", "5", "--max-calls", "6", *options)[0] == 0
    assert len(google.requests) == 6


def test_check_sample_without_an_answer_exits_with_6(
    ingested_library: FakeGoogle, run: Run
) -> None:
    ingested_library.faults.append(make_refusal(403, "no more"))
    code, out, err = run("check", "--sample", "9")
    assert (code, out) == (6, "")
    assert "no more" in err


@pytest.mark.parametrize("command", ["query", "compare"])
def test_query_and_compare_need_consent_to_their_cost(
    ingested_library: FakeGoogle,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    request_count = [
        save_image(tmp_path / f"{number}.png", draw_scene(90 + number)) for number in range(7)
    ]
    code, _, err = run(command, *request_count)
    assert code == 0
    assert "up to 2 paid requests for 7 files" in err
    assert sum(len(request.contents) for request in ingested_library.requests) == 7
    ingested_library.requests.clear()
    monkeypatch.setattr("pipeline.embed.paid_calls.MAX_UNCONFIRMED_CALLS", 1)
    code, _, err = run(command, *request_count)
    assert code == 7
    assert "add --allow-cost to make them, or ask about fewer files" in err
    assert not ingested_library.requests
    assert run(command, *request_count, "--allow-cost")[0] == 0
