"""Kills, full disks, damaged bytes and races.

Nothing that was committed is lost, no wrong answer is given, and damage is reported.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from indexes import (
    Store,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreVersionMismatch,
    check,
    repair,
)
from indexes.durable import sqlite_files
from indexes.durable.failpoints import FAILPOINTS
from indexes.records import FileStat
from indexes.vectors import segments
from tests.support import nightly
from tests.support.faults import (
    Reference,
    get_segment,
    list_locations,
    read_files,
    run_in_process,
)
from tests.support.forks import FORKSERVER

# Each is at another place; how many there are is what the time for tests allows.
KILLS = 16
DAMAGES = 60


def assert_continues(folder: Path, reference: Reference) -> None:
    """Assert that a store is sound after a kill, and that the next run ends as the reference."""
    catalog = folder / "catalog.db"
    if catalog.exists() and catalog.stat().st_size:
        try:
            Store(folder).close()
        except StoreError as error:
            assert "empty store" in str(error) or "half made" in str(error)
        else:
            assert check(folder, read_all=True) == []
    assert run_in_process(nightly.run_nights, folder) == 0
    assert check(folder, read_all=True) == []
    reference.assert_contents_of(folder)
    assert not list((folder / "tmp").iterdir())
    with Store(folder) as store:
        rows = store.catalog.vectors.list_segments()
    names = {f"{row.blake3}{segments.SUFFIX}" for row in rows}
    assert {file.name for file in (folder / "segments").iterdir()} == names


# --- kills ---


@pytest.mark.parametrize("hit", [1, 2, 3])
@pytest.mark.parametrize(
    "failpoint",
    [
        name
        for name in FAILPOINTS
        if not name.startswith(("action", "merge", "repair", "migration"))
    ],
)
def test_store_killed_at_a_failpoint_continues(
    tmp_path: Path, reference: Reference, failpoint: str, hit: int
) -> None:
    folder = tmp_path / "store"
    exit_code = run_in_process(nightly.run_until_failpoint, folder, f"{failpoint}:{hit}")
    assert exit_code == -signal.SIGKILL
    assert_continues(folder, reference)


@pytest.mark.parametrize("hit", [1, 3, 5])
def test_killed_ivf_join_is_repeated(tmp_path: Path, reference: Reference, hit: int) -> None:
    folder, failpoint = tmp_path / "store", f"join pairs found:{hit}"
    exit_code = run_in_process(nightly.join_by_ivf_until_failpoint, folder, failpoint)
    assert exit_code == -signal.SIGKILL
    assert_continues(folder, reference)


def test_store_killed_at_random_moments_continues(tmp_path: Path, reference: Reference) -> None:
    durations = []
    for number in range(3):
        started = time.monotonic()
        assert run_in_process(nightly.run_nights, tmp_path / f"undisturbed {number}") == 0
        durations.append(time.monotonic() - started)
    moments = [random.Random(number).uniform(0.0, min(durations)) for number in range(KILLS)]
    folders = [tmp_path / str(number) for number in range(KILLS)]
    with ProcessPoolExecutor(2, FORKSERVER) as pool:
        was_killed = pool.map(_kill_and_continue, folders, moments, [reference] * KILLS)
        assert sum(was_killed) > 5  # fewer on a busy machine, where a run may end before


def _kill_and_continue(folder: Path, seconds: float, reference: Reference) -> bool:
    """Kill a run after `seconds` and continue; returns True unless it had ended before."""
    process = FORKSERVER.Process(target=nightly.run_nights, args=(folder,))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if folder.exists():
        assert_continues(folder, reference)
    shutil.rmtree(folder, ignore_errors=True)
    return process.exitcode == -signal.SIGKILL


def test_store_killed_in_its_first_page_is_created_by_the_next_ingest(
    tmp_path: Path, reference: Reference
) -> None:
    """Before the WAL exists, SQLite has a journal of the old state, which no reader can restore."""
    folder = tmp_path / "store"
    folder.mkdir()
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as unfinished:
        # Pages are written before the commit, which never comes.
        unfinished.execute("PRAGMA cache_size = 1")
        unfinished.execute("BEGIN")
        unfinished.execute("CREATE TABLE filled AS SELECT zeroblob(100000)")
        for name in ("catalog.db", "catalog.db-journal"):
            shutil.copy(tmp_path / name, folder)
    for read in (Store, check, repair):
        with pytest.raises(StoreError, match="half made.*ingest"):
            read(folder)
    assert_continues(folder, reference)


# --- full disks ---


def test_store_on_a_full_disk_continues_with_more_room(
    tmp_path: Path, reference: Reference
) -> None:
    limits = range(1024, 289024, 18000)
    folders = [tmp_path / str(number) for number in range(len(limits))]
    with ProcessPoolExecutor(2, FORKSERVER) as pool:
        was_full = pool.map(_fill_disk_and_continue, folders, limits, [reference] * len(limits))
        assert sum(was_full) > 5


def _fill_disk_and_continue(folder: Path, max_bytes: int, reference: Reference) -> bool:
    """Run with files of at most `max_bytes`, then without; returns True if the disk was full."""
    exit_code = run_in_process(nightly.run_on_small_disk, folder, max_bytes)
    assert exit_code in (0, nightly.DISK_FULL_EXIT_CODE)
    assert_continues(folder, reference)
    shutil.rmtree(folder)
    return exit_code == nightly.DISK_FULL_EXIT_CODE


# --- damage ---


@pytest.mark.parametrize("kind", ["catalog.db", "catalog.seal", "segment"])
def test_damage_anywhere_in_a_file_is_found(
    tmp_path: Path, reference: Reference, kind: str
) -> None:
    folder = reference.copy(tmp_path / "store")
    path = get_segment(folder) if kind == "segment" else folder / kind
    for damage in _damage_file(path, DAMAGES):
        assert list_locations(folder) == [os.fspath(path)], damage
        if kind != "catalog.seal":
            with pytest.raises((StoreDamaged, StoreVersionMismatch)), Store(folder) as store:
                store.search.find_within(nightly.ROWS[:1], 0.5)
    assert check(folder, read_all=True) == []


def test_damage_anywhere_in_the_log_is_found(tmp_path: Path) -> None:
    """A killed process leaves commits in SQLite's log, which SQLite reads up to the damage."""
    folder = tmp_path / "store"
    exit_code = run_in_process(nightly.run_until_failpoint, folder, "commit sealed:40")
    assert exit_code == -signal.SIGKILL
    log = folder / "catalog.db-wal"
    (folder / "catalog.db-shm").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda *_: True)
        for damage in _damage_file(log, DAMAGES):
            findings = check(folder)
            locations = [finding.location for finding in findings]
            assert locations == [os.fspath(folder / "catalog.db")], damage
            assert str(log) in findings[0].problem, damage
            (folder / "catalog.db-shm").unlink(missing_ok=True)
    content = log.read_bytes()
    log.unlink()
    with pytest.raises(StoreDamaged, match="lost its last commits"):
        Store(folder)
    log.write_bytes(content)
    assert check(folder, read_all=True) == []


