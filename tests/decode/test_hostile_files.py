"""Files that crash, hang or corrupt their decoder fail alone."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

import pipeline.decode
from pipeline.decode.decode import Decoded
from pipeline.decode.formats import REJECTION_REASONS, FailureReason
from pipeline.decode.messages import DecodedHeader
from pipeline.decode.pool import DecoderPool
from pipeline.decode.read import Failure
from pipeline.scan import SourceFile
from tests.support.decoders import (
    HEIC,
    PREPROCESS,
    VALID_ANSWER,
    fake_heif_decoder,
    send,
    send_json,
    source,
    start_all,
)
from tests.support.images import DATA_FOLDER, draw_scene, needs_data, save_image

DECODE_FOLDER = Path(pipeline.decode.__file__).parent
HASH_BYTES = 32
# What no process can have meant, in JSON or not.
INVALID_ANSWERS = [
    "no",
    "{}",
    "[]",
    "x" * 70_000,
    "[" * 60_000,
    json.dumps(VALID_ANSWER) + "\n" + json.dumps(VALID_ANSWER),
    json.dumps(VALID_ANSWER | {"format": "\udc80"}),
    # Pixels that it does not send.
    json.dumps(VALID_ANSWER | {"thumbnail_shape": [64, 64]}),
    json.dumps({"reason": "unreadable", "detail": ""}),
    json.dumps({"reason": "\udc80", "detail": ""}),
    json.dumps({"reason": "damaged", "detail": 1}),
]


@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the decoder was killed by SIGSEGV, 2 times"),
        ("os._exit(3)", "the decoder exited with 3, 2 times"),
        ("os.close(int(sys.argv[1])); os._exit(4)", "the decoder exited with 4, 2 times"),
        ("time.sleep(30)", "the decoder took more than 2 seconds, 2 times"),
        ("while True: pass", "the decoder took more than 2 seconds, 2 times"),
    ],
)
def test_file_that_ends_its_decoder_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path, statement: str, detail: str
) -> None:
    others = [save_image(tmp_path / f"{number}.png", draw_scene(number)) for number in range(6)]
    fake_heif_decoder(tmp_path, monkeypatch, statement)
    paths = [*others[:3], heic, *others[3:]]
    with DecoderPool(2, max_seconds=2) as decoders:
        results = list(decoders.stream(map(source, paths), PREPROCESS))
    (failed,) = (result for result in results if isinstance(result, Failure))
    assert (failed.source.path, failed.reason, failed.detail) == (str(heic), "poisoned", detail)
    assert sum(isinstance(result, Decoded) for result in results) == 6


def test_files_whose_decoder_sends_no_valid_answer_fail_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_heif_decoder(tmp_path, monkeypatch, "exec(file.read().partition(b'RUN:')[2])")
    paths = [save_image(tmp_path / "first.png", draw_scene(1))]
    for number, answer in enumerate(INVALID_ANSWERS):
        paths.append(tmp_path / f"{number}.heic")
        paths[-1].write_bytes(HEIC + b"RUN:" + send(answer).encode())
    paths.append(save_image(tmp_path / "last.png", draw_scene(2)))
    with DecoderPool(2) as decoders:
        first, *others, last = decoders.stream(map(source, paths), PREPROCESS)
    assert isinstance(first, Decoded)
    assert isinstance(last, Decoded)
    for result, answer in zip(others, INVALID_ANSWERS, strict=True):
        assert isinstance(result, Failure), answer[:80]
        assert (result.reason, result.detail) == (
            "poisoned",
            "the decoder sent no valid answer, 2 times",
        ), answer[:80]


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": 10**400},
        {"height": 1 << 31},
        {"shape": [64, 63]},
        {"shape": [64, 1 << 40]},
        {"thumbnail_shape": [64]},
        {"thumbnail_shape": [449, 64]},
        {"format": "\udc80"},
        {"format": "P" * 21},
        {"flags": ["damaged"] * 2},
        {"metadata_kinds": ["date", "camera"]},
        {"metadata_kinds": ["date; DROP TABLE images"]},
        {"pixel_hash": ""},
        {"pixel_hash": "5a" * 31},
        {"taken_at": 2.5},
        {"taken_at": 1 << 62},
        {"is_featureless": 1},
    ],
    ids=str,
)
def test_answer_with_an_impossible_field_is_not_valid(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        DecodedHeader.from_json(VALID_ANSWER | change, PREPROCESS, HASH_BYTES)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"width": (1 << 31) - 1, "height": 1},
        {"thumbnail_shape": [448, 64]},
        {"format": "P" * 20},
        {"flags": ["damaged"]},
        {"taken_at": None},
    ],
    ids=str,
)
def test_answer_with_possible_fields_is_valid(change: dict[str, object]) -> None:
    """Fields at their limits; the test above goes beyond these."""
    answer = VALID_ANSWER | change
    header = DecodedHeader.from_json(answer, PREPROCESS, HASH_BYTES)
    assert json.loads(json.dumps(header.to_json())) == answer


def test_valid_answer_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path
) -> None:
    """The answer that those above are made from."""
    fake_heif_decoder(tmp_path, monkeypatch, send_json())
    with DecoderPool(1) as decoders:
        decoded = decoders.decode(source(heic), PREPROCESS)
    assert isinstance(decoded, Decoded)
    assert (decoded.image.width, decoded.image.height) == (40, 30)


def test_detail_of_a_worker_is_made_printable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path
) -> None:
    fake_heif_decoder(
        tmp_path,
        monkeypatch,
        send(json.dumps({"reason": "damaged", "detail": "\udc80\x1b[2J\n\u202e" + "é" * 300})),
    )
    with DecoderPool(1) as decoders:
        failed = decoders.decode(source(heic), PREPROCESS)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail) == ("damaged", "??[2J??" + "é" * 193)


def test_every_reason_in_the_source_is_accepted() -> None:
    for module in ("image", "readers/pillow", "readers/raw", "readers/jxl", "memory"):
        text = (DECODE_FOLDER / f"{module}.py").read_text()
        reasons = set(re.findall(r"FailureReason\.([A-Z_]+)", text))
        assert reasons
        assert {FailureReason[name] for name in reasons} <= REJECTION_REASONS


def test_half_an_answer_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heic: Path
) -> None:
    statement = "signal.setitimer(signal.ITIMER_REAL, 0); os.write(int(sys.argv[1]), b'{')"
    fake_heif_decoder(tmp_path, monkeypatch, f"{statement}; time.sleep(600)")
    monkeypatch.setattr("pipeline.decode.pool.REPLY_GRACE_SECONDS", 0.5)
    with DecoderPool(1, max_seconds=0.5) as decoders:
        failed = decoders.decode(source(heic), PREPROCESS)
    assert isinstance(failed, Failure)
    assert (failed.reason, failed.detail) == (
        "poisoned",
        "the decoder took more than 0.5 seconds, 2 times",
    )


def test_file_that_needs_more_memory_than_the_limit_fails(
    tmp_path: Path, decoders: DecoderPool
) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.zeros((9990, 10_000), np.uint16)).save(path, compress_level=9)
    with DecoderPool(1, max_memory_bytes=200_000_000) as limited:
        failed = limited.decode(source(path), PREPROCESS)
        assert isinstance(failed, Failure)
        assert failed.reason == "too much memory"
        assert isinstance(
            limited.decode(source(save_image(tmp_path / "a.png", draw_scene(1))), PREPROCESS),
            Decoded,
        )
    assert isinstance(decoders.decode(source(path), PREPROCESS), Decoded)


def test_mutated_images_never_crash_a_worker(tmp_path: Path, decoders: DecoderPool) -> None:
    """Flip, cut and repeat bytes of every format 2,500 times, seeded."""
    rng = random.Random(2)
    intact = []
    for suffix in ("jpg", "png", "webp", "gif", "tiff", "bmp", "avif", "jp2"):
        intact.append(
            (
                suffix,
                save_image(tmp_path / f"intact.{suffix}", draw_scene(1, (96, 64))).read_bytes(),
            )
        )
    pillow_heif.from_pillow(draw_scene(1, (96, 64))).save(tmp_path / "intact.heic")
    intact.append(("heic", (tmp_path / "intact.heic").read_bytes()))
    (tmp_path / "mutated").mkdir()

    def sources() -> Iterator[SourceFile]:
        for number in range(2500):
            suffix, data = rng.choice(intact)
            mutated = bytearray(data)
            for _ in range(rng.randrange(1, 8)):
                start, length = rng.randrange(len(mutated)), rng.randrange(1, 40)
                match rng.randrange(3):
                    case 0:
                        mutated[start] = rng.randrange(256)
                    case 1 if len(mutated) > 80:
                        del mutated[start : start + length]
                    case _:
                        mutated[start:start] = mutated[start : start + length]
            path = tmp_path / "mutated" / f"{number}.{suffix}"
            path.write_bytes(mutated)
            yield source(path)

    before = start_all(decoders)
    counts = Counter(
        result.reason if isinstance(result, Failure) else type(result).__name__
        for result in decoders.stream(sources(), PREPROCESS, prefetch=50)
    )
    assert sum(counts.values()) == 2500
    assert counts["Decoded"] > 500
    assert min(counts["damaged"], counts["truncated"], counts["no picture inside"]) > 10
    assert start_all(decoders) == before


@needs_data
def test_hostile_files_never_crash_a_worker(decoders: DecoderPool) -> None:
    paths = sorted(path for path in (DATA_FOLDER / "hostile").rglob("*") if path.is_file())
    results = list(decoders.stream([source(path) for path in paths], PREPROCESS, prefetch=8))
    assert [result.source.path for result in results] == [str(path) for path in paths]
    assert not [
        result for result in results if isinstance(result, Failure) and result.reason == "poisoned"
    ]
