from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, lists, permutations
from numpy.typing import NDArray

from indexes import (
    InvalidVector,
    Root,
    Space,
    SpaceMismatch,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreMissing,
    StoreVersionMismatch,
)
from indexes import Store as OpenStore
from indexes.catalog.pairs import JoinWatermark
from indexes.catalog.vectors import SegmentRow
from indexes.durable import files as durable
from indexes.durable import locks
from indexes.join import exact as join
from indexes.join.bound import PRODUCT_MARGIN, CosineBound, choose_bound
from indexes.join.step import JoinStep
from indexes.records import FileStat, NewFile
from indexes.store import Batch
from indexes.vectors.rows import VectorRows
from indexes.vectors.scores import concat_pairs, cosines
from tests.support.stores import SPACE, make_batch, make_hash, make_unit_rows

OTHER = Space("test", "other", "1" * 64, "none", 16, -1.0, 0.9)


def brute_force(rows: NDArray[np.float32], least: float) -> set[frozenset[bytes]]:
    """Every pair of stored rows with a cosine at or above `least`, in float64, of the vectors as they are stored."""
    stored = rows.astype(np.float16).astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    scores = np.round(stored @ stored.T, 12)
    left, right = np.nonzero(np.triu(scores >= least, 1))
    return {
        frozenset((make_hash(int(a)), make_hash(int(b)))) for a, b in zip(left, right, strict=True)
    }


def hashes_of(store: OpenStore) -> dict[int, bytes]:
    """The content behind each image that a file holds, under the image's id."""
    return {
        id_: image.hash
        for id_, image in store.catalog.images.get(store.catalog.images.list_in_use())
    }


def all_pairs(store: OpenStore, least: float) -> dict[frozenset[bytes], float]:
    """Every pair of images at or above a threshold, with those that share a vector, as pairs of contents."""
    hashes = hashes_of(store)
    images: dict[int, list[bytes]] = {}
    for image, vector in store.catalog.vectors.find_of_images(list(hashes)).items():
        if vector is not None:
            images.setdefault(vector, []).append(hashes[image])
    found = {frozenset(pair): 1.0 for shared in images.values() for pair in combinations(shared, 2)}
    pairs = store.search.find_pairs(least)
    for left, right, score in zip(
        pairs.left.tolist(), pairs.right.tolist(), pairs.score.tolist(), strict=True
    ):
        found |= {frozenset((one, other)): score for one in images[left] for other in images[right]}
    return found


@settings(deadline=None, max_examples=40)
@given(
    seed=integers(0, 2**32 - 1),
    count=integers(1, 60),
    least=floats(-1, 1),
    cuts=lists(integers(0, 60), max_size=4),
)
def test_pairs_and_within_equal_brute_force(
    seed: int, count: int, least: float, cuts: list[int]
) -> None:
    rows = make_unit_rows(seed, count)
    ends = sorted({min(cut, count) for cut in cuts} | {0, count})
    with tempfile.TemporaryDirectory() as folder, OpenStore(Path(folder), write=True) as store:
        store.bind(SPACE, "test")
        for start, end in zip(ends, ends[1:], strict=False):
            store.add(make_batch(list(range(start, end)), rows))
        hashes = hashes_of(store)
        assert set(all_pairs(store, least)) == brute_force(rows, least)
        found = store.search.find_within(rows, least)
        hits = {
            (int(row), hashes[int(id_)]) for row, id_ in zip(found.left, found.right, strict=True)
        }
        scores = rows.astype(np.float64) @ rows.astype(np.float16).astype(np.float64).T
        sure = {(a, make_hash(b)) for a, b in np.argwhere(scores >= least + 1e-3).tolist()}
        possible = {(a, make_hash(b)) for a, b in np.argwhere(scores >= least - 1e-3).tolist()}
        assert sure <= hits <= possible


def test_a_vector_finds_itself_at_one(store: OpenStore) -> None:
    rows = make_unit_rows(7, 50)
    store.add(make_batch(list(range(50)), rows))
    ids = sorted(hashes_of(store))
    stored = np.stack([store.search.get_vectors(ids)[id_] for id_ in ids])
    found = store.search.find_within(stored, 1.0)
    assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) >= set(enumerate(ids))
    assert (found.score == 1.0).all()


