"""The processes that verify pairs: they say what verify() says, and one that ends early is told of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import BadVerifier
from pipeline.thumbnails import shown, thumb
from pipeline.verify import pool as verifiers
from pipeline.verify.features import MOST, are_features, drawn, features, sketch
from pipeline.verify.inputs import Drawing
from pipeline.verify.pool import Verifiers
from pipeline.verify.verify import verify
from pipeline.workers import process as child
from tests.conftest import photo


def drawing(number: int, picture: Image.Image) -> Drawing:
    small = thumb(np.asarray(picture))
    return Drawing(bytes([number]), small, features(shown(small)), picture.size)


def test_processes_say_what_one_says_in_the_order_that_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiers, "CHUNK", 3)
    pictures = [photo(seed, (320, 240)) for seed in range(4)]
    pictures += [picture.crop((20, 10, 300, 220)) for picture in pictures]
    drawings = [drawing(number, picture) for number, picture in enumerate(pictures)]
    pairs = [(one, other) for one in drawings for other in drawings if one is not other]
    with Verifiers(2, few=0) as several:
        assert several.features([one.picture for one in drawings]) == [one.features for one in drawings]
        assert several.verify([]) == []
        found = several.verify(pairs)
    assert found == [verify(*(drawn(one.picture, one.features, one.size) for one in pair)) for pair in pairs]


def test_a_few_are_done_without_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    one, other = drawing(1, photo(1, (320, 240))), drawing(2, photo(1, (320, 240)).crop((20, 10, 300, 220)))
    with Verifiers(1) as few:
        assert few.features([one.picture]) == [one.features]
        assert few.verify([(one, other)]) == [verify(*(drawn(each.picture, each.features, each.size) for each in (one, other)))]
        with pytest.raises(BadVerifier):
            few.verify([(one, other)] * 100)


Started = list[subprocess.Popen[bytes]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The processes that were started."""
    found: Started = []
    real = subprocess.Popen

    def remembered(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        found.append(real(*args, **options))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    return found


def test_another_takes_the_place_of_a_process_that_was_ended(started: Started) -> None:
    pictures = [thumb(np.asarray(photo(1, (120, 90))))]
    with Verifiers(1, few=0) as one:
        before = one.features(pictures)
        os.kill(started[0].pid, signal.SIGKILL)
        started[0].wait()
        assert one.features(pictures) == before
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_what_ends_a_process_costs_nothing_else(started: Started) -> None:
    pictures = [thumb(np.asarray(photo(seed, (120, 90)))) for seed in range(3)]
    with Verifiers(2, few=0) as several:
        sound = several.features(pictures)
        assert several.features([pictures[0], b"no picture", *pictures[1:]]) == [sound[0], None, *sound[1:]]
        assert several.features(pictures) == sound


def test_where_all_ends_processes_it_is_not_the_pictures(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    with Verifiers(1, few=0) as one:
        assert one.features([b"no picture"] * 5) == [None] * 5  # however many
    real = child.begun
    monkeypatch.setattr(child, "begun", lambda module, *rest: real("pipeline.nothing", *rest))
    with Verifiers(1, few=0) as one, pytest.raises(BadVerifier, match=r"ended with 1.*Run the same command again"):
        one.features([b"no picture"])


def test_one_who_stops_does_not_wait_for_a_process_that_does_not_answer(started: Started) -> None:
    one = Verifiers(1, few=0)
    pictures = [thumb(np.asarray(photo(1, (120, 90))))]
    one.features(pictures)
    os.kill(started[0].pid, signal.SIGSTOP)
    one.verifying([(drawing(1, photo(1, (120, 90))),) * 2])
    one.close()
    assert started[0].returncode == -signal.SIGKILL


def test_a_process_that_does_not_start_is_told_of(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Verifiers(1, few=0) as one, pytest.raises(BadVerifier, match="No such file"):
        one.features([b""])


@given(st.integers(0, 2**32 - 1), st.sampled_from([(32, 32), (300, 40), (448, 448), (5, 448)]))
@settings(max_examples=15, deadline=None)
def test_features_can_be_read_again(seed: int, size: tuple[int, int]) -> None:
    """Whatever there is to be seen, and however little of it."""
    rng = np.random.default_rng(seed)
    grain = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    kept = features(np.asarray(grain))
    assert are_features(kept)
    assert not are_features(kept[:-1])
    assert not are_features(b"")
    found = sketch(np.asarray(grain), size).keypoints
    assert len(found.places) <= MOST
    assert (found.places >= 0).all()
    assert (found.places <= np.array(size)).all()
    assert (0 <= found.angles).all()
    assert (found.angles < 360).all()
    assert np.allclose(np.linalg.norm(found.looks, axis=1), 1.0, atol=1e-5)
