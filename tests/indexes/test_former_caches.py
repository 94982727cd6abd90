"""Thumbnails of format 6 are adopted whole, also after a run that was killed in between."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexes.upkeep.former_caches import adopt_former_caches, has_former_caches

CONTENT = b"\x01\x02"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with both caches of format 6: thumbnails, and crops, which are made again."""
    (tmp_path / "thumbs").mkdir()
    _write(
        tmp_path / "thumbs" / "thumbs.db",
        "CREATE TABLE thumbs (hash BLOB PRIMARY KEY, picture BLOB, sum INTEGER)",
        f"INSERT INTO thumbs VALUES (x'aa', x'{CONTENT.hex()}', 7)",
    )
    _write(
        tmp_path / "thumbs" / "parts.db",
        "CREATE TABLE parts (hash BLOB PRIMARY KEY, rows BLOB)",
        f"INSERT INTO parts VALUES (x'bb', x'{CONTENT.hex()}')",
    )
    return tmp_path


def _write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        for statement in statements:
            database.execute(statement)


def _read(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def assert_adopted(folder: Path) -> None:
    """Assert that the thumbnails have their present name, table and columns, with all rows."""
    assert not has_former_caches(folder)
    assert _read(
        folder / "caches" / "thumbnails.db", "SELECT hash, jpeg, checksum FROM thumbnails"
    ) == [(b"\xaa", CONTENT, 7)]
    assert [path.name for path in (folder / "caches").glob("*.db")] == ["thumbnails.db"]


def test_former_caches_are_moved_with_all_rows(folder: Path) -> None:
    assert has_former_caches(folder)
    adopt_former_caches(folder)
    assert_adopted(folder)
    adopt_former_caches(folder)  # again, with nothing to do
    assert_adopted(folder)


@pytest.mark.parametrize(
    "executed",
    [
        ["ALTER TABLE thumbs RENAME TO thumbnails"],
        [
            "ALTER TABLE thumbs RENAME TO thumbnails",
            "ALTER TABLE thumbnails RENAME COLUMN picture TO jpeg",
            "ALTER TABLE thumbnails RENAME COLUMN sum TO checksum",
        ],
    ],
)
def test_adoption_killed_within_its_statements_continues(folder: Path, executed: list[str]) -> None:
    _write(folder / "thumbs" / "thumbs.db", *executed)
    adopt_former_caches(folder)
    assert_adopted(folder)


def test_adoption_killed_after_the_move_continues(folder: Path) -> None:
    (folder / "caches").mkdir()
    _write(
        folder / "thumbs" / "thumbs.db",
        "ALTER TABLE thumbs RENAME TO thumbnails",
        "ALTER TABLE thumbnails RENAME COLUMN picture TO jpeg",
        "ALTER TABLE thumbnails RENAME COLUMN sum TO checksum",
    )
    (folder / "thumbs" / "thumbs.db").replace(folder / "caches" / "thumbnails.db")
    adopt_former_caches(folder)
    assert_adopted(folder)


def test_present_cache_is_not_replaced_by_a_former_one(folder: Path) -> None:
    (folder / "caches").mkdir()
    present = folder / "caches" / "thumbnails.db"
    _write(present, "CREATE TABLE thumbnails (hash BLOB PRIMARY KEY, jpeg BLOB, checksum INTEGER)")
    adopt_former_caches(folder)
    assert _read(present, "SELECT hash FROM thumbnails") == []
    assert not has_former_caches(folder)


def test_damaged_former_cache_is_dropped(folder: Path) -> None:
    (folder / "thumbs" / "thumbs.db").write_bytes(b"no database" * 1000)
    adopt_former_caches(folder)
    assert not has_former_caches(folder)
    assert list((folder / "caches").glob("*.db")) == []


def test_crash_marker_is_moved(folder: Path) -> None:
    (folder / "thumbs" / "verifying").write_text("1 2")
    adopt_former_caches(folder)
    assert (folder / "caches" / "verifying").read_text() == "1 2"


def test_folder_without_former_caches_stays_as_it_is(tmp_path: Path) -> None:
    adopt_former_caches(tmp_path)
    assert list(tmp_path.iterdir()) == []
