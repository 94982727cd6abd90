"""The table of metadata: what the file of each image says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from indexes.catalog.database import Database
from indexes.catalog.images import IMAGE_IN_USE
from indexes.metadata import METADATA_VERSION, ImageMetadata, decode_metadata, encode_metadata


class MetadataTable:
    """The metadata of images, by image id. It goes with its image."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def put(self, image_id: int, metadata: ImageMetadata) -> None:
        """Write the metadata of an image, as of METADATA_VERSION."""
        self._database.write(
            "INSERT OR REPLACE INTO metadata (image, version, record) VALUES (?, ?, ?)",
            image_id,
            METADATA_VERSION,
            encode_metadata(metadata),
        )

    def get(self, image_ids: Iterable[int]) -> Iterator[tuple[int, ImageMetadata]]:
        """Yield (image id, metadata) of each image whose metadata was read.

        Raises StoreDamaged if a record is none.
        """
        sql = "SELECT image, record FROM metadata WHERE image IN ({})"
        for image_id, record in self._database.stream_rows_in(sql, image_ids):
            yield image_id, self._database.parse(record, decode_metadata)

    def find_outdated(self) -> list[int]:
        """Return the ids of images in use whose metadata was never read, or in an older version."""
        sql = (
            f"SELECT id FROM images WHERE {IMAGE_IN_USE} AND id NOT IN"
            " (SELECT image FROM metadata WHERE version >= ?) ORDER BY id"
        )
        return [id_ for (id_,) in self._database.fetch_rows(sql, METADATA_VERSION)]
