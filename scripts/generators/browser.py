"""Render layouts as web pages in Chromium, where it is installed, without a network.

One Chromium renders all pages; commands go over a pipe in the DevTools protocol.
"""

from __future__ import annotations

import base64
import fcntl
import functools
import html
import io
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.util import Finalize
from typing import Any

from PIL import Image

from scripts.generators.canvas import Color
from scripts.generators.drawing import LINE_HEIGHT, make_code
from scripts.generators.layout import Code, Element, Layout, Panel, Photo, Text

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-crash-reporter",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--no-first-run",
    "about:blank",
)

# A page takes .1 to .3 seconds, the start of Chromium 1 to 5; one that hangs takes for ever.
MAX_ANSWER_SECONDS = 60.0

# Websites shrink photos to about this; the URL of 12 megapixels would have 50 MB.
MAX_PHOTO_SIDE_PX = 1600

READ_BYTES = 1 << 20

# Chromium reads file 3 and writes file 4; the ends of pipes must not be these.
FIRST_FREE_FILE = 10

WAIT_FOR_PHOTOS = "Promise.all([...document.images].map(image => image.decode()))"
PAGE = """<!doctype html><meta charset="utf-8"><style>
* {{ box-sizing: border-box; position: absolute; margin: 0 }}
html, body {{ inset: 0; overflow: hidden; background: {ground} }}
div {{ overflow: hidden; line-height: {line_height}; white-space: pre-line }}
</style><body>{body}"""


class BrowserError(Exception):
    """Chromium does not start, ended, or does not answer."""


def open_pipe() -> tuple[int, int]:
    """Open a pipe whose ends, to read and to write, are none of the files of Chromium."""
    ends = os.pipe()
    reader, writer = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FILE) for end in ends)
    for end in ends:
        os.close(end)
    return reader, writer


class Browser:
    """A running Chromium with one tab. close() ends all its processes."""

    def __init__(self, executable: str) -> None:
        """Start a Chromium. Raises BrowserError if it does not answer."""
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._to_browser = open_pipe()
        self._from_browser, theirs_out = open_pipe()
        self._process = os.posix_spawn(
            executable,
            [executable, f"--user-data-dir={self._home.name}/profile", *OPTIONS],
            os.environ | {"HOME": self._home.name},
            file_actions=[
                *((os.POSIX_SPAWN_OPEN, file, os.devnull, os.O_RDWR, 0) for file in (0, 1, 2)),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            ],
            setsid=True,
        )
        os.set_blocking(self._to_browser, False)  # a write returns what fits into the pipe
        os.close(theirs_in)
        os.close(theirs_out)
        self._received = b""
        self._number = 0
        self._session: str | None = None
        self._is_closed = False
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            self._frame = self._call("Page.getFrameTree")["frameTree"]["frame"]["id"]
        except BrowserError:
            self.close()
            raise

    def _read_message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._from_browser], [], [], left)[0]:
                raise BrowserError(f"no answer within {MAX_ANSWER_SECONDS:.0f} seconds")
            part = os.read(self._from_browser, READ_BYTES)
            if not part:
                raise BrowserError("Chromium has ended")
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def _write_message(self, message: bytes, deadline: float) -> None:
        rest = memoryview(message)
        while rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([], [self._to_browser], [], left)[1]:
                raise BrowserError(f"reads nothing for {MAX_ANSWER_SECONDS:.0f} seconds")
            try:
                rest = rest[os.write(self._to_browser, rest) :]
            except BrokenPipeError as error:
                raise BrowserError("Chromium has ended") from error

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        request: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            request["sessionId"] = self._session
        deadline = time.monotonic() + MAX_ANSWER_SECONDS
        self._write_message(json.dumps(request).encode() + b"\0", deadline)
        while True:
            answer = self._read_message(deadline)
            if answer.get("id") != self._number:
                continue  # an event, of no interest here
            if "error" in answer:
                raise BrowserError(f"{method}: {answer['error']}")
            result: dict[str, Any] = answer["result"]
            return result

    @property
    def is_running(self) -> bool:
        """True unless Chromium has ended, or was closed."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT  # close() waits for it, too
        return not self._is_closed and os.waitid(os.P_PID, self._process, options) is None

    def render(self, page: str, size: tuple[int, int]) -> Image.Image:
        """Render HTML in a window of a size (width, height); an RGB image.

        Raises BrowserError and closes Chromium if it fails: it may have read half of a message.
        """
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        try:
            self._call("Emulation.setDeviceMetricsOverride", **metrics)
            self._call("Page.setDocumentContent", frameId=self._frame, html=page)
            self._call("Runtime.evaluate", expression=WAIT_FOR_PHOTOS, awaitPromise=True)
            shot = self._call("Page.captureScreenshot", format="png")
        except BrowserError:
            self.close()
            raise
        return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")

    def close(self) -> None:
        """End Chromium and all processes that it started, unless that was done."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            os.killpg(self._process, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self._process, 0)
        os.close(self._to_browser)
        os.close(self._from_browser)
        self._home.cleanup()


