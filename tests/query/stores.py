"""Stores of ingested folders."""

from __future__ import annotations

from pathlib import Path

from indexes import Root, Store
from pipeline import ingest_roots, load_embedder


def make_store(folder: Path, *roots: Path) -> Store:
    """A store in `folder`, open for writing, with the photos of `roots` ingested."""
    store = Store(folder, write=True)
    for _ in ingest_roots([Root(str(root)) for root in roots], store, load_embedder()):
        pass
    return store
