from __future__ import annotations

import pytest

from pipeline.grouping.exposures import ExposureDifference
from pipeline.grouping.match import decide_relation
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict


def test_score_decides_only_where_pixels_cannot() -> None:
    in_doubt = Verdict(Relation.SIMILAR, 100, 100, 0.5)
    undecided = Verdict(Relation.NOT_VERIFIABLE)
    assert {decide_relation(in_doubt, score, 0.6) for score in (0.0, 0.59, 0.6)} == {
        Relation.SIMILAR
    }
    for verdict in (None, undecided):
        assert decide_relation(verdict, 0.59, 0.6) == Relation.UNRELATED
        assert decide_relation(verdict, 0.6, 0.6) == Relation.SIMILAR


def test_copy_below_min_agreement_is_similar() -> None:
    copy = Verdict(Relation.SAME_PICTURE, 100, 100, 0.9)
    scene = Verdict(Relation.ANOTHER_SHOT, 100, 100, 0.2)
    relations = [
        decide_relation(copy, 0.9, 0.6, min_agreement) for min_agreement in (0.0, 0.9, 0.91)
    ]
    assert relations == [Relation.SAME_PICTURE, Relation.SAME_PICTURE, Relation.SIMILAR]
    assert decide_relation(scene, 0.9, 0.6, 1.0) == Relation.ANOTHER_SHOT


@pytest.mark.parametrize(
    "verdict",
    [
        None,
        Verdict(Relation.NOT_VERIFIABLE),
        Verdict(Relation.SIMILAR, 100, 100, 0.5),
        Verdict(Relation.SAME_PICTURE, 100, 100, 1.0),
    ],
)
def test_two_exposures_for_certain_are_another_shot(verdict: Verdict | None) -> None:
    certain = ExposureDifference("date")
    assert decide_relation(verdict, 0.9, 0.6, exposure_difference=certain) == Relation.ANOTHER_SHOT
    hint = ExposureDifference("date", is_certain=False)
    by_pixels = decide_relation(verdict, 0.9, 0.6)
    assert decide_relation(verdict, 0.9, 0.6, exposure_difference=hint) == by_pixels


def test_metadata_relates_no_unrelated_images() -> None:
    certain, strangers = ExposureDifference("date"), Verdict(Relation.UNRELATED, 5, 100, 0.1)
    for verdict in (None, strangers):
        relation = decide_relation(verdict, 0.4, 0.6, exposure_difference=certain)
        assert relation == Relation.UNRELATED
