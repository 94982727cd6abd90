"""Verdicts are stored without a loss, swap their sides, and describe themselves in words."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, fields, replace
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.catalog.verdicts import StoredVerdict
from pipeline.regions import Box
from pipeline.verify.homography import UNIT_CORNERS, apply_homography
from pipeline.verify.judgement import Judgement
from pipeline.verify.relation import UNREPORTED_RELATIONS, Relation, Side
from pipeline.verify.verdict import (
    VERDICT_VERSION,
    Edits,
    Verdict,
    decode_verdict,
    encode_verdict,
    flatten_homography,
    project_box_back,
)
from tests.support.verification import PLAIN_COPY

SHARES = st.floats(0, 1).map(lambda share: round(share, 4))
SIDES = st.sampled_from([None, *Side])
IDENTITY = flatten_homography(np.eye(3))

Record = TypeVar("Record", Edits, Judgement, Verdict)


def draw_records(
    record: type[Record], **values: st.SearchStrategy[Any]
) -> st.SearchStrategy[Record]:
    """Draw records; every field is drawn, also one with a default."""
    assert values.keys() == {field.name for field in fields(record)}
    return st.builds(record, **values)


@st.composite
def draw_boxes(draw: st.DrawFn) -> Box:
    left, right = sorted((draw(SHARES), draw(SHARES)))
    top, bottom = sorted((draw(SHARES), draw(SHARES)))
    return left, top, right, bottom


EDITS = draw_records(
    Edits,
    mirrored=st.booleans(),
    quarter_turn_deg=st.sampled_from([0, 90, 180, 270]),
    rotation_deg=st.integers(-450, 450).map(lambda tenths: tenths / 10),
    anisotropic=st.booleans(),
    # 1 / scale is rounded to 4 digits, so only such factors come back exactly.
    scale=st.sampled_from([0.125, 0.2, 0.25, 0.4, 0.5, 0.8, 1.0, 1.25, 2.0, 2.5, 4.0, 5.0, 8.0]),
    overlap=st.tuples(SHARES, SHARES),
    embedded_side=SIDES,
    plain_background=st.booleans(),
    grayscale_side=SIDES,
    recolored=st.booleans(),
    changed_regions=st.lists(draw_boxes(), max_size=3).map(tuple),
    derived_side=SIDES,
    upscaled_side=SIDES,
    fine_detail=st.none() | st.floats(0, 4).map(lambda detail: round(detail, 4)),
    changed_share=SHARES,
    detail_gain=st.floats(-2, 2).map(lambda gain: round(gain, 4) + 0.0),
)
JUDGEMENTS = draw_records(
    Judgement,
    copy=SHARES,
    shot=SHARES,
    template=SHARES,
    noise_ncc=st.floats(-1, 1).map(lambda ncc: round(ncc, 4)),
    model=st.text("0123456789abcdef", min_size=12, max_size=12),
)
OVERLAPS = st.none() | st.tuples(SHARES, SHARES)
# In shares, the sides of the two pictures may lie on each other in 8 ways.
DIHEDRAL_HOMOGRAPHIES = [
    flatten_homography(np.array(rows, np.float64))
    for rows in (
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[-1, 0, 1], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [0, -1, 1], [0, 0, 1]],
        [[-1, 0, 1], [0, -1, 1], [0, 0, 1]],
        [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
        [[0, -1, 1], [1, 0, 0], [0, 0, 1]],
        [[0, 1, 0], [-1, 0, 1], [0, 0, 1]],
        [[0, -1, 1], [-1, 0, 1], [0, 0, 1]],
    )
]
COPIES = draw_records(
    Verdict,
    relation=st.sampled_from([Relation.SAME_PICTURE, Relation.DERIVED]),
    inliers=st.integers(0, 2000),
    tiles=st.integers(0, 400),
    agreeing_share=SHARES,
    displaced_share=SHARES,
    homography=st.sampled_from(DIHEDRAL_HOMOGRAPHIES),
    edits=EDITS,
    overlap=OVERLAPS,
    judgement=st.none() | JUDGEMENTS,
    altered_side=SIDES,
)


@given(COPIES)
def test_copy_is_stored_and_decoded_without_a_loss(verdict: Verdict) -> None:
    stored = encode_verdict(3, 4, verdict)
    assert (stored.first, stored.second, stored.version) == (3, 4, VERDICT_VERSION)
    assert stored.relation == verdict.relation.value
    assert not stored.is_provisional
    decoded = decode_verdict(stored)
    assert decoded == verdict
    assert decoded.edits
    sides = (decoded.edits.embedded_side, decoded.edits.upscaled_side)
    assert all(side is None or isinstance(side, Side) for side in sides)


@pytest.mark.parametrize("relation", UNREPORTED_RELATIONS)
def test_pair_that_is_no_copy_is_stored_without_homography(relation: Relation) -> None:
    verdict = Verdict(relation, 12, 30, 0.1, 0.2, IDENTITY)
    stored = encode_verdict(1, 2, verdict, is_provisional=True)
    assert stored.is_provisional
    assert "homography" not in stored.record
    assert decode_verdict(stored) == replace(verdict, homography=())


@pytest.mark.parametrize("relation", UNREPORTED_RELATIONS)
def test_swapped_verdict_without_homography_exchanges_the_overlap(relation: Relation) -> None:
    verdict = Verdict(
        relation, 12, 30, 0.1, 0.2, IDENTITY, overlap=(0.25, 1.0), altered_side=Side.FIRST
    )
    decoded = decode_verdict(encode_verdict(1, 2, verdict))
    assert (decoded.overlap, decoded.altered_side) == ((0.25, 1.0), Side.FIRST)
    swapped = replace(decoded, overlap=(1.0, 0.25), altered_side=Side.SECOND)
    assert decoded.swap_sides() == swapped
    assert decoded.swap_sides().swap_sides() == decoded


@pytest.mark.parametrize(
    ("record", "field"),
    [
        pytest.param(record, field, id=f"{record.__name__}.{field.name}")
        for record in (Verdict, Edits)
        for field in fields(record)
        if field.default is not MISSING
    ],
)
@given(verdict=COPIES)
def test_verdict_of_an_older_version_that_lacks_a_field_has_its_default(
    record: type[Verdict | Edits], field: Field[Any], verdict: Verdict
) -> None:
    stored = encode_verdict(1, 2, verdict)
    parsed, default = json.loads(stored.record), dict[str, Any]({field.name: field.default})
    if record is Verdict:
        del parsed[field.name]
        expected = replace(verdict, **default)
    else:
        del parsed["edits"][field.name]
        assert verdict.edits
        expected = replace(verdict, edits=replace(verdict.edits, **default))
    older = StoredVerdict(1, 2, 1, False, stored.relation, json.dumps(parsed))
    assert decode_verdict(older) == expected


@given(COPIES)
def test_sides_swapped_twice_are_the_verdict(verdict: Verdict) -> None:
    assert verdict.swap_sides().swap_sides() == verdict


@given(COPIES)
def test_swapped_verdict_exchanges_sides_overlap_and_scale(verdict: Verdict) -> None:
    for given_verdict in (verdict, decode_verdict(encode_verdict(1, 2, verdict))):
        edits, swapped_verdict = given_verdict.edits, given_verdict.swap_sides()
        swapped = swapped_verdict.edits
        assert edits and swapped
        assert swapped.overlap == edits.overlap[::-1]
        assert swapped_verdict.overlap == (verdict.overlap[::-1] if verdict.overlap else None)
        assert swapped.scale == 1 / edits.scale
        assert swapped.mirrored == edits.mirrored
        assert swapped.detail_gain == -edits.detail_gain
        for name in ("embedded_side", "grayscale_side", "derived_side", "upscaled_side"):
            side = getattr(edits, name)
            assert getattr(swapped, name) == (side.other if side else None)
        turn = swapped.quarter_turn_deg - edits.quarter_turn_deg * (1 if edits.mirrored else -1)
        assert turn % 360 == 0


def test_verdict_without_alignment_is_its_own_swap() -> None:
    verdict = Verdict(Relation.UNRELATED, 3, 0)
    assert verdict.swap_sides() == verdict


def test_box_projected_back_bounds_its_corners_within_the_picture() -> None:
    half_size = np.array([[0.5, 0.0, 0.25], [0.0, 0.5, 0.25], [0.0, 0.0, 1.0]])
    assert project_box_back(half_size, (0.25, 0.3, 0.5, 0.75)) == (0.0, 0.1, 0.5, 1.0)
    assert project_box_back(half_size, (0.0, 0.0, 1.0, 1.0)) == (0.0, 0.0, 1.0, 1.0)  # clipped
    angle = np.radians(30)
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle), 0.3], [np.sin(angle), np.cos(angle), 0.1], [0, 0, 1]]
    )
    box = project_box_back(rotation, (0.3, 0.3, 0.5, 0.6))
    corners = UNIT_CORNERS * [0.2, 0.3] + [0.3, 0.3]
    expected = apply_homography(np.linalg.inv(rotation), corners).clip(0, 1)
    assert box == pytest.approx((*expected.min(axis=0), *expected.max(axis=0)), abs=1e-4)


def test_same_picture_is_upright_whole_and_uncovered() -> None:
    assert replace(PLAIN_COPY, recolored=True, grayscale_side=Side.FIRST).is_same_picture
    assert replace(PLAIN_COPY, overlap=(0.97, 1.0)).is_same_picture
    for edits in (
        replace(PLAIN_COPY, overlap=(0.96, 1.0)),
        replace(PLAIN_COPY, mirrored=True),
        replace(PLAIN_COPY, quarter_turn_deg=180),
        replace(PLAIN_COPY, rotation_deg=1.0),
        replace(PLAIN_COPY, anisotropic=True),
        replace(PLAIN_COPY, changed_regions=((0.0, 0.0, 0.1, 0.1),)),
    ):
        assert not edits.is_same_picture
