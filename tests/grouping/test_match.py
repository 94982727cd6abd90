from __future__ import annotations

from pipeline.grouping.match import decide_relation
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict


def test_copy_below_min_agreement_is_similar() -> None:
    copy = Verdict(Relation.SAME_PICTURE, 100, 100, 0.9)
    scene = Verdict(Relation.ANOTHER_SHOT, 100, 100, 0.2)
    relations = [
        decide_relation(copy, 0.9, 0.6, min_agreement) for min_agreement in (0.0, 0.9, 0.91)
    ]
    assert relations == [Relation.SAME_PICTURE, Relation.SAME_PICTURE, Relation.SIMILAR]
    assert decide_relation(scene, 0.9, 0.6, 1.0) == Relation.ANOTHER_SHOT
