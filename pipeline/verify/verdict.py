"""Verdicts on pairs of images: the records, and how they are stored."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from indexes.catalog.verdicts import StoredVerdict
from pipeline.verify.homography import UNIT_CORNERS, Homography, apply_homography, invert_homography
from pipeline.verify.judgement import Judgement
from pipeline.verify.relation import UNREPORTED_RELATIONS, Relation, Side

if TYPE_CHECKING:  # loads OpenCV, which callers do without
    from pipeline.regions import Box

# The version of what verdicts mean. Raise it with every change in this package, or in what it
# imports, after which a field can come out differently, and when a field is added.
VERDICT_VERSION = 18

MIN_VALID_TILES = 8  # tiles to compare, below which a pair that is not a copy is not verifiable
MIN_FULL_OVERLAP = 0.97  # share of an image from which the other counts as showing all of it
MIN_CHANGED_SHARE = 0.005  # of the overlap, from which one of two copies is covered in places
# Share of the overlap that differs in areas too small for a box, from which a copy is listed as
# edited. Of 171 copies of 73 photos with a cloned patch 149 are, and 106 by boxes alone; of 811
# that were only re-encoded, resized or cropped, 6.
MIN_NAMED_CHANGED_SHARE = 0.001

# Relations of older verdicts, which stand until they are verified again.
FORMER_RELATIONS = {"same scene": Relation.ANOTHER_SHOT}


@dataclass(frozen=True, slots=True)
class Edits:
    """The edits that make a copy: the second image relative to the first, both upright.

    To get from the first to the second: mirror if `mirrored`, then rotate clockwise by
    `quarter_turn_deg` (0, 90, 180 or 270), then by `rotation_deg`. `anisotropic`: the two
    directions are scaled differently, or there is perspective. `scale`: pixels of the second along
    a side for one of the first.

    `overlap`: the share of the first that the second shows, and the share of the second that the
    first shows. `changed_regions`: boxes on the first where the two differ, because something
    covers one of them. `recolored`: brightness, contrast or saturation differ.

    A side names the image that something holds for, None for neither: `embedded_side` lies within
    the other, as in a frame, a screenshot or a collage; `grayscale_side` lost its colors;
    `derived_side` was made from the other, as far as pixels show; `upscaled_side` was enlarged
    without new detail. `plain_background`: the embedded image has one tone around it; if neither
    is embedded, the larger area has next to nothing but one tone around the smaller.

    `fine_detail`: in the image with more pixels for the same content, the energy of the detail that
    the other cannot show, over that of the detail just below; None where that was not measured.
    `changed_share`: the share of the overlap that differs in areas of a few cells or more.
    `detail_gain`: log ratio of the mean gradients outside of these, second over first, at the size
    of the smaller one.
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
    fine_detail: float | None = None
    changed_share: float = 0.0
    detail_gain: float = 0.0

    @property
    def is_turned(self) -> bool:
        """True if one is mirrored or rotated."""
        return bool(self.mirrored or self.quarter_turn_deg or self.rotation_deg)

    @property
    def is_covered(self) -> bool:
        """True if something covers one of them in places."""
        return bool(self.changed_regions) or self.changed_share >= MIN_CHANGED_SHARE

    @property
    def is_same_picture(self) -> bool:
        """True if each shows all of the other, upright, in any colors and size.

        Of what covers one in places, only changed regions count: the rest may be retouching.
        """
        return min(self.overlap) >= MIN_FULL_OVERLAP and not (
            self.is_turned or self.anisotropic or self.changed_regions
        )

    def swap_sides(self, changed_regions: tuple[Box, ...]) -> Edits:
        """Return the edits from the second image to the first, with boxes on the second."""
        sign = 1 if self.mirrored else -1  # a mirrored rotation runs the other way
        return replace(
            self,
            quarter_turn_deg=sign * self.quarter_turn_deg % 360,
            rotation_deg=sign * self.rotation_deg + 0.0,  # turns -0.0 into 0.0
            scale=round(1 / self.scale, 4),
            overlap=(self.overlap[1], self.overlap[0]),
            embedded_side=_get_other_side(self.embedded_side),
            grayscale_side=_get_other_side(self.grayscale_side),
            derived_side=_get_other_side(self.derived_side),
            upscaled_side=_get_other_side(self.upscaled_side),
            changed_regions=changed_regions,
            detail_gain=-self.detail_gain + 0.0,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of verifying a pair, in normalized coordinates.

    `homography`: nine numbers by rows that map (x, y, 1) of the first image to the second; empty if
    no alignment was found. `inliers`: the keypoint matches that agree with the alignment it was
    refined from. Of `tiles` with enough texture to compare, `agreeing_share` agree in place and
    `displaced_share` agree at a small offset. `edits` is None unless the pair are copies.
    `overlap`: the share of the first image on the second, and the reverse; None if not aligned.
    `judgement`: the probabilities that decided; None if too little agreed to be judged.
    `altered_side`: the image that has an overlay or a blur where the two differ; None
    if they do not, or if pixels do not show it.
    """

    relation: Relation
    inliers: int = 0
    tiles: int = 0
    agreeing_share: float = 0.0
    displaced_share: float = 0.0
    homography: tuple[float, ...] = ()
    edits: Edits | None = None
    overlap: tuple[float, float] | None = None
    judgement: Judgement | None = None
    altered_side: Side | None = None

    @property
    def homography_matrix(self) -> Homography:
        """The homography as a (3, 3) array; fails if there is none."""
        return np.array(self.homography).reshape(3, 3)

    def to_dict(self) -> dict[str, Any]:
        """Convert to nested dicts for JSON."""
        return asdict(self)

    def swap_sides(self) -> Verdict:
        """Return the verdict on the same pair in the other order."""
        overlap = (self.overlap[1], self.overlap[0]) if self.overlap else None
        altered_side = _get_other_side(self.altered_side)
        if not self.homography:  # decoded verdicts on pairs that are unlike have no homography
            return replace(self, overlap=overlap, altered_side=altered_side)
        inverse, edits = invert_homography(self.homography_matrix), self.edits
        if edits:
            edits = edits.swap_sides(
                tuple(project_box_back(inverse, box) for box in edits.changed_regions)
            )
        return replace(
            self,
            homography=flatten_homography(inverse),
            edits=edits,
            overlap=overlap,
            altered_side=altered_side,
        )


def _get_other_side(side: Side | None) -> Side | None:
    return side.other if side else None


def encode_verdict(
    first: int, second: int, verdict: Verdict, *, is_provisional: bool = False
) -> StoredVerdict:
    """Encode a verdict on two images, by id, for the catalog.

    UNREPORTED_RELATIONS are stored without homography and edits, because most are never read again.
    A provisional verdict stands until the larger of the two files can be read.
    """
    record = verdict.to_dict()
    del record["relation"]
    if verdict.relation in UNREPORTED_RELATIONS:
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
            edits[name] = Side(edits[name]) if edits.get(name) else None
        edits["overlap"] = tuple(edits["overlap"])
        edits["changed_regions"] = tuple(tuple(box) for box in edits["changed_regions"])
        record["edits"] = Edits(**edits)
    record["homography"] = tuple(record.get("homography", ()))
    if record.get("overlap"):
        record["overlap"] = tuple(record["overlap"])
    if record.get("altered_side"):
        record["altered_side"] = Side(record["altered_side"])
    if record.get("judgement"):
        record["judgement"] = Judgement(**record["judgement"])
    relation = FORMER_RELATIONS.get(stored.relation) or Relation(stored.relation)
    return Verdict(relation=relation, **record)


def flatten_homography(homography: Homography) -> tuple[float, ...]:
    """Flatten a homography by rows, rounded to 6 digits."""
    return tuple(np.round(homography, 6).ravel().tolist())


def project_box_back(homography: Homography, box: Box) -> Box:
    """Compute the bounding box, on the first image, of a box on the second."""
    left, top, right, bottom = box
    corners = apply_homography(
        invert_homography(homography), UNIT_CORNERS * [right - left, bottom - top] + [left, top]
    ).clip(0.0, 1.0)
    return round_box(*corners.min(axis=0), *corners.max(axis=0))


def round_box(left: float, top: float, right: float, bottom: float) -> Box:
    """Round a box to 4 digits."""
    return (
        round(float(left), 4),
        round(float(top), 4),
        round(float(right), 4),
        round(float(bottom), 4),
    )
