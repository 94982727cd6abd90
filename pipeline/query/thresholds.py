"""Thresholds of an answer: requested, else saved for the store, else those of its space."""

from __future__ import annotations

from dataclasses import dataclass

from indexes.records import Space
from indexes.store import Store


@dataclass(frozen=True)
class Thresholds:
    """The least scores and the least agreement that an answer needs; each means `>=`.

    `search`: pairs of vectors with a lower cosine are not considered. `similar`: from this cosine
    on, a pair that pixels cannot decide is SIMILAR; one in doubt by the judge is, at any score.
    `min_agreement`: the share of tiles, 0 to 1, that must agree in a copy; a copy with fewer is
    SIMILAR. `with_crops`: copies found by their crops count too, although the cosine of the two
    whole images is below `search`.
    """

    search: float
    similar: float
    min_agreement: float
    with_crops: bool = False

    @property
    def min_score(self) -> float | None:
        """The least score of a verified pair; None if every one counts."""
        return None if self.with_crops else self.search


def get_effective_floor(store: Store, space: Space) -> float:
    """Return the lowest cosine down to which the store knows all pairs.

    This is the floor of `space`, or a higher one if the join raised it to limit the pairs.
    """
    watermark = store.catalog.pairs.get_watermark()
    return max(space.floor, watermark.floor) if watermark else space.floor


def resolve_thresholds(
    store: Store, space: Space, threshold: float | None = None, min_agreement: float | None = None
) -> Thresholds:
    """Complete the requested thresholds by those saved for the store, else by those of `space`.

    A requested `threshold` is used as it is, for both searching and SIMILAR, and without crops.
    Otherwise the search goes down to the saved threshold or to the effective floor, whichever is
    higher, SIMILAR starts at the threshold of the space, and crops count if the search reaches the
    floor. Without a request or a saved value, `min_agreement` is 0.
    """
    saved = store.catalog.settings.get_saved_thresholds()
    if min_agreement is None:
        min_agreement = saved.min_agreement if saved else 0.0
    if threshold is not None:
        return Thresholds(threshold, threshold, min_agreement)
    floor = get_effective_floor(store, space)
    search = max(floor, saved.threshold) if saved else floor
    similar = max(search, space.threshold)
    return Thresholds(search, similar, min_agreement, with_crops=search <= floor)
