"""How well embedders know copies of a photo, how far apart they keep different pictures, and how fast they are. Prints Markdown.

    python scripts/bench_embedder.py PHOTOS --lookalikes LOOKALIKES --others TRAIN [--model NAME_OR_CARD.json ...]

PHOTOS holds photos of which no two are alike: some are made copies of, the rest are distractors. LOOKALIKES holds different pictures that
resemble each other, named THEME_*: distractors too. TRAIN supplies what copies are laid over and collaged with. Every copy goes the way of
a user's file: written to disk, read by decode(), embedded by embed(). All tables but the last are the same at every run.
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
from pipeline.decode.decode import Decoded, decode
from pipeline.decode.preprocess import Preprocess
from pipeline.embed.backends.onnx import OnnxEmbedder
from pipeline.embed.embedder import DEFAULT_MODEL, Embedder, embed, load_embedder
from pipeline.scan import SourceFile, scan

Rows = NDArray[np.float32]
MODEL_FOLDER = Path(__file__).resolve().parent.parent / "pipeline" / "embed" / "backends"
REPORTED_SCORES = (0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.70, 0.80, 0.85, 0.90)
EDITS = EVERYDAY_EDITS | HARD_EDITS
LOSSY_EDITS = {
    "jpeg 60",
    "jpeg 25",
    "webp 50",
}  # edits that are a lossy file already; all others are saved as JPEG of quality 85
REORIENTING_EDITS = {
    "flip",
    "turn 90",
    "turn 180",
    "turn 270",
    "transpose",
    "transverse",
}  # a mirrored photo still stands upright
EDIT_CLASSES: dict[str, Callable[[str], bool]] = {
    "everyday, not turned": lambda kind: kind in EVERYDAY_EDITS and kind not in REORIENTING_EDITS,
    "everyday, turned": lambda kind: kind in REORIENTING_EDITS,
    "everyday": lambda kind: kind in EVERYDAY_EDITS,
    "hard": lambda kind: kind in HARD_EDITS,
    "all": lambda kind: True,
}
BATCH_SIZE, TIMING_ROUNDS = 32, 25
BACKGROUND_COUNT, CROWDING_K = (
    350,
    5,
)  # pictures of a library that scores are normalised by, and how many of them each picture is held against
NORMALIZED_SECTION = """## Normalised scores

From each score is subtracted a share of how crowded it is around its two pictures: the mean of their mean cosines with the {nearest}
nearest of {background} references. The last two columns: copies of {crowd} look-alikes at or above the floor.
"""


@dataclass(frozen=True)
class Copies:
    """Edited photos on disk: their files, the edit of each, and the place of its original among the references."""

    files: list[SourceFile]
    kinds: list[str]
    originals: NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """All pairs of a copy and a reference by falling score; of equal scores, the wrong pair first."""

    scores: NDArray[np.floating]
    is_correct: NDArray[np.bool_]

    @property
    def precision(self) -> NDArray[np.float64]:
        """Precision of all pairs down to each rank."""
        return np.asarray(np.cumsum(self.is_correct) / np.arange(1, len(self.is_correct) + 1))

    def average_precision(self) -> float:
        """Micro average precision: all copies in one ranking."""
        return float(self.precision[self.is_correct].mean())

    def score_at_precision(self, precision: float) -> float:
        """The lowest score at which `precision` is kept; infinite if at none."""
        kept = np.flatnonzero(self.precision >= precision)
        return float(self.scores[kept[-1]]) if len(kept) else float("inf")


def list_files(folder: Path) -> list[SourceFile]:
    """Every file below `folder`, in the order of their paths."""
    return [found for found in scan([Root(str(folder.resolve()))]) if isinstance(found, SourceFile)]


def open_upright(source: SourceFile) -> Image.Image:
    """A whole picture, for editing."""
    with Image.open(source.path) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def make_copies(
    sources: Sequence[SourceFile],
    originals: Sequence[int],
    overlays: Sequence[SourceFile],
    seed: int,
    folder: Path,
) -> Copies:
    """Write every edit of each original into `folder`; an edit draws from its own generator, seeded by photo and kind."""
    kinds: list[str] = []
    for original in originals:
        picture = open_upright(sources[original])
        for kind, edit in EDITS.items():
            rng = random.Random(f"{seed} {PurePath(sources[original].path).name} {kind}")
            edited = edit(picture, open_upright(rng.choice(overlays)), rng)
            if kind in LOSSY_EDITS:
                edited.save(folder / f"{len(kinds):06}.png", compress_level=1)
            else:
                edited.save(folder / f"{len(kinds):06}.jpg", quality=85)
            kinds.append(kind)
    return Copies(list_files(folder), kinds, np.repeat(originals, len(EDITS)))


def load_pixels(source: SourceFile, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The picture as the pipeline shows it to an embedder."""
    decoded = decode(source, preprocess)
    if not isinstance(decoded, Decoded):
        raise SystemExit(f"{source.path} cannot be decoded: {decoded}")
    return decoded.pixels


