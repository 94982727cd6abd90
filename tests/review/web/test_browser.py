"""The pages in a real Chromium: a review by keyboard alone, and nothing but their own server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest
from blake3 import blake3

from indexes import Root, Store
from indexes.records import FileStat, Image, NewFile
from indexes.store import Batch
from pipeline import ingest_roots, load_embedder
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict, encode_verdict
from tests.support.chromium import explain_absence, find_chromium
from tests.support.images import draw_textured_image, encode_jpeg, save_image
from tests.support.review import RunningReview, serve_review
from tests.support.stores import SPACE, make_unit_rows

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api")

GROUP_COUNT = 32
SIZES = ((420, 300), (294, 210), (210, 150))  # of the photos of a group
# What is pressed in a group, and the state that it has then; None: it is listed no more.
ACTIONS = (
    (["a"], "accepted"),
    (["e"], "kept all"),
    (["n"], None),
    (["s"], "skipped"),
    (["m", "a"], "accepted"),  # another keeper, and accepted with it
    (["ArrowRight", "x", "j"], "rejected"),  # one of three: the group is still shown
    (["ArrowRight", "Shift+N", "s"], None),  # the other two are a group of their own
    (["a", "u", "s"], "skipped"),
    (["Enter", "f", "f", "2", "+", "Shift+ArrowLeft", "3", "e"], "kept all"),
)


def make_library(folder: Path) -> Path:
    """Make a store of GROUP_COUNT groups of three photos, with verdicts that nothing computed.

    Computing them would take longer than the tests.
    """
    rows = make_unit_rows(5, GROUP_COUNT * 4)[::4]
    (folder / "photos").mkdir()
    images, files = [], []
    pairs = list[tuple[bytes, bytes]]()
    for number in range(GROUP_COUNT):
        drawn, hashes = draw_textured_image(number, SIZES[0]), []
        for size in SIZES:
            data = encode_jpeg(drawn.resize(size), 90)
            hash_ = blake3(data).digest()
            image = Image(hash_, blake3(hash_).digest(), *size, "JPEG", len(data), False)
            path = folder / "photos" / f"{number:02} {size[0]}.jpg"
            path.write_bytes(data)
            images.append((image, rows[number]))
            files.append(NewFile(str(path), FileStat.from_os_stat(path.stat()), hash_))
            hashes.append(hash_)
        pairs += combinations(hashes, 2)
    with Store(folder / "store", write=True) as store:
        store.bind(SPACE, "test")
        store.add_roots([Root(str(folder / "photos"))])
        store.add(Batch(images, files))
        list(store.join())
        ids = store.catalog.images.get_ids([image.hash for image, _ in images])
        same = Verdict(Relation.SAME_PICTURE, 50, 50, 1.0, homography=(1, 0, 0, 0, 1, 0, 0, 0, 1))
        store.save_verdicts(encode_verdict(ids[one], ids[other], same) for one, other in pairs)
    return folder / "store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, quick_ingest: None) -> Path:
    if reason := explain_absence():
        pytest.skip(reason)
    return make_library(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def chromium(store: Path) -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page in a browser of its own, and what it did beside showing it."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self) -> None:
        page = self.page
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self._add_line(line.type, line.text))
        page.on("request", lambda request: self._add_request(request.url))

    def _add_line(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(text)

    def _add_request(self, url: str) -> None:
        if not url.startswith(f"{self.address}/"):
            self.foreign.append(url)

    def press(self, *keys: str) -> None:
        """Press keys, each after what the one before did is done."""
        for key in keys:
            self.page.keyboard.press(key)
            self.page.wait_for_selector("body:not([aria-busy])")

    @property
    def group(self) -> str | None:
        """The id of the group that is shown; None on other pages."""
        found = self.page.evaluate("document.querySelector('[data-page]').dataset.id ?? null")
        assert found is None or isinstance(found, str)
        return found

    @property
    def announced(self) -> str:
        """The text that was announced last."""
        self.page.wait_for_selector("#announcer:not(:empty)")
        return self.page.inner_text("#announcer")

    def evaluate(self, script: str) -> Any:  # noqa: ANN401 - JSON
        return self.page.evaluate(script)


@contextmanager
def visit(running: RunningReview, chromium: Browser, **options: Any) -> Iterator[Visit]:
    """Open the link in a browser that knows nothing; fail for errors and foreign requests."""
    with chromium.new_context(**options) as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        visit = Visit(page, running.address)
        visit.watch()
        page.goto(f"{running.address}/?token={running.credentials.link_token}")
        yield visit
        assert visit.errors == []
        assert visit.foreign == []


def load_states(running: RunningReview) -> dict[str, str | None]:
    """Return the state of each listed group by its id."""
    with running.open_program() as program:
        groups = program.get("/api/v1/groups", params={"limit": 200}).json()["groups"]
    return {group["id"]: group["state"] for group in groups}


def test_review_by_keyboard_through_30_groups(store: Path, chromium: Browser) -> None:
    with serve_review(store) as running, visit(running, chromium) as review:
        states = dict.fromkeys(load_states(running))
        assert len(states) == GROUP_COUNT
        review.press("j", "Enter")
        review.page.wait_for_selector("[data-page=group]")
        for number, first in enumerate(list(states)[:30]):
            keys, state = ACTIONS[number % len(ACTIONS)]
            assert review.group == first
            for key in keys:
                review.press(key)
                if key == "Shift+N":
                    assert "not duplicates" in review.announced
                    states[str(review.group)] = "skipped"
            if state is None:
                del states[first]
            else:
                states[first] = state
            if keys[0] == "Enter":  # the next group is compared at once
                assert review.page.is_visible("#compare")
                review.press("Escape")
            assert review.page.is_hidden("#compare")
        assert load_states(running) == states
        text = review.page.inner_text("#progress")
        place = review.group
        reviewed, separated = 30 + 3, 3  # what is left of a group that was separated is another one
        assert text.strip() == f"{reviewed} of {GROUP_COUNT + separated} reviewed"

        review.press("u")  # the last choice, and its group is shown again
        assert "Undone" in review.announced
        assert load_states(running)[str(review.group)] is None
        text = review.page.inner_text("#progress")
        assert text.strip() == f"{reviewed - 1} of {GROUP_COUNT + separated} reviewed"
        review.press("j")
        assert review.group == place
        review.page.reload()
        assert review.group == place
    with serve_review(store) as running, visit(running, chromium) as review:
        assert review.group == place  # after a restart, in another browser
        review.press(*"jjjjjj")  # to the groups that were left of others
        assert review.announced == "This is the last group"
        review.press("g")
        review.page.wait_for_selector("[data-page=groups]")


def test_pictures_are_compared_by_keys(store: Path, chromium: Browser) -> None:
    with serve_review(store) as running, visit(running, chromium) as review:
        states = load_states(running)
        group = next(id_ for id_, state in states.items() if state is None)
        review.page.goto(f"{running.address}/groups/{group}")
        review.press("ArrowRight", "c")
        mode = "document.getElementById('compare').dataset.mode"
        is_hidden = "document.querySelector('.stage[data-side=right]').hidden"
        assert review.evaluate(mode) == "side"
        assert review.page.inner_text("#turn-value") == "2 of 2"
        review.press("ArrowLeft")
        assert review.page.inner_text("#turn-value") == "1 of 2"
        review.press("f")
        assert (review.evaluate(mode), review.evaluate(is_hidden)) == ("flicker", False)
        review.press("f")
        assert review.evaluate(is_hidden) is True
        review.press("2", ".")
        assert review.evaluate(mode) == "split"
        assert review.page.input_value("#split") == "54"
        transforms = "[...document.querySelectorAll('.stage img')].map(i => i.style.transform)"
        review.press("1")
        before = review.evaluate(transforms)
        review.press("+", "+")
        zoomed = review.evaluate(transforms)
        review.press("Shift+ArrowRight")
        panned = review.evaluate(transforms)
        assert all(len({a, b, c}) == 3 for a, b, c in zip(before, zoomed, panned, strict=True))
        review.press("0")
        assert review.evaluate(transforms) == before
        review.press("ArrowRight", "4")  # the smaller one has other pixels
        review.page.wait_for_selector(".stage[data-side=left] img[src$='view=tiles']")
        review.press("r")
        assert "resolution" in review.announced
        review.press("?")
        review.page.wait_for_selector("#help[open]")
        for _ in range(4):  # the focus stays in the dialog, or goes to the browser's own bar
            review.page.keyboard.press("Tab")
            assert review.evaluate("document.activeElement.closest('#help, body') !== null")
            assert not review.evaluate("document.activeElement.matches('main *')")
        review.page.keyboard.press("Escape")
        assert not review.evaluate("document.getElementById('help').open")
        assert review.page.is_visible("#compare")  # only the dialog was closed
        review.page.wait_for_load_state("networkidle")


def test_pictures_are_aligned_by_matrices(store: Path, chromium: Browser) -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 3, 3)) + 3 * np.eye(3)
    point = np.array([0.3, 0.6])
    script = """async ([a, b, point]) => {
        const m = await import("/static/matrix.js");
        const css = new DOMMatrix(m.makeCss(a)).transformPoint(new DOMPoint(...point));
        return {
            product: m.multiply(a, b), inverse: m.invert(a), mapped: m.mapPoint(a, point),
            css: [css.x / css.w, css.y / css.w],
            scale: m.measureScale([2, 0, 5, 0, 8, 1, 0, 0, 1], point),
            singular: m.invert([1, 2, 3, 2, 4, 6, 0, 0, 1]),
        }
    }"""
    with serve_review(store) as running, visit(running, chromium) as review:
        found = review.page.evaluate(
            script, [first.ravel().tolist(), second.ravel().tolist(), [*point]]
        )
    mapped = first @ [*point, 1]
    np.testing.assert_allclose(np.reshape(found["product"], (3, 3)), first @ second)
    np.testing.assert_allclose(np.reshape(found["inverse"], (3, 3)), np.linalg.inv(first))
    np.testing.assert_allclose(found["mapped"], mapped[:2] / mapped[2])
    np.testing.assert_allclose(found["css"], mapped[:2] / mapped[2])
    assert found["scale"] == pytest.approx(4)  # the root of the area of 2 x 8
    assert found["singular"] == np.eye(3).ravel().tolist()


def test_bulk_choice_asks_and_touches_only_the_filter(store: Path, chromium: Browser) -> None:
    with serve_review(store) as running, visit(running, chromium) as review:
        before = load_states(running)
        with running.open_program() as program:
            groups = program.get("/api/v1/groups?undecided=1").json()["groups"]
        name = Path(groups[-1]["group"]["keeper"]["path"]).name
        review.page.goto(f"{running.address}/groups?name={quote(name)}&undecided=1")
        (group,) = review.evaluate("[...document.querySelectorAll('.row')].map(r => r.dataset.id)")
        review.page.focus(".bulk summary")
        review.press("Enter", "Tab", "Enter")
        review.page.wait_for_selector("#question[open]")
        assert "1 group of this filter" in review.page.inner_text("#question-text")
        review.press("Escape")
        assert load_states(running) == before
        review.page.focus("[data-bulk=accept]")
        review.page.keyboard.press("Enter")
        review.page.wait_for_selector("#question[open]")
        review.press("Tab", "Enter")
        assert "Done for 1 groups" in review.announced
        assert load_states(running) == before | {group: "accepted"}


def test_read_only_page_has_no_action(store: Path, chromium: Browser) -> None:
    with serve_review(store, is_read_only=True) as running, visit(running, chromium) as review:
        before = load_states(running)
        review.press("j", "Enter")
        review.page.wait_for_selector("[data-page=group]")
        shown = review.group
        review.press("a", "x", "e", "n", "s", "m", "u")
        assert review.group == shown
        assert review.page.locator("[data-choice], [data-command=undo]").count() == 0
        assert "Plan" not in review.page.inner_text(".top")
        review.press("c", "f", "Escape", "j")
        assert review.group != shown
        assert load_states(running) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(store: Path, chromium: Browser, scheme: str) -> None:
    size = {"width": 400, "height": 800}
    with (
        serve_review(store) as running,
        visit(running, chromium, viewport=size, color_scheme=scheme) as review,
    ):
        group = next(iter(load_states(running)))
        for address in ("/groups?name=0", f"/groups/{group}", "/plan"):
            review.page.goto(running.address + address)
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert review.evaluate(wide) <= 0, address


def test_plan_is_applied_and_undone_on_the_page(
    tmp_path: Path, chromium: Browser, quick_ingest: None
) -> None:
    image = draw_textured_image(7, SIZES[0])
    save_image(tmp_path / "photos" / "a.jpg", image, quality=92)
    copy = tmp_path / "photos" / "b.jpg"
    copy.write_bytes((tmp_path / "photos" / "a.jpg").read_bytes())
    with Store(tmp_path / "store", write=True) as store:
        for _ in ingest_roots([Root(str(tmp_path / "photos"))], store, load_embedder()):
            pass
    with serve_review(tmp_path / "store") as running, visit(running, chromium) as review:
        review.press("j", "Enter")
        review.page.wait_for_selector("[data-page=group]")
        review.press("a")
        review.page.wait_for_selector("[data-page=groups]")  # it was the last one
        review.page.goto(f"{running.address}/plan")
        review.page.click("text=Make the plan")
        review.page.wait_for_selector("#apply-form")
        assert review.page.is_disabled("#apply-form button")
        review.page.fill("#apply-form input", "1")
        review.press("Enter")
        review.page.wait_for_selector("text=1 file done")
        assert not copy.exists()
        review.page.click("text=Undo this run")
        review.page.wait_for_selector("#question[open]")
        review.page.click("#question-yes")
        review.page.wait_for_selector("text=1 file back in place")
        assert copy.exists()
