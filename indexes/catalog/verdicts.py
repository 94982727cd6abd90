"""The table of verdicts on image pairs, and the pairs that are still to be verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.candidates import find_related_vectors, pack_pairs, select_candidates
from indexes.catalog.database import Database
from indexes.catalog.images import IMAGE_IN_USE

# Images with one vector that are compared with all images of another vector and of their own; the
# largest come first. Any further image is compared with these only, so the pairs grow with the
# number of images and not with its square.
MAX_IMAGES_PER_VECTOR = 20
VERDICT_COLUMNS = "first, second, version, provisional, relation, record"
PIXEL_HASH_COLUMNS = "first_image.pixel_hash, second_image.pixel_hash"
VERDICTS_WITH_IMAGES = (
    "verdicts JOIN images AS first_image ON first_image.id = first"
    " JOIN images AS second_image ON second_image.id = second"
)
# Verdicts of a newer version come later, and of one version the provisional ones first.
OLDEST_VERSION_FIRST = "version, provisional DESC"

# (image, representative): one image in use, with a vector, stands for all images with its pixels,
# in use or not. Images whose pixels no such image has are left out.
REPRESENTATIVES = f"""
    SELECT images.id, representative
    FROM images JOIN (
        SELECT pixel_hash, min(id) AS representative
        FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE}
        GROUP BY pixel_hash
    ) USING (pixel_hash)"""
# (first, second, is_current): is_current is 1 for a final verdict of version ? or newer.
VERIFIED_PAIRS = "SELECT first, second, version >= ? AND NOT provisional FROM verdicts"
# (vector, image, is_largest), ordered by vector: of all images in use with one vector and the same
# pixels, one; 1 for the ? largest of each vector.
IMAGES_BY_VECTOR = f"""
    SELECT vector, min(id),
        row_number() OVER (
            PARTITION BY vector ORDER BY max(width * height) DESC, max(size) DESC, pixel_hash
        ) <= ?
    FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE}
    GROUP BY vector, pixel_hash
    ORDER BY vector"""
EDGES = "SELECT left, right, score FROM edges WHERE score >= ?"


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """A verdict on two images, by id.

    `version` is that of `verify`. `record` is JSON about `first` and `second`, in this order.
    A provisional verdict is due for another check: the file of the larger image was away.
    """

    first: int
    second: int
    version: int
    is_provisional: bool
    relation: str
    record: str


class VerdictTable:
    """The verdicts of a store, one for each pair of images that was verified."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def put(self, verdicts: Iterable[StoredVerdict]) -> None:
        """Write verdicts, in the place of earlier ones on the same two images in either order."""
        for verdict in verdicts:
            self._database.write(
                "DELETE FROM verdicts WHERE first = ? AND second = ?", verdict.second, verdict.first
            )
            self._database.write(
                f"INSERT OR REPLACE INTO verdicts ({VERDICT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                *astuple(verdict),
            )

    def stream(self) -> Iterator[StoredVerdict]:
        """Yield all verdicts, in no order."""
        rows = self._database.stream_rows(f"SELECT {VERDICT_COLUMNS} FROM verdicts")
        return map(_make_stored_verdict, rows)

    def stream_with_pixel_hashes(self) -> Iterator[tuple[bytes, bytes, StoredVerdict]]:
        """Yield (pixel hash of the first image, of the second, verdict) of all verdicts.

        The images need not be in use: others with the same pixels may be. Verdicts of a newer
        version come later.
        """
        versions = self._database.fetch_rows(
            f"SELECT DISTINCT version, provisional FROM verdicts ORDER BY {OLDEST_VERSION_FIRST}"
        )
        sql = (
            f"SELECT {PIXEL_HASH_COLUMNS}, {VERDICT_COLUMNS} FROM {VERDICTS_WITH_IMAGES}"
            " WHERE version = ? AND provisional = ?"
        )
        for version, provisional in versions:
            rows = self._database.stream_rows(sql, version, provisional)
            yield from map(_make_verdict_with_pixel_hashes, rows)

    def find_of_image(self, pixel_hash: bytes) -> list[tuple[bytes, bytes, StoredVerdict]]:
        """Return the verdicts on images with these upright pixels.

        The form and the order are those of `stream_with_pixel_hashes`.
        """
        same_pixels = "(SELECT id FROM images WHERE pixel_hash = ?)"
        rows = self._database.fetch_rows(
            f"SELECT {PIXEL_HASH_COLUMNS}, {VERDICT_COLUMNS} FROM {VERDICTS_WITH_IMAGES}"
            f" WHERE first IN {same_pixels} OR second IN {same_pixels}"
            f" ORDER BY {OLDEST_VERSION_FIRST}",
            pixel_hash,
            pixel_hash,
        )
        return [_make_verdict_with_pixel_hashes(row) for row in rows]

    def find_related_vectors(self, excluded_relations: Sequence[str]) -> NDArray[np.int64]:
        """Find the vectors of related images in use; see candidates.find_related_vectors()."""
        return find_related_vectors(self._database, excluded_relations)

    def find_pairs_of_equal_size(
        self, format_: str, relations: Sequence[str]
    ) -> list[tuple[int, int]]:
        """Return the pairs of images in use that have a verdict of one of `relations`, this format
        and no flags, equal numbers of bytes, and equal widths and heights.
        """
        in_use = " AND ".join(
            f"EXISTS (SELECT 1 FROM files WHERE image = {side}.id AND NOT missing)"
            for side in ("first_image", "second_image")
        )
        equal = " AND ".join(
            f"first_image.{column} = second_image.{column}"
            for column in ("size", "width", "height", "format", "flags")
        )
        sql = (
            f"SELECT DISTINCT first, second FROM {VERDICTS_WITH_IMAGES} WHERE {equal}"
            f" AND first_image.format = ? AND first_image.flags = '' AND {in_use}"
            f" AND relation IN ({', '.join('?' * len(relations))}) ORDER BY first, second"
        )
        return self._database.fetch_rows(sql, format_, *relations)

    def remove_of_image(self, image_id: int) -> None:
        """Remove the verdicts on an image; its pairs are verified again."""
        for side in ("first", "second"):
            self._database.write(f"DELETE FROM verdicts WHERE {side} = ?", image_id)

    def count_by_relation(self) -> dict[str, int]:
        """Return the number of pairs with each relation."""
        return dict(
            self._database.fetch_rows(
                "SELECT relation, count(*) FROM verdicts GROUP BY relation ORDER BY relation"
            )
        )

    def has_any_if_needed(self) -> bool:
        """Tell if there is any verdict, or no edge that needs one."""
        ((has_any_if_needed,),) = self._database.fetch_rows(
            "SELECT EXISTS (SELECT 1 FROM verdicts) OR NOT EXISTS (SELECT 1 FROM edges)"
        )
        return bool(has_any_if_needed)

    def get(self, first: int, second: int) -> StoredVerdict:
        """Return the verdict on two images, by id, in the order in which it was written."""
        (row,) = self._database.fetch_rows(
            f"SELECT {VERDICT_COLUMNS} FROM verdicts WHERE first = ? AND second = ?", first, second
        )
        return _make_stored_verdict(row)

    def find_provisional_pairs(self, version: int) -> set[tuple[int, int]]:
        """Return the pairs (first, second) of images whose verdict of `version` is provisional."""
        return set(
            self._database.stream_rows(
                "SELECT first, second FROM verdicts WHERE version = ? AND provisional", version
            )
        )

    def find_unverified_pairs(
        self, min_score: float, version: int, extra_vector_pairs: NDArray[np.int64] | None = None
    ) -> list[tuple[int, int]]:
        """Return the pairs of images without a final verdict of `version` or a newer one.

        Those are the images of two vectors that are candidates (see select_candidates) of the pairs
        with a score >= `min_score`, or that are a row of `extra_vector_pairs` (n, 2) with a lower
        one; the images that share a vector; and the pairs with an older or a provisional verdict.
        Images with the same pixels count as one, whichever of them was verified, in use or not.
        Of the images with one vector, MAX_IMAGES_PER_VECTOR are paired with all, the others only
        with these.
        Each pair is two image ids, the smaller first; ordered by the second, then by the first.
        """
        with self._database.snapshot():
            images = self._fetch_integers(IMAGES_BY_VECTOR, MAX_IMAGES_PER_VECTOR, column_count=3)
            vector_pairs, left_out = self._split_edges(min_score, images[:, 0])
            representatives = self._fetch_integers(REPRESENTATIVES, column_count=2)
            verified = self._fetch_integers(VERIFIED_PAIRS, version, column_count=3)
        if extra_vector_pairs is not None:
            is_left_out = np.isin(pack_pairs(extra_vector_pairs), pack_pairs(left_out))
            extra = extra_vector_pairs[~is_left_out]
            vector_pairs = np.unique(np.concatenate([vector_pairs, extra]), axis=0)
        is_current = verified[:, 2] == 1
        current = _replace_by_representatives(verified[is_current, :2], representatives)
        outdated = _replace_by_representatives(verified[~is_current, :2], representatives)
        candidates = _pair_images(images, vector_pairs)
        keys = np.setdiff1d(pack_pairs(np.concatenate([candidates, outdated])), pack_pairs(current))
        return [(key & 0xFFFFFFFF, key >> 32) for key in keys.tolist()]

    def count_left_out(self, min_score: float) -> int:
        """Return how many pairs of vectors in use with score >= `min_score` are no candidates."""
        with self._database.snapshot():
            in_use = self._fetch_integers(IMAGES_BY_VECTOR, MAX_IMAGES_PER_VECTOR, column_count=3)
            return len(self._split_edges(min_score, in_use[:, 0])[1])

    def _split_edges(
        self, min_score: float, in_use: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the candidates among the edges of vectors in use, (n, 2), and those left out."""
        kind = np.dtype([("pair", np.int64, 2), ("score", np.float64)])
        rows = self._database.stream_rows(EDGES, min_score)
        edges = np.fromiter(((row[:2], row[2]) for row in rows), kind)
        edges = edges[np.isin(edges["pair"], in_use).all(axis=1)]
        pairs = edges["pair"]
        is_candidate = select_candidates(self._database, pairs, edges["score"])
        return pairs[is_candidate], pairs[~is_candidate]

    def _fetch_integers(
        self, sql: str, *values: float | str, column_count: int
    ) -> NDArray[np.int64]:
        """Return the rows of a query for integers, (n, column_count)."""
        row_dtype = np.dtype((np.int64, column_count))
        return np.fromiter(self._database.stream_rows(sql, *values), row_dtype)


def _pair_images(images: NDArray[np.int64], vector_pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pair the images of each vector pair, and those that share a vector.

    `images` are the rows of IMAGES_BY_VECTOR. Returns image ids (n, 2), the smaller first; a pair
    of images that share a vector can be there twice.
    """
    vectors, is_largest = images[:, 0], images[:, 2] == 1
    shared = np.unique(vectors[1:][vectors[1:] == vectors[:-1]])
    vector_pairs = np.concatenate([vector_pairs, np.stack([shared, shared], axis=1)])
    largest, others, all_images = images[is_largest], images[~is_largest], images
    pairs = np.concatenate(
        [
            _cross_images(vector_pairs, largest, all_images),
            _cross_images(vector_pairs, others, largest),
        ]
    )
    return np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)


