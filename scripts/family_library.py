"""A library of families: originals with their copies, re-exports with EXIF, copies of copies."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from PIL import ExifTags, Image, ImageEnhance, ImageOps

from pipeline.calibrate.synthetic_copies import (
    Edit,
    add_caption,
    crop_randomly,
    reencode,
    rescale,
)
from scripts.bench_embedder import list_files, open_upright, save_copy
from scripts.copy_library import LibraryRecipe

CHAIN_LENGTH = 3
CHAINS = 2  # of copies of copies, for each original
# All files have one time, so that dates do not tell the original.
MODIFIED_S = 1_600_000_000
EDITORS = ("Adobe Photoshop Lightroom 6.0", "GIMP 2.10", "Snapseed 2.0", "darktable 4.2")
ORIENTATION_UPRIGHT = 1
ORIGINAL = "original"  # the kind of a file that is no copy


@dataclass(frozen=True)
class Relative:
    """A file of a family: its original and its parent by name, and how it was made.

    The original is its own parent, and its kind is ORIGINAL.
    """

    original: str
    parent: str
    kind: str


Family = Mapping[str, Relative]

# Edits that programs save with the EXIF of the photo.
REEXPORTS: dict[str, Edit] = {
    "re-export": lambda image, other, rng: rescale(image, rng.uniform(0.5, 0.8)),
    "re-export, toned": lambda image, other, rng: ImageEnhance.Contrast(image).enhance(1.25),
    "re-export, cropped": lambda image, other, rng: crop_randomly(image, 0.8, rng),
    "re-export, gray": lambda image, other, rng: ImageOps.grayscale(image).convert("RGB"),
}
# Steps of copies of copies.
STEPS: dict[str, Edit] = {
    "smaller": lambda image, other, rng: rescale(image, rng.uniform(0.5, 0.8)),
    "jpeg": lambda image, other, rng: reencode(image, "jpeg", rng.randint(40, 70)),
    "crop": lambda image, other, rng: crop_randomly(image, rng.uniform(0.7, 0.9), rng),
    "caption": lambda image, other, rng: add_caption(image, rng),
    "contrast": lambda image, other, rng: ImageEnhance.Contrast(image).enhance(1.3),
    "border": lambda image, other, rng: ImageOps.expand(image, image.width // 20, "white"),
    "gray": lambda image, other, rng: ImageOps.grayscale(image).convert("RGB"),
}


def make_families(recipe: LibraryRecipe, folder: Path, *, only_chains: bool = False) -> Family:
    """Write originals, as they are, their copies, and strangers; return the relatives by name.

    Names tell nothing, and all files have one date. Copies lose the metadata, but re-exports of
    photos that have EXIF keep it, as editors do, with their own name as the software. With
    `only_chains` there are no copies but copies of copies.
    """
    rng = random.Random(recipe.seed)
    files = [Path(file.path) for file in list_files(recipe.photos)]
    drawn = rng.sample(files, min(len(files), recipe.source_count + recipe.stranger_count))
    overlay_files = list_files(recipe.overlays)
    overlays = cycle(rng.sample(overlay_files, len(overlay_files)))
    family: dict[str, Relative] = {}

    def name_file() -> str:
        return f"{rng.getrandbits(40):010x}"

    for number, path in enumerate(drawn):
        original = f"{name_file()}{path.suffix.lower()}"
        (folder / original).write_bytes(path.read_bytes())
        family[original] = Relative(original, original, ORIGINAL)
        if number >= recipe.source_count:
            continue
        image = open_upright(path)
        for kind, edit in () if only_chains else recipe.edits.items():
            edited = edit(image, open_upright(next(overlays).path), rng)
            name = save_copy(edited, kind, folder, name_file())
            family[name] = Relative(original, original, kind)
        exif = {} if only_chains else read_exif(path)
        for kind, edit in REEXPORTS.items() if exif else ():
            name = f"{name_file()}.jpg"
            exif[ExifTags.Base.Software] = rng.choice(EDITORS)
            edit(image, image, rng).save(folder / name, quality=rng.randint(80, 95), exif=exif)
            family[name] = Relative(original, original, kind)
        for _ in range(CHAINS):
            parent, previous = original, image
            for step, kind in enumerate(rng.sample(sorted(STEPS), CHAIN_LENGTH)):
                name = f"{name_file()}.jpg"
                STEPS[kind](previous, previous, rng).save(folder / name, quality=90)
                family[name] = Relative(original, parent, f"chain {step + 1}")
                parent, previous = name, open_upright(folder / name)
    for name in family:
        os.utime(folder / name, (MODIFIED_S, MODIFIED_S))
    return family


def read_exif(path: Path) -> Image.Exif:
    """Read the EXIF of a photo, for copies that are stored upright; empty if it names no camera."""
    with Image.open(path) as image:
        exif = image.getexif()
    if ExifTags.Base.Model not in exif:
        return Image.Exif()
    exif[ExifTags.Base.Orientation] = ORIENTATION_UPRIGHT
    return exif
