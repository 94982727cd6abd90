"""Groups of a folder that is ingested into a store of its own."""

from __future__ import annotations

from pathlib import Path

from indexes import Root, Store
from pipeline import Group, find_groups, ingest_roots, load_embedder
from pipeline.embed.embedder import DEFAULT_MODEL


def group_library(folder: Path, store_folder: Path, model: str = DEFAULT_MODEL) -> list[Group]:
    """Ingest a folder into a new store, and group it."""
    with Store(store_folder, write=True) as store:
        for _ in ingest_roots([Root(str(folder))], store, load_embedder(model)):
            pass
        return find_groups(store)
