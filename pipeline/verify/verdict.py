"""What two pictures were found to be to each other, and why: a record that is kept with the pair, and told from either side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from indexes import Judged
from pipeline.verify.homography import SQUARE, Matrix, inverse, moved

# Of what evidence means: a change in verify.py, detail.py or in what they import that moves a relation, or which was made of which, needs a
# new number.
VERSION = 9

SAME, DERIVED, SCENE, UNRELATED, UNKNOWN = "same picture", "derived", "same scene", "unrelated", "not verifiable"
FIRST, SECOND = "first", "second"
OTHER = {FIRST: SECOND, SECOND: FIRST, "": ""}
FEWEST = 8  # tiles that two pictures must share, or little is said of them
ALL = 0.97  # the share of a picture that counts as all of it

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of a picture's sides


@dataclass(frozen=True, slots=True)
class Changes:
    """What the second picture is beside the first, both upright. FIRST, SECOND or "" say which one something is true of.

    `mirrored`, then `turned` by 0, 90, 180 or 270 degrees clockwise, then `rotated` by a few more; `stretched`: wider, narrower or seen
    from aside. `scale`: of its pixels, along a side, for one of the first's; `enlarged`: which one shows no more for having more of them.
    `covers`: the share of each that lies on the other. `inside`: which one lies within the other like a picture in a frame, a screen or a
    collage; `plain`: on one colour, or, where neither is inside, with next to nothing around it but one tone. `grey`: which one has lost
    its colours; `toned`: they differ in brightness, contrast or colourfulness. `spoiled`: where on the first they differ, because something
    lies on one of them. `derived`: which one was made of the other, where pixels show it.
    """

    mirrored: bool
    turned: int
    rotated: float
    stretched: bool
    scale: float
    covers: tuple[float, float]
    inside: str
    plain: bool
    grey: str
    toned: bool
    spoiled: tuple[Box, ...]
    derived: str
    enlarged: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether each shows all of the other, upright and with nothing on it: the same picture, if in other tones or another size."""
        return min(self.covers) >= ALL and not (self.mirrored or self.turned or self.rotated or self.stretched or self.spoiled)

    def turned_round(self, spoiled: tuple[Box, ...]) -> Changes:
        """The same with the second picture as the first; `spoiled` are its boxes."""
        back = 1 if self.mirrored else -1  # what was mirrored turns the other way
        return replace(
            self,
            turned=back * self.turned % 360,
            rotated=back * self.rotated + 0.0,  # no minus zero
            scale=round(1 / self.scale, 4),
            covers=(self.covers[1], self.covers[0]),
            inside=OTHER[self.inside],
            grey=OTHER[self.grey],
            derived=OTHER[self.derived],
            enlarged=OTHER[self.enlarged],
            spoiled=spoiled,
        )

    def words(self) -> list[str]:
        """What the second picture is beside the first, in a few words each."""
        cut = "cut out of it" if self.inside == SECOND else f"cropped to {100 * self.covers[0]:.0f} %"
        part = {FIRST: "partly inside another picture", SECOND: "partly cut out of it", "": "another part"}[self.inside]
        more = "on a plain ground" if self.plain else "inside another picture" if self.inside == FIRST else "shows more around it"
        said = [
            "mirrored" if self.mirrored else "",
            f"turned by {self.turned}°" if self.turned else "",
            f"rotated by {abs(self.rotated):g}°" if self.rotated else "",
            "stretched" if self.stretched else "",
            "enlarged" if self.enlarged == SECOND else "not enlarged" if self.enlarged == FIRST else "",
            cut if self.covers[1] >= ALL > self.covers[0] else "",
            more if self.covers[0] >= ALL > self.covers[1] else "",
            part if max(self.covers) < ALL else "",
            "in grey" if self.grey == SECOND else "in colour" if self.grey == FIRST else "in other tones" if self.toned else "",
            f"other in {len(self.spoiled)} place{'s' * (len(self.spoiled) > 1)}" if self.spoiled else "",
        ]
        return [words for words in said if words]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What two pictures are to each other, and why. Places are shares of a picture's sides, from its upper left corner.

    So many `keypoints` agree that `matrix`, nine numbers by rows, takes places (x, y, 1) of the first picture to those of the second; it is
    empty where nothing does. Of `tiles` that show enough to be compared, the share `agree` is the same in place, and the share `moved` when
    each may move a little. `changes`: what a copy is beside the other, None for what is none.
    """

    relation: str
    keypoints: int = 0
    tiles: int = 0
    agree: float = 0.0
    moved: float = 0.0
    matrix: tuple[float, ...] = ()
    changes: Changes | None = None

    @property
    def transform(self) -> Matrix:
        """The matrix (3, 3); there must be one."""
        return np.array(self.matrix).reshape(3, 3)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def words(self) -> list[str]:
        """What a copy is beside the other, in a few words each; none of what is no copy."""
        return self.changes.words() if self.changes else []

    def turned_round(self) -> Evidence:
        """The same with the second picture as the first."""
        if not self.matrix:
            return self
        back, what = inverse(self.transform), self.changes
        if what:
            what = what.turned_round(tuple(onto(back, box) for box in what.spoiled))
        return replace(self, matrix=numbers(back), changes=what)


def kept(first: int, second: int, evidence: Evidence, *, whole: bool = True) -> Judged:
    """Evidence about two images, by id, as it is kept: of those that are nothing to each other, most are never asked about again. What is
    not `whole` stands until the larger of the two can be looked at.
    """
    told = evidence.as_dict()
    relation = told.pop("relation")
    if relation in (UNRELATED, UNKNOWN):
        del told["matrix"], told["changes"]
    return Judged(first, second, VERSION if whole else -VERSION, relation, json.dumps(told, separators=(",", ":")))


def evidence_of(judged: Judged) -> Evidence:
    """What was kept, as it was found."""
    told = json.loads(judged.told)
    what = told.get("changes")
    if what is not None:
        boxes = tuple(tuple(box) for box in what["spoiled"])
        told["changes"] = Changes(**{**what, "covers": tuple(what["covers"]), "spoiled": boxes})
    return Evidence(**{**told, "relation": judged.relation, "matrix": tuple(told.get("matrix", ()))})


def numbers(matrix: Matrix) -> tuple[float, ...]:
    """A matrix as it is kept, by rows."""
    return tuple(np.round(matrix, 6).ravel().tolist())


def onto(matrix: Matrix, box: Box) -> Box:
    """The box on the first picture around a box of the second."""
    left, top, right, bottom = box
    corners = moved(inverse(matrix), SQUARE * [right - left, bottom - top] + [left, top]).clip(0.0, 1.0)
    return rounded(*corners.min(axis=0), *corners.max(axis=0))


def rounded(left: float, top: float, right: float, bottom: float) -> Box:
    """A box as it is kept."""
    return round(float(left), 4), round(float(top), 4), round(float(right), 4), round(float(bottom), 4)
