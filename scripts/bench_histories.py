"""Check on random histories of a library that its groups are those of one ingest of its files.

    python -m scripts.bench_histories --histories 1000 --seed 0
    python -m scripts.bench_histories FOLDER --histories 100 --few-candidates

A history is some nights: files are added, deleted, renamed, touched, overwritten and restored, a
root is away, an ingest is stopped, or killed by SIGKILL in a process of its own. The last ingest
completes. Its groups, to the last digit of their JSON, must be those of a new store. The contents
are small pictures made of three drawn photos, or of the first three in FOLDER.

Decoding, embedding and verifying are pure functions of contents, so each result is computed once.
To prove that this hides nothing, the new store of one history in --uncached-every is filled without
a cache. With --few-candidates an image has so few candidates that most pairs are left out. Two
JPEGs that differ by lost bits are not among the pictures: what one shows of the other is kept after
the other is deleted, on purpose.

Prints Markdown, and each history that differs, reduced to what it needs to differ.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.bench_embedder import format_table
from scripts.history_pictures import load_photos
from scripts.history_runs import Outcome, prepare_context, run_history, shrink_history
from scripts.library_histories import Ending, make_history

MAX_NIGHTS = 7


def format_difference(outcome: Outcome) -> Iterator[str]:
    """Yield a line for each value of the JSON that only one of the two has."""
    for nightly, at_once in zip(outcome.nightly, outcome.at_once, strict=True):
        leaves = [set(list_leaves(groups)) for groups in (nightly, at_once)]
        for title, only in zip(
            ("nightly", "at once"), (leaves[0] - leaves[1], leaves[1] - leaves[0]), strict=True
        ):
            for leaf in sorted(only):
                yield f"{title}: {leaf}"


def list_leaves(value: Any, place: str = "") -> Iterator[str]:  # noqa: ANN401 - any JSON
    """List the values of a JSON document, each with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from list_leaves(inner, f"{place}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from list_leaves(inner, f"{place}/{index}")
    else:
        yield f"{place} = {value}"


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    parser.add_argument("--histories", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the first history")
    parser.add_argument("--uncached-every", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--few-candidates", action="store_true")
    parser.add_argument("--scratch", type=Path, help="a folder, best in memory, for all stores")
    return parser.parse_args()


def main() -> None:
    """Run the histories and print what came of them."""
    options = parse_options()
    endings, group_count, uncached_count, differing = Counter[Ending](), 0, 0, 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        context = prepare_context(
            Path(scratch), load_photos(options.folder), few_candidates=options.few_candidates
        )
        for seed in range(options.seed, options.seed + options.histories):
            rng = random.Random(seed)
            history = make_history(rng, context.contents, rng.randint(2, MAX_NIGHTS))
            is_uncached = seed % options.uncached_every == 0
            outcome = run_history(context, history, is_uncached=is_uncached)
            endings += outcome.endings
            group_count += len(outcome.at_once[0])
            uncached_count += is_uncached
            if not outcome.has_equal_groups:
                differing += 1
                print(f"seed {seed}:\n")
                smaller = shrink_history(context, history)
                smallest = run_history(context, smaller)
                for line in (*map(str, smaller), *format_difference(smallest)):
                    print(f"    {line}")
                print(flush=True)
    row = [
        options.histories,
        endings.total(),
        *(endings[ending] for ending in Ending),
        group_count,
        uncached_count,
        differing,
        round(time.perf_counter() - started),
    ]
    header = [
        "histories",
        "ingests",
        *Ending,
        "groups at the end",
        "compared uncached",
        "differ",
        "seconds",
    ]
    print(format_table(header, [row]))


if __name__ == "__main__":
    main()
