"""The evidence of pairs of known truth, as the judge is trained on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.verify import alignment as alignment_module
from pipeline.verify.features import ImageFeatures
from pipeline.verify.matching import Alignment, propose_alignments
from scripts.judge_samples import measure_pair
from tests.support.verification import PHOTO, extract


def test_singular_alignment_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def propose(*images: ImageFeatures) -> Iterator[Alignment]:
        yield from (Alignment(np.ones((3, 3)), 100), *propose_alignments(*images))

    images = extract(PHOTO), extract(PHOTO.resize((400, 267)))
    (expected,) = measure_pair("drawn", "copy", "resize", images)
    monkeypatch.setattr(alignment_module, "propose_alignments", propose)
    (measured,) = measure_pair("drawn", "copy", "resize", images)
    assert (measured.vector == expected.vector).all()
