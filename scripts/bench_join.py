"""Time the join of a whole library against FAISS's own range search, and its growth with size.

    python scripts/bench_join.py --rows 100000 --dim 512 256
    python scripts/bench_join.py --grow 50000 100000 200000 400000 1000000 --dim 256
    python scripts/bench_join.py --small

The first compares with IndexFlatIP.range_search of all rows against all, in blocks of 4,096
queries, on all cores: in turn, medians of --repeat runs, and both must find the same pairs.

The second times both methods of the join, the exact one on a measured 5 % of its blocks where the
library is large, fits cost = rows ** exponent, and prints the recall that the IVF join measured
itself, beside the number of planted pairs it found. --small does both in a few seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import faiss
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, not a module

from indexes.catalog.pairs import JoinWatermark
from indexes.join import exact, ivf
from indexes.join.bound import CosineBound, choose_bound, sample_rows
from indexes.join.exact import BLOCK_ROWS
from indexes.join.recall import Recall
from indexes.join.step import count_pairs
from indexes.vectors import segments
from indexes.vectors.rows import VectorRows
from indexes.vectors.scores import (
    STORED_PRODUCT_MARGIN,
    ScoredPairs,
    compute_cosines,
    concat_pairs,
)

# Of the blocks of a large exact join, one in this many is measured.
MEASURED_BLOCK_STEP = 20
MAX_FULLY_TIMED_ROWS = 150_000
# A planted copy for each of this many rows.
ROWS_PER_PLANTED_PAIR = 50
FAISS_BLOCK_ROWS = 4096

THRESHOLD_BY_KIND = {"isotropic": 0.75, "CLIP-like": 0.90}

SMALL_ROWS = 3000
SMALL_SIZES = [1000, 2000, 4000]
SMALL_DIM = 64


def normalize(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to unit length."""
    unit_rows: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit_rows.astype(np.float32)


