"""The measurements of a calibration: recall and expected precision at each setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS

# The grid of settings: thresholds from the floor up, each with each agreement.
THRESHOLD_STEP = 0.1
THRESHOLD_COUNT = 4
MIN_AGREEMENTS = (0.0, 0.8, 0.9, 0.95)
# The expected precision that the best setting has at least, with 95 % confidence.
MIN_PRECISION = 0.999
Z_95 = 1.96  # the standard normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class Share:
    """A share `count` / `total` with its 95 % interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share; 0 if `total` is 0."""
        return self.count / self.total if self.total else 0.0

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The lower and upper bound of Wilson's score interval (1927); (0, 1) if `total` is 0.

        Unlike the normal approximation, it is sound for shares of 0 and 1 too.
        """
        if not self.total:
            return 0.0, 1.0
        center = self.value + Z_95**2 / (2 * self.total)
        variance = self.value * (1 - self.value) / self.total
        margin = Z_95 * sqrt(variance + (Z_95 / (2 * self.total)) ** 2)
        scale = 1 + Z_95**2 / self.total
        return max(0.0, (center - margin) / scale), min(1.0, (center + margin) / scale)


@dataclass(frozen=True)
class Setting:
    """The results of a threshold and a least agreement, both `>=`.

    `everyday` and `hard` are the shares of synthetic copies found, `accepted_pairs` the number of
    pairs of the library that are accepted as copies, and `false_positives` the share of pairs
    taken days apart that are accepted.
    """

    threshold: float
    min_agreement: float
    everyday: Share
    hard: Share
    accepted_pairs: int
    false_positives: Share
    total_pairs: int

    def estimate_precision(self, false_positive_rate: float) -> float | None:
        """Estimate the share of accepted pairs that are copies.

        Assumes that `false_positive_rate` holds for all pairs of the library. None if no pair is
        accepted, or if no pair was taken days apart.
        """
        if not self.accepted_pairs or not self.false_positives.total:
            return None
        return max(0.0, 1 - false_positive_rate * self.total_pairs / self.accepted_pairs)

    @property
    def expected_precision(self) -> float | None:
        """The precision at the measured rate of false positives; None if unknown."""
        return self.estimate_precision(self.false_positives.value)

    @property
    def precision_lower_bound_95(self) -> float | None:
        """The precision at the upper bound of the rate of false positives; None if unknown."""
        return self.estimate_precision(self.false_positives.bounds[1])


@dataclass(frozen=True, slots=True)
class ScoredCopy:
    """A synthetic copy: its edit, its cosine with the original, and the share of agreeing tiles.

    `agreeing_share` is None if verification does not accept the copy. A copy that matches only by
    crops has the floor as its score: it is found at that threshold and at no higher one.
    """

    kind: str
    score: float
    agreeing_share: float | None

    def passes(self, threshold: float, min_agreement: float) -> bool:
        """Return True if a setting finds this copy."""
        if self.agreeing_share is None:
            return False
        return self.score >= threshold and self.agreeing_share >= min_agreement


@dataclass(frozen=True)
class AcceptedPair:
    """Two images, by their paths, that verification accepts as copies."""

    first: str
    second: str
    score: float
    agreeing_share: float


@dataclass(frozen=True)
class LibraryPairs:
    """The pairs of distinct images of a library.

    `accepted` (n, 2) holds the score and the agreeing share of each pair that verification accepts;
    the score is the floor for pairs that match only by crops. `date_separated_pairs` counts the
    pairs taken days apart by their EXIF dates; the accepted ones among them are the
    `false_positives`, unless a date is wrong.
    """

    accepted: NDArray[np.float64]
    total_pairs: int
    date_separated_pairs: int
    false_positives: tuple[AcceptedPair, ...]


@dataclass(frozen=True)
class Calibration:
    """The scored copies of `image_count` images and the pairs of the library, from `floor` up."""

    image_count: int
    floor: float
    copies: tuple[ScoredCopy, ...]
    library: LibraryPairs

    def evaluate(self, threshold: float, min_agreement: float) -> Setting:
        """Measure one setting."""
        everyday = [copy for copy in self.copies if copy.kind in EVERYDAY_EDITS]
        hard = [copy for copy in self.copies if copy.kind not in EVERYDAY_EDITS]
        scores, agreeing_shares = self.library.accepted.T
        accepted = (scores >= threshold) & (agreeing_shares >= min_agreement)
        false_positives = sum(
            pair.score >= threshold and pair.agreeing_share >= min_agreement
            for pair in self.library.false_positives
        )
        return Setting(
            threshold,
            min_agreement,
            _measure_recall(everyday, threshold, min_agreement),
            _measure_recall(hard, threshold, min_agreement),
            int(accepted.sum()),
            Share(false_positives, self.library.date_separated_pairs),
            self.library.total_pairs,
        )

    def evaluate_grid(self) -> list[Setting]:
        """Measure all settings of the grid with a threshold below 1, the most lenient first."""
        steps = [self.floor + THRESHOLD_STEP * step for step in range(THRESHOLD_COUNT)]
        thresholds = [round(threshold, 4) for threshold in steps if threshold < 1]
        return [
            self.evaluate(threshold, min_agreement)
            for threshold, min_agreement in product(thresholds, MIN_AGREEMENTS)
        ]

    def choose_best(self) -> Setting:
        """Choose the setting that finds most copies of those that reach MIN_PRECISION.

        If none reaches it with 95 % confidence, choose the most precise one. Of equal settings,
        the most lenient.
        """
        settings = self.evaluate_grid()
        precise = [setting for setting in settings if _get_lower_bound(setting) >= MIN_PRECISION]
        if precise:
            return max(precise, key=lambda setting: setting.everyday.count + setting.hard.count)
        return max(settings, key=_get_lower_bound)


def _measure_recall(copies: Sequence[ScoredCopy], threshold: float, min_agreement: float) -> Share:
    return Share(sum(copy.passes(threshold, min_agreement) for copy in copies), len(copies))


def _get_lower_bound(setting: Setting) -> float:
    """Return the lower bound of the precision; 0 if it is unknown."""
    return setting.precision_lower_bound_95 or 0.0
