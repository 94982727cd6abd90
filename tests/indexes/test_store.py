"""Opening, binding, adding to and reading a store."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import (
    InvalidVector,
    Root,
    Space,
    SpaceMismatch,
    Store,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreMissing,
    StoreVersionMismatch,
)
from indexes.catalog.vectors import SegmentRow
from indexes.durable import files as durable
from indexes.durable import locks
from indexes.metadata import Capture, ImageMetadata
from indexes.records import FileStat, FolderFile, NewFile
from indexes.store import Batch
from tests.support.stores import (
    SPACE,
    find_image_pairs,
    find_pairs_by_brute_force,
    get_hashes,
    make_batch,
    make_hash,
    make_image,
    make_unit_rows,
)

OTHER_SPACE = Space("test", "other", "1" * 64, "none", 16, -1.0, 0.9)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    order=st.permutations(list(range(24))),
    batch_size=st.integers(1, 24),
)
def test_adds_in_any_order_equal_one_batch(seed: int, order: list[int], batch_size: int) -> None:
    rows = make_unit_rows(seed, 24)
    answers = []
    shuffled = [order[start : start + batch_size] for start in range(0, 24, batch_size)]
    for batches in ([list(range(24))], shuffled):
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder), write=True) as store:
            store.bind(SPACE, "test")
            for numbers in batches:
                store.add(make_batch(numbers, rows))
            answers.append(find_image_pairs(store, 0.5))
    assert answers[0] == answers[1]  # to the last bit


def test_removed_file_leaves_answers_and_returns_without_a_new_vector(store: Store) -> None:
    rows = make_unit_rows(5, 20)
    store.add(make_batch(list(range(20)), rows))
    before = find_image_pairs(store, 0.9)
    file = store.catalog.files.get_by_path("/p/3")
    assert file is not None
    store.remove_files([file.id])
    after = find_image_pairs(store, 0.9)
    assert set(after) == {pair for pair in before if make_hash(3) not in pair}
    hashes, hits = get_hashes(store), store.search.find_within(rows[3:4], 0.9)
    assert make_hash(3) not in {hashes[id_] for id_ in hits.right.tolist()}
    batch = make_batch([3], rows)
    batch.images = []
    store.add(batch)
    assert find_image_pairs(store, 0.9) == before


def test_interrupted_add_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_unit_rows(1, 10)
    store.add(make_batch([0, 1, 2], rows))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.catalog.files, "put", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.add(make_batch([3, 4, 5], rows))
    assert set(get_hashes(store).values()) == {make_hash(number) for number in range(3)}
    assert store.catalog.files.get_by_path("/p/4") is None
    store.add(make_batch([3, 4, 5], rows))
    assert set(find_image_pairs(store, -1)) == find_pairs_by_brute_force(rows[:6], -1)


def test_reader_during_a_write_sees_whole_batches(store: Store) -> None:
    rows = make_unit_rows(1, 10)
    store.add(make_batch([0, 1, 2], rows))
    with Store(store.folder) as reader, store.catalog.transaction():
        assert len(reader.catalog.images.list_in_use()) == 3
    with Store(store.folder) as reader:
        with reader.catalog.snapshot():
            assert len(reader.catalog.images.list_in_use()) == 3
            store.add(make_batch([3, 4], rows))
            assert len(reader.catalog.images.list_in_use()) == 3
        assert len(reader.catalog.images.list_in_use()) == 5


def test_open_reader_sees_new_segments(store: Store) -> None:
    rows = make_unit_rows(1, 8)
    store.add(make_batch([0, 1, 2, 3], rows))
    with Store(store.folder) as reader:
        assert len(reader.search.find_pairs(-1).score) == 6
        store.add(make_batch([4, 5, 6, 7], rows))
        assert len(reader.search.find_pairs(-1).score) == 28


def test_store_with_images_rejects_another_space(store: Store) -> None:
    store.add(make_batch([0], make_unit_rows(1, 1)))
    store.bind(SPACE, "test")
    with pytest.raises(SpaceMismatch, match="another folder"):
        store.bind(OTHER_SPACE, "other")
    # Thresholds do not distinguish spaces.
    store.bind(Space("test", "test", "0" * 64, "none", 16, 0.1, 0.2), "elsewhere")
    assert store.model == "elsewhere"
    assert store.space is not None
    assert store.space.threshold == 0.9


def test_store_without_images_can_be_bound_to_another_space(store: Store) -> None:
    store.add(Batch(files=[NewFile("/broken", FileStat(1, 2, 3, 4, 5), None, "truncated")]))
    with pytest.raises(SpaceMismatch):
        store.require_space(OTHER_SPACE)
    store.require_space(OTHER_SPACE, unless_empty=True)
    store.bind(OTHER_SPACE, "other")
    assert (store.space, store.model) == (OTHER_SPACE, "other")
    store.add(Batch(images=[(replace(make_image(0), is_featureless=True), None)]))
    # A featureless image was judged at the input size of its space.
    with pytest.raises(SpaceMismatch):
        store.bind(SPACE, "test")


def test_two_writers_with_different_spaces_never_mix_vectors(store: Store) -> None:
    with Store(store.folder, write=True) as second:
        second.bind(OTHER_SPACE, "other")
        with pytest.raises(SpaceMismatch):
            store.add(make_batch([0], make_unit_rows(1, 1)))
        assert store.catalog.is_empty()
        second.add(make_batch([0], make_unit_rows(1, 1)))
        with pytest.raises(SpaceMismatch):
            store.bind(SPACE, "test")
        assert (store.space, len(store.catalog.vectors.list_segments())) == (OTHER_SPACE, 1)


def test_folder_without_a_store_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="neardup ingest"):
        Store(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "text").mkdir()
    text = "this is no database, but it is long enough to be read as the header of one" * 20
    (tmp_path / "text" / "catalog.db").write_text(text)
    with pytest.raises(StoreVersionMismatch, match="not a neardup store"):
        Store(tmp_path / "text")
    (tmp_path / "foreign").mkdir()
    with sqlite3.connect(tmp_path / "foreign" / "catalog.db") as foreign:
        foreign.execute("CREATE TABLE notes (text TEXT)")
    foreign.close()
    for write in (False, True):
        with pytest.raises(StoreVersionMismatch, match="another program"):
            Store(tmp_path / "foreign", write=write)


def test_folder_with_other_files_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(StoreError, match="photo.jpg"):
        Store(tmp_path, write=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "photo.jpg"]


def test_damaged_catalog_is_reported_as_damaged(store: Store) -> None:
    store.add(make_batch(list(range(300)), make_unit_rows(1, 300)))
    store.close()
    catalog = store.folder / "catalog.db"
    intact = catalog.read_bytes()
    rng = np.random.default_rng(0)
    reported = 0
    for _ in range(30):
        damaged = np.frombuffer(intact, np.uint8).copy()
        damaged[rng.integers(100, len(intact), size=len(intact) // 200)] ^= 0x55
        catalog.write_bytes(damaged.tobytes())
        try:
            with Store(store.folder) as reader, reader.catalog.snapshot():
                reader.catalog.images.list_in_use()
                reader.catalog.files.get_counts()
                reader.search.find_pairs(0.99)
        except (StoreDamaged, StoreVersionMismatch, StoreMissing):
            reported += 1
    assert reported > 10
    catalog.write_bytes(intact)


def test_store_of_a_newer_version_is_rejected(store: Store) -> None:
    with store.catalog.transaction():
        store.catalog._db.execute("PRAGMA user_version = 99")
    for write in (False, True):
        with pytest.raises(StoreVersionMismatch, match="upgrade neardup"):
            Store(store.folder, write=write)


def test_ingest_lock_is_held_by_a_living_process_only(store: Store) -> None:
    """The lock of a killed process is free; the message about a held one names its process."""
    code = (
        "import sys; from pathlib import Path; from indexes.folder import lock_ingest\n"
        "with lock_ingest(Path(sys.argv[1])): print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, store.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreLocked, match=str(process.pid)), store.lock_for_ingest():
            pass
        process.kill()
        process.wait()
        with store.lock_for_ingest():
            pass


def test_root_with_a_non_utf8_name_is_kept(store: Store) -> None:
    path = os.fsdecode(b"/photos/caf\xe9\n")
    store.add_roots([Root(path, ("*.gif",), True)])
    assert store.catalog.roots.list() == [Root(path, ("*.gif",), True)]


def test_durable_file_is_whole_or_absent(tmp_path: Path) -> None:
    def fail_halfway(file: durable.HashingFile) -> None:
        file.write(b"half")
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        durable.write(tmp_path, ".x", fail_halfway, tmp_path)
    assert not list(tmp_path.iterdir())

    def fill(file: durable.HashingFile) -> None:
        file.write(b"whole")

    name, size = durable.write(tmp_path, ".x", fill, tmp_path)
    assert (tmp_path / f"{name}.x").read_bytes() == b"whole"
    assert size == 5


def test_segment_is_durable_before_its_row_is_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segment's bytes, name and folder are synced before its row is written under the lock."""
    events: list[str] = []
    original_sync, original_replace = os.fsync, Path.replace
    original_put_segment = store.catalog.vectors.put_segment

    def sync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        original_sync(descriptor)

    def replace_file(path: Path, target: Path) -> Path:
        events.append("rename")
        return original_replace(path, target)

    def put_segment(row: SegmentRow) -> None:
        events.append("row")
        with pytest.raises(StoreLocked), locks.lock(store.folder / "write.lock"):
            pass
        original_put_segment(row)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace_file)
    monkeypatch.setattr(store.catalog.vectors, "put_segment", put_segment)
    store.add(make_batch([0, 1], make_unit_rows(1, 2)))
    seal = ["file", "rename", "folder"]
    assert events == ["file", "rename", "folder", "row", *seal]
    assert store.catalog._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert store.catalog._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_invalid_batches_queries_and_locks_are_rejected(store: Store) -> None:
    batch = make_batch([0, 1], make_unit_rows(1, 2))
    batch.images.pop()
    with pytest.raises(StoreError, match="neither a known image nor a reason"):
        store.add(batch)
    for rows in (np.full((1, 16), np.nan), np.ones((1, 16))):
        with pytest.raises(InvalidVector, match="length 1"):
            store.search.find_within(rows, 0.5)
    missing_lock = store.folder / "nowhere" / "lock"
    with pytest.raises(StoreError, match="writable"), locks.lock(missing_lock):
        pass


