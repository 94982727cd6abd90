"""Measure how well embedders match copies, how they separate different images, and their speed.

    python -m scripts.bench_embedder PHOTOS --lookalikes LOOKALIKES --others TRAIN

PHOTOS holds photos that all differ: --bases of them are copied in 40 ways, the rest are
distractors. LOOKALIKES holds different images that resemble each other, named THEME_*: distractors
too; --lookalike-bases of them are copied to measure normalized scores. TRAIN supplies the images
that copies are pasted into and collaged with. --model takes names of models and paths of the JSON
cards of ONNX models, several at once.

Every copy is processed like a user's file: written to disk, read by decode_source(), embedded by
embed(). Prints Markdown. All tables but the last, the speeds, are equal in every run.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from indexes import Root
from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS
from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends.onnx import OnnxEmbedder
from pipeline.embed.embedder import DEFAULT_MODEL, Embedder, embed, load_embedder
from pipeline.scan import SourceFile, scan

Rows = NDArray[np.float32]
Scores = NDArray[np.floating]
MODEL_FOLDER = Path(__file__).resolve().parent.parent / "pipeline" / "embed" / "backends"
REPORTED_SCORES = (0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.70, 0.80, 0.85, 0.90)
EDITS = EVERYDAY_EDITS | HARD_EDITS

# Edits that end in a lossy file of their own; all others are saved as JPEG of quality 85.
LOSSY_EDITS = {"jpeg 60", "jpeg 25", "webp 50"}

# Edits after which a photo no longer stands upright; a mirrored one does.
REORIENTING_EDITS = {"flip", "turn 90", "turn 180", "turn 270", "transpose", "transverse"}

EDIT_CLASSES: dict[str, Callable[[str], bool]] = {
    "everyday, not turned": lambda kind: kind in EVERYDAY_EDITS and kind not in REORIENTING_EDITS,
    "everyday, turned": lambda kind: kind in REORIENTING_EDITS,
    "everyday": lambda kind: kind in EVERYDAY_EDITS,
    "hard": lambda kind: kind in HARD_EDITS,
    "all": lambda kind: True,
}

# Images of a batch, in embedding and in timing.
BATCH_SIZE = 32

# Batches before the timed ones.
WARMUP_ROUNDS = 2

# References that scores are normalized by.
MAX_BACKGROUND_IMAGES = 350

# Density is the mean cosine with this many of the nearest of them.
DENSITY_K = 5

# A row of the background with at least this cosine is the image itself or its equal.
MAX_DENSITY_SCORE = 0.9999

# Shares of the density that are subtracted; 0 leaves the scores as they are.
DENSITY_SHARES = (0.0, 0.5, 1.0)

NORMALIZED_SECTION = """## Normalized scores

From each score, a share of the density around its two images is subtracted: the mean of their
mean cosines with the {nearest} nearest of {background} references. The last two columns: copies
of {lookalikes} look-alikes at or above the floor.
"""


@dataclass(frozen=True)
class Copies:
    """Edited photos on disk: their files, edits, and the indices of their originals (n,)."""

    files: list[SourceFile]
    kinds: list[str]
    originals: NDArray[np.int64]

    @property
    def is_everyday(self) -> NDArray[np.bool_]:
        """Mark the copies that are everyday edits; the others are hard ones."""
        return np.array([kind in EVERYDAY_EDITS for kind in self.kinds])


@dataclass(frozen=True)
class Library:
    """References with the folder or theme of each, copies of photos and of look-alikes.

    `background` holds the indices of the references that scores are normalized by.
    """

    references: list[SourceFile]
    folders: list[str]
    copies: Copies
    lookalike_copies: Copies
    background: list[int]


@dataclass(frozen=True)
class LibraryRows:
    """The unit rows of a library by one embedder, and the density of all of them in sequence."""

    references: Rows
    copies: Rows
    lookalike_copies: Rows
    density: Rows


@dataclass(frozen=True)
class Ranking:
    """All pairs of a copy and a reference by falling score; the wrong ones first among equals."""

    scores: Scores
    is_correct: NDArray[np.bool_]

    @property
    def precision(self) -> NDArray[np.float64]:
        """Compute the precision of all pairs down to each rank."""
        return np.asarray(np.cumsum(self.is_correct) / np.arange(1, len(self.is_correct) + 1))

    def average_precision(self) -> float:
        """Compute micro average precision: all copies in one ranking."""
        return float(self.precision[self.is_correct].mean())

    def score_at_precision(self, precision: float) -> float:
        """Find the lowest score down to which the precision is >= `precision`; infinite if none."""
        ranks = np.flatnonzero(self.precision >= precision)
        return float(self.scores[ranks[-1]]) if len(ranks) else float("inf")


def list_files(folder: Path) -> list[SourceFile]:
    """List every file below `folder`, in the order of a scan."""
    entries = scan([Root(str(folder.resolve()))])
    return [entry for entry in entries if isinstance(entry, SourceFile)]


def open_upright(path: str | Path) -> Image.Image:
    """Open a whole image for editing: upright, RGB."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def save_copy(image: Image.Image, kind: str, folder: Path, stem: str) -> str:
    """Save an edited image, without loss if its edit was lossy; return the name of the file."""
    if kind in LOSSY_EDITS:
        image.save(folder / f"{stem}.png", compress_level=1)
        return f"{stem}.png"
    image.save(folder / f"{stem}.jpg", quality=85)
    return f"{stem}.jpg"


