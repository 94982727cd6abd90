"""Small stores of made vectors, their contents, and stores of the first format."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes import Space, Store
from indexes.catalog import schema
from indexes.records import FileStat, Image, NewFile
from indexes.store import Batch

SPACE = Space("test", "test", "0" * 64, "none", 16, -1.0, 0.9)


def make_unit_rows(seed: int, count: int, dim: int = SPACE.dim) -> NDArray[np.float32]:
    """Make unit rows in a few tight clusters, some of them equal, as in a library with copies."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((max(1, count // 4), dim))
    rows = centers[rng.integers(len(centers), size=count)]
    spread = rng.choice([0.0, 0.02, 0.3], size=(count, 1))
    rows = rows + spread * rng.standard_normal((count, dim))
    unit_rows: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit_rows


def make_hash(number: int) -> bytes:
    """Make the hash of test image `number`."""
    return number.to_bytes(32, "big")


def make_image(number: int) -> Image:
    """Make test image `number`."""
    return Image(make_hash(number), make_hash(number), 10, 10, "PNG", 1, False)


def make_file(number: int, folder: str = "p") -> NewFile:
    """Make a file that holds test image `number`."""
    stat = FileStat(1, number, number, number, 1)
    return NewFile(f"/{folder}/{number}", stat, make_hash(number))


def make_batch(numbers: list[int], rows: NDArray[np.float32]) -> Batch:
    """Make a batch of images, number n with the vector rows[n] and a file of its own."""
    return Batch(
        images=[(make_image(number), rows[number]) for number in numbers],
        files=[make_file(number) for number in numbers],
    )


@contextmanager
def open_new_store() -> Iterator[Store]:
    """Open an empty store, bound to SPACE, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder), write=True) as store:
        store.bind(SPACE, "test")
        yield store


def join_all(store: Store) -> None:
    """Run the join of new vectors to its end."""
    for _ in store.join():
        pass


def get_hashes(store: Store) -> dict[int, bytes]:
    """Get the hash of each image that a file holds, by the image's id."""
    images = store.catalog.images
    return {id_: image.hash for id_, image in images.get(images.list_in_use())}


def find_image_pairs(store: Store, min_score: float) -> dict[frozenset[bytes], float]:
    """Find all pairs of images, as hashes, with score >= min_score; a shared vector scores 1."""
    hashes = get_hashes(store)
    images_of_vector: dict[int, list[bytes]] = {}
    for image, vector in store.catalog.vectors.find_of_images(list(hashes)).items():
        if vector is not None:
            images_of_vector.setdefault(vector, []).append(hashes[image])
    scores = {
        frozenset(pair): 1.0
        for images in images_of_vector.values()
        for pair in combinations(images, 2)
    }
    for (left, right), score in store.search.find_pairs(min_score).to_dict().items():
        for pair in product(images_of_vector[left], images_of_vector[right]):
            scores[frozenset(pair)] = score
    return scores


def find_pairs_by_brute_force(rows: NDArray[np.float32], min_score: float) -> set[frozenset[bytes]]:
    """Find all pairs of rows by the float64 cosines of the vectors as they are stored."""
    stored = rows.astype(np.float16).astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    scores = np.round(stored @ stored.T, 12)
    pairs = np.argwhere(np.triu(scores >= min_score, 1)).tolist()
    return {frozenset((make_hash(left), make_hash(right))) for left, right in pairs}


def downgrade_store(folder: Path) -> None:
    """Rewrite the catalog of a store in the first format.

    The store has one segment, and each image has a vector of its own.
    """
    with (
        closing(sqlite3.connect(folder / "catalog.db")) as newest,
        closing(sqlite3.connect(folder / "older.db")) as older,
    ):
        schema.SCHEMA_MIGRATIONS[0](older)
        newest.row_factory = sqlite3.Row
        for row in newest.execute("SELECT id, blake3, rows, size FROM segments"):
            older.execute("INSERT INTO segments VALUES (?, ?, ?, ?)", tuple(row))
        segment = older.execute("SELECT id FROM segments").fetchone()[0]
        for row in newest.execute(
            "SELECT id, hash, pixel_hash, width, height, format, size, featureless FROM images"
        ):
            older.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, segment))
        for table in ("space", "roots", "files", "failures", "runs"):
            for row in newest.execute(f"SELECT * FROM {table}"):
                placeholders = ",".join("?" * len(row))
                older.execute(f"INSERT INTO {table} VALUES ({placeholders})", tuple(row))
        application_id = newest.execute("PRAGMA application_id").fetchone()[0]
        older.execute(f"PRAGMA application_id = {application_id}")
        older.execute("PRAGMA user_version = 1")
        older.commit()
    (folder / "catalog.seal").unlink()
    (folder / "older.db").replace(folder / "catalog.db")
