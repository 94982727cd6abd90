"""Results of the stages of an ingest, computed once in a process for all tests.

Each is a function of bytes or pixels alone. tests/decode, tests/embed and tests/verify test them
without this, and commands that run in a process of their own compute all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from blake3 import blake3
from numpy.typing import NDArray

from pipeline import regions
from pipeline.decode.pool import DecoderPool
from pipeline.decode.preprocess import DecodedImage, Preprocess
from pipeline.embed import crops
from pipeline.embed.backends.onnx import OnnxEmbedder
from pipeline.embed.embedder import DEFAULT_MODEL
from pipeline.regions import Box
from pipeline.verify import features
from pipeline.verify.pool import VerifierPool
from pipeline.verify.worker import Operation

# Of most pictures of tests there are 0.1 MB for the embedder and 0.4 MB for verification.
MAX_REUSED_PICTURES = 500

_Key = tuple[tuple[int, ...], bytes]
_Crops = list[tuple[NDArray[np.uint8], bool]]


class _Originals(NamedTuple):
    """The functions that compute what is reused."""

    encode: Callable[..., Any] = OnnxEmbedder.encode
    extract_features: Callable[..., bytes] = features.extract_features
    decode_in_worker: Callable[..., DecodedImage] = DecoderPool._decode_in_worker
    submit: Callable[..., Callable[[], list[Any]]] = VerifierPool._submit
    find_regions: Callable[..., tuple[Box, ...]] = regions.find_regions
    crop_image: Callable[..., _Crops] = crops.crop_image


_originals = _Originals()
_rows: dict[_Key, NDArray[np.float32]] = {}
_features: dict[_Key, bytes] = {}
_decoded: dict[tuple[bytes, Preprocess, bool], DecodedImage] = {}
_answers: dict[tuple[Operation, bytes], Any] = {}
_regions: dict[_Key, tuple[Box, ...]] = {}
_crops: dict[tuple[_Key, tuple[Box, ...], Preprocess], _Crops] = {}


def reuse_results(patch: pytest.MonkeyPatch) -> None:
    """Have ingests and queries of this process compute nothing of a picture a second time."""
    patch.setattr(OnnxEmbedder, "encode", _encode)
    patch.setattr(features, "extract_features", _extract_features)
    patch.setattr(DecoderPool, "_decode_in_worker", _decode_in_worker)
    patch.setattr(DecoderPool, "start", lambda pool, file_count: None)  # the first file does
    patch.setattr(VerifierPool, "_submit", _submit)
    patch.setattr(crops, "find_regions", _find_regions)
    patch.setattr(crops, "crop_image", _crop_image)


def _encode(embedder: OnnxEmbedder, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    if embedder.name != DEFAULT_MODEL:
        rows: NDArray[np.float32] = _originals.encode(embedder, inputs)
        return rows
    keys = [_make_key(pixels) for pixels in inputs]
    new = {key: pixels for key, pixels in zip(keys, inputs, strict=True) if key not in _rows}
    if new:
        _rows.update(zip(new, _originals.encode(embedder, list(new.values())), strict=True))
    return np.stack([_rows[key] for key in keys])


def _extract_features(rgb: NDArray[np.uint8]) -> bytes:
    key = _make_key(rgb)
    if key not in _features:
        _features[key] = _originals.extract_features(rgb)
    return _features[key]


def _decode_in_worker(
    pool: DecoderPool, data: bytes, digest: bytes, preprocess: Preprocess, is_raw: bool
) -> DecodedImage:
    key = digest, preprocess, is_raw
    decoded = _decoded.get(key)
    if decoded is None:
        decoded = _originals.decode_in_worker(pool, data, digest, preprocess, is_raw)
        if len(_decoded) >= MAX_REUSED_PICTURES:
            _decoded.clear()
        _decoded[key] = decoded
    return decoded


def _submit(
    pool: VerifierPool, operation: Operation, items: Sequence[Any]
) -> Callable[[], list[Any]]:
    keys = [(operation, blake3(repr(item).encode()).digest()) for item in items]
    known = {key: _answers[key] for key in keys if key in _answers}
    new = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
    wait = _originals.submit(pool, operation, list(new.values()))

    def wait_for_all() -> list[Any]:
        answers = known | dict(zip(new, wait(), strict=True))
        _answers.update({key: answer for key, answer in answers.items() if answer is not None})
        return [answers[key] for key in keys]

    return wait_for_all


def _find_regions(pixels: NDArray[np.uint8]) -> tuple[Box, ...]:
    key = _make_key(pixels)
    if key not in _regions:
        _regions[key] = _originals.find_regions(pixels)
    return _regions[key]


def _crop_image(pixels: NDArray[np.uint8], boxes: Iterable[Box], preprocess: Preprocess) -> _Crops:
    key = _make_key(pixels), tuple(boxes), preprocess
    if key not in _crops:
        if len(_crops) >= MAX_REUSED_PICTURES:
            _crops.clear()
        _crops[key] = _originals.crop_image(pixels, key[1], preprocess)
    return _crops[key]


def _make_key(pixels: NDArray[np.uint8]) -> _Key:
    return pixels.shape, blake3(pixels.tobytes()).digest()
