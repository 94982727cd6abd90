"""Pixels in, unit vectors out, behind one Protocol; the only place that normalises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexes import Space
from pipeline.errors import BadOutput, UnknownModel
from pipeline.view import View

DEFAULT = "neardup-0"


class Embedder(Protocol):
    """What turns pictures into vectors. Making one is cheap; libraries and weights are loaded by the first use of what needs them."""

    @property
    def name(self) -> str:
        """The name that load() knows it by."""

    @property
    def space(self) -> Space:
        """The vector space of its rows."""

    @property
    def view(self) -> View:
        """How pictures must be fitted for it."""

    def encode(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One raw row for each picture of `views` (n, size, size, 3), in order, as (n, dim); need not be of length 1."""


def load(model: str = DEFAULT) -> Embedder:
    """The embedder called `model`.

    neardup-0: in the package. open_clip:ARCH/PRETRAINED: weights that open_clip downloads. open_clip:ARCH@PATH: weights in a local file.
    Raises UnknownModel for any other name, and later, at first use, MissingExtra or BadModel.
    """
    backend, _, rest = model.partition(":")
    if model == DEFAULT:
        from pipeline.backends.onnx import Onnx

        return Onnx(Path(__file__).parent / "backends" / "neardup-0.json")
    if backend == "open_clip" and rest:
        from pipeline.backends.openclip import OpenClip

        return OpenClip(rest)
    raise UnknownModel(f"no model is called {model!r}; use {DEFAULT}, open_clip:ARCH/PRETRAINED or open_clip:ARCH@WEIGHTS_FILE")


def embed(embedder: Embedder, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Rows of length 1 (n, dim), float32, in the order of `views`. Raises BadOutput for what cosine cannot compare."""
    dim = embedder.space.dim
    if not views:
        return np.empty((0, dim), np.float32)
    rows = np.asarray(embedder.encode(np.stack(views)), dtype=np.float32)
    if rows.shape != (len(views), dim):
        raise BadOutput(f"{embedder.name} returned {rows.shape} for {len(views)} pictures, expected {(len(views), dim)}")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise BadOutput(f"{embedder.name} returned a row that is zero or not finite; its weights are damaged, or its precision is too low")
    unit: NDArray[np.float32] = (rows / norms).astype(np.float32)
    return unit
