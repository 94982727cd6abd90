"""Many nights of a small store in a second: adds, removals, joins, compactions.

A run can be cut off anywhere and run again. The functions run in processes of their own.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from indexes import DiskFull, Store
from indexes.join import exact as exact_join
from indexes.join import join as join_module
from indexes.join.planner import JoinMethod
from tests.support.stores import (
    SPACE,
    find_image_pairs,
    get_hashes,
    join_all,
    make_batch,
    make_hash,
    make_unit_rows,
)

NIGHT_COUNT = 16  # as few as have three compactions
IMAGES_PER_NIGHT = 6
IMAGE_COUNT = NIGHT_COUNT * IMAGES_PER_NIGHT
ROWS = make_unit_rows(5, 120)  # more than the nights add, for the writers that race
REMOVED_NUMBERS = {number for number in range(IMAGE_COUNT) if number % 5 == 2}
DISK_FULL_EXIT_CODE = 12
SMALL_BLOCK_ROWS = 32


def run_nights(folder: Path) -> None:
    """Bring the store in `folder` to the end of the last night, whatever night it was cut off in.

    Joins have many blocks, with a commit after each pair of them, as in large stores.
    """
    exact_join.BLOCK_ROWS, join_module.MAX_UNCOMMITTED_SECONDS = SMALL_BLOCK_ROWS, -1.0
    with Store(folder, write=True) as store, store.lock_for_ingest():
        store.bind(SPACE, "test")
        store.prepare()
        for night in range(NIGHT_COUNT):
            numbers = list(range(night * IMAGES_PER_NIGHT, (night + 1) * IMAGES_PER_NIGHT))
            store.add(make_batch(numbers, ROWS))
            join_all(store)
            removed = [
                store.catalog.files.get_by_path(f"/p/{number}")
                for number in numbers
                if number in REMOVED_NUMBERS
            ]
            store.remove_files([file.id for file in removed if file])
            store.compact()
        store.compact(full=True)


def read_contents(store: Store) -> tuple[set[bytes], dict[frozenset[bytes], float]]:
    """Read the hashes of a store's images, and the score of every pair of them at .5 or above."""
    with store.catalog.snapshot():
        return set(get_hashes(store).values()), find_image_pairs(store, 0.5)


def run_until_failpoint(folder: Path, failpoint: str) -> None:
    """Run until a failpoint ends this process."""
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    run_nights(folder)


def join_by_ivf_until_failpoint(folder: Path, failpoint: str) -> None:
    """Add everything at once and run an IVF join until a failpoint ends this process."""
    join_module.MAX_UNCOMMITTED_SECONDS = -1.0
    numbers = [number for number in range(IMAGE_COUNT) if number not in REMOVED_NUMBERS]
    with Store(folder, write=True) as store, store.lock_for_ingest():
        store.bind(SPACE, "test")
        store.add(make_batch(numbers, ROWS))
        os.environ["NEARDUP_FAILPOINT"] = failpoint
        for _ in store.join(JoinMethod.IVF):
            pass


def run_on_small_disk(folder: Path, max_bytes: int) -> None:
    """Run where no file can grow beyond `max_bytes`; a full disk exits with DISK_FULL_EXIT_CODE."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, resource.RLIM_INFINITY))
    try:
        run_nights(folder)
    except DiskFull:
        sys.exit(DISK_FULL_EXIT_CODE)


def use_all_cores() -> None:
    """Let this process run on any core, beside the processes that it races with."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def add_alone(folder: Path, number: int) -> None:
    """Add five images as one of many writers, who all wait for the ingest lock."""
    use_all_cores()
    with Store(folder, write=True) as store, store.lock_for_ingest(600.0):
        store.bind(SPACE, "test")
        store.prepare()
        store.add(make_batch(list(range(5 * number, 5 * number + 5)), ROWS))
        join_all(store)


def write_forever(folder: Path) -> None:
    """Add, remove and compact until the process is killed."""
    use_all_cores()
    with Store(folder, write=True) as store, store.lock_for_ingest():
        for number in _cycle_numbers():
            store.add(make_batch([number], ROWS))
            join_all(store)
            file = store.catalog.files.get_by_path(f"/p/{(number * 7) % len(ROWS)}")
            if file:
                store.remove_files([file.id])
            store.compact(full=number % 10 == 0)


def _cycle_numbers() -> Iterator[int]:
    while True:
        yield from range(len(ROWS))


def read_and_check(folder: Path, state_count: int) -> None:
    """Read `state_count` different states of a store, and compare each with its vectors."""
    use_all_cores()
    states = set[frozenset[bytes]]()
    while len(states) < state_count:
        with Store(folder) as store:
            for _ in range(5):
                states.add(_check_state(store))


def _check_state(store: Store) -> frozenset[bytes]:
    """Compare the vectors and pairs of one commit with brute force; returns its hashes."""
    with store.catalog.snapshot():
        hashes, pairs = read_contents(store)
        numbers = sorted(int.from_bytes(hash_, "big") for hash_ in hashes)
        ids = store.catalog.images.get_ids(list(hashes))
        vectors = store.search.get_vectors(list(ids.values()))
    rows = ROWS[numbers].astype(np.float16).astype(np.float32)
    for number, row in zip(numbers, rows, strict=True):
        assert (vectors[ids[make_hash(number)]] == row).all()
    scores = rows.astype(np.float64) @ rows.T.astype(np.float64)
    close_pairs = {
        frozenset((make_hash(numbers[left]), make_hash(numbers[right])))
        for left, right in np.argwhere(np.triu(scores >= 0.51, 1)).tolist()
    }
    assert close_pairs <= set(pairs)
    return frozenset(hashes)