def embed_all(embedders: Sequence[Embedder], sources: Sequence[SourceFile]) -> list[Rows]:
    """Unit rows of all pictures by each embedder; pictures are decoded once for each different view."""
    rows: list[list[Rows]] = [[] for _ in embedders]
    for view in dict.fromkeys(embedder.preprocess for embedder in embedders):
        for start in range(0, len(sources), BATCH_SIZE):
            views = [load_pixels(source, view) for source in sources[start : start + BATCH_SIZE]]
            for embedder, mine in zip(embedders, rows, strict=True):
                if embedder.preprocess == view:
                    mine.append(embed(embedder, views))
    return [np.concatenate(mine) for mine in rows]


def rank(scores: NDArray[np.floating], originals: NDArray[np.int64]) -> Ranking:
    """Rank all pairs of `scores` (copies, references)."""
    right = np.zeros(scores.shape, dtype=bool)
    right[np.arange(len(originals)), originals] = True
    order = np.lexsort((right.ravel(), -scores.ravel()))
    return Ranking(scores.ravel()[order], right.ravel()[order])


def measure_crowding(rows: Rows, background: Rows) -> Rows:
    """How near each row is to those of a sample that are nearest to it: the mean of NEAREST cosines, without itself and its equals."""
    scores = rows @ background.T
    scores[scores > 0.9999] = -1.0
    nearest: Rows = np.sort(scores, axis=1)[:, -CROWDING_K:].mean(axis=1)
    return nearest


def estimate_floor(own_scores: NDArray[np.floating], is_everyday: NDArray[np.bool_]) -> float:
    """What a join would have to let through to keep 99 % of everyday and 90 % of hard copies."""
    return float(
        min(np.quantile(own_scores[is_everyday], 0.01), np.quantile(own_scores[~is_everyday], 0.10))
    )


def count_pairs_above(scores: NDArray[np.floating], floor: float) -> int:
    """Pairs of different references at or above a score."""
    return int((scores[np.triu_indices(len(scores), 1)] >= floor).sum())


def measure_speeds(embedders: Sequence[Embedder]) -> list[float]:
    """Pictures a second of each embedder, as it ships, on all cores: medians of batches that take turns, so that a busy moment hits all."""
    runs: list[Callable[[], object]] = []
    for embedder in embedders:
        pixels = np.random.default_rng(0).integers(
            0,
            256,
            (BATCH_SIZE, embedder.preprocess.size, embedder.preprocess.size, 3),
            dtype=np.uint8,
        )
        runs.append(partial(embed, embedder, list(pixels)))
    seconds = np.zeros((TIMING_ROUNDS, len(runs)))
    for turn in range(-2, TIMING_ROUNDS):  # the first two warm up, and are overwritten
        for column, run in enumerate(runs):
            start = time.perf_counter()
            run()
            seconds[turn, column] = time.perf_counter() - start
    return [float(BATCH_SIZE / median) for median in np.median(seconds, axis=0)]


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers with a point get three decimals."""
    texts = [
        [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in line] for line in rows
    ]
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *texts]) + "\n"


def format_copies_table(
    own_scores: Rows, kinds: Sequence[str], min_scores: dict[str, float]
) -> str:
    """The share of each kind whose score with its original is at or above each cut."""
    chosen = {name: np.array([test(kind) for kind in kinds]) for name, test in EDIT_CLASSES.items()}
    chosen |= {kind: np.array([kind == each for each in kinds]) for kind in EDITS}
    return format_table(
        ["copies", *min_scores],
        [
            [name, *(float((own_scores[mine] >= cut).mean()) for cut in min_scores.values())]
            for name, mine in chosen.items()
            if mine.any()
        ],
    )


def format_pairs_table(
    rows: Rows, folders: Sequence[str], wrong_scores: NDArray[np.floating]
) -> str:
    """How many pairs of different pictures reach each cut: within each of `folders`, across them, and `wrong`, of copies and others."""
    left, right = np.triu_indices(len(rows), 1)
    scores, names = (rows @ rows.T)[left, right], np.array(folders)
    groups = {
        name: scores[(names[left] == name) & (names[right] == name)]
        for name in dict.fromkeys(folders)
    }
    groups |= {
        "across these": scores[names[left] != names[right]],
        "copies and others": wrong_scores,
    }
    return format_table(
        ["different pictures", "pairs", "highest", *(f">= {cut:.2f}" for cut in REPORTED_SCORES)],
        [
            [
                name,
                len(mine),
                float(mine.max()),
                *(int((mine >= cut).sum()) for cut in REPORTED_SCORES),
            ]
            for name, mine in groups.items()
            if len(mine)
        ],
    )


def find_card(model: str) -> Path | None:
    """The card of an ONNX model, given itself or by the model's name."""
    path = Path(model) if model.endswith(".json") else MODEL_FOLDER / f"{model}.json"
    return path if model.endswith(".json") or path.exists() else None


