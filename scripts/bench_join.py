"""How fast the join of a whole library is, against FAISS's own range search, and how its cost grows, on vectors of two kinds.

    python scripts/bench_join.py --rows 100000 --dim 512 256
    python scripts/bench_join.py --grow 50000 100000 200000 400000 1000000 --dim 256

The first compares with IndexFlatIP.range_search of all rows against all, in blocks of 4,096 queries, on all cores: in turn, medians of
--repeat runs, and the pairs of both must be equal. The second times both ways of the join, the exact one on a measured 5 % of its blocks
where the library is large, fits cost = rows ** exponent, and prints the recall that the join by buckets measured of itself, beside how
many of the planted pairs it found.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes.catalog.pairs import JoinWatermark
from indexes.join import exact as join
from indexes.join import ivf as buckets
from indexes.join.exact import BLOCK_ROWS, CosineBound, VectorRows
from indexes.vectors import segments

MEASURED_BLOCK_STEP = 20  # of the blocks of a large exact join, one in so many is measured
MAX_FULLY_TIMED_ROWS = 150_000

THRESHOLD_BY_KIND = {"isotropic": 0.75, "CLIP-like": 0.90}


def normalize(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows, each of length 1."""
    made: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made.astype(np.float32)


def make_vectors(
    kind: str, rows: int, dim: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit rows, one in fifty of which is a near-duplicate of another, at cosines of about .74 to 1, and which of which: (2, rows / 50).

    isotropic: all directions alike. CLIP-like: variances that fall as 1/i along the axes, and a common mean of the length of the rest.
    """
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((rows, dim), dtype=np.float32)
    if kind == "CLIP-like":
        mean = normalize(rng.standard_normal((1, dim), dtype=np.float32))
        made = normalize(made * np.arange(1, dim + 1, dtype=np.float32) ** -0.5) + mean
    made = normalize(made)
    copies = rng.permutation(rows)[: rows // 25].reshape(2, -1)
    noise = normalize(rng.standard_normal((copies.shape[1], dim), dtype=np.float32))
    made[copies[1]] = normalize(
        made[copies[0]] + rng.uniform(0, 0.9, (copies.shape[1], 1)).astype(np.float32) * noise
    )
    return made, copies


def measure_private_bytes() -> int:
    """Bytes of memory of this process that are no mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def find_pairs_by_faiss(stored: NDArray[np.float16], min_score: float) -> set[tuple[int, int]]:
    """All pairs by IndexFlatIP.range_search, decided as the store decides them."""
    rows = stored.astype(np.float32)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    found: set[tuple[int, int]] = set()
    for start in range(0, len(rows), 4096):
        ends, _, others = index.range_search(
            rows[start : start + 4096],
            float(np.float32(min_score - segments.STORED_PRODUCT_MARGIN)),
        )
        left, right = (
            np.repeat(
                np.arange(len(ends) - 1, dtype=np.int64) + start,
                ends[1:].astype(np.int64) - ends[:-1].astype(np.int64),
            ),
            others,
        )
        once = left < right
        left, right = left[once], right[once]
        keep = segments.cosines(stored[left], stored[right]) >= min_score
        found.update(zip(left[keep].tolist(), right[keep].tolist(), strict=True))
    return found


@contextmanager
def make_vector_rows(
    kind: str, rows: int, dim: int
) -> Iterator[tuple[VectorRows, NDArray[np.float16], NDArray[np.int64], int]]:
    """A shelf of one segment with ids from 1, its vectors, which of them are planted pairs, and its bytes on disk."""
    with tempfile.TemporaryDirectory() as name:
        made, copies = make_vectors(kind, rows, dim)
        row = segments.write(
            Path(name), Path(name), [(np.arange(1, rows + 1), made.astype(np.float16))]
        )
        del made
        segment = segments.Segment(Path(name), row, dim)
        yield VectorRows([segment]), segment.vectors, copies, row.size


def compare_with_faiss(rows: int, dims: list[int], repeat: int) -> None:
    """Ours beside FAISS's."""
    print(f"{rows:,} rows, {os.cpu_count()} cores, medians of {repeat}\n")
    print(
        "| vectors | dim | threshold | pairs | prefix | FAISS s | ours s | FAISS / ours | memory beside the vectors |"
    )
    print("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for dim in dims:
        for kind, least in THRESHOLD_BY_KIND.items():
            with make_vector_rows(kind, rows, dim) as (shelf, stored, _, _):
                theirs, ours, memory = [], [], 0
                for _ in range(repeat):
                    began, before = time.perf_counter(), measure_private_bytes()
                    prefix = join.choose_bound(join.sample_rows(shelf), least)
                    parts = []
                    for step in join.find_pairs(shelf, JoinWatermark(least), prefix):
                        parts.append(step.new_pairs)
                        memory = max(memory, measure_private_bytes() - before)
                    ours.append(time.perf_counter() - began)
                    found = {
                        pair
                        for part in parts
                        for pair in zip(
                            (part.left - 1).tolist(), (part.right - 1).tolist(), strict=True
                        )
                    }
                    began = time.perf_counter()
                    expected = find_pairs_by_faiss(stored, least)
                    theirs.append(time.perf_counter() - began)
                    assert found == expected, f"{len(found ^ expected)} pairs differ"
                a, b = median(theirs), median(ours)
                about = f"| {kind} | {dim} | {least} | {len(found):,} | {prefix.name} |"
                print(
                    f"{about} {a:.1f} | {b:.1f} | {a / b:.1f} | {memory / 1e6:.0f} MB |", flush=True
                )


def measure_exact_seconds(vectors: VectorRows, min_score: float, bound: CosineBound) -> float:
    """The time of an exact join, or what one in SHARE of its rows of blocks say of it."""
    blocks = -(-len(vectors.ids) // BLOCK_ROWS)
    step = MEASURED_BLOCK_STEP if len(vectors.ids) > MAX_FULLY_TIMED_ROWS else 1
    spent, pairs = 0.0, 0
    if step == 1:
        began = time.perf_counter()
        for _ in join.find_pairs(vectors, JoinWatermark(min_score), bound):
            pass
        return time.perf_counter() - began
    for later in range(step // 2, blocks, step):
        began = time.perf_counter()
        through = int(vectors.ids[later * BLOCK_ROWS - 1])
        for _ in islice(
            join.find_pairs(vectors, JoinWatermark(min_score, through), bound), later + 1
        ):
            pass
        spent += time.perf_counter() - began
        start, stop = later * BLOCK_ROWS, min((later + 1) * BLOCK_ROWS, len(vectors.ids))
        pairs += join.count_pairs(stop, start)
    return spent * join.count_pairs(len(vectors.ids)) / pairs


def bench_growth(sizes: list[int], dim: int) -> None:
    """Both ways at several sizes."""
    print(
        f"{dim} dimensions, {os.cpu_count()} cores; exact beyond {MAX_FULLY_TIMED_ROWS:,} rows: one in {MEASURED_BLOCK_STEP} rows of its blocks measured\n"
    )
    print(
        "| vectors | rows | exact s | buckets s | pairs | planted, found | recall, sampled | at least (95 %) | lists, visited"
        " | memory beside | disk |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, least in THRESHOLD_BY_KIND.items():
        taken: dict[str, list[float]] = {"exact": [], "buckets": []}
        for rows in sizes:
            with make_vector_rows(kind, rows, dim) as (shelf, stored, copies, size):
                prefix = join.choose_bound(join.sample_rows(shelf), least)
                exact = measure_exact_seconds(shelf, least, prefix)
                began, before, memory = time.perf_counter(), measure_private_bytes(), 0
                recall, parts = None, []
                for step in buckets.find_pairs(shelf, JoinWatermark(least), prefix):
                    memory = max(memory, measure_private_bytes() - before)
                    parts.append(step.new_pairs)
                    recall = step.recall
                by_buckets = time.perf_counter() - began
                found = segments.concat_pairs(parts)
                close = copies[:, segments.cosines(stored[copies[0]], stored[copies[1]]) >= least]
                planted = np.sort(close, axis=0).T @ [rows, 1]
                met = np.isin(planted, (found.left - 1) * rows + found.right - 1).sum()
                taken["exact"].append(exact)
                taken["buckets"].append(by_buckets)
                assert recall is not None
                print(
                    f"| {kind} {least} | {rows:,} | {exact:.1f} | {by_buckets:.1f} | {len(found.left):,} | {met:,} of {len(planted):,} |"
                    f" {recall.found:,} of {recall.sampled:,} |"
                    f" {recall.lower_bound_95:.4f} | {recall.lists:,}, {recall.probes} | {memory / 1e6:.0f} MB |"
                    f" {size / (2 * dim * rows):.3f} x 2 d n |",
                    flush=True,
                )
        for way, seconds in taken.items():
            whole, last = (
                np.polyfit(np.log(sizes[start:]), np.log(seconds[start:]), 1)[0]
                for start in (0, -3)
            )
            print(
                f"\n{kind}, {way}: rows ** {whole:.2f}, over the last three sizes {last:.2f}",
                flush=True,
            )
        print()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--grow", type=int, nargs="+", default=[])
    given = parser.parse_args()
    if given.grow:
        bench_growth(given.grow, given.dim[-1])
    else:
        compare_with_faiss(given.rows, given.dim, given.repeat)


if __name__ == "__main__":
    main()
