"""Kills, full disks, damaged bytes, races: nothing that was committed is lost, nothing wrong is answered, and damage is named."""

from __future__ import annotations

import multiprocessing
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
    Root,
    Store,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreVersionMismatch,
    check,
    repair,
)
from indexes.catalog import seal
from indexes.durable import failpoints
from indexes.records import FileStat
from indexes.vectors import segments
from tests.support import nightly
from tests.support.stores import make_batch

Held = tuple[set[bytes], dict[frozenset[bytes], float]]  # what nightly.contents() tells

forks = multiprocessing.get_context(
    "forkserver"
)  # from a process that never ran a thread pool: cheap, and safe
forks.set_forkserver_preload(["tests.support.nightly", "faiss"])


def ran(work: Callable[..., None], *given: Any) -> int:
    """Run a function in a process of its own; minus the signal, or the exit code."""
    process = forks.Process(target=work, args=given)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Held]:
    """A store that nothing disturbed, closed, and what it holds."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    assert ran(nightly.run_nights, folder) == 0
    with Store(folder) as store:
        held = nightly.read_contents(store)
    assert len(held[0]) == nightly.NIGHT_COUNT * nightly.IMAGES_PER_NIGHT - len(
        nightly.REMOVED_NUMBERS
    )
    assert len(held[1]) > 50
    return folder, held


def assert_goes_on(folder: Path, held: Held) -> None:
    """After a process died, the store is sound, and a run that is not disturbed ends where one that never was did."""
    if (folder / "catalog.db").exists() and (folder / "catalog.db").stat().st_size:
        try:
            Store(folder).close()
        except StoreError as error:
            assert "empty store" in str(error) or "half made" in str(error)
        else:
            assert check(folder, read_all=True) == []
    assert ran(nightly.run_nights, folder) == 0
    assert check(folder, read_all=True) == []
    with Store(folder) as store:
        assert nightly.read_contents(store) == held
    assert not list((folder / "tmp").iterdir())
    with Store(folder) as store:
        named = {f"{row.blake3}{segments.SUFFIX}" for row in store.catalog.vectors.list_segments()}
    assert {file.name for file in (folder / "segments").iterdir()} == named


@pytest.mark.parametrize("time_", [1, 2, 3])
@pytest.mark.parametrize(
    "failpoint",
    [name for name in failpoints.FAILPOINTS if not name.startswith(("repair", "migration"))],
)
def test_kill_at_every_failpoint(
    tmp_path: Path, whole: tuple[Path, Held], failpoint: str, time_: int
) -> None:
    folder = tmp_path / "store"
    assert ran(nightly.run_until_failpoint, folder, f"{failpoint}:{time_}") == -signal.SIGKILL
    assert_goes_on(folder, whole[1])


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_join_by_buckets_that_was_killed_is_done_again(
    tmp_path: Path, whole: tuple[Path, Held], steps: int
) -> None:
    folder = tmp_path / "store"
    assert (
        ran(nightly.join_by_ivf_until_failpoint, folder, f"join pairs found:{steps}")
        == -signal.SIGKILL
    )
    assert_goes_on(folder, whole[1])


def test_kill_at_random_moments(tmp_path: Path, whole: tuple[Path, Held]) -> None:
    lengths = []
    for number in range(3):
        began = time.monotonic()
        assert ran(nightly.run_nights, tmp_path / f"undisturbed {number}") == 0
        lengths.append(time.monotonic() - began)
    moments = [random.Random(number).uniform(0.0, min(lengths)) for number in range(100)]
    with ProcessPoolExecutor(2, forks) as two_at_a_time:
        folders = [tmp_path / str(number) for number in range(100)]
        assert sum(two_at_a_time.map(_killed_and_goes_on, folders, moments, [whole[1]] * 100)) > 50


def _killed_and_goes_on(folder: Path, seconds: float, held: Held) -> bool:
    """Kill a run after so long and let another go on; whether the first was killed before its end."""
    process = forks.Process(target=nightly.run_nights, args=(folder,))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if folder.exists():
        assert_goes_on(folder, held)
    shutil.rmtree(folder, ignore_errors=True)
    return process.exitcode == -signal.SIGKILL


def test_a_store_that_was_killed_in_its_first_page_is_made_by_the_next_ingest(
    tmp_path: Path, whole: tuple[Path, Held]
) -> None:
    """Until the log is begun, SQLite's journal holds what was there before, and who may only read cannot put it back."""
    folder = tmp_path / "store"
    folder.mkdir()
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as begun:
        begun.execute(
            "PRAGMA cache_size = 1"
        )  # so that pages are written before the commit, which never comes
        begun.execute("BEGIN")
        begun.execute("CREATE TABLE filled AS SELECT zeroblob(100000)")
        for name in ("catalog.db", "catalog.db-journal"):
            shutil.copy(tmp_path / name, folder)
    for ask in (Store, check, repair):
        with pytest.raises(StoreError, match="half made.*ingest"):
            ask(folder)
    assert_goes_on(folder, whole[1])


