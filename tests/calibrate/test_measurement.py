"""Recall, expected precision and intervals of a calibration, from made-up scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calibrate.measurement import (
    MIN_PRECISION,
    AcceptedPair,
    Calibration,
    LibraryPairs,
    ScoredCopy,
    Share,
)
from pipeline.calibrate.synthetic_copies import EDITS, EVERYDAY_EDITS
from pipeline.report.calibration import format_calibration

SCORED_COPIES = st.builds(
    ScoredCopy,
    kind=st.sampled_from(list(EDITS)),
    score=st.floats(-1, 1),
    agreeing_share=st.sampled_from([None, 0.5, 0.85, 1.0]),
)


def make_calibration(
    copies: list[ScoredCopy],
    accepted: list[tuple[float, float]],
    date_separated_pairs: int,
    false_positives: list[tuple[float, float]],
) -> Calibration:
    """Build a calibration; accepted pairs and false positives are (score, agreeing share)."""
    library = LibraryPairs(
        np.array(accepted).reshape(-1, 2),
        2 * date_separated_pairs,
        date_separated_pairs,
        tuple(
            AcceptedPair("/a", "/b", score, agreeing_share)
            for score, agreeing_share in false_positives
        ),
    )
    return Calibration(1, 0.35, tuple(copies), library)


def test_share_bounds_equal_published_wilson_intervals() -> None:
    # Newcombe 1998, table I
    assert Share(81, 263).bounds == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert Share(15, 148).bounds == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert Share(0, 20).bounds == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert Share(0, 0).bounds == (0.0, 1.0)


@given(count=st.integers(0, 500), rest=st.integers(0, 500))
def test_share_bounds_contain_the_share_and_narrow_with_more_samples(count: int, rest: int) -> None:
    share = Share(count, count + rest)
    low, high = share.bounds
    assert 0 <= low <= high <= 1
    assert share.total == 0 or low - 1e-12 <= share.value <= high + 1e-12
    larger_low, larger_high = Share(count * 10, (count + rest) * 10).bounds
    assert larger_high - larger_low <= high - low


@given(
    copies=st.lists(SCORED_COPIES, max_size=20),
    threshold=st.floats(0, 1),
    min_agreement=st.sampled_from([0.0, 0.5, 0.86]),
)
def test_setting_counts_copies_and_pairs_at_or_above_both_limits(
    copies: list[ScoredCopy], threshold: float, min_agreement: float
) -> None:
    calibration = make_calibration(copies, [(0.5, 0.7), (0.9, 0.9)], 100, [(0.5, 0.7)])
    setting = calibration.evaluate(threshold, min_agreement)
    passing = [
        copy.kind
        for copy in copies
        if copy.score >= threshold
        and copy.agreeing_share is not None
        and copy.agreeing_share >= min_agreement
    ]
    assert (setting.everyday.count, setting.hard.count) == (
        sum(kind in EVERYDAY_EDITS for kind in passing),
        sum(kind not in EVERYDAY_EDITS for kind in passing),
    )
    assert setting.everyday.total + setting.hard.total == len(copies)
    first_passes = threshold <= 0.5 and min_agreement <= 0.7
    second_passes = threshold <= 0.9 and min_agreement <= 0.9
    assert setting.accepted_pairs == first_passes + second_passes
    assert setting.false_positives.count == first_passes


COPIES = [ScoredCopy("gray", 0.9, 1.0), ScoredCopy("gray", 0.5, 0.9), ScoredCopy("blur", 0.4, 0.85)]


def test_best_setting_without_false_positives_is_the_most_lenient() -> None:
    calibration = make_calibration(COPIES, [(0.9, 1.0)] * 10_000, 10**9, [])
    best = calibration.choose_best()
    assert (best.threshold, best.min_agreement, best.everyday.count) == (0.35, 0.0, 2)


def test_best_setting_with_false_positives_is_the_most_lenient_that_is_precise() -> None:
    # 20 of 10**9 pairs are false positives: 40 of the 10,000 accepted ones of 2 * 10**9 pairs.
    calibration = make_calibration(COPIES, [(0.9, 1.0)] * 10_000, 10**9, [(0.42, 0.79)] * 20)
    best = calibration.choose_best()
    assert (best.threshold, best.min_agreement) == (0.35, 0.8)
    assert (best.everyday.count, best.hard.count) == (2, 1)
    assert (best.precision_lower_bound_95 or 0) >= MIN_PRECISION
    assert best.false_positives.count == 0


TOO_FEW_PAIRS = "too few pairs were taken days apart to be sure that 99.9% of"
TOO_MANY_ERRORS = "less than 99.9% of the accepted pairs are expected to be copies"


@pytest.mark.parametrize(
    ("accepted_count", "date_separated_pairs", "false_positive_count", "warnings"),
    [
        (10_000, 10**9, 0, set()),
        (10, 10, 0, {TOO_FEW_PAIRS}),
        (100, 10**6, 40, {TOO_MANY_ERRORS}),
        (100, 0, 0, set()),
    ],
)
def test_format_warns_if_the_precision_is_low_or_uncertain(
    accepted_count: int,
    date_separated_pairs: int,
    false_positive_count: int,
    warnings: set[str],
) -> None:
    calibration = make_calibration(
        COPIES,
        [(0.9, 1.0)] * accepted_count,
        date_separated_pairs,
        [(0.9, 1.0)] * false_positive_count,
    )
    lines = format_calibration(calibration, calibration.choose_best(), is_saved=False)
    text = "\n".join(lines)
    assert {warning for warning in (TOO_FEW_PAIRS, TOO_MANY_ERRORS) if warning in text} == warnings


def test_calibration_without_copies_has_no_precision_and_says_so() -> None:
    calibration = make_calibration([], [], 0, [])
    best = calibration.choose_best()
    assert best.expected_precision is None
    lines = format_calibration(calibration, best, is_saved=False)
    assert "nothing was measured" in "".join(lines)
