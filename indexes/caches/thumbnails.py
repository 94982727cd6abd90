"""Small pictures of a store's images, and what stands out in them, so that photos need not be read again to be verified or shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from indexes.caches.cache import CacheDatabase

TABLE = "CREATE TABLE thumbnails (hash BLOB PRIMARY KEY, jpeg BLOB NOT NULL, features BLOB NOT NULL, checksum BLOB NOT NULL) STRICT"


class Thumbnail(NamedTuple):
    """A small picture, and its features, empty where nobody has looked for them yet."""

    jpeg: bytes
    features: bytes


class ThumbnailCache(CacheDatabase):
    """The small pictures of one store, by the hash of their image."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Those of the store in `folder`."""
        super().__init__(folder, "thumbnails.db", [TABLE], write=write)

    def get(self, hashes: Iterable[bytes]) -> dict[bytes, Thumbnail]:
        """Those that are there of some images, and are as they were put."""
        rows = self._stream_rows_in("SELECT * FROM thumbnails WHERE hash IN ({})", hashes)
        return {
            hash_: Thumbnail(picture, its)
            for hash_, picture, its, told in rows
            if told == _compute_checksum(picture, its)
        }

    def put(self, thumbnails: Mapping[bytes, Thumbnail]) -> None:
        """Keep some, where there is room."""
        rows = ((hash_, *one, _compute_checksum(*one)) for hash_, one in thumbnails.items())
        self._write(("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?, ?)", rows))

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Drop those of all images but these."""
        self._keep_only("thumbnails", hashes)


def _compute_checksum(jpeg: bytes, features: bytes) -> bytes:
    return blake3(jpeg + features).digest(8)
