"""A store that was made by the commit before format 7 (888f4dd) is migrated by the next ingest and answers the same.

tests/fixtures/store_format_6/library.tar.xz holds nine drawn photos and a truncated one, their store as that commit left it, and what its
`groups --json` printed. The store names the photos by the folder they were in, so the tests put their own folder in its place.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from indexes import Store, StoreVersionMismatch
from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from pipeline import Coverage, find_groups, ingest_roots, load_embedder
from pipeline.report.answers import serialize_groups
from pipeline.verify.verdict import VERDICT_VERSION
from scripts.compare_answers import describe_group

FIXTURE = Path(__file__).parent / "fixtures" / "store_format_6" / "library.tar.xz"
FORMER_ROOT = "/work/fixture/photos"  # where the photos were when the store was made


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """The unpacked library, whose store names the photos where they are now."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "store" / "catalog.seal").unlink()  # the catalog is edited, so its hash is another
    with closing(sqlite3.connect(tmp_path / "store" / "catalog.db")) as db, db:
        root = str(tmp_path / "photos").encode()
        for table in ("files", "roots"):
            sql = f"UPDATE {table} SET path = CAST(? || substr(path, ?) AS BLOB)"
            db.execute(sql, (root, len(FORMER_ROOT) + 1))
    return tmp_path


def ingest(library: Path) -> Coverage:
    with Store(library / "store", write=True) as store:
        *_, last = ingest_roots(store.catalog.roots.list(), store, load_embedder())
    return last.coverage


def test_reading_an_older_store_names_the_command_that_migrates_it(former: Path) -> None:
    with pytest.raises(
        StoreVersionMismatch, match="neardup ingest --store .* brings it up to date"
    ):
        Store(former / "store")


def test_ingest_migrates_without_embedding_and_groups_are_the_same(former: Path) -> None:
    coverage = ingest(former)
    assert (coverage.seen, coverage.embedded, coverage.new) == (10, 0, 0)
    assert coverage.verification is None or coverage.verification.pairs == 0
    expected = json.loads(
        (former / "groups.json").read_text().replace(FORMER_ROOT, str(former / "photos"))
    )
    with Store(former / "store") as store:
        found = json.loads(json.dumps(serialize_groups(find_groups(store), store.space, None, {})))
        assert [describe_group(group) for group in found["groups"]] == [
            describe_group(group) for group in expected["groups"]
        ]
        saved = store.catalog.settings.get_saved_thresholds()
        assert saved and (saved.threshold, saved.min_agreement) == (0.4, 0.3)
        store.catalog.verify()


def test_migration_keeps_thumbnails_and_crop_vectors(former: Path) -> None:
    ingest(former)
    assert not (former / "store" / "thumbs").exists()
    with Store(former / "store") as store:
        images = {
            image.hash for _, image in store.catalog.images.get(store.catalog.images.list_in_use())
        }
        with ThumbnailCache(store.folder, write=False) as thumbnails:
            assert set(thumbnails.get(images)) == images
        space = store.space
        assert space
        with CropCache(store.folder, space, write=False) as crops:
            assert len(crops.list_hashes()) == 6
            assert len(crops.get_compared_images()) == 8


def test_a_negative_version_becomes_a_provisional_verdict(former: Path) -> None:
    with closing(sqlite3.connect(former / "store" / "catalog.db")) as db, db:
        changed = db.execute(
            "UPDATE evidence SET version = -version WHERE relation = 'same picture'"
        ).rowcount
    assert changed == 1
    with Store(former / "store", write=True) as store:
        (pair,) = store.catalog.verdicts.find_provisional_pairs(VERDICT_VERSION)
        assert store.catalog.verdicts.get(*pair).is_provisional
        assert pair in store.catalog.verdicts.find_unverified_pairs(-1.0, VERDICT_VERSION) or pair[
            ::-1
        ] in store.catalog.verdicts.find_unverified_pairs(-1.0, VERDICT_VERSION)
