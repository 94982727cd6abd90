"""Small pictures of a store's images, and what stands out in them, so that photos need not be read again to be verified or shown. Nothing
depends on them: whatever is wrong with what is kept here, it begins anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

NAME = "thumbs.db"
CHUNK = 500


class Thumb(NamedTuple):
    """A small picture, and its features, empty where nobody has looked for them yet."""

    picture: bytes
    features: bytes


class Thumbs:
    """The small pictures of one store, by the hash of their image. Used by one thread at a time."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Open `folder`/thumbs/thumbs.db; with `write`, make it where it is missing or cannot be used."""
        self._path, self._writable = folder / "thumbs" / NAME, write
        self._db = self._opened()

    def _opened(self) -> sqlite3.Connection | None:
        if self._writable:
            with suppress(OSError):
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
        for _ in range(2):
            try:
                mode = "rwc" if self._writable else "ro"
                db = sqlite3.connect(f"file:{quote(os.fsencode(self._path))}?mode={mode}", uri=True, isolation_level=None, timeout=10.0)
                if self._writable:
                    db.execute("PRAGMA journal_mode = WAL")
                    db.execute("PRAGMA synchronous = OFF")  # what a power cut costs is made again
                    db.execute(
                        "CREATE TABLE IF NOT EXISTS thumbs (hash BLOB PRIMARY KEY, picture BLOB NOT NULL, features BLOB NOT NULL) STRICT"
                    )
                db.execute("SELECT hash, picture, features FROM thumbs LIMIT 1").fetchone()
                return db
            except sqlite3.Error:
                if not self._writable:
                    return None
                self._drop()
        return None

    def _drop(self) -> None:
        for end in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(NAME + end).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._db:
            self._db.close()

    def get(self, hashes: Iterable[bytes]) -> dict[bytes, Thumb]:
        """Those that are there of some images."""
        wanted, found = list(hashes), dict[bytes, Thumb]()
        with suppress(sqlite3.Error):
            for start in range(0, len(wanted) if self._db else 0, CHUNK):
                some = wanted[start : start + CHUNK]
                sql = f"SELECT hash, picture, features FROM thumbs WHERE hash IN ({','.join('?' * len(some))})"
                found.update((hash_, Thumb(*its)) for hash_, *its in (self._db.execute(sql, some) if self._db else ()))
        return found

    def put(self, thumbs: Mapping[bytes, Thumb]) -> None:
        """Keep some, by the hash of their image, where there is room."""
        if not self._db:
            return
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO thumbs VALUES (?, ?, ?)", ((hash_, *one) for hash_, one in thumbs.items()))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def keep_only(self, hashes: Iterable[bytes]) -> None:
        """Drop the pictures of all images but these."""
        if not self._db:
            return
        with suppress(sqlite3.Error):
            self._db.execute("CREATE TEMP TABLE kept (hash BLOB PRIMARY KEY)")
            self._db.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((hash_,) for hash_ in hashes))
            self._db.execute("DELETE FROM thumbs WHERE hash NOT IN (SELECT hash FROM kept)")
            self._db.execute("DROP TABLE kept")
