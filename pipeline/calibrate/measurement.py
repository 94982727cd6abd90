"""What was measured of a library: what share of copies each threshold and strictness finds, and how precise that is to be expected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrate.synthetic_copies import EVERYDAY

STEP, STEPS = 0.1, 4  # thresholds that are looked at, from the floor on
STRICTNESS = (0.0, 0.8, 0.9, 0.95)
WANTED = 0.999  # the precision that is to be expected at least
Z = 1.96  # of a normal distribution, for 95 %


@dataclass(frozen=True)
class Share:
    """`some` of `all`, and between what it lies with 95 % confidence: Wilson's score interval (1927), sound for none and for all too."""

    some: int
    all: int

    @property
    def value(self) -> float:
        """The share itself; 0 of none."""
        return self.some / self.all if self.all else 0.0

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """Least and most."""
        if not self.all:
            return 0.0, 1.0
        spread = Z * sqrt(self.value * (1 - self.value) / self.all + (Z / (2 * self.all)) ** 2)
        middle, scale = self.value + Z**2 / (2 * self.all), 1 + Z**2 / self.all
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass(frozen=True)
class Setting:
    """What a threshold and a strictness (>= both) give: everyday and hard copies found, pairs of the library that pass for copies, and how
    many of its pairs that were taken days apart do.
    """

    threshold: float
    strictness: float
    everyday: Share
    hard: Share
    found: int
    wrong: Share
    pairs: int

    def precision(self, rate: float) -> float | None:
        """The share of what is found that is right, where so many pairs of strangers pass; None where none is known."""
        return max(0.0, 1 - rate * self.pairs / self.found) if self.found and self.wrong.all else None

    @property
    def expected(self) -> float | None:
        """The precision to be expected."""
        return self.precision(self.wrong.value)

    @property
    def at_least(self) -> float | None:
        """What it is at least, with 95 % confidence."""
        return self.precision(self.wrong.bounds[1])


@dataclass(frozen=True)
class Pair:
    """Two photos that were taken days apart, by their EXIF, and pass for copies: wrong, unless the date of one was changed."""

    first: str
    second: str
    score: float
    agree: float


@dataclass(frozen=True)
class Calibration:
    """What was measured. Of each copy made: its kind, its cosine with its original, and the share of tiles that agree, -1 where it was not
    accepted. The same of each pair of the library that was accepted. Pictures within pictures, which are found whatever their cosine, and
    only where nothing above the floor is asked for, have the floor for it. `pairs` of the library, how many of them were taken days apart
    (`far`), and which of these were accepted.
    """

    photos: int
    floor: float
    kinds: tuple[str, ...]
    scores: NDArray[np.float64]
    agree: NDArray[np.float64]
    found: NDArray[np.float64]  # (n, 2): cosine, share
    pairs: int
    far: int
    wrong: tuple[Pair, ...]

    def at(self, threshold: float, strictness: float) -> Setting:
        """What one setting gives."""
        passed = (self.scores >= threshold) & (self.agree >= strictness)
        everyday = np.array([kind in EVERYDAY for kind in self.kinds], dtype=bool)
        easy, hard = (Share(int(passed[part].sum()), int(part.sum())) for part in (everyday, ~everyday))
        found = int(((self.found[:, 0] >= threshold) & (self.found[:, 1] >= strictness)).sum())
        wrong = sum(pair.score >= threshold and pair.agree >= strictness for pair in self.wrong)
        return Setting(threshold, strictness, easy, hard, found, Share(wrong, self.far), self.pairs)

    def settings(self) -> list[Setting]:
        """A range of settings, the most lenient first."""
        thresholds = [round(self.floor + STEP * step, 4) for step in range(STEPS) if self.floor + STEP * step < 1]
        return [self.at(*both) for both in product(thresholds, STRICTNESS)]

    def best(self) -> Setting:
        """That which finds most with the precision that is aimed at; where none is so sure, the most precise."""
        every = self.settings()
        sure = [one for one in every if (one.at_least or 0.0) >= WANTED]
        most = (lambda one: one.everyday.some + one.hard.some) if sure else (lambda one: one.at_least or 0.0)
        return max(sure or every, key=most)
