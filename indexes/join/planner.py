"""Whether the pairs of a store are looked for exactly or by buckets, how far down they are kept, and how the two are run alike."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from threadpoolctl import threadpool_limits

from indexes.catalog.pairs import Frontier
from indexes.join import exact as join
from indexes.join import ivf as buckets
from indexes.join.exact import BLOCK, TILE, Prefix, Shelf, Step

PATIENCE = 120.0  # seconds that an exact join may take before buckets are asked
# Pairs kept for each vector, about: a library of one theme has most of its pairs above a low floor. So many in all are never too many: they
# are looked at within a quarter of an hour.
EDGES, FEW = 20, 100_000
FLOOR_STEP = 0.05


class Way(StrEnum):
    """How pairs are looked for."""

    EXACT = "exact"
    BUCKETS = "buckets"


@dataclass(frozen=True)
class Plan:
    """How pairs will be looked for from `frontier` on, why, and the estimated time of an exact join."""

    way: Way
    why: str
    seconds: float
    frontier: Frontier
    prefix: Prefix

    def steps(self, shelf: Shelf) -> Iterator[Step]:
        """Do it."""
        find = join.pairs if self.way is Way.EXACT else buckets.pairs
        return find(shelf, self.frontier, self.prefix)


def plan(shelf: Shelf, frontier: Frontier, way: Way | None = None) -> Plan:
    """The way to the pairs that are not within `frontier` yet: exact while that takes up to about PATIENCE, unless `way` is given."""
    prefix = join.choose_prefix(join.sample(shelf), frontier.floor)
    new = join.count_pairs(len(shelf.ids), shelf.up_to(frontier.through))
    seconds = new * _pair_seconds(shelf, prefix, frontier.floor)
    about = f"{new:,} {'pair' if new == 1 else 'pairs'} of vectors, about {duration(seconds)} if compared exactly"
    if way is None:
        way = Way.EXACT if seconds <= PATIENCE else Way.BUCKETS
        limit = f"the limit is {duration(PATIENCE)}"
        about += f"; {limit}" if way is Way.BUCKETS else ""
    else:
        about += "; as asked"
    return Plan(way, about, seconds, frontier, prefix)


def fitted(shelf: Shelf, frontier: Frontier, lowest: float, highest: float) -> Frontier:
    """The frontier with its floor raised, from `lowest` up to `highest`, while a sample says that more pairs would be kept than EDGES for
    each vector, and than FEW in all. Where no more than a quarter of that are above a lower floor than its own now, all begins anew from
    there: far less, or a sample would let it rise and fall by chance.
    """
    steps = max(0, int(np.ceil((highest - lowest) / FLOOR_STEP - 1e-9)))
    floors = [min(highest, round(lowest + FLOOR_STEP * step, 6)) for step in range(steps + 1)]
    most, count = max(EDGES * len(shelf.ids), FEW), join.count_pairs(len(shelf.ids), 0)
    kept = [share * count for share in join.share_of_pairs(join.sample(shelf), floors)]
    below = next((floor for floor, pairs in zip(floors, kept, strict=True) if pairs <= most / 4), floors[-1])
    if below < frontier.floor:
        return Frontier(below)
    fits = next((floor for floor, pairs in zip(floors, kept, strict=True) if pairs <= most), floors[-1])
    return replace(frontier, floor=max(fits, frontier.floor))


def _pair_seconds(shelf: Shelf, prefix: Prefix, least: float) -> float:
    """What a pair costs on this machine, by the median of three tiles, with the deciding of what they propose."""
    rows = join.spread(len(shelf.ids), BLOCK)
    facing = prefix.of(shelf.take(rows))
    some = facing[join.spread(len(rows), TILE)]
    space = np.empty(len(some) * len(facing), np.float32)
    taken = []
    with threadpool_limits(1, user_api="blas"):
        for _ in range(3):
            began = time.perf_counter()
            left, right = join.proposed(some, facing, space, least)
            part = slice(0, join.DECIDED)
            for _ in join.decided(shelf, rows[left[part]], rows[right[part]], least):
                pass
            taken.append(time.perf_counter() - began)
    return sorted(taken)[1] / (len(some) * len(facing)) / (os.cpu_count() or 1)


def duration(seconds: float) -> str:
    """For people: 3 s, 12 min, 5 h."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
