"""The locks of SQLite, which a process would lose by closing the file under it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from blake3 import blake3

from indexes.durable.sqlite_files import begin_use, end_use, hash_database
from indexes.paths import CATALOG_NAME, WAL_SUFFIX
from indexes.records import Root
from indexes.store import Store

ADD_A_ROOT = """
import sys
from pathlib import Path
from indexes.records import Root
from indexes.store import Store
with Store(Path(sys.argv[1]), write=True) as store, store.catalog.transaction():
    store.catalog.roots.put(Root(sys.argv[2]))
"""


def add_root_in_another_process(folder: Path, root: str) -> None:
    subprocess.run([sys.executable, "-c", ADD_A_ROOT, folder, root], check=True)


def list_descriptors() -> set[str]:
    return {file.name for file in Path("/proc/self/fd").iterdir()}


def test_stores_opened_and_closed_beside_a_reader_leave_its_locks(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    add_root_in_another_process(folder, "/first")
    os.utime(folder / CATALOG_NAME)  # so that each open reads every byte
    with Store(folder) as reader:
        assert [root.path for root in reader.catalog.roots.list()] == ["/first"]
        for _ in range(3):
            Store(folder).close()
        add_root_in_another_process(folder, "/second")
        # The last one that has the file open removes the log, and that is this process.
        assert (folder / (CATALOG_NAME + WAL_SUFFIX)).exists()
        assert len(reader.catalog.roots.list()) == 2
        with Store(folder, write=True) as writer, writer.catalog.transaction():
            writer.catalog.roots.put(Root("/third"))
        add_root_in_another_process(folder, "/fourth")
        assert len(reader.catalog.roots.list()) == 4
    with Store(folder) as store:
        store.catalog.verify()


def test_hash_is_that_of_the_file_at_the_path_now(tmp_path: Path) -> None:
    path = tmp_path / "file"
    begin_use()
    try:
        for content in (b"first", b"second", b""):
            new = tmp_path / "new"
            new.write_bytes(content)
            new.replace(path)
            assert (
                hash_database(path) == hash_database(path) == blake3(path.read_bytes()).hexdigest()
            )
        path.write_bytes(b"in place")
        assert hash_database(path) == blake3(path.read_bytes()).hexdigest()
    finally:
        end_use()


def test_no_descriptor_is_left_once_all_stores_are_closed(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    before = list_descriptors()
    for number in range(3):
        with Store(folder, write=True) as store, store.catalog.transaction():
            store.catalog.roots.put(Root(f"/{number}"))
        os.utime(folder / CATALOG_NAME)
        Store(folder).close()
    assert list_descriptors() == before
