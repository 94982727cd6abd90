"""Measure libraries at which the work or the groups could get out of hand.

    python -m scripts.bench_extremes copies --count 3000
    python -m scripts.bench_extremes screens --count 500
    python -m scripts.bench_extremes burst --count 200
    python -m scripts.bench_extremes collages --count 20

`copies`: one photo, resized, encoded, toned or cropped slightly in --count ways. `screens`: the
screens of one app with another photo each. `burst`: --count shots of a scene, each with a copy of
half its size. `collages`: of four photos each; the next one has three of them at the same places.

The photos are drawn, or those of --photos, made small. An ingest runs as a process of its own into
a new store. A file is in wrong company if a group has it beside a file of another origin. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from indexes import Store
from pipeline import Group, find_groups
from pipeline.calibrate.synthetic_copies import crop_randomly, rescale
from scripts.bench_embedder import format_table, list_files, open_upright
from scripts.bench_ingest import time_ingest
from scripts.generators.drawing import draw_layout
from scripts.generators.neighbors import expose
from scripts.generators.phone_screens import lay_out_post
from scripts.history_pictures import draw_photo

PHOTO_SIZE = (320, 240)
SCENE_SIZE = (400, 280)
COLLAGE_TILES = 4
MEMORY_POLL_SECONDS = 1.0

Origins = dict[str, int]  # the number of the photo that a file comes from, by its name
LoadPhoto = Callable[[int, tuple[int, int]], Image.Image]  # by its number, at a size


def make_loader(folder: Path | None) -> LoadPhoto:
    """Make the function that draws photos, or that loads those of a folder, over and over."""
    if folder is None:
        return draw_photo
    paths = [source.path for source in list_files(folder)]

    def load(number: int, size: tuple[int, int]) -> Image.Image:
        return ImageOps.fit(open_upright(paths[number % len(paths)]), size)

    return load


def make_copies(folder: Path, count: int, load: LoadPhoto) -> Origins:
    """Save a photo and copies of it, which all differ."""
    photo, names = load(0, PHOTO_SIZE), dict[str, int]()
    photo.save(folder / "0000.png")
    names["0000.png"] = 0
    for number in range(1, count):
        rng = random.Random(number)
        copy = crop_randomly(photo, rng.choice([1.0, rng.uniform(0.85, 1.0)]), rng)
        copy = rescale(copy, rng.choice([1.0, rng.uniform(0.5, 1.0)]))
        copy = ImageEnhance.Brightness(copy).enhance(rng.choice([1.0, rng.uniform(0.8, 1.2)]))
        name = f"{number:04}.jpg"
        # A comment, so that no two files have the same bytes.
        copy.save(folder / name, quality=rng.randint(30, 95), comment=name)
        names[name] = 0
    return names


def make_screens(folder: Path, count: int, load: LoadPhoto) -> Origins:
    """Save screens of one app, each with a photo and words of its own."""
    names = dict[str, int]()
    for number in range(count):
        photo = load(number, PHOTO_SIZE)
        layout = lay_out_post(
            random.Random(0), random.Random(number), photo.width / photo.height, False
        )
        screen = draw_layout(layout, [photo, photo])
        screen.save(folder / f"{number:04}.png")
        names[f"{number:04}.png"] = number
    return names


def make_burst(folder: Path, count: int, load: LoadPhoto) -> Origins:
    """Save shots of a scene in which a thing moves, each with noise of its own and a small copy."""
    scene, thing = load(0, SCENE_SIZE), load(1, (60, 60))
    names = dict[str, int]()
    for number in range(count):
        rng = random.Random(number)
        shot = scene.copy()
        free = SCENE_SIZE[0] - thing.width, SCENE_SIZE[1] - thing.height
        shot.paste(thing, (rng.randint(0, free[0]), rng.randint(0, free[1])))
        left, top = rng.randint(0, 4), rng.randint(0, 4)
        shot = expose(shot.crop((left, top, left + 390, top + 270)), rng)
        shot.save(folder / f"{number:04}.jpg", quality=92)
        rescale(shot, 0.5).save(folder / f"{number:04} small.jpg", quality=80)
        names |= {f"{number:04}.jpg": number, f"{number:04} small.jpg": number}
    return names


def make_collages(folder: Path, count: int, load: LoadPhoto) -> Origins:
    """Save collages of COLLAGE_TILES photos in a row; two neighbors share all but one."""
    photos = [load(number, PHOTO_SIZE) for number in range(count + COLLAGE_TILES - 1)]
    names = dict[str, int]()
    for number in range(count):
        collage = Image.new("RGB", (2 * PHOTO_SIZE[0] + 6, 2 * PHOTO_SIZE[1] + 6), "white")
        for photo_number in range(number, number + COLLAGE_TILES):
            column, row = photo_number % 2, photo_number // 2 % 2
            place = 2 + column * (PHOTO_SIZE[0] + 2), 2 + row * (PHOTO_SIZE[1] + 2)
            collage.paste(photos[photo_number], place)
        name = f"collage {number:04}.jpg"
        collage.save(folder / name, quality=90)
        names[name] = number
    return names


MAKERS: dict[str, Callable[[Path, int, LoadPhoto], Origins]] = {
    "copies": make_copies,
    "screens": make_screens,
    "burst": make_burst,
    "collages": make_collages,
}


def count_in_wrong_company(groups: list[Group], origins: Origins) -> int:
    """Count the files in groups with a file of another origin."""
    count = 0
    for group in groups:
        of_group = Counter(origins[Path(file.path).name] for file in group.files)
        count += of_group.total() if len(of_group) > 1 else 0
    return count


def count_with_keeper(groups: list[Group], origins: Origins) -> int:
    """Count the members of groups whose keeper has their origin."""
    return sum(
        origins[Path(member.file.path).name] == origins[Path(group.keeper.path).name]
        for group in groups
        for member in group.members
    )


def main() -> None:
    """Make a library, ingest it, and print what that took and what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=MAKERS)
    parser.add_argument("--count", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--photos", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        library, store_folder = Path(name) / "library", Path(name) / "store"
        library.mkdir()
        origins = MAKERS[options.library](library, options.count, make_loader(options.photos))
        run = time_ingest(library, store_folder, MEMORY_POLL_SECONDS)
        with Store(store_folder) as store:
            relations = store.catalog.verdicts.count_by_relation()
            groups = find_groups(store)
    pair_count = sum(relations.values())
    row = [
        options.library,
        len(origins),
        pair_count,
        f"{pair_count / len(origins):.1f}",
        len(groups),
        max((len(group.files) for group in groups), default=0),
        count_with_keeper(groups, origins),
        count_in_wrong_company(groups, origins),
        f"{run.seconds:.0f}",
        f"{run.max_bytes / 1e6:.0f}",
    ]
    header = [
        "library",
        "files",
        "pairs",
        "pairs per file",
        "groups",
        "files of the largest",
        "members with their keeper",
        "in wrong company",
        "seconds",
        "MB",
    ]
    print(format_table(header, [row]))
    print(", ".join(f"{relation} {count:,}" for relation, count in relations.items()))


if __name__ == "__main__":
    main()
