"""A store of format 6, made at commit 888f4dd, is migrated by the next ingest with equal answers.

tests/indexes/fixtures/store_format_6/library.tar.xz has nine synthetic photos and a truncated one,
their store as that commit left it, and the output of its `groups --json`. The store names the
photos by the folder where they were then, so the tests replace it by their own.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indexes import Root, Store, StoreVersionMismatch, repair
from indexes.caches.crops import CropCache
from indexes.caches.thumbnails import ThumbnailCache
from indexes.catalog.seal import SealFile
from indexes.durable.files import write_checked
from indexes.folder import lock_ingest
from pipeline import Coverage, find_groups, ingest_roots, load_embedder
from pipeline.report.groups import serialize_groups

FIXTURE = Path(__file__).parent / "fixtures" / "store_format_6" / "library.tar.xz"
FORMER_VERDICT_VERSION = 9  # of the verdicts in it, once migrated
FORMER_ROOT = "/work/fixture/photos"  # where the photos were when the store was made


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Unpack the library, with its store as it was made."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "store" / "tmp").mkdir()  # it was empty, and the archive leaves it out
    return tmp_path


@pytest.fixture
def former(unpacked: Path) -> Path:
    """Unpack the library and let its store name the photos where they are now."""
    store = unpacked / "store"
    (store / "catalog.seal").unlink()  # the catalog is edited, so it has another hash
    with closing(sqlite3.connect(store / "catalog.db")) as db, db:
        root = str(unpacked / "photos").encode()
        for table in ("files", "roots"):
            sql = f"UPDATE {table} SET path = CAST(? || substr(path, ?) AS BLOB)"
            db.execute(sql, (root, len(FORMER_ROOT) + 1))
    return unpacked


def ingest(library: Path) -> Coverage:
    with Store(library / "store", write=True) as store:
        *_, last = ingest_roots(store.catalog.roots.list(), store, load_embedder())
    return last.coverage


def list_members(group: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List the keeper and the relation of each member; their verdicts are of another version."""
    relations = {member["path"]: member["relation"] for member in group["members"]}
    return group["keeper"]["path"], relations


def test_opening_a_format_6_store_for_reading_names_the_command_that_migrates_it(
    former: Path,
) -> None:
    with pytest.raises(
        StoreVersionMismatch, match="neardup ingest --store .* brings it up to date"
    ):
        Store(former / "store")


def test_ingest_migrates_a_format_6_store_without_embedding_and_groups_are_the_same(
    former: Path,
) -> None:
    coverage = ingest(former)
    assert (coverage.seen, coverage.embedded, coverage.new) == (10, 0, 0)
    # Its verdicts are of an older version: the pairs are verified again, from stored thumbnails.
    assert coverage.verification
    assert not coverage.verification.unverified
    expected = json.loads(
        (former / "groups.json").read_text().replace(FORMER_ROOT, str(former / "photos"))
    )
    with Store(former / "store") as store:
        answer = json.loads(json.dumps(serialize_groups(find_groups(store), store.space, None, {})))
        assert [list_members(group) for group in answer["groups"]] == [
            list_members(group) for group in expected["groups"]
        ]
        saved = store.catalog.settings.get_saved_thresholds()
        assert saved and (saved.threshold, saved.min_agreement) == (0.4, 0.3)
        store.catalog.verify()


def test_migration_of_a_format_6_store_keeps_thumbnails_and_finds_regions(former: Path) -> None:
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
            assert len(crops.list_hashes()) == 8
            assert len(crops.get_compared_images()) == 8


def test_opening_a_format_6_store_for_writing_adopts_its_caches_and_crash_marker(
    former: Path,
) -> None:
    """Commands that do not ingest find the thumbnails; a crashing pair is remembered."""
    store_folder = former / "store"
    (store_folder / "thumbs" / "verifying").touch()
    Store(store_folder, write=True).close()
    assert not (store_folder / "thumbs").exists()
    assert (store_folder / "caches" / "verifying").exists()
    assert (store_folder / "caches" / "thumbnails.db").exists()


def test_caches_of_a_format_6_store_stay_while_another_process_ingests(former: Path) -> None:
    store_folder = former / "store"
    Store(store_folder, write=True).close()
    (store_folder / "thumbs").mkdir()
    with lock_ingest(store_folder):
        Store(store_folder, write=True).close()
        assert (store_folder / "thumbs").exists()
    Store(store_folder, write=True).close()
    assert not (store_folder / "thumbs").exists()


def test_negative_version_is_migrated_to_a_provisional_verdict(former: Path) -> None:
    with closing(sqlite3.connect(former / "store" / "catalog.db")) as db, db:
        changed = db.execute(
            "UPDATE evidence SET version = -version WHERE relation = 'same picture'"
        ).rowcount
    assert changed == 1
    with Store(former / "store", write=True) as store:
        verdicts = store.catalog.verdicts
        (pair,) = verdicts.find_provisional_pairs(FORMER_VERDICT_VERSION)
        assert verdicts.get(*pair).is_provisional
        unverified = verdicts.find_unverified_pairs(-1.0, FORMER_VERDICT_VERSION)
        assert pair in unverified or pair[::-1] in unverified


def test_seal_of_format_6_is_read(unpacked: Path) -> None:
    seal = SealFile(unpacked / "store" / "catalog.db").read()
    assert seal and seal.file
    assert (seal.generation, seal.file.size) == (10, 37888)


def test_repair_of_a_damaged_format_6_catalog_takes_roots_and_model_from_store_json(
    unpacked: Path,
) -> None:
    """store.json of format 6 has the key `hidden` where that of format 7 has `include_hidden`."""
    store = unpacked / "store"
    content = bytearray((store / "catalog.db").read_bytes())
    content[0] ^= 1  # in the header, so SQLite reads nothing of the file
    (store / "catalog.db").write_bytes(content)
    record = {
        "roots": [
            {"path": FORMER_ROOT, "excludes": ["*.gif"], "hidden": True},
            {"path": "/other", "excludes": [], "hidden": False},
        ],
        "model": "neardup-1",
    }
    write_checked(store / "store.json", json.dumps(record).encode(), unpacked)
    _, report = repair(store)
    assert report and report.model == "neardup-1"
    with Store(store) as repaired:
        assert repaired.catalog.roots.list() == [
            Root("/other"),
            Root(FORMER_ROOT, ("*.gif",), True),
        ]


def test_repair_reads_the_store_json_that_format_6_wrote(unpacked: Path) -> None:
    store = unpacked / "store"
    (store / "catalog.db").write_bytes(b"damaged")
    _, report = repair(store)
    assert report and report.model == "neardup-1"
    with Store(store) as repaired:
        assert repaired.catalog.roots.list() == [Root(FORMER_ROOT)]
