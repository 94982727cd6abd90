"""A library that is served, once for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from indexes import Root, Store
from pipeline import ingest_roots, load_embedder
from tests.support.images import draw_textured_image, save_image
from tests.support.review import RunningReview, serve_review


@dataclass(frozen=True)
class Library:
    """A store, and the folder of its photos: two groups, one of them of two photos."""

    store: Path
    photos: Path


def make_library(folder: Path) -> Library:
    """Make a library of two groups: a.jpg and its copies, b.jpg and its copy; and c.jpg."""
    photos = folder / "photos"
    first, second = draw_textured_image(1, (900, 600)), draw_textured_image(2, (900, 600))
    save_image(photos / "a.jpg", first, quality=92)
    save_image(photos / "a small.jpg", first.resize((450, 300)), quality=85)
    save_image(photos / "sub" / "a crop.jpg", first.crop((0, 0, 700, 600)), quality=90)
    save_image(photos / "b.jpg", second, quality=90)
    (photos / "b copy.jpg").write_bytes((photos / "b.jpg").read_bytes())
    save_image(photos / "c.jpg", draw_textured_image(3, (900, 600)), quality=90)
    with Store(folder / "store", write=True) as store:
        for _ in ingest_roots([Root(str(photos))], store, load_embedder()):
            pass
    return Library(folder / "store", photos)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, quick_ingest: None) -> Library:
    return make_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def review(library: Library) -> Iterator[RunningReview]:
    with serve_review(library.store) as running:
        yield running
