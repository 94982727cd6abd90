"""Measure if the original of each photo is kept, among its copies and copies of copies.

    python -m scripts.bench_provenance PHOTOS --others OVERLAYS --sources 10

PHOTOS holds photos that all differ. --sources of them are copied in the ways of --classes, as
re-exports that keep EXIF where the photo has some, and as chains of three copies; --strangers more
are not copied. OVERLAYS supplies the images that copies are pasted into and collaged with. Names
and dates tell nothing. Everything runs through the stages of the command. Prints Markdown.

links: of the copies in the group of their original, those with the right parent. provenance of
chains: 2 (|N and N'| + |L and L'|) / (|N| + |N'| + |L| + |L'|), of the files N of a photo and the
links L between them, and of those N', L' of all groups; of originals and chains alone, without
the other copies.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from pipeline import Group
from pipeline.embed.embedder import DEFAULT_MODEL
from scripts.bench_embedder import format_table
from scripts.copy_library import (
    add_library_options,
    list_classes,
    make_recipe,
    measure_shares,
)
from scripts.family_library import ORIGINAL, Family, make_families
from scripts.library_groups import group_library


def list_links(group: Group) -> dict[str, str]:
    """List the members of a group with the file that each was made from, by name."""
    return {
        Path(member.file.path).name: Path((member.made_from or group.keeper).path).name
        for member in group.members
    }


def score(groups: Sequence[Group], family: Family) -> list[list[object]]:
    """Score groups; returns rows of a measure and its value."""
    originals = {relative.original for relative in family.values() if relative.kind != ORIGINAL}
    names = [[Path(file.path).name for file in group.files] for group in groups]
    group_of = {name: number for number, members in enumerate(names) for name in members}
    pairs = [pair for members in names for pair in combinations(members, 2)]
    correct = sum(family[first].original == family[second].original for first, second in pairs)
    kept = sum(members[0] in originals for members in names)
    photos = [{family[name].original for name in members} & originals for members in names]
    copies = [name for name, relative in family.items() if relative.kind != ORIGINAL]
    found = [
        name
        for name in copies
        if name in group_of and group_of[name] == group_of.get(family[name].original)
    ]
    links = [list_links(group) for group in groups]
    right = sum(links[group_of[name]].get(name) == family[name].parent for name in found)
    kinds = Counter(family[members[0]].kind for members in names if members[0] not in originals)
    rows: list[list[object]] = [
        ["originals kept", f"{kept} of {len(originals)}"],
        ["groups a photo", f"{sum(map(len, photos)) / len(originals):.2f}"],
        ["pairs in groups that are right", f"{correct / max(len(pairs), 1):.4f}"],
    ]
    made, recalled = (Counter(family[name].kind for name in names) for names in (copies, found))
    shares = zip(list_classes(made), measure_shares(recalled, made), strict=True)
    rows += [[f"with their original, {name}", f"{share:.4f}"] for name, share in shares]
    rows.append(["links", f"{right} of {len(found)}"])
    rows.append(
        ["other keepers", ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())]
    )
    return rows


def score_chains(groups: Sequence[Group], family: Family) -> float:
    """Compute the provenance score of a library of originals and chains."""
    expected_nodes = {name for name, relative in family.items() if relative.kind != ORIGINAL}
    expected_links = {(family[name].parent, name) for name in expected_nodes}
    expected_nodes |= {
        relative.original for name, relative in family.items() if name in expected_nodes
    }
    nodes, links = set[str](), set[tuple[str, str]]()
    for group in groups:
        own = list_links(group)
        nodes |= {Path(group.keeper.path).name, *own}
        links |= {(parent, name) for name, parent in own.items()}
    shared = len(nodes & expected_nodes) + len(links & expected_links)
    return 2 * shared / (len(nodes) + len(expected_nodes) + len(links) + len(expected_links))


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_library_options(parser, source_count=10, stranger_count=40)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME")
    return parser.parse_args()


def main() -> None:
    """Make both libraries, group them, print the table."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rows = list[list[object]]()
        recipe = make_recipe(options)
        for library in ("all", "chains"):
            (folder := scratch / library).mkdir()
            family = make_families(recipe, folder, only_chains=library == "chains")
            groups = group_library(folder, scratch / f"store of {library}", options.model)
            if library == "all":
                print(
                    f"{len(family)} files, {options.sources} photos copied, seed {options.seed}\n"
                )
                rows += score(groups, family)
            else:
                rows.append(["provenance of chains", f"{score_chains(groups, family):.3f}"])
    print(format_table(["", "neardup"], rows))


if __name__ == "__main__":
    main()
