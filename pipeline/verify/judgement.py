"""The judgement of a pair: the probabilities of what two images can be to each other."""

from __future__ import annotations

from dataclasses import dataclass

# Share of agreeing tiles from which a copy only lost something: nothing lies on it, nothing moved.
# Nearly all pairs of true copies that were re-exported, resized or filtered reach it, and few other
# shots: 31 of about 840 pairs of look-alikes.
MIN_CLEAN_AGREEMENT = 0.97
UNKNOWN_NOISE = -1.0  # stands for a correlation of noise that cannot be measured


@dataclass(frozen=True, slots=True)
class Judgement:
    """The probabilities that a pair are copies, two shots of a scene, or share a template only.

    Each is judged by itself, so they need not sum to 1. `model` is the version of the judge.
    `noise_ncc`: the correlation of the noise of the two images, or
    UNKNOWN_NOISE.
    """

    copy: float
    shot: float
    template: float
    noise_ncc: float
    model: str
