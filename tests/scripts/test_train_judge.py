"""The training of the judge: what is exported judges as scikit-learn does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra train is not installed")

from pipeline.verify.evidence import FEATURES
from pipeline.verify.judge import CLASSES, parse_model
from scripts import train_judge
from scripts.judge_samples import Sample, load_samples, save_samples
from scripts.train_judge import (
    MIN_ALTERED_COPY,
    MIN_CLEAN_COPY,
    export,
    fit,
    predict_left_out,
    report,
)

# Scikit-learn finds the bins of up to 255 values of a feature at once, of more in seconds.
SAMPLE_COUNT = 240


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Samples of two sources in which copies agree and shots do not."""
    rng, agreeing = np.random.default_rng(1), FEATURES.index("agreeing")
    made = []
    for number in range(SAMPLE_COUNT):
        vector = rng.normal(0, 1, len(FEATURES))
        class_ = ("copy", "shot", "template", "other")[number % 4]
        vector[agreeing] = rng.normal(0.95 if class_ == "copy" else 0.5, 0.1)
        made.append(Sample(f"source {number % 3}", class_, "kind", vector))
    return made


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_judge, "TREES_PER_CLASS", 24)


def test_exported_trees_give_the_probabilities_of_scikit_learn(samples: list[Sample]) -> None:
    models = [fit(samples, class_) for class_ in CLASSES]
    judge = parse_model(json.loads(json.dumps(export(models))))
    vectors = np.array([sample.vector for sample in samples])
    expected = np.stack([model.predict_proba(vectors)[:, 1] for model in models], axis=1)
    computed = np.array([judge.compute_probabilities(vector) for vector in vectors])
    assert np.allclose(computed, expected, atol=2e-3)
    assert (judge.min_clean_copy, judge.min_altered_copy) == (
        MIN_CLEAN_COPY,
        MIN_ALTERED_COPY,
    )


def test_many_samples_are_all_fitted_on(samples: list[Sample]) -> None:
    assert SAMPLE_COUNT * 42 > 10_000
    assert not len(fit(samples * 42, "copy").validation_score_)


def test_source_that_is_left_out_is_judged_by_the_others(samples: list[Sample]) -> None:
    predicted = predict_left_out(samples)
    is_copy = np.array([sample.class_ == "copy" for sample in samples])
    assert predicted[is_copy].mean() > 0.8 > 0.2 > predicted[~is_copy].mean()
    text = report(samples, predicted)
    for source in ("source 0", "source 1", "source 2"):
        assert f"| {source} |" in text


@pytest.mark.parametrize("name", ["samples.npz", "samples"])
def test_saved_samples_are_those_that_were_measured(
    samples: list[Sample], tmp_path: Path, name: str
) -> None:
    save_samples(samples, tmp_path / name)
    loaded = load_samples(tmp_path / name)
    assert [sample.source for sample in loaded] == [sample.source for sample in samples]
    assert all(
        (first.vector == second.vector).all() for first, second in zip(loaded, samples, strict=True)
    )