_browsers: dict[int, Browser] = {}  # by the id of the process that started each


def start_browser() -> Browser:
    """Return the Chromium of this process; start one if none runs. Raises BrowserError.

    It lives as long as the process. One that was forked needs a Chromium of its own: two cannot
    share the pipe.
    """
    browser = _browsers.get(os.getpid())
    if browser and browser.is_running:
        return browser
    if browser:
        browser.close()
    executable = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        raise BrowserError("no Chromium is installed here")
    browser = _browsers[os.getpid()] = Browser(executable)
    # Workers of multiprocessing end without atexit.
    Finalize(None, browser.close, exitpriority=0)
    return browser


@functools.cache
def is_available() -> bool:
    """Find out if pages can be rendered here."""
    try:
        start_browser().render("", (8, 8))
    except (BrowserError, OSError):
        return False
    return True


def format_color(color: Color) -> str:
    """Format a color for CSS."""
    return f"rgb({color[0]},{color[1]},{color[2]})"


def format_url(image: Image.Image) -> str:
    """Format an image as a data URL, at most MAX_PHOTO_SIDE_PX a side."""
    if max(image.size) > MAX_PHOTO_SIDE_PX:
        image = image.copy()
        image.thumbnail((MAX_PHOTO_SIDE_PX, MAX_PHOTO_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def format_place(element: Element) -> str:
    """Format a place for CSS."""
    left, top, width, height = element.place
    return f"left:{left:.2f}px;top:{top:.2f}px;width:{width:.2f}px;height:{height:.2f}px"


def format_text(text: Text) -> str:
    """Format a text as HTML."""
    path = text.lettering.path if text.lettering else None
    family = "serif" if path and "Serif" in path.stem else "'Noto Sans','DejaVu Sans',sans-serif"
    style = (
        f"{format_place(text)};color:{format_color(text.color)};text-align:{text.align};"
        f"font:{700 if text.bold else 400} {text.size:.2f}px/{LINE_HEIGHT} {family}"
    )
    return f'<div dir="auto" style="{style}">{html.escape(text.text)}</div>'


def format_element(element: Element, urls: Mapping[int, str]) -> str:
    """Format an element as HTML; `urls` are those of the photos, by their numbers."""
    place = format_place(element)
    match element:
        case Panel():
            color, lower = element.color, element.lower_color or element.color
            ground = f"linear-gradient({format_color(color)},{format_color(lower)})"
            line = f"2px solid {format_color(element.outline)}" if element.outline else "none"
            style = f"{place};background:{ground};border:{line};border-radius:{element.radius}px"
            return f'<div style="{style}"></div>'
        case Text():
            return format_text(element)
        case Photo():
            blur = f";filter:blur({element.blur}px)" if element.blur else ""
            style = f"{place};object-fit:{element.fit};border-radius:{element.radius}px{blur}"
            return f'<img src="{urls[element.number]}" style="{style}">'
        case Code():
            return f'<img src="{format_url(make_code(element))}" style="{place}">'


def render_layout(layout: Layout, photos: Sequence[Image.Image]) -> Image.Image:
    """Render a layout with its photos in Chromium; an RGB image. Raises BrowserError."""
    numbers = {element.number for element in layout.elements if isinstance(element, Photo)}
    urls = {number: format_url(photos[number]) for number in numbers}
    body = "".join(format_element(element, urls) for element in layout.elements)
    ground = format_color(layout.ground)
    page = PAGE.format(ground=ground, line_height=LINE_HEIGHT, body=body)
    return start_browser().render(page, layout.size)
