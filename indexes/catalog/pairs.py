"""Which vectors a store has, which segments hold them, and which of them are close: the tables that images and files rest on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.database import Database

Ids = NDArray[np.int64]
IMAGE_IN_USE = (
    "EXISTS (SELECT 1 FROM files WHERE image = images.id)"  # an image that some file holds
)
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


@dataclass(frozen=True, slots=True)
class JoinWatermark:
    """How far the pairs of the store are in its edges, down to the score `floor`.

    For a vector x up to `through`, every pair with a y < x is there; up to `until`, every pair with a y <= `earlier`. Where a join by
    buckets had a part in it, `recall` is the least share that one of them was measured to find; 1 is exact.
    """

    floor: float
    done: int = 0
    block_end: int = 0
    block_done: int = 0
    recall: float = 1.0


class PairTables(Database):
    """What is asked of segments, vectors and edges, and what is written of them."""

    # --- segments and vectors ---

    def put_segment(self, row: SegmentRow) -> None:
        """Name a segment that is on disk, or note what the filesystem says of it now."""
        self.write(
            f"INSERT OR REPLACE INTO segments ({SEGMENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(row),
        )

    def remove_segments(self, names: Iterable[str]) -> None:
        """Name segments no more."""
        self.write_many("DELETE FROM segments WHERE blake3 = ?", ((name,) for name in names))

    def list_segments(self) -> list[SegmentRow]:
        """All segments, in the order of the ids in them."""
        return [
            SegmentRow(*row)
            for row in self.fetch_rows(f"SELECT {SEGMENT_COLUMNS} FROM segments ORDER BY first")
        ]

    def get_next_vector_id(self) -> int:
        """The id that the next new vector gets; ids are never used twice."""
        return self._get_next_id("vectors")

    def _get_next_id(self, table: str) -> int:
        rows = self.fetch_rows("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(rows[0][0]) + 1 if rows else 1

    def put_vectors(self, digests: Mapping[int, int]) -> None:
        """Write new vectors, by id, with their codes: 64 bits that equal vectors share."""
        self.write_many("INSERT INTO vectors (id, digest) VALUES (?, ?)", digests.items())

    def find_vectors_by_digest(self, digests: Iterable[int]) -> dict[int, int]:
        """The first vector with each of some codes."""
        return dict(
            self.stream_rows_in(
                "SELECT digest, min(id) FROM vectors WHERE digest IN ({}) GROUP BY digest", digests
            )
        )

    def find_vectors_by_pixel_hash(self, pixel_hashes: Iterable[bytes]) -> dict[bytes, int]:
        """The vectors of images with these upright pixels."""
        return dict(
            self.stream_rows_in(
                "SELECT pixel_hash, vector FROM images WHERE vector IS NOT NULL AND pixel_hash IN ({})",
                pixel_hashes,
            )
        )

    def find_vectors_of_images(self, image_ids: Iterable[int]) -> dict[int, int | None]:
        """The vector of each of `images`; None for those that have none."""
        return dict(
            self.stream_rows_in("SELECT id, vector FROM images WHERE id IN ({})", image_ids)
        )

    def find_images_of_vectors(self, vector_ids: Iterable[int]) -> list[tuple[int, int]]:
        """(image, vector) for each image that some file holds, of those with one of `vectors`."""
        sql = "SELECT id, vector FROM images WHERE vector IN ({}) AND EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        return list(self.stream_rows_in(sql, vector_ids))

    def stream_vectors_by_image_hash(self) -> Iterator[tuple[bytes, int]]:
        """(hash, vector) of each image that has a vector and that some file holds."""
        return self.stream_rows(
            f"SELECT hash, vector FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE}"
        )

    def list_vectors_in_use(self, first_id: int, last_id: int) -> Ids:
        """Those vectors with ids from `first` to `last` that some file needs; the others are tombstones. In order."""
        sql = (
            "SELECT DISTINCT vector FROM images WHERE vector BETWEEN ? AND ?"
            " AND EXISTS (SELECT 1 FROM files WHERE image = images.id) ORDER BY vector"
        )
        return np.fromiter((row[0] for row in self.stream_rows(sql, first_id, last_id)), np.int64)

    def list_vector_ids(self, first_id: int, last_id: int) -> Ids:
        """Every vector that the catalog knows with an id from `first` to `last`, in order."""
        return np.fromiter(
            (
                row[0]
                for row in self.stream_rows(
                    "SELECT id FROM vectors WHERE id BETWEEN ? AND ? ORDER BY id", first_id, last_id
                )
            ),
            np.int64,
        )

    def delete_tombstones(self, vector_ids: Ids) -> None:
        """Forget vectors that no file needs, with their edges, and every image that no file holds."""
        self.write("CREATE TEMP TABLE buried (id INTEGER PRIMARY KEY)")
        self.write_many("INSERT INTO buried VALUES (?)", ((id_,) for id_ in vector_ids.tolist()))
        self.write("DELETE FROM edges WHERE left IN (SELECT id FROM buried)")
        self.write("DELETE FROM edges WHERE right IN (SELECT id FROM buried)")
        self.write(
            "DELETE FROM images WHERE (vector IS NULL OR vector IN (SELECT id FROM buried))"
            " AND NOT EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        )
        self.write("DELETE FROM vectors WHERE id IN (SELECT id FROM buried)")
        self.write("DROP TABLE buried")

    def invalidate_vectors(self, first_id: int, last_id: int) -> None:
        """Forget vectors with ids from `first` to `last`, with their edges; their images stay, to be embedded again."""
        self.write(
            "UPDATE images SET vector = NULL WHERE vector BETWEEN ? AND ?", first_id, last_id
        )
        self.write("DELETE FROM edges WHERE left BETWEEN ? AND ?", first_id, last_id)
        self.write("DELETE FROM edges WHERE right BETWEEN ? AND ?", first_id, last_id)
        self.write("DELETE FROM vectors WHERE id BETWEEN ? AND ?", first_id, last_id)

    # --- edges ---

    def get_join_watermark(self) -> JoinWatermark | None:
        """How far the pairs are found; None before the first join."""
        rows = self.fetch_rows(
            "SELECT floor, done, block_end, block_done, recall FROM join_watermark"
        )
        return JoinWatermark(*rows[0]) if rows else None

    def put_edges(
        self, watermark: JoinWatermark, left: Ids, right: Ids, score: NDArray[np.float64]
    ) -> None:
        """Write pairs, and how far they reach; those below a floor that was raised go."""
        before = self.get_join_watermark()
        if before and before.floor < watermark.floor:
            self.write("DELETE FROM edges WHERE score < ?", watermark.floor)
        self.write_many(
            "INSERT OR IGNORE INTO edges (left, right, score) VALUES (?, ?, ?)",
            zip(left.tolist(), right.tolist(), score.tolist(), strict=True),
        )
        self.write(
            "INSERT OR REPLACE INTO join_watermark VALUES (1, ?, ?, ?, ?, ?)", *astuple(watermark)
        )

    def stream_edges(self, min_score: float) -> Iterator[tuple[int, int, float]]:
        """(left, right, score) of each pair of vectors with score >= least."""
        return self.stream_rows("SELECT left, right, score FROM edges WHERE score >= ?", min_score)

    def delete_edges(self) -> None:
        """Forget all pairs; the next join finds them again."""
        self.write("DELETE FROM edges")
        self.write("DELETE FROM join_watermark")

    def count_edges(self) -> int:
        """How many pairs are kept."""
        return int(self.fetch_rows("SELECT count(*) FROM edges")[0][0])
