"""Whether copies of frames of a film go with their own frame, where the next ones look nearly like it. Prints Markdown.

    python scripts/bench_bursts.py FRAMES [--copied 40] [--seed 0]

FRAMES holds frames of films, in the order of their names. All are taken into a library, and some of them in seven ways more; the smaller a
copy, the more it agrees with the frames before and after its own. Everything goes through the command's own stages.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from indexes import Root, Store
from pipeline import find_groups, ingest_roots, load_embedder
from pipeline.calibrate.synthetic_copies import rescale
from pipeline.embed.embedder import DEFAULT_MODEL
from scripts.bench_embedder import format_table, list_files, open_upright


def make_screen_edit(width: int) -> Callable[[Image.Image], Image.Image]:
    """An edit that shows a picture, so many pixels wide, on the screen of a telephone."""

    def edit(picture: Image.Image) -> Image.Image:
        screen = Image.new("RGB", (400, 800), (20, 20, 30))
        screen.paste(rescale(picture, width / picture.width), ((400 - width) // 2, 200))
        return screen

    return edit


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg 40": lambda picture: picture,
    "turned": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "half size": lambda picture: rescale(picture, 0.5),
    "160 wide": lambda picture: rescale(picture, 160 / picture.width),
    "160 wide, enlarged": lambda picture: rescale(picture, 160 / picture.width).resize(
        picture.size, Image.Resampling.LANCZOS
    ),
    "on a screen, 360 wide": make_screen_edit(360),
    "on a screen, 240 wide": make_screen_edit(240),
}


def main() -> None:
    """Make the library, group it, print with whom the copies are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("frames", type=Path, metavar="FRAMES")
    parser.add_argument("--copied", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    frames = list_files(given.frames)
    made: dict[
        str, tuple[str, str]
    ] = {}  # for each name its frame, and the kind of copy, "" for none
    with tempfile.TemporaryDirectory() as name:
        library = Path(name) / "library"
        library.mkdir()
        for frame in frames:
            shutil.copy(frame.path, library)
            made[Path(frame.path).name] = (Path(frame.path).name, "")
        copied = random.Random(given.seed).sample(frames, min(len(frames), given.copied))
        for frame in copied:
            for number, (kind, edit) in enumerate(EDITS.items()):
                copy = f"{Path(frame.path).stem}-{number}.jpg"
                edit(open_upright(frame)).save(
                    library / copy, quality=40 if kind == "jpeg 40" else 85
                )
                made[copy] = (Path(frame.path).name, kind)
        with Store(Path(name) / "store", write=True) as store:
            for _ in ingest_roots([Root(str(library))], store, load_embedder(DEFAULT_MODEL)):
                pass
            groups = [[Path(photo.path).name for photo in one.files] for one in find_groups(store)]
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for names in groups:
        alone = len({made[copy][0] for copy in names}) == 1
        for copy in names:
            found[made[copy][1]][
                "other" if made[copy][0] not in names else "own" if alone else "mixed"
            ] += 1
    together = sum(sum(not made[copy][1] for copy in names) > 1 for names in groups)
    print(
        f"{len(frames)} frames, {len(copied)} copied in {len(EDITS)} ways, seed {given.seed}; groups with several frames: {together}\n"
    )
    total = Counter(kind for _, kind in made.values())
    rows = [
        [kind, *(found[kind][what] / total[kind] for what in ("own", "mixed", "other"))]
        for kind in EDITS
    ]
    print(
        format_table(
            ["copies", "with their own frame alone", "with it and others", "without it"], rows
        )
    )


if __name__ == "__main__":
    main()
