"""Find which of two aligned images was altered in places, by what it shows there."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from pipeline.verify.changed_areas import GRADIENT_OFFSET
from pipeline.verify.relation import Side

MIN_SMOOTHED_SHARE = 0.5  # of the changed cells, from which one image is the other smoothed there
# An overlay adds detail by this log ratio. Of 517 copies whose second image was altered, 157 show
# it so, and 9 of the first image; a blur shows in 37, and wrongly in 11. Without the bound on
# palettes, 49 and 30.
MIN_ADDED_DETAIL = 0.4
MIN_BLURRED_PALETTE = 0.1  # share in the two most frequent tones that a blurred side has more


def find_altered_side(
    detail: float, palette: float, smoothed_share: float, *, adds_detail: bool
) -> Side | None:
    """Find the side on which the changed areas were altered; None where that does not show.

    `detail` is the log ratio of the gradients there, the first side over the second; `palette` the
    difference of the shares of the two most frequent tones. Lettering and stickers add detail to
    one side, so that the two have more there than around it (`adds_detail`). A blur takes it away,
    and leaves fewer tones.
    """
    sharper = Side.FIRST if detail > 0 else Side.SECOND
    if adds_detail:
        return sharper if abs(detail) > MIN_ADDED_DETAIL else None
    sign = 1 if sharper is Side.FIRST else -1
    # Where no pixel differs by much, as lettering does, neither side has a palette.
    is_blur = smoothed_share >= MIN_SMOOTHED_SHARE and (
        palette == 0.0 or sign * palette <= -MIN_BLURRED_PALETTE
    )
    return sharper.other if is_blur else None


def adds_detail(inside: Sequence[float], around: Sequence[float | None]) -> bool:
    """Tell if the two sides have more detail in changed areas than around, in geometric mean.

    Both are the mean gradients of each side; without unchanged cells there is nothing to exceed.
    """
    return (
        None not in around
        and prod(
            (own + GRADIENT_OFFSET) / ((usual or 0.0) + GRADIENT_OFFSET)
            for own, usual in zip(inside, around, strict=True)
        )
        >= 1.0
    )
