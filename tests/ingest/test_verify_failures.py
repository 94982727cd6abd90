"""Unreadable photos, damaged thumbnails and crashed workers cost no verdict of other pairs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from indexes import Root, Store
from indexes.caches.thumbnails import Thumbnail, ThumbnailCache
from pipeline import ingest_roots, load_embedder
from pipeline.verify.features import extract_features, has_current_format
from pipeline.verify.pool import VerifierPool
from pipeline.verify.relation import Relation
from tests.support.images import draw_textured_image, save_image, save_whole_and_part
from tests.support.pair_verification import (
    ingest_and_count,
    keep_thumbnails_away,
    load_verdicts,
    save_photo_and_copy,
    verify,
)


def test_ingest_corrupt_thumbnail_cache_is_rebuilt(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    database = tmp_path / "store" / "caches" / "thumbnails.db"
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        assert database.exists()
        before = load_verdicts(store)
        database.write_bytes(b"no database at all" * 100)
        for end in ("-wal", "-shm"):
            database.with_name(database.name + end).unlink(missing_ok=True)
        save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
        assert ingest_and_count(store, photos) == {Relation.SAME_PICTURE: 2}
        assert before.items() <= load_verdicts(store).items()
        with ThumbnailCache(tmp_path / "store", write=False) as cache:
            images = store.catalog.images.get(store.catalog.images.list_in_use())
            assert len(cache.get([image.hash for _, image in images])) == 3


def test_ingest_unreadable_images_warns_of_unverified_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patch:
            keep_thumbnails_away(patch)
            *_, last = ingest_roots([Root(str(photos))], store, load_embedder())
        assert last.coverage.warnings == [
            "1 candidate pair could not be verified (1 away); the next ingest tries again"
        ]
        assert ingest_and_count(store, photos) == {Relation.SAME_PICTURE: 1}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("jpeg = zeroblob(length(jpeg))", id="damaged thumbnail"),
        pytest.param(
            "features = CAST(x'01' || substr(features, 2) AS BLOB)", id="features of another format"
        ),
    ],
)
def test_ingest_makes_again_what_it_cannot_use_of_a_thumbnail(tmp_path: Path, change: str) -> None:
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    with Store(tmp_path / "store", write=True) as store:
        ingest_and_count(store, photos)
        with sqlite3.connect(tmp_path / "store" / "caches" / "thumbnails.db") as db:
            db.execute(f"UPDATE thumbnails SET {change}")
        db.close()
        save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
        assert ingest_and_count(store, photos) == {Relation.SAME_PICTURE: 2}
        with sqlite3.connect(tmp_path / "store" / "caches" / "thumbnails.db") as db:
            stored = [features for (features,) in db.execute("SELECT features FROM thumbnails")]
        db.close()
    assert len(stored) == 3 and all(map(has_current_format, stored))


def test_verify_crashing_pair_leaves_the_others_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in later runs, where it is the only pair left."""
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.ingest.ingest.verify_new_pairs", lambda *args: iter(()))
            ingest_and_count(store, photos)
        known = store.catalog.files.get_by_path(str(photos / "two.jpg"))
        assert known and known.image_id
        ((_, image),) = store.catalog.images.get([known.image_id])
        with ThumbnailCache(store.folder, write=True) as cache:
            features = extract_features(np.asarray(draw_textured_image(1)))
            cache.put({image.hash: Thumbnail(b"no JPEG", features)})
        (progress,) = verify(store)
        assert (dict(progress.relations), dict(progress.unverified)) == (
            {Relation.SAME_PICTURE: 1},
            {"poisoned its verifier": 2},
        )
        monkeypatch.setattr("pipeline.verify.pool.VerifierPool._handle_locally", fail_locally)
        for _ in range(2):
            (progress,) = verify(store)
            assert (dict(progress.relations), dict(progress.unverified)) == (
                {},
                {"poisoned its verifier": 2},
            )


def fail_locally(*args: object) -> None:
    raise AssertionError("the pair was verified in this process")


def test_verify_after_killed_run_uses_only_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    marker = tmp_path / "store" / "caches" / "verifying"
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.verify.pool.VerifierPool._handle_locally", fail_locally)
            with pytest.raises(AssertionError):
                ingest_and_count(store, photos)
            assert marker.exists()
            assert ingest_and_count(store, photos) == {Relation.SAME_PICTURE: 1}
        assert not marker.exists()
        save_image(photos / "three.jpg", draw_textured_image(1), quality=60)
        assert ingest_and_count(store, photos) == {Relation.SAME_PICTURE: 2}


def test_ingest_crashing_pair_warns_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    with Store(tmp_path / "store", write=True) as store:
        crashing_methods = {
            "extract_features": lambda verifiers, items: [None for _ in items],
            "submit_pairs": lambda verifiers, items: lambda: [None for _ in items],
        }
        for name, method in crashing_methods.items():
            with monkeypatch.context() as patch:
                patch.setattr(f"pipeline.verify.pool.VerifierPool.{name}", method)
                *_, last = ingest_roots([Root(str(photos))], store, load_embedder())
            assert last.coverage.warnings == [
                "1 candidate pair could not be verified (1 crashed the verification);"
                " the next ingest tries again"
            ]
        assert ingest_and_count(store, photos) == {Relation.SAME_PICTURE: 1}


def test_ingest_crash_is_remembered_beyond_the_pairs_of_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save_photo_and_copy(photos)
    save_whole_and_part(photos)  # only their crops propose them
    marker = tmp_path / "store" / "caches" / "verifying"
    submit = VerifierPool.submit_pairs
    answers = iter([lambda pool, items: lambda: [None for _ in items], submit])
    with Store(tmp_path / "store", write=True) as store:
        with monkeypatch.context() as patch:
            patch.setattr(
                VerifierPool, "submit_pairs", lambda pool, items: next(answers)(pool, items)
            )
            assert ingest_and_count(store, photos) == {Relation.DERIVED: 1}
        assert marker.exists()
        assert ingest_and_count(store, photos)[Relation.SAME_PICTURE] == 1
        assert not marker.exists()
