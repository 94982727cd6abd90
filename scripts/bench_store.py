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

from indexes import Store, check
from indexes.records import FileStat, Image, NewFile
from indexes.store import Batch
from pipeline import load_embedder
from pipeline.decode.decode import Decoded, decode
from pipeline.scan import SourceFile
from scripts.bench_join import THRESHOLD_BY_KIND, make_vectors, measure_private_bytes

IMAGES_PER_NIGHT, NIGHT_COUNT, VECTOR_KIND = 10_000, 3, "CLIP-like"
COMMAND_SCRIPT = """
import sys, runpy
sys.argv = ["neardup", *sys.argv[1:]]
try: runpy.run_module("pipeline.cli", run_name="__main__")
except SystemExit as ended: assert not ended.code, ended.code
heavy = {"torch", "onnxruntime", "cv2"} & set(sys.modules)
assert not heavy, heavy
"""


def make_batch(first: int, rows: NDArray[np.float32]) -> Batch:
    """Images that no file on disk holds, with the hashes and paths that real ones would have."""
    rng = np.random.default_rng(first)
    made = Batch()
    for number, row in enumerate(rows, first):
        hash_ = rng.bytes(32)
        made.images.append(
            (Image(hash_, rng.bytes(32), 4000, 3000, "JPEG", 3_000_000 + number, False), row)
        )
        path = f"/photos/{number // 1000:04}/IMG_{number:07}.jpg"
        made.files.append(
            NewFile(path, FileStat(3_000_000 + number, number, number, number, 1), hash_)
        )
    return made


