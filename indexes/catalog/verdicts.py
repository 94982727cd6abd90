"""What pairs of pictures were found to be to each other, and which candidates nobody has looked at yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.catalog.pairs import HELD, Vectors

CROWD = 20  # pictures of a vector, the largest first, that are compared with all of another and of their own: of the rest, only with these


@dataclass(frozen=True, slots=True)
class Judged:
    """What two images, by id, are to each other: a relation, why, as JSON about `first` and `second`, and by which version of the judge;
    minus that version where another look is due, because a photo was away.
    """

    first: int
    second: int
    version: int
    relation: str
    told: str


JUDGED, PIXELS = "first, second, version, relation, told", "one.pixels, other.pixels"
# With the pictures that these are of.
PICTURES = "FROM evidence JOIN images AS one ON one.id = first JOIN images AS other ON other.id = second"
OLDEST = "abs(version), version"  # first: what is of one judge, and due to another look, before what is not


class Judgements(Vectors):
    """What is asked of what was judged, and what is written of it."""

    def put_evidence(self, judged: Iterable[Judged]) -> None:
        """Write what was found, in the place of what was found of the same two images before."""
        for one in judged:
            self.write("DELETE FROM evidence WHERE first = ? AND second = ?", one.second, one.first)
            self.write("INSERT OR REPLACE INTO evidence (first, second, version, relation, told) VALUES (?, ?, ?, ?, ?)", *astuple(one))

    def evidence(self) -> Iterator[Judged]:
        """All that was found, in no order."""
        return (Judged(*row) for row in self.stream(f"SELECT {JUDGED} FROM evidence"))

    def evidence_of_pictures(self) -> Iterator[tuple[bytes, bytes, Judged]]:
        """All that was found, with the pixels of the first and of the second, whether a file holds these images or others with the same
        pixels. What a newer judge found comes later.
        """
        for (version,) in self.rows(f"SELECT DISTINCT version FROM evidence ORDER BY {OLDEST}"):
            for one, other, *judged in self.stream(f"SELECT {PIXELS}, {JUDGED} {PICTURES} WHERE version = ?", version):
                yield one, other, Judged(*judged)

    def related(self, without: Sequence[str]) -> NDArray[np.int64]:
        """Pairs of the vectors of pictures whose relation is none of these, (n, 2), the smaller id first; each once, in no order."""
        vectors = "min(one.vector, other.vector), max(one.vector, other.vector)"
        words = ",".join("?" * len(without))
        return self._pairs(f"SELECT DISTINCT {vectors} {PICTURES} WHERE one.vector != other.vector AND relation NOT IN ({words})", *without)

    def relations(self) -> dict[str, int]:
        """How many pairs have each relation."""
        return dict(self.rows("SELECT relation, count(*) FROM evidence GROUP BY relation ORDER BY relation"))

    def is_judged(self) -> bool:
        """Whether any pair was looked at, where there is one."""
        ((judged,),) = self.rows("SELECT EXISTS (SELECT 1 FROM evidence) OR NOT EXISTS (SELECT 1 FROM edges)")
        return bool(judged)

    def evidence_about(self, pixels: bytes) -> list[tuple[bytes, bytes, Judged]]:
        """As evidence_of_pictures(), of those with these pixels."""
        own = "(SELECT id FROM images WHERE pixels = ?)"
        sql = f"SELECT {PIXELS}, {JUDGED} {PICTURES} WHERE first IN {own} OR second IN {own} ORDER BY {OLDEST}"
        return [(one, other, Judged(*judged)) for one, other, *judged in self.rows(sql, pixels, pixels)]

    def judged(self, first: int, second: int) -> Judged:
        """What was found of two images that were looked at, by id."""
        ((*judged,),) = self.rows(f"SELECT {JUDGED} FROM evidence WHERE first = ? AND second = ?", first, second)
        return Judged(*judged)

    def judged_by(self, version: int) -> set[tuple[int, int]]:
        """The pairs of images, by id, of which this version has the last word."""
        return set(self.stream("SELECT first, second FROM evidence WHERE version = ?", version))

    def unjudged(self, least: float, version: int, also: NDArray[np.int64] | None = None) -> list[tuple[int, int]]:
        """Pairs of images, by id, that no judge of this version, or of a newer, has looked at: of vectors whose score is at or above
        `least`, or that are among `also`, (n, 2), the smaller id first; and those that an older judge has looked at.

        Images with the same pixels are one, whichever was looked at, and whether a file holds it still. Of pictures with one vector the
        CROWD largest are given with all, and the others with these. The newer of each pair is the second; in its order, then in that of the
        first.
        """
        with self.snapshot():
            # Of images that share all pixels, and with them a vector, the first that some file holds stands for all; the largest first.
            shown = self._pairs(
                f"SELECT vector, min(id) FROM images WHERE vector IS NOT NULL AND {HELD}"
                " GROUP BY vector, pixels ORDER BY vector, max(width * height) DESC, max(images.size) DESC, min(id)"
            )
            first = f"SELECT pixels, min(id) AS first FROM images WHERE vector IS NOT NULL AND {HELD} GROUP BY pixels"
            twins = self._pairs(f"SELECT id, first FROM images JOIN ({first}) USING (pixels) WHERE id != first ORDER BY id")
            edges = self._pairs("SELECT left, right FROM edges WHERE score >= ?", least)
            if also is not None:
                edges = np.unique(np.concatenate([edges, also]), axis=0)
            looked = "SELECT first, second FROM evidence WHERE version"
            judged, before = (_as_shown(self._pairs(f"{looked} {which} ?", version), twins) for which in (">=", "<"))
        vector, image = shown.T
        shared = np.unique(vector[1:][vector[1:] == vector[:-1]])
        start, end = (
            np.searchsorted(vector, np.concatenate([edges, np.stack([shared] * 2, axis=1)]), side=side) for side in ("left", "right")
        )
        few = np.minimum(start + CROWD, end)
        every = [(start[:, 0], few[:, 0], start[:, 1], end[:, 1]), (few[:, 0], end[:, 0], start[:, 1], few[:, 1])]
        places = np.concatenate([_crossed(*bounds) for bounds in every])
        places = places[places[:, 0] < places[:, 1]]  # those of one vector meet twice, and themselves
        before = before[np.isin(before, image).all(axis=1)]
        pairs = np.unique(np.concatenate([np.sort(image[places], axis=1), before])[:, ::-1], axis=0)[:, ::-1]
        new = ~np.isin(pairs[:, 0] << 32 | pairs[:, 1], judged[:, 0] << 32 | judged[:, 1])
        return [(one, other) for one, other in pairs[new].tolist()]

    def _pairs(self, sql: str, *values: float | str) -> NDArray[np.int64]:
        """Rows of two numbers, (n, 2)."""
        kind = np.dtype([("one", np.int64), ("other", np.int64)])
        rows = np.fromiter(self.stream(sql, *values), kind)
        return np.stack([rows["one"], rows["other"]], axis=1)

    def is_verified(self, version: int, *, parts: bool) -> bool:
        """Whether the run before had looked at every pair, by this version of the judge; with `parts`, also at pictures within others."""
        for outcome, coverage in self.rows("SELECT outcome, coverage FROM runs WHERE outcome != 'running' ORDER BY id DESC LIMIT 1"):
            seen = json.loads(coverage) if outcome == "complete" else {}
            told, compared = seen.get("verification"), seen.get("parts")
            verified = told and told["version"] == version and not told["unseen"] and not told.get("unsure")
            return bool(verified and (not parts or (compared and not compared["lacking"])))
        return False


def _as_shown(pairs: NDArray[np.int64], twins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of images, (n, 2), the smaller id first, each as what stands for it: `twins` has some, in order, with what that is."""
    if len(twins):
        at = np.searchsorted(twins[:, 0], pairs).clip(max=len(twins) - 1)
        pairs = np.where(twins[at, 0] == pairs, twins[at, 1], pairs)
    return np.sort(pairs, axis=1)


def _crossed(
    start: NDArray[np.int64], end: NDArray[np.int64], other_start: NDArray[np.int64], other_end: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each row, every place from a start up to its end with every one from the other start up to the other end, (n, 2)."""
    width = other_end - other_start
    each = np.repeat(np.arange(len(start)), (end - start) * width)
    place = np.arange(len(each)) - np.searchsorted(each, each)
    return np.stack([start[each] + place // width[each], other_start[each] + place % width[each]], axis=1)
