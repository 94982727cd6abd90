"""The table of decisions, by id, and the contents that they are about.

They refer to contents by their hashes and not to images, so that no removal of images drops them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from indexes.catalog.database import Database
from indexes.catalog.images import IMAGE_IN_USE
from indexes.decisions import Decision, encode_decision, parse_decision

# Of a decided image that no file holds: images in use that are compared with it, by their score.
NEAREST_OF_DECIDED = 32
# (id, vector, pixel hash) of the decided images with a vector whose pixels no image in use has.
DECIDED_WITHOUT_FILE = f"""
    SELECT id, vector, pixel_hash FROM images AS decided
    WHERE vector IS NOT NULL AND hash IN (SELECT hash FROM decided_contents)
    AND NOT EXISTS (
        SELECT 1 FROM images WHERE images.pixel_hash = decided.pixel_hash AND {IMAGE_IN_USE}
    )"""
# (decided image, image in use) of the nearest ones; of images with equal pixels, one.
NEAR_DECIDED = f"""
    WITH decided AS MATERIALIZED ({DECIDED_WITHOUT_FILE}),
    near AS (
        SELECT decided.id AS decided, left AS vector, score
        FROM decided JOIN edges ON right = decided.vector
        UNION ALL
        SELECT decided.id, right, score
        FROM edges JOIN decided ON left = decided.vector
        UNION ALL SELECT id, vector, 1.0 FROM decided
    ),
    ranked AS (
        SELECT decided, min(images.id) AS image,
            row_number() OVER (PARTITION BY decided ORDER BY score DESC, pixel_hash) AS rank
        FROM near JOIN images USING (vector)
        WHERE score >= ? AND {IMAGE_IN_USE}
        GROUP BY decided, pixel_hash
    )
    SELECT decided, image FROM ranked WHERE rank <= ? AND NOT EXISTS (
        SELECT 1 FROM verdicts
        JOIN images AS own ON own.id = image
        JOIN images AS equal ON equal.pixel_hash = own.pixel_hash
        WHERE version >= ? AND (first, second) IN (VALUES (decided, equal.id), (equal.id, decided))
    )
    ORDER BY decided, image"""


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

    def find_without_file(self) -> Sequence[int]:
        """Return the ids of the decided images with a vector whose pixels no image in use has."""
        rows = self._database.fetch_rows(f"SELECT id FROM ({DECIDED_WITHOUT_FILE}) ORDER BY id")
        return [id_ for (id_,) in rows]

    def find_unverified_pairs(self, min_score: float, version: int) -> Sequence[tuple[int, int]]:
        """Return the pairs (decided image, image in use) without a verdict of `version` or newer.

        The decided images are those that no file holds any more, each with the NEAREST_OF_DECIDED
        images in use by their stored cosine (>= `min_score`).
        """
        if not self.find_without_file():
            return []  # without a scan of all edges
        return self._database.fetch_rows(NEAR_DECIDED, min_score, NEAREST_OF_DECIDED, version)