def main() -> None:
    """Make the copies, embed everything, print the tables."""
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
        "--crowd",
        type=int,
        default=30,
        help="look-alikes to make copies of, to see what normalising costs (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    cards = [find_card(model) for model in given.model]
    embedders: list[Embedder] = [
        OnnxEmbedder(card) if card else load_embedder(model)
        for model, card in zip(given.model, cards, strict=True)
    ]
    photos, lookalikes = list_files(given.photos), list_files(given.lookalikes)
    references = photos + lookalikes
    folders = ["photos"] * len(photos) + [
        PurePath(each.path).name.partition("_")[0] for each in lookalikes
    ]
    rng = random.Random(given.seed)
    originals = sorted(rng.sample(range(len(photos)), given.bases))
    crowd = sorted(rng.sample(range(len(photos), len(references)), given.crowd))
    background = sorted(rng.sample(range(len(references)), min(BACKGROUND_COUNT, len(references))))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as more:
        copies = make_copies(
            references, originals, list_files(given.others), given.seed, Path(folder)
        )
        alike = make_copies(references, crowd, list_files(given.others), given.seed, Path(more))
        print(f"{len(copies.files) + len(alike.files)} copies made; embedding", file=sys.stderr)
        rows = embed_all(embedders, references + copies.files + alike.files)

    print(
        f"{given.bases} photos, {len(copies.files)} copies, {len(references)} references, seed {given.seed}\n"
    )
    everyday, easy = (
        np.array([kind in EVERYDAY_EDITS for kind in some.kinds]) for some in (copies, alike)
    )
    summary, details, normalised = [], [], []
    for embedder, all_rows in zip(embedders, rows, strict=True):
        mine, theirs = np.split(all_rows, [len(references) + len(copies.files)])
        scores = mine[len(references) :] @ mine[: len(references)].T
        every = rank(scores, copies.originals)
        own = scores[np.arange(len(scores)), copies.originals]
        floor = estimate_floor(own, everyday)
        near = mine[: len(references)] @ mine[: len(references)].T
        candidates = count_pairs_above(near, floor)
        crowded = measure_crowding(all_rows, mine[background])
        for share in (0.0, 0.5, 1.0):  # of the crowding that is subtracted; 0: scores as they are
            taken = share * crowded
            less = (
                scores
                - (taken[len(references) : len(mine), None] + taken[None, : len(references)]) / 2
            )
            lowest = estimate_floor(less[np.arange(len(less)), copies.originals], everyday)
            pairs = count_pairs_above(
                near - (taken[: len(references), None] + taken[None, : len(references)]) / 2, lowest
            )
            ranks = [
                rank(less[part], copies.originals[part]).average_precision()
                for part in (everyday, ~everyday)
            ]
            kept = (theirs * mine[alike.originals]).sum(axis=1) - (
                taken[len(mine) :] + taken[alike.originals]
            ) / 2 >= lowest
            normalised.append(
                [
                    embedder.name,
                    share,
                    *ranks,
                    lowest,
                    pairs,
                    float(kept[easy].mean()),
                    float(kept[~easy].mean()),
                ]
            )
        at = {"P 99 %": every.score_at_precision(0.99), "P 90 %": every.score_at_precision(0.90)}
        parts = {"everyday": everyday, "hard": ~everyday}
        ranked = {name: rank(scores[part], copies.originals[part]) for name, part in parts.items()}
        average = [each.average_precision() for each in ranked.values()]
        recalls = [
            float((own[part] >= ranked[name].score_at_precision(share)).mean())
            for share in (0.99, 0.90)
            for name, part in parts.items()
        ]
        summary.append(
            [
                embedder.name,
                embedder.preprocess.size,
                embedder.space.dim,
                *average,
                *recalls,
                floor,
                candidates,
            ]
        )
        details.append(
            f"## {embedder.name}\n\nShare of the copies at or above each score. R@P99: the score {at['P 99 %']:.3f}, at which 99 % of all "
            f"pairs of a copy and a reference are right; R@P90: {at['P 90 %']:.3f}.\n\n"
            + format_copies_table(
                own,
                copies.kinds,
                {"R@P99": at["P 99 %"], "R@P90": at["P 90 %"]}
                | {f">= {cut:.2f}": cut for cut in REPORTED_SCORES},
            )
            + "\nPairs of different pictures at or above each score.\n\n"
            + format_pairs_table(mine[: len(references)], folders, every.scores[~every.is_correct])
        )
    head = ["model", "size", "dim"] + [
        f"{what} {part}" for what in ("uAP", "R@P99", "R@P90") for part in ("everyday", "hard")
    ]
    print(format_table([*head, "floor", "look-alikes above"], summary), *details, sep="\n")
    print(
        NORMALIZED_SECTION.format(nearest=CROWDING_K, background=len(background), crowd=given.crowd)
    )
    print(
        format_table(
            [
                "model",
                "share",
                "uAP everyday",
                "uAP hard",
                "floor",
                "look-alikes above",
                "everyday",
                "hard",
            ],
            normalised,
        )
    )
    print("## Speed\n")
    rates = zip(embedders, measure_speeds(embedders), strict=True)
    print(
        format_table(
            ["model", "size", "images/s"],
            [[embedder.name, embedder.preprocess.size, round(rate)] for embedder, rate in rates],
        )
    )


if __name__ == "__main__":
    main()
