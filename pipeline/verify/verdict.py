"""What two pictures were found to be to each other, and why: a record that is kept with the pair, and told from either side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from indexes.catalog.verdicts import StoredVerdict
from pipeline.verify.homography import UNIT_CORNERS, Homography, apply_homography, invert_homography
from pipeline.verify.relation import Relation, Side

# Of what evidence means: a change in verify.py, detail.py or in what they import that moves a relation, or which was made of which, needs a
# new number.
VERDICT_VERSION = 9

MIN_VALID_TILES = 8  # tiles that two pictures must share, or little is said of them
MIN_FULL_OVERLAP = 0.97  # the share of a picture that counts as all of it

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of a picture's sides


@dataclass(frozen=True, slots=True)
class Edits:
    """What the second picture is beside the first, both upright. FIRST, SECOND or "" say which one something is true of.

    `mirrored`, then `turned` by 0, 90, 180 or 270 degrees clockwise, then `rotated` by a few more; `stretched`: wider, narrower or seen
    from aside. `scale`: of its pixels, along a side, for one of the first's; `enlarged`: which one shows no more for having more of them.
    `covers`: the share of each that lies on the other. `inside`: which one lies within the other like a picture in a frame, a screen or a
    collage; `plain`: on one colour, or, where neither is inside, with next to nothing around it but one tone. `grey`: which one has lost
    its colours; `toned`: they differ in brightness, contrast or colourfulness. `spoiled`: where on the first they differ, because something
    lies on one of them. `derived`: which one was made of the other, where pixels show it.
    """

    mirrored: bool
    quarter_turn_deg: int
    rotation_deg: float
    anisotropic: bool
    scale: float
    overlap: tuple[float, float]
    embedded_side: Side | None
    plain_background: bool
    grayscale_side: Side | None
    recolored: bool
    changed_regions: tuple[Box, ...]
    derived_side: Side | None
    upscaled_side: Side | None = None

    @property
    def is_same_picture(self) -> bool:
        """Whether each shows all of the other, upright and with nothing on it: the same picture, if in other tones or another size."""
        return min(self.overlap) >= MIN_FULL_OVERLAP and not (
            self.mirrored
            or self.quarter_turn_deg
            or self.rotation_deg
            or self.anisotropic
            or self.changed_regions
        )

    def swap_sides(self, changed_regions: tuple[Box, ...]) -> Edits:
        """The same with the second picture as the first; `spoiled` are its boxes."""
        back = 1 if self.mirrored else -1  # what was mirrored turns the other way
        return replace(
            self,
            quarter_turn_deg=back * self.quarter_turn_deg % 360,
            rotation_deg=back * self.rotation_deg + 0.0,  # no minus zero
            scale=round(1 / self.scale, 4),
            overlap=(self.overlap[1], self.overlap[0]),
            embedded_side=_other_side(self.embedded_side),
            grayscale_side=_other_side(self.grayscale_side),
            derived_side=_other_side(self.derived_side),
            upscaled_side=_other_side(self.upscaled_side),
            changed_regions=changed_regions,
        )

    def describe(self) -> list[str]:
        """What the second picture is beside the first, in a few words each."""
        cut = (
            "cut out of it"
            if self.embedded_side == Side.SECOND
            else f"cropped to {100 * self.overlap[0]:.0f} %"
        )
        part = {
            Side.FIRST: "partly inside another picture",
            Side.SECOND: "partly cut out of it",
            None: "another part",
        }[self.embedded_side]
        more = (
            "on a plain ground"
            if self.plain_background
            else "inside another picture"
            if self.embedded_side == Side.FIRST
            else "shows more around it"
        )
        said = [
            "mirrored" if self.mirrored else "",
            f"turned by {self.quarter_turn_deg}°" if self.quarter_turn_deg else "",
            f"rotated by {abs(self.rotation_deg):g}°" if self.rotation_deg else "",
            "stretched" if self.anisotropic else "",
            "enlarged"
            if self.upscaled_side == Side.SECOND
            else "not enlarged"
            if self.upscaled_side == Side.FIRST
            else "",
            cut if self.overlap[1] >= MIN_FULL_OVERLAP > self.overlap[0] else "",
            more if self.overlap[0] >= MIN_FULL_OVERLAP > self.overlap[1] else "",
            part if max(self.overlap) < MIN_FULL_OVERLAP else "",
            "in grey"
            if self.grayscale_side == Side.SECOND
            else "in colour"
            if self.grayscale_side == Side.FIRST
            else "in other tones"
            if self.recolored
            else "",
            f"other in {len(self.changed_regions)} place{'s' * (len(self.changed_regions) > 1)}"
            if self.changed_regions
            else "",
        ]
        return [words for words in said if words]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What two pictures are to each other, and why. Places are shares of a picture's sides, from its upper left corner.

    So many `keypoints` agree that `matrix`, nine numbers by rows, takes places (x, y, 1) of the first picture to those of the second; it is
    empty where nothing does. Of `tiles` that show enough to be compared, the share `agree` is the same in place, and the share `moved` when
    each may move a little. `changes`: what a copy is beside the other, None for what is none.
    """

    relation: Relation
    inliers: int = 0
    tiles: int = 0
    agreeing_share: float = 0.0
    displaced_share: float = 0.0
    homography: tuple[float, ...] = ()
    edits: Edits | None = None

    @property
    def homography_matrix(self) -> Homography:
        """The matrix (3, 3); there must be one."""
        return np.array(self.homography).reshape(3, 3)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def describe(self) -> list[str]:
        """What a copy is beside the other, in a few words each; none of what is no copy."""
        return self.edits.describe() if self.edits else []

    def swap_sides(self) -> Verdict:
        """The same with the second picture as the first."""
        if not self.homography:
            return self
        back, what = invert_homography(self.homography_matrix), self.edits
        if what:
            what = what.swap_sides(
                tuple(project_box_back(back, box) for box in what.changed_regions)
            )
        return replace(self, homography=flatten_homography(back), edits=what)


