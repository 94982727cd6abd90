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

from indexes import NoSpace, Store, Way
from indexes import store as store_module
from indexes.join import exact as join
from tests.conftest import SPACE, batch_of, name_of, unit_rows

NIGHTS, NEW = 20, 6
ROWS = unit_rows(5, NIGHTS * NEW)
GONE = {number for number in range(NIGHTS * NEW) if number % 5 == 2}
FULL_DISK = 12


def nights(folder: Path) -> None:
    """Bring the store in `folder` to the end of the last night, whatever night it was cut off in.

    Joins are made of many blocks, with a commit after each pair of them, as large stores have.
    """
    join.BLOCK, store_module.COMMIT_SECONDS = 32, -1.0
    with Store(folder, write=True) as store, store.exclusive():
        store.bind(SPACE, "test")
        store.prepare()
        for night in range(NIGHTS):
            some = list(range(night * NEW, (night + 1) * NEW))
            store.add(batch_of(some, ROWS))
            for _ in store.join():
                pass
            gone = [store.catalog.known(f"/p/{number}") for number in some if number in GONE]
            store.remove([known.id for known in gone if known])
            store.compact()
        store.compact(full=True)


def contents(store: Store) -> tuple[set[bytes], dict[frozenset[bytes], float]]:
    """What a store holds and every pair of it at .5 or above, by content."""
    with store.catalog.snapshot():
        hashes = {id_: image.hash for id_, image in store.catalog.images(store.catalog.live())}
        images: dict[int, list[bytes]] = {}
        for image, vector in store.catalog.vectors_of(list(hashes)).items():
            if vector is not None:
                images.setdefault(vector, []).append(hashes[image])
        found = {frozenset(pair): 1.0 for shared in images.values() for pair in combinations(shared, 2)}
        pairs = store.pairs(0.5)
        for left, right, score in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.score.tolist(), strict=True):
            found |= {frozenset((one, other)): score for one in images[left] for other in images[right]}
        return set(hashes.values()), found


def killed_at(folder: Path, failpoint: str) -> None:
    """Run until a failpoint ends this process."""
    os.environ["NEARDUP_FAILPOINT"] = failpoint
    nights(folder)


def killed_in_buckets(folder: Path, failpoint: str) -> None:
    """Add everything at once and join it by buckets until a failpoint ends this process."""
    store_module.COMMIT_SECONDS = -1.0
    with Store(folder, write=True) as store, store.exclusive():
        store.bind(SPACE, "test")
        store.add(batch_of([number for number in range(len(ROWS)) if number not in GONE], ROWS))
        os.environ["NEARDUP_FAILPOINT"] = failpoint
        for _ in store.join(Way.BUCKETS):
            pass


def on_a_small_disk(folder: Path, most: int) -> None:
    """Run where no file can grow beyond `most` bytes; exit with FULL_DISK when that is met."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        nights(folder)
    except NoSpace:
        sys.exit(FULL_DISK)


def add_alone(folder: Path, number: int) -> None:
    """One of many writers: wait for the lock, add five images."""
    with Store(folder, write=True) as store, store.exclusive(600.0):
        store.bind(SPACE, "test")
        store.prepare()
        store.add(batch_of(list(range(5 * number, 5 * number + 5)), ROWS))
        for _ in store.join():
            pass


def write_for_ever(folder: Path) -> None:
    """Add, remove and compact until the process is killed."""
    with Store(folder, write=True) as store, store.exclusive():
        for number in _again_and_again():
            store.add(batch_of([number], ROWS))
            for _ in store.join():
                pass
            other = store.catalog.known(f"/p/{(number * 7) % len(ROWS)}")
            if other:
                store.remove([other.id])
            store.compact(full=number % 10 == 0)


def _again_and_again() -> Iterator[int]:
    while True:
        yield from range(len(ROWS))


def read(folder: Path, answers: int) -> None:
    """Ask the store until it answered so often, each time from another state, and compare each with the vectors of the same commit."""
    states = set[frozenset[bytes]]()
    while len(states) < answers:
        with Store(folder) as store:
            for _ in range(5):
                with store.catalog.snapshot():
                    hashes, pairs = contents(store)
                    numbers = sorted(int.from_bytes(hash_, "big") for hash_ in hashes)
                    ids = store.catalog.image_ids(list(hashes))
                    vectors = store.vectors(list(ids.values()))
                    rows = ROWS[numbers].astype(np.float16).astype(np.float32)
                    for number, row in zip(numbers, rows, strict=True):
                        assert (vectors[ids[name_of(number)]] == row).all()
                    scores = rows.astype(np.float64) @ rows.T.astype(np.float64)
                    close = np.argwhere(np.triu(scores >= 0.51, 1)).tolist()
                    assert {frozenset((name_of(numbers[left]), name_of(numbers[right]))) for left, right in close} <= set(pairs)
                states.add(frozenset(hashes))
