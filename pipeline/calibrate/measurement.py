"""What was measured of a library: what share of copies each threshold and strictness finds, and how precise that is to be expected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS

THRESHOLD_STEP, THRESHOLD_COUNT = 0.1, 4  # thresholds that are looked at, from the floor on
MIN_AGREEMENTS = (0.0, 0.8, 0.9, 0.95)
MIN_PRECISION = 0.999  # the precision that is to be expected at least
Z_95 = 1.96  # of a normal distribution, for 95 %


@dataclass(frozen=True)
class Share:
    """`some` of `all`, and between what it lies with 95 % confidence: Wilson's score interval (1927), sound for none and for all too."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share itself; 0 of none."""
        return self.count / self.total if self.total else 0.0

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """Least and most."""
        if not self.total:
            return 0.0, 1.0
        spread = Z_95 * sqrt(
            self.value * (1 - self.value) / self.total + (Z_95 / (2 * self.total)) ** 2
        )
        middle, scale = self.value + Z_95**2 / (2 * self.total), 1 + Z_95**2 / self.total
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass(frozen=True)
class Setting:
    """What a threshold and a strictness (>= both) give: everyday and hard copies found, pairs of the library that pass for copies, and how
    many of its pairs that were taken days apart do.
    """

    threshold: float
    min_agreement: float
    everyday: Share
    hard: Share
    accepted_pairs: int
    false_positives: Share
    total_pairs: int

    def estimate_precision(self, false_positive_rate: float) -> float | None:
        """The share of what is found that is right, where so many pairs of strangers pass; None where none is known."""
        return (
            max(0.0, 1 - false_positive_rate * self.total_pairs / self.accepted_pairs)
            if self.accepted_pairs and self.false_positives.total
            else None
        )

    @property
    def expected_precision(self) -> float | None:
        """The precision to be expected."""
        return self.estimate_precision(self.false_positives.value)

    @property
    def precision_lower_bound_95(self) -> float | None:
        """What it is at least, with 95 % confidence."""
        return self.estimate_precision(self.false_positives.bounds[1])


@dataclass(frozen=True)
class AcceptedPair:
    """Two photos that were taken days apart, by their EXIF, and pass for copies: wrong, unless the date of one was changed."""

    first: str
    second: str
    score: float
    agreeing_share: float


@dataclass(frozen=True)
class Calibration:
    """What was measured. Of each copy made: its kind, its cosine with its original, and the share of tiles that agree, -1 where it was not
    accepted. The same of each pair of the library that was accepted. Pictures within pictures, which are found whatever their cosine, and
    only where nothing above the floor is asked for, have the floor for it. `pairs` of the library, how many of them were taken days apart
    (`far`), and which of these were accepted.
    """

    images: int
    floor: float
    kinds: tuple[str, ...]
    scores: NDArray[np.float64]
    agreeing_shares: NDArray[np.float64]
    accepted: NDArray[np.float64]  # (n, 2): cosine, share
    total_pairs: int
    date_separated_pairs: int
    false_positives: tuple[AcceptedPair, ...]

    def evaluate(self, threshold: float, min_agreement: float) -> Setting:
        """What one setting gives."""
        passed = (self.scores >= threshold) & (self.agreeing_shares >= min_agreement)
        everyday = np.array([kind in EVERYDAY_EDITS for kind in self.kinds], dtype=bool)
        easy, hard = (
            Share(int(passed[part].sum()), int(part.sum())) for part in (everyday, ~everyday)
        )
        found = int(
            ((self.accepted[:, 0] >= threshold) & (self.accepted[:, 1] >= min_agreement)).sum()
        )
        wrong = sum(
            pair.score >= threshold and pair.agreeing_share >= min_agreement
            for pair in self.false_positives
        )
        return Setting(
            threshold,
            min_agreement,
            easy,
            hard,
            found,
            Share(wrong, self.date_separated_pairs),
            self.total_pairs,
        )

    def evaluate_grid(self) -> list[Setting]:
        """A range of settings, the most lenient first."""
        thresholds = [
            round(self.floor + THRESHOLD_STEP * step, 4)
            for step in range(THRESHOLD_COUNT)
            if self.floor + THRESHOLD_STEP * step < 1
        ]
        return [self.evaluate(*both) for both in product(thresholds, MIN_AGREEMENTS)]

    def choose_best(self) -> Setting:
        """That which finds most with the precision that is aimed at; where none is so sure, the most precise."""
        every = self.evaluate_grid()
        sure = [one for one in every if (one.precision_lower_bound_95 or 0.0) >= MIN_PRECISION]
        most = (
            (lambda one: one.everyday.count + one.hard.count)
            if sure
            else (lambda one: one.precision_lower_bound_95 or 0.0)
        )
        return max(sure or every, key=most)
