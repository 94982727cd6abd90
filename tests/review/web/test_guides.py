"""The client in the guide of the HTTP API runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.review.web.conftest import Library
from tests.support.images import draw_textured_image, save_image
from tests.support.review import RunningReview

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "http-api.md"
MAX_CLIENT_LINES = 10


def test_client_of_the_guide_asks_about_photos(
    review: RunningReview, library: Library, tmp_path: Path
) -> None:
    (code,) = re.findall(r"```py\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(list(filter(None, code.splitlines()))) <= MAX_CLIENT_LINES
    own = code.replace('"http://127.0.0.1:8757"', repr(review.address)).replace(
        'Path.home() / ".local/share/neardup/default"', f"Path({str(library.store)!r})"
    )
    assert own.count(review.address) == own.count(str(library.store)) == 1
    stranger = save_image(tmp_path / "a stranger.jpg", draw_textured_image(11))
    known = library.photos / "b.jpg"
    done = subprocess.run(
        [sys.executable, "-c", own, known, stranger],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{known} identical ['{library.photos}/b")
    assert second == f"{stranger} new []"
