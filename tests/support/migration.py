"""Stores to migrate, and what a migration has to keep or change in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from indexes import Store, check
from pipeline import (
    find_groups,
    ingest_roots,
    load_embedder,
    migrate_store,
    resolve_roots,
)
from pipeline.embed.embedder import Embedder
from tests.support import onnx_models
from tests.support.images import draw_scene, save_image
from tests.support.ingest import ingest

Contents = tuple[str | None, list[Any], list[tuple[frozenset[bytes], float]]]


def save_other_model(folder: Path) -> str:
    """Save a model of another space than the small one in `folder`; return its name."""
    model = onnx_models.build_model("NCHW")
    return f"onnx:{onnx_models.save_model(folder / 'other', model, layout='NCHW')}"


def fill_store(folder: Path, photos: Path) -> Path:
    """Ingest photos of many kinds with neardup-1, then delete one file and ingest again."""
    for number in range(12):
        save_image(photos / "more" / f"{number}.jpg", draw_scene(number + 10))
    save_image(photos / "blank.png", draw_scene(1).resize((1, 1)).resize((50, 50)))
    (photos / "broken.jpg").write_bytes((photos / "b.jpg").read_bytes()[:2000])
    with Store(folder, write=True) as store:
        ingest(store, photos)
        (photos / "more" / "3.jpg").unlink()
        ingest(store)
    return folder


def build_contents(folder: Path, roots: Path, model: str) -> Contents:
    """Ingest `roots` into a new store with `model` and return its contents."""
    with Store(folder, write=True) as store:
        for _ in ingest_roots(
            resolve_roots(store, [str(roots)]).roots, store, load_embedder(model)
        ):
            pass
        return collect_contents(store)


def collect_contents(store: Store) -> Contents:
    """Return the space, the groups, and the pairs with their scores, by content."""
    with store.catalog.snapshot():
        hashes = {
            id_: image.hash
            for id_, image in store.catalog.images.get(store.catalog.images.list_in_use())
        }
        space, pairs = (
            store.space,
            store.search.find_pairs(-1.0 if store.space is None else store.space.floor),
        )
        images: dict[int, list[int]] = {}
        for image, vector in store.catalog.images.find_of_vectors(
            [*pairs.left.tolist(), *pairs.right.tolist()]
        ):
            images.setdefault(vector, []).append(image)
        scored_pairs = [
            (
                frozenset(hashes[image] for end in (left, right) for image in images[end]),
                round(score, 9),
            )
            for left, right, score in zip(
                pairs.left.tolist(), pairs.right.tolist(), pairs.score.tolist(), strict=True
            )
        ]
        # Related files come from pairs that are verified after the commit of a migration.
        groups = [replace(group, related=()) for group in find_groups(store)]
    return str(space), groups, sorted(scored_pairs, key=lambda pair: (sorted(pair[0]), pair[1]))


def read_contents(folder: Path) -> Contents:
    with Store(folder) as store:
        return collect_contents(store)


def read_kept_rows(folder: Path) -> list[Any]:
    """Return the rows of the catalog that a migration leaves unchanged."""
    with Store(folder) as store:
        tables = [
            store.catalog.fetch_rows(f"SELECT * FROM {table}")
            for table in ("files", "failures", "roots")
        ]
        return [
            *tables,
            store.catalog.fetch_rows("SELECT * FROM runs WHERE outcome != 'migrated'"),
            store.catalog.fetch_rows(
                "SELECT id, hash, width, height, format, size FROM images"
                " WHERE id IN (SELECT image FROM files)"
            ),
        ]


def migrate(store: Store, embedder: Embedder, **options: Any) -> int:
    """Migrate a store; return the number of images embedded."""
    embedded = 0
    for progress in migrate_store(store, embedder, **options):
        embedded = progress.coverage.embedded
    return embedded


def assert_clean(folder: Path) -> None:
    assert check(folder, read_all=True) == []
    assert not (folder / "next").exists()
    assert not list((folder / "tmp").iterdir())
    with Store(folder) as store:
        assert {row.blake3 for row in store.catalog.vectors.list_segments()} == {
            file.stem for file in (folder / "segments").iterdir()
        }
