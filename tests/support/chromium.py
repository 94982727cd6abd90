"""A real Chromium that renders pages, where one is installed and runs."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

MAX_RENDER_SECONDS = 60.0  # a page takes 2 to 5; a Chromium that hangs takes forever
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-crash-reporter",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-logging=stderr",
)


def find_chromium() -> str | None:
    """Find the executable of Chromium; None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def take_screenshot(url: str, screenshot: Path, size: tuple[int, int]) -> str:
    """Render a page of `size` pixels (width, height) as a PNG, and return Chromium's log.

    Raises TimeoutExpired if Chromium hangs and CalledProcessError if it fails. All its processes
    are killed then: one that lives on would hold open whatever it inherited.
    """
    executable = find_chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        log = Path(home, "log")
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    str(executable),
                    *OPTIONS,
                    f"--user-data-dir={home}/profile",
                    f"--window-size={size[0]},{size[1]}",
                    f"--screenshot={screenshot}",
                    url,
                ],
                env=os.environ | {"HOME": home},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                code = process.wait(MAX_RENDER_SECONDS)
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
        text = log.read_text(errors="replace")
    if code or not screenshot.exists():
        raise subprocess.CalledProcessError(code, str(executable), stderr=text)
    return text


@functools.cache
def explain_absence() -> str | None:
    """Explain why pages cannot be rendered here; None if they can."""
    if not find_chromium():
        return "no Chromium is installed here"
    with tempfile.TemporaryDirectory() as folder:
        try:
            take_screenshot("about:blank", Path(folder, "blank.png"), (100, 100))
        except (OSError, subprocess.SubprocessError) as error:
            return f"the Chromium that is installed here does not run: {error}"
    return None
