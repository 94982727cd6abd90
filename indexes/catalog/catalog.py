"""The catalog: the SQLite database of a store, table by table. It is the one commit point."""

from __future__ import annotations

from pathlib import Path

from indexes.catalog.database import Database
from indexes.catalog.decisions import DecisionTable
from indexes.catalog.files import FileTable
from indexes.catalog.images import IMAGE_NEEDED, ImageTable
from indexes.catalog.metadata import MetadataTable
from indexes.catalog.pairs import PairTable
from indexes.catalog.roots import RootTable
from indexes.catalog.runs import RunTable
from indexes.catalog.schema import SCHEMA_MIGRATIONS
from indexes.catalog.settings import SettingsTable
from indexes.catalog.vectors import VectorTable
from indexes.catalog.verdicts import VerdictTable
from indexes.paths import CATALOG_NAME
from indexes.records import RunOutcome

# The tables that belong to one space. Saved thresholds were chosen for its model.
TABLES_OF_SPACE = ("edges", "join_watermark", "segments", "vectors", "space", "saved_thresholds")
# Those of them that a new space brings along. Ids of vectors change with it, so they are valid only
# inside one snapshot.
COPIED_TABLES = ("space", "vectors", "edges", "join_watermark")


class Catalog(Database):
    """The database of one store.

    Its tables are attributes; transactions and snapshots span all of them.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Open `folder`/catalog.db; with `write`, create it if it is missing and migrate it.

        Raises what `Database` raises.
        """
        super().__init__(folder / CATALOG_NAME, SCHEMA_MIGRATIONS, write=write)
        self.settings = SettingsTable(self)
        self.roots = RootTable(self)
        self.images = ImageTable(self)
        self.metadata = MetadataTable(self)
        self.files = FileTable(self, self.images)
        self.vectors = VectorTable(self)
        self.pairs = PairTable(self)
        self.verdicts = VerdictTable(self)
        self.runs = RunTable(self)
        self.decisions = DecisionTable(self)

    def is_empty(self) -> bool:
        """Tell if there is no image, vector or segment, so that any space can be bound to it."""
        ((has_any,),) = self.fetch_rows(
            "SELECT EXISTS (SELECT 1 FROM images UNION ALL SELECT 1 FROM vectors"
            " UNION ALL SELECT 1 FROM segments)"
        )
        return not has_any

    def replace_vectors_from(self, attached_name: str) -> None:
        """Replace the space, vectors and edges by those of the catalog attached by this name.

        Images correspond by their hash. An image that the attached catalog lacks loses its vector,
        to be embedded again, and is deleted if it is not needed. The caller writes the segments.
        """
        self.write("UPDATE images SET vector = NULL, featureless = 0")
        for table in TABLES_OF_SPACE:
            self.write(f"DELETE FROM {table}")
        for table in COPIED_TABLES:
            self.write(f"INSERT INTO {table} SELECT * FROM {attached_name}.{table}")
        self.write(
            "UPDATE images SET pixel_hash = new.pixel_hash, featureless = new.featureless,"
            " flags = CASE WHEN ' ' || images.flags || ' ' LIKE '% damaged %'"
            " AND ' ' || new.flags || ' ' NOT LIKE '% damaged %'"
            " THEN trim(new.flags || ' damaged') ELSE new.flags END,"
            " metadata = new.metadata, taken_at = new.taken_at,"
            " vector = new.vector"
            f" FROM {attached_name}.images AS new WHERE new.hash = images.hash"
        )
        self.write(
            "INSERT OR REPLACE INTO metadata (image, version, record)"
            f" SELECT images.id, new.version, new.record FROM {attached_name}.metadata AS new"
            f" JOIN {attached_name}.images AS new_images ON new_images.id = new.image"
            " JOIN images ON images.hash = new_images.hash"
        )
        self.write(f"DELETE FROM images WHERE vector IS NULL AND NOT {IMAGE_NEEDED}")
        # The edges are no longer those of the earlier runs: add a run with the coverage of the one
        # that joined the attached catalog.
        now = "strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')"
        coverage = f"(SELECT coverage FROM {attached_name}.runs ORDER BY id DESC LIMIT 1)"
        self.write(
            "INSERT INTO runs (started, ended, outcome, coverage)"
            f" SELECT {now}, {now}, ?, ifnull({coverage}, '{{}}')",
            RunOutcome.MIGRATED,
        )
