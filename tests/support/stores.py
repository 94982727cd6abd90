"""Small stores of made-up vectors, and stores of the first format."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes import Space
from indexes.catalog import schema
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch

SPACE = Space("test", "test", "0" * 64, "none", 16, -1.0, 0.9)


def make_unit_rows(seed: int, count: int, dim: int = SPACE.dim) -> NDArray[np.float32]:
    """Rows of length 1 in a few tight clusters, some of them equal, as a library with copies has them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 4), dim))
    made = centres[rng.integers(len(centres), size=count)] + rng.choice(
        [0.0, 0.02, 0.3], size=(count, 1)
    ) * rng.standard_normal((count, dim))
    rows_of_length_1: NDArray[np.float32] = (
        made / np.linalg.norm(made, axis=1, keepdims=True)
    ).astype(np.float32)
    return rows_of_length_1


def make_hash(number: int) -> bytes:
    """The hash of test image `number`."""
    return number.to_bytes(32, "big")


def make_batch(numbers: list[int], rows: NDArray[np.float32]) -> Batch:
    """A batch of images without pixels, number n with row rows[n], one file each."""
    hashes = [make_hash(number) for number in numbers]
    stats = [FileStat(1, number, number, number, 1) for number in numbers]
    return Batch(
        images=[
            (StoredImage(make_hash(n), make_hash(n), 10, 10, "PNG", 1, False), rows[n])
            for n in numbers
        ],
        files=[
            NewFile(f"/p/{number}", stat, hash_)
            for number, stat, hash_ in zip(numbers, stats, hashes, strict=True)
        ],
    )


def downgrade_store(folder: Path) -> None:
    """Bring a store of one segment, in which each image has a vector of its own, to the first format that there was."""
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
                older.execute(
                    f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", tuple(row)
                )
        application = newest.execute("PRAGMA application_id").fetchone()[0]
        older.execute(f"PRAGMA application_id = {application}")
        older.execute("PRAGMA user_version = 1")
        older.commit()
    (folder / "catalog.seal").unlink()
    (folder / "older.db").replace(folder / "catalog.db")
