"""The candidates among the pairs of near vectors, against brute force."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.catalog import candidates
from indexes.catalog.candidates import select_candidates
from indexes.catalog.verdicts import StoredVerdict
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch, Store
from pipeline.verify.relation import UNREPORTED_RELATIONS, Relation
from tests.support.stores import SPACE, make_hash, open_new_store

Pair = tuple[int, int]
RELATED, NONE = Relation.DERIVED, Relation.UNRELATED


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


def _relate(store: Store, vectors: list[int], related: set[Pair]) -> None:
    """Write a verdict on the images of each two vectors: a relation for `related`, else none."""
    image_of = {vector: image for image, vector in store.catalog.images.find_of_vectors(vectors)}
    store.save_verdicts(
        StoredVerdict(
            image_of[right], image_of[left], 1, False, RELATED if pair in related else NONE, "{}"
        )
        for pair in combinations(sorted(vectors), 2)
        for left, right in [pair]
    )


def _choose_by_brute_force(
    scores: dict[Pair, float], related: set[Pair], widths: dict[int, int], numbers: dict[int, int]
) -> set[Pair]:
    others = defaultdict[int, list[tuple[float, int]]](list)
    for (left, right), score in scores.items():
        others[left].append((score, right))
        others[right].append((score, left))

    def sort(own: int, other: int) -> Pair:
        return (own, other) if own < other else (other, own)

    def find_nearest(own: int, count: int) -> set[int]:
        least = sorted((score for score, _ in others[own]), reverse=True)[:count][-1]
        return {other for score, other in others[own] if score >= least}

    first = {
        sort(own, other) for own in others for other in find_nearest(own, candidates.FIRST_NEAREST)
    }
    chosen = set(first)
    for own in {vector for pair in first & related for vector in pair}:
        near = [other for _, other in others[own]]
        originals = sorted(
            (numbers[other] % 2 == 0, -widths[other], make_hash(numbers[other]), other)
            for other in near
        )
        arbitrary = sorted((make_hash(numbers[other]), other) for other in near)
        hubs = {other for *_, other in originals[: candidates.MAX_LARGEST]}
        hubs |= {other for _, other in arbitrary[: candidates.MAX_ARBITRARY]}
        near_ones = hubs | find_nearest(own, candidates.MAX_NEAREST)
        chosen |= {sort(own, other) for other in near_ones}
    return chosen


@given(
    widths=st.lists(st.integers(10, 14), min_size=2, max_size=14),
    levels=st.lists(st.integers(0, 6), min_size=91, max_size=91),
    are_related=st.lists(st.booleans(), min_size=91, max_size=91),
    limits=st.tuples(*[st.integers(1, 4)] * 2, *[st.integers(1, 2)] * 2),
)
@settings(max_examples=40, deadline=None)
def test_candidates_are_the_nearest_and_if_one_is_related_more_of_them_and_hubs(
    widths: list[int],
    levels: list[int],
    are_related: list[bool],
    limits: tuple[int, int, int, int],
) -> None:
    """Level 0 is a pair that is not near; equal levels are equal scores."""
    nearest = sorted(limits[:2])
    names = "FIRST_NEAREST", "MAX_NEAREST", "MAX_LARGEST", "MAX_ARBITRARY"
    with open_new_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, limit in zip(names, (*nearest, *limits[2:]), strict=True):
            patch.setattr(candidates, name, limit)
        vectors = _add_images(store, widths)
        all_pairs = list(combinations(sorted(vectors), 2))
        related = {
            pair for pair, is_related in zip(all_pairs, are_related, strict=False) if is_related
        }
        _relate(store, vectors, related)
        scores = {pair: level / 10 for pair, level in zip(all_pairs, levels, strict=False) if level}
        pairs = np.array(list(scores), np.int64).reshape(-1, 2)
        mask = select_candidates(store.catalog, pairs, np.array(list(scores.values())))
        chosen = {pair for pair, is_chosen in zip(scores, mask.tolist(), strict=True) if is_chosen}
        numbers = {vector: number for number, vector in enumerate(vectors)}
        by_vector = {vector: widths[number] for vector, number in numbers.items()}
        assert chosen == _choose_by_brute_force(scores, related, by_vector, numbers)


def test_an_older_verdict_adds_no_candidates() -> None:
    """Also if it is on another image with the same pixels."""
    with open_new_store() as store:
        left, right = _add_images(store, [10, 10])
        image_of = {
            vector: id_ for id_, vector in store.catalog.images.find_of_vectors((left, right))
        }
        pair = image_of[left], image_of[right]
        twin = replace(dict(store.catalog.images.get(pair))[pair[0]], hash=make_hash(9))
        store.add(Batch([(twin, None)], [NewFile("/p/twin", FileStat(1, 1, 1, 9, 1), twin.hash)]))
        (twin_id,) = store.catalog.images.get_ids([twin.hash]).values()
        store.save_verdicts([StoredVerdict(twin_id, pair[1], 1, False, RELATED, "{}")])
        relations = candidates.OTHER_SCENE_RELATIONS
        assert store.catalog.verdicts.find_related_vectors(relations).tolist() == [[left, right]]
        store.save_verdicts([StoredVerdict(*pair, 2, False, NONE, "{}")])
        assert store.catalog.verdicts.find_related_vectors(relations).tolist() == []


def test_the_relations_that_add_no_candidates_are_known_ones() -> None:
    known = {*UNREPORTED_RELATIONS, Relation.SAME_TEMPLATE}
    assert set(candidates.OTHER_SCENE_RELATIONS) == known


@pytest.mark.parametrize("is_related", [False, True])
def test_each_image_of_a_cluster_has_a_bounded_number_of_candidates(is_related: bool) -> None:
    size = 110
    most = candidates.FIRST_NEAREST
    if is_related:
        most = candidates.MAX_NEAREST + candidates.MAX_LARGEST + candidates.MAX_ARBITRARY
    with open_new_store() as store:
        vectors = _add_images(store, [10] * size)
        all_pairs = list(combinations(sorted(vectors), 2))
        _relate(store, vectors, set(all_pairs) if is_related else set())
        pairs = np.array(all_pairs, np.int64)
        scores = np.random.default_rng(0).uniform(0.5, 1.0, len(pairs))
        count = np.count_nonzero(select_candidates(store.catalog, pairs, scores))
    assert count <= most * size < len(pairs)
