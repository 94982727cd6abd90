"""Time a whole `neardup ingest` against fastdup's feature extraction on the same folder.

    python -m venv /tmp/fastdup && /tmp/fastdup/bin/pip install fastdup
    python -m scripts.bench_fastdup FOLDER --python /tmp/fastdup/bin/python

Both run as whole processes on all cores, in turn, medians of --repeat runs after one that warms up
the file cache. fastdup has an environment of its own; --python names its interpreter. It extracts
features and nothing else (run_mode=1); neardup also hashes every file, stores vectors durably and
finds all pairs. Prints Markdown, with the number of files that fastdup has features of. Where
fastdup is not installed, only neardup is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from scripts.bench_ingest import list_files, time_ingest

# fastdup's name for "features only".
FEATURES_ONLY = {"run_mode": 1}

FASTDUP_SCRIPT = """
import json, sys, fastdup
folder, work_folder, options = sys.argv[1:]
options = {"num_threads": -1, "verbose": False, "license": "", **json.loads(options)}
sys.exit(fastdup.run(folder, work_dir=work_folder, **options))
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


def run_fastdup(
    python: Path, folder: Path, work_folder: Path, options: dict[str, int] | None = None
) -> None:
    """Run fastdup on a folder; its files appear in `work_folder`. Raises CalledProcessError."""
    subprocess.run(
        [python, "-c", FASTDUP_SCRIPT, folder, work_folder, json.dumps(options or {})],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def read_feature_files(work_folder: Path) -> list[Path]:
    """Read the files that fastdup has features of, in its order; empty if it wrote none."""
    names = work_folder / "atrain_features.dat.csv"
    lines = names.read_text().splitlines()[1:] if names.exists() else []
    return [Path(line.split(",", 1)[1]) for line in lines]


def time_fastdup(python: Path, folder: Path, work_folder: Path) -> tuple[float, int]:
    """Time the extraction of features; return the seconds and the number of files that have any."""
    started = time.perf_counter()
    run_fastdup(python, folder, work_folder, FEATURES_ONLY)
    return time.perf_counter() - started, len(read_feature_files(work_folder))


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
    is_installed, feature_count = has_fastdup(options.python), 0
    our_rates, fastdup_rates = [], []
    for turn in range(options.repeat + 1):
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            our_seconds = time_ingest(options.folder, scratch / "store").seconds
            fastdup_seconds = float("nan")
            if is_installed:
                fastdup_seconds, feature_count = time_fastdup(
                    options.python, options.folder, scratch / "fastdup"
                )
        if turn:
            our_rates.append(file_count / our_seconds)
            fastdup_rates.append(file_count / fastdup_seconds)
    if not is_installed:
        print(f"{options.python} has no fastdup; only neardup is timed\n")
    print(
        f"{file_count} files, fastdup has features of {feature_count};"
        f" medians of {options.repeat}\n"
    )
    ours, theirs = median(our_rates), median(fastdup_rates)
    print("| neardup ingest | fastdup, features | ratio |\n| ---: | ---: | ---: |")
    print(f"| {ours:.1f} images/s | {theirs:.1f} images/s | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
