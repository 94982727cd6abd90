"""Fixtures for embedders that Google computes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pipeline.embed.backends import google_client
from tests.support.fake_google import API_KEY, FakeGoogle


@pytest.fixture
def backoffs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between attempts, recorded instead of waiting."""
    backoffs_so_far: list[float] = []

    async def sleep(seconds: float) -> None:
        backoffs_so_far.append(seconds)

    monkeypatch.setattr(google_client, "sleep", sleep)
    return backoffs_so_far


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, backoffs: list[float]) -> Iterator[FakeGoogle]:
    """A server that the environment names, with a key."""
    pytest.importorskip("google.genai", reason="the extra google is not installed")
    for name in os.environ:
        if name.upper().startswith(("GOOGLE", "GEMINI")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with FakeGoogle().serve() as server:
        monkeypatch.setenv("GEMINI_API_KEY", API_KEY)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        yield server