def _other_side(side: Side | None) -> Side | None:
    return side.other if side else None


def encode_verdict(
    first: int, second: int, verdict: Verdict, *, is_provisional: bool = False
) -> StoredVerdict:
    """Encode a verdict on two images, by id, for the catalog.

    Verdicts that say nothing positive are stored without homography and edits, because most are never read again. A provisional verdict
    stands until the larger of the two files can be read.
    """
    record = verdict.as_dict()
    del record["relation"]
    if verdict.relation in (Relation.UNRELATED, Relation.NOT_VERIFIABLE):
        del record["homography"], record["edits"]
    text = json.dumps(record, separators=(",", ":"))
    return StoredVerdict(
        first, second, VERDICT_VERSION, is_provisional, verdict.relation.value, text
    )


def decode_verdict(stored: StoredVerdict) -> Verdict:
    """Decode a stored verdict."""
    record = json.loads(stored.record)
    edits = record.get("edits")
    if edits is not None:
        for name in ("embedded_side", "grayscale_side", "derived_side", "upscaled_side"):
            edits[name] = Side(edits[name]) if edits[name] else None
        edits["overlap"] = tuple(edits["overlap"])
        edits["changed_regions"] = tuple(tuple(box) for box in edits["changed_regions"])
        record["edits"] = Edits(**edits)
    record["homography"] = tuple(record.get("homography", ()))
    return Verdict(relation=Relation(stored.relation), **record)


def flatten_homography(homography: Homography) -> tuple[float, ...]:
    """A matrix as it is kept, by rows."""
    return tuple(np.round(homography, 6).ravel().tolist())


def project_box_back(homography: Homography, box: Box) -> Box:
    """The box on the first picture around a box of the second."""
    left, top, right, bottom = box
    corners = apply_homography(
        invert_homography(homography), UNIT_CORNERS * [right - left, bottom - top] + [left, top]
    ).clip(0.0, 1.0)
    return round_box(*corners.min(axis=0), *corners.max(axis=0))


def round_box(left: float, top: float, right: float, bottom: float) -> Box:
    """A box as it is kept."""
    return (
        round(float(left), 4),
        round(float(top), 4),
        round(float(right), 4),
        round(float(bottom), 4),
    )
