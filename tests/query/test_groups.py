from __future__ import annotations

import os
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes import Store
from indexes.records import FileStat, NewFile
from indexes.records import Image as StoredImage
from indexes.store import Batch
from pipeline import compare, find_groups, load_embedder
from pipeline.grouping.cluster import Group
from pipeline.grouping.edges import Edge
from pipeline.query import groups
from pipeline.query.groups import GroupOptions
from pipeline.verify.relation import Relation
from tests.support.images import (
    DATA_FOLDER,
    draw_scene,
    draw_textured_image,
    needs_data,
    save_image,
)
from tests.support.ingest import make_store
from tests.support.stores import SPACE, make_hash


def test_images_of_vectors_in_a_cluster_meet_only_the_best_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model cannot tell six images of each vector apart, and pixels cannot either.

    So many images are grouped without so many pairs.
    """
    monkeypatch.setattr(groups, "MAX_IMAGES_PER_VECTOR", 2)
    vectors = np.linalg.qr(np.random.default_rng(1).normal(size=(SPACE.dim, 2)))[0].T.astype(
        np.float32
    )
    rows = np.stack([vectors[0], 0.96 * vectors[0] + 0.28 * vectors[1]])
    with Store(tmp_path / "store", write=True) as store:
        store.bind(SPACE, "test")
        images = [
            (StoredImage(make_hash(n), make_hash(n), 100 + n, 10, "PNG", 1, False), rows[n % 2])
            for n in range(12)
        ]
        files = [
            NewFile(f"/p/{n}", FileStat(1, 1, 1, n, 1), image.hash)
            for n, (image, _) in enumerate(images)
        ]
        store.add(Batch(images, files))
        list(store.join())
        edges = [(edge.left, edge.right) for edge in list_edges(store, monkeypatch)]
        assert len(edges) == len({frozenset(edge) for edge in edges})
        best = {make_hash(n) for n in (8, 9, 10, 11)}
        all_pairs = {
            frozenset((make_hash(first), make_hash(second)))
            for first, second in combinations(range(12), 2)
        }
        assert {frozenset(edge) for edge in edges} == {pair for pair in all_pairs if pair & best}
        (group,) = find_groups(store, relations=[Relation.SIMILAR])
        assert (group.keeper.path, len(group.members)) == ("/p/11", 11)


def list_edges(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[Edge]:
    """The edges that find_groups() passes to the clustering."""
    passed: list[Edge] = []

    def record_edges(files: object, edges: list[Edge], *args: Any) -> list[Group]:
        passed.extend(edges)
        return []

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.query.groups.form_groups", record_edges)
        find_groups(store)
    return passed


def test_folders_limit_groups_unless_compared_against_all(photos: Path, tmp_path: Path) -> None:
    card = tmp_path / "card"
    save_image(card / "b small.jpg", draw_scene(2, (640, 480)).resize((500, 375)))
    with make_store(tmp_path / "store", photos, card) as store:
        assert len(find_groups(store)) == 2
        assert find_groups(store, folders=[str(card)]) == []
        against_all = GroupOptions(against_all=True)
        (group,) = find_groups(store, folders=[str(card)], options=against_all)
        assert {file.path for file in group.files} == {
            str(photos / "b.jpg"),
            str(card / "b small.jpg"),
        }
        (inside,) = find_groups(store, folders=[str(photos / "sub")])
        assert len(inside.members) == 1
        assert find_groups(store, folders=[str(photos) + "x"]) == []


@pytest.mark.parametrize("size", [(480, 416), (480, 240), (624, 320), (500, 420)])
def test_older_image_of_a_stretched_pair_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    """The one with more pixels may have got them by stretching.

    An image that is larger along both sides is kept for its pixels.
    """
    original = save_image(tmp_path / "photos" / "original.jpg", draw_textured_image(5), quality=85)
    stretched = save_image(
        tmp_path / "photos" / "copy.jpg", draw_textured_image(5).resize(size), quality=95
    )
    os.utime(original, (1_000_000_000, 1_000_000_000))
    with make_store(tmp_path / "store", tmp_path / "photos") as store:
        (group,) = find_groups(store)
        is_larger = min(size[0] / 480, size[1] / 320) > 1.03
        keeper, reason = (stretched, "most pixels") if is_larger else (original, "oldest")
        assert (group.keeper.path, group.reason) == (str(keeper), reason)


def test_each_member_reaches_the_threshold_with_its_keeper(photos: Path, tmp_path: Path) -> None:
    for number, width in enumerate(range(100, 640, 60)):
        save_image(
            photos / f"size{number}.jpg",
            draw_scene(1, (640, 480)).resize((width, width * 3 // 4)),
            quality=60,
        )
    files = sorted(os.fspath(file) for file in photos.rglob("*.*"))
    scores = compare(files, load_embedder()).scores
    position = {file: index for index, file in enumerate(files)}
    member_count = 0
    with make_store(tmp_path / "store", photos) as store:
        for threshold in (0.6, 0.8, 0.9, 0.97, 1.0):
            for group in find_groups(store, threshold):
                for member in group.members:
                    reference = member.voucher or group.keeper
                    score = scores[position[reference.path], position[member.file.path]]
                    assert member.score >= threshold
                    assert member.score == pytest.approx(score, abs=1e-5)
                    member_count += 1
        assert member_count > 30


@needs_data
def test_photos_of_different_subjects_form_no_group(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((DATA_FOLDER / "photos").iterdir())[::3]:  # of 600, for time
        shutil.copy(path, photos)
    with make_store(tmp_path / "store", photos) as store:
        assert store.catalog.files.get_counts().files == 200
        assert find_groups(store) == []


@needs_data
@pytest.mark.parametrize(
    ("folder", "grouped", "files"),
    [("colour_modes_one_photo", 12, 12), ("forest_one_photo", 5, 5), ("office_three_shots", 0, 3)],
)
def test_real_copies_are_grouped_and_other_shots_are_not(
    tmp_path: Path, folder: str, grouped: int, files: int
) -> None:
    with make_store(tmp_path / "store", DATA_FOLDER / "pairs" / folder) as store:
        assert store.catalog.files.get_counts().files == files
        assert sum(1 + len(group.members) for group in find_groups(store)) == grouped
