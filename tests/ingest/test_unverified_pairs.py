"""The pairs still to be verified, against brute force."""

from __future__ import annotations

import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import Store
from indexes.catalog import candidates, verdicts
from indexes.catalog.verdicts import StoredVerdict
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch
from pipeline.verify.relation import Relation
from tests.support.stores import (
    SPACE,
    get_hashes,
    make_file,
    make_hash,
    make_image,
    open_new_store,
)


@given(
    classes=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    close_vectors=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=6),
    verified=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=20),
    gone=st.sets(st.integers(0, 19), max_size=5),
    max_images_per_vector=st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_find_unverified_pairs_equals_brute_force(
    classes: list[int],
    close_vectors: list[tuple[int, int]],
    verified: list[tuple[int, int]],
    gone: set[int],
    max_images_per_vector: int,
) -> None:
    """Pairs of images with close vectors or one vector, less those with a verdict.

    Of images with equal pixels only the first that a file holds; of each pair, one image is among
    the few largest of its vector.
    """
    rows = np.eye(SPACE.dim, dtype=np.float32)
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder), write=True) as store,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(verdicts, "MAX_IMAGES_PER_VECTOR", max_images_per_vector)
        store.bind(SPACE, "test")
        for number, vector in enumerate(classes):
            # Every third image has the pixels of the one before, if that has the same vector.
            twin = number - number % 3 % 2
            pixels = make_hash(twin if classes[twin] == vector else number)
            image = StoredImage(make_hash(number), pixels, 10 + number, 10, "PNG", 1, False)
            store.add(
                Batch(
                    [(image, rows[vector])],
                    [NewFile(f"/p/{number}", FileStat(1, 1, 1, number, 1), image.hash)],
                )
            )
        images = dict(store.catalog.images.get(store.catalog.images.list_in_use()))
        ids = sorted(images)
        vectors = store.catalog.vectors.find_of_images(ids)
        vector_of = {id_: vector or 0 for id_, vector in vectors.items()}
        edges = _find_edges(close_vectors, sorted(set(vector_of.values())))
        with store.catalog.transaction():
            store.catalog.write_many("INSERT INTO edges VALUES (?, ?, 0.9)", list(edges))
        store.save_verdicts(
            [
                StoredVerdict(ids[a], ids[b], 1, False, Relation.UNRELATED, "{}")
                for a, b in verified
                if a != b and max(a, b) < len(ids)
            ]
        )
        done = {
            frozenset((images[stored.first].pixel_hash, images[stored.second].pixel_hash))
            for stored in store.catalog.verdicts.stream()
        }
        file_of = {file.image_id: file.id for file in store.catalog.files.find_of_images(ids)}
        store.remove_files([file_of[ids[number]] for number in gone if number < len(ids)])

        in_use = [id_ for number, id_ in enumerate(ids) if number not in gone]
        representatives = {images[id_].pixel_hash: id_ for id_ in reversed(in_use)}
        max_width: dict[bytes, int] = {}
        for id_ in in_use:
            pixel_hash = images[id_].pixel_hash
            max_width[pixel_hash] = max(max_width.get(pixel_hash, 0), images[id_].width)
        by_vector: dict[int, list[int]] = {}
        for pixel_hash in sorted(representatives, key=max_width.__getitem__, reverse=True):
            id_ = representatives[pixel_hash]
            by_vector.setdefault(vector_of[id_], []).append(id_)
        largest = {id_ for group in by_vector.values() for id_ in group[:max_images_per_vector]}

        def is_expected(first: int, second: int) -> bool:
            pair_of_vectors = tuple(sorted((vector_of[first], vector_of[second])))
            return (
                frozenset((images[first].pixel_hash, images[second].pixel_hash)) not in done
                and (first in largest or second in largest)
                and (vector_of[first] == vector_of[second] or pair_of_vectors in edges)
            )

        pairs = combinations(sorted(representatives.values()), 2)
        expected = sorted((pair for pair in pairs if is_expected(*pair)), key=lambda p: p[::-1])
        assert store.catalog.verdicts.find_unverified_pairs(0.5, 1) == expected
        assert store.catalog.verdicts.find_unverified_pairs(0.95, 1) == [
            pair for pair in expected if vector_of[pair[0]] == vector_of[pair[1]]
        ]


def test_images_of_one_vector_and_size_are_paired_alike_in_any_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdicts, "MAX_IMAGES_PER_VECTOR", 1)
    row = np.eye(SPACE.dim, dtype=np.float32)[0]
    found = []
    for order in ([1, 2, 3], [3, 2, 1]):
        with open_new_store() as store:
            for number in order:
                store.add(Batch([(make_image(number), row)], [make_file(number)]))
            hashes = get_hashes(store)
            pairs = store.catalog.verdicts.find_unverified_pairs(0.5, 1)
            found.append({frozenset((hashes[first], hashes[second])) for first, second in pairs})
    assert (
        found[0] == found[1] == {frozenset((make_hash(1), make_hash(number))) for number in (2, 3)}
    )


def test_extra_pair_counts_unless_its_score_is_high_enough_and_it_is_no_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three near images each has one nearest; the third pair has been left out on purpose."""
    monkeypatch.setattr(candidates, "FIRST_NEAREST", 1)
    rows = np.eye(SPACE.dim, dtype=np.float32)
    with open_new_store() as store:
        for number in range(3):
            store.add(Batch([(make_image(number), rows[number])], [make_file(number)]))
        ids = sorted(store.catalog.images.list_in_use())
        first, second, third = (store.catalog.vectors.find_of_images(ids)[id_] or 0 for id_ in ids)
        edges = [(first, second, 0.9), (first, third, 0.8), (second, third, 0.7)]
        with store.catalog.transaction():
            store.catalog.write_many("INSERT INTO edges VALUES (?, ?, ?)", edges)
        extra = np.array([(second, third)])
        find_unverified_pairs = store.catalog.verdicts.find_unverified_pairs
        near = [(ids[0], ids[1]), (ids[0], ids[2])]
        assert find_unverified_pairs(0.5, 1) == find_unverified_pairs(0.5, 1, extra) == near
        assert find_unverified_pairs(0.75, 1) == near
        assert find_unverified_pairs(0.75, 1, extra) == [*near, (ids[1], ids[2])]


def _find_edges(close_vectors: list[tuple[int, int]], vectors: list[int]) -> set[tuple[int, ...]]:
    return {
        tuple(sorted((vectors[a], vectors[b])))
        for a, b in close_vectors
        if a != b and max(a, b) < len(vectors)
    }
