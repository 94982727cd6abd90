"""Whether the pairs of a store are looked for exactly or by buckets, how far down they are kept, and how the two are run alike."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from threadpoolctl import threadpool_limits

from indexes.catalog.pairs import JoinWatermark
from indexes.join import exact as join
from indexes.join import ivf as buckets
from indexes.join.exact import BLOCK_ROWS, TILE_ROWS, CosineBound, JoinStep, VectorRows

MAX_EXACT_SECONDS = 120.0  # seconds that an exact join may take before buckets are asked
# Pairs kept for each vector, about: a library of one theme has most of its pairs above a low floor. So many in all are never too many: they
# are looked at within a quarter of an hour.
MAX_EDGES_PER_VECTOR, MIN_EDGE_BUDGET = 20, 100_000
FLOOR_STEP = 0.05


class JoinMethod(StrEnum):
    """How pairs are looked for."""

    EXACT = "exact"
    IVF = "ivf"


@dataclass(frozen=True)
class JoinPlan:
    """How pairs will be looked for from `frontier` on, why, and the estimated time of an exact join."""

    method: JoinMethod
    reason: str
    exact_seconds: float
    watermark: JoinWatermark
    bound: CosineBound

    def execute(self, vectors: VectorRows) -> Iterator[JoinStep]:
        """Do it."""
        find = join.find_pairs if self.method is JoinMethod.EXACT else buckets.find_pairs
        return find(vectors, self.watermark, self.bound)


def plan_join(
    vectors: VectorRows, watermark: JoinWatermark, method: JoinMethod | None = None
) -> JoinPlan:
    """The way to the pairs that are not within `frontier` yet: exact while that takes up to about PATIENCE, unless `way` is given."""
    prefix = join.choose_bound(join.sample_rows(vectors), watermark.floor)
    new = join.count_pairs(len(vectors.ids), vectors.count_up_to(watermark.done))
    seconds = new * _measure_pair_seconds(vectors, prefix, watermark.floor)
    about = f"{new:,} {'pair' if new == 1 else 'pairs'} of vectors, about {format_duration(seconds)} if compared exactly"
    if method is None:
        method = JoinMethod.EXACT if seconds <= MAX_EXACT_SECONDS else JoinMethod.IVF
        limit = f"the limit is {format_duration(MAX_EXACT_SECONDS)}"
        about += f"; {limit}" if method is JoinMethod.IVF else ""
    else:
        about += "; as asked"
    return JoinPlan(method, about, seconds, watermark, prefix)


def choose_floor(
    vectors: VectorRows, watermark: JoinWatermark, min_floor: float, max_floor: float
) -> JoinWatermark:
    """The frontier with its floor raised, from `lowest` up to `highest`, while a sample says that more pairs would be kept than EDGES for
    each vector, and than FEW in all. Where no more than a quarter of that are above a lower floor than its own now, all begins anew from
    there: far less, or a sample would let it rise and fall by chance.
    """
    steps = max(0, int(np.ceil((max_floor - min_floor) / FLOOR_STEP - 1e-9)))
    floors = [min(max_floor, round(min_floor + FLOOR_STEP * step, 6)) for step in range(steps + 1)]
    most, count = (
        max(MAX_EDGES_PER_VECTOR * len(vectors.ids), MIN_EDGE_BUDGET),
        join.count_pairs(len(vectors.ids), 0),
    )
    kept = [share * count for share in join.estimate_pair_shares(join.sample_rows(vectors), floors)]
    below = next(
        (floor for floor, pairs in zip(floors, kept, strict=True) if pairs <= most / 4), floors[-1]
    )
    if below < watermark.floor:
        return JoinWatermark(below)
    fits = next(
        (floor for floor, pairs in zip(floors, kept, strict=True) if pairs <= most), floors[-1]
    )
    return replace(watermark, floor=max(fits, watermark.floor))


def _measure_pair_seconds(vectors: VectorRows, bound: CosineBound, min_score: float) -> float:
    """What a pair costs on this machine, by the median of three tiles, with the deciding of what they propose."""
    rows = join.pick_evenly(len(vectors.ids), BLOCK_ROWS)
    facing = bound.project(vectors.gather(rows))
    some = facing[join.pick_evenly(len(rows), TILE_ROWS)]
    space = np.empty(len(some) * len(facing), np.float32)
    taken = []
    with threadpool_limits(1, user_api="blas"):
        for _ in range(3):
            began = time.perf_counter()
            left, right = join.pairs_above_bound(some, facing, space, min_score)
            part = slice(0, join.CANDIDATE_BLOCK_PAIRS)
            for _ in join.exact_scores(vectors, rows[left[part]], rows[right[part]], min_score):
                pass
            taken.append(time.perf_counter() - began)
    return sorted(taken)[1] / (len(some) * len(facing)) / (os.cpu_count() or 1)


def format_duration(seconds: float) -> str:
    """For people: 3 s, 12 min, 5 h."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
