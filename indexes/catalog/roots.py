"""The table of roots: the folders that every ingest scans."""

from __future__ import annotations

import json
import os

from indexes.catalog.database import Database
from indexes.records import Root


class RootTable:
    """The roots of a store, by path."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def list(self) -> list[Root]:
        """Return all roots, ordered by path. Raises StoreDamaged."""
        rows = self._database.fetch_rows(
            "SELECT path, excludes, include_hidden FROM roots ORDER BY path"
        )
        return [
            Root(
                os.fsdecode(path), tuple(self._database.parse_json(excludes)), bool(include_hidden)
            )
            for path, excludes, include_hidden in rows
        ]

    def put(self, root: Root) -> None:
        """Write a root, in the place of an earlier one with the same path."""
        self._database.write(
            "INSERT OR REPLACE INTO roots VALUES (?, ?, ?)",
            os.fsencode(root.path),
            json.dumps(root.excludes),
            int(root.include_hidden),
        )

    def remove(self, path: str) -> None:
        """Remove the root at `path`; its files stay."""
        self._database.write("DELETE FROM roots WHERE path = ?", os.fsencode(path))
