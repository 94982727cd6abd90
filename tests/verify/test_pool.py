"""Verification in worker processes: same answers as verify(), and crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import VerifierCrashed
from pipeline.thumbnails import decode_thumbnail, encode_thumbnail
from pipeline.verify import pool
from pipeline.verify.features import (
    ImageFeatures,
    build_features_from_thumbnail,
    extract_features,
    has_current_format,
)
from pipeline.verify.inputs import VerifyInput
from pipeline.verify.keypoints import MAX_KEYPOINTS, MAX_REGION_KEYPOINTS
from pipeline.verify.pool import VerifierPool
from pipeline.verify.verify import verify
from pipeline.workers import process as child
from tests.support.images import draw_textured_image
from tests.support.verification import build_features_from_pixels


def make_verify_input(number: int, image: Image.Image) -> VerifyInput:
    jpeg = encode_thumbnail(np.asarray(image))
    return VerifyInput(bytes([number]), jpeg, extract_features(decode_thumbnail(jpeg)), image.size)


def load_features(item: VerifyInput) -> ImageFeatures:
    return build_features_from_thumbnail(item.jpeg, item.features, item.size)


def test_workers_verify_like_one_process_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "MAX_ITEMS_PER_REQUEST", 3)
    images = [draw_textured_image(seed, (320, 240)) for seed in range(4)]
    images += [image.crop((20, 10, 300, 220)) for image in images]
    inputs = [make_verify_input(number, image) for number, image in enumerate(images)]
    pairs = list(permutations(inputs, 2))
    with VerifierPool(2, max_without_workers=0) as verifiers:
        assert verifiers.extract_features([item.jpeg for item in inputs]) == [
            item.features for item in inputs
        ]
        assert verifiers.verify([]) == []
        verdicts = verifiers.verify(pairs)
    assert verdicts == [verify(*map(load_features, pair)) for pair in pairs]


def test_few_items_are_handled_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    first, second = (
        make_verify_input(1, draw_textured_image(1, (320, 240))),
        make_verify_input(2, draw_textured_image(1, (320, 240)).crop((20, 10, 300, 220))),
    )
    with VerifierPool(1) as verifiers:
        assert verifiers.extract_features([first.jpeg]) == [first.features]
        assert verifiers.verify([(first, second)]) == [
            verify(load_features(first), load_features(second))
        ]
        with pytest.raises(VerifierCrashed):
            verifiers.verify([(first, second)] * 100)


Started = list[subprocess.Popen[bytes]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The processes that the test starts."""
    processes: Started = []
    popen = subprocess.Popen

    def record(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", record)
    return processes


def test_killed_worker_is_replaced(started: Started) -> None:
    jpegs = [encode_thumbnail(np.asarray(draw_textured_image(1, (120, 90))))]
    with VerifierPool(1, max_without_workers=0) as verifiers:
        before = verifiers.extract_features(jpegs)
        os.kill(started[0].pid, signal.SIGKILL)
        started[0].wait()
        assert verifiers.extract_features(jpegs) == before
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_item_that_crashes_workers_fails_alone(started: Started) -> None:
    jpegs = [
        encode_thumbnail(np.asarray(draw_textured_image(seed, (120, 90)))) for seed in range(3)
    ]
    with VerifierPool(2, max_without_workers=0) as verifiers:
        features = verifiers.extract_features(jpegs)
        assert verifiers.extract_features([jpegs[0], b"no JPEG", *jpegs[1:]]) == [
            features[0],
            None,
            *features[1:],
        ]
        assert verifiers.extract_features(jpegs) == features


def test_worker_that_crashes_at_start_fails_no_item(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VerifierPool(1, max_without_workers=0) as verifiers:
        assert verifiers.extract_features([b"no JPEG"] * 5) == [None] * 5  # however many crash
    spawn = child.spawn
    monkeypatch.setattr(child, "spawn", lambda module, *args: spawn("pipeline.nothing", *args))
    with (
        VerifierPool(1, max_without_workers=0) as verifiers,
        pytest.raises(VerifierCrashed, match=r"exited with 1.*Run the same command again"),
    ):
        verifiers.extract_features([b"no JPEG"])


def test_close_does_not_wait_for_stopped_worker(started: Started) -> None:
    verifiers = VerifierPool(1, max_without_workers=0)
    jpegs = [encode_thumbnail(np.asarray(draw_textured_image(1, (120, 90))))]
    verifiers.extract_features(jpegs)
    os.kill(started[0].pid, signal.SIGSTOP)
    verifiers.submit_pairs([(make_verify_input(1, draw_textured_image(1, (120, 90))),) * 2])
    verifiers.close()
    assert started[0].returncode == -signal.SIGKILL


def test_worker_that_does_not_start_raises(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with (
        VerifierPool(1, max_without_workers=0) as verifiers,
        pytest.raises(VerifierCrashed, match="No such file"),
    ):
        verifiers.extract_features([b""])


@given(st.integers(0, 2**32 - 1), st.sampled_from([(32, 32), (300, 40), (448, 448), (5, 448)]))
@settings(max_examples=15, deadline=None)
def test_features_have_current_format_and_valid_keypoints(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    features = extract_features(np.asarray(image))
    assert has_current_format(features)
    assert not has_current_format(features[:-1])
    assert not has_current_format(b"")
    keypoints = build_features_from_pixels(np.asarray(image), size).keypoints
    assert len(keypoints.points) <= MAX_KEYPOINTS + MAX_REGION_KEYPOINTS
    assert (keypoints.points >= 0).all()
    assert (keypoints.points <= np.array(size)).all()
    assert (0 <= keypoints.angles).all()
    assert (keypoints.angles < 360).all()
    descriptors = np.hstack([keypoints.even, keypoints.odd])
    assert np.allclose(np.linalg.norm(descriptors, axis=1), 1.0, atol=1e-5)
