"""The judge: how trees become probabilities, and the model that is shipped."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from math import exp
from typing import Any

import pytest

from pipeline.verify.area_evidence import NO_AREAS
from pipeline.verify.evidence import (
    FEATURES,
    AgreementEvidence,
    Evidence,
    TextureEvidence,
    TileEvidence,
)
from pipeline.verify.judge import CLASSES, load_judge, parse_model
from pipeline.verify.judgement import Judgement
from pipeline.verify.relation import Relation
from pipeline.verify.tones import ToneEvidence
from pipeline.verify.verdict import Verdict, decode_verdict, encode_verdict
from pipeline.verify.verify import verify
from tests.support.images import draw_textured_image
from tests.support.verification import OTHER_PHOTO, PHOTO, extract

ZEROS = Evidence(
    TileEvidence(*[0.0] * len(fields(TileEvidence))),
    NO_AREAS,
    ToneEvidence(*[0.0] * len(fields(ToneEvidence))),
    TextureEvidence(*[0.0] * len(fields(TextureEvidence))),
    AgreementEvidence(*[0.0] * len(fields(AgreementEvidence))),
    altered_side=None,
    clipped_side=None,
    detail_gain=0.0,
)


def make_record(**changes: Any) -> dict[str, Any]:
    """The JSON of a model: copies agree in more than half of the tiles, and by more than .9."""
    inner = [FEATURES.index(name) for name in ("agreeing", "displaced", "median_ncc")]
    record = {
        "version": "test",
        "classes": list(CLASSES),
        "feature_names": list(FEATURES),
        "features": [inner],
        "thresholds": [[0.5, 0.5, 0.9]],
        "values": [[-4.0, -3.0, 1.0, 2.0]],
        "tree_classes": [0],
        "baseline": [0.5, -1.0, -2.0],
        "min_clean_copy": 0.2,
        "min_altered_copy": 0.9,
    }
    return record | changes


@pytest.mark.parametrize(
    ("agreeing", "displaced", "median_ncc", "value"),
    [
        (0.5, 0.5, 0.0, -4.0),  # at a threshold a pair goes left
        (0.5, 0.6, 0.0, -3.0),
        (0.6, 0.0, 0.9, 1.0),
        (0.6, 0.0, 0.91, 2.0),
    ],
)
def test_probabilities_follow_the_leaves(
    agreeing: float, displaced: float, median_ncc: float, value: float
) -> None:
    tiles = replace(ZEROS.tiles, agreeing=agreeing, displaced=displaced, median_ncc=median_ncc)
    judgement = parse_model(make_record()).judge(replace(ZEROS, tiles=tiles))
    expected = [1 / (1 + exp(-total)) for total in (0.5 + value, -1.0, -2.0)]
    assert [judgement.copy, judgement.shot, judgement.template] == pytest.approx(expected, abs=1e-4)
    assert judgement.model == "test"


def test_altered_pairs_need_a_higher_probability_than_clean_ones() -> None:
    model = parse_model(make_record())
    for copy, is_clean, is_altered in ((0.1, False, False), (0.2, True, False), (0.9, True, True)):
        judgement = Judgement(copy, 0.0, 0.0, 0.0, "test")
        assert model.is_copy(judgement, is_clean=True) is is_clean
        assert model.is_copy(judgement, is_clean=False) is is_altered


@pytest.mark.parametrize("name", ["classes", "feature_names"])
def test_model_of_other_features_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="other features"):
        parse_model(make_record(**{name: ["other"]}))


def test_verdict_says_how_it_was_judged_and_keeps_it_in_the_store() -> None:
    verdict = verify(extract(PHOTO), extract(PHOTO.resize((300, 200))))
    assert verdict.relation == Relation.SAME_PICTURE
    assert verdict.judgement is not None
    assert verdict.judgement.copy > 0.9
    assert verdict.judgement.model == load_judge().version
    assert verdict.overlap == (1.0, 1.0)
    assert decode_verdict(encode_verdict(1, 2, verdict)) == verdict
    assert "judgement" in json.loads(encode_verdict(1, 2, verdict).record)


def test_overlap_is_that_of_either_image() -> None:
    half = PHOTO.crop((0, 0, PHOTO.width // 2, PHOTO.height))
    verdict = verify(extract(PHOTO), extract(half))
    assert verdict.overlap == pytest.approx((0.5, 1.0), abs=0.02)
    assert verdict.swap_sides().overlap == pytest.approx((1.0, 0.5), abs=0.02)


def test_strangers_are_not_judged() -> None:
    verdict = verify(extract(PHOTO), extract(OTHER_PHOTO))
    assert (verdict.relation, verdict.judgement) == (Relation.UNRELATED, None)


def test_verdict_of_an_older_version_still_reads() -> None:
    verdict = verify(extract(PHOTO), extract(draw_textured_image(99)))
    stored = replace(encode_verdict(1, 2, verdict), relation="same scene", record="{}")
    assert decode_verdict(stored) == Verdict(Relation.ANOTHER_SHOT)


def test_pair_is_no_copy_where_a_template_or_another_shot_is_far_likelier() -> None:
    model = parse_model(make_record())
    for copy, shot, template, expected in (
        (0.3, 0.4, 0.0, True),  # too unlikely to be named
        (0.3, 0.0, 0.6, True),  # odds of 1.5 over .43
        (0.3, 0.0, 0.7, False),
        (0.5, 0.9, 0.0, True),  # a retouched copy looks like another exposure
        (0.3, 0.9, 0.0, False),  # odds of 9 over .43
        (0.7, 0.9, 0.6, True),
    ):
        judgement = Judgement(copy, shot, template, 0.0, "test")
        assert model.is_copy(judgement, is_clean=True) is expected