@settings(deadline=None, max_examples=25)
@given(seed=integers(0, 2**32 - 1), order=permutations(list(range(24))), size=integers(1, 24))
def test_adding_in_any_order_equals_one_batch(seed: int, order: list[int], size: int) -> None:
    rows = make_unit_rows(seed, 24)
    answers = []
    for parts in ([list(range(24))], [order[start : start + size] for start in range(0, 24, size)]):
        with tempfile.TemporaryDirectory() as folder, OpenStore(Path(folder), write=True) as store:
            store.bind(SPACE, "test")
            for numbers in parts:
                store.add(make_batch(numbers, rows))
            answers.append(all_pairs(store, 0.5))
    assert answers[0] == answers[1]  # to the last bit


def test_blocks_tiles_and_prefixes_of_any_size_give_the_same_pairs(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_unit_rows(3, 90)
    for start in range(0, 90, 20):
        store.add(make_batch(list(range(start, min(start + 20, 90))), rows))
    whole = all_pairs(store, 0.8)
    assert set(whole) == brute_force(rows, 0.8)
    assert whole
    anything, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 16)))
    prefixes = [
        CosineBound(None),
        *(CosineBound(np.ascontiguousarray(anything[:, :k], np.float32)) for k in (1, 5, 15)),
    ]
    shelf = VectorRows(store._mapped.refresh())
    expected = store.search.find_pairs(0.8)
    wanted = dict(
        zip(
            zip(expected.left.tolist(), expected.right.tolist(), strict=True),
            expected.score.tolist(),
            strict=True,
        )
    )
    for block, tile, kept in (
        (1, 1, 0),
        (7, 3, 1 << 20),
        (45, 45, 0),
        (90, 8, 1 << 20),
        (100, 200, 0),
    ):
        monkeypatch.setattr(join, "BLOCK_ROWS", block)
        monkeypatch.setattr(join, "TILE_ROWS", tile)
        monkeypatch.setattr(join, "MAX_CACHED_PROJECTION_BYTES", kept)
        for prefix in prefixes:
            for threads in (1, 3):
                steps = list(join.find_pairs(shelf, JoinWatermark(0.8), prefix, threads=threads))
                assert edges_of(steps) == wanted
                assert (
                    steps[-1].done == steps[-1].total == len(shelf.ids) * (len(shelf.ids) - 1) // 2
                )
                assert steps[-1].watermark == JoinWatermark(0.8, done=int(shelf.ids[-1]))
        for stop in range(
            0, len(steps), max(1, len(steps) // 9)
        ):  # killed anywhere, it goes on from there
            rest = list(join.find_pairs(shelf, steps[stop].watermark, CosineBound(None)))
            assert edges_of([*steps[: stop + 1], *rest]) == wanted


def edges_of(steps: list[JoinStep]) -> dict[tuple[int, int], float]:
    """All that was found; a pair that is found twice is a mistake."""
    whole = concat_pairs([step.new_pairs for step in steps])
    found = list(zip(whole.left.tolist(), whole.right.tolist(), whole.score.tolist(), strict=True))
    assert len({edge[:2] for edge in found}) == len(found)
    return {(left, right): score for left, right, score in found}


@settings(deadline=None, max_examples=60)
@given(seed=integers(0, 2**32 - 1), kept=integers(1, 15))
def test_a_prefix_never_falls_below_the_cosine(seed: int, kept: int) -> None:
    rows = make_unit_rows(seed, 40).astype(np.float16)
    axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))
    short = CosineBound(np.ascontiguousarray(axes[:, :kept], np.float32)).project(rows)
    exact = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    assert (short @ short.T >= exact @ exact.T - PRODUCT_MARGIN).all()


def test_the_prefix_is_chosen_by_what_it_lets_through() -> None:
    rows = np.random.default_rng(0).standard_normal((3000, 256))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    taken = []
    for least in (0.5, 0.7, 0.9):
        axes = choose_bound(rows.astype(np.float16), least).axes
        assert axes is not None
        assert np.allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-5)
        taken.append(axes.shape[1])
    assert taken == sorted(
        taken, reverse=True
    )  # the higher the threshold, the fewer numbers show that a pair is below it
    assert taken[0] > taken[-1]
    assert (
        choose_bound(make_unit_rows(1, 500).astype(np.float16), 0.9).axes is None
    )  # 16 numbers have no shorter form that pays