def test_a_full_disk_at_any_size(tmp_path: Path, whole: tuple[Path, Held]) -> None:
    folders = [tmp_path / str(number) for number in range(32)]
    with ProcessPoolExecutor(2, forks) as two_at_a_time:
        assert (
            sum(
                two_at_a_time.map(
                    _full_and_goes_on, folders, range(1024, 289024, 9000), [whole[1]] * 32
                )
            )
            > 10
        )


def _full_and_goes_on(folder: Path, most: int, held: Held) -> bool:
    """Run on a disk where files grow to `most` bytes and let another go on with more; whether the first met the end of it."""
    code = ran(nightly.run_on_small_disk, folder, most)
    assert code in (0, nightly.DISK_FULL_EXIT_CODE)
    assert_goes_on(folder, held)
    shutil.rmtree(folder)
    return code == nightly.DISK_FULL_EXIT_CODE


@pytest.mark.parametrize("kind", ["catalog.db", "catalog.seal", "segment"])
def test_damage_in_any_place_is_found(tmp_path: Path, whole: tuple[Path, Held], kind: str) -> None:
    folder = tmp_path / "store"
    shutil.copytree(whole[0], folder)
    (segment,) = (folder / "segments").iterdir()
    path = segment if kind == "segment" else folder / kind
    for damaged in _damaged(path, 1000):
        found = check(folder)
        assert [finding.location for finding in found] == [os.fspath(path)], damaged
        if kind != "catalog.seal":
            with pytest.raises((StoreDamaged, StoreVersionMismatch)), Store(folder) as store:
                store.search.find_within(nightly.ROWS[:1], 0.5)
    assert check(folder, read_all=True) == []


def test_damage_in_any_place_of_the_log_is_found(tmp_path: Path) -> None:
    """A killed process leaves the last commits in SQLite's log, which SQLite takes for shorter when it is damaged."""
    folder = tmp_path / "store"
    assert ran(nightly.run_until_failpoint, folder, "commit sealed:40") == -signal.SIGKILL
    log = folder / "catalog.db-wal"
    (folder / "catalog.db-shm").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda *_: True)
        for damaged in _damaged(log, 1000):
            found = check(folder)
            assert [finding.location for finding in found] == [os.fspath(folder / "catalog.db")], (
                damaged
            )
            assert str(log) in found[0].problem, damaged
            (folder / "catalog.db-shm").unlink(missing_ok=True)
    content = log.read_bytes()
    log.unlink()
    with pytest.raises(StoreDamaged, match="lost its last commits"):
        Store(folder)
    log.write_bytes(content)
    assert check(folder, read_all=True) == []


