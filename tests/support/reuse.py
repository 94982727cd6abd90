"""Rows and features of pictures, computed once in a process for all tests that ingest them.

Both are functions of the pixels alone. tests/embed and tests/verify test them without this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from blake3 import blake3
from numpy.typing import NDArray

from pipeline.embed.backends.onnx import OnnxEmbedder
from pipeline.embed.embedder import DEFAULT_MODEL
from pipeline.verify import features

_Key = tuple[tuple[int, ...], bytes]

_compute_rows, _rows = OnnxEmbedder.encode, dict[_Key, NDArray[np.float32]]()
_compute_features, _features = features.extract_features, dict[_Key, bytes]()


def reuse_rows_and_features(patch: pytest.MonkeyPatch) -> None:
    """Have the default model and verification in this process compute nothing a second time."""
    patch.setattr(OnnxEmbedder, "encode", _encode)
    patch.setattr(features, "extract_features", _extract_features)


def _encode(embedder: OnnxEmbedder, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    if embedder.name != DEFAULT_MODEL:
        return _compute_rows(embedder, inputs)
    keys = [_make_key(pixels) for pixels in inputs]
    new = {key: pixels for key, pixels in zip(keys, inputs, strict=True) if key not in _rows}
    if new:
        _rows.update(zip(new, _compute_rows(embedder, list(new.values())), strict=True))
    return np.stack([_rows[key] for key in keys])


def _extract_features(rgb: NDArray[np.uint8]) -> bytes:
    key = _make_key(rgb)
    if key not in _features:
        _features[key] = _compute_features(rgb)
    return _features[key]


def _make_key(pixels: NDArray[np.uint8]) -> _Key:
    return pixels.shape, blake3(pixels.tobytes()).digest()