def test_files_of_a_folder_are_not_those_of_its_folders(store: Store) -> None:
    """Nor those of a folder whose name begins with its name, or of one whose name is no UTF-8."""
    metadata = ImageMetadata(Capture(content_id="live"))
    image = replace(make_image(1), taken_at=5, metadata=metadata)
    stat = FileStat(7, 1, 2, 3, 4)
    film = NewFile("/p/sub.mov", stat, None, "not a photo", "a film")
    paths = ("/p/1", "/p/caf\udce9.jpg", "/p/sub/2", "/p.jpg", "/p2/3", "/P/4", "/p/sub/deep/5")
    files = [NewFile(path, stat, image.hash) for path in paths]
    store.bind(SPACE, "test")
    store.add(Batch([(image, make_unit_rows(1, 1)[0])], [*files, film]))
    assert list(store.catalog.files.find_in_folder("/p")) == [
        FolderFile("/p/1", stat, image.hash, 5, content_id="live"),
        FolderFile("/p/caf\udce9.jpg", stat, image.hash, 5, content_id="live"),
        FolderFile("/p/sub.mov", stat, detail="a film"),
    ]
    (at_top,) = store.catalog.files.find_in_folder("/")
    assert at_top.path == "/p.jpg"
    listed = store.catalog.files.list_without_image_or_ending([".jpg"])
    assert sorted(listed) == ["/p.jpg", "/p/caf\udce9.jpg", "/p/sub.mov"]
