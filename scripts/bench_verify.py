"""What it costs to look at the pixels: the share of an ingest, its memory, and how candidates grow with a library. Prints Markdown.

    python scripts/bench_verify.py FOLDER ... --files 2000 8000 15000

So many pictures of all FOLDERs, drawn by the seed, are ingested into a new store, in this process, each stage timed: reading and embedding,
the join, parts (pictures within pictures: embedding and comparing them), and verification. Memory is that of the process and of all that
it started, looked at twice a second. Then --again pairs that were verified, drawn from those that have keypoints in common and from
strangers, as many of each where there are so many, are verified again with their features kept in the store, and without.
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
from pathlib import Path

from indexes import Root, Store
from pipeline import ingest_roots, load_embedder
from pipeline.decode.pool import DecoderPool
from pipeline.ingest.ingest import Progress
from pipeline.ingest.verify_pairs import verify_candidates
from scripts.bench_embedder import format_table
from scripts.bench_ingest import list_files, measure_memory_bytes

STAGES = ("read and embed", "join", "parts", "verify")


def get_stage(progress: Progress) -> str:
    """The stage that ended with this report."""
    return (
        "verify"
        if progress.is_verifying
        else "parts"
        if progress.is_processing_crops
        else "join"
        if progress.plan
        else "read and embed"
    )


def time_stages(folder: Path, store: Store) -> tuple[dict[str, float], int, Progress]:
    """Seconds of each stage of an ingest, the most memory in bytes, and its last report."""
    spent: dict[str, float] = defaultdict(float)
    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.5):
            most = max(most, measure_memory_bytes(os.getpid()))

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.perf_counter()
    for now in ingest_roots([Root(str(folder))], store, load_embedder()):
        spent[get_stage(now)] += time.perf_counter() - began
        began = time.perf_counter()
    over.set()
    watching.join()
    return spent, most, now


def sample_verified_pairs(store: Store, count: int, rng: random.Random) -> list[tuple[int, int]]:
    """Pairs that were verified: copies and scenes, and as many strangers."""
    kinds: dict[bool, list[tuple[int, int]]] = defaultdict(list)
    for one in store.catalog.verdicts.stream():
        kinds[one.relation in ("unrelated", "not verifiable")].append((one.first, one.second))
    return sorted(
        pair
        for some in kinds.values()
        for pair in rng.sample(sorted(some), min(count // 2, len(some)))
    )


def measure_rate(store: Store, pairs: list[tuple[int, int]]) -> float:
    """Pairs verified a second."""
    began = time.perf_counter()
    with DecoderPool() as decoders:
        for _ in verify_candidates(store, pairs, decoders):
            pass
    return len(pairs) / (time.perf_counter() - began)


def main() -> None:
    """Ingest, measure, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--files", type=int, nargs="+", default=[2000, 8000, 15_000])
    parser.add_argument("--again", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = [source.path for folder in given.folders for source in list_files(folder)]
    random.Random(given.seed).shuffle(found)

    costs, relations, rates = [], [], []
    for count in given.files:
        with tempfile.TemporaryDirectory() as name:
            library = Path(name) / "library"
            library.mkdir()
            for number, path in enumerate(found[:count]):
                (library / f"{number:06}{Path(path).suffix}").write_bytes(Path(path).read_bytes())
            files = min(count, len(found))
            with Store(Path(name) / "store", write=True) as store:
                spent, memory, last = time_stages(library, store)
                report = last.coverage.verification
                told = report.relations if report else Counter[str]()
                pairs, whole = told.total(), sum(spent.values())
                costs.append(
                    [
                        files,
                        *(f"{spent[one]:.0f} s" for one in STAGES),
                        pairs,
                        pairs / files,
                        spent["verify"] / whole,
                        spent["parts"] / whole,
                    ]
                    + [f"{memory / 1e6:.0f} MB"]
                )
                relations.append(
                    [
                        files,
                        *(
                            told[one]
                            for one in (
                                "same picture",
                                "derived",
                                "same scene",
                                "unrelated",
                                "not verifiable",
                            )
                        ),
                    ]
                )
                drawn = sample_verified_pairs(store, given.again, random.Random(given.seed))
                strangers = sum(
                    one.relation in ("unrelated", "not verifiable")
                    for one in store.catalog.verdicts.stream()
                )
                kept = measure_rate(store, drawn)
                with (
                    closing(sqlite3.connect(store.folder / "caches" / "thumbnails.db")) as thumbs,
                    thumbs,
                ):
                    thumbs.execute("UPDATE thumbnails SET features = x''")
                rates.append(
                    [
                        files,
                        len(drawn),
                        min(strangers, given.again // 2),
                        round(kept),
                        round(measure_rate(store, drawn)),
                    ]
                )
    print(f"{os.cpu_count()} cores, seed {given.seed}\n")
    print(
        format_table(
            [
                "files",
                *STAGES,
                "pairs",
                "pairs a file",
                "share of verify",
                "share of parts",
                "memory",
            ],
            costs,
        )
    )
    print(
        format_table(
            ["files", "same picture", "derived", "same scene", "unrelated", "not verifiable"],
            relations,
        )
    )
    print(
        format_table(
            [
                "files",
                "pairs again",
                "strangers among them",
                "pairs/s, features kept",
                "pairs/s, without",
            ],
            rates,
        )
    )


if __name__ == "__main__":
    main()
