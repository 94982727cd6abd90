"""Stores and processes that requests share."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import pytest

from indexes import Store
from indexes.errors import StoreMissing
from pipeline.errors import ReviewFailed
from pipeline.review.listing import Listing
from pipeline.review.web.problems import Problem
from pipeline.review.web.stores import SharedDecoders, StorePool
from tests.support.review import serve_review


def test_stores_are_kept_while_there_are_requests(tmp_path: Path) -> None:
    pool = StorePool(tmp_path / "store")
    with pytest.raises(StoreMissing), pool.use():
        pass
    with Store(tmp_path / "store", write=True):
        pass
    with pool.use() as first, pool.use() as second:
        assert first is not second
    pool.close_idle(unless_used=True)
    with pool.use() as again:
        assert again in (first, second)
    pool.close_idle(unless_used=True)
    pool.close_idle(unless_used=True)
    with pool.use() as opened:
        assert opened not in (first, second)
    with pytest.raises(ZeroDivisionError), pool.use() as broken:
        _ = 1 // 0
    with pool.use() as opened:
        assert opened is not broken
    pool.close_idle()


def test_processes_are_replaced_after_an_error_in_their_midst() -> None:
    decoders = SharedDecoders()
    with decoders.use() as first, decoders.use() as same:
        assert same is first
    refused = Problem(HTTPStatus.NOT_FOUND, "")
    with pytest.raises(Problem), decoders.use() as same:
        raise refused
    assert same is first
    with decoders.use() as other, pytest.raises(ZeroDivisionError), decoders.use() as same:
        _ = 1 // 0
    assert same is first is other
    with decoders.use() as newer:
        assert newer is not first
    decoders.close()
    with pytest.raises(Problem, match="stopping"), decoders.use():
        pass


def test_reason_why_there_are_no_groups_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(listing: Listing) -> bool:
        raise ReviewFailed("the child <ended>")

    monkeypatch.setattr(Listing, "refresh", fail)
    with Store(tmp_path / "store", write=True):
        pass
    with serve_review(tmp_path / "store", with_listing=False) as running:
        with running.open_program() as program, running.open_browser() as browser:
            answers = [program.get("/api/v1/groups")]
            while "ended" not in answers[-1].text:  # until the first try has failed
                answers.append(program.get("/api/v1/groups"))
            assert {answer.status_code for answer in answers} == {503}
            assert answers[-1].json()["detail"] == "the child <ended>"
            assert "the child &lt;ended&gt;" in browser.get("/").text
