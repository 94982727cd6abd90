"""Small pictures of a store's images, and what stands out in them, so that photos need not be read again to be verified or shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from indexes.caches.cache import Derived

TABLE = "CREATE TABLE thumbs (hash BLOB PRIMARY KEY, picture BLOB NOT NULL, features BLOB NOT NULL, sum BLOB NOT NULL) STRICT"


class Thumb(NamedTuple):
    """A small picture, and its features, empty where nobody has looked for them yet."""

    picture: bytes
    features: bytes


class Thumbs(Derived):
    """The small pictures of one store, by the hash of their image."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Those of the store in `folder`."""
        super().__init__(folder, "thumbs.db", [TABLE], write=write)

    def get(self, hashes: Iterable[bytes]) -> dict[bytes, Thumb]:
        """Those that are there of some images, and are as they were put."""
        rows = self._rows_for("SELECT * FROM thumbs WHERE hash IN ({})", hashes)
        return {hash_: Thumb(picture, its) for hash_, picture, its, told in rows if told == _sum(picture, its)}

    def put(self, thumbs: Mapping[bytes, Thumb]) -> None:
        """Keep some, where there is room."""
        rows = ((hash_, *one, _sum(*one)) for hash_, one in thumbs.items())
        self._write(("INSERT OR REPLACE INTO thumbs VALUES (?, ?, ?, ?)", rows))

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Drop those of all images but these."""
        self._keep_only("thumbs", hashes)


def _sum(picture: bytes, features: bytes) -> bytes:
    return blake3(picture + features).digest(8)
