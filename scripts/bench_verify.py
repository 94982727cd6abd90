"""Measure the cost of verification: its share of an ingest, its memory, the growth of candidates.

    python -m scripts.bench_verify PHOTOS LOOKALIKES --files 2000 8000 15000
    python -m scripts.bench_verify PHOTOS LOOKALIKES --files 2000 --against REVISION

--files images of all folders together, drawn by the seed, are ingested into a new store, in this
process, and each stage is timed: reading and embedding, the join, crops (embedding and comparing
them, to find images within images), and verification. Memory is that of this process and all its
children, sampled twice a second.

Then --again of the verified pairs are verified again, with their features kept in the store, and
without: half of them have keypoints in common, half are strangers, as far as there are enough of
each.

With --against, pairs are also timed with another git revision, in turn: strangers of each library,
at most --again, and --copied of its images with their copies in the 40 ways of
pipeline/calibrate/synthetic_copies.py. Times are CPU time of one core. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from indexes import Root, Store
from pipeline import ingest_roots, load_embedder
from pipeline.decode.pool import DecoderPool
from pipeline.ingest.progress import Progress, Stage
from pipeline.ingest.verify_pairs import verify_candidates
from pipeline.verify.relation import UNREPORTED_RELATIONS, Relation
from scripts.bench_embedder import format_table
from scripts.bench_ingest import list_files, measure_memory_bytes
from scripts.compare_verify_speed import compare_revisions, load_pairs, make_copied_pairs

STAGES = ("read and embed", "join", "crops", "verify")

# How often the memory of an ingest is sampled.
MEMORY_POLL_SECONDS = 0.5

# The relations that are counted, in the order of their columns.
COUNTED_RELATIONS = (
    Relation.SAME_PICTURE,
    Relation.DERIVED,
    Relation.ANOTHER_SHOT,
    Relation.SAME_TEMPLATE,
    Relation.OVERLAPS,
    Relation.SIMILAR,
    Relation.UNRELATED,
    Relation.NOT_VERIFIABLE,
)


@dataclass(frozen=True)
class IngestCost:
    """The cost of an ingest: seconds of each stage, peak memory in bytes, its last progress."""

    seconds: dict[str, float]
    max_bytes: int
    last: Progress


@dataclass(frozen=True)
class VerifyRates:
    """Pairs verified again, the strangers among them, and pairs a second with features and not."""

    pair_count: int
    stranger_count: int
    with_features: float
    without_features: float


# The column of each stage; listing and reading are one.
STAGE_NAMES = {Stage.JOINING: "join", Stage.CROPPING: "crops", Stage.VERIFYING: "verify"}


def get_stage(progress: Progress) -> str:
    """Name the stage that ended with this report, one of STAGES."""
    return STAGE_NAMES.get(progress.stage, "read and embed")


def time_stages(folder: Path, store: Store) -> IngestCost:
    """Ingest a folder in this process, timing each stage and sampling memory."""
    seconds: dict[str, float] = defaultdict(float)
    max_bytes, has_ended = 0, threading.Event()

    def watch_memory() -> None:
        nonlocal max_bytes
        while not has_ended.wait(MEMORY_POLL_SECONDS):
            max_bytes = max(max_bytes, measure_memory_bytes(os.getpid()))

    watcher = threading.Thread(target=watch_memory)
    watcher.start()
    started = time.perf_counter()
    for progress in ingest_roots([Root(str(folder))], store, load_embedder()):
        seconds[get_stage(progress)] += time.perf_counter() - started
        started = time.perf_counter()
    has_ended.set()
    watcher.join()
    return IngestCost(seconds, max_bytes, progress)


def sample_verified_pairs(
    store: Store, count: int, rng: random.Random
) -> tuple[list[tuple[int, int]], int]:
    """Draw verified pairs, sorted: `count` // 2 strangers and as many others, or all there are.

    Returns the pairs and the number of strangers among them.
    """
    pairs: dict[bool, list[tuple[int, int]]] = defaultdict(list)
    for verdict in store.catalog.verdicts.stream():
        pairs[verdict.relation in UNREPORTED_RELATIONS].append((verdict.first, verdict.second))
    drawn: list[tuple[int, int]] = []
    for candidates in pairs.values():
        drawn += rng.sample(sorted(candidates), min(count // 2, len(candidates)))
    return sorted(drawn), min(count // 2, len(pairs[True]))


def compare_library(
    store: Store, revision: str, paths: list[Path], stranger_count: int, seed: int
) -> str:
    """Time this code against a git revision, on strangers of a library and on copies of images."""
    strangers = sorted(
        (verdict.first, verdict.second)
        for verdict in store.catalog.verdicts.stream()
        if verdict.relation in UNREPORTED_RELATIONS
    )
    drawn = random.Random(seed).sample(strangers, min(stranger_count, len(strangers)))
    return compare_revisions(
        revision,
        {
            "strangers": load_pairs(store, sorted(drawn)),
            "copies": make_copied_pairs(paths, seed),
        },
    )


def measure_rate(store: Store, pairs: list[tuple[int, int]]) -> float:
    """Verify pairs again and measure pairs a second."""
    started = time.perf_counter()
    with DecoderPool() as decoders:
        for _ in verify_candidates(store, pairs, decoders):
            pass
    return len(pairs) / (time.perf_counter() - started)


def drop_features(store: Store) -> None:
    """Empty the stored features of all thumbnails."""
    with closing(sqlite3.connect(store.folder / "caches" / "thumbnails.db")) as database, database:
        database.execute("UPDATE thumbnails SET features = x''")


def measure_rates(store: Store, count: int, seed: int) -> VerifyRates:
    """Verify a sample of the verified pairs again, with features and without."""
    pairs, stranger_count = sample_verified_pairs(store, count, random.Random(seed))
    with_features = measure_rate(store, pairs)
    drop_features(store)
    return VerifyRates(len(pairs), stranger_count, with_features, measure_rate(store, pairs))


def count_relations(cost: IngestCost) -> Counter[str]:
    """Count the verdicts of an ingest by relation."""
    report = cost.last.coverage.verification
    return report.relations if report else Counter()


def format_cost_row(file_count: int, cost: IngestCost) -> list[object]:
    """Format the row of the first table."""
    pair_count, total = count_relations(cost).total(), sum(cost.seconds.values())
    return [
        file_count,
        *(f"{cost.seconds[stage]:.0f} s" for stage in STAGES),
        pair_count,
        pair_count / file_count,
        cost.seconds["verify"] / total,
        cost.seconds["crops"] / total,
        f"{cost.max_bytes / 1e6:.0f} MB",
    ]


def main() -> None:
    """Ingest, measure, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument(
        "--files",
        type=int,
        nargs="+",
        default=[2000, 8000, 15_000],
        help="sizes of the libraries (default: 2000 8000 15000)",
    )
    parser.add_argument(
        "--again", type=int, default=2000, help="pairs to verify again (default: %(default)s)"
    )
    parser.add_argument("--against", metavar="REVISION", help="time this git revision, too")
    parser.add_argument(
        "--copied", type=int, default=20, help="images copied for --against (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    paths = [Path(source.path) for folder in options.folders for source in list_files(folder)]
    random.Random(options.seed).shuffle(paths)

    costs: list[list[object]] = []
    relations: list[list[object]] = []
    rates: list[list[object]] = []
    comparisons: list[str] = []
    for max_files in options.files:
        file_count = min(max_files, len(paths))
        with tempfile.TemporaryDirectory() as scratch:
            library = Path(scratch) / "library"
            library.mkdir()
            for number, path in enumerate(paths[:file_count]):
                (library / f"{number:06}{path.suffix}").write_bytes(path.read_bytes())
            with Store(Path(scratch) / "store", write=True) as store:
                cost = time_stages(library, store)
                if options.against:
                    copied = paths[: min(options.copied, file_count)]
                    comparisons.append(
                        compare_library(store, options.against, copied, options.again, options.seed)
                    )
                rate = measure_rates(store, options.again, options.seed)
        counts = count_relations(cost)
        costs.append(format_cost_row(file_count, cost))
        relations.append([file_count, *(counts[relation] for relation in COUNTED_RELATIONS)])
        counted = [file_count, rate.pair_count, rate.stranger_count]
        rates.append([*counted, round(rate.with_features), round(rate.without_features)])

    print(f"{os.cpu_count()} cores, seed {options.seed}\n")
    shares = ["pairs", "pairs per file", "share of verify", "share of crops", "memory"]
    print(format_table(["files", *STAGES, *shares], costs))
    print(format_table(["files", *COUNTED_RELATIONS], relations))
    header = ["files", "pairs verified again", "unrelated among them"]
    print(format_table([*header, "pairs/s, stored features", "pairs/s, without them"], rates))
    for max_files, comparison in zip(options.files, comparisons, strict=False):
        print(f"{max_files} files, against {options.against}\n\n{comparison}")


if __name__ == "__main__":
    main()
