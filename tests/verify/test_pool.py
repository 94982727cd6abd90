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

from pipeline.errors import VerifierCrashed
from pipeline.thumbnails import decode_thumbnail, encode_thumbnail
from pipeline.verify import pool as verifiers
from pipeline.verify.features import (
    MAX_KEYPOINTS,
    extract_features,
    features_from_pixels,
    features_from_thumbnail,
    has_current_format,
)
from pipeline.verify.inputs import VerifyInput
from pipeline.verify.pool import VerifierPool
from pipeline.verify.verify import verify
from pipeline.workers import process as child
from tests.support.images import draw_textured_image


def drawing(number: int, picture: Image.Image) -> VerifyInput:
    small = encode_thumbnail(np.asarray(picture))
    return VerifyInput(
        bytes([number]), small, extract_features(decode_thumbnail(small)), picture.size
    )


def test_processes_say_what_one_says_in_the_order_that_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verifiers, "MAX_ITEMS_PER_REQUEST", 3)
    pictures = [draw_textured_image(seed, (320, 240)) for seed in range(4)]
    pictures += [picture.crop((20, 10, 300, 220)) for picture in pictures]
    drawings = [drawing(number, picture) for number, picture in enumerate(pictures)]
    pairs = [(one, other) for one in drawings for other in drawings if one is not other]
    with VerifierPool(2, max_without_workers=0) as several:
        assert several.extract_features([one.jpeg for one in drawings]) == [
            one.features for one in drawings
        ]
        assert several.verify([]) == []
        found = several.verify(pairs)
    assert found == [
        verify(*(features_from_thumbnail(one.jpeg, one.features, one.size) for one in pair))
        for pair in pairs
    ]


def test_a_few_are_done_without_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    one, other = (
        drawing(1, draw_textured_image(1, (320, 240))),
        drawing(2, draw_textured_image(1, (320, 240)).crop((20, 10, 300, 220))),
    )
    with VerifierPool(1) as few:
        assert few.extract_features([one.jpeg]) == [one.features]
        assert few.verify([(one, other)]) == [
            verify(
                *(
                    features_from_thumbnail(each.jpeg, each.features, each.size)
                    for each in (one, other)
                )
            )
        ]
        with pytest.raises(VerifierCrashed):
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
    pictures = [encode_thumbnail(np.asarray(draw_textured_image(1, (120, 90))))]
    with VerifierPool(1, max_without_workers=0) as one:
        before = one.extract_features(pictures)
        os.kill(started[0].pid, signal.SIGKILL)
        started[0].wait()
        assert one.extract_features(pictures) == before
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_what_ends_a_process_costs_nothing_else(started: Started) -> None:
    pictures = [
        encode_thumbnail(np.asarray(draw_textured_image(seed, (120, 90)))) for seed in range(3)
    ]
    with VerifierPool(2, max_without_workers=0) as several:
        sound = several.extract_features(pictures)
        assert several.extract_features([pictures[0], b"no picture", *pictures[1:]]) == [
            sound[0],
            None,
            *sound[1:],
        ]
        assert several.extract_features(pictures) == sound


def test_where_all_ends_processes_it_is_not_the_pictures(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VerifierPool(1, max_without_workers=0) as one:
        assert one.extract_features([b"no picture"] * 5) == [None] * 5  # however many
    real = child.spawn
    monkeypatch.setattr(child, "spawn", lambda module, *rest: real("pipeline.nothing", *rest))
    with (
        VerifierPool(1, max_without_workers=0) as one,
        pytest.raises(VerifierCrashed, match=r"exited with 1.*Run the same command again"),
    ):
        one.extract_features([b"no picture"])


def test_one_who_stops_does_not_wait_for_a_process_that_does_not_answer(started: Started) -> None:
    one = VerifierPool(1, max_without_workers=0)
    pictures = [encode_thumbnail(np.asarray(draw_textured_image(1, (120, 90))))]
    one.extract_features(pictures)
    os.kill(started[0].pid, signal.SIGSTOP)
    one.submit_pairs([(drawing(1, draw_textured_image(1, (120, 90))),) * 2])
    one.close()
    assert started[0].returncode == -signal.SIGKILL


def test_a_process_that_does_not_start_is_told_of(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with (
        VerifierPool(1, max_without_workers=0) as one,
        pytest.raises(VerifierCrashed, match="No such file"),
    ):
        one.extract_features([b""])


@given(st.integers(0, 2**32 - 1), st.sampled_from([(32, 32), (300, 40), (448, 448), (5, 448)]))
@settings(max_examples=15, deadline=None)
def test_features_can_be_read_again(seed: int, size: tuple[int, int]) -> None:
    """Whatever there is to be seen, and however little of it."""
    rng = np.random.default_rng(seed)
    grain = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    kept = extract_features(np.asarray(grain))
    assert has_current_format(kept)
    assert not has_current_format(kept[:-1])
    assert not has_current_format(b"")
    found = features_from_pixels(np.asarray(grain), size).keypoints
    assert len(found.points) <= MAX_KEYPOINTS
    assert (found.points >= 0).all()
    assert (found.points <= np.array(size)).all()
    assert (0 <= found.angles).all()
    assert (found.angles < 360).all()
    assert np.allclose(np.linalg.norm(found.descriptors, axis=1), 1.0, atol=1e-5)
