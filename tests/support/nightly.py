"""A year of nights in a second: adds, removals, joins and compactions of a small store, to be cut off anywhere and run again."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from indexes import DiskFull, Store
from indexes.join import exact as join
from indexes.join import join as join_module
from indexes.join.planner import JoinMethod
from tests.support.stores import SPACE, make_batch, make_hash, make_unit_rows

NIGHT_COUNT, IMAGES_PER_NIGHT = 20, 6
ROWS = make_unit_rows(5, NIGHT_COUNT * IMAGES_PER_NIGHT)
REMOVED_NUMBERS = {number for number in range(NIGHT_COUNT * IMAGES_PER_NIGHT) if number % 5 == 2}
DISK_FULL_EXIT_CODE = 12


def run_nights(folder: Path) -> None:
    """Bring the store in `folder` to the end of the last night, whatever night it was cut off in.

    Joins are made of many blocks, with a commit after each pair of them, as large stores have.
    """
    join.BLOCK_ROWS, join_module.MAX_UNCOMMITTED_SECONDS = 32, -1.0
    with Store(folder, write=True) as store, store.lock_for_ingest():
        store.bind(SPACE, "test")
        store.prepare()
        for night in range(NIGHT_COUNT):
            some = list(range(night * IMAGES_PER_NIGHT, (night + 1) * IMAGES_PER_NIGHT))
            store.add(make_batch(some, ROWS))
            for _ in store.join():
                pass
            gone = [
                store.catalog.files.get_by_path(f"/p/{number}")
                for number in some
                if number in REMOVED_NUMBERS
            ]
            store.remove_files([known.id for known in gone if known])
            store.compact()
        store.compact(full=True)


def read_contents(store: Store) -> tuple[set[bytes], dict[frozenset[bytes], float]]:
    """What a store holds and every pair of it at .5 or above, by content."""
    with store.catalog.snapshot():
        hashes = {
            id_: image.hash
            for id_, image in store.catalog.images.get(store.catalog.images.list_in_use())
        }
        images: dict[int, list[bytes]] = {}
        for image, vector in store.catalog.vectors.find_of_images(list(hashes)).items():
            if vector is not None:
                images.setdefault(vector, []).append(hashes[image])
        found = {
            frozenset(pair): 1.0 for shared in images.values() for pair in combinations(shared, 2)
        }
        pairs = store.search.find_pairs(0.5)
        for left, right, score in zip(
            pairs.left.tolist(), pairs.right.tolist(), pairs.score.tolist(), strict=True
        ):
            found |= {
                frozenset((one, other)): score for one in images[left] for other in images[right]
            }
        return set(hashes.values()), found


def run_until_failpoint(folder: Path, failpoint: str) -> None:
    """Run until a failpoint ends this process."""
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    run_nights(folder)


def join_by_ivf_until_failpoint(folder: Path, failpoint: str) -> None:
    """Add everything at once and join it by buckets until a failpoint ends this process."""
    join_module.MAX_UNCOMMITTED_SECONDS = -1.0
    with Store(folder, write=True) as store, store.lock_for_ingest():
        store.bind(SPACE, "test")
        store.add(
            make_batch(
                [number for number in range(len(ROWS)) if number not in REMOVED_NUMBERS], ROWS
            )
        )
        os.environ["NEARDUP_FAILPOINT"] = failpoint
        for _ in store.join(JoinMethod.IVF):
            pass


def run_on_small_disk(folder: Path, max_bytes: int) -> None:
    """Run where no file can grow beyond `most` bytes; exit with FULL_DISK when that is met."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, resource.RLIM_INFINITY))
    try:
        run_nights(folder)
    except DiskFull:
        sys.exit(DISK_FULL_EXIT_CODE)


def add_alone(folder: Path, number: int) -> None:
    """One of many writers: wait for the lock, add five images."""
    with Store(folder, write=True) as store, store.lock_for_ingest(600.0):
        store.bind(SPACE, "test")
        store.prepare()
        store.add(make_batch(list(range(5 * number, 5 * number + 5)), ROWS))
        for _ in store.join():
            pass


def write_for_ever(folder: Path) -> None:
    """Add, remove and compact until the process is killed."""
    with Store(folder, write=True) as store, store.lock_for_ingest():
        for number in _again_and_again():
            store.add(make_batch([number], ROWS))
            for _ in store.join():
                pass
            other = store.catalog.files.get_by_path(f"/p/{(number * 7) % len(ROWS)}")
            if other:
                store.remove_files([other.id])
            store.compact(full=number % 10 == 0)


def _again_and_again() -> Iterator[int]:
    while True:
        yield from range(len(ROWS))


def read_and_check(folder: Path, answer_count: int) -> None:
    """Ask the store until it answered so often, each time from another state, and compare each with the vectors of the same commit."""
    states = set[frozenset[bytes]]()
    while len(states) < answer_count:
        with Store(folder) as store:
            for _ in range(5):
                with store.catalog.snapshot():
                    hashes, pairs = read_contents(store)
                    numbers = sorted(int.from_bytes(hash_, "big") for hash_ in hashes)
                    ids = store.catalog.images.get_ids(list(hashes))
                    vectors = store.search.get_vectors(list(ids.values()))
                    rows = ROWS[numbers].astype(np.float16).astype(np.float32)
                    for number, row in zip(numbers, rows, strict=True):
                        assert (vectors[ids[make_hash(number)]] == row).all()
                    scores = rows.astype(np.float64) @ rows.T.astype(np.float64)
                    close = np.argwhere(np.triu(scores >= 0.51, 1)).tolist()
                    assert {
                        frozenset((make_hash(numbers[left]), make_hash(numbers[right])))
                        for left, right in close
                    } <= set(pairs)
                states.add(frozenset(hashes))
