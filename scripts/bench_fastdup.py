"""How many pictures a second `neardup ingest` takes, and fastdup's extraction of features, of the same folder.

    python -m venv /tmp/fastdup && /tmp/fastdup/bin/pip install fastdup
    python scripts/bench_fastdup.py FOLDER --python /tmp/fastdup/bin/python

Both as whole processes on all cores, in turn, medians of --repeat runs after one that warms the file cache up. fastdup has an environment
of its own, whose Python is named; it is asked for features alone (run_mode=1). neardup also hashes every file, keeps vectors in a store,
durably, and looks for all pairs. Of how many pictures fastdup has features is printed.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from scripts.bench_ingest import list_files, time_ingest

FASTDUP_SCRIPT = "import sys, fastdup\nsys.exit(fastdup.run(sys.argv[1], work_dir=sys.argv[2], run_mode=1, num_threads=-1, verbose=False, license=''))"


def time_fastdup(python: Path, folder: Path, work_folder: Path) -> tuple[float, int]:
    """Seconds that fastdup takes for the features of a folder, and of how many pictures it has them."""
    began = time.perf_counter()
    subprocess.run(
        [python, "-c", FASTDUP_SCRIPT, folder, work_folder],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    taken = time.perf_counter() - began
    names = work_folder / "atrain_features.dat.csv"
    return taken, max(0, len(names.read_text().splitlines()) - 1) if names.exists() else 0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    count = len(list_files(given.folder))
    ours, theirs = [], []
    for turn in range(given.repeat + 1):
        with tempfile.TemporaryDirectory() as name:
            one = time_ingest(given.folder, Path(name) / "store")[0]
            other, features = time_fastdup(given.python, given.folder, Path(name) / "fastdup")
        if turn:
            ours.append(count / one)
            theirs.append(count / other)
    print(
        f"{count} files, of which fastdup has features of {features}; medians of {given.repeat}\n"
    )
    print("| neardup ingest | fastdup, features | ratio |\n| ---: | ---: | ---: |")
    print(
        f"| {median(ours):.1f} images/s | {median(theirs):.1f} images/s | {median(ours) / median(theirs):.2f} |"
    )


if __name__ == "__main__":
    main()
