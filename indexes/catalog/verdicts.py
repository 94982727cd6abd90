"""Verdicts on image pairs, and the pairs still to be verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.database import IMAGE_IN_USE, Database

MAX_IMAGES_PER_VECTOR = 20  # pictures of a vector, the largest first, that are compared with all of another and of their own: of the rest, only with these
VERDICT_COLUMNS = "first, second, version, provisional, relation, record"
PIXEL_HASH_COLUMNS = "one.pixel_hash, other.pixel_hash"
FROM_VERDICTS_AND_IMAGES = (
    "FROM verdicts JOIN images AS one ON one.id = first JOIN images AS other ON other.id = second"
)
OLDEST_VERSION_FIRST = "version, provisional DESC"  # first: what is of one judge, and due to another look, before what is not


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """What two images, by id, are to each other: a relation, why, as JSON about `first` and `second`, and by which version of the judge;
    minus that version where another look is due, because a photo was away.
    """

    first: int
    second: int
    version: int
    is_provisional: bool
    relation: str
    record: str


class VerdictTable:
    """Verdicts on image pairs, and the pairs still to be verified."""

    def __init__(self, database: Database) -> None:
        """Use the tables of `database`."""
        self._database = database

    def put(self, verdicts: Iterable[StoredVerdict]) -> None:
        """Write what was found, in the place of what was found of the same two images before."""
        for one in verdicts:
            self._database.write(
                "DELETE FROM verdicts WHERE first = ? AND second = ?", one.second, one.first
            )
            self._database.write(
                f"INSERT OR REPLACE INTO verdicts ({VERDICT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                *astuple(one),
            )

    def stream(self) -> Iterator[StoredVerdict]:
        """All that was found, in no order."""
        return (
            _to_stored_verdict(row)
            for row in self._database.stream_rows(f"SELECT {VERDICT_COLUMNS} FROM verdicts")
        )

    def stream_with_pixel_hashes(self) -> Iterator[tuple[bytes, bytes, StoredVerdict]]:
        """All that was found, with the pixels of the first and of the second, whether a file holds these images or others with the same
        pixels. What a newer judge found comes later.
        """
        for version, provisional in self._database.fetch_rows(
            f"SELECT DISTINCT version, provisional FROM verdicts ORDER BY {OLDEST_VERSION_FIRST}"
        ):
            for one, other, *judged in self._database.stream_rows(
                f"SELECT {PIXEL_HASH_COLUMNS}, {VERDICT_COLUMNS} {FROM_VERDICTS_AND_IMAGES} WHERE version = ? AND provisional = ?",
                version,
                provisional,
            ):
                yield one, other, _to_stored_verdict(judged)

    def find_related_vectors(self, excluded_relations: Sequence[str]) -> NDArray[np.int64]:
        """Pairs of the vectors of pictures whose relation is none of these, (n, 2), the smaller id first; each once, in no order."""
        vectors = "min(one.vector, other.vector), max(one.vector, other.vector)"
        words = ",".join("?" * len(excluded_relations))
        return self._fetch_pairs(
            f"SELECT DISTINCT {vectors} {FROM_VERDICTS_AND_IMAGES} WHERE one.vector != other.vector AND relation NOT IN ({words})",
            *excluded_relations,
        )

    def count_by_relation(self) -> dict[str, int]:
        """How many pairs have each relation."""
        return dict(
            self._database.fetch_rows(
                "SELECT relation, count(*) FROM verdicts GROUP BY relation ORDER BY relation"
            )
        )

    def has_any_or_needs_none(self) -> bool:
        """Whether any pair was looked at, where there is one."""
        ((judged,),) = self._database.fetch_rows(
            "SELECT EXISTS (SELECT 1 FROM verdicts) OR NOT EXISTS (SELECT 1 FROM edges)"
        )
        return bool(judged)

    def find_of_image(self, pixel_hash: bytes) -> list[tuple[bytes, bytes, StoredVerdict]]:
        """As evidence_of_pictures(), of those with these pixels."""
        own = "(SELECT id FROM images WHERE pixel_hash = ?)"
        sql = f"SELECT {PIXEL_HASH_COLUMNS}, {VERDICT_COLUMNS} {FROM_VERDICTS_AND_IMAGES} WHERE first IN {own} OR second IN {own} ORDER BY {OLDEST_VERSION_FIRST}"
        return [
            (one, other, _to_stored_verdict(judged))
            for one, other, *judged in self._database.fetch_rows(sql, pixel_hash, pixel_hash)
        ]

    def get(self, first: int, second: int) -> StoredVerdict:
        """What was found of two images that were looked at, by id."""
        ((*judged,),) = self._database.fetch_rows(
            f"SELECT {VERDICT_COLUMNS} FROM verdicts WHERE first = ? AND second = ?", first, second
        )
        return _to_stored_verdict(judged)

    def find_provisional_pairs(self, version: int) -> set[tuple[int, int]]:
        """The pairs of images, by id, whose verdict of this version is provisional."""
        return set(
            self._database.stream_rows(
                "SELECT first, second FROM verdicts WHERE version = ? AND provisional", version
            )
        )

    def find_unverified_pairs(
        self, min_score: float, version: int, extra_vector_pairs: NDArray[np.int64] | None = None
    ) -> list[tuple[int, int]]:
        """Pairs of images, by id, that no judge of this version, or of a newer, has looked at: of vectors whose score is at or above
        `least`, or that are among `also`, (n, 2), the smaller id first; and those that an older judge has looked at.

        Images with the same pixels are one, whichever was looked at, and whether a file holds it still. Of pictures with one vector the
        CROWD largest are given with all, and the others with these. The newer of each pair is the second; in its order, then in that of the
        first.
        """
        with self._database.snapshot():
            # Of images that share all pixels, and with them a vector, the first that some file holds stands for all; the largest first.
            shown = self._fetch_pairs(
                f"SELECT vector, min(id) FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE}"
                " GROUP BY vector, pixel_hash ORDER BY vector, max(width * height) DESC, max(images.size) DESC, min(id)"
            )
            first = f"SELECT pixel_hash, min(id) AS first FROM images WHERE vector IS NOT NULL AND {IMAGE_IN_USE} GROUP BY pixel_hash"
            twins = self._fetch_pairs(
                f"SELECT id, first FROM images JOIN ({first}) USING (pixel_hash) WHERE id != first ORDER BY id"
            )
            edges = self._fetch_pairs("SELECT left, right FROM edges WHERE score >= ?", min_score)
            if extra_vector_pairs is not None:
                edges = np.unique(np.concatenate([edges, extra_vector_pairs]), axis=0)
            verified = "SELECT first, second FROM verdicts WHERE"
            judged, before = (
                _replace_by_representatives(
                    self._fetch_pairs(f"{verified} {which}", version), twins
                )
                for which in ("version >= ? AND NOT provisional", "(version < ? OR provisional)")
            )
        vector, image = shown.T
        shared = np.unique(vector[1:][vector[1:] == vector[:-1]])
        start, end = (
            np.searchsorted(
                vector, np.concatenate([edges, np.stack([shared] * 2, axis=1)]), side=side
            )
            for side in ("left", "right")
        )
        few = np.minimum(start + MAX_IMAGES_PER_VECTOR, end)
        every = [
            (start[:, 0], few[:, 0], start[:, 1], end[:, 1]),
            (few[:, 0], end[:, 0], start[:, 1], few[:, 1]),
        ]
        places = np.concatenate([_cross_ranges(*bounds) for bounds in every])
        places = places[
            places[:, 0] < places[:, 1]
        ]  # those of one vector meet twice, and themselves
        before = before[np.isin(before, image).all(axis=1)]
        pairs = np.unique(
            np.concatenate([np.sort(image[places], axis=1), before])[:, ::-1], axis=0
        )[:, ::-1]
        new = ~np.isin(pairs[:, 0] << 32 | pairs[:, 1], judged[:, 0] << 32 | judged[:, 1])
        return [(one, other) for one, other in pairs[new].tolist()]

    def _fetch_pairs(self, sql: str, *values: float | str) -> NDArray[np.int64]:
        """Rows of two numbers, (n, 2)."""
        kind = np.dtype([("one", np.int64), ("other", np.int64)])
        rows = np.fromiter(self._database.stream_rows(sql, *values), kind)
        return np.stack([rows["one"], rows["other"]], axis=1)


def _replace_by_representatives(
    pairs: NDArray[np.int64], representatives: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Pairs of images, (n, 2), the smaller id first, each as what stands for it: `twins` has some, in order, with what that is."""
    if len(representatives):
        at = np.searchsorted(representatives[:, 0], pairs).clip(max=len(representatives) - 1)
        pairs = np.where(representatives[at, 0] == pairs, representatives[at, 1], pairs)
    return np.sort(pairs, axis=1)


def _cross_ranges(
    left_start: NDArray[np.int64],
    left_end: NDArray[np.int64],
    right_start: NDArray[np.int64],
    right_end: NDArray[np.int64],
) -> NDArray[np.int64]:
    """For each row, every place from a start up to its end with every one from the other start up to the other end, (n, 2)."""
    width = right_end - right_start
    each = np.repeat(np.arange(len(left_start)), (left_end - left_start) * width)
    place = np.arange(len(each)) - np.searchsorted(each, each)
    return np.stack(
        [left_start[each] + place // width[each], right_start[each] + place % width[each]], axis=1
    )


def _to_stored_verdict(row: Sequence[Any]) -> StoredVerdict:
    first, second, version, provisional, relation, record = row
    return StoredVerdict(first, second, version, bool(provisional), relation, record)
