"""The recall of an IVF join, measured on a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The chance that the true recall is below the lower bound.
SIGNIFICANCE = 0.05
BISECTION_STEPS = 50


@dataclass(frozen=True)
class Recall:
    """The share of a sample of pairs, found by exact search, that an IVF join finds.

    The sample has one pair of each sampled row: `found` of `sampled` are found.
    `lists` is the number of lists of a partition, `probes` the number of lists that each vector is
    compared with.
    """

    found: int
    sampled: int
    lists: int
    probes: int

    @property
    def lower_bound_95(self) -> float:
        """The lower bound of the share of all pairs that are found, with 95 % confidence.

        It is the exact binomial bound (Clopper and Pearson, 1934); 0 without a sample.
        """
        if not self.sampled:
            return 0.0
        missed = np.arange(self.sampled - self.found + 1)
        log_binomials = np.cumsum(
            [0.0, *np.log((self.sampled - missed[:-1]) / (missed[:-1] + 1.0))]
        )
        low, high = 0.0, 1.0
        for _ in range(BISECTION_STEPS):
            share = (low + high) / 2
            log_misses = missed * np.log1p(-share)
            log_hits = (self.sampled - missed) * np.log(share)
            probability = np.exp(log_binomials + log_misses + log_hits).sum()
            low, high = (low, share) if probability > SIGNIFICANCE else (share, high)
        return low