def count_written_bytes() -> int:
    """Bytes that this process has sent to files so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])


def count_segment_bytes(store: Store) -> int:
    """Bytes of all segment files."""
    return sum(file.stat().st_size for file in (store.folder / "segments").iterdir())


def time_product(rows: int, stored_rows: int, dim: int) -> float:
    """Seconds that a bare float32 product of `rows` with `facing` rows takes, on all cores, block by block."""
    left, block = np.ones((rows, dim), np.float32), np.ones((4096, dim), np.float32)
    out = np.empty((rows, 4096), np.float32)
    began = time.perf_counter()
    for _ in range(stored_rows // 4096):
        np.matmul(left, block.T, out=out)
    return time.perf_counter() - began


def time_command(folder: Path, *arguments: str, repeat: int = 5) -> float:
    """Seconds of a whole process, the median; that it loads no model's library is checked."""
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", COMMAND_SCRIPT, *arguments],
            env=os.environ | {"NEARDUP_STORE": str(folder)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        taken.append(time.perf_counter() - began)
    return median(taken)


def bench(rows: int, scratch: Path) -> None:
    """Print a table for one size."""
    embedder = load_embedder()
    space = replace(
        embedder.space,
        floor=THRESHOLD_BY_KIND[VECTOR_KIND],
        threshold=THRESHOLD_BY_KIND[VECTOR_KIND],
    )
    folder = scratch / "store"
    made, _ = make_vectors(VECTOR_KIND, rows + NIGHT_COUNT * IMAGES_PER_NIGHT, space.dim)
    photo = scratch / "photo.jpg"
    Pillow.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 100).convert("RGB").save(photo)
    with Store(folder, write=True) as store, store.lock_for_ingest():
        store.bind(space, embedder.name)
        run = store.begin_run()
        began = time.perf_counter()
        for start in range(0, rows, 50_000):
            store.add(make_batch(start, made[start : min(start + 50_000, rows)]))
        status = photo.stat()
        source = SourceFile(
            str(photo),
            FileStat(
                status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
            ),
        )
        decoded = decode(source, embedder.preprocess)
        assert isinstance(decoded, Decoded)
        own = made[:1]  # any unit vector will do
        store.add(
            Batch(
                [(decoded.image, own[0])],
                [NewFile(source.path, source.require_stat(), decoded.image.hash)],
            )
        )
        print(
            f"\n{rows:,} images, {space.dim} dimensions, {VECTOR_KIND}\n\n| what | measured |\n| --- | ---: |"
        )
        print(f"| filled | {time.perf_counter() - began:.0f} s |")
        began, before, most = time.perf_counter(), measure_private_bytes(), 0
        for step in store.join():  # noqa: B007 - the last one is asked below
            most = max(most, measure_private_bytes() - before)
        seconds = time.perf_counter() - began
        recall = (
            f"; recall {step.recall.found:,} of {step.recall.sampled:,}, at least {step.recall.lower_bound_95:.4f}"
            if step.recall
            else ""
        )
        print(
            f"| whole join | {step.plan.method}, {seconds:.0f} s, {step.pair_count:,} pairs{recall} ({step.plan.reason}) |"
        )
        print(f"| its memory beside the vectors | {most / 1e6:.0f} MB |")
        compaction = store.compact(full=True)
        print(
            f"| compaction | {compaction.segments_before} segments to {compaction.segments_after} |"
        )
        catalog = (folder / "catalog.db").stat().st_size
        store.end_run(run, "complete", {})
        share = count_segment_bytes(store) / (2 * space.dim * rows)
        print(
            f"| segments on disk | {share:.3f} x 2 d n; the catalog {catalog / rows:.0f} bytes an image |"
        )

    before = measure_private_bytes()
    began = time.perf_counter()
    with Store(folder) as store:
        store.verify()
        print(
            f"| open, all segments mapped | {1000 * (time.perf_counter() - began):.0f} ms, {(measure_private_bytes() - before) / 1e6:.0f} MB |"
        )
        for count in (1, 100):
            query = store.search.get_vectors(store.catalog.images.list_in_use()[:count])
            began = time.perf_counter()
            store.search.find_within(np.stack(list(query.values())), space.threshold)
            between = time.perf_counter()
            store.search.find_nearest(np.stack(list(query.values())), 10)
            last = time.perf_counter() - between
            print(
                f"| within, nearest 10, of {count} | {1000 * (between - began):.0f} ms, {1000 * last:.0f} ms |",
                flush=True,
            )
    ours, bare, bytes_segments, bytes_all = [], [], [], []
    with Store(folder, write=True) as store, store.lock_for_ingest():
        for night in range(NIGHT_COUNT):
            first = rows + night * IMAGES_PER_NIGHT
            new = make_batch(first, made[first : first + IMAGES_PER_NIGHT])
            everything, vectors_before = count_written_bytes(), count_segment_bytes(store)
            store.add(new)
            bytes_segments.append(count_segment_bytes(store) - vectors_before)
            began = time.perf_counter()
            for step in store.join():  # noqa: B007 - the last one is asked below
                pass
            ours.append(time.perf_counter() - began)
            store.compact()
            bytes_all.append(count_written_bytes() - everything)
            bare.append(time_product(IMAGES_PER_NIGHT, rows + night * IMAGES_PER_NIGHT, space.dim))
    a, b = median(ours), median(bare)
    print(
        f"| a night of {IMAGES_PER_NIGHT:,}: search, bare product, ratio | {step.plan.method}, {a:.1f} s, {b:.1f} s, {a / b:.2f} |"
    )
    size = IMAGES_PER_NIGHT * 2 * space.dim
    about = f"{median(bytes_segments) / size:.3f} x the new vectors in segments, {median(bytes_all) / 1e6:.1f} MB with catalog and log"
    print(f"| its bytes written | {about} (the bound is {(1.2 * size + 2e6) / 1e6:.1f} MB) |")
    print(
        f"| `neardup query` of a known photo, whole process | {time_command(folder, 'query', str(photo)):.2f} s |"
    )
    print(f"| `neardup groups`, whole process | {time_command(folder, 'groups', repeat=3):.2f} s |")
    print(f"| `neardup status`, whole process | {time_command(folder, 'status', repeat=3):.2f} s |")
    for data in (False, True):
        began = time.perf_counter()
        assert check(folder, read_all=data) == []
        print(
            f"| check{' --data' if data else ''} | {time.perf_counter() - began:.1f} s |",
            flush=True,
        )


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as name:
            bench(rows, Path(name))


if __name__ == "__main__":
    main()
