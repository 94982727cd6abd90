"""The cache of thumbnails and features.

With it, pairs are verified and galleries shown without reading the files again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from indexes.caches.cache import CacheDatabase

TABLE = (
    "CREATE TABLE thumbnails (hash BLOB PRIMARY KEY, jpeg BLOB NOT NULL, features BLOB NOT NULL,"
    " checksum BLOB NOT NULL) STRICT"
)
CHECKSUM_BYTES = 8  # of the blake3 of a row's JPEG and features


class Thumbnail(NamedTuple):
    """The JPEG of an image and its encoded features, which are empty until they are extracted."""

    jpeg: bytes
    features: bytes


class ThumbnailCache(CacheDatabase):
    """The thumbnails of one store, by the hash of their image."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Open the thumbnail cache of the store in `folder`."""
        super().__init__(folder, "thumbnails.db", [TABLE], write=write)

    def get(self, hashes: Iterable[bytes]) -> dict[bytes, Thumbnail]:
        """Return the thumbnails of those images that have one; damaged ones are left out."""
        rows = self._stream_rows_in(
            "SELECT hash, jpeg, features, checksum FROM thumbnails WHERE hash IN ({})", hashes
        )
        return {
            hash_: Thumbnail(jpeg, features)
            for hash_, jpeg, features, checksum in rows
            if checksum == _compute_checksum(jpeg, features)
        }

    def put(self, thumbnails: Mapping[bytes, Thumbnail]) -> None:
        """Store thumbnails by the hash of their image, in the place of earlier ones."""
        rows = (
            (hash_, *thumbnail, _compute_checksum(*thumbnail))
            for hash_, thumbnail in thumbnails.items()
        )
        self._write(("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?, ?)", rows))

    def discard(self, hashes: Iterable[bytes]) -> None:
        """Remove the thumbnails of these images."""
        self._write(("DELETE FROM thumbnails WHERE hash = ?", [(hash_,) for hash_ in hashes]))
        self._return_free_pages()

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Delete the thumbnails of all images but these."""
        self._keep_only("thumbnails", hashes)


def _compute_checksum(jpeg: bytes, features: bytes) -> bytes:
    return blake3(jpeg + features).digest(CHECKSUM_BYTES)
