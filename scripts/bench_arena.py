"""Score verdicts on pairs, and groups, on the sets of the arena.

    python -m scripts.bench_arena ARENA --role fit --groups

Pairs: every pair of scripts/arena.py is verified, with its metadata, as the command would; for each
set the table has the copies found by kind, the pairs of other truth that are called copies, the
relations that were given instead, and how many pairs were left out because a picture of theirs
cannot be read, if there are such. --groups: each set is ingested into a new store and grouped:
files in wrong company are those in a group with a picture that is no copy of theirs.

--errors lists wrong pairs of `fit` sets; of `check` sets nothing but totals is printed, because a
set whose errors were read is no check any more. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

from indexes.metadata import NO_METADATA
from indexes.records import Image
from pipeline.decode.decode import Decoded
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import VERIFY_INPUT
from pipeline.grouping.exposures import NamedMetadata, compare_files
from pipeline.grouping.frames import relate_frames
from pipeline.grouping.match import decide_relation, get_exact_relation
from pipeline.query.files import resolve_source
from pipeline.scan import SourceFile
from pipeline.thumbnails import encode_thumbnail
from pipeline.verify.inputs import VerifyInput
from pipeline.verify.pool import VerifierPool
from pipeline.verify.relation import COPY_RELATIONS, Relation
from pipeline.verify.verdict import Verdict
from scripts.arena import Picture, Role, TruePair, Truth, list_pairs, list_sets, read_pictures
from scripts.bench_embedder import format_table
from scripts.library_groups import group_library

PAIRS_PER_BATCH = 512
MAX_LISTED_ERRORS = 40
NEVER_SIMILAR = 2.0  # a threshold that no cosine reaches: pairs are scored by verdicts alone


@dataclass(frozen=True, slots=True)
class LoadedPicture:
    """A decoded picture: its record, and the input of its verification."""

    image: Image
    verify_input: VerifyInput


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A pair of known truth, and what neardup says of it."""

    pair: TruePair
    relation: Relation
    verdict: Verdict | None

    @property
    def is_copy(self) -> bool:
        """Tell if neardup calls the pair a copy."""
        return self.relation in COPY_RELATIONS


def load_pictures(
    paths: Iterable[Path], decoders: DecoderPool, verifiers: VerifierPool
) -> dict[Path, LoadedPicture]:
    """Decode files and extract their features; files that fail are left out.

    The results have the paths that were given, also where these are relative or lead over links.
    """
    resolved = [(path, resolve_source(str(path))) for path in sorted(set(paths))]
    sources = {path: source for path, source in resolved if isinstance(source, SourceFile)}
    results = decoders.stream(sources.values(), VERIFY_INPUT)
    decoded = [
        (path, result)
        for path, result in zip(sources, results, strict=True)
        if isinstance(result, Decoded)
    ]
    jpegs = [encode_thumbnail(result.pixels) for _, result in decoded]
    features = verifiers.extract_features(jpegs)
    return {
        path: LoadedPicture(
            result.image,
            VerifyInput(
                result.image.hash, jpeg, extracted, (result.image.width, result.image.height)
            ),
        )
        for (path, result), jpeg, extracted in zip(decoded, jpegs, features, strict=True)
        if extracted is not None
    }


def verify_pairs(
    pairs: Sequence[TruePair], pictures: Mapping[Path, LoadedPicture], verifiers: VerifierPool
) -> Iterator[ScoredPair]:
    """Give each pair whose pictures were loaded its relation: hashes, pixels, metadata, frames."""
    known = [pair for pair in pairs if {pair.first.path, pair.second.path} <= pictures.keys()]
    for start in range(0, len(known), PAIRS_PER_BATCH):
        batch = known[start : start + PAIRS_PER_BATCH]
        verdicts = verifiers.verify(
            [
                (pictures[pair.first.path].verify_input, pictures[pair.second.path].verify_input)
                for pair in batch
            ]
        )
        for pair, verdict in zip(batch, verdicts, strict=True):
            yield ScoredPair(pair, _relate(pair, pictures, verdict), verdict)


def _relate(
    pair: TruePair, pictures: Mapping[Path, LoadedPicture], verdict: Verdict | None
) -> Relation:
    paths = (pair.first.path, pair.second.path)
    first, second = (pictures[path].image for path in paths)
    if exact := get_exact_relation(first, second):
        return exact
    named = [
        NamedMetadata(image.metadata or NO_METADATA, [str(path)])
        for image, path in zip((first, second), paths, strict=True)
    ]
    difference = compare_files(*named)
    relation = decide_relation(verdict, 0.0, NEVER_SIMILAR, exposure_difference=difference)
    return relate_frames(relation, *(item.metadata.frames for item in named))


