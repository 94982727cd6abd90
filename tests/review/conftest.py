"""A library of photos with three groups, its listing, and a person who reviews it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.review.choices import Reviewer
from pipeline.review.listing import Listing
from tests.support.images import draw_scene, make_six_files, save_image
from tests.support.ingest import make_store
from tests.support.reviews import build_here


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The folder of a store of photos: a.png has three copies, b.jpg two, c.webp one."""
    photos = make_six_files(tmp_path / "photos")
    save_image(photos / "b small.jpg", draw_scene(2, (640, 480)).resize((500, 375)))
    save_image(photos / "b large.jpg", draw_scene(2, (640, 480)).resize((800, 600)), quality=60)
    save_image(photos / "c SMALL.jpg", draw_scene(3, (640, 480)).resize((320, 240)))
    make_store(tmp_path / "store", photos).close()
    return tmp_path / "store"


@pytest.fixture
def listing(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listing]:
    """The listing of the library, built."""
    build_here(monkeypatch)
    with Listing(library) as listing:
        assert listing.refresh()
        yield listing


@pytest.fixture
def reviewer(library: Path, listing: Listing) -> Iterator[Reviewer]:
    with Reviewer(library, listing, "ann") as reviewer:
        yield reviewer