def test_decay_that_no_time_stamp_shows_is_found_by_reading(
    tmp_path: Path, whole: tuple[Path, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(whole[0], folder)
    (segment,) = (folder / "segments").iterdir()
    monkeypatch.setattr(FileStat, "is_unchanged_since", lambda *_: True)
    monkeypatch.setattr(segments, "is_untouched", lambda *_: True)
    for path in (folder / "catalog.db", segment):
        for damaged in _damaged(path, 100):
            assert [finding.location for finding in check(folder, read_all=True)] == [
                os.fspath(path)
            ], damaged


def _damaged(path: Path, places: int) -> Iterator[tuple[str, int]]:
    """Damage a file in many places, one after the other: cut short, or one bit another one; it is whole again at the end."""
    sound = path.read_bytes()
    rng = random.Random(1)
    for number in range(places):
        place = rng.randrange(len(sound)) if number > 1 else len(sound) - 1
        if number % 2:
            content = bytearray(sound)
            content[place] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
        else:
            path.write_bytes(sound[:place])
        yield ("bit" if number % 2 else "cut", place)
    path.write_bytes(sound)


def test_twenty_writers_take_turns(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    racing = [
        forks.Process(target=nightly.add_alone, args=(folder, number)) for number in range(20)
    ]
    for process in racing:
        process.start()
    for process in racing:
        process.join()
    assert [process.exitcode for process in racing] == [0] * 20
    assert check(folder, read_all=True) == []
    with Store(folder, write=True) as store, store.lock_for_ingest():
        assert store.catalog.files.get_counts().files == 100
        with (
            Store(folder, write=True) as other,
            pytest.raises(StoreLocked, match=str(os.getpid())),
            other.lock_for_ingest(),
        ):
            pass


def test_readers_beside_a_writer_that_compacts(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    nightly.add_alone(folder, 0)
    writer = forks.Process(target=nightly.write_for_ever, args=(folder,))
    readers = [forks.Process(target=nightly.read_and_check, args=(folder, 300)) for _ in range(4)]
    for process in (writer, *readers):
        process.start()
    for process in readers:
        process.join()
    assert writer.is_alive()
    writer.kill()
    writer.join()
    assert [process.exitcode for process in readers] == [0] * 4
    assert check(folder, read_all=True) == []


@pytest.mark.parametrize("failpoint", [None, "repair saved", "repair committed"])
def test_repair_sets_a_damaged_segment_aside(
    tmp_path: Path, whole: tuple[Path, Held], failpoint: str | None
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(whole[0], folder)
    (segment,) = (folder / "segments").iterdir()
    bad = bytearray(segment.read_bytes())
    bad[1000] ^= 1
    segment.write_bytes(bad)
    if failpoint:
        assert ran(_repair_killed, folder, failpoint) == -signal.SIGKILL
    found, done = repair(folder, read_all=True)
    if failpoint == "repair committed":
        assert [finding.location for finding in found] == ["pictures"]
        assert (folder / "quarantine" / segment.name).read_bytes() == bad
    else:
        assert done is not None
        assert done.backup.exists()
        assert done.quarantine
        assert (done.quarantine / segment.name).read_bytes() == bad
        assert done.images_to_reembed == nightly.NIGHT_COUNT * nightly.IMAGES_PER_NIGHT - len(
            nightly.REMOVED_NUMBERS
        )
    assert [finding.problem.split()[0] for finding in check(folder, read_all=True)] == [
        "96"
    ]  # pictures that wait
    with Store(folder, write=True) as store, store.lock_for_ingest():
        hashes, pairs = nightly.read_contents(store)
        assert (hashes, pairs) == (whole[1][0], {})  # no photo is forgotten, no pair invented
        numbers = [
            number
            for number in range(nightly.NIGHT_COUNT * nightly.IMAGES_PER_NIGHT)
            if number not in nightly.REMOVED_NUMBERS
        ]
        assert not store.find_complete_hashes(list(hashes))  # all are to be embedded again
        store.add(make_batch(numbers, nightly.ROWS))
        for _ in store.join():
            pass
    assert ran(nightly.run_nights, folder) == 0
    with Store(folder) as store:
        assert nightly.read_contents(store) == whole[1]
    assert check(folder, read_all=True) == []


def _repair_killed(folder: Path, failpoint: str) -> None:
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    repair(folder, read_all=True)


@pytest.mark.parametrize(
    "place", [0, 5000, None]
)  # where nothing can be asked any more, where much can, and a catalog that is gone
@pytest.mark.parametrize(
    "failpoint", [None, "repair linked", "repair invalidated", "repair replaced"]
)
def test_repair_of_a_damaged_catalog_keeps_everything_and_starts_anew(
    tmp_path: Path, whole: tuple[Path, Held], failpoint: str | None, place: int | None
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(whole[0], folder)
    with Store(folder, write=True) as store:
        store.add_roots([Root("/photos", ("*.gif",), True)])
    catalog = folder / "catalog.db"
    bad = bytearray(catalog.read_bytes())
    if place is None:
        catalog.unlink()
    else:
        bad[place] ^= 1
        catalog.write_bytes(bad)
    (segment,) = (folder / "segments").iterdir()
    content = segment.read_bytes()
    if failpoint:
        assert ran(_repair_killed, folder, failpoint) == -signal.SIGKILL
        with pytest.raises(StoreDamaged):
            Store(folder)
    found, done = repair(folder)
    assert [finding.location for finding in found] == [os.fspath(catalog)]
    assert done
    assert done.quarantine
    kept = [file.read_bytes() for file in (folder / "quarantine").rglob("*") if file.is_file()]
    assert content in kept
    assert place is None or bad in kept
    if failpoint != "repair replaced" or place == 0:
        assert done.model == "test"
    assert check(folder, read_all=True) == []
    with Store(folder) as store:
        assert store.catalog.roots.list() == [Root("/photos", ("*.gif",), True)]
    assert ran(nightly.run_nights, folder) == 0
    with Store(folder) as store:
        assert nightly.read_contents(store) == whole[1]


def test_what_may_not_be_read_is_not_damaged(
    tmp_path: Path, whole: tuple[Path, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions, and disks that are away, are no reason to throw a store away."""
    for name in ("catalog.db", "segment"):
        folder = tmp_path / name
        shutil.copytree(whole[0], folder)  # with other inodes, so that bytes are asked for
        before = {
            file: file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file() and file.suffix != ".lock"
        }
        monkeypatch.setattr(
            seal if name == "catalog.db" else segments, "blake3", _unreadable(blake3)
        )
        for ask in (check, repair):
            with pytest.raises(StoreError, match="Permission denied") as raised:
                ask(folder)
            assert raised.value.exit_code == 1
        assert before == {
            file: file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file() and file.suffix != ".lock"
        }
        monkeypatch.undo()


def _unreadable(real: Callable[..., Any]) -> Callable[..., Any]:
    class Unreadable:
        def __new__(cls, *data: bytes, **options: int) -> Any:  # noqa: ANN401 - as blake3 itself
            return real(*data) if data else object.__new__(cls)

        def update_mmap(self, path: Path) -> None:
            raise PermissionError(13, "Permission denied", str(path))

    Unreadable.AUTO = 1  # type: ignore[attr-defined]
    return Unreadable


def test_repair_makes_a_catalog_that_was_edited_by_hand_consistent_again(
    tmp_path: Path, whole: tuple[Path, Held]
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(whole[0], folder)
    (folder / "catalog.seal").unlink()  # with it, the edits would be found before anything is asked
    with closing(sqlite3.connect(folder / "catalog.db")) as edited:
        edited.execute(
            "UPDATE images SET vector = 9999 WHERE id = (SELECT image FROM files WHERE path = CAST('/p/0' AS BLOB))"
        )
        edited.execute("UPDATE files SET image = 9999 WHERE path = CAST('/p/1' AS BLOB)")
        edited.execute("INSERT INTO vectors (id, digest) VALUES (8888, 1)")
        edited.execute("INSERT INTO edges VALUES (1, 7777, 0.9)")
        edited.commit()
    assert {finding.location for finding in check(folder)} == {
        os.fspath(folder / "catalog.seal"),
        "images",
        "files",
        "vectors",
        "edges",
    }
    _, done = repair(folder)
    assert done is not None
    assert done.images_to_reembed == 1
    assert [finding.location for finding in check(folder, read_all=True)] == ["pictures"]
    with Store(folder, write=True) as store, store.lock_for_ingest():
        store.add(make_batch([0, 1], nightly.ROWS))
        for _ in store.join():
            pass
        assert nightly.read_contents(store) == whole[1]
    assert check(folder, read_all=True) == []