def test_damage_that_changes_no_timestamp_is_found_by_reading_all(
    tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = reference.copy(tmp_path / "store")
    monkeypatch.setattr(FileStat, "is_unchanged_since", lambda *_: True)
    monkeypatch.setattr(segments, "is_untouched", lambda *_: True)
    for path in (folder / "catalog.db", get_segment(folder)):
        for damage in _damage_file(path, DAMAGES):
            assert list_locations(folder, read_all=True) == [os.fspath(path)], damage


def _damage_file(path: Path, count: int) -> Iterator[tuple[str, int]]:
    """Cut a file short or flip a bit, in `count` places in turn; at the end it is whole again."""
    intact = path.read_bytes()
    rng = random.Random(1)
    for number in range(count):
        position = rng.randrange(len(intact)) if number > 1 else len(intact) - 1
        if number % 2:
            content = bytearray(intact)
            content[position] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
        else:
            path.write_bytes(intact[:position])
        yield ("bit" if number % 2 else "cut", position)
    path.write_bytes(intact)


def test_unreadable_files_are_not_reported_as_damaged(
    tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions, and disks that are away, are no reason to discard a store."""
    for module, name in ((sqlite_files, "catalog.db"), (segments, "segment")):
        # The copy has other inodes, so its bytes are read.
        folder = reference.copy(tmp_path / name)
        before = read_files(folder)
        monkeypatch.setattr(module, "blake3", _make_unreadable(blake3))
        for read in (check, repair):
            with pytest.raises(StoreError, match="Permission denied") as raised:
                read(folder)
            assert raised.value.exit_code == 1
        assert before == read_files(folder)
        monkeypatch.undo()


def _make_unreadable(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make a blake3 that hashes bytes, but cannot read files."""

    class Unreadable:
        def __new__(cls, *data: bytes, **options: int) -> Any:  # noqa: ANN401 - as blake3 itself
            return original(*data) if data else object.__new__(cls)

        def update_mmap(self, path: Path | bytes) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        update = update_mmap

    Unreadable.AUTO = 1  # type: ignore[attr-defined]
    return Unreadable


# --- races ---


def test_twenty_writers_take_turns(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    processes = [
        FORKSERVER.Process(target=nightly.add_alone, args=(folder, number)) for number in range(20)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 20
    assert check(folder, read_all=True) == []
    with Store(folder, write=True) as store, store.lock_for_ingest():
        assert store.catalog.files.get_counts().files == 100
        with (
            Store(folder, write=True) as second,
            pytest.raises(StoreLocked, match=str(os.getpid())),
            second.lock_for_ingest(),
        ):
            pass


def test_readers_beside_a_compacting_writer_see_whole_commits(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    assert run_in_process(nightly.add_alone, folder, 0) == 0
    writer = FORKSERVER.Process(target=nightly.write_forever, args=(folder,))
    readers = [
        FORKSERVER.Process(target=nightly.read_and_check, args=(folder, 100)) for _ in range(4)
    ]
    for process in (writer, *readers):
        process.start()
    for process in readers:
        process.join()
    assert writer.is_alive()
    writer.kill()
    writer.join()
    assert [process.exitcode for process in readers] == [0] * 4
    assert check(folder, read_all=True) == []
