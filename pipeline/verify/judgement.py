"""The judgement of a pair: the probabilities of what two images can be to each other."""

from __future__ import annotations

from dataclasses import dataclass

# Share of agreeing tiles from which a copy only lost something: nothing lies on it, nothing moved.
# Nearly all pairs of true copies that were re-exported, resized or filtered reach it, and few other
# shots: 31 of about 840 pairs of look-alikes.
MIN_CLEAN_AGREEMENT = 0.97
MIN_NAMED_PROBABILITY = 0.5  # of another shot, or of a template, that is named so
MIN_ODDS_RATIO = 5.0  # of a template over a copy, from which the pair is no copy
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
    def names_template(self) -> bool:
        """True if a template is likely, and far likelier than a copy.

        The same of another shot would lose retouched copies, which look like other exposures.
        """
        # Odds, p / (1 - p), without divisions by 0.
        template_odds = self.template * (1.0 - self.copy)
        copy_odds = self.copy * (1.0 - self.template)
        return self.template >= MIN_NAMED_PROBABILITY and template_odds > MIN_ODDS_RATIO * copy_odds
