"""Measure if copies of the frames of a film are grouped with their own frame, not with the next.

    python -m scripts.bench_bursts FRAMES

FRAMES holds frames of films, in the order of their names. All of them are ingested, and --copied of
them also as seven kinds of copies. The smaller a copy, the more it agrees with the frames before
and after its own. Everything runs through the stages of the command. Prints Markdown.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.calibrate.synthetic_copies import rescale
from pipeline.scan import SourceFile
from scripts.bench_embedder import format_table, list_files, open_upright
from scripts.library_groups import group_library

SCREEN_SIZE = (400, 800)
SCREEN_COLOR = (20, 20, 30)
SCREEN_TOP_PX = 200


def make_screen_edit(width: int) -> Callable[[Image.Image], Image.Image]:
    """Make an edit that shows an image, `width` pixels wide, on the screen of a phone."""

    def edit(image: Image.Image) -> Image.Image:
        screen = Image.new("RGB", SCREEN_SIZE, SCREEN_COLOR)
        left = (SCREEN_SIZE[0] - width) // 2
        screen.paste(rescale(image, width / image.width), (left, SCREEN_TOP_PX))
        return screen

    return edit


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg 40": lambda image: image,
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "half size": lambda image: rescale(image, 0.5),
    "160 wide": lambda image: rescale(image, 160 / image.width),
    "160 wide, enlarged": lambda image: rescale(image, 160 / image.width).resize(
        image.size, Image.Resampling.LANCZOS
    ),
    "on a screen, 360 wide": make_screen_edit(360),
    "on a screen, 240 wide": make_screen_edit(240),
}


@dataclass(frozen=True)
class Origin:
    """The frame that a file of the library comes from, and the kind of copy; None for a frame."""

    frame: str
    kind: str | None


def make_library(
    frames: list[SourceFile], copied_frames: list[SourceFile], folder: Path
) -> dict[str, Origin]:
    """Write frames and copies into `folder`; return the origin of each file by its name."""
    origins: dict[str, Origin] = {}
    for frame in frames:
        shutil.copy(frame.path, folder)
        origins[Path(frame.path).name] = Origin(Path(frame.path).name, None)
    for frame in copied_frames:
        for number, (kind, edit) in enumerate(EDITS.items()):
            name = f"{Path(frame.path).stem}-{number}.jpg"
            quality = 40 if kind == "jpeg 40" else 85
            edit(open_upright(frame.path)).save(folder / name, quality=quality)
            origins[name] = Origin(Path(frame.path).name, kind)
    return origins


def list_group_names(folder: Path, store_folder: Path) -> list[list[str]]:
    """Ingest a folder into a new store; return the file names of each group."""
    groups = group_library(folder, store_folder)
    return [[Path(file.path).name for file in group.files] for group in groups]


def count_outcomes(groups: list[list[str]], origins: dict[str, Origin]) -> dict[str, Counter[str]]:
    """Count the copies of each kind in groups: with their own frame alone, mixed, or without it."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for names in groups:
        has_one_frame = len({origins[name].frame for name in names}) == 1
        for name in names:
            origin = origins[name]
            if origin.kind is None:
                continue
            outcome = "own" if has_one_frame else "mixed"
            if origin.frame not in names:
                outcome = "other"
            outcomes[origin.kind][outcome] += 1
    return outcomes


def main() -> None:
    """Make the library, group it, and print what the copies are grouped with."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("frames", type=Path, metavar="FRAMES")
    parser.add_argument(
        "--copied", type=int, default=40, help="frames to make copies of (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    frames = list_files(options.frames)
    copied = random.Random(options.seed).sample(frames, min(len(frames), options.copied))
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "library"
        library.mkdir()
        origins = make_library(frames, copied, library)
        groups = list_group_names(library, Path(scratch) / "store")
    outcomes = count_outcomes(groups, origins)
    frame_counts = [sum(origins[name].kind is None for name in names) for names in groups]
    print(
        f"{len(frames)} frames, {len(copied)} copied in {len(EDITS)} ways, seed {options.seed};"
        f" groups with several frames: {sum(count > 1 for count in frame_counts)}\n"
    )
    totals = Counter(origin.kind for origin in origins.values())
    rows = [
        [kind, *(outcomes[kind][outcome] / totals[kind] for outcome in ("own", "mixed", "other"))]
        for kind in EDITS
    ]
    header = ["copies", "with their own frame alone", "with it and others", "without it"]
    print(format_table(header, rows))


if __name__ == "__main__":
    main()
