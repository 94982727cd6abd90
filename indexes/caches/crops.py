"""The cache of the vectors of crops and regions, by which images within images are found.

It also notes which images were compared by them, and in which run.
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
    "CREATE TABLE crops (hash BLOB PRIMARY KEY, crops BLOB NOT NULL, regions BLOB NOT NULL,"
    " boxes BLOB NOT NULL) STRICT",
    "CREATE TABLE compared (hash BLOB PRIMARY KEY, vector INTEGER NOT NULL,"
    " has_crops INTEGER NOT NULL) STRICT",
    "CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), space TEXT NOT NULL,"
    " run TEXT NOT NULL) STRICT",
)
# Raise it when images get other crops or regions: a cache of another version is filled again.
CROPS_VERSION = 2
BOX_BYTES = 16  # four float32
# True of a row with whole vectors, of ?1 bytes each, and a box for each region; any other row is
# damaged.
IS_WHOLE = (
    "length(crops) % ?1 = 0 AND length(regions) % ?1 = 0"
    f" AND length(boxes) = length(regions) / ?1 * {BOX_BYTES}"
)


@dataclass(frozen=True, slots=True)
class CropVectors:
    """The unit vectors of the crops and of the regions of one image, (n, dim) each.

    `boxes` are the regions, (n, 4): left, top, right and bottom in normalized coordinates.
    """

    crops: NDArray[np.float16]
    regions: NDArray[np.float16]
    boxes: NDArray[np.float32]

    def concat(self) -> NDArray[np.float16]:
        """Return the vectors of the crops, then those of the regions."""
        return np.concatenate([self.crops, self.regions])


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """An image that was compared with all others: by which vector, and if its crops took part."""

    vector_id: int
    has_crops: bool


class CropCache(CacheDatabase):
    """The vectors of the crops and regions of each image, by the image's hash, all of one space.

    An image that has neither is there with empty arrays.
    """

    def __init__(self, folder: Path, space: Space, *, write: bool) -> None:
        """Open the crop cache of the store in `folder`, which is bound to `space`.

        With `write`, delete the vectors of another space or version; without, such a cache is
        empty.
        """
        super().__init__(folder, "crops.db", TABLES, write=write)
        self._dim = space.dim
        self._vector_bytes = 2 * space.dim
        key = f"{space!r} crops {CROPS_VERSION}"
        if next(self._stream_rows("SELECT space FROM state"), None) == (key,):
            return
        if write:
            self._write(
                ("DELETE FROM crops", [()]),
                ("DELETE FROM compared", [()]),
                ("INSERT OR REPLACE INTO state VALUES (1, ?, '')", [(key,)]),
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
        """Return the hashes of the images whose crops and regions are there."""
        sql = f"SELECT hash FROM crops WHERE {IS_WHOLE}"
        return {hash_ for (hash_,) in self._stream_rows(sql, self._vector_bytes)}

    def put(self, vectors_by_hash: Mapping[bytes, CropVectors]) -> None:
        """Store the crops and regions of images."""
        rows = (
            (hash_, vectors.crops.tobytes(), vectors.regions.tobytes(), vectors.boxes.tobytes())
            for hash_, vectors in vectors_by_hash.items()
        )
        self._write(("INSERT OR REPLACE INTO crops VALUES (?, ?, ?, ?)", rows))

    def stream(self, batch_size: int) -> Iterator[list[tuple[bytes, CropVectors]]]:
        """Yield (hash, crops and regions) of all images by hash, `batch_size` images at a time."""
        sql = f"SELECT hash, crops, regions, boxes FROM crops WHERE {IS_WHOLE} ORDER BY hash"
        rows = self._stream_rows(sql, self._vector_bytes)
        while batch := list(islice(rows, batch_size)):
            yield [
                (
                    hash_,
                    CropVectors(
                        self._parse_vectors(crops),
                        self._parse_vectors(regions),
                        np.frombuffer(boxes, np.float32).reshape(-1, 4),
                    ),
                )
                for hash_, crops, regions, boxes in batch
            ]

    def stream_regions(self, batch_size: int) -> Iterator[list[tuple[bytes, NDArray[np.float16]]]]:
        """Yield (hash, vectors of regions) as `stream` does, of the images that have regions."""
        sql = f"SELECT hash, regions FROM crops WHERE {IS_WHOLE} AND regions != x'' ORDER BY hash"
        rows = self._stream_rows(sql, self._vector_bytes)
        while batch := list(islice(rows, batch_size)):
            yield [(hash_, self._parse_vectors(regions)) for hash_, regions in batch]

    def _parse_vectors(self, data: bytes) -> NDArray[np.float16]:
        return np.frombuffer(data, np.float16).reshape(-1, self._dim)

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
        """Delete the crops and regions of all images but these."""
        self._keep_only("crops", hashes)
