"""Measure if the original of each photo is kept, among its copies and copies of copies.

    python -m scripts.bench_provenance PHOTOS --others OVERLAYS --sources 10

PHOTOS holds photos that all differ. --sources of them are copied in the ways of --classes, as
re-exports that keep EXIF where the photo has some, and as chains of three copies; --strangers more
are not copied. OVERLAYS supplies the images that copies are pasted into and collaged with. Names
and dates tell nothing. Everything runs through the stages of the command. Prints Markdown.

links: of the copies in the group of their original, those with the right parent. provenance of
chains: 2 (|N and N'| + |L and L'|) / (|N| + |N'| + |L| + |L'|), of the files N of a photo and the
links L between them, and of those N', L' of the group of the original; of originals and chains
alone, without the other copies.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from indexes import Root, Store
from pipeline import Group, find_groups, ingest_roots, load_embedder
from pipeline.embed.embedder import DEFAULT_MODEL
from scripts.bench_embedder import format_table
from scripts.family_library import ORIGINAL, Family, FamilyRecipe, make_families
from scripts.generators.browser import is_available
from scripts.generators.classes import CLASSES


def group_folder(folder: Path, store_folder: Path, model: str) -> list[Group]:
    """Ingest a folder into a new store, and group it."""
    with Store(store_folder, write=True) as store:
        for _ in ingest_roots([Root(str(folder))], store, load_embedder(model)):
            pass
        return find_groups(store)


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
    for class_ in [
        name for name in CLASSES if any(family[copy].kind in CLASSES[name] for copy in copies)
    ]:
        own = [name for name in copies if family[name].kind in CLASSES[class_]]
        rows.append([f"with their original, {class_}", f"{len({*own} & {*found}) / len(own):.4f}"])
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
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--others", type=Path, required=True, metavar="OVERLAYS")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME")
    parser.add_argument("--sources", type=int, default=10, help="photos to copy")
    parser.add_argument("--strangers", type=int, default=40, help="photos not to copy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--classes",
        nargs="+",
        choices=CLASSES,
        metavar="CLASS",
        help="classes of copies (default: everyday, hard, phone, collages, and browser or screens)",
    )
    options = parser.parse_args()
    if options.classes is None:
        pages = "browser" if is_available() else "screens"
        options.classes = ["everyday", "hard", "phone", "collages", pages]
    return options


def main() -> None:
    """Make both libraries, group them, print the table."""
    options = parse_options()
    edits = {kind: edit for name in options.classes for kind, edit in CLASSES[name].items()}
    counts = options.sources, options.strangers, options.seed
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rows = list[list[object]]()
        for library, kinds in (("all", edits), ("chains", {})):
            (folder := scratch / library).mkdir()
            recipe = FamilyRecipe(options.photos, options.others, kinds, *counts)
            family = make_families(recipe, folder, with_reexports=library == "all")
            groups = group_folder(folder, scratch / f"store of {library}", options.model)
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
