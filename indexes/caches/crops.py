"""Vectors of parts of a store's pictures, so that a picture within another one is found; and which pictures have been compared so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes.caches.cache import Derived
from indexes.records import Space

TABLES = (
    "CREATE TABLE parts (hash BLOB PRIMARY KEY, rows BLOB NOT NULL) STRICT",
    "CREATE TABLE compared (hash BLOB PRIMARY KEY, vector INTEGER NOT NULL, parts INTEGER NOT NULL) STRICT",
    "CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), space TEXT NOT NULL, run TEXT NOT NULL) STRICT",
)
SOUND = "length(rows) > 0 AND length(rows) % ? = 0"  # of which all vectors are whole: the rest is damaged


class Parts(Derived):
    """The vectors of parts of each picture, by the hash of its image, of one space; those of another are dropped."""

    def __init__(self, folder: Path, space: Space, *, write: bool) -> None:
        """Those of the store in `folder`, which is bound to `space`."""
        super().__init__(folder, "parts.db", TABLES, write=write)
        self._dim = space.dim
        if next(self._rows("SELECT space FROM state"), None) != (repr(space),):
            if write:
                drop = [("DELETE FROM parts", [()]), ("DELETE FROM compared", [()])]
                self._write(*drop, ("INSERT OR REPLACE INTO state VALUES (1, ?, '')", [(repr(space),)]))
            else:
                self.close()
                self._db = None

    @property
    def run(self) -> str:
        """The run of the catalog in which pictures were compared last; another catalog does not have it, nor an older copy of this one."""
        return next((run for (run,) in self._rows("SELECT run FROM state")), "")

    @property
    def are_compared(self) -> bool:
        """Whether any pictures were compared by their parts."""
        return next(self._rows("SELECT 1 FROM compared LIMIT 1"), None) is not None

    def compared(self) -> dict[bytes, tuple[int, bool]]:
        """The images that were compared with all others, by hash: by which vector, and whether by parts of their own too."""
        return {hash_: (vector, bool(parts)) for hash_, vector, parts in self._rows("SELECT hash, vector, parts FROM compared")}

    def hashes(self) -> set[bytes]:
        """The images whose parts are there."""
        return {hash_ for (hash_,) in self._rows(f"SELECT hash FROM parts WHERE {SOUND}", 2 * self._dim)}

    def put(self, rows: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep the vectors of the parts of some images, (parts, dim) each, of length 1, where there is room."""
        self._write(
            ("INSERT OR REPLACE INTO parts VALUES (?, ?)", ((hash_, some.astype(np.float16).tobytes()) for hash_, some in rows.items()))
        )

    def stream(self, count: int) -> Iterator[list[tuple[bytes, NDArray[np.float16]]]]:
        """All of them, in the order of hashes, so many images at a time."""
        rows = self._rows(f"SELECT hash, rows FROM parts WHERE {SOUND} ORDER BY hash", 2 * self._dim)
        while some := list(islice(rows, count)):
            yield [(hash_, np.frombuffer(data, np.float16).reshape(-1, self._dim)) for hash_, data in some]

    def note(self, compared: Mapping[bytes, tuple[int, bool]], run: str) -> None:
        """These images, and no others, were compared with all others, as compared() tells it, in this run."""
        new = ((hash_, vector, int(parts)) for hash_, (vector, parts) in compared.items())
        self._write(("DELETE FROM compared", [()]), ("INSERT INTO compared VALUES (?, ?, ?)", new), ("UPDATE state SET run = ?", [(run,)]))

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Drop those of all images but these."""
        self._keep_only("parts", hashes)
