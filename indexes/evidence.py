"""What pairs of pictures were found to be to each other, and which candidates nobody has looked at yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from indexes.vectors import Vectors

CROWD = 20  # pictures, the largest first, that are compared with all others that the model cannot tell from them


@dataclass(frozen=True, slots=True)
class Judged:
    """What two images, by id, are to each other: a relation, why, as JSON about `first` and `second`, and by which version of the judge."""

    first: int
    second: int
    version: int
    relation: str
    told: str


class Evidence(Vectors):
    """What is asked of evidence, and what is written of it."""

    def put_evidence(self, judged: Iterable[Judged]) -> None:
        """Write what was found, in the place of what was found of the same two images before."""
        for one in judged:
            self.write("DELETE FROM evidence WHERE first = ? AND second = ?", one.second, one.first)
            self.write("INSERT OR REPLACE INTO evidence (first, second, version, relation, told) VALUES (?, ?, ?, ?, ?)", *astuple(one))

    def evidence(self) -> Iterator[Judged]:
        """All that was found, in no order."""
        return (Judged(*row) for row in self.stream("SELECT first, second, version, relation, told FROM evidence"))

    def related(self, without: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Pairs of images, by id, whose relation is none of these, in no order."""
        return self.stream(f"SELECT first, second FROM evidence WHERE relation NOT IN ({','.join('?' * len(without))})", *without)

    def relations(self) -> dict[str, int]:
        """How many pairs have each relation."""
        return dict(self.rows("SELECT relation, count(*) FROM evidence GROUP BY relation ORDER BY relation"))

    def is_judged(self) -> bool:
        """Whether any pair was looked at, where there is one."""
        ((judged,),) = self.rows("SELECT EXISTS (SELECT 1 FROM evidence) OR NOT EXISTS (SELECT 1 FROM edges)")
        return bool(judged)

    def evidence_about(self, image: int) -> list[Judged]:
        """What was found of one image and others."""
        sql = "SELECT first, second, version, relation, told FROM evidence WHERE first = ? UNION SELECT * FROM evidence WHERE second = ?"
        return [Judged(*row) for row in self.rows(sql, image, image)]

    def unjudged(self, least: float, version: int, also: NDArray[np.int64] | None = None) -> list[tuple[int, int]]:
        """Pairs of images, by id, that no judge of this version, or of a newer, has looked at: of vectors whose score is at or above
        `least`, or that are among `also`, (n, 2), the smaller id first; and those that an older judge has looked at.

        Images with the same pixels are one; of many pictures with one vector, pairs with the largest few are given. The newer of each pair
        is the second; in its order, then in that of the first.
        """
        with self.snapshot():
            # Of images that share a vector and all pixels, the first that some file holds stands for all; the largest first.
            shown = self._pairs(
                "SELECT vector, min(id) FROM images WHERE vector IS NOT NULL AND EXISTS (SELECT 1 FROM files WHERE image = images.id)"
                " GROUP BY vector, pixels ORDER BY vector, max(width * height) DESC, max(images.size) DESC, min(id)"
            )
            edges = self._pairs("SELECT left, right FROM edges WHERE score >= ?", least)
            if also is not None:
                edges = np.unique(np.concatenate([edges, also]), axis=0)
            looked = "SELECT min(first, second), max(first, second) FROM evidence WHERE version"
            judged, before = self._pairs(f"{looked} >= ?", version), self._pairs(f"{looked} < ?", version)
        vector, image = shown.T
        start, end = (np.searchsorted(vector, edges, side=side) for side in ("left", "right"))
        times = end - start  # pictures of the left, and of the right
        each = np.repeat(np.arange(len(edges)), times.prod(axis=1))
        place = np.arange(len(each)) - np.searchsorted(each, each)
        found = [image[start[each, 0] + place // times[each, 1]], image[start[each, 1] + place % times[each, 1]]]
        first = np.searchsorted(vector, vector)
        for behind in range(1, min(CROWD, int((np.arange(len(vector)) - first).max(initial=0))) + 1):
            # Those of one vector: each with the first of them, with the second, and so on.
            other = first + behind - 1
            later = np.arange(len(vector)) > other
            found[0] = np.concatenate([found[0], image[other[later]]])
            found[1] = np.concatenate([found[1], image[later]])
        before = before[np.isin(before, image).all(axis=1)]
        pairs = np.unique(np.concatenate([np.sort(np.stack(found, axis=1), axis=1), before])[:, ::-1], axis=0)[:, ::-1]
        new = ~np.isin(pairs[:, 0] << 32 | pairs[:, 1], judged[:, 0] << 32 | judged[:, 1])
        return [(one, other) for one, other in pairs[new].tolist()]

    def _pairs(self, sql: str, *values: float) -> NDArray[np.int64]:
        """Rows of two numbers, (n, 2)."""
        kind = np.dtype([("one", np.int64), ("other", np.int64)])
        rows = np.fromiter(self.stream(sql, *values), kind)
        return np.stack([rows["one"], rows["other"]], axis=1)

    def is_verified(self, version: int, *, parts: bool) -> bool:
        """Whether the run before had looked at every pair, by this version of the judge; with `parts`, also at pictures within others."""
        for outcome, coverage in self.rows("SELECT outcome, coverage FROM runs WHERE outcome != 'running' ORDER BY id DESC LIMIT 1"):
            seen = json.loads(coverage) if outcome == "complete" else {}
            told, compared = seen.get("verification"), seen.get("parts")
            verified = told and told["version"] == version and not told["unseen"]
            return bool(verified and (not parts or (compared and not compared["lacking"])))
        return False
