"""Screens and templates, drawn and rendered: each shows the photo where its layout says."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.generators import browser
from scripts.generators.browser import Browser, BrowserError, is_available, render_layout
from scripts.generators.canvas import Color
from scripts.generators.desktop_screens import ARTICLE_PHOTO_SHARE
from scripts.generators.drawing import draw_layout, wrap
from scripts.generators.layout import Code, Layout, Panel, Photo, Render, Text
from scripts.generators.screens import SCREENS
from scripts.generators.templates import TEMPLATES

# No page has this color.
MARKER: Color = (255, 0, 255)
PHOTOS = [Image.new("RGB", (300, 200), MARKER), Image.new("RGB", (90, 90), (120, 130, 140))]

needs_browser = pytest.mark.skipif(
    not any(map(shutil.which, browser.EXECUTABLES)), reason="no Chromium is installed here"
)
RENDERERS = [draw_layout, pytest.param(render_layout, marks=needs_browser)]


def measure_marked(page: Image.Image) -> float:
    """Share of the pixels that have the color of the photo."""
    steps = np.abs(np.asarray(page, np.int16) - np.array(MARKER))
    return float((steps.max(axis=2) <= 6).mean())


def skip_without(render: Render) -> None:
    """Skip if pages are to be rendered by a Chromium that does not run here."""
    if render is render_layout and not is_available():
        pytest.skip("the Chromium that is installed here does not run")


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("name", SCREENS)
def test_screen_shows_the_photo(name: str, render: Render) -> None:
    skip_without(render)
    for seed in range(3):
        layout = SCREENS[name](random.Random(seed), random.Random(seed), 1.5)
        page = render(layout, PHOTOS)
        assert page.size == layout.size
        assert 0.02 <= measure_marked(page) <= 1
        assert render(layout, PHOTOS).tobytes() == page.tobytes()


@pytest.mark.parametrize("render", RENDERERS)
def test_article_gives_the_photo_14_percent_of_its_area(render: Render) -> None:
    skip_without(render)
    layout = SCREENS["article"](random.Random(1), random.Random(1), 1.5)
    assert measure_marked(render(layout, PHOTOS)) == pytest.approx(ARTICLE_PHOTO_SHARE, abs=0.01)


@pytest.mark.parametrize("render", RENDERERS)
def test_elements_are_where_their_places_are(render: Render) -> None:
    skip_without(render)
    elements = (
        Panel((0, 0, 100, 50), (200, 0, 0)),
        Panel((110, 0, 40, 40), (0, 200, 0), radius=20),
        Photo((0, 60, 100, 100)),
        Photo((110, 60, 60, 80), fit="contain"),
        Code((0, 170, 80, 80), 1),
        Text((100, 170, 100, 30), "<b>&", 20, (0, 0, 0)),
    )
    page = render(Layout((200, 260), (255, 255, 255), elements), PHOTOS)
    assert page.getpixel((50, 25)) == (200, 0, 0)
    assert page.getpixel((105, 25)) == (255, 255, 255)
    assert page.getpixel((130, 20)) == (0, 200, 0)
    assert page.getpixel((111, 1)) == (255, 255, 255)  # a round corner
    assert page.getpixel((50, 110)) == MARKER
    assert page.getpixel((140, 100)) == MARKER
    assert page.getpixel((140, 65)) == (255, 255, 255)  # above the photo, which is contained
    code = np.asarray(page.crop((0, 170, 80, 250)).convert("L"))
    assert 0.2 < (code < 128).mean() < 0.8
    assert np.asarray(page.crop((100, 170, 200, 200)).convert("L")).min() < 128


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_keeps_its_size_and_changes_its_filling(name: str) -> None:
    def fill(words: int) -> Image.Image:
        return draw_layout(TEMPLATES[name](random.Random(1), random.Random(words)), PHOTOS)

    assert fill(1).tobytes() == fill(1).tobytes()
    assert fill(1).tobytes() != fill(2).tobytes()
    assert fill(1).width == fill(2).width


def test_lines_are_wrapped_at_their_width_and_long_words_are_cut() -> None:
    assert wrap("aa bb cc\nd", 5, len) == ["aa bb", "cc", "d"]
    assert wrap("abcdefgh ij", 3, len) == ["abc", "def", "gh", "ij"]


def test_browser_that_is_not_installed_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "EXECUTABLES", ("a-browser-that-is-not-installed",))
    monkeypatch.setattr(browser, "_browsers", {})
    with pytest.raises(BrowserError, match="no Chromium is installed"):
        browser.start_browser()


def test_browser_that_ends_at_once_raises() -> None:
    with pytest.raises(BrowserError, match="has ended"):
        Browser("/bin/true")


def test_browser_that_does_not_answer_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec cat <&3 >/dev/null\n")
    silent.chmod(0o755)
    monkeypatch.setattr(browser, "MAX_ANSWER_SECONDS", 0.1)
    with pytest.raises(BrowserError, match="no answer"):
        Browser(str(silent))


@needs_browser
def test_photos_of_a_page_may_be_larger_than_a_pipe() -> None:
    skip_without(render_layout)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (600, 800, 3), dtype=np.uint8))
    page = render_layout(Layout((800, 600), (0, 0, 0), (Photo((0, 0, 800, 600)),)), [noise])
    assert page.tobytes() == noise.tobytes()


@needs_browser
def test_browser_that_has_ended_is_replaced() -> None:
    skip_without(render_layout)
    layout = Layout((40, 30), (1, 2, 3), ())
    page, killed = render_layout(layout, PHOTOS), browser.start_browser()
    os.kill(killed._process, signal.SIGKILL)
    os.waitid(os.P_PID, killed._process, os.WEXITED | os.WNOWAIT)
    assert not killed.is_running
    assert render_layout(layout, PHOTOS).tobytes() == page.tobytes()
    assert browser.start_browser() is not killed


@needs_browser
def test_browser_that_fails_is_closed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without(render_layout)
    layout, failed = Layout((40, 30), (1, 2, 3), ()), browser.start_browser()
    with monkeypatch.context() as patch, pytest.raises(BrowserError, match="no answer"):
        patch.setattr(browser, "MAX_ANSWER_SECONDS", 0.0)
        render_layout(layout, PHOTOS)
    assert not failed.is_running
    assert render_layout(layout, PHOTOS).size == layout.size


def render_in(folder: str) -> None:
    """Render a page in a worker whose temporary files are in a folder."""
    tempfile.tempdir = folder
    render_layout(Layout((40, 30), (1, 2, 3), ()), [])
    assert list(Path(folder).iterdir())


@needs_browser
def test_worker_that_ends_leaves_no_browser_behind(tmp_path: Path) -> None:
    skip_without(render_layout)
    worker = multiprocessing.get_context("spawn").Process(target=render_in, args=(str(tmp_path),))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert not list(tmp_path.iterdir())
