"""Vectors of parts of a store's pictures, so that a picture within another one is found; and which pictures have been compared so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes.caches.cache import CacheDatabase
from indexes.records import Space

TABLES = (
    "CREATE TABLE crops (hash BLOB PRIMARY KEY, vectors BLOB NOT NULL) STRICT",
    "CREATE TABLE compared (hash BLOB PRIMARY KEY, vector INTEGER NOT NULL, has_crops INTEGER NOT NULL) STRICT",
    "CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), space TEXT NOT NULL, run TEXT NOT NULL) STRICT",
)
HAS_WHOLE_VECTORS = "length(vectors) > 0 AND length(vectors) % ? = 0"  # of which all vectors are whole: the rest is damaged


class CropCache(CacheDatabase):
    """The vectors of parts of each picture, by the hash of its image, of one space; those of another are dropped."""

    def __init__(self, folder: Path, space: Space, *, write: bool) -> None:
        """Those of the store in `folder`, which is bound to `space`."""
        super().__init__(folder, "crops.db", TABLES, write=write)
        self._dim = space.dim
        if next(self._stream_rows("SELECT space FROM state"), None) != (repr(space),):
            if write:
                drop = [("DELETE FROM crops", [()]), ("DELETE FROM compared", [()])]
                self._write(
                    *drop, ("INSERT OR REPLACE INTO state VALUES (1, ?, '')", [(repr(space),)])
                )
            else:
                self.close()
                self._db = None

    @property
    def run_key(self) -> str:
        """The run of the catalog in which pictures were compared last; another catalog does not have it, nor an older copy of this one."""
        return next((run for (run,) in self._stream_rows("SELECT run FROM state")), "")

    @property
    def has_compared_images(self) -> bool:
        """Whether any pictures were compared by their parts."""
        return next(self._stream_rows("SELECT 1 FROM compared LIMIT 1"), None) is not None

    def get_compared_images(self) -> dict[bytes, tuple[int, bool]]:
        """The images that were compared with all others, by hash: by which vector, and whether by parts of their own too."""
        return {
            hash_: (vector, bool(parts))
            for hash_, vector, parts in self._stream_rows(
                "SELECT hash, vector, has_crops FROM compared"
            )
        }

    def list_hashes(self) -> set[bytes]:
        """The images whose parts are there."""
        return {
            hash_
            for (hash_,) in self._stream_rows(
                f"SELECT hash FROM crops WHERE {HAS_WHOLE_VECTORS}", 2 * self._dim
            )
        }

    def put(self, vectors_by_hash: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep the vectors of the parts of some images, (parts, dim) each, of length 1, where there is room."""
        self._write(
            (
                "INSERT OR REPLACE INTO crops VALUES (?, ?)",
                (
                    (hash_, some.astype(np.float16).tobytes())
                    for hash_, some in vectors_by_hash.items()
                ),
            )
        )

    def stream(self, batch_size: int) -> Iterator[list[tuple[bytes, NDArray[np.float16]]]]:
        """All of them, in the order of hashes, so many images at a time."""
        rows = self._stream_rows(
            f"SELECT hash, vectors FROM crops WHERE {HAS_WHOLE_VECTORS} ORDER BY hash",
            2 * self._dim,
        )
        while some := list(islice(rows, batch_size)):
            yield [
                (hash_, np.frombuffer(data, np.float16).reshape(-1, self._dim))
                for hash_, data in some
            ]

    def replace_compared_images(
        self, compared: Mapping[bytes, tuple[int, bool]], run_key: str
    ) -> None:
        """These images, and no others, were compared with all others, as compared() tells it, in this run."""
        new = ((hash_, vector, int(parts)) for hash_, (vector, parts) in compared.items())
        self._write(
            ("DELETE FROM compared", [()]),
            ("INSERT INTO compared VALUES (?, ?, ?)", new),
            ("UPDATE state SET run = ?", [(run_key,)]),
        )

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Drop those of all images but these."""
        self._keep_only("crops", hashes)