def make_copies(
    sources: Sequence[SourceFile],
    originals: Sequence[int],
    overlays: Sequence[SourceFile],
    seed: int,
    folder: Path,
) -> Copies:
    """Write every edit of each original into `folder`.

    Each edit draws from a generator of its own, seeded by `seed`, the name of the photo and the
    kind.
    """
    kinds: list[str] = []
    for original in originals:
        image = open_upright(sources[original].path)
        for kind, edit in EDITS.items():
            rng = random.Random(f"{seed} {PurePath(sources[original].path).name} {kind}")
            edited = edit(image, open_upright(rng.choice(overlays).path), rng)
            save_copy(edited, kind, folder, f"{len(kinds):06}")
            kinds.append(kind)
    return Copies(list_files(folder), kinds, np.repeat(originals, len(EDITS)))


def load_pixels(source: SourceFile, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decode a file for an embedder. Exits if it cannot be decoded."""
    decoded = decode_source(source, preprocess)
    if not isinstance(decoded, Decoded):
        raise SystemExit(f"{source.path} cannot be decoded: {decoded}")
    return decoded.pixels


def embed_all(embedders: Sequence[Embedder], sources: Sequence[SourceFile]) -> list[Rows]:
    """Embed all images by each embedder; each image is decoded once for each preprocessing."""
    batches: list[list[Rows]] = [[] for _ in embedders]
    for preprocess in dict.fromkeys(embedder.preprocess for embedder in embedders):
        for start in range(0, len(sources), BATCH_SIZE):
            batch = sources[start : start + BATCH_SIZE]
            pixels = [load_pixels(source, preprocess) for source in batch]
            for embedder, own_batches in zip(embedders, batches, strict=True):
                if embedder.preprocess == preprocess:
                    own_batches.append(embed(embedder, pixels))
    return [np.concatenate(own_batches) for own_batches in batches]


def rank(scores: Scores, originals: NDArray[np.int64]) -> Ranking:
    """Rank all pairs of `scores` (copies, references)."""
    is_correct = np.zeros(scores.shape, dtype=bool)
    is_correct[np.arange(len(originals)), originals] = True
    order = np.lexsort((is_correct.ravel(), -scores.ravel()))
    return Ranking(scores.ravel()[order], is_correct.ravel()[order])


def measure_density(rows: Rows, background: Rows) -> Rows:
    """Compute the mean of the DENSITY_K highest cosines of each row with a background sample.

    The image itself and its equals are left out.
    """
    scores = rows @ background.T
    scores[scores > MAX_DENSITY_SCORE] = -1.0
    density: Rows = np.sort(scores, axis=1)[:, -DENSITY_K:].mean(axis=1)
    return density


def estimate_floor(own_scores: Scores, is_everyday: NDArray[np.bool_]) -> float:
    """Find the highest floor that keeps 99 % of everyday and 90 % of hard copies."""
    everyday = np.quantile(own_scores[is_everyday], 0.01)
    return float(min(everyday, np.quantile(own_scores[~is_everyday], 0.10)))


def count_pairs_above(scores: Scores, floor: float) -> int:
    """Count the pairs of different references at or above a score."""
    return int((scores[np.triu_indices(len(scores), 1)] >= floor).sum())


def measure_speeds(embedders: Sequence[Embedder], rounds: int) -> list[float]:
    """Measure the images a second of each embedder, as it ships, on all cores.

    Medians of `rounds` batches that alternate between the embedders, so that a busy moment slows
    all of them.
    """
    runs: list[Callable[[], object]] = []
    for embedder in embedders:
        side = embedder.preprocess.size
        shape = (BATCH_SIZE, side, side, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        runs.append(partial(embed, embedder, list(pixels)))
    seconds = np.zeros((WARMUP_ROUNDS + rounds, len(runs)))
    for turn in range(WARMUP_ROUNDS + rounds):
        for column, run in enumerate(runs):
            started = time.perf_counter()
            run()
            seconds[turn, column] = time.perf_counter() - started
    return [float(BATCH_SIZE / median) for median in np.median(seconds[WARMUP_ROUNDS:], axis=0)]


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table; floats get three decimals."""
    texts = [
        [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows
    ]
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *texts]) + "\n"


