"""Segment files: their format, damage, full disks, and the scores of their vectors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from indexes import InvalidVector, Store, StoreDamaged
from indexes.vectors.scores import compute_cosines
from tests.support.stores import get_hashes, make_batch, make_hash, make_unit_rows


def test_segment_is_readable_by_plain_faiss(store: Store) -> None:
    import faiss

    rows = make_unit_rows(1, 10)
    store.add(make_batch(list(range(10)), rows))
    (file,) = (store.folder / "segments").iterdir()
    index = faiss.read_index(str(file))
    scores, ids = index.search(rows, 1)
    hashes = get_hashes(store)
    best = (rows.astype(np.float64) @ rows.T.astype(np.float64)).max(axis=1)
    assert np.allclose(scores[:, 0], best, atol=1e-3)
    assert {hashes[int(id_)] for id_ in ids[:, 0]} <= {make_hash(number) for number in range(10)}


def test_vectors_not_of_unit_length_are_rejected(store: Store) -> None:
    rows = make_unit_rows(1, 4)
    for factor in (2, np.float32(np.nan), 0, np.float32(1.01)):
        with pytest.raises(InvalidVector):
            store.add(make_batch([0, 1, 2, 3], rows * factor))
    with pytest.raises(InvalidVector, match="16 dimensions"):
        store.add(make_batch([0], make_unit_rows(1, 1, dim=8)))
    assert not store.catalog.images.list_in_use()
    assert not list((store.folder / "tmp").iterdir())


def test_changed_or_truncated_segment_is_reported_as_damaged(store: Store) -> None:
    store.add(make_batch(list(range(10)), make_unit_rows(1, 10)))
    (file,) = (store.folder / "segments").iterdir()
    intact = file.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(len(intact), size=60).tolist():
        changed = bytearray(intact)
        changed[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(changed)
        with Store(store.folder) as reader, pytest.raises(StoreDamaged, match=file.name):
            reader.search.find_pairs(0.5)
    for length in (0, 1, len(intact) // 2, len(intact) - 1):
        file.write_bytes(intact[:length])
        with Store(store.folder) as reader, pytest.raises(StoreDamaged, match=file.name):
            reader.search.find_pairs(0.5)
    file.unlink()
    with Store(store.folder) as reader, pytest.raises(StoreDamaged, match=file.name):
        reader.search.find_pairs(0.5)


def test_full_disk_raises_disk_full_and_leaves_no_file(store: Store) -> None:
    """A limit on file sizes cuts the write early, late, and inside FAISS's own writing."""
    code = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from indexes import DiskFull\nfrom indexes.vectors import segments\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder = Path(sys.argv[1]); rows = np.tile(np.eye(16, dtype=np.float16), (200, 1))\n"
        "block = (np.arange(1, 3201), rows)\n"
        "for limit in [*range(0, 130000, 9000), 10**6]:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try: row = segments.write(folder / 'segments', folder / 'tmp', [block])\n"
        "    except DiskFull: print(limit, 'full')\n"
        "    else: print(limit, row.size)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, store.folder], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    lines = [line.split() for line in process.stdout.splitlines()]
    outcomes = {int(limit): outcome for limit, outcome in lines}
    size = int(outcomes[10**6])
    assert size > 100_000
    assert outcomes == {limit: "full" if limit < size else str(size) for limit in outcomes}
    assert not list((store.folder / "tmp").iterdir())
    assert [file.stat().st_size for file in (store.folder / "segments").iterdir()] == [size]


def test_cosines_are_independent_of_batching() -> None:
    rows = make_unit_rows(2, 101, dim=256)
    left, right = rows[:100], rows[1:]
    one_by_one = [float(compute_cosines(left[n : n + 1], right[n : n + 1])[0]) for n in range(100)]
    assert compute_cosines(left, right).tolist() == one_by_one
