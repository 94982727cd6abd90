"""The candidates among the pairs of near vectors, against brute force."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.catalog import candidates
from indexes.catalog.candidates import select_candidates
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch, Store
from tests.support.stores import SPACE, make_hash, open_new_store

Pair = tuple[int, int]


def _add_images(store: Store, widths: list[int]) -> list[int]:
    """Add an image of each width; return their vectors. Odd ones have a kind of metadata."""
    for number, width in enumerate(widths):
        kinds = ("exif",) * (number % 2)
        image = StoredImage(
            make_hash(number), make_hash(number), width, 10, "PNG", 1, False, (), kinds
        )
        row = np.zeros(SPACE.dim, np.float32)
        row[number % SPACE.dim] = 1.0
        row[(number * 7 + 3) % SPACE.dim] += 0.1 * number
        stat = FileStat(1, 1, 1, number, 1)
        batch = Batch(
            [(image, row / np.linalg.norm(row))], [NewFile(f"/p/{number}", stat, image.hash)]
        )
        store.add(batch)
    ids = sorted(store.catalog.images.list_in_use())
    return [vector or 0 for vector in store.catalog.vectors.find_of_images(ids).values()]


def _choose_by_brute_force(
    scores: dict[Pair, float], widths: dict[int, int], numbers: dict[int, int]
) -> set[Pair]:
    others = defaultdict[int, list[tuple[float, int]]](list)
    for (left, right), score in scores.items():
        others[left].append((score, right))
        others[right].append((score, left))
    chosen = set[Pair]()
    for own, near in others.items():
        nearest = sorted((score for score, _ in near), reverse=True)[: candidates.MAX_NEAREST]
        originals = sorted(
            (numbers[other] % 2 == 0, -widths[other], make_hash(numbers[other]), other)
            for _, other in near
        )
        arbitrary = sorted((make_hash(numbers[other]), other) for _, other in near)
        hubs = {other for *_, other in originals[: candidates.MAX_LARGEST]}
        hubs |= {other for _, other in arbitrary[: candidates.MAX_ARBITRARY]}
        for score, other in near:
            if score >= nearest[-1] or other in hubs:
                chosen.add((min(own, other), max(own, other)))
    return chosen


@given(
    widths=st.lists(st.integers(10, 14), min_size=2, max_size=14),
    levels=st.lists(st.integers(0, 6), min_size=91, max_size=91),
    limits=st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(1, 2)),
)
@settings(max_examples=40, deadline=None)
def test_candidates_are_the_nearest_and_the_hubs(
    widths: list[int], levels: list[int], limits: tuple[int, int, int]
) -> None:
    """Level 0 is a pair that is not near; equal levels are equal scores."""
    limits = (max(limits), *limits[1:])
    with open_new_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, limit in zip(
            ("MAX_NEAREST", "MAX_LARGEST", "MAX_ARBITRARY"), limits, strict=True
        ):
            patch.setattr(candidates, name, limit)
        vectors = _add_images(store, widths)
        scores = {
            pair: level / 10
            for pair, level in zip(combinations(sorted(vectors), 2), levels, strict=False)
            if level
        }
        pairs = np.array(list(scores), np.int64).reshape(-1, 2)
        mask = select_candidates(store.catalog, pairs, np.array(list(scores.values())))
        chosen = {pair for pair, is_chosen in zip(scores, mask.tolist(), strict=True) if is_chosen}
        numbers = {vector: number for number, vector in enumerate(vectors)}
        by_vector = {vector: widths[number] for vector, number in numbers.items()}
        assert chosen == _choose_by_brute_force(scores, by_vector, numbers)


def test_each_image_of_a_cluster_has_a_bounded_number_of_candidates() -> None:
    size = 150
    most = candidates.MAX_NEAREST + candidates.MAX_LARGEST + candidates.MAX_ARBITRARY
    with open_new_store() as store:
        vectors = _add_images(store, [10] * size)
        pairs = np.array(list(combinations(sorted(vectors), 2)), np.int64)
        scores = np.random.default_rng(0).uniform(0.5, 1.0, len(pairs))
        count = np.count_nonzero(select_candidates(store.catalog, pairs, scores))
    assert count <= most * size < len(pairs)