def format_copies_table(
    own_scores: Scores, kinds: Sequence[str], min_scores: dict[str, float]
) -> str:
    """Format the share of each kind whose score with its original is >= each score."""
    masks = {name: np.array([test(kind) for kind in kinds]) for name, test in EDIT_CLASSES.items()}
    masks |= {edit: np.array([edit == kind for kind in kinds]) for edit in EDITS}
    rows: list[list[object]] = []
    for name, mask in masks.items():
        if mask.any():
            scores = own_scores[mask]
            rows.append([name, *(float((scores >= least).mean()) for least in min_scores.values())])
    return format_table(["copies", *min_scores], rows)


def format_pairs_table(rows: Rows, folders: Sequence[str], wrong_scores: Scores) -> str:
    """Format the number of pairs of different images at or above each score.

    Within each of `folders`, across them, and `wrong_scores`: copies with references that are not
    their originals.
    """
    left, right = np.triu_indices(len(rows), 1)
    scores, names = (rows @ rows.T)[left, right], np.array(folders)
    groups = {
        name: scores[(names[left] == name) & (names[right] == name)]
        for name in dict.fromkeys(folders)
    }
    groups["across these"] = scores[names[left] != names[right]]
    groups["copies and others"] = wrong_scores
    header = ["different images", "pairs", "highest"]
    header += [f">= {least:.2f}" for least in REPORTED_SCORES]
    table: list[list[object]] = []
    for name, group in groups.items():
        if len(group):
            counts = [int((group >= least).sum()) for least in REPORTED_SCORES]
            table.append([name, len(group), float(group.max()), *counts])
    return format_table(header, table)


def find_card(model: str) -> Path | None:
    """Find the card of an ONNX model, by its path or the name of a bundled model; None if none."""
    if model.endswith(".json"):
        return Path(model)
    path = MODEL_FOLDER / f"{model}.json"
    return path if path.exists() else None


def load_model(model: str) -> Embedder:
    """Load a model by its name or the path of its card."""
    card = find_card(model)
    return OnnxEmbedder(card) if card else load_embedder(model)


def make_library(options: argparse.Namespace, folder: Path) -> Library:
    """Draw the originals and write their copies into `folder`."""
    photos, lookalikes = list_files(options.photos), list_files(options.lookalikes)
    references = photos + lookalikes
    themes = [PurePath(source.path).name.partition("_")[0] for source in lookalikes]
    rng = random.Random(options.seed)
    originals = sorted(rng.sample(range(len(photos)), options.bases))
    lookalike_bases = sorted(
        rng.sample(range(len(photos), len(references)), options.lookalike_bases)
    )
    background_count = min(MAX_BACKGROUND_IMAGES, len(references))
    background = sorted(rng.sample(range(len(references)), background_count))
    overlays = list_files(options.others)
    copies, lookalike_copies = folder / "copies", folder / "lookalikes"
    copies.mkdir()
    lookalike_copies.mkdir()
    return Library(
        references,
        ["photos"] * len(photos) + themes,
        make_copies(references, originals, overlays, options.seed, copies),
        make_copies(references, lookalike_bases, overlays, options.seed, lookalike_copies),
        background,
    )


def split_rows(library: Library, rows: Rows) -> LibraryRows:
    """Split the rows of references, copies and copies of look-alikes, and measure density."""
    reference_count = len(library.references)
    ends = [reference_count, reference_count + len(library.copies.files)]
    references, copies, lookalike_copies = np.split(rows, ends)
    density = measure_density(rows, references[library.background])
    return LibraryRows(references, copies, lookalike_copies, density)


def measure_normalized(library: Library, rows: LibraryRows, share: float) -> list[object]:
    """Measure scores less a share of their density; return the cells of a row of the table."""
    copies, lookalike_copies = library.copies, library.lookalike_copies
    ends = [len(rows.references), len(rows.references) + len(rows.copies)]
    of_references, of_copies, of_lookalike_copies = np.split(share * rows.density, ends)
    scores = rows.copies @ rows.references.T
    scores = scores - (of_copies[:, None] + of_references[None, :]) / 2
    own_scores = scores[np.arange(len(scores)), copies.originals]
    floor = estimate_floor(own_scores, copies.is_everyday)
    reference_scores = rows.references @ rows.references.T
    reference_scores = reference_scores - (of_references[:, None] + of_references[None, :]) / 2
    originals = lookalike_copies.originals
    lookalike_scores = (rows.lookalike_copies * rows.references[originals]).sum(axis=1)
    lookalike_scores = lookalike_scores - (of_lookalike_copies + of_references[originals]) / 2
    is_found = lookalike_scores >= floor
    rankings = [
        rank(scores[part], copies.originals[part])
        for part in (copies.is_everyday, ~copies.is_everyday)
    ]
    return [
        share,
        *(ranking.average_precision() for ranking in rankings),
        floor,
        count_pairs_above(reference_scores, floor),
        float(is_found[lookalike_copies.is_everyday].mean()),
        float(is_found[~lookalike_copies.is_everyday].mean()),
    ]


