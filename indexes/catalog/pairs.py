"""Which vectors a store has, which segments hold them, and which of them are close: the tables that images and files rest on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.database import Database

Ids = NDArray[np.int64]
HELD = "EXISTS (SELECT 1 FROM files WHERE image = images.id)"  # an image that some file holds
SEGMENT = "blake3, rows, size, first, last, rewrites, mtime_ns, ctime_ns, inode"


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """An immutable file of vectors: its blake3 is its name, and what is committed is that hash.

    It holds `rows` vectors with ids from `first` to `last`, ascending; those of an older segment are all lower. `rewrites` is how often
    compaction has copied them. The other numbers are what the filesystem said of the file when its hash was known to be right.
    """

    blake3: str
    rows: int
    size: int
    first: int
    last: int
    rewrites: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Frontier:
    """How far the pairs of the store are in its edges, down to the score `floor`.

    For a vector x up to `through`, every pair with a y < x is there; up to `until`, every pair with a y <= `earlier`. Where a join by
    buckets had a part in it, `recall` is the least share that one of them was measured to find; 1 is exact.
    """

    floor: float
    through: int = 0
    until: int = 0
    earlier: int = 0
    recall: float = 1.0


class Vectors(Database):
    """What is asked of segments, vectors and edges, and what is written of them."""

    # --- segments and vectors ---

    def put_segment(self, row: SegmentRow) -> None:
        """Name a segment that is on disk, or note what the filesystem says of it now."""
        self.write(f"INSERT OR REPLACE INTO segments ({SEGMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *astuple(row))

    def remove_segments(self, names: Iterable[str]) -> None:
        """Name segments no more."""
        self.write_all("DELETE FROM segments WHERE blake3 = ?", ((name,) for name in names))

    def segments(self) -> list[SegmentRow]:
        """All segments, in the order of the ids in them."""
        return [SegmentRow(*row) for row in self.rows(f"SELECT {SEGMENT} FROM segments ORDER BY first")]

    def next_vector(self) -> int:
        """The id that the next new vector gets; ids are never used twice."""
        return self._next("vectors")

    def _next(self, table: str) -> int:
        rows = self.rows("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(rows[0][0]) + 1 if rows else 1

    def put_vectors(self, codes: Mapping[int, int]) -> None:
        """Write new vectors, by id, with their codes: 64 bits that equal vectors share."""
        self.write_all("INSERT INTO vectors (id, code) VALUES (?, ?)", codes.items())

    def vectors_with_codes(self, codes: Iterable[int]) -> dict[int, int]:
        """The first vector with each of some codes."""
        return dict(self.rows_for("SELECT code, min(id) FROM vectors WHERE code IN ({}) GROUP BY code", codes))

    def vectors_with_pixels(self, pixels: Iterable[bytes]) -> dict[bytes, int]:
        """The vectors of images with these upright pixels."""
        return dict(self.rows_for("SELECT pixels, vector FROM images WHERE vector IS NOT NULL AND pixels IN ({})", pixels))

    def vectors_of(self, images: Iterable[int]) -> dict[int, int | None]:
        """The vector of each of `images`; None for those that have none."""
        return dict(self.rows_for("SELECT id, vector FROM images WHERE id IN ({})", images))

    def images_of(self, vectors: Iterable[int]) -> list[tuple[int, int]]:
        """(image, vector) for each image that some file holds, of those with one of `vectors`."""
        sql = "SELECT id, vector FROM images WHERE vector IN ({}) AND EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        return list(self.rows_for(sql, vectors))

    def vectors_by_hash(self) -> Iterator[tuple[bytes, int]]:
        """(hash, vector) of each image that has a vector and that some file holds."""
        return self.stream(f"SELECT hash, vector FROM images WHERE vector IS NOT NULL AND {HELD}")

    def used_vectors(self, first: int, last: int) -> Ids:
        """Those vectors with ids from `first` to `last` that some file needs; the others are tombstones. In order."""
        sql = (
            "SELECT DISTINCT vector FROM images WHERE vector BETWEEN ? AND ?"
            " AND EXISTS (SELECT 1 FROM files WHERE image = images.id) ORDER BY vector"
        )
        return np.fromiter((row[0] for row in self.stream(sql, first, last)), np.int64)

    def vector_ids(self, first: int, last: int) -> Ids:
        """Every vector that the catalog knows with an id from `first` to `last`, in order."""
        return np.fromiter(
            (row[0] for row in self.stream("SELECT id FROM vectors WHERE id BETWEEN ? AND ? ORDER BY id", first, last)), np.int64
        )

    def bury(self, vectors: Ids) -> None:
        """Forget vectors that no file needs, with their edges, and every image that no file holds."""
        self.write("CREATE TEMP TABLE buried (id INTEGER PRIMARY KEY)")
        self.write_all("INSERT INTO buried VALUES (?)", ((id_,) for id_ in vectors.tolist()))
        self.write("DELETE FROM edges WHERE left IN (SELECT id FROM buried)")
        self.write("DELETE FROM edges WHERE right IN (SELECT id FROM buried)")
        self.write(
            "DELETE FROM images WHERE (vector IS NULL OR vector IN (SELECT id FROM buried))"
            " AND NOT EXISTS (SELECT 1 FROM files WHERE image = images.id)"
        )
        self.write("DELETE FROM vectors WHERE id IN (SELECT id FROM buried)")
        self.write("DROP TABLE buried")

    def lose_vectors(self, first: int, last: int) -> None:
        """Forget vectors with ids from `first` to `last`, with their edges; their images stay, to be embedded again."""
        self.write("UPDATE images SET vector = NULL WHERE vector BETWEEN ? AND ?", first, last)
        self.write("DELETE FROM edges WHERE left BETWEEN ? AND ?", first, last)
        self.write("DELETE FROM edges WHERE right BETWEEN ? AND ?", first, last)
        self.write("DELETE FROM vectors WHERE id BETWEEN ? AND ?", first, last)

    # --- edges ---

    def frontier(self) -> Frontier | None:
        """How far the pairs are found; None before the first join."""
        rows = self.rows("SELECT floor, through, until, earlier, recall FROM frontier")
        return Frontier(*rows[0]) if rows else None

    def put_edges(self, frontier: Frontier, left: Ids, right: Ids, score: NDArray[np.float64]) -> None:
        """Write pairs, and how far they reach; those below a floor that was raised go."""
        before = self.frontier()
        if before and before.floor < frontier.floor:
            self.write("DELETE FROM edges WHERE score < ?", frontier.floor)
        self.write_all(
            "INSERT OR IGNORE INTO edges (left, right, score) VALUES (?, ?, ?)",
            zip(left.tolist(), right.tolist(), score.tolist(), strict=True),
        )
        self.write("INSERT OR REPLACE INTO frontier VALUES (1, ?, ?, ?, ?, ?)", *astuple(frontier))

    def edges(self, least: float) -> Iterator[tuple[int, int, float]]:
        """(left, right, score) of each pair of vectors with score >= least."""
        return self.stream("SELECT left, right, score FROM edges WHERE score >= ?", least)

    def drop_edges(self) -> None:
        """Forget all pairs; the next join finds them again."""
        self.write("DELETE FROM edges")
        self.write("DELETE FROM frontier")

    def edge_count(self) -> int:
        """How many pairs are kept."""
        return int(self.rows("SELECT count(*) FROM edges")[0][0])
