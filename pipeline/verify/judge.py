"""Judge the evidence of a pair by a fitted model: the probability of each kind of truth.

The model is a sum of shallow decision trees for each class (gradient boosting, Friedman 2001),
fitted by scripts/train_judge.py on pairs from many sources, and kept as JSON beside this module.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.verify.evidence import FEATURES, Evidence
from pipeline.verify.judgement import Judgement

MODEL_FILE = "judge.json"
CLASSES = ("copy", "shot", "template")


@dataclass(frozen=True, slots=True)
class JudgeModel:
    """Trees of equal depth: node n has the children 2 n + 1 and 2 n + 2.

    `features` and `thresholds` (trees, inner nodes): a pair goes left if the feature is <= the
    threshold. `values` (trees, leaves); `tree_classes` (trees,) says which class a tree votes for;
    `baseline` (classes,) are the sums without any tree. `min_clean_copy` and `min_altered_copy`
    are the least probabilities (>=) that make a copy of a pair that agrees nearly everywhere, and
    of one that is altered in places.
    """

    version: str
    features: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    values: NDArray[np.float64]
    tree_classes: NDArray[np.int64]
    baseline: NDArray[np.float64]
    min_clean_copy: float
    min_altered_copy: float

    def judge(self, evidence: Evidence) -> Judgement:
        """Compute the probabilities of a pair."""
        copy, shot, template = (
            round(float(probability), 4)
            for probability in self.compute_probabilities(evidence.to_vector())
        )
        noise_ncc = round(evidence.agreement.noise_ncc, 4)
        return Judgement(copy, shot, template, noise_ncc, self.version)

    def compute_probabilities(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute each probability by the logistic function of the sum of its trees.

        `vector` has the features in the order of FEATURES; the result is in that of CLASSES.
        """
        trees = np.arange(len(self.features))
        nodes = np.zeros(len(trees), np.int64)
        inner_nodes = self.features.shape[1]
        while nodes[0] < inner_nodes:
            is_right = vector[self.features[trees, nodes]] > self.thresholds[trees, nodes]
            nodes = 2 * nodes + 1 + is_right
        votes = self.values[trees, nodes - inner_nodes]
        sums = self.baseline + np.bincount(
            self.tree_classes, weights=votes, minlength=len(self.baseline)
        )
        return np.asarray(1.0 / (1.0 + np.exp(-sums)))

    def is_copy(self, judgement: Judgement, *, is_clean: bool) -> bool:
        """Tell if a clean pair, or an altered one, is a copy.

        Its probability must be enough, and nothing else be far likelier.
        """
        least = self.min_clean_copy if is_clean else self.min_altered_copy
        return judgement.copy >= least and not judgement.names_other


@cache
def load_judge() -> JudgeModel:
    """Load the model that is shipped. Raises ValueError if it was fitted on other features."""
    return parse_model(json.loads(files(__package__).joinpath(MODEL_FILE).read_text()))


def parse_model(record: dict[str, Any]) -> JudgeModel:
    """Build a model from its JSON. Raises ValueError if it was fitted on other features."""
    if tuple(record["feature_names"]) != FEATURES or tuple(record["classes"]) != CLASSES:
        raise ValueError("the judge was fitted on other features; run scripts/train_judge.py")
    return JudgeModel(
        record["version"],
        np.array(record["features"]),
        np.array(record["thresholds"]),
        np.array(record["values"]),
        np.array(record["tree_classes"]),
        np.array(record["baseline"]),
        record["min_clean_copy"],
        record["min_altered_copy"],
    )
