"""Choose the method of a join, and the floor down to which its pairs are stored."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from indexes.catalog.pairs import JoinWatermark
from indexes.join import exact, ivf
from indexes.join.bound import (
    CANDIDATE_BLOCK_PAIRS,
    PRODUCT_MARGIN,
    CosineBound,
    choose_bound,
    compute_exact_scores,
    find_pairs_above_bound,
    normalize,
    sample_rows,
)
from indexes.join.exact import BLOCK_ROWS, TILE_ROWS
from indexes.join.step import JoinStep, count_pairs
from indexes.vectors.rows import VectorRows, pick_evenly

# The longest estimated time of an exact join; above it, IVF is chosen.
MAX_EXACT_SECONDS = 120.0
# About the most pairs that are stored for each vector: in a library of one theme, most pairs are
# above a low floor. Few more are ever candidates (see indexes.catalog.candidates).
MAX_EDGES_PER_VECTOR = 40
# This many pairs in all are never too many: they take 33 MB of the catalog, and some seconds.
MIN_EDGE_BUDGET = 1_000_000
# A floor is lowered only if it keeps at most this share of the budget. Otherwise a sample would let
# it rise and fall by chance.
LOWER_FLOOR_BUDGET_SHARE = 0.25
FLOOR_STEP = 0.05
# Rows whose pairs estimate how many reach each score: eight million pairs.
PAIR_SHARE_SAMPLE_ROWS = 4096


class JoinMethod(StrEnum):
    """The methods of a join: all pairs exactly, or almost all by inverted lists."""

    EXACT = "exact"
    IVF = "ivf"


@dataclass(frozen=True)
class JoinPlan:
    """The method and bound of a join that starts at `watermark`, and the reason in words.

    `exact_seconds` is the estimated time of an exact join.
    """

    method: JoinMethod
    reason: str
    exact_seconds: float
    watermark: JoinWatermark
    bound: CosineBound

    def execute(self, vectors: VectorRows) -> Iterator[JoinStep]:
        """Join `vectors` by the planned method."""
        find_pairs = exact.find_pairs if self.method is JoinMethod.EXACT else ivf.find_pairs
        return find_pairs(vectors, self.watermark, self.bound)


def plan_join(
    vectors: VectorRows, watermark: JoinWatermark, method: JoinMethod | None = None
) -> JoinPlan:
    """Plan a join of the pairs that `watermark` does not cover yet.

    It is exact while that takes up to about MAX_EXACT_SECONDS, unless `method` is given.
    """
    bound = choose_bound(sample_rows(vectors), watermark.floor)
    new_pairs = count_pairs(len(vectors.ids), vectors.count_up_to(watermark.done))
    seconds = new_pairs * _measure_pair_seconds(vectors, bound, watermark.floor)
    pairs = f"{new_pairs:,} {'pair' if new_pairs == 1 else 'pairs'} of vectors"
    reason = f"{pairs}, about {format_duration(seconds)} for all of them"
    if method is not None:
        reason += "; as requested"
    elif seconds <= MAX_EXACT_SECONDS:
        method = JoinMethod.EXACT
    else:
        method = JoinMethod.IVF
        reason += f"; the limit is {format_duration(MAX_EXACT_SECONDS)}"
    return JoinPlan(method, reason, seconds, watermark, bound)


def choose_floor(
    vectors: VectorRows, watermark: JoinWatermark, min_floor: float, max_floor: float
) -> JoinWatermark:
    """Raise or lower the floor of a watermark, within `min_floor` to `max_floor`.

    It is raised while a sample says that more pairs would be stored than MAX_EDGES_PER_VECTOR for
    each vector, and than MIN_EDGE_BUDGET in all. If a floor below the present one keeps at most
    LOWER_FLOOR_BUDGET_SHARE of that budget, the whole join starts from the beginning at that floor.
    """
    step_count = max(0, int(np.ceil((max_floor - min_floor) / FLOOR_STEP - 1e-9)))
    floors = [
        min(max_floor, round(min_floor + FLOOR_STEP * step, 6)) for step in range(step_count + 1)
    ]
    budget = max(MAX_EDGES_PER_VECTOR * len(vectors.ids), MIN_EDGE_BUDGET)
    pair_count = count_pairs(len(vectors.ids))
    edge_counts = [
        share * pair_count for share in estimate_pair_shares(sample_rows(vectors), floors)
    ]
    floor_to_lower_to = _find_lowest_floor(floors, edge_counts, budget * LOWER_FLOOR_BUDGET_SHARE)
    if floor_to_lower_to < watermark.floor:
        return JoinWatermark(floor_to_lower_to)
    floor_to_raise_to = _find_lowest_floor(floors, edge_counts, budget)
    return replace(watermark, floor=max(floor_to_raise_to, watermark.floor))


def _find_lowest_floor(
    floors: Sequence[float], edge_counts: Sequence[float], max_edges: float
) -> float:
    """Find the lowest floor that keeps at most `max_edges` pairs; the highest if none does."""
    for floor, edge_count in zip(floors, edge_counts, strict=True):
        if edge_count <= max_edges:
            return floor
    return floors[-1]


def estimate_pair_shares(vectors: NDArray[np.float16], min_scores: Sequence[float]) -> list[float]:
    """Estimate the share of all pairs at or above each score, from a sample of vectors (n, dim)."""
    unit_rows = normalize(vectors[pick_evenly(len(vectors), PAIR_SHARE_SAMPLE_ROWS)])
    products = unit_rows @ unit_rows.T
    np.fill_diagonal(products, -np.inf)
    ordered_pairs = max(1, len(unit_rows) * (len(unit_rows) - 1))
    return [
        np.count_nonzero(products >= min_score - PRODUCT_MARGIN) / ordered_pairs
        for min_score in min_scores
    ]


def _measure_pair_seconds(vectors: VectorRows, bound: CosineBound, min_score: float) -> float:
    """Measure the time of a pair on this machine: the median of three tiles, scoring included."""
    rows = pick_evenly(len(vectors.ids), BLOCK_ROWS)
    block = bound.project(vectors.gather(rows))
    tile = block[pick_evenly(len(rows), TILE_ROWS)]
    buffer = np.empty(len(tile) * len(block), np.float32)
    timings = []
    with threadpool_limits(1, user_api="blas"):
        for _ in range(3):
            started = time.perf_counter()
            left, right = find_pairs_above_bound(tile, block, buffer, min_score)
            scored = slice(0, CANDIDATE_BLOCK_PAIRS)
            for _ in compute_exact_scores(
                vectors, rows[left[scored]], rows[right[scored]], min_score
            ):
                pass
            timings.append(time.perf_counter() - started)
    median = sorted(timings)[1]
    return median / (len(tile) * len(block)) / (os.cpu_count() or 1)


def format_duration(seconds: float) -> str:
    """Format a duration for people: 3 s, 12 min, 5 h."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
