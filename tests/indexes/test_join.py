"""Joins: the exact one against brute force, its bound, the IVF join and its recall, the planner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import Store
from indexes.catalog.pairs import JoinWatermark
from indexes.join import exact, planner
from indexes.join.bound import PRODUCT_MARGIN, CosineBound, choose_bound
from indexes.join.planner import JoinMethod
from indexes.join.recall import Recall
from indexes.join.step import JoinStep
from indexes.vectors.scores import concat_pairs
from tests.support.stores import (
    SPACE,
    find_image_pairs,
    find_pairs_by_brute_force,
    join_all,
    make_batch,
    make_unit_rows,
    open_new_store,
)


def collect_scores(steps: Sequence[JoinStep]) -> dict[tuple[int, int], float]:
    """Collect the score of each pair; no pair may be found twice."""
    pairs = concat_pairs([step.new_pairs for step in steps])
    scores = pairs.to_dict()
    assert len(scores) == len(pairs.left)
    return scores


def make_random_bound(axis_count: int, seed: int = 0) -> CosineBound:
    """Make a bound with random orthonormal axes."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))
    return CosineBound(np.ascontiguousarray(axes[:, :axis_count], np.float32))


def test_exact_join_with_any_block_tile_and_bound_finds_the_same_pairs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_unit_rows(3, 90)
    for start in range(0, 90, 20):
        store.add(make_batch(list(range(start, min(start + 20, 90))), rows))
    image_pairs = set(find_image_pairs(store, 0.8))
    assert image_pairs == find_pairs_by_brute_force(rows, 0.8)
    assert image_pairs
    vectors = store._mapped.get_rows()
    expected = store.search.find_pairs(0.8).to_dict()
    bounds = [CosineBound(None), *(make_random_bound(count) for count in (1, 5, 15))]
    for block_rows, tile_rows, cached_bytes in (
        (1, 1, 0),
        (7, 3, 1 << 20),
        (45, 45, 0),
        (90, 8, 1 << 20),
        (100, 200, 0),
    ):
        monkeypatch.setattr(exact, "BLOCK_ROWS", block_rows)
        monkeypatch.setattr(exact, "TILE_ROWS", tile_rows)
        monkeypatch.setattr(exact, "MAX_CACHED_PROJECTION_BYTES", cached_bytes)
        for bound in bounds:
            for threads in (1, 3):
                steps = list(exact.find_pairs(vectors, JoinWatermark(0.8), bound, threads=threads))
                assert collect_scores(steps) == expected
                last, pair_count = steps[-1], len(vectors.ids) * (len(vectors.ids) - 1) // 2
                assert last.done == last.total == pair_count
                assert last.watermark == JoinWatermark(0.8, done=int(vectors.ids[-1]))
        # Cut off after any step, it continues from there.
        for stop in range(0, len(steps), max(1, len(steps) // 9)):
            rest = list(exact.find_pairs(vectors, steps[stop].watermark, CosineBound(None)))
            assert collect_scores([*steps[: stop + 1], *rest]) == expected


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), axis_count=st.integers(1, 15))
def test_bound_is_never_below_the_cosine(seed: int, axis_count: int) -> None:
    rows = make_unit_rows(seed, 40).astype(np.float16)
    projected = make_random_bound(axis_count, seed).project(rows)
    unit_rows = rows.astype(np.float64)
    unit_rows /= np.linalg.norm(unit_rows, axis=1, keepdims=True)
    assert (projected @ projected.T >= unit_rows @ unit_rows.T - PRODUCT_MARGIN).all()


def test_bound_width_shrinks_as_the_threshold_rises() -> None:
    rows = np.random.default_rng(0).standard_normal((3000, 256))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    axis_counts = []
    for min_score in (0.5, 0.7, 0.9):
        axes = choose_bound(rows.astype(np.float16), min_score).axes
        assert axes is not None
        assert np.allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-5)
        axis_counts.append(axes.shape[1])
    # The higher the threshold, the fewer numbers show that a pair is below it.
    assert axis_counts == sorted(axis_counts, reverse=True)
    assert axis_counts[0] > axis_counts[-1]
    # With 16 dimensions no bound pays.
    assert choose_bound(make_unit_rows(1, 500).astype(np.float16), 0.9).axes is None


def test_dense_cluster_raises_the_floor_and_lower_thresholds_are_joined_on_demand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = make_unit_rows(1, 60)
    with open_new_store() as store:
        store.add(make_batch(list(range(60)), rows))
        expected = store.search.find_pairs(-1.0)
        monkeypatch.setattr(planner, "MAX_EDGES_PER_VECTOR", 2)
        monkeypatch.setattr(planner, "MIN_EDGE_BUDGET", 0)
        join_all(store)
        watermark = store.catalog.pairs.get_watermark()
        assert watermark
        assert SPACE.floor < watermark.floor <= SPACE.threshold
        assert store.catalog.pairs.count() < len(expected.score)
        for min_score in (-1.0, 0.0, watermark.floor, 0.95):
            found = store.search.find_pairs(min_score)
            above = expected.select(expected.score >= min_score)
            assert found.left.tolist() == above.left.tolist()
            assert found.score.tolist() == above.score.tolist()


