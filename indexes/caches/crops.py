"""The cache of crop vectors, by which images within images are found.

It also notes which images were compared by their crops, and in which run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes.caches.cache import CacheDatabase
from indexes.records import Space

TABLES = (
    "CREATE TABLE crops (hash BLOB PRIMARY KEY, vectors BLOB NOT NULL) STRICT",
    "CREATE TABLE compared (hash BLOB PRIMARY KEY, vector INTEGER NOT NULL,"
    " has_crops INTEGER NOT NULL) STRICT",
    "CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), space TEXT NOT NULL,"
    " run TEXT NOT NULL) STRICT",
)
# True of a row with a whole number of vectors, of ? bytes each; any other row is damaged.
HAS_WHOLE_VECTORS = "length(vectors) > 0 AND length(vectors) % ? = 0"


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """An image that was compared with all others: by which vector, and if its crops took part."""

    vector_id: int
    has_crops: bool


class CropCache(CacheDatabase):
    """The vectors of the crops of each image, by the image's hash, all of one space.

    Vectors are float16 of length 1, (crops, dim) for each image.
    """

    def __init__(self, folder: Path, space: Space, *, write: bool) -> None:
        """Open the crop cache of the store in `folder`, which is bound to `space`.

        With `write`, delete the vectors of another space; without, such a cache is empty.
        """
        super().__init__(folder, "crops.db", TABLES, write=write)
        self._dim = space.dim
        self._vector_bytes = 2 * space.dim
        if next(self._stream_rows("SELECT space FROM state"), None) == (repr(space),):
            return
        if write:
            self._write(
                ("DELETE FROM crops", [()]),
                ("DELETE FROM compared", [()]),
                ("INSERT OR REPLACE INTO state VALUES (1, ?, '')", [(repr(space),)]),
            )
        else:
            self.close()

    @property
    def run_key(self) -> str | None:
        """The key of the run in which images were compared last; None before the first.

        Another catalog does not have that run, nor has an older copy of this one.
        """
        for (run_key,) in self._stream_rows("SELECT run FROM state"):
            return run_key or None
        return None

    @property
    def has_compared_images(self) -> bool:
        """True if any images were compared by their crops."""
        return next(self._stream_rows("SELECT 1 FROM compared LIMIT 1"), None) is not None

    def get_compared_images(self) -> dict[bytes, ComparedImage]:
        """Return the images that were compared with all others, by hash."""
        rows = self._stream_rows("SELECT hash, vector, has_crops FROM compared")
        return {
            hash_: ComparedImage(vector_id, bool(has_crops)) for hash_, vector_id, has_crops in rows
        }

    def list_hashes(self) -> set[bytes]:
        """Return the hashes of the images whose crop vectors are there."""
        sql = f"SELECT hash FROM crops WHERE {HAS_WHOLE_VECTORS}"
        return {hash_ for (hash_,) in self._stream_rows(sql, self._vector_bytes)}

    def put(self, vectors_by_hash: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store the crop vectors of images, (crops, dim) each, of length 1."""
        rows = (
            (hash_, vectors.astype(np.float16).tobytes())
            for hash_, vectors in vectors_by_hash.items()
        )
        self._write(("INSERT OR REPLACE INTO crops VALUES (?, ?)", rows))

    def stream(self, batch_size: int) -> Iterator[list[tuple[bytes, NDArray[np.float16]]]]:
        """Yield (hash, crop vectors) of all images by hash, `batch_size` images at a time."""
        sql = f"SELECT hash, vectors FROM crops WHERE {HAS_WHOLE_VECTORS} ORDER BY hash"
        rows = self._stream_rows(sql, self._vector_bytes)
        while batch := list(islice(rows, batch_size)):
            yield [
                (hash_, np.frombuffer(data, np.float16).reshape(-1, self._dim))
                for hash_, data in batch
            ]

    def replace_compared_images(
        self, compared: Mapping[bytes, ComparedImage], run_key: str | None
    ) -> None:
        """Replace the images, by hash, that were compared with all others in the run `run_key`."""
        rows = ((hash_, image.vector_id, int(image.has_crops)) for hash_, image in compared.items())
        self._write(
            ("DELETE FROM compared", [()]),
            ("INSERT INTO compared VALUES (?, ?, ?)", rows),
            ("UPDATE state SET run = ?", [(run_key or "",)]),
        )

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Delete the crop vectors of all images but these."""
        self._keep_only("crops", hashes)
