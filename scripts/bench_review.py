"""Measure what a person waits for in a review of many groups, and the memory that it takes.

    python -m scripts.bench_review --groups 100000
    python -m scripts.bench_review --small

A made store has groups of two or three files with equal pixels, 2.5 on average, in 200 folders. Its
listing is built, in a child process as always. Then pages, counts, searches and neighbors are read
under several filters, and choices are made and taken back. Times are of the processor, medians of
5; that of the child process alone is by the clock. --small does it with 300 groups.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, not a module

from indexes import Space, Store
from indexes.records import FileStat, Image, NewFile
from indexes.store import Batch
from pipeline.review.choices import Choice, Reviewer
from pipeline.review.filters import NO_FILTER, GroupFilter
from pipeline.review.listing import Listing
from pipeline.verify.relation import Relation
from scripts.bench_join import measure_private_bytes

SPACE = Space("test", "test", "0" * 64, "none", 16, -1.0, 0.9)
FOLDER_COUNT = 200
BATCH_GROUPS = 20_000
REPEATS = 5
FIRST_TAKEN = 1_400_000_000  # when the photo of the first group was taken, seconds since 1970
FILTERS = {
    "undecided": GroupFilter(is_undecided=True),
    "in one of 200 folders": GroupFilter(folder="/photos/folder 7"),
    "in any folder": GroupFilter(folder="/photos"),
    "a name that few have": GroupFilter(name="img_0012345"),
    "a name that all have": GroupFilter(name="IMG"),
    "a name that none has": GroupFilter(name="holiday"),
    "a relation, a day and a size": GroupFilter(
        frozenset({Relation.IDENTICAL_PIXELS}), None, 1_500_000, date(2014, 6, 1)
    ),
}


def make_store(folder: Path, group_count: int) -> None:
    """Make a store of files whose pixels are equal in each group."""
    with Store(folder, write=True) as store:
        store.bind(SPACE, "test")
        for start in range(0, group_count, BATCH_GROUPS):
            batch = Batch()
            for number in range(start, min(start + BATCH_GROUPS, group_count)):
                add_group(batch, number)
            store.add(batch)


def add_group(batch: Batch, number: int) -> None:
    """Add two or three files with equal pixels to a batch."""
    pixel_hash = number.to_bytes(32, "big")
    for copy in range(2 + number % 2):
        hash_ = (number + copy * (1 << 40)).to_bytes(32, "little")
        size = 1_000_000 + 7 * number % 999_983 + copy
        taken_at = FIRST_TAKEN + 600 * number
        image = Image(hash_, pixel_hash, 4000, 3000, "JPEG", size, True, taken_at=taken_at)
        path = f"/photos/folder {number % FOLDER_COUNT}/IMG_{number:07}{' copy' * copy}.jpg"
        batch.images.append((image, None))
        batch.files.append(NewFile(path, FileStat(size, 1, 1, 10 * number + copy, 1), hash_))


def measure_ms(action: Callable[[], object]) -> float:
    """Return the median time of an action in milliseconds."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return 1000 * median(times)


def measure_pages(listing: Listing, group_filter: GroupFilter) -> str:
    """Measure a first page, the next one, and a count; return them as the cells of a table."""
    first = listing.page(group_filter)
    cursor = first.next_cursor
    cells = [
        measure_ms(lambda: listing.page(group_filter)),
        measure_ms(lambda: listing.page(group_filter, cursor)) if cursor else 0.0,
        measure_ms(lambda: listing.count(group_filter)),
    ]
    return f"{listing.count(group_filter).groups:,} | " + " | ".join(f"{ms:.1f}" for ms in cells)


def measure_reading(folder: Path) -> None:
    """Print the times of pages under several filters, and of what else a page shows."""
    start = time.process_time()
    with Listing(folder) as listing:
        listing.page()
        print(f"opened, with a first page: {1000 * (time.process_time() - start):.0f} ms")
        print("\n| filter | groups | first page, ms | next page, ms | count, ms |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for name, group_filter in {"none": NO_FILTER, **FILTERS}.items():
            print(f"| {name} | {measure_pages(listing, group_filter)} |")
        group = listing.page(limit=20).groups[-1]
        print(f"\na group: {measure_ms(lambda: listing.get(group.id)):.1f} ms")
        print(f"its neighbors: {measure_ms(lambda: listing.find_neighbors(group.id)):.1f} ms")
        print(f"progress: {measure_ms(listing.count_progress):.1f} ms")
        print(f"stale or not: {measure_ms(listing.is_stale):.1f} ms")


def measure_choices(folder: Path) -> None:
    """Print the times of choices for one group and for all, and of their undo."""
    with Listing(folder) as listing, Reviewer(folder, listing, "bench") as reviewer:
        groups = iter(listing.page(limit=100).groups)

        def choose(choice: Choice) -> None:
            group = next(groups)
            paths = [group.files[1].path] if choice in (Choice.MAKE_KEEPER, Choice.REJECT) else []
            reviewer.choose(group.id, choice, paths)

        for choice in (Choice.ACCEPT, Choice.MAKE_KEEPER, Choice.KEEP_ALL, Choice.REJECT):
            print(f"{choice}: {measure_ms(lambda choice=choice: choose(choice)):.1f} ms")  # type: ignore[misc]
        print(f"undo: {measure_ms(reviewer.undo):.1f} ms")
        count = listing.count().groups
        start = time.process_time()
        reviewer.choose_all(Choice.ACCEPT, NO_FILTER, count)
        print(f"accept all {count:,}: {time.process_time() - start:.2f} s")
        progress = measure_ms(listing.count_progress)
        undecided = measure_pages(listing, GroupFilter(is_undecided=True))
        print(f"progress afterwards: {progress:.1f} ms; undecided ones: {undecided}")
        start = time.process_time()
        reviewer.undo()
        print(f"undo of that: {time.process_time() - start:.2f} s")


def main() -> None:
    """Run the benchmark and print what it measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    count = 300 if arguments.small else arguments.groups
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        make_store(folder, count)
        with Listing(folder) as listing:
            start = time.perf_counter()
            listing.refresh()
            seconds = time.perf_counter() - start
            files = sum(path.stat().st_size for path in (folder / "caches").iterdir())
        print(f"{count:,} groups listed in {seconds:.1f} s, {files / 1e6:.0f} MB")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"memory of the child process: {peak / 1e3:.0f} MB at most")
        measure_reading(folder)
        measure_choices(folder)
        print(f"memory of this process: {measure_private_bytes() / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
