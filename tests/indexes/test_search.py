"""Search against brute force: pairs, hits within a score, nearest neighbors."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import Space, Store, StoreError
from indexes.vectors import scores, segment_search
from indexes.vectors.scores import compute_cosines
from tests.support.stores import (
    SPACE,
    find_image_pairs,
    find_pairs_by_brute_force,
    get_hashes,
    make_batch,
    make_hash,
    make_unit_rows,
    open_new_store,
)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    min_score=st.floats(-1, 1),
    cuts=st.lists(st.integers(0, 60), max_size=4),
)
def test_pairs_and_hits_equal_brute_force(
    seed: int, count: int, min_score: float, cuts: list[int]
) -> None:
    rows = make_unit_rows(seed, count)
    bounds = sorted({min(cut, count) for cut in cuts} | {0, count})
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder), write=True) as store:
        store.bind(SPACE, "test")
        for start, stop in zip(bounds, bounds[1:], strict=False):
            store.add(make_batch(list(range(start, stop)), rows))
        assert set(find_image_pairs(store, min_score)) == find_pairs_by_brute_force(rows, min_score)
        hashes = get_hashes(store)
        found = store.search.find_within(rows, min_score)
        pairs = zip(found.left.tolist(), found.right.tolist(), strict=True)
        hits = {(row, hashes[id_]) for row, id_ in pairs}
        products = rows.astype(np.float64) @ rows.astype(np.float16).astype(np.float64).T
        certain = np.argwhere(products >= min_score + 1e-3).tolist()
        possible = np.argwhere(products >= min_score - 1e-3).tolist()
        assert {(row, make_hash(number)) for row, number in certain} <= hits
        assert hits <= {(row, make_hash(number)) for row, number in possible}


def test_stored_vector_finds_itself_at_score_1(store: Store) -> None:
    rows = make_unit_rows(7, 50)
    store.add(make_batch(list(range(50)), rows))
    ids = sorted(get_hashes(store))
    vectors = store.search.get_vectors(ids)
    found = store.search.find_within(np.stack([vectors[id_] for id_ in ids]), 1.0)
    assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) >= set(enumerate(ids))
    assert (found.score == 1.0).all()


def test_threshold_out_of_range_is_rejected(tmp_path: Path) -> None:
    with Store(tmp_path, write=True) as store:
        store.bind(Space("test", "test", "0" * 64, "none", 16, 0.6, 0.9), "test")
        for threshold in (0.59, 1.01):
            with pytest.raises(StoreError, match="0.6"):
                store.search.find_pairs(threshold)
        assert len(store.search.find_pairs(0.6).score) == 0


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    row_count=st.integers(2, 60),
    count=st.integers(1, 70),
    removed=st.sets(st.integers(0, 59)),
)
def test_nearest_equals_brute_force(
    seed: int, row_count: int, count: int, removed: set[int]
) -> None:
    rows = make_unit_rows(seed, row_count)
    with open_new_store() as store:
        for start in range(0, row_count, 25):
            store.add(make_batch(list(range(start, min(start + 25, row_count))), rows))
        files = [store.catalog.files.get_by_path(f"/p/{number}") for number in removed]
        store.remove_files([file.id for file in files if file])
        found = store.search.find_nearest(rows, count)
        ids = store.catalog.images.get_ids([make_hash(number) for number in range(row_count)])
        present = [number for number in range(row_count) if number not in removed]
        stored = rows.astype(np.float16)
        for query in range(row_count):
            query_scores = compute_cosines(np.broadcast_to(stored[query], stored.shape), stored)
            ranked = sorted(
                (-float(query_scores[number]), ids[make_hash(number)]) for number in present
            )
            hits = found.select(found.left == query)
            assert [
                (-score, id_)
                for id_, score in zip(hits.right.tolist(), hits.score.tolist(), strict=True)
            ] == ranked[:count]
        with pytest.raises(StoreError, match="1 or more"):
            store.search.find_nearest(rows, 0)


def test_scan_and_product_search_give_the_same_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_unit_rows(4, 300)
    with open_new_store() as store:
        store.add(make_batch(list(range(300)), rows))
        answers = []
        for max_scanned, search_k, block_rows in (
            (1000, 1, 10),
            (1000, 64, 10),
            (0, 64, 7),
            (0, 64, 4096),
        ):
            monkeypatch.setattr(segment_search, "MAX_SCANNED_QUERIES", max_scanned)
            monkeypatch.setattr(segment_search, "INITIAL_SEARCH_K", search_k)
            monkeypatch.setattr(scores, "PRODUCT_BLOCK_ROWS", block_rows)
            found = store.search.find_within(rows, 0.3)
            answers.append((found.left.tolist(), found.right.tolist(), found.score.tolist()))
        assert len(answers[0][0]) > 1000
        assert all(answer == answers[0] for answer in answers)
