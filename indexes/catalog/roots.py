"""The folders that every ingest scans."""

from __future__ import annotations

import json
import os

from indexes.catalog.database import Database
from indexes.records import (
    Root,
)


class RootTable:
    """The folders that every ingest scans."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def list(self) -> list[Root]:
        """All remembered roots, by path."""
        rows = self._database.fetch_rows(
            "SELECT path, excludes, include_hidden FROM roots ORDER BY path"
        )
        return [
            Root(os.fsdecode(path), tuple(self._database.parse_json(excludes)), bool(hidden))
            for path, excludes, hidden in rows
        ]

    def put(self, root: Root) -> None:
        """Remember `root`, or what is new of it."""
        self._database.write(
            "INSERT OR REPLACE INTO roots VALUES (?, ?, ?)",
            os.fsencode(root.path),
            json.dumps(root.excludes),
            int(root.include_hidden),
        )

    def remove(self, path: str) -> None:
        """Look through the folder `path` no more."""
        self._database.write("DELETE FROM roots WHERE path = ?", os.fsencode(path))
