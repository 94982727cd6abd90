"""Vectors with the segments that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.database import IMAGE_IN_USE, Database

Ids = NDArray[np.int64]
SEGMENT_COLUMNS = "blake3, rows, size, first, last, rewrites, mtime_ns, ctime_ns, inode"


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """An immutable file of vectors: its blake3 is its name, and what is committed is that hash.

    It holds `rows` vectors with ids from `first` to `last`, ascending; those of an older segment are all lower. `rewrites` is how often
    compaction has copied them. The other numbers are what the filesystem said of the file when its hash was known to be right.
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
    """Vectors with the segments that hold them."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def put_segment(self, row: SegmentRow) -> None:
        """Name a segment that is on disk, or note what the filesystem says of it now."""
        self._database.write(
            f"INSERT OR REPLACE INTO segments ({SEGMENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(row),
        )

    def remove_segments(self, names: Iterable[str]) -> None:
        """Name segments no more."""
        self._database.write_many(
            "DELETE FROM segments WHERE blake3 = ?", ((name,) for name in names)
        )

    def list_segments(self) -> list[SegmentRow]:
        """All segments, in the order of the ids in them."""
        return [
            SegmentRow(*row)
            for row in self._database.fetch_rows(
                f"SELECT {SEGMENT_COLUMNS} FROM segments ORDER BY first"
            )
        ]

    def get_next_id(self) -> int:
        """The id that the next new vector gets; ids are never used twice."""
        return self._database.get_next_id("vectors")

    def put(self, digests: Mapping[int, int]) -> None:
        """Write new vectors, by id, with their codes: 64 bits that equal vectors share."""
        self._database.write_many("INSERT INTO vectors (id, digest) VALUES (?, ?)", digests.items())

    def find_by_digest(self, digests: Iterable[int]) -> dict[int, int]:
        """The first vector with each of some codes."""
        return dict(
            self._database.stream_rows_in(
                "SELECT digest, min(id) FROM vectors WHERE digest IN ({}) GROUP BY digest", digests
            )
        )

    def find_by_pixel_hash(self, pixel_hashes: Iterable[bytes]) -> dict[bytes, int]:
        """The vectors of images with these upright pixels."""
        return dict(
            self._database.stream_rows_in(
                "SELECT pixel_hash, vector FROM images WHERE vector IS NOT NULL AND pixel_hash IN ({})",
                pixel_hashes,
            )
        )

    def find_of_images(self, image_ids: Iterable[int]) -> dict[int, int | None]:
        """The vector of each of `images`; None for those that have none."""
        return dict(
            self._database.stream_rows_in(
                "SELECT id, vector FROM images WHERE id IN ({})", image_ids
            )
        )

    def stream_by_image_hash(self) -> Iterator[tuple[bytes, int]]:
        """(hash, vector) of each image that has a vector and that some file holds."""
        return self._database.stream_rows(
            f"SELECT hash, vector FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE}"
        )

    def list_in_use(self, first_id: int, last_id: int) -> Ids:
        """Those vectors with ids from `first` to `last` that some file needs; the others are tombstones. In order."""
        sql = (
            "SELECT DISTINCT vector FROM images WHERE vector BETWEEN ? AND ?"
            " AND EXISTS (SELECT 1 FROM files WHERE image = images.id) ORDER BY vector"
        )
        return np.fromiter(
            (row[0] for row in self._database.stream_rows(sql, first_id, last_id)), np.int64
        )

    def list_ids(self, first_id: int, last_id: int) -> Ids:
        """Every vector that the catalog knows with an id from `first` to `last`, in order."""
        return np.fromiter(
            (
                row[0]
                for row in self._database.stream_rows(
                    "SELECT id FROM vectors WHERE id BETWEEN ? AND ? ORDER BY id", first_id, last_id
                )
            ),
            np.int64,
        )

    def delete_tombstones(self, vector_ids: Ids) -> None:
        """Forget vectors that no file needs, with their edges, and every image that no file holds."""
        self._database.write("CREATE TEMP TABLE buried (id INTEGER PRIMARY KEY)")
        self._database.write_many(
            "INSERT INTO buried VALUES (?)", ((id_,) for id_ in vector_ids.tolist())
        )
        self._database.write("DELETE FROM edges WHERE left IN (SELECT id FROM buried)")
        self._database.write("DELETE FROM edges WHERE right IN (SELECT id FROM buried)")
        self._database.write(
            "DELETE FROM images WHERE (vector IS NULL OR vector IN (SELECT id FROM buried))"
            " AND NOT EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        )
        self._database.write("DELETE FROM vectors WHERE id IN (SELECT id FROM buried)")
        self._database.write("DROP TABLE buried")

    def invalidate(self, first_id: int, last_id: int) -> None:
        """Forget vectors with ids from `first` to `last`, with their edges; their images stay, to be embedded again."""
        self._database.write(
            "UPDATE images SET vector = NULL WHERE vector BETWEEN ? AND ?", first_id, last_id
        )
        self._database.write("DELETE FROM edges WHERE left BETWEEN ? AND ?", first_id, last_id)
        self._database.write("DELETE FROM edges WHERE right BETWEEN ? AND ?", first_id, last_id)
        self._database.write("DELETE FROM vectors WHERE id BETWEEN ? AND ?", first_id, last_id)
