"""Crowds of near images, as in scripts/bench_extremes.py: bounded work, and no wrong groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes import Store
from indexes.catalog import candidates
from pipeline import find_groups
from pipeline.verify.relation import COPY_RELATIONS
from scripts.bench_extremes import make_burst, make_copies, make_loader, make_screens
from tests.support.images import save_image
from tests.support.pair_verification import ingest_and_count, list_unverified
from tests.support.verification import load_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    (folder := tmp_path / "library").mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store that is not bound to a space yet."""
    with Store(tmp_path / "store", write=True) as opened:
        yield opened


def test_copies_of_one_photo_are_one_group(folder: Path, store: Store) -> None:
    count = len(make_copies(folder, 24, make_loader(None)))
    ingest_and_count(store, folder)
    (group,) = find_groups(store)
    assert len(group.files) == count


def test_each_of_many_copies_takes_a_bounded_number_of_pairs(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"MAX_NEAREST": 6, "MAX_LARGEST": 2, "MAX_ARBITRARY": 2}
    for name, limit in limits.items():
        monkeypatch.setattr(candidates, name, limit)
    count = len(make_copies(folder, 36, make_loader(None)))
    pairs = sum(ingest_and_count(store, folder).values())
    assert pairs <= count * sum(limits.values()) < count * (count - 1) / 2
    assert list_unverified(store) == []


def test_screens_of_one_app_are_no_copies(folder: Path, store: Store) -> None:
    make_screens(folder, 10, make_loader(None))
    counts = ingest_and_count(store, folder)
    assert counts["same template"] > 0
    assert counts.keys().isdisjoint(COPY_RELATIONS)
    assert find_groups(store) == []


def test_each_copy_of_a_burst_is_with_its_own_shot(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    for number, photo in enumerate(load_photos()):
        save_image(tmp_path / "photos" / f"{number}.png", photo)
    origins = make_burst(folder, 8, make_loader(tmp_path / "photos"))
    assert ingest_and_count(store, folder)["another shot"] > 0
    groups = [
        [origins[Path(file.path).name] for file in group.files] for group in find_groups(store)
    ]
    assert sorted(groups) == [[shot, shot] for shot in range(8)]