def make_vectors(
    kind: str, rows: int, dim: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make unit rows (rows, dim), and the planted pairs among them as rows (2, rows / 50).

    One row in fifty is a near-duplicate of another, at cosines of about .74 to 1. Isotropic rows
    have no preferred direction. CLIP-like rows have variances that fall as 1/i along the axes, and
    a common mean of the length of the rest.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    if kind == "CLIP-like":
        mean = normalize(rng.standard_normal((1, dim), dtype=np.float32))
        vectors = normalize(vectors * np.arange(1, dim + 1, dtype=np.float32) ** -0.5) + mean
    vectors = normalize(vectors)
    planted = rng.permutation(rows)[: rows // (ROWS_PER_PLANTED_PAIR // 2)].reshape(2, -1)
    noise = normalize(rng.standard_normal((planted.shape[1], dim), dtype=np.float32))
    strength = rng.uniform(0, 0.9, (planted.shape[1], 1)).astype(np.float32)
    vectors[planted[1]] = normalize(vectors[planted[0]] + strength * noise)
    return vectors, planted


def measure_private_bytes() -> int:
    """Measure the memory of this process without mapped files, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


@dataclass(frozen=True)
class Library:
    """A segment of made vectors with ids from 1, its planted pairs, and its bytes on disk."""

    rows: VectorRows
    vectors: NDArray[np.float16]
    planted: NDArray[np.int64]
    size: int


@contextmanager
def make_library(kind: str, row_count: int, dim: int) -> Iterator[Library]:
    """Make a library in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vectors, planted = make_vectors(kind, row_count, dim)
        block = (np.arange(1, row_count + 1), vectors.astype(np.float16))
        row = segments.write(folder, folder, [block])
        del vectors, block
        segment = segments.Segment(folder, row, dim)
        yield Library(VectorRows([segment]), segment.vectors, planted, row.size)


def find_pairs_by_faiss(vectors: NDArray[np.float16], min_score: float) -> set[tuple[int, int]]:
    """Find all pairs of rows by IndexFlatIP.range_search, scored as the store scores them."""
    rows = vectors.astype(np.float32)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    radius = float(np.float32(min_score - STORED_PRODUCT_MARGIN))
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(rows), FAISS_BLOCK_ROWS):
        limits, _, right = index.range_search(rows[start : start + FAISS_BLOCK_ROWS], radius)
        counts = limits[1:].astype(np.int64) - limits[:-1].astype(np.int64)
        left = np.repeat(np.arange(len(counts), dtype=np.int64) + start, counts)
        is_above_diagonal = left < right
        left, right = left[is_above_diagonal], right[is_above_diagonal]
        keep = compute_cosines(vectors[left], vectors[right]) >= min_score
        pairs.update(zip(left[keep].tolist(), right[keep].tolist(), strict=True))
    return pairs


@dataclass(frozen=True)
class Comparison:
    """One run of our join and of FAISS's range search on the same library."""

    bound: CosineBound
    pair_count: int
    our_seconds: float
    faiss_seconds: float
    our_bytes: int


def compare_once(library: Library, min_score: float) -> Comparison:
    """Time both once. Raises AssertionError if they find different pairs."""
    started, bytes_before = time.perf_counter(), measure_private_bytes()
    bound = choose_bound(sample_rows(library.rows), min_score)
    parts: list[ScoredPairs] = []
    max_bytes = 0
    for step in exact.find_pairs(library.rows, JoinWatermark(min_score), bound):
        parts.append(step.new_pairs)
        max_bytes = max(max_bytes, measure_private_bytes() - bytes_before)
    our_seconds = time.perf_counter() - started
    ids = concat_pairs(parts)
    found = set(zip((ids.left - 1).tolist(), (ids.right - 1).tolist(), strict=True))
    started = time.perf_counter()
    expected = find_pairs_by_faiss(library.vectors, min_score)
    faiss_seconds = time.perf_counter() - started
    assert found == expected, f"{len(found ^ expected)} pairs differ"
    return Comparison(bound, len(found), our_seconds, faiss_seconds, max_bytes)


def compare_with_faiss(row_count: int, dims: list[int], repeat: int) -> None:
    """Print a table of our exact join beside FAISS's range search."""
    print(f"{row_count:,} rows, {os.cpu_count()} cores, medians of {repeat}\n")
    print(
        "| vectors | dim | threshold | pairs | bound | FAISS s | ours s | FAISS / ours"
        " | memory beside the vectors |"
    )
    print("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for dim in dims:
        for kind, min_score in THRESHOLD_BY_KIND.items():
            with make_library(kind, row_count, dim) as library:
                runs = [compare_once(library, min_score) for _ in range(repeat)]
            theirs = median(run.faiss_seconds for run in runs)
            ours = median(run.our_seconds for run in runs)
            megabytes = runs[-1].our_bytes / 1e6
            print(
                f"| {kind} | {dim} | {min_score} | {runs[-1].pair_count:,} | {runs[-1].bound.name}"
                f" | {theirs:.1f} | {ours:.1f} | {theirs / ours:.1f} | {megabytes:.0f} MB |",
                flush=True,
            )


def measure_exact_seconds(vectors: VectorRows, min_score: float, bound: CosineBound) -> float:
    """Time an exact join; of a large one, one in MEASURED_BLOCK_STEP blocks, scaled by pairs."""
    row_count = len(vectors.ids)
    if row_count <= MAX_FULLY_TIMED_ROWS:
        started = time.perf_counter()
        for _ in exact.find_pairs(vectors, JoinWatermark(min_score), bound):
            pass
        return time.perf_counter() - started
    seconds, pairs = 0.0, 0
    block_count = -(-row_count // BLOCK_ROWS)
    for block in range(MEASURED_BLOCK_STEP // 2, block_count, MEASURED_BLOCK_STEP):
        first, stop = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, row_count)
        watermark = JoinWatermark(min_score, int(vectors.ids[first - 1]))
        started = time.perf_counter()
        for _ in islice(exact.find_pairs(vectors, watermark, bound), block + 1):
            pass
        seconds += time.perf_counter() - started
        pairs += count_pairs(stop, first)
    return seconds * count_pairs(row_count) / pairs


@dataclass(frozen=True)
class IvfRun:
    """An IVF join of a library: its time, memory, pairs and recall."""

    seconds: float
    max_bytes: int
    pairs: ScoredPairs
    recall: Recall


def run_ivf_join(library: Library, min_score: float, bound: CosineBound) -> IvfRun:
    """Time an IVF join."""
    started, bytes_before = time.perf_counter(), measure_private_bytes()
    parts: list[ScoredPairs] = []
    max_bytes, recall = 0, None
    for step in ivf.find_pairs(library.rows, JoinWatermark(min_score), bound):
        max_bytes = max(max_bytes, measure_private_bytes() - bytes_before)
        parts.append(step.new_pairs)
        recall = step.recall
    assert recall is not None
    return IvfRun(time.perf_counter() - started, max_bytes, concat_pairs(parts), recall)


def count_planted(library: Library, pairs: ScoredPairs, min_score: float) -> tuple[int, int]:
    """Count the planted pairs at or above the threshold: those that were found, and all."""
    first, second = library.planted
    is_close = compute_cosines(library.vectors[first], library.vectors[second]) >= min_score
    row_count = len(library.vectors)
    ordered = np.sort(library.planted[:, is_close], axis=0)
    planted_keys = ordered[0] * row_count + ordered[1]
    found_keys = (pairs.left - 1) * row_count + pairs.right - 1
    return int(np.isin(planted_keys, found_keys).sum()), len(planted_keys)


def bench_growth(sizes: list[int], dim: int) -> None:
    """Print a table of both methods at several sizes, and the exponents of their growth."""
    print(
        f"{dim} dimensions, {os.cpu_count()} cores; exact beyond {MAX_FULLY_TIMED_ROWS:,} rows:"
        f" one in {MEASURED_BLOCK_STEP} blocks of rows measured\n"
    )
    print(
        "| vectors | rows | exact s | IVF s | pairs | planted, found | recall, sampled"
        " | at least (95 %) | lists, probes | memory beside | disk |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, min_score in THRESHOLD_BY_KIND.items():
        exact_seconds, ivf_seconds = [], []
        for row_count in sizes:
            with make_library(kind, row_count, dim) as library:
                bound = choose_bound(sample_rows(library.rows), min_score)
                exact_seconds.append(measure_exact_seconds(library.rows, min_score, bound))
                run = run_ivf_join(library, min_score, bound)
                ivf_seconds.append(run.seconds)
                planted_found, planted = count_planted(library, run.pairs, min_score)
                recall = run.recall
                print(
                    f"| {kind} {min_score} | {row_count:,} | {exact_seconds[-1]:.1f}"
                    f" | {run.seconds:.1f} | {len(run.pairs.left):,}"
                    f" | {planted_found:,} of {planted:,}"
                    f" | {recall.found:,} of {recall.sampled:,} | {recall.lower_bound_95:.4f}"
                    f" | {recall.lists:,}, {recall.probes} | {run.max_bytes / 1e6:.0f} MB"
                    f" | {library.size / (2 * dim * row_count):.3f} x 2 d n |",
                    flush=True,
                )
        for method, seconds in (("exact", exact_seconds), ("IVF", ivf_seconds)):
            overall, last = fit_exponent(sizes, seconds), fit_exponent(sizes[-3:], seconds[-3:])
            print(
                f"\n{kind}, {method}: rows ** {overall:.2f}, over the last three sizes {last:.2f}",
                flush=True,
            )
        print()


def fit_exponent(sizes: list[int], seconds: list[float]) -> float:
    """Fit seconds = c * size ** exponent."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> None:
    """Print the requested tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--grow", type=int, nargs="+", default=[])
    parser.add_argument("--small", action="store_true", help="both tables in a few seconds")
    options = parser.parse_args()
    if options.small:
        compare_with_faiss(SMALL_ROWS, [SMALL_DIM], 1)
        print()
        bench_growth(SMALL_SIZES, SMALL_DIM)
    elif options.grow:
        bench_growth(options.grow, options.dim[-1])
    else:
        compare_with_faiss(options.rows, options.dim, options.repeat)


if __name__ == "__main__":
    main()
