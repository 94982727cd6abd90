"""Measure the speed of an ingest against its parts alone, its memory, and the cost of a second one.

    python -m scripts.bench_ingest speed FOLDER
    python -m scripts.bench_ingest speed --made 300
    python -m scripts.bench_ingest grow FOLDER --files 2000 20000

`speed`: the images of FOLDER, or --made JPEGs of 12 megapixels, are decoded alone on all cores,
embedded alone on all cores, and ingested by `neardup ingest` as a process of its own into a new
store, in turn, --repeat times. The limit is the rate of the two parts one after the other.

`grow`: --files distinct crops of FOLDER's images are ingested, with the peak memory of the process
and its children (their proportional set size, sampled once a second); then ingested again with
nothing changed, the median of --repeat runs, and again with one file in a hundred replaced.

Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexes import Root
from pipeline.cli.console import EXIT_SKIPPED
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.embed.embedder import Embedder, embed, load_embedder
from pipeline.scan import SourceFile, scan

BATCH_SIZE = 32

# How often the memory of an ingest is sampled; walking its processes takes time of its own.
MEMORY_POLL_SECONDS = 1.0

# `grow` replaces one file in this many.
REPLACED_FILE_STEP = 100


@dataclass(frozen=True)
class IngestRun:
    """A run that ingests: its time, its peak memory (0 if not sampled), its last line."""

    seconds: float
    max_bytes: int
    last_line: str


def list_files(folder: Path) -> list[SourceFile]:
    """List the files below a folder, in the order of a scan."""
    return [entry for entry in scan([Root(str(folder))]) if isinstance(entry, SourceFile)]


def measure_memory_bytes(pid: int) -> int:
    """Measure the memory of a process and all its descendants in bytes, shared pages once."""
    total = 0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
        total += int(pss[1]) * 1024 if pss else 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = (task / "children").read_text().split()
            total += sum(measure_memory_bytes(int(child)) for child in children)
    except OSError:  # the process has ended
        pass
    return total


def time_ingest(
    folder: Path, store: Path, poll_seconds: float = 0, command_name: str = "ingest"
) -> IngestRun:
    """Time `neardup ingest`, or `dedupe`, as a whole process.

    Samples its memory every `poll_seconds`, which takes time of its own, or not at all at 0.
    """
    started, max_bytes, has_ended = time.perf_counter(), 0, threading.Event()
    command = [sys.executable, "-m", "pipeline.cli", command_name, str(folder)]
    with subprocess.Popen(
        [*command, "--store", str(store)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def watch_memory() -> None:
            nonlocal max_bytes
            while poll_seconds and not has_ended.wait(poll_seconds):
                max_bytes = max(max_bytes, measure_memory_bytes(process.pid))

        watcher = threading.Thread(target=watch_memory)
        watcher.start()
        _, messages = process.communicate()
        seconds = time.perf_counter() - started
        has_ended.set()
        watcher.join()
    # Files that cannot be read are part of some libraries.
    assert process.returncode in (0, EXIT_SKIPPED), messages
    return IngestRun(seconds, max_bytes, messages.splitlines()[-1])


def time_decoding(
    files: list[SourceFile], embedder: Embedder
) -> tuple[list[NDArray[np.uint8]], float]:
    """Time decoding alone, on all cores; return the pixels and the seconds."""
    with DecoderPool() as decoders:
        warmup = decoders.stream(files[: 2 * BATCH_SIZE], embedder.preprocess, prefetch=BATCH_SIZE)
        for _ in warmup:
            pass  # the processes have started after this
        started = time.perf_counter()
        results = decoders.stream(files, embedder.preprocess, prefetch=BATCH_SIZE)
        pixels = [result.pixels for result in results if isinstance(result, Decoded)]
        return pixels, time.perf_counter() - started


def time_embedding(pixels: list[NDArray[np.uint8]], embedder: Embedder) -> float:
    """Time embedding alone, on all cores, in seconds."""
    embed(embedder, pixels[:BATCH_SIZE])
    started = time.perf_counter()
    for start in range(0, len(pixels), BATCH_SIZE):
        embed(embedder, pixels[start : start + BATCH_SIZE])
    return time.perf_counter() - started


def bench_speed(folder: Path, repeat: int) -> None:
    """Print a table of the rates of the parts alone and of the whole ingest."""
    files, embedder = list_files(folder), load_embedder()
    rates: dict[str, list[float]] = {"decode": [], "embed": [], "ingest": []}
    for turn in range(repeat + 1):
        pixels, decode_seconds = time_decoding(files, embedder)
        embed_seconds = time_embedding(pixels, embedder)
        with tempfile.TemporaryDirectory() as scratch:
            run = time_ingest(folder, Path(scratch) / "store")
        if turn == 0:  # it warms up the file cache
            continue
        rates["decode"].append(len(pixels) / decode_seconds)
        rates["embed"].append(len(pixels) / embed_seconds)
        rates["ingest"].append(len(pixels) / run.seconds)
    decode, embedding, ingest = (median(rates[part]) for part in ("decode", "embed", "ingest"))
    limit = 1 / (1 / decode + 1 / embedding)
    print(f"{len(pixels)} images, {os.cpu_count()} cores, medians of {repeat}; {run.last_line}\n")
    print("| decode alone | embed alone | limit | ingest, whole process | of the limit |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {decode:.0f} images/s | {embedding:.0f} | {limit:.1f} | {ingest:.1f}"
        f" | {ingest / limit:.2f} |",
        flush=True,
    )


def make_large_images(folder: Path, count: int) -> None:
    """Fill a new folder with JPEGs of 12 megapixels and 2 to 4 MB: blends of fractals and noise."""
    folder.mkdir()
    for number in range(count):
        rng = random.Random(number)
        size = (rng.randrange(500, 900), rng.randrange(400, 700))
        fractal = Image.effect_mandelbrot(size, (-2 + rng.random(), -1.2, 1, 1.2), 60)
        fractal = fractal.resize((4000, 3000), Image.Resampling.BICUBIC)
        grain = Image.effect_noise((1000, 750), 60).resize((4000, 3000))
        bands = [
            fractal,
            Image.blend(fractal, grain, 0.2 + 0.4 * rng.random()),
            Image.blend(grain, fractal, rng.random()),
        ]
        Image.merge("RGB", bands).save(folder / f"{number:04}.jpg", quality=90)


def make_crops(folder: Path, out_folder: Path, first: int, count: int) -> None:
    """Write distinct crops of the images of a folder as JPEGs, numbered from `first`."""
    out_folder.mkdir(exist_ok=True)
    paths = [source.path for source in list_files(folder)]
    for number in range(first, first + count):
        rng = random.Random(number)
        with Image.open(paths[number % len(paths)]) as image:
            width, height = (max(1, int(side * rng.uniform(0.6, 0.95))) for side in image.size)
            left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
            crop = image.convert("RGB").crop((left, top, left + width, top + height))
            crop.save(out_folder / f"{number:06}.jpg", quality=85)


def bench_growth(folder: Path, file_counts: list[int], repeat: int) -> None:
    """Print a table of memory and of second ingests for libraries of several sizes."""
    print(f"{os.cpu_count()} cores\n")
    print("| files | first ingest | its memory | nothing changed | 1 % replaced |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for count in file_counts:
        with tempfile.TemporaryDirectory() as scratch:
            library, store = Path(scratch) / "library", Path(scratch) / "store"
            make_crops(folder, library, 0, count)
            first = time_ingest(library, store, MEMORY_POLL_SECONDS)
            unchanged = median(time_ingest(library, store).seconds for _ in range(repeat))
            for path in sorted(library.iterdir())[::REPLACED_FILE_STEP]:
                path.unlink()
            make_crops(folder, library, count, count // REPLACED_FILE_STEP)
            changed = time_ingest(library, store)
        print(
            f"| {count:,} | {first.seconds:.0f} s, {count / first.seconds:.0f} images/s"
            f" | {first.max_bytes / 1e6:.0f} MB | {unchanged:.2f} s"
            f" | {changed.seconds:.2f} s ({changed.last_line}) |",
            flush=True,
        )


def main() -> None:
    """Run the requested benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=["speed", "grow"])
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    parser.add_argument("--made", type=int, help="make this many JPEGs of 12 megapixels instead")
    parser.add_argument(
        "--files",
        type=int,
        nargs="+",
        default=[2000, 20_000],
        help="sizes of the libraries of `grow` (default: 2000 20000)",
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs of each median (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.benchmark == "speed" and options.made:
        with tempfile.TemporaryDirectory() as scratch:
            make_large_images(Path(scratch) / "made", options.made)
            bench_speed(Path(scratch) / "made", options.repeat)
    elif options.folder is None:
        parser.error("name a FOLDER, or `speed` with --made")
    elif options.benchmark == "speed":
        bench_speed(options.folder, options.repeat)
    else:
        bench_growth(options.folder, options.files, options.repeat)


if __name__ == "__main__":
    main()
