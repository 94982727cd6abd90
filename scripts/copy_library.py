"""A library with many copies: originals, their copies by classes of edits, and strangers."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from pipeline.calibrate.synthetic_copies import Edit
from scripts.bench_embedder import list_files, open_upright, save_copy
from scripts.generators.browser import is_available
from scripts.generators.classes import CLASSES


@dataclass(frozen=True)
class Origin:
    """The original that a file was made from, by name, and the kind of copy; None if it is none."""

    original: str
    kind: str | None


Origins = dict[str, Origin]


@dataclass(frozen=True)
class LibraryRecipe:
    """Folders, edits by kind, and counts that a library is made from."""

    photos: Path
    overlays: Path
    edits: dict[str, Edit]
    source_count: int
    stranger_count: int
    seed: int


def add_library_options(
    parser: argparse.ArgumentParser, *, source_count: int, stranger_count: int
) -> None:
    """Add the options that make_recipe() reads, with default counts."""
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--others", type=Path, required=True, metavar="OVERLAYS")
    parser.add_argument(
        "--sources", type=int, default=source_count, help="photos to copy (default: %(default)s)"
    )
    parser.add_argument(
        "--strangers",
        type=int,
        default=stranger_count,
        help="photos not to copy (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--classes",
        nargs="+",
        choices=CLASSES,
        metavar="CLASS",
        help="classes of copies (default: everyday, hard, phone, collages, and browser or screens)",
    )


def make_recipe(options: argparse.Namespace) -> LibraryRecipe:
    """Make the recipe of a library from the options of the command line."""
    pages = "browser" if is_available() else "screens"
    classes = options.classes or ["everyday", "hard", "phone", "collages", pages]
    edits = {kind: edit for name in classes for kind, edit in CLASSES[name].items()}
    return LibraryRecipe(
        options.photos, options.others, edits, options.sources, options.strangers, options.seed
    )


def make_library(recipe: LibraryRecipe, folder: Path) -> Origins:
    """Write originals, their copies and strangers into `folder`; return the origins by name."""
    photos = list_files(recipe.photos)
    rng = random.Random(recipe.seed)
    drawn_count = min(len(photos), recipe.source_count + recipe.stranger_count)
    drawn = rng.sample(photos, drawn_count)
    overlay_files = list_files(recipe.overlays)
    # Two copies share an overlay only if there are too few: those two would rightly match.
    overlays = cycle(rng.sample(overlay_files, len(overlay_files)))
    origins: Origins = {}
    for number, source in enumerate(drawn):
        image, name = open_upright(source.path), f"{number:04}.jpg"
        (folder / name).write_bytes(Path(source.path).read_bytes())
        origins[name] = Origin(name, None)
        if number >= recipe.source_count:
            continue
        for index, (kind, edit) in enumerate(recipe.edits.items()):
            copy_rng = random.Random(f"{recipe.seed} {Path(source.path).name} {kind}")
            edited = edit(image, open_upright(next(overlays).path), copy_rng)
            copy = save_copy(edited, kind, folder, f"{number:04}-{index:02}")
            origins[copy] = Origin(name, kind)
    return origins


def count_copies(origins: Origins) -> Counter[str]:
    """Count the copies of each kind."""
    return Counter(origin.kind for origin in origins.values() if origin.kind)


def list_classes(copies: Counter[str]) -> list[str]:
    """List the classes that a library has copies of."""
    return [name for name, edits in CLASSES.items() if any(copies[kind] for kind in edits)]


def measure_shares(counts: Counter[str], copies: Counter[str]) -> list[float]:
    """Divide counts by the number of copies, over all kinds of each class."""
    return [
        sum(counts[kind] for kind in CLASSES[name]) / sum(copies[kind] for kind in CLASSES[name])
        for name in list_classes(copies)
    ]
