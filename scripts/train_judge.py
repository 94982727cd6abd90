"""Fit the judge of pairs on pairs of known truth from many sources, and write it as JSON.

    python -m scripts.train_judge ARENA PHOTOS LOOKALIKES

Sources: the `fit` sets of ARENA; the generators of scripts/generators and the edits of
pipeline/calibrate/synthetic_copies.py on PHOTOS, folders of photos that all differ; neighbors in
LOOKALIKES, a folder in which no two files are copies. Each source is left out once, and judged by a
model that was fitted on the others: the table that is printed says how many copies of a source are
found then, and how many other pairs are called copies. The model that is written is fitted on all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from pipeline.verify.evidence import FEATURES
from pipeline.verify.judge import CLASSES, MODEL_FILE
from pipeline.verify.judgement import MIN_CLEAN_AGREEMENT
from scripts.arena import Role, list_sets
from scripts.bench_embedder import format_table
from scripts.judge_samples import (
    COPIED_PHOTOS,
    PAIRS_PER_BATCH,
    Sample,
    load_samples,
    measure_lookalikes,
    measure_made_pairs,
    measure_set,
    measure_synthetic_copies,
    save_samples,
)

JUDGE_FILE = Path(__file__).parent.parent / "pipeline" / "verify" / MODEL_FILE
MAX_TREE_DEPTH = 4
TREES_PER_CLASS = 160
LEARNING_RATE = 0.1
MIN_LEAF_SAMPLES = 15
L2_REGULARIZATION = 5.0  # of the values of leaves
FULL_WEIGHT_PAIRS = 600  # of a source; the weight of all its pairs grows with the root beyond
# Sources that are left out together, because they have pictures or layouts in common.
FAMILIES = {
    "synthetic, same edit": "synthetic",
    "made browser": "made pages",
    "made drawn screens": "made pages",
    "made templates": "made pages",
}
# The least probabilities that make a copy, by what they cost on sources that were left out; see
# the table that is printed.
MIN_CLEAN_COPY = 0.2
MIN_ALTERED_COPY = 0.8
REPORTED_PROBABILITIES = (0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98)
# Files in the folders of the command line: each batch of synthetic copies draws photos to copy, and
# as many to paste them on; look-alikes are pairs.
MIN_PHOTOS = 2 * COPIED_PHOTOS
MIN_LOOKALIKES = 2
DIGITS = 5  # of baselines and values; thresholds are exact, so that pairs go as in scikit-learn

Model = Any  # scikit-learn has no types
Floats = NDArray[np.float64]


def measure_all(options: argparse.Namespace) -> list[Sample]:
    """Measure the pairs of all sources, in processes."""
    photos = sorted(path for path in options.photos.rglob("*") if path.is_file())
    files = sorted(path for path in options.lookalikes.rglob("*") if path.is_file())
    sets = list_sets(options.arena, Role.FIT)
    jobs: list[Callable[[], list[Sample]]] = [
        *(
            partial(measure_made_pairs, photos, seed)
            for seed in range(max(1, options.pairs // PAIRS_PER_BATCH))
        ),
        *(partial(measure_set, options.arena, set_name) for set_name in sets),
        *(partial(measure_synthetic_copies, photos, seed) for seed in range(options.batches)),
        *(partial(measure_lookalikes, files, seed) for seed in range(options.batches)),
    ]
    with ProcessPoolExecutor() as processes:
        futures = [processes.submit(job) for job in jobs]
        return [sample for future in futures for sample in future.result()]


def fit(samples: Sequence[Sample], class_: str) -> Model:
    """Fit the trees of one class against all others, with equal weight for both."""
    model = HistGradientBoostingClassifier(
        max_depth=MAX_TREE_DEPTH,
        max_iter=TREES_PER_CLASS,
        learning_rate=LEARNING_RATE,
        l2_regularization=L2_REGULARIZATION,
        min_samples_leaf=MIN_LEAF_SAMPLES,
        early_stopping=False,  # by default a tenth of more than 10,000 samples would be held out
        random_state=0,
    )
    is_class = np.array([sample.class_ == class_ for sample in samples])
    model.fit(stack_vectors(samples), is_class, sample_weight=weigh(samples, is_class))
    return model


def stack_vectors(samples: Sequence[Sample]) -> Floats:
    """Stack the features of samples, (samples, features)."""
    return np.array([sample.vector for sample in samples])


def weigh(samples: Sequence[Sample], is_class: NDArray[np.bool_]) -> Floats:
    """Weigh samples so that no source decides alone, and both classes count the same."""
    keys = [(sample.source, bool(flag)) for sample, flag in zip(samples, is_class, strict=True)]
    counts = Counter(keys)
    weights = np.array([min(1.0, (FULL_WEIGHT_PAIRS / counts[key]) ** 0.5) for key in keys])
    weights[is_class] *= weights[~is_class].sum() / weights[is_class].sum()
    return weights


def predict_left_out(samples: Sequence[Sample]) -> Floats:
    """Predict P(copy) of each sample by a model that was fitted on all other sources."""
    families = np.array([FAMILIES.get(sample.source, sample.source) for sample in samples])
    predicted = np.zeros(len(samples))
    for family in sorted(set(families)):
        others = [sample for sample, name in zip(samples, families, strict=True) if name != family]
        held_out = np.flatnonzero(families == family)
        vectors = stack_vectors([samples[int(index)] for index in held_out])
        predicted[held_out] = fit(others, "copy").predict_proba(vectors)[:, 1]
    return predicted


def report(samples: Sequence[Sample], predicted: Floats) -> str:
    """Tabulate copies found and others called copies: by probability, and by source."""
    is_copy = np.array([sample.class_ == "copy" for sample in samples])
    is_clean = stack_vectors(samples)[:, FEATURES.index("agreeing")] >= MIN_CLEAN_AGREEMENT
    rows: list[list[object]] = []
    for name, tier in (("clean", is_clean), ("altered", ~is_clean)):
        for probability in REPORTED_PROBABILITIES:
            found = predicted >= probability
            rows.append(
                [
                    f"{name}, P(copy) >= {probability}",
                    f"{(tier & is_copy & found).sum()}/{(tier & is_copy).sum()}",
                    f"{(tier & ~is_copy & found).sum()}/{(tier & ~is_copy).sum()}",
                ]
            )
    accepted = predicted >= np.where(is_clean, MIN_CLEAN_COPY, MIN_ALTERED_COPY)
    sources = np.array([sample.source for sample in samples])
    by_source: list[list[object]] = []
    for source in sorted(set(sources)):
        copies, others = (sources == source) & is_copy, (sources == source) & ~is_copy
        counts = [
            f"{(accepted & kind).sum()}/{kind.sum()}" if kind.any() else ""
            for kind in (copies, others)
        ]
        by_source.append([source, *counts])
    header = ["copies found", "others called copies"]
    return (
        format_table(["alignments", *header], rows)
        + "\n"
        + format_table(["source, left out", *header], by_source)
    )


def rank_features(models: Iterable[Model]) -> list[tuple[str, float]]:
    """Rank the features by the gain of all splits on them, as a share of all gains."""
    gains = dict.fromkeys(FEATURES, 0.0)
    for model in models:
        for (tree,) in model._predictors:
            for node in tree.nodes:
                if not node["is_leaf"]:
                    gains[FEATURES[node["feature_idx"]]] += float(node["gain"])
    total = sum(gains.values())
    ranked = sorted(gains.items(), key=lambda item: -item[1])
    return [(name, gain / total) for name, gain in ranked]


def export(models: Sequence[Model]) -> dict[str, Any]:
    """Convert models, one for each of CLASSES, to the JSON that the judge reads."""
    record: dict[str, Any] = {
        "classes": list(CLASSES),
        "feature_names": list(FEATURES),
        "min_clean_copy": MIN_CLEAN_COPY,
        "min_altered_copy": MIN_ALTERED_COPY,
        "baseline": [round(float(model._baseline_prediction.item()), DIGITS) for model in models],
        "tree_classes": [],
        "features": [],
        "thresholds": [],
        "values": [],
    }
    for number, model in enumerate(models):
        for (tree,) in model._predictors:
            features, thresholds, values = complete_tree(tree.nodes)
            record["tree_classes"].append(number)
            record["features"].append(features)
            record["thresholds"].append(thresholds)
            record["values"].append(values)
    text = json.dumps(record, sort_keys=True)
    return {"version": hashlib.sha256(text.encode()).hexdigest()[:12], **record}


def complete_tree(nodes: NDArray[Any]) -> tuple[list[int], list[float], list[float]]:
    """Convert a tree to a complete one of MAX_TREE_DEPTH: below a leaf both ways lead to it.

    Returns the features and thresholds of the inner nodes, and the values of the leaves, by level.
    """
    level, features, thresholds = [0], list[int](), list[float]()
    for _ in range(MAX_TREE_DEPTH):
        children = list[int]()
        for index in level:
            node = nodes[index]
            is_leaf = bool(node["is_leaf"])
            features.append(0 if is_leaf else int(node["feature_idx"]))
            thresholds.append(0.0 if is_leaf else float(node["num_threshold"]))
            children += [index, index] if is_leaf else [int(node["left"]), int(node["right"])]
        level = children
    return features, thresholds, [round(float(nodes[index]["value"]), DIGITS) for index in level]


def main() -> None:
    """Measure, print the tables, fit, and write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arena", type=Path, metavar="ARENA")
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("lookalikes", type=Path, metavar="LOOKALIKES")
    parser.add_argument("--pairs", type=int, default=9600, help="pairs that generators make")
    parser.add_argument("--batches", type=int, default=30, help="of synthetic copies, look-alikes")
    parser.add_argument("--out", type=Path, default=JUDGE_FILE, help="default: %(default)s")
    parser.add_argument(
        "--samples", type=Path, help="file of measured pairs, made if it is not there"
    )
    options = parser.parse_args()
    for folder, least in ((options.photos, MIN_PHOTOS), (options.lookalikes, MIN_LOOKALIKES)):
        if sum(path.is_file() for path in folder.rglob("*")) < least:
            parser.error(f"{folder} has fewer than {least} files")
    if options.samples and options.samples.exists():
        samples = load_samples(options.samples)
    else:
        samples = measure_all(options)
    if options.samples and not options.samples.exists():
        save_samples(samples, options.samples)
    print(report(samples, predict_left_out(samples)))
    models = [fit(samples, class_) for class_ in CLASSES]
    ranked = [[name, share] for name, share in rank_features(models[:1])]
    print(format_table(["feature", "share of the gain, P(copy)"], ranked))
    options.out.write_text(json.dumps(export(models), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
