"""Vectors of parts of a store's pictures, so that a picture within another one is found; and up to where all have been compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes.derived import Derived
from indexes.records import Space

TABLES = (
    "CREATE TABLE parts (hash BLOB PRIMARY KEY, rows BLOB NOT NULL, compared INTEGER NOT NULL) STRICT",
    "CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), space TEXT NOT NULL, through INTEGER NOT NULL) STRICT",
)


class Parts(Derived):
    """The vectors of parts of each picture, by the hash of its image, of one space; those of another are dropped."""

    def __init__(self, folder: Path, space: Space, *, write: bool) -> None:
        """Those of the store in `folder`, which is bound to `space`."""
        super().__init__(folder, "parts.db", TABLES, write=write)
        self._dim = space.dim
        if next(self._rows("SELECT space FROM state"), None) != (repr(space),):
            if write:
                self._write(("DELETE FROM parts", [()]), ("INSERT OR REPLACE INTO state VALUES (1, ?, 0)", [(repr(space),)]))
            else:
                self.close()
                self._db = None

    @property
    def through(self) -> int:
        """The last vector that was compared with the parts of all pictures, but for parts that came later."""
        return next((through for (through,) in self._rows("SELECT through FROM state")), 0)

    def hashes(self) -> set[bytes]:
        """The images whose parts are there."""
        return {hash_ for (hash_,) in self._rows("SELECT hash FROM parts")}

    def put(self, rows: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep the vectors of the parts of some images, (parts, dim) each, of length 1, where there is room."""
        new = ((hash_, some.astype(np.float16).tobytes(), 0) for hash_, some in rows.items())
        self._write(("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", new))

    def stream(self, count: int, *, compared: bool | None = None) -> Iterator[list[tuple[bytes, NDArray[np.float16]]]]:
        """All of them, in the order of hashes, so many images at a time; or those alone that were compared already, or were not."""
        which = "" if compared is None else f"WHERE compared = {int(compared)}"
        rows, size = self._rows(f"SELECT hash, rows FROM parts {which} ORDER BY hash"), 2 * self._dim
        while some := list(islice(rows, count)):
            found = []
            for hash_, data in some:
                with suppress(ValueError):  # of another length: damaged
                    found.append((hash_, np.frombuffer(data, np.float16).reshape(len(data) // size, self._dim)))
            yield found

    def note(self, through: int) -> None:
        """All parts were compared with all vectors up to `through`."""
        self._write(("UPDATE parts SET compared = 1", [()]), ("UPDATE state SET through = ?", [(through,)]))

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Drop those of all images but these."""
        self._keep_only("parts", hashes)
