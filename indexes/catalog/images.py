"""The table of images, by id and by content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from indexes.catalog.database import Database
from indexes.records import FLAG_DAMAGED, Image

# SQL that is true of a row of `images` that a file has as its content, missing files included.
IMAGE_IN_USE = "EXISTS (SELECT 1 FROM files WHERE image = images.id)"
# SQL that is true of a row of `images` that compaction keeps: it is in use, or a decision is about
# it, and copies of it have to be known after its last file is gone.
IMAGE_NEEDED = (
    f"({IMAGE_IN_USE} OR EXISTS (SELECT 1 FROM decided_contents"
    " WHERE decided_contents.hash = images.hash))"
)
# SQL that is true of a row of `images` that is lone: no edge, verdict or decision is about it, and
# no other image or file has its pixels. It is in no pair, and in no group.
IMAGE_LONE = """(
    vector NOT IN (SELECT left FROM edges UNION SELECT right FROM edges)
    AND id NOT IN (SELECT first FROM verdicts UNION SELECT second FROM verdicts)
    AND hash NOT IN (SELECT hash FROM decided_contents)
    AND pixel_hash NOT IN (SELECT pixel_hash FROM images GROUP BY pixel_hash HAVING count(*) > 1)
    AND id NOT IN (
        SELECT image FROM files WHERE image IS NOT NULL GROUP BY image HAVING count(*) > 1
    ))"""
CONTENT_COLUMNS = (
    "hash, pixel_hash, width, height, format, size, featureless, flags, metadata, taken_at"
)


class ImageTable:
    """The images of a store.

    An image stays until compaction after its last file is removed, and as long as a decision is
    about it.
    """

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def get_next_id(self) -> int:
        """Return the id that the next new image gets; ids are never used twice."""
        return self._database.get_next_id("images")

    def put(self, image_id: int, image: Image, vector_id: int | None) -> None:
        """Write a new image; `vector_id` is None for an image without a vector."""
        self._database.write(
            f"INSERT INTO images (id, {CONTENT_COLUMNS}, vector)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            image_id,
            image.hash,
            image.pixel_hash,
            image.width,
            image.height,
            image.format,
            image.size,
            image.is_featureless,
            " ".join(image.flags),
            " ".join(image.metadata_kinds),
            image.taken_at,
            vector_id,
        )

    def update(self, image_id: int, image: Image, vector_id: int | None) -> None:
        """Write what decoding and embedding an image again gave."""
        self._database.write(
            "UPDATE images SET pixel_hash = ?, featureless = ?, flags = ?, metadata = ?,"
            " taken_at = ?, vector = ? WHERE id = ?",
            image.pixel_hash,
            image.is_featureless,
            " ".join(self._keep_damage(image_id, image.flags)),
            " ".join(image.metadata_kinds),
            image.taken_at,
            vector_id,
            image_id,
        )

    def update_metadata(self, image_id: int, image: Image) -> None:
        """Write the flags, the kinds of metadata and the date of an image that was read again."""
        self._database.write(
            "UPDATE images SET flags = ?, metadata = ?, taken_at = ? WHERE id = ?",
            " ".join(self._keep_damage(image_id, image.flags)),
            " ".join(image.metadata_kinds),
            image.taken_at,
            image_id,
        )

    def reset(self, image_id: int, image: Image) -> None:
        """Write the pixel hash and size of an image, without a vector until it has a new one."""
        self._database.write(
            "UPDATE images SET pixel_hash = ?, width = ?, height = ?, featureless = 0,"
            " vector = NULL WHERE id = ?",
            image.pixel_hash,
            image.width,
            image.height,
            image_id,
        )

    def _keep_damage(self, image_id: int, flags: Sequence[str]) -> tuple[str, ...]:
        """Return the flags of an image that was read again, damaged if it was known to be.

        A sound copy may have shown the damage, which the image alone does not.
        """
        known = self._database.fetch_rows("SELECT flags FROM images WHERE id = ?", image_id)
        was_damaged = any(FLAG_DAMAGED in row[0].split() for row in known)
        is_new = was_damaged and FLAG_DAMAGED not in flags
        return (*flags, FLAG_DAMAGED) if is_new else tuple(flags)

    def find_unembedded(self) -> set[int]:
        """Return the ids of the images in use whose vector was lost."""
        sql = f"SELECT id FROM images WHERE vector IS NULL AND NOT featureless AND {IMAGE_IN_USE}"
        return {id_ for (id_,) in self._database.fetch_rows(sql)}

    def get_ids(self, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """Return the id of each image in the catalog, by its hash."""
        sql = "SELECT hash, id FROM images WHERE hash IN ({})"
        return dict(self._database.stream_rows_in(sql, hashes))

    def find_complete_hashes(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Return those hashes whose image is in the catalog and has a vector or is featureless."""
        sql = "SELECT hash FROM images WHERE (vector IS NOT NULL OR featureless) AND hash IN ({})"
        return {hash_ for (hash_,) in self._database.stream_rows_in(sql, hashes)}

    def get(self, ids: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """Yield (id, image) of each id that is in the catalog."""
        sql = f"SELECT id, {CONTENT_COLUMNS} FROM images WHERE id IN ({{}})"
        for id_, *content in self._database.stream_rows_in(sql, ids):
            yield id_, _make_image(content)

    def find_by_pixel_hash(self, pixel_hash: bytes) -> list[int]:
        """Return the ids of the images in use with these upright pixels, ascending."""
        sql = f"SELECT id FROM images WHERE pixel_hash = ? AND {IMAGE_IN_USE} ORDER BY id"
        return [id_ for (id_,) in self._database.fetch_rows(sql, pixel_hash)]

    def find_of_pixel_hashes(self, pixel_hashes: Iterable[bytes]) -> list[tuple[int, bytes]]:
        """Return (image id, pixel hash) of each image with these upright pixels, in use or not."""
        sql = "SELECT id, pixel_hash FROM images WHERE pixel_hash IN ({})"
        return list(self._database.stream_rows_in(sql, pixel_hashes))

    def find_with_copies(self) -> list[tuple[int, int | None]]:
        """List (image id, vector id) of all images that edges between vectors do not cover.

        Those are the images that share their vector with another or have several files, and then,
        with None as their vector, the images without a vector.
        """
        with_vector = self._database.fetch_rows(
            "SELECT id, vector FROM images"
            " WHERE vector IN (SELECT vector FROM images GROUP BY vector HAVING count(*) > 1)"
            " OR vector IS NOT NULL"
            " AND id IN (SELECT image FROM files GROUP BY image HAVING count(*) > 1)"
        )
        without_vector = self._database.fetch_rows(
            "SELECT id, NULL FROM images WHERE vector IS NULL ORDER BY id"
        )
        return with_vector + without_vector

    def find_of_vectors(self, vector_ids: Iterable[int]) -> list[tuple[int, int]]:
        """Return (image id, vector id) of each image in use that has one of `vector_ids`."""
        sql = f"SELECT id, vector FROM images WHERE vector IN ({{}}) AND {IMAGE_IN_USE}"
        return list(self._database.stream_rows_in(sql, vector_ids))

    def list_in_use(self) -> list[int]:
        """Return the ids of the images in use, ascending."""
        sql = f"SELECT id FROM images WHERE {IMAGE_IN_USE} ORDER BY id"
        return [id_ for (id_,) in self._database.fetch_rows(sql)]

    def stream_needed_hashes(self) -> Iterator[bytes]:
        """Yield the hashes of the images that compaction keeps."""
        sql = f"SELECT hash FROM images WHERE {IMAGE_NEEDED}"
        for (hash_,) in self._database.stream_rows(sql):
            yield hash_

    def find_lone(self) -> list[bytes]:
        """Return the hashes of the images with a vector that are in no pair and in no group."""
        return [
            hash_
            for (hash_,) in self._database.fetch_rows(f"SELECT hash FROM images WHERE {IMAGE_LONE}")
        ]

    def stream_hashes_in_use(self) -> Iterator[bytes]:
        """Yield the hashes of the images in use."""
        sql = f"SELECT hash FROM images WHERE {IMAGE_IN_USE}"
        for (hash_,) in self._database.stream_rows(sql):
            yield hash_


def _make_image(content: list[Any]) -> Image:
    """Make an image from a row of CONTENT_COLUMNS."""
    hash_, pixel_hash, width, height, format_, size, featureless, flags, metadata, taken = content
    return Image(
        hash_,
        pixel_hash,
        width,
        height,
        format_,
        size,
        bool(featureless),
        tuple(flags.split()),
        tuple(metadata.split()),
        taken,
    )
