"""How close an ingest comes to what decoding and embedding alone allow, what memory it takes, and what a second one costs.

    python scripts/bench_ingest.py speed FOLDER
    python scripts/bench_ingest.py speed --made 300
    python scripts/bench_ingest.py grow FOLDER --files 2000 20000

speed: the pictures of FOLDER, or so many made JPEGs of 12 megapixels, are decoded alone by all cores, embedded alone by all cores, and
ingested by `neardup ingest` as a process of its own into a new store, in turn, --repeat times; the limit is what the two parts take one
after the other. grow: so many distinct crops of FOLDER's pictures are ingested, with the memory of the process and of those that it starts
(their proportional set size, looked at once a second); again with nothing changed; and again with one in a hundred replaced.
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
from pathlib import Path
from statistics import median

from PIL import Image

from indexes import Root
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.embed.embedder import embed, load_embedder
from pipeline.scan import SourceFile, scan

BATCH_SIZE = 32


def list_files(folder: Path) -> list[SourceFile]:
    """The files of a folder."""
    return [found for found in scan([Root(str(folder))]) if isinstance(found, SourceFile)]


def measure_memory_bytes(pid: int) -> int:
    """Bytes of memory of a process and of all that it started, shared pages once."""
    total = 0
    try:
        found = re.search(
            r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
        )
        total += int(found[1]) * 1024 if found else 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(
                measure_memory_bytes(int(child))
                for child in (task / "children").read_text().split()
            )
    except OSError:  # it has ended
        pass
    return total


def time_ingest(folder: Path, store: Path, poll_seconds: float = 0) -> tuple[float, int, str]:
    """Seconds of `neardup ingest` as a whole process, its greatest memory in bytes, and its last line.

    Looking takes time of its own: memory is looked at every `looks` seconds, or not at all.
    """
    began, most, over = time.perf_counter(), 0, threading.Event()
    command = [sys.executable, "-m", "pipeline.cli", "ingest", str(folder), "--store", str(store)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:

        def watch() -> None:
            nonlocal most
            while poll_seconds and not over.wait(poll_seconds):
                most = max(most, measure_memory_bytes(running.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        _, said = running.communicate()
        taken = time.perf_counter() - began
        over.set()
        watching.join()
    assert running.returncode == 0, said
    return taken, most, said.splitlines()[-1]


def bench_speed(folder: Path, repeat: int) -> None:
    """A table of the parts and the whole."""
    files, embedder = list_files(folder), load_embedder()
    views = []
    alone: dict[str, list[float]] = {"decode": [], "embed": [], "ingest": []}
    for turn in range(repeat + 1):  # the first warms the file cache up, and is left out
        with DecoderPool() as decoders:
            for _ in decoders.stream(
                files[: 2 * BATCH_SIZE], embedder.preprocess, prefetch=BATCH_SIZE
            ):
                pass  # the processes have started
            began = time.perf_counter()
            views = [
                result.pixels
                for result in decoders.stream(files, embedder.preprocess, prefetch=BATCH_SIZE)
                if isinstance(result, Decoded)
            ]
            decode = time.perf_counter() - began
        embed(embedder, views[:BATCH_SIZE])
        began = time.perf_counter()
        for start in range(0, len(views), BATCH_SIZE):
            embed(embedder, views[start : start + BATCH_SIZE])
        taken = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as store:
            whole, _, said = time_ingest(folder, Path(store) / "store")
        if turn:
            for part, seconds in (("decode", decode), ("embed", taken), ("ingest", whole)):
                alone[part].append(len(views) / seconds)
    rates = {part: median(each) for part, each in alone.items()}
    limit = 1 / (1 / rates["decode"] + 1 / rates["embed"])
    print(f"{len(views)} pictures, {os.cpu_count()} cores, medians of {repeat}; {said}\n")
    print("| decode alone | embed alone | limit | ingest, whole process | of the limit |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    parts = f"| {rates['decode']:.0f} images/s | {rates['embed']:.0f} | {limit:.1f} | {rates['ingest']:.1f} |"
    print(f"{parts} {rates['ingest'] / limit:.2f} |", flush=True)


def make_large_images(folder: Path, count: int) -> None:
    """Fill a folder with JPEGs of 12 megapixels: crops of noise and shapes, of 2 to 4 MB."""
    folder.mkdir()
    for number in range(count):
        rng = random.Random(number)
        size = (rng.randrange(500, 900), rng.randrange(400, 700))
        field = Image.effect_mandelbrot(size, (-2 + rng.random(), -1.2, 1, 1.2), 60).resize(
            (4000, 3000), Image.Resampling.BICUBIC
        )
        grain = Image.effect_noise((1000, 750), 60).resize((4000, 3000))
        bands = [
            field,
            Image.blend(field, grain, 0.2 + 0.4 * rng.random()),
            Image.blend(grain, field, rng.random()),
        ]
        Image.merge("RGB", bands).save(folder / f"{number:04}.jpg", quality=90)


def make_crops(folder: Path, out_folder: Path, first: int, count: int) -> None:
    """Distinct crops of the pictures of a folder, as JPEGs."""
    out_folder.mkdir(exist_ok=True)
    paths = [source.path for source in list_files(folder)]
    for number in range(first, first + count):
        rng = random.Random(number)
        with Image.open(paths[number % len(paths)]) as opened:
            width, height = (max(1, int(side * rng.uniform(0.6, 0.95))) for side in opened.size)
            left, top = rng.randint(0, opened.width - width), rng.randint(0, opened.height - height)
            opened.convert("RGB").crop((left, top, left + width, top + height)).save(
                out_folder / f"{number:06}.jpg", quality=85
            )


def bench_growth(folder: Path, file_counts: list[int]) -> None:
    """A table of memory and of second ingests for libraries of some sizes."""
    print(f"{os.cpu_count()} cores\n")
    print(
        "| files | first ingest | its memory | nothing changed | 1 % replaced |\n| ---: | ---: | ---: | ---: | ---: |"
    )
    for count in file_counts:
        with tempfile.TemporaryDirectory() as name:
            library, store = Path(name) / "library", Path(name) / "store"
            make_crops(folder, library, 0, count)
            first, memory, _ = time_ingest(library, store, 1.0)
            again = median(time_ingest(library, store)[0] for _ in range(3))
            for path in sorted(library.iterdir())[::100]:
                path.unlink()
            make_crops(folder, library, count, count // 100)
            changed, _, said = time_ingest(library, store)
            rate = f"{first:.0f} s, {count / first:.0f} images/s"
            print(
                f"| {count:,} | {rate} | {memory / 1e6:.0f} MB | {again:.2f} s | {changed:.2f} s ({said}) |",
                flush=True,
            )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "grow"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--made", type=int, help="make so many JPEGs of 12 megapixels instead")
    parser.add_argument("--files", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    if given.what == "grow":
        bench_growth(given.folder, given.files)
    elif given.made:
        with tempfile.TemporaryDirectory() as name:
            make_large_images(Path(name) / "made", given.made)
            bench_speed(Path(name) / "made", given.repeat)
    else:
        bench_speed(given.folder, given.repeat)


if __name__ == "__main__":
    main()