def format_set_row(set_name: str, scored: Sequence[ScoredPair]) -> list[object]:
    """Count, for a set, copies found and pairs of other truth that are called copies."""
    by_truth = defaultdict[Truth, list[ScoredPair]](list)
    for item in scored:
        by_truth[item.pair.truth].append(item)
    counts = [
        f"{sum(item.is_copy for item in by_truth[truth])}/{len(by_truth[truth])}"
        if by_truth[truth]
        else ""
        for truth in Truth
    ]
    false_files = {
        picture.path
        for item in scored
        if item.is_copy and item.pair.truth is not Truth.COPY
        for picture in (item.pair.first, item.pair.second)
    }
    neighbors = by_truth[Truth.NEIGHBOR]
    other_shots = sum(item.relation is Relation.ANOTHER_SHOT for item in neighbors)
    instead = Counter(
        str(item.relation)
        for item in scored
        if item.is_copy != (item.pair.truth is Truth.COPY)
        or (item.pair.truth is Truth.NEIGHBOR and item.relation is not Relation.ANOTHER_SHOT)
    )
    return [
        set_name,
        *counts,
        len(false_files),
        f"{other_shots}/{len(neighbors)}" if neighbors else "",
        ", ".join(f"{relation} {count}" for relation, count in instead.most_common()),
    ]


def format_sets(scored: Mapping[str, Sequence[ScoredPair]], unread: Mapping[str, int]) -> str:
    """Format the table of all sets; `unread` counts the pairs that were left out of each."""
    rows = [format_set_row(set_name, items) for set_name, items in scored.items()]
    rows.append(format_set_row("all", list(chain.from_iterable(scored.values()))))
    header = ["set", *Truth, "files in false pairs", "another shot", "wrong relations"]
    if total := sum(unread.values()):
        header.append("unread")
        counts = [*(unread[set_name] for set_name in scored), total]
        for row, count in zip(rows, counts, strict=True):
            row.append(count)
    return format_table(header, rows)


def count_kinds(scored: Iterable[ScoredPair]) -> dict[str, tuple[int, int]]:
    """Count the copies of each kind: found, and all."""
    found, total = Counter[str](), Counter[str]()
    for item in scored:
        if item.pair.truth is Truth.COPY:
            total[item.pair.kind] += 1
            found[item.pair.kind] += item.is_copy
    return {kind: (found[kind], total[kind]) for kind in sorted(total)}


def group_set(folder: Path, pictures: Sequence[Picture]) -> list[object]:
    """Ingest and group a set; count files in wrong company and copies with their original."""
    by_path = {str(picture.path.resolve()): picture for picture in pictures}
    with tempfile.TemporaryDirectory() as scratch:
        formed = group_library(folder, Path(scratch) / "store")
        groups = [[file.path for file in group.files] for group in formed]
    number_of = {path: number for number, paths in enumerate(groups) for path in paths}
    wrong = set[str]()
    for paths in groups:
        for first, second in combinations([path for path in paths if path in by_path], 2):
            if by_path[first].group != by_path[second].group:
                wrong |= {first, second}
    copies = found = 0
    for pair in list_pairs(pictures):
        if pair.truth is Truth.COPY:
            copies += 1
            first, second = (str(item.path.resolve()) for item in (pair.first, pair.second))
            found += first in number_of and number_of[first] == number_of.get(second)
    return [len(by_path), len(wrong), f"{found}/{copies}" if copies else ""]


def list_errors(scored: Iterable[ScoredPair]) -> Iterator[str]:
    """Describe wrong pairs, a line each."""
    for item in scored:
        if item.is_copy != (item.pair.truth is Truth.COPY):
            verdict = item.verdict
            share = f"{verdict.agreeing_share:.2f} of {verdict.tiles}" if verdict else ""
            yield (
                f"- {item.pair.truth} {item.pair.kind}: {item.pair.first.path.name}"
                f" {item.pair.second.path.name}: {item.relation} {share}"
            )


def main() -> None:
    """Score each set, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arena", type=Path, metavar="ARENA")
    parser.add_argument("--role", type=Role, choices=list(Role), default=Role.FIT)
    parser.add_argument("--sets", nargs="+", metavar="SET", help="sets of the role (default: all)")
    parser.add_argument("--groups", action="store_true", help="score groups, too")
    parser.add_argument("--errors", action="store_true", help="list wrong pairs of `fit` sets")
    options = parser.parse_args()
    set_names = list_sets(options.arena, options.role)
    if unknown := sorted(set(options.sets or ()) - set(set_names)):
        parser.error(f"no {options.role} sets of {options.arena}: {', '.join(unknown)}")
    group_rows: list[list[object]] = []
    scored: dict[str, list[ScoredPair]] = {}
    unread: dict[str, int] = {}
    with DecoderPool() as decoders, VerifierPool() as verifiers:
        for set_name in set_names:
            if options.sets and set_name not in options.sets:
                continue
            pictures = read_pictures(options.arena, set_name)
            pairs = list_pairs(pictures)
            loaded = load_pictures((picture.path for picture in pictures), decoders, verifiers)
            scored[set_name] = list(verify_pairs(pairs, loaded, verifiers))
            unread[set_name] = len(pairs) - len(scored[set_name])
            if options.groups:
                group_rows.append([set_name, *group_set(options.arena / set_name, pictures)])
            if options.errors and options.role is Role.FIT:
                print("\n".join(list(list_errors(scored[set_name]))[:MAX_LISTED_ERRORS]))
    print(f"{options.role} sets; called copies of all pairs, by their truth\n")
    print(format_sets(scored, unread))
    found_by_kind = count_kinds(chain.from_iterable(scored.values()))
    kinds = [[kind, f"{found}/{total}"] for kind, (found, total) in found_by_kind.items()]
    print(format_table(["copies", "found"], kinds))
    if group_rows:
        print(format_table(["set", "files", "in wrong company", "copies found"], group_rows))


if __name__ == "__main__":
    main()
