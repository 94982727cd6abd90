"""The database of a store, its seal, and the files, locks and SQLite connections below them."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from indexes import Store, StoreDamaged, StoreError
from indexes.catalog.seal import Seal, SealedFile, SealFile
from indexes.durable import files, filesystems
from indexes.durable.sqlite import MAX_SQL_PARAMETERS, OpenMode, connect, split_values
from indexes.records import FileStat


def test_checked_line_reads_back_and_any_damage_reads_as_none(tmp_path: Path) -> None:
    path = tmp_path / "checked"
    assert files.read_checked(path) is None
    files.write_checked(path, b'{"a": 1}', tmp_path)
    assert files.read_checked(path) == b'{"a": 1}'
    sound = path.read_bytes()
    for position in range(len(sound)):
        path.write_bytes(sound[:position])
        assert files.read_checked(path) is None, position
        flipped = bytearray(sound)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        assert files.read_checked(path) is None, position


def test_link_without_hard_links_copies_and_keeps_an_existing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_bytes(b"content")
    folder.mkdir()

    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", refuse)
        files.link(file, folder, tmp_path)
    assert (folder / "file").read_bytes() == b"content"
    assert (folder / "file").stat().st_ino != file.stat().st_ino
    files.link(file, folder, tmp_path)
    assert (folder / "file").stat().st_ino != file.stat().st_ino


def test_split_values_gives_each_statement_its_share() -> None:
    values = list(range(2 * MAX_SQL_PARAMETERS + 1))
    statements = list(split_values("SELECT ({})", values))
    assert [len(chunk) for _, chunk in statements] == [MAX_SQL_PARAMETERS, MAX_SQL_PARAMETERS, 1]
    assert [value for _, chunk in statements for value in chunk] == values
    assert [sql.count("?") for sql, _ in statements] == [len(chunk) for _, chunk in statements]
    assert list(split_values("SELECT ({})", [])) == []


@pytest.mark.parametrize("name", ["a?mode=memory", "a#b", "a%20b", os.fsdecode(b"caf\xe9")])
def test_connect_opens_any_path_and_read_only_creates_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with closing(connect(path, OpenMode.READ_WRITE_CREATE, 1.0)) as db:
        db.execute("CREATE TABLE numbers (number INTEGER)")
        db.execute("INSERT INTO numbers VALUES (7)")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    with closing(connect(path, OpenMode.READ_ONLY, 1.0)) as db:
        assert db.execute("SELECT number FROM numbers").fetchall() == [(7,)]


def test_store_on_network_filesystem_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "on a share" / "store"
    escaped = os.fsencode(folder.parent).replace(b" ", rb"\040")
    mounts = tmp_path / "mounts"
    mounts.write_bytes(
        b"/dev/sda1 / ext4 rw 0 0\nserver:/x "
        + escaped
        + b" nfs4 rw 0 0\nserver:/y /y cifs rw 0 0\n"
    )
    monkeypatch.setattr(filesystems, "MOUNTS_FILE", mounts)
    assert filesystems.find_network_filesystem(folder) == "nfs4"
    assert filesystems.find_network_filesystem(tmp_path / "on a share, not") is None
    with pytest.raises(StoreError, match=r"network filesystem \(nfs4\)"):
        Store(folder, write=True)
    monkeypatch.setattr(filesystems, "MOUNTS_FILE", tmp_path / "missing")
    assert filesystems.find_network_filesystem(folder) is None


def test_file_stat_ignores_the_device_and_notices_any_other_change() -> None:
    stat = FileStat(size=1, mtime_ns=2, ctime_ns=3, inode=4, device=5)
    assert replace(stat, device=6).is_unchanged_since(stat)
    for name in ("size", "mtime_ns", "ctime_ns", "inode"):
        assert not replace(stat, **{name: 9}).is_unchanged_since(stat), name


def test_seal_has_the_file_only_after_the_writer_closed(store: Store) -> None:
    catalog_path = store.folder / "catalog.db"
    seal_file = SealFile(catalog_path)
    with store.catalog.transaction():
        pass
    generation = store.catalog.get_generation()
    assert seal_file.read() == Seal(generation, None)
    store.close()
    status = catalog_path.stat()
    seal = seal_file.verify(read_all=True)
    assert seal and seal.generation == generation
    assert seal.file and seal.file.size == status.st_size
    assert FileStat.from_os_stat(status).is_unchanged_since(seal.file)


def test_seal_is_decided_by_bytes_where_the_stat_differs(store: Store) -> None:
    store.close()
    catalog_path = store.folder / "catalog.db"
    os.utime(catalog_path)
    assert SealFile(catalog_path).verify() == SealFile(catalog_path).read()
    content = bytearray(catalog_path.read_bytes())
    content[-1] ^= 1
    catalog_path.write_bytes(content)
    with pytest.raises(StoreDamaged, match="not what was written"):
        SealFile(catalog_path).verify()


def test_invalid_seal_makes_any_database_damaged(store: Store) -> None:
    store.close()
    SealFile(store.folder / "catalog.db").write_invalid()
    with pytest.raises(StoreDamaged, match="not what was written"):
        Store(store.folder)


def test_seal_keeps_the_bytes_of_its_format(tmp_path: Path) -> None:
    """A seal has the same six keys in the same order, with and without the file."""
    (tmp_path / "tmp").mkdir()
    seal_file = SealFile(tmp_path / "catalog.db")
    seal_file.write_open(3)
    line = b'{"generation": 3, "blake3": null, "size": 0, "mtime_ns": 0, "ctime_ns": 0, "inode": 0}'
    assert files.read_checked(seal_file.path) == line
    line = b'{"generation": 4, "blake3": "ab", "size": 1, "mtime_ns": 2, "ctime_ns": 3, "inode": 4}'
    files.write_checked(seal_file.path, line, tmp_path / "tmp")
    assert seal_file.read() == Seal(4, SealedFile("ab", 1, 2, 3, 4))