@pytest.mark.parametrize("is_cluster_first", [True, False])
def test_floor_is_lowered_again_when_the_cluster_is_small_beside_the_library(
    monkeypatch: pytest.MonkeyPatch, is_cluster_first: bool
) -> None:
    """All pairs are known in the end, in whatever order the images came."""
    monkeypatch.setattr(planner, "MAX_EDGES_PER_VECTOR", 2)
    monkeypatch.setattr(planner, "MIN_EDGE_BUDGET", 0)
    cluster = np.abs(make_unit_rows(1, 60))
    cluster /= np.linalg.norm(cluster, axis=1, keepdims=True)
    rows = np.concatenate([cluster, np.eye(SPACE.dim, dtype=np.float32)[:4]])
    added = 60 if is_cluster_first else 0
    with open_new_store() as store:
        if is_cluster_first:
            store.add(make_batch(list(range(added)), rows))
            join_all(store)
            watermark = store.catalog.pairs.get_watermark()
            assert watermark
            assert watermark.floor > SPACE.floor
        monkeypatch.setattr(planner, "MIN_EDGE_BUDGET", 10_000)
        store.add(make_batch(list(range(added, 64)), rows))
        join_all(store)
        watermark = store.catalog.pairs.get_watermark()
        assert watermark
        last_id = store.catalog.vectors.get_next_id() - 1
        assert (watermark.floor, watermark.done) == (SPACE.floor, last_id)
        expected = store.search.find_pairs(SPACE.floor)
        assert store.catalog.pairs.count() == len(expected.score)
        assert len(expected.score) > 60 * 59 / 4


@pytest.mark.parametrize("method", list(JoinMethod))
def test_each_join_method_finds_the_pairs(
    method: JoinMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So the floor rises to where the IVF join searches a few of its lists only.
    monkeypatch.setattr(planner, "MAX_EDGES_PER_VECTOR", 10)
    monkeypatch.setattr(planner, "MIN_EDGE_BUDGET", 0)
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((3000, SPACE.dim))
    rows[1500:] = rows[:1500] + 0.25 * rng.standard_normal((1500, SPACE.dim))
    unit_rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    with open_new_store() as store:
        store.add(make_batch(list(range(2000)), unit_rows))
        for _ in store.join(method):
            pass
        store.add(make_batch(list(range(2000, 3000)), unit_rows))
        *_, last = store.join(method)
        assert last.plan.method is method
        assert "as requested" in last.plan.reason
        watermark = store.catalog.pairs.get_watermark()
        assert watermark
        edges = store.catalog.pairs.stream(-2.0)
        stored = {(left, right): score for left, right, score in edges}
    with open_new_store() as reference:
        reference.add(make_batch(list(range(3000)), unit_rows))
        expected = reference.search.find_pairs(watermark.floor).to_dict()
    assert stored.items() <= expected.items()
    if method is JoinMethod.EXACT:
        assert stored == expected
        assert last.recall is None
    else:
        assert last.recall
        assert last.recall.sampled > 100
        share = len(stored) / len(expected)
        assert len(stored) >= 0.99 * len(expected)
        assert last.recall.found / last.recall.sampled >= share - 0.01
        assert last.recall.lower_bound_95 < 1


def test_planner_chooses_ivf_where_exact_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_unit_rows(1, 500)
    with open_new_store() as store:
        store.add(make_batch(list(range(500)), rows))
        plan = next(store.join()).plan
        assert plan.method is JoinMethod.EXACT
        assert "for all of them" in plan.reason
        monkeypatch.setattr(planner, "MAX_EXACT_SECONDS", 1e-9)
        plan = next(store.join()).plan
        assert plan.method is JoinMethod.IVF
        assert "the limit is" in plan.reason


def test_recall_lower_bound_equals_the_binomial_bound() -> None:
    all_found = Recall(3000, 3000, 1, 1).lower_bound_95
    assert all_found == pytest.approx(0.05 ** (1 / 3000))
    assert all_found > 0.999
    one_missed = Recall(2999, 3000, 1, 1).lower_bound_95
    assert one_missed == pytest.approx(0.99842, abs=1e-5)  # from tables: 4.74 / 3000
    assert Recall(0, 0, 1, 1).lower_bound_95 == 0
    assert Recall(0, 10, 1, 1).lower_bound_95 == pytest.approx(0, abs=1e-9)
