"""Measure what a large store costs to open, to search, and to add to every night.

    python scripts/bench_store.py --rows 100000 1000000
    python scripts/bench_store.py --small

A store of made vectors (CLIP-like, with near-duplicates among them, in the space of neardup-1) is
filled by Store.add in batches of 50,000 and joined by the planner's choice. Then three nights of
10,000 new images each are added and joined, in turn with a bare product of the same shape. Then
the command line queries one known photo, in processes of its own; no model may be loaded for that.
--small does it with 2,000 vectors and nights of 200, in less than a minute.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, not a module

from indexes import Space, Store, check
from indexes.coverage import Coverage
from indexes.join.join import JoinProgress
from indexes.records import FileStat, Image, NewFile, RunOutcome
from indexes.store import Batch
from pipeline import load_embedder
from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.preprocess import Preprocess
from pipeline.scan import SourceFile
from scripts.bench_join import THRESHOLD_BY_KIND, make_vectors, measure_private_bytes

VECTOR_KIND = "CLIP-like"
NIGHT_COUNT = 3
FILL_BATCH_ROWS = 50_000
PRODUCT_BLOCK_ROWS = 4096
# The bytes that a night may write: this factor of its new vectors, plus a constant.
MAX_WRITTEN_FACTOR, MAX_WRITTEN_CONSTANT = 1.2, 2e6
# Runs a command and fails if it loaded a model's library or OpenCV.
COMMAND_SCRIPT = """
import sys, runpy
sys.argv = ["neardup", *sys.argv[1:]]
try: runpy.run_module("pipeline.cli", run_name="__main__")
except SystemExit as ended: assert not ended.code, ended.code
heavy = {"torch", "onnxruntime", "cv2"} & set(sys.modules)
assert not heavy, heavy
"""


def make_batch(first: int, vectors: NDArray[np.float32]) -> Batch:
    """Make images without files on disk, with hashes and paths like those of real ones."""
    rng = np.random.default_rng(first)
    batch = Batch()
    for number, vector in enumerate(vectors, first):
        hash_ = rng.bytes(32)
        size = 3_000_000 + number
        image = Image(hash_, rng.bytes(32), 4000, 3000, "JPEG", size, False)
        batch.images.append((image, vector))
        path = f"/photos/{number // 1000:04}/IMG_{number:07}.jpg"
        stat = FileStat(size, number, number, number, 1)
        batch.files.append(NewFile(path, stat, hash_))
    return batch


def make_photo_batch(path: Path, preprocess: Preprocess, vector: NDArray[np.float32]) -> Batch:
    """Make a batch of one real photo, with a vector that need not be its own."""
    stat = path.stat()
    file_stat = FileStat(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
    source = SourceFile(str(path), file_stat)
    decoded = decode_source(source, preprocess)
    assert isinstance(decoded, Decoded)
    file = NewFile(source.path, source.require_stat(), decoded.image.hash)
    return Batch([(decoded.image, vector)], [file])


def count_written_bytes() -> int:
    """Count the bytes that this process has written to files so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])


def count_segment_bytes(store: Store) -> int:
    """Count the bytes of all segment files."""
    return sum(file.stat().st_size for file in (store.folder / "segments").iterdir())


def run_join(progress: Iterable[JoinProgress]) -> tuple[JoinProgress, float, int]:
    """Run a join to its end: the last step, seconds, and the most memory, in bytes."""
    started, bytes_before, max_bytes = time.perf_counter(), measure_private_bytes(), 0
    last: JoinProgress | None = None
    for step in progress:
        last = step
        max_bytes = max(max_bytes, measure_private_bytes() - bytes_before)
    assert last is not None, "there are new vectors"
    return last, time.perf_counter() - started, max_bytes