def summarize(library: Library, rows: LibraryRows) -> list[object]:
    """Measure an embedder; return the cells of a row of the first table."""
    copies = library.copies
    scores = rows.copies @ rows.references.T
    own_scores = scores[np.arange(len(scores)), copies.originals]
    floor = estimate_floor(own_scores, copies.is_everyday)
    parts = (copies.is_everyday, ~copies.is_everyday)
    rankings = [rank(scores[part], copies.originals[part]) for part in parts]
    recalls = [
        float((own_scores[part] >= ranking.score_at_precision(precision)).mean())
        for precision in (0.99, 0.90)
        for part, ranking in zip(parts, rankings, strict=True)
    ]
    return [
        *(ranking.average_precision() for ranking in rankings),
        *recalls,
        floor,
        count_pairs_above(rows.references @ rows.references.T, floor),
    ]


def format_details(name: str, library: Library, rows: LibraryRows) -> str:
    """Format the tables of copies and of different images of one embedder."""
    copies = library.copies
    scores = rows.copies @ rows.references.T
    own_scores = scores[np.arange(len(scores)), copies.originals]
    ranking = rank(scores, copies.originals)
    p99, p90 = ranking.score_at_precision(0.99), ranking.score_at_precision(0.90)
    min_scores = {"R@P99": p99, "R@P90": p90}
    min_scores |= {f">= {least:.2f}": least for least in REPORTED_SCORES}
    wrong_scores = ranking.scores[~ranking.is_correct]
    return (
        f"## {name}\n\nShare of the copies at or above each score. R@P99: the score {p99:.3f}, at"
        f" which 99 % of all pairs of a copy and a reference are right; R@P90: {p90:.3f}.\n\n"
        + format_copies_table(own_scores, copies.kinds, min_scores)
        + "\nPairs of different images at or above each score.\n\n"
        + format_pairs_table(rows.references, library.folders, wrong_scores)
    )


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--lookalikes", type=Path, required=True)
    parser.add_argument("--others", type=Path, required=True, metavar="TRAIN")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL], metavar="NAME_OR_CARD.json")
    parser.add_argument(
        "--bases", type=int, default=150, help="photos to make copies of (default: %(default)s)"
    )
    parser.add_argument(
        "--lookalike-bases",
        type=int,
        default=30,
        help="look-alikes to make copies of, to see what normalizing costs (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--repeat", type=int, default=25, help="batches of each timing (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    """Make the copies, embed everything, print the tables."""
    options = parse_options()
    embedders = [load_model(model) for model in options.model]
    with tempfile.TemporaryDirectory() as scratch:
        library = make_library(options, Path(scratch))
        files = library.copies.files + library.lookalike_copies.files
        print(f"{len(files)} copies made; embedding", file=sys.stderr)
        rows_by_embedder = embed_all(embedders, library.references + files)

    print(
        f"{options.bases} photos, {len(library.copies.files)} copies,"
        f" {len(library.references)} references, seed {options.seed}\n"
    )
    summary: list[list[object]] = []
    normalized: list[list[object]] = []
    details: list[str] = []
    for embedder, all_rows in zip(embedders, rows_by_embedder, strict=True):
        rows = split_rows(library, all_rows)
        size = embedder.preprocess.size
        summary.append([embedder.name, size, embedder.space.dim, *summarize(library, rows)])
        details.append(format_details(embedder.name, library, rows))
        for share in DENSITY_SHARES:
            normalized.append([embedder.name, *measure_normalized(library, rows, share)])
    columns = [
        f"{measure} {part}"
        for measure in ("uAP", "R@P99", "R@P90")
        for part in ("everyday", "hard")
    ]
    header = ["model", "size", "dim", *columns, "floor", "look-alikes above the floor"]
    print(format_table(header, summary), *details, sep="\n")
    print(
        NORMALIZED_SECTION.format(
            nearest=DENSITY_K,
            background=len(library.background),
            lookalikes=options.lookalike_bases,
        )
    )
    header = ["model", "share", "uAP everyday", "uAP hard", "floor", "look-alikes above the floor"]
    print(format_table([*header, "everyday", "hard"], normalized))
    print("## Speed\n")
    speeds = zip(embedders, measure_speeds(embedders, options.repeat), strict=True)
    print(
        format_table(
            ["model", "size", "images/s"],
            [[embedder.name, embedder.preprocess.size, round(speed)] for embedder, speed in speeds],
        )
    )


if __name__ == "__main__":
    main()
