"""What neardup makes of a library with copies in it: how pure its groups are, and how many copies are with their original. Prints Markdown.

    python scripts/bench_copies.py PHOTOS --others OVERLAYS [--model NAME ...] [--no-parts] [--fastdup PYTHON]
PHOTOS holds photos of which no two are alike. Some are copied in the 40 ways of copies.py, with the same screenshot and meme frames,
watermarks and stickers for all of them; the rest are strangers. OVERLAYS supplies what copies are laid over and collaged with. Everything
goes through the command's own stages: files, decoders, embedder, join, verification, parts, groups. The same files are given to a
perceptual hash as imagededup uses it (64 bits, pairs that differ in at most 10) where the package imagehash is installed, and to fastdup,
in the environment of PYTHON, as it is by default (groups are its connected components).
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations, cycle
from pathlib import Path

import numpy as np
from PIL import Image

from indexes import Root, Store
from pipeline import Group, IngestOptions, find_groups, ingest_roots, load_embedder
from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS
from pipeline.embed.embedder import DEFAULT_MODEL
from pipeline.ingest.batch_writer import VerificationReport
from pipeline.verify.relation import Relation
from scripts.bench_embedder import LOSSY_EDITS, format_table, list_files, open_upright
from scripts.bench_verify import get_stage

EDITS = EVERYDAY_EDITS | HARD_EDITS


def make_library(
    source_folder: Path,
    overlay_folder: Path,
    source_count: int,
    stranger_count: int,
    seed: int,
    folder: Path,
) -> dict[str, tuple[str, str]]:
    """Write originals, their copies and strangers into `folder`; for each name there, its original's name and its kind, "" for none."""
    found = list_files(source_folder)
    rng = random.Random(seed)
    drawn = rng.sample(found, min(len(found), source_count + stranger_count))
    spare = list_files(overlay_folder)
    overlays = cycle(
        rng.sample(spare, len(spare))
    )  # no two copies share one, where there are enough: they would show the same, rightly
    made: dict[str, tuple[str, str]] = {}
    for number, source in enumerate(drawn):
        picture, name = open_upright(source), f"{number:04}.jpg"
        (folder / name).write_bytes(Path(source.path).read_bytes())
        made[name] = (name, "")
        for place, (kind, edit) in enumerate(EDITS.items() if number < source_count else ()):
            own = random.Random(f"{seed} {Path(source.path).name} {kind}")
            edited = edit(picture, open_upright(next(overlays)), own)
            copy = f"{number:04}-{place:02}.{'png' if kind in LOSSY_EDITS else 'jpg'}"
            if kind in LOSSY_EDITS:
                edited.save(folder / copy, compress_level=1)
            else:
                edited.save(folder / copy, quality=85)
            made[copy] = (name, kind)
    return made


def score_groups(
    groups: Sequence[Group], origins: dict[str, tuple[str, str]]
) -> tuple[int, int, Counter[str], Counter[tuple[str, str]]]:
    """Pairs within groups, those that are right, copies with their original by kind, and wrong pairs by their two kinds."""
    pairs = right = 0
    home: dict[str, int] = {}
    wrong: Counter[tuple[str, str]] = Counter()
    for number, group in enumerate(groups):
        names = [
            Path(photo.path).name
            for photo in (group.keeper, *(member.file for member in group.members))
        ]
        home |= dict.fromkeys(names, number)
        for one, other in combinations(names, 2):
            pairs += 1
            if origins[one][0] == origins[other][0]:
                right += 1
            else:
                first, second = sorted(
                    (origins[one][1] or "original", origins[other][1] or "original")
                )
                wrong[first, second] += 1
    recalled = Counter(
        kind
        for name, (original, kind) in origins.items()
        if kind and name in home and home[name] == home.get(original, -1)
    )
    return pairs, right, recalled, wrong