def _replace_by_representatives(
    pairs: NDArray[np.int64], representatives: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Replace image ids by those of their representatives, the smaller first; (n, 2) like `pairs`.

    Pairs with an image that has no representative are left out. A join in SQL would do the same
    in twice the time: 3.1 s instead of 1.5 for 300,000 images and 700,000 verdicts (measured).
    """
    max_id = max(pairs.max(initial=0), representatives.max(initial=0))
    representative_by_id = np.zeros(max_id + 1, np.int64)  # 0 is the id of no image
    representative_by_id[representatives[:, 0]] = representatives[:, 1]
    replaced = representative_by_id[pairs]
    return np.sort(replaced[replaced.all(axis=1)], axis=1)


def _cross_images(
    vector_pairs: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Pair each image of `left` that has the first vector of a pair with each of `right` that has
    the second.

    `left` and `right` are rows of IMAGES_BY_VECTOR, ordered by vector. Returns image ids (n, 2).
    """
    left_start, left_end = _find_ranges(left[:, 0], vector_pairs[:, 0])
    right_start, right_end = _find_ranges(right[:, 0], vector_pairs[:, 1])
    width = right_end - right_start
    # Number the cells of the table left x right of each vector pair, row by row.
    table = np.repeat(np.arange(len(vector_pairs)), (left_end - left_start) * width)
    cell = np.arange(len(table)) - np.searchsorted(table, table)
    left_row = left_start[table] + cell // width[table]
    right_row = right_start[table] + cell % width[table]
    return np.stack([left[left_row, 1], right[right_row, 1]], axis=1)


def _find_ranges(
    ascending: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each of `values` begins and ends in `ascending`."""
    return (
        np.searchsorted(ascending, values, side="left"),
        np.searchsorted(ascending, values, side="right"),
    )


def _make_stored_verdict(row: Sequence[Any]) -> StoredVerdict:
    first, second, version, provisional, relation, record = row
    return StoredVerdict(first, second, version, bool(provisional), relation, record)


def _make_verdict_with_pixel_hashes(row: Sequence[Any]) -> tuple[bytes, bytes, StoredVerdict]:
    first_hash, second_hash, *verdict = row
    return first_hash, second_hash, _make_stored_verdict(verdict)