def test_removed_files_leave_the_answers_and_come_back_without_a_vector(store: OpenStore) -> None:
    rows = make_unit_rows(5, 20)
    store.add(make_batch(list(range(20)), rows))
    before = all_pairs(store, 0.9)
    gone = store.catalog.files.get_by_path("/p/3")
    assert gone is not None
    store.remove_files([gone.id])
    after = all_pairs(store, 0.9)
    assert set(after) == {pair for pair in before if make_hash(3) not in pair}
    assert make_hash(3) not in {
        hashes_of(store)[int(id_)] for id_ in store.search.find_within(rows[3:4], 0.9).right
    }
    back = make_batch([3], rows)
    back.images = []
    store.add(back)
    assert all_pairs(store, 0.9) == before


def test_a_batch_is_all_or_nothing(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_unit_rows(1, 10)
    store.add(make_batch([0, 1, 2], rows))

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.catalog.files, "put", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.add(make_batch([3, 4, 5], rows))
    assert set(hashes_of(store).values()) == {make_hash(number) for number in range(3)}
    assert store.catalog.files.get_by_path("/p/4") is None
    store.add(make_batch([3, 4, 5], rows))
    assert set(all_pairs(store, -1)) == brute_force(rows[:6], -1)


def test_a_reader_sees_whole_batches_and_is_not_blocked(store: OpenStore) -> None:
    rows = make_unit_rows(1, 10)
    store.add(make_batch([0, 1, 2], rows))
    with OpenStore(store.folder) as reader, store.catalog.transaction():
        assert len(reader.catalog.images.list_in_use()) == 3
    with OpenStore(store.folder) as reader:
        with reader.catalog.snapshot():
            assert len(reader.catalog.images.list_in_use()) == 3
            store.add(make_batch([3, 4], rows))
            assert len(reader.catalog.images.list_in_use()) == 3
        assert len(reader.catalog.images.list_in_use()) == 5


def test_plain_faiss_reads_a_segment(store: OpenStore) -> None:
    import faiss

    rows = make_unit_rows(1, 10)
    store.add(make_batch(list(range(10)), rows))
    (file,) = (store.folder / "segments").iterdir()
    index = faiss.read_index(str(file))
    scores, ids = index.search(rows, 1)
    hashes = hashes_of(store)
    best = (rows.astype(np.float64) @ rows.T.astype(np.float64)).max(axis=1)
    assert np.allclose(scores[:, 0], best, atol=1e-3)
    assert {hashes[int(id_)] for id_ in ids[:, 0]} <= {make_hash(number) for number in range(10)}


def test_vectors_that_cosine_cannot_compare_are_refused(store: OpenStore) -> None:
    rows = make_unit_rows(1, 4)
    for bad in (rows * 2, rows * np.float32(np.nan), rows * 0, rows * np.float32(1.01)):
        with pytest.raises(InvalidVector):
            store.add(make_batch([0, 1, 2, 3], bad))
    with pytest.raises(InvalidVector, match="16 dimensions"):
        store.add(make_batch([0], make_unit_rows(1, 1, dim=8)))
    assert not store.catalog.images.list_in_use()
    assert not list((store.folder / "tmp").iterdir())


def test_a_store_is_bound_to_its_space(store: OpenStore) -> None:
    store.add(make_batch([0], make_unit_rows(1, 1)))
    store.bind(SPACE, "test")
    with pytest.raises(SpaceMismatch, match="another folder"):
        store.bind(OTHER, "other")
    store.bind(
        Space("test", "test", "0" * 64, "none", 16, 0.1, 0.2), "elsewhere"
    )  # thresholds do not tell spaces apart
    assert store.model == "elsewhere"
    assert store.space is not None
    assert store.space.threshold == 0.9


def test_a_store_without_images_can_be_bound_to_another_space(store: OpenStore) -> None:
    store.add(Batch(files=[NewFile("/broken", FileStat(1, 2, 3, 4, 5), None, "truncated")]))
    with pytest.raises(SpaceMismatch):
        store.require_space(OTHER)
    store.require_space(OTHER, unless_empty=True)
    store.bind(OTHER, "other")
    assert (store.space, store.model) == (OTHER, "other")
    store.add(
        Batch(
            images=[
                (
                    replace(
                        make_batch([0], make_unit_rows(1, 1)).images[0][0], is_featureless=True
                    ),
                    None,
                )
            ]
        )
    )
    with pytest.raises(
        SpaceMismatch
    ):  # what has no features was found to have none at the size of this space
        store.bind(SPACE, "test")


def test_two_who_bind_a_store_never_mix_their_vectors(store: OpenStore) -> None:
    with OpenStore(store.folder, write=True) as another:
        another.bind(OTHER, "other")
        with pytest.raises(SpaceMismatch):
            store.add(make_batch([0], make_unit_rows(1, 1)))
        assert store.catalog.is_empty()
        another.add(make_batch([0], make_unit_rows(1, 1)))
        with pytest.raises(SpaceMismatch):
            store.bind(SPACE, "test")
        assert (store.space, len(store.catalog.vectors.list_segments())) == (OTHER, 1)


def test_thresholds_below_the_floor_are_refused(tmp_path: Path) -> None:
    with OpenStore(tmp_path, write=True) as store:
        store.bind(Space("test", "test", "0" * 64, "none", 16, 0.6, 0.9), "test")
        for least in (0.59, 1.01):
            with pytest.raises(StoreError, match="0.6"):
                store.search.find_pairs(least)
        assert len(store.search.find_pairs(0.6).score) == 0


def test_every_changed_byte_of_a_segment_is_noticed(store: OpenStore) -> None:
    store.add(make_batch(list(range(10)), make_unit_rows(1, 10)))
    (file,) = (store.folder / "segments").iterdir()
    sound = file.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(len(sound), size=60).tolist():
        file.write_bytes(
            sound[:at] + bytes([sound[at] ^ (1 << int(rng.integers(8)))]) + sound[at + 1 :]
        )
        with OpenStore(store.folder) as reader, pytest.raises(StoreDamaged, match=file.name):
            reader.search.find_pairs(0.5)
    for length in (0, 1, len(sound) // 2, len(sound) - 1):
        file.write_bytes(sound[:length])
        with OpenStore(store.folder) as reader, pytest.raises(StoreDamaged, match=file.name):
            reader.search.find_pairs(0.5)
    file.unlink()
    with OpenStore(store.folder) as reader, pytest.raises(StoreDamaged, match=file.name):
        reader.search.find_pairs(0.5)


def test_what_is_no_store_is_told_from_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="neardup ingest"):
        OpenStore(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "catalog.db").write_text(
        "this is no database, but it is long enough to be read as the header of one" * 20
    )
    with pytest.raises(StoreVersionMismatch, match="no neardup store"):
        OpenStore(tmp_path / "text")
    (tmp_path / "foreign").mkdir()
    with sqlite3.connect(tmp_path / "foreign" / "catalog.db") as foreign:
        foreign.execute("CREATE TABLE notes (text TEXT)")
    foreign.close()
    for write in (False, True):
        with pytest.raises(StoreVersionMismatch, match="another program"):
            OpenStore(tmp_path / "foreign", write=write)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(StoreError, match="photo.jpg"):
        OpenStore(tmp_path, write=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "photo.jpg"]


def test_a_damaged_catalog_is_named(store: OpenStore) -> None:
    store.add(make_batch(list(range(300)), make_unit_rows(1, 300)))
    store.close()
    catalog = store.folder / "catalog.db"
    sound = catalog.read_bytes()
    rng = np.random.default_rng(0)
    met = 0
    for _ in range(30):
        damaged = np.frombuffer(sound, np.uint8).copy()
        damaged[rng.integers(100, len(sound), size=len(sound) // 200)] ^= 0x55
        catalog.write_bytes(damaged.tobytes())
        try:
            with OpenStore(store.folder) as reader, reader.catalog.snapshot():
                reader.catalog.images.list_in_use()
                reader.catalog.files.get_counts()
                reader.search.find_pairs(0.99)
        except (StoreDamaged, StoreVersionMismatch, StoreMissing):
            met += 1
    assert met > 10
    catalog.write_bytes(sound)


def test_a_newer_store_is_left_alone(store: OpenStore) -> None:
    with store.catalog.transaction():
        store.catalog._db.execute("PRAGMA user_version = 99")
    for write in (False, True):
        with pytest.raises(StoreVersionMismatch, match="upgrade neardup"):
            OpenStore(store.folder, write=write)


def test_one_ingest_at_a_time(store: OpenStore) -> None:
    """The lock of a killed process is free; that of a living one names it."""
    code = (
        "import sys; from pathlib import Path; from indexes.durable.locks import lock\n"
        "with lock(Path(sys.argv[1])): print(1, flush=True); sys.stdin.read()"
    )
    lock = store.folder / "ingest.lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreLocked, match=str(other.pid)), store.lock_for_ingest():
            pass
        other.kill()
        other.wait()
        with store.lock_for_ingest():
            pass


def test_a_full_disk_is_named_and_leaves_nothing(store: OpenStore) -> None:
    """A process that may not write larger files meets the limit early, late, and inside FAISS's own writing."""
    code = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from indexes import DiskFull\nfrom indexes.vectors import segments\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder = Path(sys.argv[1]); rows = np.tile(np.eye(16, dtype=np.float16), (200, 1))\n"
        "for size in [*range(0, 130000, 9000), 10**6]:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))\n"
        "    try: print(size, segments.write(folder / 'segments', folder / 'tmp', [(np.arange(1, 3201), rows)]).size)\n"
        "    except DiskFull: print(size, 'full')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store.folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome = {
        int(limit): word for limit, word in (line.split() for line in done.stdout.splitlines())
    }
    whole = int(outcome[10**6])
    assert whole > 100_000
    assert outcome == {limit: "full" if limit < whole else str(whole) for limit in outcome}
    assert not list((store.folder / "tmp").iterdir())
    assert [file.stat().st_size for file in (store.folder / "segments").iterdir()] == [whole]


def test_roots_keep_names_that_are_no_utf8(store: OpenStore) -> None:
    odd = os.fsdecode(b"/photos/caf\xe9\n")
    store.add_roots([Root(odd, ("*.gif",), True)])
    assert store.catalog.roots.list() == [Root(odd, ("*.gif",), True)]


def test_a_durable_file_is_whole_or_absent(tmp_path: Path) -> None:
    def half(file: durable.HashingFile) -> None:
        file.write(b"half")
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        durable.write(tmp_path, ".x", half, tmp_path)
    assert not list(tmp_path.iterdir())

    def whole(file: durable.HashingFile) -> None:
        file.write(b"whole")

    name, size = durable.write(tmp_path, ".x", whole, tmp_path)
    assert (tmp_path / f"{name}.x").read_bytes() == b"whole"
    assert size == 5


def test_cosines_do_not_depend_on_batching() -> None:
    rows = make_unit_rows(2, 101, dim=256)
    left, right = rows[:100], rows[1:]
    whole = cosines(left, right)
    assert whole.tolist() == [
        float(cosines(left[n : n + 1], right[n : n + 1])[0]) for n in range(100)
    ]


def test_commits_are_synced_and_files_before_names(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segment's bytes, then its name, then its folder reach the disk, and only then the transaction begins, under the write lock."""
    happened: list[str] = []
    real_sync, real_replace, real_begin = os.fsync, Path.replace, store.catalog.vectors.put_segment

    def sync(descriptor: int) -> None:
        happened.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        happened.append("rename")
        return real_replace(path, target)

    def committed(row: SegmentRow) -> None:
        happened.append("row")
        with pytest.raises(StoreLocked), locks.lock(store.folder / "write.lock"):
            pass
        real_begin(row)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(store.catalog.vectors, "put_segment", committed)
    store.add(make_batch([0, 1], make_unit_rows(1, 2)))
    seal = ["file", "rename", "folder"]
    assert happened == ["file", "rename", "folder", "row", *seal]
    assert store.catalog._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert store.catalog._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_reader_that_stays_open_sees_new_segments(store: OpenStore) -> None:
    rows = make_unit_rows(1, 8)
    store.add(make_batch([0, 1, 2, 3], rows))
    with OpenStore(store.folder) as reader:
        assert len(reader.search.find_pairs(-1).score) == 6
        store.add(make_batch([4, 5, 6, 7], rows))
        assert len(reader.search.find_pairs(-1).score) == 28


def test_broken_promises_are_refused(store: OpenStore) -> None:
    batch = make_batch([0, 1], make_unit_rows(1, 2))
    batch.images.pop()
    with pytest.raises(StoreError, match="neither a known image nor a reason"):
        store.add(batch)
    for rows in (np.full((1, 16), np.nan), np.ones((1, 16))):
        with pytest.raises(InvalidVector, match="length 1"):
            store.search.find_within(rows, 0.5)
    with (
        pytest.raises(StoreError, match="writable"),
        locks.lock(store.folder / "nowhere" / "lock"),
    ):
        pass
