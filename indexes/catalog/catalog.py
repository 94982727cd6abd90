"""The SQLite database of a store, table by table. The one commit point."""

from __future__ import annotations

from pathlib import Path

from indexes.catalog.database import Database
from indexes.catalog.files import FileTable
from indexes.catalog.images import ImageTable
from indexes.catalog.pairs import PairTable
from indexes.catalog.roots import RootTable
from indexes.catalog.runs import RunTable
from indexes.catalog.schema import SCHEMA_MIGRATIONS
from indexes.catalog.settings import SettingsTable
from indexes.catalog.vectors import VectorTable
from indexes.catalog.verdicts import VerdictTable


class Catalog(Database):
    """The database of one store. Its tables are attributes; transactions and snapshots span all of them."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Open `folder`/catalog.db; with `write`, create it if it is missing and migrate an older one."""
        super().__init__(folder / "catalog.db", SCHEMA_MIGRATIONS, write=write)
        self.settings = SettingsTable(self)
        self.roots = RootTable(self)
        self.images = ImageTable(self)
        self.files = FileTable(self, self.images)
        self.vectors = VectorTable(self)
        self.pairs = PairTable(self)
        self.verdicts = VerdictTable(self)
        self.runs = RunTable(self)

    def is_empty(self) -> bool:
        """Whether it has no image, vector or segment, so that no space has any claim to it."""
        ((some,),) = self.fetch_rows(
            "SELECT EXISTS (SELECT 1 FROM images UNION ALL SELECT 1 FROM vectors UNION ALL SELECT 1 FROM segments)"
        )
        return not some

    def replace_vectors_from(self, attached_name: str) -> None:
        """Put the space, vectors and pairs of a catalog that is `beside`, under the name `other`, in the place of one's own.

        Images are the same by their hash. Those that the other does not have wait to be embedded, unless no file holds them. Segments are
        to be put by the caller.
        """
        self.write("UPDATE images SET vector = NULL, featureless = 0")
        for table in (
            "edges",
            "join_watermark",
            "segments",
            "vectors",
            "space",
            "saved_thresholds",
        ):  # what was chosen was for the other model
            self.write(f"DELETE FROM {table}")
        # Ids of vectors begin anew: nothing that is read outside of one snapshot goes by them.
        for table in ("space", "vectors", "edges", "join_watermark"):
            self.write(f"INSERT INTO {table} SELECT * FROM {attached_name}.{table}")
        self.write(
            "UPDATE images SET pixel_hash = new.pixel_hash, featureless = new.featureless, flags = new.flags, metadata = new.metadata,"
            " taken_at = new.taken_at, vector = new.vector"
            f" FROM {attached_name}.images AS new WHERE new.hash = images.hash"
        )
        self.write(
            "DELETE FROM images WHERE vector IS NULL AND NOT EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        )
        # The pairs are no longer those that the ingests before found.
        now, joined = (
            "strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')",
            f"(SELECT coverage FROM {attached_name}.runs ORDER BY id DESC LIMIT 1)",
        )
        self.write(
            f"INSERT INTO runs (started, ended, outcome, coverage) SELECT {now}, {now}, 'migrated', ifnull({joined}, '{{}}')"
        )
