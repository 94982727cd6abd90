"""Measure the evidence of pairs of known truth, from many sources, to train the judge on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS
from pipeline.decode.decode import Decoded, decode_source
from pipeline.decode.preprocess import VERIFY_INPUT
from pipeline.query.files import resolve_source
from pipeline.scan import SourceFile
from pipeline.thumbnails import encode_thumbnail
from pipeline.verify.alignment import align_and_compare, evaluate_alignments
from pipeline.verify.evidence import FEATURES
from pipeline.verify.features import ImageFeatures
from pipeline.verify.inputs import build_features_from_jpeg
from pipeline.verify.matching import Alignment
from scripts.arena import Truth, list_pairs, read_pictures
from scripts.bench_embedder import open_upright
from scripts.generators.pairs import encode_again, make_pairs
from scripts.generators.truth import MadeTruth

PHOTOS_PER_BATCH = 150
PAIRS_PER_BATCH = 320
COPIED_PHOTOS = 4  # by each synthetic edit
LOOKALIKE_PAIRS = 100
CLASS_OF_TRUTH = {
    Truth.COPY: "copy",
    Truth.NEIGHBOR: "shot",
    Truth.SHOT: "shot",
    Truth.TEMPLATE: "template",
    Truth.STRANGER: "other",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A pair of a source: its class, one of CLASSES or "other", how it was made, its features."""

    source: str
    class_: str
    kind: str
    vector: NDArray[np.float64]


def load_features(image: Image.Image) -> ImageFeatures:
    """Build the features of an upright RGB image as a store would."""
    thumbnail = image.copy()
    thumbnail.thumbnail((VERIFY_INPUT.size, VERIFY_INPUT.size), Image.Resampling.LANCZOS)
    return _build_features(np.asarray(thumbnail), image.size)


def load_file(path: Path) -> ImageFeatures | None:
    """Build the features of a file; None if it cannot be read."""
    source = resolve_source(str(path))
    decoded = decode_source(source, VERIFY_INPUT) if isinstance(source, SourceFile) else None
    if not isinstance(decoded, Decoded):
        return None
    return _build_features(decoded.pixels, (decoded.image.width, decoded.image.height))


def _build_features(rgb: NDArray[np.uint8], size: tuple[int, int]) -> ImageFeatures:
    return build_features_from_jpeg(encode_thumbnail(rgb), size)


def measure_pair(
    source: str, class_: str, kind: str, images: tuple[ImageFeatures, ImageFeatures]
) -> list[Sample]:
    """Measure each alignment that is judged; of a copy, the one with the most agreement."""
    first, second = images if images[0] <= images[1] else images[::-1]
    measured = evaluate_alignments(first, second, _measure_alignment)
    vectors = [vector for vector in measured if vector is not None]
    if class_ == "copy" and vectors:
        agreeing = FEATURES.index("agreeing")
        vectors = [max(vectors, key=lambda vector: float(vector[agreeing]))]
    return [Sample(source, class_, kind, vector) for vector in vectors]


def _measure_alignment(
    alignment: Alignment, first: ImageFeatures, second: ImageFeatures
) -> NDArray[np.float64] | None:
    aligned = align_and_compare(alignment, first, second)
    return aligned.measure_evidence().to_vector() if aligned and aligned.is_judged else None


def measure_set(arena: Path, set_name: str) -> list[Sample]:
    """Measure the pairs of a set of the arena."""
    pictures = read_pictures(arena, set_name)
    features = {picture.path: load_file(picture.path) for picture in pictures}
    samples = list[Sample]()
    for pair in list_pairs(pictures):
        first, second = features[pair.first.path], features[pair.second.path]
        if first and second:
            class_ = CLASS_OF_TRUTH[pair.truth]
            samples += measure_pair(set_name, class_, pair.kind, (first, second))
    return samples


def measure_made_pairs(photos: Sequence[Path], seed: int) -> list[Sample]:
    """Measure pairs of all generators; pairs that overlap are no matter of the judge."""
    chosen = random.Random(seed).sample(photos, min(PHOTOS_PER_BATCH, len(photos)))
    samples = list[Sample]()
    for pair in make_pairs(chosen, seed, PAIRS_PER_BATCH):
        if pair.truth is not MadeTruth.OVERLAP:
            is_moved = pair.kind == "moved thing"
            other = "shot" if is_moved else "template"
            class_ = "copy" if pair.truth is MadeTruth.COPY else other
            images = load_features(pair.first), load_features(pair.second)
            samples += measure_pair(f"made {pair.source}", class_, pair.kind, images)
    return samples


def measure_synthetic_copies(photos: Sequence[Path], seed: int) -> list[Sample]:
    """Measure the copies of a few photos, and pairs of the same edit of two photos."""
    rng = random.Random(seed)
    drawn = [open_upright(path) for path in rng.sample(photos, 2 * COPIED_PHOTOS)]
    images, others = drawn[:COPIED_PHOTOS], drawn[COPIED_PHOTOS:]
    originals = [load_features(image) for image in images]
    samples = list[Sample]()
    for kind, edit in (EVERYDAY_EDITS | HARD_EDITS).items():
        copies = [
            load_features(encode_again(edit(image, other, rng), rng))
            for image, other in zip(images, others, strict=True)
        ]
        for original, copy in zip(originals, copies, strict=True):
            samples += measure_pair("synthetic", "copy", kind, (original, copy))
        samples += measure_pair("synthetic, same edit", "template", kind, (copies[0], copies[1]))
    return samples


def measure_lookalikes(files: Sequence[Path], seed: int) -> list[Sample]:
    """Measure neighbors in a folder without copies."""
    samples = list[Sample]()
    count = min(LOOKALIKE_PAIRS, len(files) - 1)
    starts = random.Random(seed).sample(range(len(files) - 1), count)
    for start in starts:
        images = [load_file(path) for path in files[start : start + 2]]
        if images[0] and images[1]:
            samples += measure_pair("look-alikes", "shot", "", (images[0], images[1]))
    return samples


def save_samples(samples: Sequence[Sample], path: Path) -> None:
    """Save samples as a NumPy archive, by any name."""
    names = [[sample.source, sample.class_, sample.kind] for sample in samples]
    vectors = [sample.vector for sample in samples]
    with path.open("wb") as file:  # NumPy appends .npz to a path that has no such end
        np.savez(file, names=names, vectors=vectors, features=FEATURES)


def load_samples(path: Path) -> list[Sample]:
    """Load saved samples. Raises ValueError if other features were measured."""
    with np.load(path) as archive:
        if tuple(archive["features"].tolist()) != FEATURES:
            raise ValueError(f"{path}: other features were measured; delete it")
        return [
            Sample(source, class_, kind, vector)
            for (source, class_, kind), vector in zip(
                archive["names"].tolist(), archive["vectors"], strict=True
            )
        ]
