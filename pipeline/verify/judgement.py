"""The judgement of a pair: the probabilities of what two images can be to each other."""

from __future__ import annotations

from dataclasses import dataclass

# Share of agreeing tiles from which a copy only lost something: nothing lies on it, nothing moved.
# Nearly all pairs of true copies that were re-exported, resized or filtered reach it, and few other
# shots: 31 of about 840 pairs of look-alikes.
MIN_CLEAN_AGREEMENT = 0.97
MIN_NAMED_PROBABILITY = 0.5  # of another shot, or of a template, that is named so
# Odds of a template, and of another shot, over those of a copy, beyond which the pair is no copy. A
# retouched copy looks like another exposure: up to 7.7 in 18 of a set that was not fitted on. From
# 10 on, of 4,207 clean copies of five sources that were left out five are lost; of 40 other shots
# that agree nearly everywhere 27 pass no more.
MIN_TEMPLATE_ODDS_RATIO = 5.0
MIN_SHOT_ODDS_RATIO = 10.0
UNKNOWN_NOISE = -1.0  # stands for a correlation of noise that cannot be measured


@dataclass(frozen=True, slots=True)
class Judgement:
    """The probabilities that a pair are copies, two shots of a scene, or share a template only.

    Each is judged by itself, so they need not sum to 1. `model` is the version of the judge.
    `noise_ncc`: the correlation of the noise of the two images, or UNKNOWN_NOISE.
    """

    copy: float
    shot: float
    template: float
    noise_ncc: float
    model: str

    @property
    def names_shot(self) -> bool:
        """True if another shot is likely."""
        return self.shot >= MIN_NAMED_PROBABILITY

    @property
    def names_other(self) -> bool:
        """True if a template or another shot is likely, and far likelier than a copy."""
        return self._is_far_likelier(self.template, MIN_TEMPLATE_ODDS_RATIO) or (
            self._is_far_likelier(self.shot, MIN_SHOT_ODDS_RATIO)
        )

    def _is_far_likelier(self, other: float, min_ratio: float) -> bool:
        # Odds, p / (1 - p), without divisions by 0.
        other_odds, copy_odds = other * (1.0 - self.copy), self.copy * (1.0 - other)
        return other >= MIN_NAMED_PROBABILITY and other_odds > min_ratio * copy_odds
