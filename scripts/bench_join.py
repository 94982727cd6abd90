"""How fast the join of a whole library is, against FAISS's own range search, on vectors of two kinds; that both find the same is checked.

    python scripts/bench_join.py --rows 100000 --dim 512 256

Baseline: IndexFlatIP.range_search of all rows against all, in blocks of 4,096 queries, on all cores. Ours: indexes.join.pairs over a
segment. Both in turn, the medians of --repeat runs; ratios are what to quote.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes import join, segments

KINDS = {"isotropic": 0.75, "CLIP-like": 0.90}


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows, each of length 1."""
    made: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made.astype(np.float32)


def vectors(kind: str, rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit rows, one in fifty of which is a near-duplicate of another, at cosines of about .65 to 1.

    isotropic: all directions alike. CLIP-like: variances that fall as 1/i along the axes, and a common mean of the length of the rest.
    """
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((rows, dim), dtype=np.float32)
    if kind == "CLIP-like":
        mean = unit(rng.standard_normal((1, dim), dtype=np.float32))
        made = unit(made * np.arange(1, dim + 1, dtype=np.float32) ** -0.5) + mean
    made = unit(made)
    copies = rng.permutation(rows)[: rows // 25].reshape(2, -1)
    noise = unit(rng.standard_normal((copies.shape[1], dim), dtype=np.float32))
    made[copies[1]] = unit(made[copies[0]] + rng.uniform(0, 0.9, (copies.shape[1], 1)).astype(np.float32) * noise)
    return made


def peak_private() -> int:
    """Bytes of memory of this process that are no mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def by_faiss(stored: NDArray[np.float16], least: float) -> set[tuple[int, int]]:
    """All pairs by IndexFlatIP.range_search, decided as the store decides them."""
    rows = stored.astype(np.float32)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    found: set[tuple[int, int]] = set()
    for start in range(0, len(rows), 4096):
        ends, _, others = index.range_search(rows[start : start + 4096], float(np.float32(least - segments.MARGIN)))
        left, right = (
            np.repeat(np.arange(len(ends) - 1, dtype=np.int64) + start, ends[1:].astype(np.int64) - ends[:-1].astype(np.int64)),
            others,
        )
        once = left < right
        left, right = left[once], right[once]
        keep = segments.cosines(stored[left], stored[right]) >= least
        found.update(zip(left[keep].tolist(), right[keep].tolist(), strict=True))
    return found


def main() -> None:
    """Print a row for each kind and dimension."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    print(f"{given.rows:,} rows, {os.cpu_count()} cores, medians of {given.repeat}\n")
    print("| vectors | dim | threshold | pairs | prefix | FAISS s | ours s | FAISS / ours | memory beside the vectors |")
    print("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for dim in given.dim:
        for kind, least in KINDS.items():
            with tempfile.TemporaryDirectory() as name:
                made = vectors(kind, given.rows, dim)
                row = segments.write(Path(name), Path(name), np.arange(given.rows), made)
                del made
                segment = segments.Segment(Path(name), row, dim)
                theirs, ours, memory = [], [], 0
                for _ in range(given.repeat):
                    began, before = time.perf_counter(), peak_private()
                    parts = []
                    for part in join.pairs([segment], segment.ids, least):
                        parts.append(part)
                        memory = max(memory, peak_private() - before)
                    ours.append(time.perf_counter() - began)
                    found = {pair for part in parts for pair in zip(part.left.tolist(), part.right.tolist(), strict=True)}
                    began = time.perf_counter()
                    expected = by_faiss(segment.vectors, least)
                    theirs.append(time.perf_counter() - began)
                    assert found == expected, f"{len(found ^ expected)} pairs differ"
                prefix = join.choose_prefix(segment.vectors[:: max(1, given.rows // (join.AXES_SAMPLE + join.SAMPLE))], least).name
                a, b = median(theirs), median(ours)
                print(
                    f"| {kind} | {dim} | {least} | {len(found):,} | {prefix} | {a:.1f} | {b:.1f} | {a / b:.1f} | {memory / 1e6:.0f} MB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
