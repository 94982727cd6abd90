"""Images, by id and by content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from indexes.catalog.database import Database
from indexes.records import (
    Image,
)


class ImageTable:
    """Images, by id and by content."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def get_next_id(self) -> int:
        """The id that the next new image gets; ids are never used twice."""
        return self._database.get_next_id("images")

    def put(self, image_id: int, image: Image, vector_id: int | None) -> None:
        """Write a new image; `vector` is None when it has none."""
        self._database.write(
            "INSERT INTO images (id, hash, pixel_hash, width, height, format, size, featureless, flags, metadata, taken_at, vector)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(
                image_id,
                image.hash,
                image.pixel_hash,
                image.width,
                image.height,
                image.format,
                image.size,
                image.is_featureless,
            ),
            *(" ".join(image.flags), " ".join(image.metadata), image.taken_at, vector_id),
        )

    def update(self, image_id: int, image: Image, vector_id: int | None) -> None:
        """Give an image that was embedded again its vector, and what else depends on how the model is shown it."""
        sql = "UPDATE images SET pixel_hash = ?, featureless = ?, flags = ?, metadata = ?, taken_at = ?, vector = ? WHERE id = ?"
        words = " ".join(image.flags), " ".join(image.metadata)
        self._database.write(
            sql, image.pixel_hash, image.is_featureless, *words, image.taken_at, vector_id, image_id
        )

    def find_unembedded(self) -> set[int]:
        """Images that some file holds and whose vector was lost."""
        sql = "SELECT id FROM images WHERE vector IS NULL AND NOT featureless AND EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        return {row[0] for row in self._database.fetch_rows(sql)}

    def get_ids(self, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """The ids of those `hashes` that are known."""
        return dict(
            self._database.stream_rows_in("SELECT hash, id FROM images WHERE hash IN ({})", hashes)
        )

    def find_complete_hashes(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Those `hashes` that are known and have all that they need: a vector, or no features."""
        sql = "SELECT hash FROM images WHERE (vector IS NOT NULL OR featureless) AND hash IN ({})"
        return {row[0] for row in self._database.stream_rows_in(sql, hashes)}

    def get(self, ids: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """(id, image) of each of `ids`."""
        sql = "SELECT id, hash, pixel_hash, width, height, format, size, featureless, flags, metadata, taken_at FROM images WHERE id IN ({})"
        for (
            id_,
            hash_,
            pixels,
            width,
            height,
            format_,
            size,
            featureless,
            notes,
            metadata,
            taken,
        ) in self._database.stream_rows_in(sql, ids):
            words = tuple(notes.split()), tuple(metadata.split())
            yield (
                id_,
                Image(
                    hash_, pixels, width, height, format_, size, bool(featureless), *words, taken
                ),
            )

    def find_by_pixel_hash(self, pixel_hash: bytes) -> list[int]:
        """Ids of the images with these upright pixels that some file holds."""
        sql = "SELECT id FROM images WHERE pixel_hash = ? AND EXISTS (SELECT 1 FROM files WHERE image = images.id) ORDER BY id"
        return [row[0] for row in self._database.fetch_rows(sql, pixel_hash)]

    def find_with_copies(self) -> list[tuple[int, int | None]]:
        """List (image, vector) of images that share their vector with another image or have several files, and (image, None) of images
        without a vector.
        """
        shared = (
            "SELECT id, vector FROM images WHERE vector IN (SELECT vector FROM images GROUP BY vector HAVING count(*) > 1)"
            " OR vector IS NOT NULL AND id IN (SELECT image FROM files GROUP BY image HAVING count(*) > 1)"
        )
        return self._database.fetch_rows(shared) + self._database.fetch_rows(
            "SELECT id, NULL FROM images WHERE vector IS NULL ORDER BY id"
        )

    def find_of_vectors(self, vector_ids: Iterable[int]) -> list[tuple[int, int]]:
        """(image, vector) for each image that some file holds, of those with one of `vectors`."""
        sql = "SELECT id, vector FROM images WHERE vector IN ({}) AND EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        return list(self._database.stream_rows_in(sql, vector_ids))

    def list_in_use(self) -> list[int]:
        """Ids of the images that a file holds, in order."""
        return [
            row[0]
            for row in self._database.fetch_rows(
                "SELECT id FROM images WHERE EXISTS (SELECT 1 FROM files WHERE image = images.id) ORDER BY id"
            )
        ]

    def stream_hashes_in_use(self) -> Iterator[bytes]:
        """Hashes of the images that a file holds."""
        for (hash_,) in self._database.stream_rows(
            "SELECT hash FROM images WHERE EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        ):
            yield hash_
