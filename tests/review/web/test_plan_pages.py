"""Plans on their pages: made of what was accepted, confirmed by number, applied, undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexes import Store
from pipeline.actions.outcome import Outcome, Status
from pipeline.review.web import runs
from tests.review.web.conftest import Library, make_library
from tests.review.web.test_pages import read_page
from tests.support.review import RunningReview, serve_review

ALL_COPIES = {
    "relations": ["identical bytes", "identical pixels", "same picture", "derived"],
    "min_confidence": 0,
}


@pytest.fixture
def own_library(library: Library, tmp_path: Path) -> Library:
    """A library of its own for a test that moves files, or decides on them."""
    return make_library(tmp_path)


@pytest.fixture
def own_browser(own_library: Library) -> Iterator[httpx.Client]:
    with serve_review(own_library.store) as running, running.open_browser() as browser:
        yield browser


@pytest.fixture
def browser(review: RunningReview) -> Iterator[httpx.Client]:
    with review.open_browser() as browser:
        yield browser


def accept_all(browser: httpx.Client) -> None:
    groups = browser.get("/api/v1/groups").json()["groups"]
    for group in groups:
        address = f"/api/v1/groups/{group['id']}/choices"
        assert browser.post(address, json={"choice": "accept"}).is_success


def make_plan(browser: httpx.Client, **options: Any) -> str:
    """Accept all groups and make a plan of them; returns the address of its page."""
    accept_all(browser)
    answer = browser.post("/plan", json=ALL_COPIES | options)
    assert answer.status_code == 200, answer.text
    address: str = answer.json()["address"]
    return address


def wait(browser: httpx.Client) -> dict[str, Any]:
    """Ask for the progress until the run is over."""
    while True:
        progress: dict[str, Any] = browser.get("/runs/current").json()
        if not progress["is_running"]:
            return progress


def list_photos(library: Library) -> set[str]:
    files = library.photos.rglob("*.jpg")
    return {file.name for file in files if ".neardup" not in str(file)}


def test_nothing_accepted_leads_to_the_groups(browser: httpx.Client) -> None:
    page = read_page(browser.get("/plan").content)
    assert "Nothing is accepted yet" in page.text
    assert "/groups?undecided=1" in page.addresses


def test_plan_is_shown_then_applied_and_undone(
    own_library: Library, own_browser: httpx.Client
) -> None:
    library, browser = own_library, own_browser
    before = list_photos(library)
    address = make_plan(browser)
    assert "You accepted 2 groups" in read_page(browser.get("/plan").content).text
    page = read_page(browser.get(address).content)
    assert "3 files" in page.text
    assert "Type 3, the number of files" in page.text
    for name in ("a small.jpg", "a crop.jpg", "b copy.jpg"):
        assert name in page.text
    assert list_photos(library) == before  # nothing happened yet

    refused = browser.post(f"{address}/apply", json={"files": 4})
    assert refused.status_code == 409
    assert refused.json()["detail"] == "the plan acts on 3 files, not on 4"
    assert browser.post(f"{address}/apply", json={}).status_code == 400
    assert list_photos(library) == before

    assert browser.post(f"{address}/apply", json={"files": 3}).is_success
    progress = wait(browser)
    assert (progress["moved"], progress["total"], progress["error"]) == (3, 3, None)
    assert len(list_photos(library)) == len(before) - 3
    assert browser.get("/api/v1/groups").json()["count"]["groups"] == 0  # of one file are none
    with Store(library.store) as store:
        assert store.catalog.files.get_counts().files == len(before) - 3
    run = address.removeprefix("/plan/")
    page = read_page(browser.get(address).content)
    assert "3 files done" in page.text
    assert "Type 3" not in page.text
    page = read_page(browser.get("/plan").content)
    assert "Undo 3 files" in page.text
    assert "Nothing is accepted yet" in page.text  # the accepted groups are none any more

    assert browser.post(f"/runs/{run}/undo").is_success
    assert wait(browser)["moved"] == 3
    assert list_photos(library) == before
    page = read_page(browser.get("/plan").content)
    assert "3 files back in place" in page.text
    assert "3 undone" in page.text
    assert "Undo 3 files" not in page.text


def test_options_narrow_the_plan_and_the_rest_is_explained(browser: httpx.Client) -> None:
    page = read_page(browser.get(make_plan(browser, relations=["identical bytes"])).content)
    assert "1 file, " in page.text
    assert "Left alone, and why" in page.text
    assert "a small.jpg" in page.text
    assert "same picture: not among the relations asked for" in page.text


def test_plan_without_a_file_has_nothing_to_apply(browser: httpx.Client) -> None:
    page = read_page(browser.get(make_plan(browser, relations=["identical pixels"])).content)
    assert "This plan has no file to act on" in page.text
    assert "the number of files, to apply" not in page.text


def test_groups_that_changed_since_are_named(
    own_library: Library, own_browser: httpx.Client
) -> None:
    accept_all(own_browser)
    decision = {"kind": "keep", "paths": [str(own_library.photos / "a small.jpg")]}
    assert own_browser.post("/api/v1/decisions", json=decision).is_success
    answer = own_browser.post("/plan", json=ALL_COPIES)  # lists the groups again before
    page = read_page(own_browser.get(answer.json()["address"]).content)
    assert "1 accepted group is not in it" in page.text


@pytest.mark.parametrize(
    ("options", "status", "detail"),
    [
        ({"relations": ["unrelated"]}, 400, "relations are some of"),
        ({"min_confidence": None}, 409, "need --min-confidence"),
        ({"action": "hardlink"}, 409, "only for identical bytes"),
        ({"action": "move"}, 409, "belong together"),
        ({"unknown": 1}, 400, "'unknown' is no field"),
    ],
)
def test_unusable_options_are_explained(
    browser: httpx.Client, options: dict[str, Any], status: int, detail: str
) -> None:
    answer = browser.post("/plan", json=ALL_COPIES | options)
    assert answer.status_code == status
    assert detail in answer.json()["detail"]


def test_unknown_plans_and_runs_are_not_found(browser: httpx.Client) -> None:
    for name in ("20260101000000-00000000", "..%2f..%2fcatalog.db", "x"):
        assert browser.get(f"/plan/{name}").status_code == 404
        assert browser.post(f"/plan/{name}/apply", json={"files": 0}).status_code == 404
        assert browser.post(f"/runs/{name}/undo").status_code == 404


def test_only_one_run_goes_on_and_files_that_stay_are_named(
    browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_started, may_end = threading.Event(), threading.Event()

    def apply(*arguments: object) -> Iterator[Outcome]:
        yield Outcome("/p/a.jpg", Status.DONE)
        has_started.set()
        may_end.wait()
        yield Outcome("/p/<b>.jpg", Status.LEFT, "it is open")

    monkeypatch.setattr(runs, "apply_plan", apply)
    address = make_plan(browser)
    try:
        assert browser.post(f"{address}/apply", json={"files": 3}).is_success
        has_started.wait()
        second = browser.post(f"{address}/apply", json={"files": 3})
        assert (second.status_code, second.json()["detail"]) == (
            409,
            "another run is going on; wait for its end",
        )
        assert "data-running" in read_page(browser.get("/plan").content).attributes
    finally:
        may_end.set()
    assert wait(browser)["problem_count"] == 1
    page = read_page(browser.get(address).content)
    assert "1 file done" in page.text
    assert "/p/<b>.jpg" in page.text
    assert "left alone: it is open" in page.text


def test_server_that_stops_ends_the_run_after_a_file(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted, may_go_on = list[str](), threading.Event()

    def apply(*arguments: object) -> Iterator[Outcome]:
        for number in range(100):
            acted.append(str(number))
            yield Outcome(f"/p/{number}", Status.DONE)
            may_go_on.wait()

    monkeypatch.setattr(runs, "apply_plan", apply)
    with serve_review(library.store) as running, running.open_browser() as browser:
        address = make_plan(browser)
        assert browser.post(f"{address}/apply", json={"files": 3}).is_success
        while not acted:
            browser.get("/runs/current")
        stop = runs.Runs.close

        def close(run: runs.Runs) -> None:
            run._is_stopping.set()
            may_go_on.set()
            stop(run)

        monkeypatch.setattr(runs.Runs, "close", close)
    assert len(acted) <= 2


def test_changes_need_the_header_of_the_page(review: RunningReview) -> None:
    with review.open_browser() as browser:
        address = make_plan(browser)
        del browser.headers["X-Neardup-Csrf"]
        for path in ("/plan", f"{address}/apply", "/runs/last/undo"):
            assert browser.post(path, json={"files": 3}).status_code == 403
        with review.open_program() as program:
            assert program.post(f"{address}/apply", json={"files": 3}).status_code == 401
