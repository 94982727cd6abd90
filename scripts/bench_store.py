"""What a large store costs: to open, to ask, to add to every night, in time, memory and bytes written.

    python scripts/bench_store.py --rows 100000 1000000

A store of made vectors (CLIP-like, 256 dimensions, near-duplicates among them) is filled through Store.add in one batch of 50,000 after
the other, and joined by the planner's choice; then three nights of 10,000 new images each are added and joined, the search beside a bare
product of the same shape in turn; then the command line asks about one known photo, in processes of its own. The vectors of `query` and
`groups` belong to neardup-1, whose model is never loaded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from indexes import Batch, File, Image, Stat, Store, check
from pipeline import load
from pipeline.decode.decode import Decoded, decode
from pipeline.scan import SourceFile
from scripts.bench_join import KINDS, peak_private, vectors

NIGHT, NIGHTS, KIND = 10_000, 3, "CLIP-like"
ASK = """
import sys, runpy
sys.argv = ["neardup", *sys.argv[1:]]
try: runpy.run_module("pipeline.cli", run_name="__main__")
except SystemExit as ended: assert not ended.code, ended.code
heavy = {"torch", "onnxruntime", "cv2"} & set(sys.modules)
assert not heavy, heavy
"""


def batch(first: int, rows: NDArray[np.float32]) -> Batch:
    """Images that no file on disk holds, with the hashes and paths that real ones would have."""
    rng = np.random.default_rng(first)
    made = Batch()
    for number, row in enumerate(rows, first):
        hash_ = rng.bytes(32)
        made.images.append((Image(hash_, rng.bytes(32), 4000, 3000, "JPEG", 3_000_000 + number, False), row))
        path = f"/photos/{number // 1000:04}/IMG_{number:07}.jpg"
        made.files.append(File(path, Stat(3_000_000 + number, number, number, number, 1), hash_))
    return made


def written() -> int:
    """Bytes that this process has sent to files so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])


def in_segments(store: Store) -> int:
    """Bytes of all segment files."""
    return sum(file.stat().st_size for file in (store.folder / "segments").iterdir())


def product(rows: int, facing: int, dim: int) -> float:
    """Seconds that a bare float32 product of `rows` with `facing` rows takes, on all cores, block by block."""
    left, block = np.ones((rows, dim), np.float32), np.ones((4096, dim), np.float32)
    out = np.empty((rows, 4096), np.float32)
    began = time.perf_counter()
    for _ in range(facing // 4096):
        np.matmul(left, block.T, out=out)
    return time.perf_counter() - began


def asked(folder: Path, *words: str, repeat: int = 5) -> float:
    """Seconds of a whole process, the median; that it loads no model's library is checked."""
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", ASK, *words], env=os.environ | {"NEARDUP_STORE": str(folder)}, check=True, stdout=subprocess.DEVNULL
        )
        taken.append(time.perf_counter() - began)
    return median(taken)


def bench(rows: int, scratch: Path) -> None:
    """Print a table for one size."""
    embedder = load()
    space = replace(embedder.space, floor=KINDS[KIND], threshold=KINDS[KIND])
    folder = scratch / "store"
    made, _ = vectors(KIND, rows + NIGHTS * NIGHT, space.dim)
    photo = scratch / "photo.jpg"
    Pillow.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 100).convert("RGB").save(photo)
    with Store(folder, write=True) as store, store.exclusive():
        store.bind(space, embedder.name)
        run = store.begin_run()
        began = time.perf_counter()
        for start in range(0, rows, 50_000):
            store.add(batch(start, made[start : min(start + 50_000, rows)]))
        status = photo.stat()
        source = SourceFile(str(photo), Stat(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev))
        decoded = decode(source, embedder.view)
        assert isinstance(decoded, Decoded)
        own = made[:1]  # any unit vector will do
        store.add(Batch([(decoded.image, own[0])], [File(source.path, source.stat, decoded.image.hash)]))
        print(f"\n{rows:,} images, {space.dim} dimensions, {KIND}\n\n| what | measured |\n| --- | ---: |")
        print(f"| filled | {time.perf_counter() - began:.0f} s |")
        began, before, most = time.perf_counter(), peak_private(), 0
        for step in store.join():  # noqa: B007 - the last one is asked below
            most = max(most, peak_private() - before)
        seconds = time.perf_counter() - began
        recall = f"; recall {step.recall.found:,} of {step.recall.sampled:,}, at least {step.recall.at_least:.4f}" if step.recall else ""
        print(f"| whole join | {step.plan.way}, {seconds:.0f} s, {step.pairs:,} pairs{recall} ({step.plan.why}) |")
        print(f"| its memory beside the vectors | {most / 1e6:.0f} MB |")
        compaction = store.compact(full=True)
        print(f"| compaction | {compaction.before} segments to {compaction.after} |")
        catalog = (folder / "catalog.db").stat().st_size
        store.end_run(run, "complete", {})
        share = in_segments(store) / (2 * space.dim * rows)
        print(f"| segments on disk | {share:.3f} x 2 d n; the catalog {catalog / rows:.0f} bytes an image |")

    before = peak_private()
    began = time.perf_counter()
    with Store(folder) as store:
        store.verify()
        print(f"| open, all segments mapped | {1000 * (time.perf_counter() - began):.0f} ms, {(peak_private() - before) / 1e6:.0f} MB |")
        for count in (1, 100):
            query = store.vectors(store.catalog.live()[:count])
            began = time.perf_counter()
            store.within(np.stack(list(query.values())), space.threshold)
            between = time.perf_counter()
            store.nearest(np.stack(list(query.values())), 10)
            last = time.perf_counter() - between
            print(f"| within, nearest 10, of {count} | {1000 * (between - began):.0f} ms, {1000 * last:.0f} ms |", flush=True)
    ours, bare, bytes_segments, bytes_all = [], [], [], []
    with Store(folder, write=True) as store, store.exclusive():
        for night in range(NIGHTS):
            first = rows + night * NIGHT
            new = batch(first, made[first : first + NIGHT])
            everything, vectors_before = written(), in_segments(store)
            store.add(new)
            bytes_segments.append(in_segments(store) - vectors_before)
            began = time.perf_counter()
            for step in store.join():  # noqa: B007 - the last one is asked below
                pass
            ours.append(time.perf_counter() - began)
            store.compact()
            bytes_all.append(written() - everything)
            bare.append(product(NIGHT, rows + night * NIGHT, space.dim))
    a, b = median(ours), median(bare)
    print(f"| a night of {NIGHT:,}: search, bare product, ratio | {step.plan.way}, {a:.1f} s, {b:.1f} s, {a / b:.2f} |")
    size = NIGHT * 2 * space.dim
    about = f"{median(bytes_segments) / size:.3f} x the new vectors in segments, {median(bytes_all) / 1e6:.1f} MB with catalog and log"
    print(f"| its bytes written | {about} (the bound is {(1.2 * size + 2e6) / 1e6:.1f} MB) |")
    print(f"| `neardup query` of a known photo, whole process | {asked(folder, 'query', str(photo)):.2f} s |")
    print(f"| `neardup groups`, whole process | {asked(folder, 'groups', repeat=3):.2f} s |")
    print(f"| `neardup status`, whole process | {asked(folder, 'status', repeat=3):.2f} s |")
    for data in (False, True):
        began = time.perf_counter()
        assert check(folder, data=data) == []
        print(f"| check{' --data' if data else ''} | {time.perf_counter() - began:.1f} s |", flush=True)


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as name:
            bench(rows, Path(name))


if __name__ == "__main__":
    main()