def time_product(rows: int, stored_rows: int, dim: int) -> float:
    """Time a bare float32 product of `rows` with `stored_rows` rows, on all cores, in blocks."""
    left, block = np.ones((rows, dim), np.float32), np.ones((PRODUCT_BLOCK_ROWS, dim), np.float32)
    products = np.empty((rows, PRODUCT_BLOCK_ROWS), np.float32)
    started = time.perf_counter()
    for _ in range(max(1, stored_rows // PRODUCT_BLOCK_ROWS)):
        np.matmul(left, block.T, out=products)
    return time.perf_counter() - started


def time_command(folder: Path, *arguments: str, repeat: int) -> float:
    """Time whole processes of a command, the median in seconds; none may load a model's library."""
    timings = []
    for _ in range(repeat):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", COMMAND_SCRIPT, *arguments],
            cwd=Path(__file__).resolve().parent.parent,  # where the packages are imported from
            env=os.environ | {"NEARDUP_STORE": str(folder)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        timings.append(time.perf_counter() - started)
    return median(timings)


@dataclass(frozen=True)
class Scenario:
    """A store to measure: its folder, a photo in it, its space, and the vectors of all images."""

    folder: Path
    photo: Path
    space: Space
    vectors: NDArray[np.float32]
    row_count: int
    images_per_night: int


def print_row(name: str, measured: str) -> None:
    """Print a row of the table."""
    print(f"| {name} | {measured} |", flush=True)


def bench_fill(scenario: Scenario, model: str, preprocess: Preprocess) -> None:
    """Fill a store, join it and compact it."""
    row_count, dim = scenario.row_count, scenario.space.dim
    with Store(scenario.folder, write=True) as store, store.lock_for_ingest():
        store.bind(scenario.space, model)
        run = store.begin_run()
        started = time.perf_counter()
        for start in range(0, row_count, FILL_BATCH_ROWS):
            stop = min(start + FILL_BATCH_ROWS, row_count)
            store.add(make_batch(start, scenario.vectors[start:stop]))
        store.add(make_photo_batch(scenario.photo, preprocess, scenario.vectors[0]))
        print_row("filled", f"{time.perf_counter() - started:.0f} s")
        last, seconds, max_bytes = run_join(store.join())
        recall = ""
        if last.recall:
            recall = (
                f"; recall {last.recall.found:,} of {last.recall.sampled:,},"
                f" at least {last.recall.lower_bound_95:.4f}"
            )
        print_row(
            "whole join",
            f"{last.plan.method}, {seconds:.0f} s, {last.pair_count:,} pairs{recall}"
            f" ({last.plan.reason})",
        )
        print_row("its memory beside the vectors", f"{max_bytes / 1e6:.0f} MB")
        report = store.compact(full=True)
        print_row("compaction", f"{report.segments_before} segments to {report.segments_after}")
        catalog_bytes = (scenario.folder / "catalog.db").stat().st_size
        store.end_run(run, RunOutcome.COMPLETE, Coverage())
        share = count_segment_bytes(store) / (2 * dim * row_count)
        print_row(
            "segments on disk",
            f"{share:.3f} x 2 d n; the catalog {catalog_bytes / row_count:.0f} bytes an image",
        )


def bench_search(scenario: Scenario) -> None:
    """Open the store and search it."""
    bytes_before, started = measure_private_bytes(), time.perf_counter()
    with Store(scenario.folder) as store:
        store.check_segments()
        milliseconds = 1000 * (time.perf_counter() - started)
        megabytes = (measure_private_bytes() - bytes_before) / 1e6
        print_row("open, all segments mapped", f"{milliseconds:.0f} ms, {megabytes:.0f} MB")
        for count in (1, 100):
            images = store.catalog.images.list_in_use()[:count]
            queries = np.stack(list(store.search.get_vectors(images).values()))
            started = time.perf_counter()
            store.search.find_within(queries, scenario.space.threshold)
            within_seconds = time.perf_counter() - started
            started = time.perf_counter()
            store.search.find_nearest(queries, 10)
            nearest_seconds = time.perf_counter() - started
            print_row(
                f"within, nearest 10, of {count}",
                f"{1000 * within_seconds:.0f} ms, {1000 * nearest_seconds:.0f} ms",
            )


def bench_nights(scenario: Scenario) -> None:
    """Add, join and compact the images of each night, in turn with a bare product."""
    join_timings, product_timings, segment_bytes, all_bytes = [], [], [], []
    images_per_night, dim = scenario.images_per_night, scenario.space.dim
    with Store(scenario.folder, write=True) as store, store.lock_for_ingest():
        for night in range(NIGHT_COUNT):
            first = scenario.row_count + night * images_per_night
            batch = make_batch(first, scenario.vectors[first : first + images_per_night])
            written_before, segments_before = count_written_bytes(), count_segment_bytes(store)
            store.add(batch)
            segment_bytes.append(count_segment_bytes(store) - segments_before)
            last, seconds, _ = run_join(store.join())
            join_timings.append(seconds)
            store.compact()
            all_bytes.append(count_written_bytes() - written_before)
            product_timings.append(time_product(images_per_night, first, dim))
    ours, bare = median(join_timings), median(product_timings)
    print_row(
        f"a night of {images_per_night:,}: search, bare product, ratio",
        f"{last.plan.method}, {ours:.1f} s, {bare:.1f} s, {ours / bare:.2f}",
    )
    new_bytes = images_per_night * 2 * dim
    max_megabytes = (MAX_WRITTEN_FACTOR * new_bytes + MAX_WRITTEN_CONSTANT) / 1e6
    print_row(
        "its bytes written",
        f"{median(segment_bytes) / new_bytes:.3f} x the new vectors in segments,"
        f" {median(all_bytes) / 1e6:.1f} MB with catalog and log"
        f" (the bound is {max_megabytes:.1f} MB)",
    )


def bench_commands(scenario: Scenario) -> None:
    """Time commands as whole processes, and the check of the store."""
    folder = scenario.folder
    seconds = time_command(folder, "query", str(scenario.photo), repeat=5)
    print_row("`neardup query` of a known photo, whole process", f"{seconds:.2f} s")
    for command in ("groups", "status"):
        seconds = time_command(folder, command, repeat=3)
        print_row(f"`neardup {command}`, whole process", f"{seconds:.2f} s")
    for read_all in (False, True):
        started = time.perf_counter()
        assert check(folder, read_all=read_all) == []
        option = " --data" if read_all else ""
        print_row(f"check{option}", f"{time.perf_counter() - started:.1f} s")


def bench(row_count: int, images_per_night: int, scratch: Path) -> None:
    """Print a table for one size."""
    embedder = load_embedder()
    threshold = THRESHOLD_BY_KIND[VECTOR_KIND]
    space = replace(embedder.space, floor=threshold, threshold=threshold)
    vectors, _ = make_vectors(VECTOR_KIND, row_count + NIGHT_COUNT * images_per_night, space.dim)
    photo = scratch / "photo.jpg"
    mandelbrot = PillowImage.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 100)
    mandelbrot.convert("RGB").save(photo)
    scenario = Scenario(scratch / "store", photo, space, vectors, row_count, images_per_night)
    print(f"\n{row_count:,} images, {space.dim} dimensions, {VECTOR_KIND}\n")
    print("| what | measured |\n| --- | ---: |")
    bench_fill(scenario, embedder.name, embedder.preprocess)
    bench_search(scenario)
    bench_nights(scenario)
    bench_commands(scenario)


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--night", type=int, default=10_000, help="images of a night")
    parser.add_argument("--small", action="store_true", help="2,000 vectors, nights of 200")
    options = parser.parse_args()
    sizes, images_per_night = options.rows, options.night
    if options.small:
        sizes, images_per_night = [2000], 200
    for row_count in sizes:
        with tempfile.TemporaryDirectory() as name:
            bench(row_count, images_per_night, Path(name))


if __name__ == "__main__":
    main()
