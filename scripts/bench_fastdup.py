"""Time a whole `neardup dedupe` against the whole job of fastdup on the same folder.

    python -m venv /tmp/fastdup && /tmp/fastdup/bin/pip install fastdup
    python -m scripts.bench_fastdup FOLDER --python /tmp/fastdup/bin/python

Both run as whole processes on all cores, in turn, medians of --repeat runs after one that warms up
the file cache, in which the memory of neardup is sampled once a second. fastdup has an environment
of its own; --python names its interpreter. It computes features, neighbors and components; neardup
also hashes every file, keeps a store, verifies every candidate on its pixels and finds images
within images. Prints Markdown. Where fastdup is not installed, only neardup is timed.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from indexes import Store
from scripts.bench_ingest import MEMORY_POLL_SECONDS, list_files, time_ingest

FASTDUP_SCRIPT = """
import sys, fastdup
folder, work_folder = sys.argv[1:]
sys.exit(fastdup.run(folder, work_dir=work_folder, num_threads=-1, verbose=False, license=""))
"""

FIND_FASTDUP_SCRIPT = """
import importlib.util, sys
sys.exit(importlib.util.find_spec("fastdup") is None)
"""


def has_fastdup(python: Path) -> bool:
    """Test if an interpreter exists and can import fastdup."""
    try:
        found = subprocess.run([python, "-c", FIND_FASTDUP_SCRIPT], stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return found.returncode == 0


def run_fastdup(python: Path, folder: Path, work_folder: Path) -> None:
    """Run fastdup on a folder; its files appear in `work_folder`. Raises CalledProcessError."""
    subprocess.run(
        [python, "-c", FASTDUP_SCRIPT, folder, work_folder],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def read_feature_files(work_folder: Path) -> list[Path]:
    """Read the files that fastdup has features of, in its order; empty if it wrote none."""
    names = work_folder / "atrain_features.dat.csv"
    lines = names.read_text().splitlines()[1:] if names.exists() else []
    return [Path(line.split(",", 1)[1]) for line in lines]


def time_fastdup(python: Path, folder: Path, work_folder: Path) -> float:
    """Time the whole job of fastdup, in seconds."""
    started = time.perf_counter()
    run_fastdup(python, folder, work_folder)
    return time.perf_counter() - started


def count_verified_pairs(store_folder: Path) -> int:
    """Count the verdicts of a store."""
    with Store(store_folder) as store:
        return sum(store.catalog.verdicts.count_by_relation().values())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--python", type=Path, required=True, help="interpreter with fastdup")
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs of each median (default: %(default)s)"
    )
    options = parser.parse_args()
    file_count = len(list_files(options.folder))
    is_installed = has_fastdup(options.python)
    our_rates, fastdup_rates, max_bytes, pair_count = list[float](), list[float](), 0, 0
    for turn in range(options.repeat + 1):
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            poll_seconds = 0 if turn else MEMORY_POLL_SECONDS
            run = time_ingest(options.folder, scratch / "store", poll_seconds, "dedupe")
            fastdup_seconds = float("nan")
            if is_installed:
                fastdup_seconds = time_fastdup(options.python, options.folder, scratch / "fastdup")
            pair_count = count_verified_pairs(scratch / "store")
        if turn:
            our_rates.append(file_count / run.seconds)
            fastdup_rates.append(file_count / fastdup_seconds)
        else:
            max_bytes = run.max_bytes
    if not is_installed:
        print(f"{options.python} has no fastdup; only neardup is timed\n")
    print(f"{file_count} files, medians of {options.repeat}\n")
    ours, theirs = median(our_rates), median(fastdup_rates)
    print("| neardup dedupe | fastdup | ratio | pairs verified per file | MB of neardup |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {ours:.1f} images/s | {theirs:.1f} images/s | {ours / theirs:.2f}"
        f" | {pair_count / file_count:.2f} | {max_bytes / 1e6:.0f} |"
    )


if __name__ == "__main__":
    main()
