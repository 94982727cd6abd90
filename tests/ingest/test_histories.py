"""Whatever happened to a library and to its ingests, its groups are those of one ingest."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from scripts.history_pictures import load_photos
from scripts.history_runs import HistoryContext, prepare_context, run_history
from scripts.library_histories import Ending, make_history

MAX_NIGHTS = 4
PICTURES = {
    "shot.jpg",
    "other shot.jpg",
    "shot, small.jpg",
    "shot, cropped.jpg",
    "photo.png",
    "photo.bmp",
    "photo, stickers.jpg",
    "collage.jpg",
    "blank.png",
    "animation.gif",
}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> HistoryContext:
    """Pictures, and the cached results of the stages."""
    return prepare_context(tmp_path_factory.mktemp("histories"), load_photos(None), only=PICTURES)


@pytest.mark.parametrize("few_candidates", [False, True])
def test_any_history_gives_the_groups_of_one_ingest(
    context: HistoryContext, few_candidates: bool
) -> None:
    """scripts/bench_histories.py runs thousands more, and prints how to get one that differs."""
    context = replace(context, few_candidates=few_candidates)
    endings, group_count = set[Ending](), 0
    for seed in range(8):
        rng = random.Random(seed)
        history = make_history(rng, context.contents, rng.randint(2, MAX_NIGHTS))
        outcome = run_history(context, history)
        assert outcome.nightly == outcome.at_once, (seed, history)
        endings |= outcome.endings.keys()
        group_count += len(outcome.at_once[0])
    assert endings == set(Ending)
    assert group_count > 8
