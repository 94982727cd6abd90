"""The table of decisions, by id, and the contents that they are about.

They refer to contents by their hashes and not to images, so that no removal of images drops them.
"""

from __future__ import annotations

from collections.abc import Iterable

from indexes.catalog.database import Database
from indexes.decisions import Decision, encode_decision, parse_decision


class DecisionTable:
    """The decisions of a store. They stay until a person forgets them."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def list(self) -> list[Decision]:
        """Return all decisions, the earliest first."""
        rows = self._database.fetch_rows("SELECT record FROM decisions")
        decisions = [self._database.parse(record, parse_decision) for (record,) in rows]
        return sorted(decisions, key=lambda decision: decision.order)

    def put(self, decisions: Iterable[Decision]) -> None:
        """Write decisions; those with an id that is there already change nothing."""
        for decision in decisions:
            if self._database.fetch_rows("SELECT 1 FROM decisions WHERE id = ?", decision.id):
                continue
            self._database.write(
                "INSERT INTO decisions VALUES (?, ?)", decision.id, encode_decision(decision)
            )
            self._database.write_many(
                "INSERT INTO decided_contents VALUES (?, ?, ?)",
                ((decision.id, content.hash, content.pixel_hash) for content in decision.contents),
            )

    def remove(self, ids: Iterable[str]) -> None:
        """Remove decisions by their ids."""
        self._database.write_many("DELETE FROM decisions WHERE id = ?", ((id_,) for id_ in ids))

    def find_images(self) -> dict[bytes, int]:
        """Return the id of each image that a decision is about, by hash; in use or not.

        Images that only have the pixels of such a content are not among them.
        """
        return dict(
            self._database.fetch_rows(
                "SELECT hash, id FROM images WHERE hash IN (SELECT hash FROM decided_contents)"
            )
        )
