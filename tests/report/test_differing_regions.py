"""The places where two aligned images differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.query.compare import Comparison
from pipeline.report.differing_regions import find_differing_regions
from pipeline.verify.judgement import Judgement
from pipeline.verify.relation import Relation
from pipeline.verify.verdict import Verdict
from pipeline.verify.verify import TileMasks
from tests.support.verification import PLAIN_COPY

# The second image is shown at half the size, in the right half of the first.
RIGHT_HALF = (2.0, 0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
DOUBT = Verdict(
    Relation.SIMILAR, 20, 20, 0.8, 0.0, RIGHT_HALF, judgement=Judgement(0.5, 0.1, 0.1, 0.0, "1")
)


def make_comparison(verdict: Verdict, *, is_swapped: bool = False) -> Comparison:
    """Make a comparison of two files, 240 x 120 and 120 x 120, of 4 x 5 tiles."""
    valid = np.ones((4, 5), bool)
    valid[3, 4] = False  # a tile that was not compared
    agreeing = valid.copy()
    agreeing[0, 0] = agreeing[1, 1] = agreeing[3, 2] = agreeing[0, 4] = False
    displaced = np.zeros((4, 5), bool)
    displaced[0, 4] = True
    masks = TileMasks(valid, agreeing, displaced, (0, 12), is_swapped)
    pixels = {0: np.zeros((120, 240, 3), np.uint8), 1: np.zeros((120, 120, 3), np.uint8)}
    return Comparison(("a", "b"), (), np.eye(2), pixels, {(0, 1): verdict}, {(0, 1): masks})


def test_adjacent_tiles_that_differ_are_one_region_of_the_first() -> None:
    above, below = find_differing_regions(make_comparison(DOUBT))
    assert above == pytest.approx((0.0, 0.1, 0.2, 0.5))  # two tiles that meet at a corner
    assert below == pytest.approx((0.2, 0.7, 0.3, 0.9))


def test_tiles_of_the_second_become_regions_of_the_first() -> None:
    above, below = find_differing_regions(make_comparison(DOUBT, is_swapped=True))
    assert above == pytest.approx((0.5, 0.1, 0.7, 0.5))
    assert below == pytest.approx((0.7, 0.7, 0.8, 0.9))


def test_copies_have_the_regions_of_their_verdict() -> None:
    box = (0.1, 0.2, 0.3, 0.4)
    edits = replace(PLAIN_COPY, changed_regions=(box,))
    copy = replace(DOUBT, relation=Relation.DERIVED, edits=edits)
    assert find_differing_regions(make_comparison(copy)) == [box]


@pytest.mark.parametrize(
    "verdict", [replace(DOUBT, relation=Relation.UNRELATED), replace(DOUBT, judgement=None)]
)
def test_alignment_by_chance_gives_no_regions(verdict: Verdict) -> None:
    assert find_differing_regions(make_comparison(verdict)) == []