def pair_by_phash(folder: Path, origins: dict[str, tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs by a perceptual hash; none where imagehash is not installed."""
    try:
        import imagehash
    except ImportError:
        return []
    names = sorted(origins)
    bits = np.array(
        [imagehash.phash(Image.open(folder / name)).hash.ravel() for name in names], np.float32
    )
    apart = bits @ (1 - bits).T
    left, right = np.nonzero(np.triu(apart + apart.T <= 10, 1))
    return [
        (names[one], names[other]) for one, other in zip(left.tolist(), right.tolist(), strict=True)
    ]


def pair_by_fastdup(python: Path, folder: Path, work_folder: Path) -> list[tuple[str, str]]:
    """Pairs within the connected components that fastdup finds."""
    run = "import sys, fastdup\nsys.exit(fastdup.run(sys.argv[1], work_dir=sys.argv[2], num_threads=-1, verbose=False, license=''))"
    subprocess.run(
        [python, "-c", run, folder, work_folder],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    files = [
        Path(line.split(",", 1)[1]).name
        for line in (work_folder / "atrain_features.dat.csv").read_text().splitlines()[1:]
    ]
    components: dict[str, list[str]] = defaultdict(list)
    with (work_folder / "connected_components.csv").open() as lines:
        for row in csv.DictReader(lines):
            components[row["component_id"]].append(files[int(row["__id"])])
    return [pair for some in components.values() for pair in combinations(sorted(some), 2)]


def summarize_tool(
    name: str, pairs: Sequence[tuple[str, str]], origins: dict[str, tuple[str, str]]
) -> list[object]:
    """How pure the pairs of another tool are, and how many copies are paired with their original."""
    right = sum(origins[one][0] == origins[other][0] for one, other in pairs)
    found = Counter(
        origins[other][1] or origins[one][1]
        for one, other in pairs
        if origins[one][0] == origins[other][0] and "" in (origins[one][1], origins[other][1])
    )
    copies = Counter(kind for _, kind in origins.values() if kind)
    shares = [
        sum(found[kind] for kind in part) / sum(copies[kind] for kind in part)
        for part in (EVERYDAY_EDITS, HARD_EDITS)
    ]
    return [name, len(pairs), len(pairs) - right, right / max(len(pairs), 1), *shares]


def main() -> None:
    """Make the library, let each model have it, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--others", type=Path, required=True, metavar="OVERLAYS")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL], metavar="NAME")
    parser.add_argument("--sources", type=int, default=150)
    parser.add_argument("--strangers", type=int, default=450)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--no-parts", dest="parts", action="store_false", help="without pictures within pictures"
    )
    parser.add_argument("--fastdup", type=Path, metavar="PYTHON")
    given = parser.parse_args()

    summary: list[list[object]] = []
    kinds: dict[str, dict[str, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "library"
        folder.mkdir()
        made = make_library(
            given.photos, given.others, given.sources, given.strangers, given.seed, folder
        )
        copies = Counter(kind for _, kind in made.values() if kind)
        originals = {original for original, kind in made.values() if kind}
        print(
            f"{len(made)} files, {given.sources} photos copied in {len(EDITS)} ways, seed {given.seed}\n"
        )
        for model in given.model:
            with Store(Path(name) / model.replace("/", "_"), write=True) as store:
                began = time.perf_counter()
                spent: dict[str, float] = defaultdict(float)
                for now in ingest_roots(
                    [Root(str(folder))],
                    store,
                    load_embedder(model),
                    IngestOptions(with_crops=given.parts),
                ):
                    spent[get_stage(now)] += time.perf_counter() - began
                    began = time.perf_counter()
                verified = now.coverage.verification or VerificationReport(0)
                groups = find_groups(store)
                names = {
                    id_: get_file_name(store, id_) for id_ in store.catalog.images.list_in_use()
                }
                close = {
                    tuple(sorted((names[one.first], names[one.second])))
                    for one in store.catalog.verdicts.stream()
                }
            pairs, right, recalled, wrong = score_groups(groups, made)
            keepers = [Path(group.keeper.path).name for group in groups]
            kept = Counter(
                made[name][1] or ("original" if name in originals else "stranger")
                for name in keepers
            )
            candidates = Counter(
                kind
                for copy, (original, kind) in made.items()
                if kind and tuple(sorted((copy, original))) in close
            )
            for kind in EDITS:
                kinds[kind][f"{model}, candidates"] = candidates[kind] / copies[kind]
                kinds[kind][model] = recalled[kind] / copies[kind]
            shares = [
                sum(counted[kind] for kind in part) / sum(copies[kind] for kind in part)
                for counted in (candidates, recalled)
                for part in (EVERYDAY_EDITS, HARD_EDITS)
            ]
            rate = verified.pairs / max(spent["verify"], 1e-9)
            accepted = sum(
                verified.relations[relation]
                for relation in (Relation.SAME_PICTURE, Relation.DERIVED)
            )
            summary.append(
                [
                    model,
                    verified.pairs,
                    accepted,
                    pairs,
                    pairs - right,
                    right / max(pairs, 1),
                    *shares,
                    kept["original"] / given.sources,
                    round(rate),
                    spent["verify"] / sum(spent.values()),
                    spent["parts"] / sum(spent.values()),
                ]
            )
            print(
                f"{model}: wrong pairs by kind {dict(wrong.most_common(8))}, kept {dict(kept.most_common())}",
                file=sys.stderr,
            )
        others = [
            summarize_tool("perceptual hash, 64 bits, 10 apart", pairs, made)
            for pairs in [pair_by_phash(folder, made)]
            if pairs
        ]
        if given.fastdup:
            others.append(
                summarize_tool(
                    "fastdup, by default",
                    pair_by_fastdup(given.fastdup, folder, Path(name) / "fastdup"),
                    made,
                )
            )
    head = ["model", "candidates", "copies among them", "pairs in groups", "wrong", "precision"]
    head += [f"{what} {part}" for what in ("candidate", "grouped") for part in ("everyday", "hard")]
    print(
        format_table(
            [*head, "originals kept", "pairs/s", "share of verify", "share of parts"], summary
        )
    )
    if others:
        print(
            format_table(["beside it", "pairs", "wrong", "precision", "everyday", "hard"], others)
        )
    columns = list(next(iter(kinds.values())))
    print(
        format_table(
            ["copies", *columns],
            [[kind, *(kinds[kind][column] for column in columns)] for kind in EDITS],
        )
    )


def get_file_name(store: Store, image_id: int) -> str:
    """The name of the file of an image."""
    return next(Path(known.path).name for known in store.catalog.files.find_of_images([image_id]))


if __name__ == "__main__":
    main()
