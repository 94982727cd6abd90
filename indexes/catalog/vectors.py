"""The tables of vectors and of the segments that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.database import Database
from indexes.catalog.images import IMAGE_IN_USE, IMAGE_NEEDED

Ids = NDArray[np.int64]
SEGMENT_COLUMNS = "blake3, rows, size, first, last, rewrites, mtime_ns, ctime_ns, inode"


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment, an immutable file of vectors. Its name is its blake3, in hex.

    It holds `vector_count` vectors with ids from `first_id` to `last_id`, ascending; the ids in an
    older segment are all lower. `rewrites` is how often compaction has copied its vectors. The
    stat is that of the file when its bytes were last known to have this hash.
    """

    blake3: str
    vector_count: int
    size: int
    first_id: int
    last_id: int
    rewrites: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class VectorTable:
    """The vectors and segments of a store.

    A vector that no needed image has is a tombstone. Its id is never given to another vector.
    """

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def put_segment(self, row: SegmentRow) -> None:
        """Write a segment that is on disk, or its new stat."""
        self._database.write(
            f"INSERT OR REPLACE INTO segments ({SEGMENT_COLUMNS})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(row),
        )

    def remove_segments(self, names: Iterable[str]) -> None:
        """Remove segments by name; their files stay."""
        self._database.write_many(
            "DELETE FROM segments WHERE blake3 = ?", ((name,) for name in names)
        )

    def list_segments(self) -> list[SegmentRow]:
        """Return all segments, ordered by the ids in them."""
        rows = self._database.fetch_rows(f"SELECT {SEGMENT_COLUMNS} FROM segments ORDER BY first")
        return [SegmentRow(*row) for row in rows]

    def get_next_id(self) -> int:
        """Return the id that the next new vector gets; ids are never used twice."""
        return self._database.get_next_id("vectors")

    def put(self, digests: Mapping[int, int]) -> None:
        """Write new vectors; `digests` has 64 bits of each vector's hash, by vector id."""
        self._database.write_many("INSERT INTO vectors (id, digest) VALUES (?, ?)", digests.items())

    def find_by_digest(self, digests: Iterable[int]) -> dict[int, int]:
        """Return the lowest vector id with each digest that the catalog has, by digest."""
        sql = "SELECT digest, min(id) FROM vectors WHERE digest IN ({}) GROUP BY digest"
        return dict(self._database.stream_rows_in(sql, digests))

    def find_by_pixel_hash(self, pixel_hashes: Iterable[bytes]) -> dict[bytes, int]:
        """Return the vector id of images with these upright pixels, by pixel hash."""
        sql = (
            "SELECT pixel_hash, vector FROM images WHERE vector IS NOT NULL AND pixel_hash IN ({})"
        )
        return dict(self._database.stream_rows_in(sql, pixel_hashes))

    def find_of_images(self, image_ids: Iterable[int]) -> dict[int, int | None]:
        """Return the vector id of each image, by image id; None for an image without a vector."""
        sql = "SELECT id, vector FROM images WHERE id IN ({})"
        return dict(self._database.stream_rows_in(sql, image_ids))

    def stream_by_image_hash(self) -> Iterator[tuple[bytes, int]]:
        """Yield (image hash, vector id) of each image in use that has a vector."""
        return self._database.stream_rows(
            f"SELECT hash, vector FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE}"
        )

    def list_needed(self, first_id: int, last_id: int) -> Ids:
        """Return the vectors from `first_id` to `last_id` that are no tombstones, ascending."""
        sql = (
            "SELECT DISTINCT vector FROM images"
            f" WHERE vector BETWEEN ? AND ? AND {IMAGE_NEEDED} ORDER BY vector"
        )
        return self._fetch_ids(sql, first_id, last_id)

    def list_ids(self, first_id: int, last_id: int) -> Ids:
        """Return every vector from `first_id` to `last_id`, tombstones included, ascending."""
        sql = "SELECT id FROM vectors WHERE id BETWEEN ? AND ? ORDER BY id"
        return self._fetch_ids(sql, first_id, last_id)

    def _fetch_ids(self, sql: str, first_id: int, last_id: int) -> Ids:
        rows = self._database.stream_rows(sql, first_id, last_id)
        return np.fromiter((id_ for (id_,) in rows), np.int64)

    def delete_tombstones(self, vector_ids: Ids) -> None:
        """Delete tombstones with their edges, and the images that are not needed.

        Images that are not needed stay only with a vector that is not among `vector_ids`.
        """
        self._database.write("CREATE TEMP TABLE deleted (id INTEGER PRIMARY KEY)")
        self._database.write_many(
            "INSERT INTO deleted VALUES (?)", ((id_,) for id_ in vector_ids.tolist())
        )
        self._database.write("DELETE FROM edges WHERE left IN (SELECT id FROM deleted)")
        self._database.write("DELETE FROM edges WHERE right IN (SELECT id FROM deleted)")
        # An image that a decision has been about for a moment is needed, and loses its vector.
        self._database.write(
            "UPDATE images SET vector = NULL WHERE vector IN (SELECT id FROM deleted)"
            f" AND {IMAGE_NEEDED}"
        )
        self._database.write(
            "DELETE FROM images WHERE (vector IS NULL OR vector IN (SELECT id FROM deleted))"
            f" AND NOT {IMAGE_NEEDED}"
        )
        self._database.write("DELETE FROM vectors WHERE id IN (SELECT id FROM deleted)")
        self._database.write("DROP TABLE deleted")

    def invalidate(self, first_id: int, last_id: int) -> None:
        """Delete the vectors from `first_id` to `last_id` with their edges.

        Their images stay, to be embedded again.
        """
        id_range = (first_id, last_id)
        self._database.write(
            "UPDATE images SET vector = NULL WHERE vector BETWEEN ? AND ?", *id_range
        )
        self._database.write("DELETE FROM edges WHERE left BETWEEN ? AND ?", *id_range)
        self._database.write("DELETE FROM edges WHERE right BETWEEN ? AND ?", *id_range)
        self._database.write("DELETE FROM vectors WHERE id BETWEEN ? AND ?", *id_range)
