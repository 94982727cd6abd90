"""Measure the precision and recall of groups in a library with many copies.

    python -m scripts.bench_copies PHOTOS --others OVERLAYS --fastdup PYTHON

PHOTOS holds photos that all differ, full-size camera files too. --sources of them are copied in
the ways of --classes, see scripts/generators/classes.py; --strangers more are not copied.
Copies of the classes "everyday" and "hard" share their frames, watermarks and stickers. OVERLAYS
supplies the images that copies are pasted into and collaged with. Everything runs through the
stages of the command: scan, decode, embed, join, verify, crops, groups. --model takes several
names, and each model gets a store of its own.

The same files are given to a perceptual hash as imagededup uses it (64 bits, pairs that differ in
at most 10) where the package imagehash is installed, and to fastdup with its defaults (groups are
its connected components) in the environment of PYTHON, where it is installed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from indexes import Root, Store
from indexes.coverage import VerificationReport
from pipeline import Group, IngestOptions, find_groups, ingest_roots, load_embedder
from pipeline.embed.embedder import DEFAULT_MODEL
from pipeline.verify.relation import Relation
from scripts.bench_embedder import format_table
from scripts.bench_fastdup import has_fastdup, read_feature_files, run_fastdup
from scripts.bench_verify import get_stage
from scripts.copy_library import (
    Origins,
    add_library_options,
    count_copies,
    list_classes,
    make_library,
    make_recipe,
    measure_shares,
)

# Pairs whose perceptual hashes differ in at most this many of 64 bits are duplicates.
MAX_PHASH_BITS = 10

# Kinds of wrong pairs that are listed, the most frequent.
MAX_LISTED_KINDS = 8

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class GroupScores:
    """Pairs within groups, the right ones, recalled copies by kind, wrong pairs by both kinds.

    A copy is recalled if it is in a group with its original.
    """

    pair_count: int
    correct_count: int
    recalled: Counter[str]
    wrong_kinds: Counter[tuple[str, str]]


@dataclass(frozen=True)
class IngestResult:
    """An ingest by one model: seconds of each stage, verdicts, groups and candidate pairs."""

    seconds: dict[str, float]
    verification: VerificationReport
    groups: list[Group]
    candidates: set[tuple[str, str]]


def score_groups(groups: Sequence[Group], origins: Origins) -> GroupScores:
    """Score the groups of a library."""
    pair_count = correct_count = 0
    group_of: dict[str, int] = {}
    wrong_kinds: Counter[tuple[str, str]] = Counter()
    for number, group in enumerate(groups):
        names = [Path(file.path).name for file in group.files]
        group_of |= dict.fromkeys(names, number)
        for first, second in combinations(names, 2):
            pair_count += 1
            if origins[first].original == origins[second].original:
                correct_count += 1
            else:
                kinds = sorted(origins[name].kind or "original" for name in (first, second))
                wrong_kinds[kinds[0], kinds[1]] += 1
    recalled = Counter(
        origin.kind
        for name, origin in origins.items()
        if origin.kind and name in group_of and group_of[name] == group_of.get(origin.original)
    )
    return GroupScores(pair_count, correct_count, recalled, wrong_kinds)


def pair_by_phash(folder: Path, origins: Origins) -> list[tuple[str, str]]:
    """Find pairs by a perceptual hash. Raises ImportError where imagehash is not installed."""
    import imagehash

    names = sorted(origins)
    hashes = [imagehash.phash(Image.open(folder / name)).hash.ravel() for name in names]
    bits = np.array(hashes, np.float32)
    one_sided = bits @ (1 - bits).T
    left, right = np.nonzero(np.triu(one_sided + one_sided.T <= MAX_PHASH_BITS, 1))
    return [
        (names[first], names[second])
        for first, second in zip(left.tolist(), right.tolist(), strict=True)
    ]


def pair_by_fastdup(python: Path, folder: Path, work_folder: Path) -> list[tuple[str, str]]:
    """Find all pairs within the connected components of fastdup."""
    run_fastdup(python, folder, work_folder)
    names = [path.name for path in read_feature_files(work_folder)]
    components: dict[str, list[str]] = defaultdict(list)
    with (work_folder / "connected_components.csv").open() as lines:
        for row in csv.DictReader(lines):
            components[row["component_id"]].append(names[int(row["__id"])])
    return [
        pair for component in components.values() for pair in combinations(sorted(component), 2)
    ]


def summarize_tool(name: str, pairs: Pairs, origins: Origins) -> list[object]:
    """Score the pairs of another tool; a copy is recalled if it is paired with its original."""
    recalled: Counter[str] = Counter()
    correct_count = 0
    for first, second in pairs:
        if origins[first].original != origins[second].original:
            continue
        correct_count += 1
        kinds = [origins[second].kind, origins[first].kind]
        if None in kinds:
            recalled.update(kind for kind in kinds if kind)
    precision = correct_count / max(len(pairs), 1)
    shares = measure_shares(recalled, count_copies(origins))
    return [name, len(pairs), len(pairs) - correct_count, precision, *shares]


def get_file_name(store: Store, image_id: int) -> str:
    """Get the name of a file of an image."""
    return next(Path(file.path).name for file in store.catalog.files.find_of_images([image_id]))


def sort_pair(first: str, second: str) -> tuple[str, str]:
    """Order two names."""
    return (first, second) if first <= second else (second, first)


def ingest_library(folder: Path, store_folder: Path, model: str, crops: bool) -> IngestResult:
    """Ingest a library into a new store, timing each stage, and group it."""
    seconds: dict[str, float] = defaultdict(float)
    with Store(store_folder, write=True) as store:
        started = time.perf_counter()
        options = IngestOptions(with_crops=crops)
        for progress in ingest_roots([Root(str(folder))], store, load_embedder(model), options):
            seconds[get_stage(progress)] += time.perf_counter() - started
            started = time.perf_counter()
        verification = progress.coverage.verification or VerificationReport(0)
        groups = find_groups(store)
        images = store.catalog.images.list_in_use()
        names = {image_id: get_file_name(store, image_id) for image_id in images}
        candidates = {
            sort_pair(names[verdict.first], names[verdict.second])
            for verdict in store.catalog.verdicts.stream()
        }
    return IngestResult(seconds, verification, groups, candidates)


def count_proposed(origins: Origins, candidates: set[tuple[str, str]]) -> Counter[str]:
    """Count the copies of each kind that are a candidate together with their original."""
    return Counter(
        origin.kind
        for copy, origin in origins.items()
        if origin.kind and sort_pair(copy, origin.original) in candidates
    )


def count_keepers(groups: Iterable[Group], origins: Origins) -> Counter[str]:
    """Count the keepers by kind: a kind of copy, "original" or "stranger"."""
    originals = {origin.original for origin in origins.values() if origin.kind}
    names = [Path(group.keeper.path).name for group in groups]
    return Counter(
        origins[name].kind or ("original" if name in originals else "stranger") for name in names
    )


def summarize_model(
    model: str, result: IngestResult, origins: Origins, source_count: int
) -> list[object]:
    """Score a model; return the cells of a row of the first table."""
    scores = score_groups(result.groups, origins)
    proposed = count_proposed(origins, result.candidates)
    keepers = count_keepers(result.groups, origins)
    print(
        f"{model}: wrong pairs by kind {dict(scores.wrong_kinds.most_common(MAX_LISTED_KINDS))},"
        f" kept {dict(keepers.most_common())}",
        file=sys.stderr,
    )
    relations, seconds = result.verification.relations, result.seconds
    total = sum(seconds.values())
    return [
        model,
        result.verification.pairs,
        relations[Relation.SAME_PICTURE] + relations[Relation.DERIVED],
        scores.pair_count,
        scores.pair_count - scores.correct_count,
        scores.correct_count / max(scores.pair_count, 1),
        *measure_shares(proposed, count_copies(origins)),
        *measure_shares(scores.recalled, count_copies(origins)),
        keepers["original"] / source_count,
        round(result.verification.pairs / max(seconds["verify"], 1e-9)),
        seconds["verify"] / total,
        seconds["crops"] / total,
    ]


def summarize_tools(
    folder: Path, work_folder: Path, origins: Origins, python: Path | None
) -> list[list[object]]:
    """Score the other tools that are installed."""
    rows: list[list[object]] = []
    try:
        pairs = pair_by_phash(folder, origins)
    except ImportError:
        print("imagehash is not installed", file=sys.stderr)
    else:
        rows.append(summarize_tool("perceptual hash, 64 bits, distance up to 10", pairs, origins))
    if python is None:
        return rows
    if not has_fastdup(python):
        print(f"{python} has no fastdup", file=sys.stderr)
        return rows
    pairs = pair_by_fastdup(python, folder, work_folder)
    return [*rows, summarize_tool("fastdup, defaults", pairs, origins)]


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_library_options(parser, source_count=150, stranger_count=450)
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL], metavar="NAME")
    parser.add_argument(
        "--no-crops", dest="crops", action="store_false", help="do not search images within images"
    )
    parser.add_argument("--fastdup", type=Path, metavar="PYTHON", help="interpreter with fastdup")
    return parser.parse_args()


def main() -> None:
    """Make the library, ingest it with each model, print the tables."""
    options = parse_options()
    recipe = make_recipe(options)
    edits = recipe.edits
    summary: list[list[object]] = []
    shares: dict[str, list[float]] = {kind: [] for kind in edits}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = scratch / "library"
        folder.mkdir()
        origins = make_library(recipe, folder)
        copies = count_copies(origins)
        print(
            f"{len(origins)} files, {options.sources} photos copied in {len(edits)} ways,"
            f" seed {options.seed}\n"
        )
        for model in options.model:
            store_folder = scratch / model.replace("/", "_")
            result = ingest_library(folder, store_folder, model, options.crops)
            summary.append(summarize_model(model, result, origins, options.sources))
            proposed = count_proposed(origins, result.candidates)
            recalled = score_groups(result.groups, origins).recalled
            for kind in edits:
                shares[kind] += [proposed[kind] / copies[kind], recalled[kind] / copies[kind]]
        tools = summarize_tools(folder, scratch / "fastdup", origins, options.fastdup)
    header = ["model", "candidates", "accepted as copies", "pairs in groups", "wrong", "precision"]
    classes = list_classes(copies)
    header += [f"{what} {name}" for what in ("candidate", "grouped") for name in classes]
    header += ["originals kept", "pairs/s", "share of verify", "share of crops"]
    print(format_table(header, summary))
    if tools:
        print(format_table(["compared with", "pairs", "wrong", "precision", *classes], tools))
    columns = [column for model in options.model for column in (f"{model}, candidates", model)]
    print(format_table(["copies", *columns], [[kind, *shares[kind]] for kind in edits]))


if __name__ == "__main__":
    main()
